"""Every byte of a SQLite store, looked at and left as it is."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from attrs import define, field
from msgspec.structs import replace

from stepwell.errors import CorruptHistoryError, NewerFormatError, StoreError, StoreMisconfiguredError
from stepwell.store import Verified

from .database import Database
from .history import lines_of
from .rows import Row, find_row
from .schema import primary_code

__all__ = ["verify"]

T = TypeVar("T")

_PAGE = 200  # runs whose names are held at once
_TOLD = 10  # findings of SQLite's own that are told
_GAP = 10  # incarnations that are missing before what is there; a damaged number may be any
_RUNS = "SELECT run_id FROM stepwell_runs WHERE run_id > ? ORDER BY run_id LIMIT ?"
_NUMBERS = "SELECT DISTINCT incarnation FROM stepwell_events WHERE run_id = ? ORDER BY incarnation"
_COUNT = "SELECT count(*), max(seq) FROM stepwell_events WHERE run_id = ? AND incarnation = ?"
_ORPHANS = """SELECT run_id FROM stepwell_{0}
    WHERE run_id NOT IN (SELECT run_id FROM stepwell_runs)
    AND run_id NOT IN (SELECT run_id FROM stepwell_deleted WHERE arrival IS NOT NULL) GROUP BY run_id"""
_BLOCKED_BY = "SELECT blocked_by FROM stepwell_runs WHERE run_id = ?"
_TABLES = ("events", "attempts", "tags", "waits")

# Other ways to the ids of runs, when the index by which they are listed has a page that can't be read. Each way is gone
# from both ends, so that all is found but what is on such a page.
_ROWS = (
    "SELECT run_id FROM stepwell_runs NOT INDEXED ORDER BY rowid",
    "SELECT run_id FROM stepwell_runs NOT INDEXED ORDER BY rowid DESC",
)
_OTHER_WAYS = (
    "SELECT run_id FROM stepwell_runs ORDER BY run_id DESC",
    "SELECT DISTINCT run_id FROM stepwell_events ORDER BY run_id",
    "SELECT DISTINCT run_id FROM stepwell_events ORDER BY run_id DESC",
)


def verify(database: Database, path: str) -> Iterator[Verified]:
    """Have SQLite check its pages, then read all records, run by run, each run on one snapshot.

    What can't be read is a problem of its own, and the next is read. A file that can't be written is read without.
    """
    reading = database.for_reading()
    if reading is None:
        yield from _Look(database, path).parts()
        return
    try:
        parts = _Look(reading, path).parts()
        yield next(parts)  # it can be read at all
        yield Verified(path, note="can't be written, and was opened for reading only", share=0.0)
        yield from parts
    finally:
        reading.close()


@define
class _Look:
    """One look at a file, from its first part to its last."""

    database: Database
    path: str
    total: int = 0
    done: int = 0
    damaged: bool = False
    seen: set[str] = field(factory=set)

    def parts(self) -> Iterator[Verified]:
        """All parts."""
        self.database.read(_nothing)  # whether it can be opened: if not, nothing else can be said
        yield self._pages()
        total, wrong = self._tried(self._table("events"), _records)
        self.total = total or 0
        yield from wrong
        after = ""
        while True:
            page, wrong = self._tried(self._table("runs"), _page, after)
            for run_id in page or ():
                yield from self._run(run_id)
            if not page:
                yield from wrong
                break
            after = page[-1]
        if wrong or self.damaged:
            yield from self._others(listed=not wrong)
        for name in _TABLES:
            orphans, wrong = self._tried(self._table(name), _orphans, name)
            yield from wrong
            for run_id in orphans or ():
                place = f"{self._table(name)}, run {run_id!r}"
                yield Verified(place, problem=_problem(place, "belongs to no run"))

    def _table(self, name: str) -> str:
        return f"{self.path}, table stepwell_{name}"

    def _pages(self) -> Verified:
        """The file as SQLite's own check finds it."""
        checked, wrong = self._tried(self.path, _integrity)
        if checked is None:
            self.damaged = True
            return replace(wrong[0], share=0.0)
        size, found = checked
        problem = None
        if found != ["ok"]:
            problem = _problem(self.path, "SQLite finds it damaged: " + "; ".join(found))
        self.damaged = problem is not None
        return Verified(self.path, size=size, problem=problem, unread=len(found) >= _TOLD, share=0.0)

    def _run(self, run_id: str) -> Iterator[Verified]:
        """A run on one snapshot; if that fails, piece by piece, so that one bad page hides no more than it holds."""
        self.seen.add(run_id)
        parts, _ = self._tried("", _run, self.path, run_id)
        for part in self._pieces(run_id) if parts is None else parts:
            self.done += len(part.records)
            yield replace(part, share=min(1.0, self.done / max(self.total, 1)))

    def _pieces(self, run_id: str) -> Iterator[Verified]:
        """The parts of a run, each on a snapshot of its own."""
        row_place, place = (f"{self._table(name)}, run {run_id!r}" for name in ("runs", "events"))
        row, wrong = self._tried(row_place, _row, self.path, run_id)
        yield from wrong
        found, wrong = self._tried(place, _numbers, run_id)
        yield from wrong
        for number in _expected(row, found or []):
            part, wrong = self._tried(_place(self.path, run_id, number), _history, self.path, run_id, number, row)
            yield from (replace(one, run_id=run_id, incarnation=number) for one in wrong)
            if part is not None:
                yield part
        if row is not None:
            parts, wrong = self._tried(row_place, _index, self.path, row)
            yield from (*wrong, *(parts or ()))

    def _others(self, *, listed: bool) -> Iterator[Verified]:
        """The runs that the index by which they are listed does not have, or that come after a page of it that is bad.

        Args:
            listed: whether the index could be read to its end.
        """
        found: set[str] = set()
        place, failed = self._table("runs"), None
        for statement in (*_ROWS, *_OTHER_WAYS):
            _, wrong = self._tried(place, _collect, statement, found)
            if not wrong and statement in _ROWS:
                break  # that was all of them
            failed = failed or (wrong[0].problem if wrong else None)
        else:
            if failed is not None and not listed:
                what = "neither its index nor its rows can be read to the end, so runs may be left out"
                yield _unread(place, what, failed)
        for run_id in sorted(found - self.seen):
            yield from list(self._run(run_id)) or self._pieces(run_id)

    def _tried(self, place: str, work: Callable[..., T], *values: Any) -> tuple[T | None, list[Verified]]:
        """What reading gives, or None and what is wrong.

        Raises:
            StoreError, NewerFormatError: it is busy, or no store any more; nothing is damaged.
        """
        try:
            return self.database.read(lambda db: work(db, *values)), []
        except (NewerFormatError, StoreMisconfiguredError):
            raise
        except (CorruptHistoryError, StoreError) as e:
            cause = e.__cause__
            code = primary_code(cause) if isinstance(cause, sqlite3.Error) else 0
            if e.retryable and code != sqlite3.SQLITE_IOERR:
                raise
            return None, [_unread(place, f"can't be read: {e.message if cause is None else cause}", e)]
        except TypeError as e:  # a damaged page may have a value of any type in any column
            return None, [Verified(place, problem=_problem(place, f"has a value of another type: {e}"), unread=True)]


def _nothing(_: sqlite3.Connection) -> None:
    pass


def _integrity(db: sqlite3.Connection) -> tuple[int, list[str]]:
    """The file's size, and what SQLite says of its pages."""
    pages, page = db.execute("PRAGMA page_count").fetchone()[0], db.execute("PRAGMA page_size").fetchone()[0]
    return pages * page, [str(row[0]) for row in db.execute(f"PRAGMA integrity_check({_TOLD})")]


def _records(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT count(*) FROM stepwell_events").fetchone()[0])


def _page(db: sqlite3.Connection, after: str) -> list[str]:
    """The next run ids; a damaged index may have others than the rows, in any order."""
    found = [row[0] for row in db.execute(_RUNS, (after, _PAGE))]
    last = after
    for run_id in found:
        if not isinstance(run_id, str) or run_id <= last:
            raise CorruptHistoryError(f"the index is not in order at {run_id!r}")
        last = run_id
    return found


def _collect(db: sqlite3.Connection, statement: str, found: set[str]) -> None:
    """Add run ids as far as they can be read."""
    for (run_id,) in db.execute(statement):
        if isinstance(run_id, str):
            found.add(run_id)


def _orphans(db: sqlite3.Connection, table: str) -> list[str]:
    return [row[0] for row in db.execute(_ORPHANS.format(table))]


def _row(db: sqlite3.Connection, path: str, run_id: str) -> Row | None:
    row = find_row(db, run_id)
    if row is None or (type(row.incarnation), type(row.seq)) == (int, int):
        return row
    raise CorruptHistoryError(f"{path}, table stepwell_runs, run {run_id!r}: its position is no number", place=path)


def _run(db: sqlite3.Connection, path: str, run_id: str) -> list[Verified]:
    row = _row(db, path, run_id)
    if row is None:
        return []  # deleted meanwhile
    numbers = _expected(row, _numbers(db, run_id))
    return [*(_history(db, path, run_id, number, row) for number in numbers), *_index(db, path, row)]


def _numbers(db: sqlite3.Connection, run_id: str) -> list[int]:
    return [number for (number,) in db.execute(_NUMBERS, (run_id,)) if isinstance(number, int)]


def _expected(row: Row | None, found: list[int]) -> list[int]:
    """The incarnations that are there and those that should be."""
    end = 0 if row is None else min(row.incarnation + 1, len(found) + _GAP)
    return sorted({*found, *range(end)})


def _place(path: str, run_id: str, number: int) -> str:
    return f"{path}, table stepwell_events, run {run_id!r}, incarnation {number}"


def _history(db: sqlite3.Connection, path: str, run_id: str, number: int, row: Row | None) -> Verified:
    """The records of one incarnation; without its row nobody knows how many they should be."""
    count, last = db.execute(_COUNT, (run_id, number)).fetchone()
    there = 0 if last is None else last + 1
    end = there
    if row is not None and number == row.incarnation:
        end = row.seq if row.closed else max(row.seq, there)
    place = _place(path, run_id, number)
    try:
        lines = lines_of(db, path, run_id, number, 0, end)
    except CorruptHistoryError as e:
        return Verified(place, run_id, number, problem=e)
    problem = None
    if (row is not None and number > row.incarnation) or count != end or not lines:
        problem = _problem(place, f"{count} records are there, and the index says {end if lines else 'more'}")
    return Verified(place, run_id, number, lines, sum(map(len, lines)), problem)


def _index(db: sqlite3.Connection, path: str, row: Row) -> list[Verified]:
    """What is wrong with a run's row."""
    place = f"{path}, table stepwell_runs, run {row.run_id!r}"
    try:
        blocked = row.run_head(False, path).head.blocked
    except CorruptHistoryError as e:
        return [Verified(place, row.run_id, problem=e)]
    expected = None if blocked is None else json.dumps(blocked.fingerprints)
    found = db.execute(_BLOCKED_BY, (row.run_id,)).fetchone()
    if found is None or found[0] == expected:
        return []
    return [Verified(place, row.run_id, problem=_problem(place, "blocked and blocked_by disagree"))]


def _unread(place: str, what: str, error: CorruptHistoryError | StoreError) -> Verified:
    """A part that an error kept from being read."""
    problem: CorruptHistoryError | StoreError = StoreError(f"{place}: {what}; check the disk")
    if isinstance(error, CorruptHistoryError):
        remedy = "check the disk, and restore it from a backup"
        problem = CorruptHistoryError(f"{place}: {what}; {remedy}", place=place)
    return Verified(place, problem=problem, unread=True)


def _problem(place: str, what: str) -> CorruptHistoryError:
    return CorruptHistoryError(f"{place}: {what}; restore it from a backup", place=place)
