"""A program's own rows and the record of its step, in one transaction of a SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from stepwell.errors import StoreError
from stepwell.store import AlreadyCommitted, AppendOutcome, Committed, Draft, seal

from ..outcomes import outcome_of
from . import rows as sql
from .database import Database
from .guest import Guest
from .history import advance, found
from .schema import primary_code

__all__ = ["transact"]

_OF_THE_FILE = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_READONLY,
}
"""Errors that are not the statement's fault: what could not be written says nothing of the program's own code."""


class _OfWorkError(Exception):
    """Carries what the program's code raised past those who judge errors of the driver."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def transact(
    database: Database,
    at: tuple[str, int, int, int],
    work: Callable[[Any], Sequence[Draft]],
    attempt_id: str,
    seconds: float,
) -> AppendOutcome:
    """Commit what `work` writes together with the records that it gives; see the port.

    Args:
        at: run, incarnation, fence and seq, as the owner says.
    """

    def transaction(db: Guest) -> AppendOutcome:
        refused = _position(db, at, attempt_id)
        if refused is not None:
            return refused
        try:
            records = db.lend(work, seconds)
        except Exception as error:
            trouble = _trouble(error)
            if trouble is not None:
                raise trouble from error
            raise _OfWorkError(error) from error
        run_id, incarnation, fence, seq = at
        lines = seal(records, session=fence, offset=seq, attempt_id=attempt_id)
        if not advance(db, at, lines, None, "open", False):
            raise StoreError(f"run {run_id!r} moved on while its transaction had the lock; nothing was written")
        return Committed(seq, incarnation)

    try:
        return outcome_of(lambda: database.lend(transaction))
    except _OfWorkError as failed:
        raise failed.error  # noqa: B904 - as it was raised


def _position(db: Guest, at: tuple[str, int, int, int], attempt_id: str) -> AppendOutcome | None:
    """Why the work must not be done; None: it may."""
    run_id, incarnation, fence, seq = at
    row = found(db, run_id)
    there = db.execute(sql.BODIES, (run_id, incarnation, seq, seq + 1)).fetchone()
    if there is not None and b'"attemptId":"%b",' % attempt_id.encode() in there[0][:300]:
        return AlreadyCommitted(seq, incarnation)
    return row.position.refuses_owner(incarnation, seq, fence)


def _trouble(error: BaseException | None) -> sqlite3.Error | None:
    """The error of the file or disk behind what the work raised, if there is one."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, sqlite3.Error) and primary_code(error) in _OF_THE_FILE:
            return error
        error = error.__cause__ or error.__context__
    return None
