"""The upkeep of the Postgres store: closed runs by index, sizes, and what the server's settings survive."""

# ruff: noqa: S608 - statements are put together from constants and a checked schema name; every value is a parameter

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from stepwell.errors import CorruptHistoryError
from stepwell.store import ClosedKey, Durability, Head, RunHead, Status, StoreSize

from ..rules import check_limit, status_from
from .address import psycopg
from .connections import Connections
from .rewrite import rewrite
from .rows import Row, Statements
from .session import Session

__all__ = ["PostgresUpkeep", "closed_statement", "durability_of"]

_KEY = ("workflow", "updated", "run_id")
_SETTINGS = ("fsync", "full_page_writes", "synchronous_commit", "synchronous_standby_names", "data_checksums")
_ON = "on"
_LITTLE = 256 * 1024  # bytes of a table that is not worth a look: to vacuum it makes two more files


def durability_of(place: str) -> Callable[[Session], Durability]:
    """Read what the server's live settings survive."""

    def work(session: Session) -> Durability:
        asked = ", ".join(f"current_setting('{name}', true)" for name in (*_SETTINGS, "server_version"))
        found = session.one(f"SELECT {asked}")
        assert found is not None
        *values, version = found
        settings: dict[str, Any] = dict(zip(_SETTINGS, values, strict=True))
        kept = settings["fsync"] == settings["full_page_writes"] == _ON
        standbys = bool(settings["synchronous_standby_names"])
        if settings["synchronous_commit"] != "remote_apply":
            settings["synchronous_commit"] = f"{settings['synchronous_commit']}, on for each write"
        if not kept:
            remedy = "set fsync and full_page_writes on at the server"
            settings["advice"] = f"a power cut loses or damages what was acknowledged; {remedy}"
        told = {"store": "postgres", "place": place, "postgres": str(version).split(" ")[0], **settings}
        return Durability(process_crash=True, power_loss=kept, failover=standbys and kept, settings=told)

    return work


def closed_statement(
    sql: Statements, after: ClosedKey | None, before: ClosedKey | None, newest_first: bool, limit: int
) -> tuple[str, dict[str, Any]]:
    """The statement that lists a page of closed runs by index, and its values but the clock."""
    conditions, values = ["r.closed"], dict[str, Any](limit=limit)
    columns = ", ".join(f"r.{name}" for name in _KEY)
    for which, key, than in (("after", after, ">"), ("before", before, "<")):
        if key is not None:
            conditions.append(f"({columns}) {than} (%({which}0)s, %({which}1)s, %({which}2)s)")
            values |= {f"{which}{i}": part for i, part in enumerate(key)}
    order = ", ".join(f"r.{name}{' DESC' if newest_first else ''}" for name in _KEY)
    where = " AND ".join(conditions)
    return f"SELECT {sql.columns} FROM {sql.table}runs r WHERE {where} ORDER BY {order} LIMIT %(limit)s", values


class PostgresUpkeep:
    """Which runs are closed, and what the schema takes."""

    if TYPE_CHECKING:  # what the store itself has
        place: str
        _connections: Connections
        _sql: Statements
        _now: Callable[[], dict[str, int]]

    def closed(
        self,
        *,
        after: ClosedKey | None = None,
        before: ClosedKey | None = None,
        newest_first: bool = False,
        limit: int,
    ) -> list[RunHead]:
        """A page of closed runs; see the port."""
        check_limit(limit)

        def work(session: Session) -> list[RunHead]:
            first, last = after, before
            while True:
                statement, values = closed_statement(self._sql, first, last, newest_first, limit)
                found = session.run(statement, {**values, **self._now()}, prepare=False).fetchall()
                rows = [Row(*one) for one in found]
                heads = [head for row in rows if (head := self._whole(row)) is not None]
                if heads or len(rows) < limit:
                    return heads
                end = (rows[-1].workflow, rows[-1].updated, rows[-1].run_id)  # all of them are damaged
                first, last = (first, end) if newest_first else (end, last)

        return self._connections.read(work)

    def _whole(self, row: Row) -> RunHead | None:
        try:
            return row.run_head(self.place)
        except CorruptHistoryError:
            return None

    def rewrite(
        self,
        run_id: str,
        incarnation: int,
        from_seq: int,
        old: Sequence[bytes],
        new: Sequence[bytes],
        *,
        head: tuple[Head, Head] | None = None,
    ) -> bool:
        """Put other records in place of these; see `Rewritable`."""
        at, clock = (run_id, incarnation, from_seq), self._now()
        return self._connections.transaction(
            lambda session: rewrite(session, self._sql, self.place, at, old, new, head, clock)
        )

    def size(self) -> StoreSize:
        """How large it is; see the port.

        `free` is an estimate: the records that were removed since the tables grew the last time, or were vacuumed here.
        """
        table = self._sql.table
        statuses = f"""SELECT CASE WHEN {self._sql.live} THEN 'running' ELSE r.status END, count(*)
            FROM {table}runs r GROUP BY 1"""
        events = f"""SELECT coalesce((SELECT sum(next_seq) FROM {table}runs), 0)::bigint + (SELECT count(*)
            FROM {table}runs r JOIN {table}events e ON e.run_id = r.run_id AND e.incarnation < r.incarnation
            WHERE r.incarnation > 0)"""
        free = f"""SELECT coalesce(sum(freed) - (max(taken) - pg_table_size('{table}events')), 0)::bigint
            FROM {table}deleted WHERE freed > 0 AND taken >= pg_table_size('{table}events')"""
        sizes = " + ".join("pg_total_relation_size(%s::regclass)" for _ in self._sql.tables)

        def work(session: Session) -> StoreSize:
            session.run("SET LOCAL statement_timeout = 0")
            runs: Counter[Status] = Counter()
            for status, count in session.run(statuses, self._now()).fetchall():
                try:
                    runs["running" if status == "running" else status_from(status)] += count
                except ValueError as e:
                    raise CorruptHistoryError(f"{self.place}, table stepwell_runs: {e}", place=self.place) from e
            counted = [session.one(events), session.one(f"SELECT {sizes}", self._sql.tables), session.one(free)]
            records, taken, left = (0 if row is None else int(row[0]) for row in counted)
            return StoreSize(dict(runs), records, taken, min(max(left, 0), taken))

        return self._connections.transaction(work, snapshot=True)

    def vacuum(self) -> int:
        """Give free space back, as far as it is at the ends of tables; see the port. The rest is filled again."""
        before = self.size().bytes

        def work(session: Session) -> None:
            large = "SELECT t FROM unnest(%s::text[]) AS t WHERE pg_total_relation_size(t::regclass) > %s"
            for (table,) in session.run(large, (self._sql.tables, _LITTLE)).fetchall():
                with psycopg.Cursor(session.raw) as cursor:
                    cursor.execute(f"VACUUM {table}".encode())
            session.run(f"UPDATE {self._sql.table}deleted SET freed = 0 WHERE freed > 0")

        self._connections.write(work)
        return max(0, before - self.size().bytes)
