"""Records in the tables of the Postgres store, as they are read."""

from __future__ import annotations

from typing import Any

from stepwell.errors import CorruptHistoryError, NotFoundError, StoreUnavailableError
from stepwell.store import Tail, verify_lines

from ..move_rules import read_arrival, read_departure, refuse_absent
from .rows import Row, Statements
from .session import Session

__all__ = ["checked", "found", "made_by", "missing", "read", "row_of", "table_of"]

_END = 2**31 - 1
_TRIES = 20  # to find a run that comes and goes


def row_of(session: Session, sql: Statements, run_id: str, clock: dict[str, int], *, lock: bool = False) -> Row | None:
    """The row of a run, locked for the transaction if that is wanted.

    Raises:
        RunMovedError, RunArrivingError: it is somewhere else.
    """
    for _ in range(_TRIES):
        found = session.one(sql.lock if lock else sql.find, {"run": run_id, **clock})
        if found is not None:
            return Row(*found)
        if missing(session, sql, run_id) is not None:
            return None
    raise _restless(run_id)


def missing(session: Session, sql: Statements, run_id: str) -> int | None:
    """The fence that stays of a run that was looked for in vain, 0 when there never was one; None: it is here now.

    Raises:
        RunMovedError, RunArrivingError: it is somewhere else.
    """
    row = session.one(sql.absent, {"run": run_id})
    assert row is not None  # it is there whatever the tables have
    here, departure, arrival, fence = row
    if here:
        return None
    if departure is not None or arrival is not None:
        departed = None if departure is None else read_departure(departure)
        refuse_absent(run_id, departed, None if arrival is None else read_arrival(arrival))
    return int(fence or 0)


def _restless(run_id: str) -> StoreUnavailableError:
    return StoreUnavailableError(f"run {run_id!r} comes and goes; try again")


def found(session: Session, sql: Statements, run_id: str, clock: dict[str, int]) -> Row:
    """The row of a run that must be there, locked for the transaction."""
    row = row_of(session, sql, run_id, clock, lock=True)
    if row is None:
        raise NotFoundError(f"no run {run_id!r}")
    return row


def made_by(session: Session, sql: Statements, run_id: str, attempt_id: str, at: tuple[int, int] = (0, 0)) -> bool:
    """Whether the record at an incarnation and seq names this very attempt."""
    first = session.one(sql.first, (run_id, *at))
    return first is not None and b'"attemptId":"%b",' % attempt_id.encode() in first[0][:300]


def read(
    session: Session,
    sql: Statements,
    place: str,
    run_id: str,
    from_seq: int,
    incarnation: int | None,
    limit: int | None,
) -> Tail | None:
    """Records of an incarnation, each checked, and the run's position, of one snapshot.

    Raises:
        CorruptHistoryError: one is damaged or missing; table, run and seq are named.
    """
    start = min(max(from_seq, 0), _END)
    stop = _END if limit is None else min(_END, start + max(limit, 0))
    number = None if incarnation is None else b"%d" % incarnation
    for _ in range(_TRIES):
        there = session.quick(sql.read, (run_id.encode(), number, b"%d" % start, b"%d" % stop))
        if there.ntuples:
            break
        if missing(session, sql, run_id) is not None:
            return None
    else:
        raise _restless(run_id)
    get: Any = there.get_value  # no body is NULL
    lines: list[bytes] = [get(row, 0) for row in range(there.ntuples)]
    newest, end, closed, *counted = map(int, lines.pop(0).split())
    which = newest if incarnation is None else incarnation
    if not 0 <= which <= newest:
        return None
    if counted:
        end = counted[0]
    start = min(start, end)
    stop = min(stop, end)
    checked(session, sql, table_of(place, run_id, which), (run_id, which, start, stop), lines)
    return Tail(which, start, lines, bool(closed) or which < newest, stop < end, checked=True)


def table_of(place: str, run_id: str, number: int) -> str:
    """How messages name the records of an incarnation."""
    return f"{place}, table stepwell_events, run {run_id!r}, incarnation {number}"


def checked(
    session: Session, sql: Statements, table: str, which: tuple[str, int, int, int], lines: list[bytes]
) -> list[bytes]:
    """See that the records from one seq to another are there, each as it was written.

    Raises:
        CorruptHistoryError: one is damaged, missing, or one too many.
    """
    _, _, start, stop = which
    try:
        verify_lines(lines, start, lambda seq: f"{table}, seq {seq}")
    except CorruptHistoryError:
        _check_numbers(session, sql, table, which)
        raise
    if len(lines) != stop - start:
        _check_numbers(session, sql, table, which)
        raise CorruptHistoryError(f"{table}: {len(lines)} records where {stop - start} should be", place=table)
    return lines


def _check_numbers(session: Session, sql: Statements, table: str, which: tuple[str, int, int, int]) -> None:
    """See that no record is missing."""
    _, _, start, stop = which
    there = [seq for (seq,) in session.run(sql.numbers, which)]
    seq = next((n for n, found in enumerate(there, start) if n != found), start + len(there))
    if seq < stop:
        raise CorruptHistoryError(f"{table}: record {seq} of {stop} is missing", place=table, seq=seq)
