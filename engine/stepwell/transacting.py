"""How a Transaction is performed: in the session's thread, inside the store's transaction. Floor 4.

The function's rows and the record of its step are committed together. So there is no moment at which one of them is
there and the other is not, and no crash can have the function run twice: the next session finds the record, or nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from msgspec import Raw

from . import commands as c
from . import events as e
from . import lifecycle as lc
from .errors import CodecError, InvalidInputError, StepTimeoutError, StepwellError, TransactionError
from .fibers import Pending, describe
from .flights import Flights
from .inputs import inputs_digest, own_copy
from .loading import Loaded, Parts
from .machine import Machine
from .performers import Flight, StepContext

__all__ = ["Transactions", "check_transactions", "longest"]

MAX_SECONDS = 5.0
"""Seconds that a Transaction may take at most: as long as others wait for their turn to write before they complain."""

SHARE = 1 / 3
"""The same as a share of the lease. All leases are renewed in such intervals, by writes that have to wait meanwhile."""

Record: TypeAlias = Callable[[Callable[[Any], e.EventBase], float], bool]
"""Gives a function a connection and so many seconds, and commits its rows and its event; False: not called."""


class _UndoneError(Exception):
    """Leaves a transaction that is to be rolled back, and says why."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


def longest(parts: Parts) -> float:
    """Seconds that a Transaction may take."""
    return min(MAX_SECONDS, parts.ttl * SHARE)


def _calls(parts: Parts) -> bool:
    """Whether the functions themselves are called; in a simulation fakes answer for them, as for steps."""
    return parts.performer.awaits


def check_transactions(parts: Parts, machine: Machine) -> None:
    """See that the Transactions of the frontier can be performed.

    Raises:
        InvalidInputError: the store can't, or one asks for more time than there is.
    """
    for pending in machine.pending.values():
        if isinstance(pending.command, c.Transaction):
            _check(parts, machine.run_id, pending.at, pending.command)


def _check(parts: Parts, run_id: str, at: str, command: c.Transaction[Any]) -> None:
    if not _calls(parts):
        return
    what = f"run {run_id!r} asks for {describe(command)} at {at}"
    if not callable(getattr(parts.store, "transact", None)):
        raise InvalidInputError(
            f"{what}, and its store ({type(parts.store).__name__}) can't take a program's own rows into its "
            "transactions; keep the run in a SQLite or Postgres store (sqlite:///PATH, postgresql://...), or use a Step"
        )
    timeout, most = command.given.timeout, longest(parts)
    if timeout is not None and timeout > most:
        raise InvalidInputError(
            f"{what} with timeout={timeout:g} s, and {most:g} s is the most: a third of the lease ({parts.ttl:g} s), "
            f"{MAX_SECONDS:g} s at most, because other writers wait meanwhile; do the slow part in a Step before"
        )


class Transactions:
    """The Transactions of one session.

    Args:
        parts: what the engine works with.
        run: the run that is driven.
        flights: its steps.
    """

    def __init__(self, parts: Parts, run: Loaded, flights: Flights) -> None:
        self.parts = parts
        self.run = run
        self.flights = flights

    def split(self, ready: list[Pending]) -> tuple[list[Pending], Pending | None]:
        """The steps that may be launched, and the Transaction whose turn it is.

        Raises:
            InvalidInputError: it can't be performed here; nothing is written.
        """
        for pending in ready:
            if isinstance(pending.command, c.Transaction) and _calls(self.parts):
                _check(self.parts, self.run.run_id, pending.at, pending.command)
                return [p for p in ready if not isinstance(p.command, c.Transaction)], pending
        return ready, None

    def perform(self, pending: Pending, record: Record) -> e.Step | None:
        """Perform a Transaction to its end.

        Returns:
            The event that is on disk now. None when there is none: the tail had moved, and nothing was done; or the
            attempt failed, which is collected with the outcomes of steps.
        """
        flights, command = self.flights, pending.command
        assert isinstance(command, c.Transaction)
        flight = self._flight(pending, command)
        if flight is None:
            return None
        seconds = longest(self.parts) if command.given.timeout is None else command.given.timeout
        made: list[e.Step] = []

        def work(connection: Any) -> e.EventBase:
            made[:] = [self._event(flight, self._result(flight, connection))]
            return made[0]

        error: BaseException
        flights.under_way[pending.at] = flight  # so that it can be told that nobody wants it any more
        try:
            if not record(work, seconds):
                return None
        except _UndoneError as undone:
            error = undone.error
        except StepTimeoutError as late:
            error = StepTimeoutError(f"transaction {flight.step_id!r} took longer than {seconds:g} s; it is undone")
            error.__cause__ = late
        except TransactionError as refused:
            error = refused
        except (StepwellError, MemoryError, OSError):
            raise
        except Exception as refused:  # noqa: BLE001 - what the database says of the rows at the commit
            error = refused
        else:
            flights.end(flight, pending, None)
            return made[0]
        finally:
            del flights.under_way[pending.at]
        flights.end(flight, pending, error)
        return None

    def _flight(self, pending: Pending, command: c.Transaction[Any]) -> Flight | None:
        """A new attempt; None when it fails before it begins."""
        parts, run, at = self.parts, self.run, pending.at
        try:
            form = run.machine.results.of(command)
        except CodecError as error:
            self.flights.refuse(pending, error)
            return None
        context = StepContext(run.run_id, pending.step_id, pending.attempts + 1, (run.start.line, at, command.name))
        inputs = inputs_digest(parts.codec, command)
        flight = Flight(at, pending.step_id, command, form, context, parts.stamp(), inputs)
        if parts.listens:
            parts.tell(lc.StepStarted(run.run_id, flight.step_id, at, context.attempt))
            flight.since = parts.now()
        return flight

    def _result(self, flight: Flight, connection: Any) -> Raw:
        """Call the function, and give what it returns as it is recorded."""
        own = own_copy(flight.command)
        bound = own.replaced((connection, *own.args), own.kwargs, own.given)
        value, error = self.parts.performer.run_here(bound, flight.context)
        if error is not None:
            raise _UndoneError(error) from error
        try:
            return Raw(flight.form.write(value))
        except CodecError as unfit:
            raise _UndoneError(unfit) from unfit

    def _event(self, flight: Flight, result: Raw) -> e.Step:
        return e.Step(
            at=flight.at,
            step_id=flight.step_id,
            name=flight.command.name,
            attempts=flight.context.attempt,
            started=flight.started,
            inputs=flight.inputs,
            result=result,
            timestamp=self.parts.stamp(),
        )
