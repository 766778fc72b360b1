"""Records and positions in the tables of the SQLite store, each function inside a transaction of the caller's."""

from __future__ import annotations

import sqlite3

from stepwell.errors import CorruptHistoryError, NotFoundError
from stepwell.store import AlreadyCommitted, AppendOutcome, Head, Then, verify_lines

from ..move_rules import read_arrival, read_departure, refuse_absent
from . import rows as sql
from .rows import Row, find
from .schema import check_version

__all__ = ["advance", "buried", "found", "insert", "lines_of", "made_by", "refusal"]


def found(db: sqlite3.Connection, run_id: str) -> Row:
    """The row of a run that must be there."""
    row = find(db, run_id)
    if row is None:
        buried(db, run_id)
        raise NotFoundError(f"no run {run_id!r}")
    return row


def buried(db: sqlite3.Connection, run_id: str) -> int:
    """The fence that stays of a run that isn't here, 0 when there never was one.

    Raises:
        RunMovedError, RunArrivingError: it is somewhere else.
    """
    row = db.execute(sql.DELETED, (run_id,)).fetchone()
    if row is None:
        return 0
    fence, departure, arrival = row
    if departure is not None or arrival is not None:
        departed = None if departure is None else read_departure(departure)
        refuse_absent(run_id, departed, None if arrival is None else read_arrival(arrival))
    return int(fence)


def made_by(db: sqlite3.Connection, run_id: str, attempt_id: str) -> bool:
    """Whether a run was created by this very attempt, which its first record names."""
    first = db.execute(sql.BODIES, (run_id, 0, 0, 1)).fetchone()
    return first is not None and b'"attemptId":"%b",' % attempt_id.encode() in first[0][:300]


def insert(db: sqlite3.Connection, run_id: str, incarnation: int, seq: int, lines: list[bytes]) -> None:
    """Write records at `seq` and after."""
    if len(lines) == 1:
        db.execute(sql.INSERT_EVENT, (run_id, incarnation, seq, lines[0]))
    elif lines:
        db.executemany(sql.INSERT_EVENT, [(run_id, incarnation, seq + i, line) for i, line in enumerate(lines)])


def advance(
    db: sqlite3.Connection,
    at: tuple[str, int, int, int],
    lines: list[bytes],
    head: Head | None,
    then: Then,
    release: bool,
) -> bool:
    """Move an owner's run on, if it is where the owner says: run, incarnation, fence and seq in `at`."""
    if db.execute(sql.AT_TAIL, at).fetchone() is None:
        return False
    run_id, incarnation, _, seq = at
    insert(db, run_id, incarnation, seq, lines)
    closed = then == "closed"
    if release or closed or head is not None:
        _move_row(db, run_id, seq + len(lines), head, closed, release or closed)
    return True


def _move_row(db: sqlite3.Connection, run_id: str, end: int, head: Head | None, closed: bool, frees: bool) -> None:
    if head is None:
        db.execute(sql.ADVANCE_ONLY_FREE, (end, closed, run_id))
        return
    values = sql.head_values(head)
    first = (end, closed, head.updated) if frees else (end, head.updated)
    if not frees and db.execute(sql.ADVANCE_SAME, (*first, run_id, *values)).rowcount == 1:
        return
    moves, lasts = values[: sql.MOVING], values[sql.MOVING :]
    most, whole = (sql.ADVANCE_MOST_FREE, sql.ADVANCE_FREE) if frees else (sql.ADVANCE_MOST, sql.ADVANCE)
    if db.execute(most, (*first, *moves, run_id, *lasts)).rowcount != 1:
        db.execute(whole, (*first, *values, run_id))


def refusal(db: sqlite3.Connection, path: str, at: tuple[str, int, int, int], lines: list[bytes]) -> AppendOutcome:
    """Say why an owner's append hit no row.

    Raises:
        NewerFormatError: a newer stepwell has changed the tables meanwhile.
    """
    check_version(db, path)
    run_id, incarnation, fence, seq = at
    row = found(db, run_id)
    if lines:
        there = db.execute(sql.BODIES, (run_id, incarnation, seq, seq + len(lines)))
        if [body for (body,) in there] == lines:
            return AlreadyCommitted(seq, incarnation)
    reason = row.position.refuses_owner(incarnation, seq, fence)
    assert reason is not None, "the row matched and was not hit"
    return reason


def lines_of(db: sqlite3.Connection, path: str, run_id: str, incarnation: int, start: int, stop: int) -> list[bytes]:
    """Records `start` to `stop`, each checked.

    Raises:
        CorruptHistoryError: one is damaged or missing; file, table, run and seq are named.
    """
    table = f"{path}, table stepwell_events, run {run_id!r}, incarnation {incarnation}"
    lines: list[bytes] = [body for (body,) in db.execute(sql.BODIES, (run_id, incarnation, start, stop)).fetchall()]
    try:
        verify_lines(lines, start, lambda seq: f"{table}, seq {seq}")
    except CorruptHistoryError:
        _check_numbers(db, table, (run_id, incarnation, start, stop))
        raise
    if len(lines) < stop - start:
        _check_numbers(db, table, (run_id, incarnation, start, stop))
    return lines


def _check_numbers(db: sqlite3.Connection, table: str, which: tuple[str, int, int, int]) -> None:
    """See that no record is missing."""
    _, _, start, stop = which
    there = [seq for (seq,) in db.execute(sql.NUMBERS, which)]
    seq = next((n for n, found in enumerate(there, start) if n != found), start + len(there))
    if seq < stop:
        raise CorruptHistoryError(f"{table}: record {seq} of {stop} is missing", place=table, seq=seq)
