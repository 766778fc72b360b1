"""Every byte of a Postgres store, looked at and left as it is."""

# ruff: noqa: S608 - statements are put together from constants and a checked schema name; every value is a parameter

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

from attrs import define, field
from msgspec.structs import replace

from stepwell.errors import CorruptHistoryError, NewerFormatError, StoreError, StoreMisconfiguredError
from stepwell.store import Verified

from .connections import Connections
from .history import checked, table_of
from .rows import Row, Statements
from .session import Session

__all__ = ["verify"]

T = TypeVar("T")

_PAGE = 200  # runs whose names are held at once
_GAP = 10  # incarnations that are missing before what is there; a damaged number may be any
_TABLES = ("events", "attempts", "tags", "waits")


def verify(connections: Connections, sql: Statements, place: str) -> Iterator[Verified]:
    """Read all records, run by run, each run on one snapshot; what can't be read is a problem of its own."""
    return _Look(connections, sql, place).parts()


@define
class _Look:
    """One look at a schema, from its first run to its last."""

    connections: Connections
    sql: Statements
    place: str
    total: int = 0
    done: int = 0
    seen: set[str] = field(factory=set)

    def parts(self) -> Iterator[Verified]:
        """All parts."""
        self.connections.read(
            lambda session: session.at_rest
        )  # whether it can be opened: if not, nothing else can be said
        yield Verified(self.place, share=0.0)
        total, wrong = self._tried(self._table("events"), self._records)
        self.total = total or 0
        yield from wrong
        after = ""
        while True:
            page, wrong = self._tried(self._table("runs"), partial(self._page, after))
            yield from wrong
            for run_id in page or ():
                yield from self._run(run_id)
            if not page:
                break
            after = page[-1]
        for name in _TABLES:
            orphans, wrong = self._tried(self._table(name), partial(self._orphans, name))
            yield from wrong
            for run_id in orphans or ():
                where = f"{self._table(name)}, run {run_id!r}"
                yield Verified(where, problem=_problem(where, "belongs to no run"))
        yield Verified(self._table("runs"), share=1.0)

    def _table(self, name: str) -> str:
        return f"{self.place}, table stepwell_{name}"

    def _records(self, session: Session) -> int:
        found = session.one(f"SELECT count(*) FROM {self.sql.table}events")
        return 0 if found is None else int(found[0])

    def _page(self, after: str, session: Session) -> list[str]:
        statement = f"SELECT run_id FROM {self.sql.table}runs WHERE run_id > %s ORDER BY run_id LIMIT %s"
        return [run_id for (run_id,) in session.run(statement, (after, _PAGE))]

    def _orphans(self, name: str, session: Session) -> list[str]:
        runs = f"SELECT FROM {self.sql.table}runs r WHERE r.run_id = x.run_id"
        comes = f"SELECT FROM {self.sql.table}deleted d WHERE d.run_id = x.run_id AND d.arrival IS NOT NULL"
        none = f"NOT EXISTS ({runs}) AND NOT EXISTS ({comes})"
        statement = f"SELECT DISTINCT run_id FROM {self.sql.table}{name} x WHERE {none}"
        return [run_id for (run_id,) in session.run(statement)]

    def _run(self, run_id: str) -> Iterator[Verified]:
        where = f"{self._table('runs')}, run {run_id!r}"
        parts, wrong = self._tried(where, partial(self._parts_of, run_id))
        yield from (replace(part, run_id=run_id) for part in wrong)
        for part in parts or ():
            self.done += len(part.records)
            yield replace(part, share=min(1.0, self.done / max(self.total, 1)))

    def _parts_of(self, run_id: str, session: Session) -> list[Verified]:
        return list(self._looked(session, run_id))

    def _looked(self, session: Session, run_id: str) -> Iterator[Verified]:
        found = session.one(self.sql.find, {"run": run_id, "clock": 0})
        if found is None:
            return  # deleted meanwhile
        row = Row(*found)
        counts = f"""SELECT incarnation, count(*), max(seq) + 1 FROM {self.sql.table}events WHERE run_id = %s
            GROUP BY incarnation"""
        there = {number: (count, end) for number, count, end in session.run(counts, (run_id,))}
        expected = range(min(row.incarnation + 1, len(there) + _GAP))
        for number in sorted({*there, *expected}):
            yield self._history(session, row, number, *there.get(number, (0, 0)))
        where = f"{self._table('runs')}, run {run_id!r}"
        try:
            blocked = row.run_head(self.place).head.blocked
        except CorruptHistoryError as e:
            yield Verified(where, run_id, problem=e)
            return
        by = session.one(f"SELECT blocked_by FROM {self.sql.table}runs WHERE run_id = %s", (run_id,))
        if by is not None and by[0] != (None if blocked is None else json.dumps(blocked.fingerprints)):
            yield Verified(where, run_id, problem=_problem(where, "blocked and blocked_by disagree"))

    def _history(self, session: Session, row: Row, number: int, count: int, there: int) -> Verified:
        end = row.seq if number == row.incarnation else there
        table = table_of(self.place, row.run_id, number)
        which = (row.run_id, number, 0, max(end, there))
        lines = [body for (body,) in session.run(self.sql.bodies, which)]
        try:
            checked(session, self.sql, table, which, lines)
        except CorruptHistoryError as e:
            return Verified(table, row.run_id, number, problem=e)
        problem = None
        if number > row.incarnation or count != end or not lines:
            problem = _problem(table, f"{count} records are there, and the index says {end if lines else 'more'}")
        return Verified(table, row.run_id, number, lines, sum(map(len, lines)), problem)

    def _tried(self, place: str, work: Callable[[Session], T]) -> tuple[T | None, list[Verified]]:
        """What reading gives, or None and what is wrong.

        Raises:
            StoreError, NewerFormatError: the server is away, or it is no store any more; nothing is damaged.
        """

        def patiently(session: Session) -> T:
            session.run("SET LOCAL statement_timeout = 0")
            return work(session)

        try:
            return self.connections.transaction(patiently, snapshot=True), []
        except (NewerFormatError, StoreMisconfiguredError):
            raise
        except (CorruptHistoryError, StoreError) as e:
            if e.retryable:
                raise
            problem = CorruptHistoryError(f"{place}: can't be read: {e.message}; check the disk", place=place)
            return None, [Verified(place, problem=problem, unread=True)]


def _problem(place: str, what: str) -> CorruptHistoryError:
    return CorruptHistoryError(f"{place}: {what}; restore it from a backup", place=place)
