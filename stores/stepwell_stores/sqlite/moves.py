"""Runs that come into a SQLite file and leave it; see `stepwell.moves`.

The records of a run that is to come lie where they will stay. As long as it has no row in `stepwell_runs` nobody sees
them, so to land it is to write that row.
"""

# ruff: noqa: S608 - statements are put together from the constants of this file; every value is a parameter

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from stepwell.errors import InvalidInputError, NotFoundError
from stepwell.store import Arrival, Departure, RunHead

from ..bell import Bell
from ..move_rules import attempts_of, check_landing, check_staged, is_turned_away, read_arrival, same_run, standing
from ..rules import check_limit, check_run_id
from . import rows as sql
from .database import Database
from .history import insert
from .rows import Row, find

__all__ = ["SqliteMoves"]

_TABLES = ("events", "attempts")
_ARRIVE = """INSERT INTO stepwell_deleted (run_id, fence, created, arrival) VALUES (?1, 0, ?2, ?3)
    ON CONFLICT (run_id) DO UPDATE SET arrival = ?3"""
_ARRIVALS = "SELECT arrival FROM stepwell_deleted WHERE arrival IS NOT NULL AND run_id > ? ORDER BY run_id LIMIT ?"
_STAGED = """SELECT body FROM stepwell_events WHERE run_id = ?1 AND incarnation = ?2 AND seq >= ?3
    AND EXISTS (SELECT 1 FROM stepwell_deleted d WHERE d.run_id = ?1 AND d.arrival IS NOT NULL)
    AND NOT EXISTS (SELECT 1 FROM stepwell_runs r WHERE r.run_id = ?1) ORDER BY seq LIMIT ?4"""
_COUNT = "SELECT coalesce(max(seq) + 1, 0) FROM stepwell_events WHERE run_id = ? AND incarnation = ?"
_REPLACE = [
    f"DELETE FROM stepwell_{name} WHERE run_id = ? AND incarnation = ? AND seq >= ? AND seq < ?" for name in _TABLES
]
_BEYOND = [f"DELETE FROM stepwell_{name} WHERE run_id = ? AND incarnation = ? AND seq >= ?" for name in _TABLES]
_LATER = [f"DELETE FROM stepwell_{name} WHERE run_id = ? AND incarnation > ?" for name in _TABLES]
_ATTEMPT = "INSERT OR REPLACE INTO stepwell_attempts (run_id, attempt_id, incarnation, seq) VALUES (?, ?, ?, ?)"
_LANDED = "UPDATE stepwell_deleted SET arrival = NULL, departure = NULL WHERE run_id = ?"
_TURNED = "UPDATE stepwell_deleted SET arrival = NULL WHERE run_id = ?"
_EMPTY = "DELETE FROM stepwell_deleted WHERE run_id = ? AND fence = 0"
_NUMBER = "UPDATE stepwell_runs SET incarnation = ? WHERE run_id = ?"
_DEPARTURE = "UPDATE stepwell_deleted SET departure = ? WHERE run_id = ?"


class SqliteMoves:
    """Arrivals and departures, each in a transaction."""

    if TYPE_CHECKING:  # what the store itself has
        _database: Database
        _bell: Bell
        _run_head: Callable[[Row], RunHead]

    def arrive(self, arrival: Arrival) -> Arrival | None:
        """Take a run's id for a run that is to come; see the port."""
        run_id = arrival.run.run_id
        check_run_id(run_id)

        def work(db: sqlite3.Connection) -> Arrival | None:
            if find(db, run_id) is not None:
                return None
            stands = standing(_arrival(db, run_id), arrival)
            db.execute(_ARRIVE, (run_id, arrival.run.head.created, msgspec.json.encode(stands).decode()))
            return stands

        return self._database.write(work)

    def stage(self, run_id: str, token: str, incarnation: int, seq: int, lines: Sequence[bytes]) -> None:
        """Keep records of a run that is to come; see the port."""

        def work(db: sqlite3.Connection) -> None:
            if _arrival(db, run_id, token) is None:
                raise NotFoundError(f"no run {run_id!r} is arriving under the token {token!r}")
            before = _count(db, run_id, incarnation - 1) if incarnation else 1
            if not before or seq > _count(db, run_id, incarnation):
                raise InvalidInputError(f"run {run_id!r}, incarnation {incarnation}: nothing is staged before {seq}")
            check_staged(run_id, seq, lines)
            for statement in _REPLACE:
                db.execute(statement, (run_id, incarnation, seq, seq + len(lines)))
            insert(db, run_id, incarnation, seq, list(lines))
            named = [(run_id, attempt, incarnation, at) for attempt, at in attempts_of(lines)]
            if named:
                db.executemany(_ATTEMPT, named)

        self._database.write(work)

    def staged(self, run_id: str, incarnation: int, from_seq: int = 0, *, limit: int) -> list[bytes]:
        """Records of a run that is to come; see the port."""
        check_limit(limit)
        which = (run_id, incarnation, from_seq, limit)
        return self._database.read(lambda db: [body for (body,) in db.execute(_STAGED, which)])

    def land(self, run_id: str, token: str) -> bool:
        """Make a run of what was staged; see the port."""

        def work(db: sqlite3.Connection) -> bool:
            arrival = _arrival(db, run_id, token)
            if arrival is None:
                return False
            run, head = arrival.run, arrival.run.head
            counts = [_count(db, run_id, number) for number in range(run.incarnation + 1)]
            check_landing(arrival, counts)
            _drop_beyond(db, run_id, arrival.counts)
            buried: int = db.execute(sql.DELETED, (run_id,)).fetchone()[0]
            values = (None, None, None, None, head.updated, *sql.head_values(head))
            fence = max(run.fence, buried + 1)
            db.execute(sql.INSERT_RUN, (run_id, run.seq, fence, run.closed, *values))
            db.execute(_NUMBER, (run.incarnation, run_id))
            db.execute(_LANDED, (run_id,))
            db.execute(_EMPTY, (run_id,))
            return True

        landed = self._database.write(work)
        if landed:
            self._bell.ring()
            self._bell.due.ring()
        return landed

    def turn_away(self, arrival: Arrival) -> bool:
        """Forget a run that is to come; see the port."""
        run_id = arrival.run.run_id

        def work(db: sqlite3.Connection) -> bool:
            if not is_turned_away(_arrival(db, run_id), arrival):
                return False
            for statement in sql.DELETE:
                db.execute(statement, (run_id,))
            for statement in (_TURNED, _EMPTY):
                db.execute(statement, (run_id,))
            return True

        return self._database.write(work)

    def arrivals(self, *, after: str | None = None, limit: int) -> list[Arrival]:
        """A page of the runs that are to come; see the port."""
        check_limit(limit)
        found = self._database.read(lambda db: db.execute(_ARRIVALS, (after or "", limit)).fetchall())
        return [read_arrival(text) for (text,) in found]

    def depart(self, seen: RunHead, departure: Departure) -> bool:
        """Remove a run that goes on elsewhere; see the port."""
        run_id, mark = seen.run_id, msgspec.json.encode(departure).decode()
        check_run_id(run_id)

        def work(db: sqlite3.Connection) -> bool:
            row = find(db, run_id)
            if row is None:
                gone = db.execute(sql.DELETED, (run_id,)).fetchone()
                return gone is not None and bool(gone[1] == mark)
            if not same_run(self._run_head(row), seen):
                return False
            db.execute(sql.BURY, (run_id, row.fence, row.created))
            db.execute(_DEPARTURE, (mark, run_id))
            for statement in sql.DELETE:
                db.execute(statement, (run_id,))
            return True

        departed = self._database.write(work)
        self._bell.ring()
        return departed


def _arrival(db: sqlite3.Connection, run_id: str, token: str | None = None) -> Arrival | None:
    row = db.execute(sql.DELETED, (run_id,)).fetchone()
    if row is None or row[2] is None:
        return None
    found = read_arrival(row[2])
    return found if token in (None, found.token) else None


def _count(db: sqlite3.Connection, run_id: str, incarnation: int) -> int:
    return int(db.execute(_COUNT, (run_id, incarnation)).fetchone()[0])


def _drop_beyond(db: sqlite3.Connection, run_id: str, counts: Sequence[int]) -> None:
    """Remove what was staged beyond the records of a run: another one of its id may have been on its way before."""
    for statement in _BEYOND:
        db.executemany(statement, [(run_id, number, count) for number, count in enumerate(counts)])
    for statement in _LATER:
        db.execute(statement, (run_id, len(counts) - 1))
