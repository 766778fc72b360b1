"""The steps that are under way in a session: when they start, and what their ends come to. Floor 4."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, cast

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
from .performers import Flight, Landed, LeavesLoop, NeverRanError, StepContext, end_of, own_copy
from .results import result_type
from .retry import RetryPolicy

__all__ = ["Flights"]

MAX_DAEMONS = 64
"""Sync steps with a time-out that one session runs at once: each has a thread of its own."""


_UNBORN = Landed(error=NeverRanError())
_NO_TIME = timedelta()


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
        self._ends: dict[str, tuple[BaseException | None, timedelta]] = {}
        self._now = parts.environment.clock.now

    # ---- before

    def ready(self, machine: Machine) -> list[Pending]:
        """The steps that may begin an attempt now."""
        now: datetime | None = None
        left: int | None = None
        chosen = []
        for pending in machine.pending.values():
            command = pending.command
            if not command.is_effect or pending.cancelling or pending.begun:
                continue
            if pending.at in self.under_way or pending.at in self._refused:
                continue
            if pending.due is not None:
                now = now or self._now()
                if e.parse_instant(pending.due) > now:
                    continue
            if _step(pending).given.timeout is not None and self._has_thread(_step(pending)):
                if left is None:
                    left = MAX_DAEMONS - sum(self._has_thread(flight.command) for flight in self.under_way.values())
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
        once = [p for p in ready if _step(p).given.at_most_once]
        if not once:
            return []
        stamp = self.parts.stamp()
        return [e.Begin(at=p.at, step_id=p.step_id, name=p.command.label, timestamp=stamp) for p in once]

    def launch(self, ready: list[Pending], *, alone: bool) -> None:
        """Begin an attempt of each; a lone sync step without a time-out runs in this thread, to its end."""
        run, performer = self.run, self.parts.performer
        for pending in ready:
            command: Any = pending.command
            attempt, step_id = pending.attempts + 1, pending.step_id
            try:
                into = result_type(command)
                self.parts.codec.check(into)
            except CodecError as error:  # the result could never be read back: the step fails before it is called
                self._refused[pending.at] = self._failed(pending, error, attempt, self.parts.stamp())
                continue
            context = StepContext(run.run_id, step_id, attempt, (run.start.epoch, pending.at, command.name))
            started, timeout, since = self.parts.environment.stamp(), command.given.timeout, None
            if self.parts.listens:
                self.parts.tell(lc.StepStarted(run.run_id, step_id, pending.at, attempt))
                since = self._now()
            deadline = None if timeout is None else self._now() + timedelta(seconds=timeout)
            own = own_copy(command)  # here, in the owner's thread: a sibling may change what is shared while this waits
            self._inputs[pending.at] = inputs_digest(self.parts.codec, command)
            flight = Flight(pending.at, step_id, command, into, context, started, since, _UNBORN, deadline)
            self.under_way[pending.at] = flight  # before it runs, so that it can be told that nobody wants it any more
            if alone and timeout is None and not performer.is_async(command):
                flight.future = performer.run_here(own, context)
            else:
                flight.future = performer.launch(own, context, daemon=timeout is not None)
                flight.future.add_done_callback(lambda _: self.wakeup.set())

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
        for flight in self.under_way.values():
            if flight.future.done() or self._is_late(flight):
                return True
        return bool(self._refused)

    def _is_late(self, flight: Flight) -> bool:
        return flight.deadline is not None and flight.deadline <= self._now()

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
        for at, flight in list(self.under_way.items()):
            done = flight.future.done()
            if not done and not self._is_late(flight):
                continue
            pending = machine.pending.get(at)
            if pending is None or not done:
                self._drop(flight)
            self.under_way.pop(at, None)
            if pending is not None:
                outcomes[at] = self._outcome(flight, pending, done)
        return outcomes

    def _outcome(self, flight: Flight, pending: Pending, done: bool) -> e.EventBase:
        number = flight.context.attempt
        error: BaseException | None
        if not done:
            flight.context.cancel()
            error = StepTimeoutError(f"step {flight.step_id!r} took longer than {flight.command.given.timeout:g} s")
        else:
            error = _error_of(flight)
        if error is None:
            try:
                result = self.parts.codec.encode(flight.future.result(), flight.into)
            except CodecError as unfit:
                error = unfit
            else:
                if flight.since is not None:
                    self._ends[flight.at] = (None, self._now() - flight.since)
                return self._event(flight.step_id, pending, number, flight.started, result=Raw(result))
        self._keep_error(flight.at, error)
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
        return self._failed(pending, error, number, flight.started)

    def _wants(self, policy: RetryPolicy, error: BaseException, number: int) -> bool:
        """Whether another attempt follows; the user's own predicate must not cost the record of this one."""
        try:
            return policy.wants(error, number)
        except Exception:  # noqa: BLE001 - it is the user's code
            logger.exception("the predicate of a retry policy raised; the step is not tried again")
            return False

    def given_up(self, pending: Pending, attempt: e.Attempt) -> e.Step:
        """The outcome of a step that is cancelled after an attempt failed: that failure, and no further attempts."""
        return self._event(pending.step_id, pending, attempt.attempt, attempt.timestamp, error=attempt.error)

    def _policy(self, command: c.Step[Any]) -> RetryPolicy:
        return command.given.retry or self.run.workflow.retry or self.parts.retry

    def _failed(self, pending: Pending, error: BaseException, attempts: int, started: str) -> e.Step:
        self._keep_error(pending.at, error)
        return self._event(pending.step_id, pending, attempts, started, error=failure_of(error, attempts=attempts))

    def _keep_error(self, at: str, error: BaseException) -> None:
        """Keep for the listener what the record doesn't tell."""
        if self.parts.listens:
            self._ends[at] = (error, _NO_TIME)

    def _event(self, step_id: str, pending: Pending, attempts: int, started: str, **outcome: Any) -> e.Step:
        return e.Step(
            at=pending.at,
            step_id=step_id,
            name=_step(pending).name,
            attempts=attempts,
            started=started,
            inputs=self._inputs.pop(pending.at, None),
            timestamp=self.parts.environment.stamp(),
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
        if flight.future.cancelled():
            return
        error = _error_of(flight)
        value = None if error is not None else flight.future.result()
        logger.info("step %r of run %r came back late; what it brought is dropped", flight.step_id, self.run.run_id)
        self.parts.tell(lc.LateResult(self.run.run_id, flight.step_id, flight.context.attempt, value, error))

    def report_void(self, event: e.EventBase) -> None:
        """An outcome that nobody asks for any more, because the run has gone another way meanwhile."""
        if isinstance(event, (e.Step, e.Attempt)):
            self.parts.tell(lc.StepDropped(self.run.run_id, event.step_id, event.at))

    def tell_of(self, event: e.Step | e.Attempt) -> None:
        """Tell the listener that an outcome is recorded."""
        error, took = self._ends.pop(event.at, (None, _NO_TIME))
        run_id, step_id, at = self.run.run_id, event.step_id, event.at
        if isinstance(event, e.Attempt):
            due = e.parse_instant(event.due)
            self.parts.tell(lc.StepAttemptFailed(run_id, step_id, at, event.attempt, event.error, due, error))
        elif event.error is not None:
            self.parts.tell(lc.StepErrored(run_id, step_id, at, event.attempts, event.error, error))
        else:
            self.parts.tell(lc.StepCompleted(run_id, step_id, at, event.attempts, took.total_seconds()))


def _step(pending: Pending) -> c.Step[Any]:
    step: c.Step[Any] = cast("Any", pending.command)  # `is_effect` said so
    return step


def _error_of(flight: Flight) -> BaseException | None:
    """How the attempt failed; what ends the process is raised, never recorded."""
    error = end_of(flight.future)
    if isinstance(error, LeavesLoop):
        error = error.error
    if isinstance(error, (KeyboardInterrupt, SystemExit)) and not flight.dropped:
        raise error
    return error
