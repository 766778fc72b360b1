"""What can be asked of a server: how durable its live settings are, what it has written, how much it keeps.

It runs in the environments of peers too: drivers are imported where they are used.
"""

from __future__ import annotations

import os
import re
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .probes import pause

__all__ = ["bucket_of", "client_of", "connection_to", "counting", "kind_of_url", "observed", "setting_of", "stored"]

_WRITES = re.compile(rb"(?:PUT|POST|DELETE) /[^ ]* HTTP/1\.1\r\n")
_COMMITS = """SELECT coalesce(sum(count), 0)::bigint FROM pg_get_wal_stats(%s::pg_lsn, %s::pg_lsn, true)
    WHERE "resource_manager/record_type" LIKE 'Transaction/COMMIT%%'"""


def kind_of_url(url: str) -> str:
    """`postgres`, `redis` or `s3`."""
    scheme = url.partition(":")[0]
    return "postgres" if scheme.startswith("postgresql") else scheme


def connection_to(url: str) -> Any:
    """A connection to Postgres, each statement a transaction."""
    import psycopg

    return psycopg.connect(url.partition("?")[0], autocommit=True, connect_timeout=10)


def client_of(url: str) -> Any:
    """A client of Redis."""
    import redis

    return redis.Redis.from_url(url.partition("?")[0])


def bucket_of(url: str) -> Any:
    """A place in a bucket; where the server is stands in the environment."""
    from obstore.store import S3Store

    parts = urllib.parse.urlsplit(url)
    return S3Store(
        parts.netloc,
        prefix=parts.path.strip("/"),
        endpoint=os.environ["AWS_ENDPOINT_URL"],
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )


def setting_of(url: str) -> str:
    """The server's settings as they are read back, in a few words."""
    kind = kind_of_url(url)
    if kind == "postgres":
        with connection_to(url) as db:
            found = [(name, db.execute(f"SHOW {name}").fetchone()[0]) for name in ("fsync", "synchronous_commit")]
    elif kind == "redis":
        with client_of(url) as client:
            found = [(name, client.config_get(name)[name]) for name in ("appendonly", "appendfsync")]
    else:
        return "what the bucket acknowledges"
    return ", ".join(f"{name}={value}" for name, value in found)


def stored(url: str) -> int:
    """Bytes that are kept: of a database, of the append-only file of a server, or of the objects below a prefix."""
    kind = kind_of_url(url)
    if kind == "postgres":
        with connection_to(url) as db:
            return int(db.execute("SELECT pg_database_size(current_database())").fetchone()[0])
    if kind == "redis":
        with client_of(url) as client:
            return sum(path.stat().st_size for path in _journals(client))
    import obstore

    return sum(one["size"] for found in obstore.list(bucket_of(url)) for one in found)


# ---- durable writes


@contextmanager
def observed(store: str) -> Iterator[None]:
    """Make the writes of a block countable: those to S3 go through a proxy, which costs time."""
    if store != "s3":
        yield
        return
    from tests.servers.proxy import proxy

    endpoint = os.environ["AWS_ENDPOINT_URL"]
    with proxy(int(endpoint.rpartition(":")[2])) as between:

        def on_bytes(link: Any, way: str, data: bytes) -> None:
            if way == "up":
                Requests.seen(data)
            link.send(way, data)

        between.on_bytes = on_bytes
        os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{between.port}"
        try:
            yield
        finally:
            os.environ["AWS_ENDPOINT_URL"] = endpoint


class Requests:
    """Requests that write, of this process, while it is `observed`."""

    count = 0
    _lock = threading.Lock()

    @classmethod
    def seen(cls, data: bytes) -> None:
        """Count those whose first line is in these bytes."""
        with cls._lock:
            cls.count += len(_WRITES.findall(data))


@contextmanager
def counting(url: str, into: dict[str, float], name: str) -> Iterator[None]:
    """Count the durable writes of a block.

    Commits of Postgres that wrote something, units of Redis' append-only file (a script's writes are one), or requests
    to S3 that write (see `observed`).
    """
    kind = kind_of_url(url)
    if kind == "postgres":
        with connection_to(url) as db:
            db.execute("CREATE EXTENSION IF NOT EXISTS pg_walinspect")
            began = _position(db)
            yield
            ended = _position(db)
            into[name] = db.execute(_COMMITS, (began, ended)).fetchone()[0] if began != ended else 0
    elif kind == "redis":
        with client_of(url) as client:
            before = _units(client)
            yield
            into[name] = _units(client) - before
    else:
        before = Requests.count
        yield
        into[name] = Requests.count - before


def _position(db: Any) -> str:
    """How far the log was written, once it is on disk to here."""
    wanted = str(db.execute("SELECT pg_current_wal_insert_lsn()").fetchone()[0])
    for _ in range(1000):
        if db.execute("SELECT pg_current_wal_flush_lsn() >= %s::pg_lsn", (wanted,)).fetchone()[0]:
            return wanted
        pause(0.005)  # the log writer brings what no commit waited for
    raise TimeoutError("the log is not written")


def _journals(client: Any) -> list[Path]:
    found = client.config_get("dir", "appenddirname")
    return sorted(Path(found["dir"], found["appenddirname"]).glob("*.aof"))


def _units(client: Any) -> int:
    return sum(_units_in(path.read_bytes()) for path in _journals(client) if ".incr." in path.name)


def _units_in(journal: bytes) -> int:
    """The commands of an append-only file, a transaction counted as one."""
    at = count = 0
    inside = False
    while at < len(journal):
        end = journal.index(b"\r\n", at)
        line, at = journal[at:end], end + 2
        if line[:1] != b"*":  # a comment with a time
            continue
        words = []
        for _ in range(int(line[1:])):
            end = journal.index(b"\r\n", at)
            size = int(journal[at + 1 : end])
            words.append(journal[end + 2 : end + 2 + size])
            at = end + size + 4
        verb = words[0].upper()
        inside = verb == b"MULTI" or (inside and verb != b"EXEC")
        count += not inside and verb != b"SELECT"
    return count
