"""What planted bugs mean in the stores on servers; those whose driver is not installed are passed by.

A store in a bucket decides in memory and creates the next key, and one in Redis runs a script, so the same rule is
taken away in different places: a condition of a statement, a line of a script, a function, the condition of a write.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable
from typing import Any

from stepwell_stores.redis import prelude as redis_prelude
from stepwell_stores.redis import reads as redis_reads
from stepwell_stores.redis import scripts as redis_scripts
from stepwell_stores.redis import store as redis

__all__ = ["asynchronously", "blind_creates", "lapsed_leases", "server_stores", "without_fences"]


def server_stores() -> list[type[Any]]:
    """The stores on servers that can be had here."""
    found: list[type[Any]] = [redis.RedisStore]
    if _here("psycopg"):
        from stepwell_stores.postgres import PostgresStore

        found.append(PostgresStore)
    if _here("obstore"):
        from stepwell_stores.s3 import S3Store

        found.append(S3Store)
    return found


def without_fences() -> None:
    """No statement and no script compares an owner's number. (The bucket's decisions ask `Position`, as all do.)"""
    _rewrite_scripts("at[2] ~= ARGV[5] or", "")
    _rewrite_scripts("if at[2] ~= ARGV[5] then return {'fenced', at[2]} end", "")
    _rewrite_statements("AND r.fence = $3", "AND $3::bigint IS NOT NULL")
    _rewrite_statements("AND r.fence = a.fence", "")


def lapsed_leases() -> None:
    """Every lease is taken for one that has lapsed."""
    _rewrite_scripts("local function live(run) return run.u ~= '' and tonumber(run.u) > now() end",
                     "local function live() end")  # fmt: skip
    if _here("psycopg"):
        from stepwell_stores.postgres import rows

        init = rows.Statements.__init__

        def blind(self: Any, *args: Any, **how: Any) -> None:
            init(self, *args, **how)
            for name, text in vars(self).items():
                if isinstance(text, str):
                    bare = text.replace(self.live, "false")
                    setattr(self, name, bare.replace(f"AND (r.lease_until IS NULL OR r.lease_until <= {self.now})", ""))

        vars(rows)["Statements"].__init__ = blind
    if _here("obstore"):
        from stepwell_stores.s3 import entries

        entries.State.live = lambda *_: None  # type: ignore[method-assign]


def blind_creates() -> None:
    """Whether a run id is taken is looked for by a read of its own; then the run is made, whatever is there."""
    _blind_keys()
    if _here("psycopg"):
        _blind_rows()
    if _here("obstore"):
        _blind_objects()


def _blind_keys() -> None:
    real, looking = redis.RedisStore.create, redis_scripts.CREATE
    blind = redis_prelude.Script("create", "")
    blind.text = looking.text.replace("local run = load(ARGV[2])\nif run", "local run\nif run")
    blind.text = blind.text.replace("return {'remains', run.log}", "redis.call('DEL', run.log)")
    blind.sha = hashlib.sha1(blind.text.encode(), usedforsecurity=False).hexdigest()

    def create(self: Any, run_id: str, *args: Any, **how: Any) -> Any:
        redis_scripts.CREATE = blind if self.head(run_id) is None else looking
        try:
            return real(self, run_id, *args, **how)
        finally:
            redis_scripts.CREATE = looking

    redis.RedisStore.create = create  # type: ignore[method-assign]


def _blind_rows() -> None:
    from stepwell_stores.postgres import PostgresStore

    real = PostgresStore.create

    def create(self: Any, run_id: str, *args: Any, **how: Any) -> Any:
        if self.head(run_id) is None:
            for table in ("events", "attempts", "runs"):
                text = f"DELETE FROM {self._sql.table}{table} WHERE run_id = %s"
                self._connections.write(lambda session, text=text: session.run(text, (run_id,)))
        return real(self, run_id, *args, **how)

    PostgresStore.create = create  # type: ignore[method-assign]


def _blind_objects() -> None:
    from stepwell_stores.s3 import S3Store
    from stepwell_stores.s3.bucket import Bucket

    real, put, blind = S3Store.create, Bucket._put, [False]

    def create(self: Any, run_id: str, *args: Any, **how: Any) -> Any:
        blind[0] = self.head(run_id) is None
        try:
            return real(self, run_id, *args, **how)
        finally:
            blind[0] = False

    def over(self: Any, key: str, data: bytes, mode: Any) -> None:
        put(self, key, data, "overwrite" if blind[0] and key.startswith("runs/") else mode)

    S3Store.create = create  # type: ignore[method-assign]
    Bucket._put = over  # type: ignore[method-assign]


def asynchronously() -> None:
    """What a Postgres server says is committed, it writes a moment later."""
    from stepwell_stores.postgres import rows, session

    vars(session)["_BEGIN"] = session._BEGIN.replace("ELSE 'on' END", "ELSE 'off' END")
    vars(rows)["_SETTINGS"] = rows._SETTINGS.replace("ELSE 'on' END", "ELSE 'off' END")


def _rewrite_scripts(old: str, new: str) -> None:
    """Have every script of the Redis store say something else."""
    for module in (redis_scripts, redis_reads):
        for script in vars(module).values():
            if isinstance(script, redis_prelude.Script):
                text = script.text.replace(old, new)
                script.text, script.sha = text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _rewrite_statements(old: str, new: str) -> None:
    """Have the statements of an owner's appends to Postgres say something else, and have other names."""
    if not _here("psycopg"):
        return
    from stepwell_stores.postgres.session import Quick

    real: Callable[[str, str], Any] = Quick.of

    def of(text: str, formats: str) -> Any:
        return real(text.replace(old, new), formats)

    Quick.of = staticmethod(of)  # type: ignore[method-assign]


def _here(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
