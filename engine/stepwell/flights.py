"""The steps that are under way in a session: when they start, and what their ends come to. Floor 4."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from datetime import datetime, timedelta
from typing import Any

from msgspec import Raw

from . import commands as c
from . import events as e
from . import lifecycle as lc
from .errors import CodecError, StepTimeoutError
from .failures import failure_of
from .fibers import Pending
from .inputs import inputs_digest
from .loading import Loaded, Parts
from .logs import logger
from .machine import Machine
from .performers import Flight, LeavesLoop, StepContext, idempotency_key, own_copy
from .results import result_type
from .retry import RetryPolicy

__all__ = ["Flights"]

MAX_DAEMONS = 64
"""Sync steps with a time-out that one session runs at once: each has a thread of its own."""


class Flights:
    """The attempts of one session, by `at`.

    Args:
        parts: what the engine works with.
        run: the run that is driven.
        wakeup: set when an attempt ends.
    """

    def __init__(self, parts: Parts, run: Loaded, wakeup: threading.Event) -> None:
        self.parts = parts
        self.run = run
        self.wakeup = wakeup
        self.under_way: dict[str, Flight] = {}
        self._refused: dict[str, e.EventBase] = {}
        self._inputs: dict[str, str | None] = {}
        self._errors: dict[str, tuple[BaseException | None, float]] = {}

    # ---- before

    def ready(self, machine: Machine) -> list[Pending]:
        """The steps that may begin an attempt now."""
        now: datetime | None = None
        found = []
        for pending in machine.pending.values():
            if not isinstance(pending.command, c.Step) or pending.cancelling or pending.begun or self.flies(pending.at):
                continue
            if pending.due is not None:
                now = now or self.parts.now()
                if e.parse_instant(pending.due) > now:
                    continue
            found.append(pending)
        left = MAX_DAEMONS - sum(self._has_thread(flight.command) for flight in self.under_way.values())
        chosen = []
        for pending in found:
            if self._has_thread(_step(pending)):
                left -= 1
                if left < 0:
                    continue  # it waits for one of those threads
            chosen.append(pending)
        return chosen

    def _has_thread(self, command: c.Step[Any]) -> bool:
        """Whether a step runs in a thread of its own."""
        return command.given.timeout is not None and not self.parts.performer.is_async(command)

    def begins(self, ready: list[Pending]) -> list[e.EventBase]:
        """The `begin` events that have to be on disk before these steps are called."""
        stamp = self.parts.stamp()
        return [
            e.Begin(at=p.at, step_id=p.step_id, name=p.command.label, timestamp=stamp)
            for p in ready
            if _step(p).given.at_most_once
        ]

    def launch(self, ready: list[Pending], *, alone: bool) -> None:
        """Begin an attempt of each; a lone sync step without a time-out runs in this thread, to its end."""
        for pending in ready:
            if self._refuse(pending):
                continue
            command, attempt = _step(pending), pending.attempts + 1
            key = idempotency_key(self.run.run_id, self.run.start.epoch, pending.at, command.name)
            context = StepContext(self.run.run_id, pending.step_id, attempt, key)
            started, timeout = self.parts.now(), command.given.timeout
            if self.parts.listens:
                self.parts.tell(lc.StepStarted(self.run.run_id, pending.step_id, pending.at, attempt))
            deadline = None if timeout is None else started + timedelta(seconds=timeout)
            own = own_copy(command)  # here, in the owner's thread: a sibling may change what is shared while this waits
            self._inputs[pending.at] = inputs_digest(self.parts.codec, command)
            flight = Flight(pending.at, pending.step_id, command, context, started, Future(), deadline)
            self.under_way[pending.at] = flight  # before it runs, so that it can be told that nobody wants it any more
            performer = self.parts.performer
            if alone and timeout is None and not performer.is_async(command):
                flight.future = performer.run_here(own, context)
            else:
                flight.future = performer.launch(own, context, daemon=timeout is not None)
            flight.future.add_done_callback(lambda _: self.wakeup.set())

    def _refuse(self, pending: Pending) -> bool:
        """A result that could never be read back: the step fails before it is called."""
        try:
            self.parts.codec.check(result_type(pending.command))
        except CodecError as error:
            self._refused[pending.at] = self._failed(pending, error, pending.attempts + 1, self.parts.stamp())
            return True
        return False

    # ---- while they run

    def flies(self, at: str) -> bool:
        """Whether an attempt is under way, or has an outcome that is not recorded yet."""
        return at in self.under_way or at in self._refused

    def may_cancel(self, pending: Pending) -> bool:
        """Whether a cancelled step's outcome is `cancelled`; one that runs keeps its real one, unless it is lost."""
        flight = self.under_way.get(pending.at)
        if flight is None:
            return pending.at not in self._refused
        flight.context.cancel()
        queued = flight.deadline is None and not self.parts.performer.is_async(flight.command)
        if not pending.lost and not (queued and flight.future.cancel()):
            return False
        self._drop(flight)
        return True

    def deadlines(self) -> Iterator[datetime]:
        """When attempts time out."""
        return (f.deadline for f in self.under_way.values() if f.deadline is not None)

    def landed(self) -> bool:
        """Whether an attempt has ended or timed out."""
        if self._refused:
            return True
        if not self.under_way:
            return False
        now = self.parts.now()
        return any(f.future.done() or (f.deadline and f.deadline <= now) for f in self.under_way.values())

    def cancel_all(self) -> None:
        """Tell every running step that nobody wants its result."""
        for flight in list(self.under_way.values()):
            flight.context.cancel()

    def drop_all(self) -> None:
        """The session ends: what still runs is only reported."""
        for flight in list(self.under_way.values()):
            flight.context.cancel()
            flight.future.cancel()
            self._drop(flight)

    # ---- after

    def collect(self, machine: Machine) -> dict[str, e.EventBase]:
        """What the attempts that have ended come to, by `at`: `step` or `attempt` events."""
        outcomes, self._refused = self._refused, {}
        now = self.parts.now()
        for at, flight in list(self.under_way.items()):
            done = flight.future.done()
            if not done and not (flight.deadline and flight.deadline <= now):
                continue
            pending = machine.pending.get(at)
            if pending is None or not done:
                self._drop(flight)
            self.under_way.pop(at, None)
            if pending is not None:
                outcomes[at] = self._outcome(flight, pending, done)
        return outcomes

    def _outcome(self, flight: Flight, pending: Pending, done: bool) -> e.EventBase:
        number, stamp = flight.context.attempt, e.instant(flight.started)
        error: BaseException | None
        if not done:
            flight.context.cancel()
            error = StepTimeoutError(f"step {flight.step_id!r} took longer than {flight.command.given.timeout:g} s")
        else:
            error = _error_of(flight)
        if error is None:
            try:
                result = self.parts.codec.encode(flight.future.result(), result_type(flight.command))
            except CodecError as unfit:
                error = unfit
            else:
                self._errors[flight.at] = (None, (self.parts.now() - flight.started).total_seconds())
                return self._event(pending, number, stamp, result=Raw(result))
        self._errors[flight.at] = (error, 0.0)
        if not pending.cancelling and not flight.command.given.at_most_once:
            policy = self._policy(flight.command)
            if self._wants(policy, error, number):
                delay = policy.delay(number, f"{self.run.run_id}/{flight.at}")
                due = e.instant(self.parts.now() + timedelta(seconds=delay))
                failure = failure_of(error, attempts=number)
                return e.Attempt(
                    at=flight.at,
                    step_id=flight.step_id,
                    attempt=number,
                    error=failure,
                    due=due,
                    timestamp=self.parts.stamp(),
                )
        return self._failed(pending, error, number, stamp)

    def _wants(self, policy: RetryPolicy, error: BaseException, number: int) -> bool:
        """Whether another attempt follows; the user's own predicate must not cost the record of this one."""
        try:
            return policy.wants(error, number)
        except Exception:  # noqa: BLE001 - it is the user's code
            logger.exception("the predicate of a retry policy raised; the step is not tried again")
            return False

    def given_up(self, pending: Pending, attempt: e.Attempt) -> e.Step:
        """The outcome of a step that is cancelled after an attempt failed: that failure, and no further attempts."""
        return self._event(pending, attempt.attempt, attempt.timestamp, error=attempt.error)

    def _policy(self, command: c.Step[Any]) -> RetryPolicy:
        return command.given.retry or self.run.workflow.retry or self.parts.retry

    def _failed(self, pending: Pending, error: BaseException, attempts: int, started: str) -> e.Step:
        self._errors[pending.at] = (error, 0.0)
        return self._event(pending, attempts, started, error=failure_of(error, attempts=attempts))

    def _event(self, pending: Pending, attempts: int, started: str, **outcome: Any) -> e.Step:
        command = _step(pending)
        return e.Step(
            at=pending.at,
            step_id=pending.step_id,
            name=command.name,
            attempts=attempts,
            started=started,
            inputs=self._inputs.get(pending.at),
            timestamp=self.parts.stamp(),
            **outcome,
        )

    def _drop(self, flight: Flight) -> None:
        """Nobody waits for it any more: whatever it brings is told to the listener and forgotten."""
        self.under_way.pop(flight.at, None)
        flight.dropped = True
        flight.context.cancel()
        if self.parts.performer.is_async(flight.command):
            flight.future.cancel()
        flight.future.add_done_callback(lambda _: self._report_late(flight))

    def _report_late(self, flight: Flight) -> None:
        error = _error_of(flight)
        if isinstance(error, CancelledError):
            return
        value = None if error is not None else flight.future.result()
        logger.info("step %r of run %r came back late; what it brought is dropped", flight.step_id, self.run.run_id)
        self.parts.tell(lc.LateResult(self.run.run_id, flight.step_id, flight.context.attempt, value, error))

    def report_void(self, event: e.EventBase) -> None:
        """An outcome that nobody asks for any more, because the run has gone another way meanwhile."""
        if isinstance(event, (e.Step, e.Attempt)):
            self.parts.tell(lc.StepDropped(self.run.run_id, event.step_id, event.at))

    def tell_of(self, event: e.Step | e.Attempt) -> None:
        """Tell the listener that an outcome is recorded."""
        error, seconds = self._errors.pop(event.at, (None, 0.0))
        run_id, step_id, at = self.run.run_id, event.step_id, event.at
        if isinstance(event, e.Attempt):
            due = e.parse_instant(event.due)
            self.parts.tell(lc.StepAttemptFailed(run_id, step_id, at, event.attempt, event.error, due, error))
        elif event.error is not None:
            self.parts.tell(lc.StepErrored(run_id, step_id, at, event.attempts, event.error, error))
        else:
            self.parts.tell(lc.StepCompleted(run_id, step_id, at, event.attempts, seconds))


def _step(pending: Pending) -> c.Step[Any]:
    assert isinstance(pending.command, c.Step)
    return pending.command


def _error_of(flight: Flight) -> BaseException | None:
    """How the attempt failed; what ends the process is raised, never recorded."""
    try:
        error = flight.future.exception()
    except CancelledError as cancelled:
        return cancelled
    if isinstance(error, LeavesLoop):
        error = error.error
    if isinstance(error, (KeyboardInterrupt, SystemExit)) and not flight.dropped:
        raise error
    return error
