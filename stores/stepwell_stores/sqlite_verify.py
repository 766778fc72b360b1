"""Every byte of a SQLite store, looked at and left as it is."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator

from attrs import evolve

from stepwell.errors import CorruptHistoryError
from stepwell.store import Verified

from .sqlite_database import Database
from .sqlite_history import lines_of
from .sqlite_rows import find

__all__ = ["verify"]

_PAGE = 200  # runs whose names are held at once
_RUNS = "SELECT run_id FROM stepwell_runs WHERE run_id > ? ORDER BY run_id LIMIT ?"
_COUNTS = "SELECT incarnation, count(*), max(seq) FROM stepwell_events WHERE run_id = ? GROUP BY incarnation"
_ORPHANS = """SELECT 'stepwell_{0}', run_id FROM stepwell_{0}
    WHERE run_id NOT IN (SELECT run_id FROM stepwell_runs) GROUP BY run_id"""
_BLOCKED_BY = "SELECT blocked_by FROM stepwell_runs WHERE run_id = ?"
_TABLES = ("events", "attempts", "tags", "waits")


def verify(database: Database, path: str) -> Iterator[Verified]:
    """Have SQLite check its pages, then read all records, run by run, each run on one snapshot."""
    size, total = database.read(_extent)
    found = database.read(lambda db: [str(row[0]) for row in db.execute("PRAGMA integrity_check(10)")])
    wrong = None if found == ["ok"] else _problem(path, "SQLite finds it damaged: " + "; ".join(found))
    yield Verified(path, size=size, problem=wrong, share=0.0)
    done, after = 0, ""
    while page := database.read(lambda db, after=after: db.execute(_RUNS, (after, _PAGE)).fetchall()):  # type: ignore[misc]
        for (run_id,) in page:
            for part in database.read(lambda db, run_id=run_id: _run(db, path, run_id)):  # type: ignore[misc]
                done += len(part.records)
                yield evolve(part, share=min(1.0, done / max(total, 1)))
        after = page[-1][0]
    for table, run_id in database.read(_orphans):
        place = f"{path}, table {table}, run {run_id!r}"
        yield Verified(place, problem=_problem(place, "belongs to no run"))


def _extent(db: sqlite3.Connection) -> tuple[int, int]:
    pages, page = db.execute("PRAGMA page_count").fetchone()[0], db.execute("PRAGMA page_size").fetchone()[0]
    return pages * page, db.execute("SELECT count(*) FROM stepwell_events").fetchone()[0]


def _orphans(db: sqlite3.Connection) -> list[tuple[str, str]]:
    return [row for table in _TABLES for row in db.execute(_ORPHANS.format(table))]


def _run(db: sqlite3.Connection, path: str, run_id: str) -> list[Verified]:
    row = find(db, run_id)
    if row is None:
        return []  # deleted meanwhile
    counts = {number: (count, last) for number, count, last in db.execute(_COUNTS, (run_id,))}
    parts = []
    for number in sorted({*range(row.incarnation + 1), *counts}):
        count, last = counts.get(number, (0, -1))
        end = row.seq if number == row.incarnation else last + 1
        place = f"{path}, table stepwell_events, run {run_id!r}, incarnation {number}"
        try:
            lines = lines_of(db, path, run_id, number, 0, end)
        except CorruptHistoryError as e:
            parts.append(Verified(place, run_id, number, problem=e))
            continue
        problem = None
        if number > row.incarnation or count != end or not lines:
            problem = _problem(place, f"{count} records are there, and the index says {end if lines else 'more'}")
        parts.append(Verified(place, run_id, number, lines, sum(map(len, lines)), problem))
    place = f"{path}, table stepwell_runs, run {run_id!r}"
    try:
        blocked = row.run_head(False, path).head.blocked
    except CorruptHistoryError as e:
        parts.append(Verified(place, run_id, problem=e))
    else:
        expected = None if blocked is None else json.dumps(blocked.fingerprints)
        if db.execute(_BLOCKED_BY, (run_id,)).fetchone()[0] != expected:
            parts.append(Verified(place, run_id, problem=_problem(place, "blocked and blocked_by disagree")))
    return parts


def _problem(place: str, what: str) -> CorruptHistoryError:
    return CorruptHistoryError(f"{place}: {what}; restore it from a backup", place=place)
