"""A program's own rows and the record of its step, in one transaction of a Postgres database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from stepwell.errors import StepTimeoutError, StoreError
from stepwell.store import AlreadyCommitted, AppendOutcome, Draft, seal

from ..outcomes import outcome_of
from .address import psycopg
from .appends import Append, Appender
from .connections import Connections
from .errors import of_the_store
from .guest import Guest
from .history import found, made_by
from .session import Session

__all__ = ["transact"]


class _OfWorkError(Exception):
    """Carries what the program's code raised past those who judge errors of the driver."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def transact(
    connections: Connections,
    appender: Appender,
    at: tuple[str, int, int, int],
    work: Callable[[Any], Sequence[Draft]],
    attempt_id: str,
    seconds: float,
    clock: dict[str, int],
) -> AppendOutcome:
    """Commit what `work` writes together with the records that it gives; see the port.

    The run's row is locked meanwhile, and nothing else: others write to their runs as ever. Should this process stop in
    the midst of it, the server ends the transaction.

    Args:
        at: run, incarnation, fence and seq, as the owner says.
    """
    run_id, incarnation, fence, seq = at

    def transaction(session: Session) -> AppendOutcome:
        row = found(session, appender.sql, run_id, clock)
        if made_by(session, appender.sql, run_id, attempt_id, (incarnation, seq)):
            return AlreadyCommitted(seq, incarnation)
        if (refused := row.position.refuses_owner(incarnation, seq, fence)) is not None:
            return refused
        bound = str(max(1, int(seconds * 1000)))
        session.run(_BOUND, (bound, str(int(seconds * 1000) + 2000)))
        with connections.lent():
            records = _lent(session, work, seconds)
        lines = seal(records, session=fence, offset=seq, attempt_id=attempt_id)
        one = Append(appender, at, lines)
        if not appender.moved(session, one):
            raise StoreError(f"run {run_id!r} moved on while its transaction had the lock; nothing was written")
        return one.done

    try:
        return outcome_of(lambda: connections.transaction(transaction, foreign=True))
    except _OfWorkError as failed:
        raise failed.error  # noqa: B904 - as it was raised


_BOUND = """SELECT set_config('statement_timeout', %s, true),
    set_config('idle_in_transaction_session_timeout', %s, true)"""


def _lent(session: Session, work: Callable[[Any], Sequence[Draft]], seconds: float) -> Sequence[Draft]:
    guest = Guest(session, seconds)
    try:
        return guest.lend(work)
    except Exception as error:
        trouble = None if isinstance(error, StepTimeoutError) else _trouble(error)
        if trouble is not None:
            raise trouble from error
        raise _OfWorkError(error) from error
    finally:
        session.spoiled = guest.spoiled


def _trouble(error: BaseException | None) -> psycopg.Error | None:
    """The error of the server or connection behind what the work raised, if there is one."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, psycopg.Error) and of_the_store(error):
            return error
        error = error.__cause__ or error.__context__
    return None
