"""The steps that are under way in a session: when they start, and what their ends come to. Floor 4."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from msgspec import Raw

from . import commands as c
from . import events as e
from . import lifecycle as lc
from .errors import Cancelled, CodecError, Failure, InvalidInputError, StepTimeoutError
from .failures import ToldError, failure_of
from .fibers import Pending
from .heartbeats import Pulse
from .hub import Live
from .inputs import inputs_digest, prepared
from .loading import Loaded, Parts
from .logs import logger
from .machine import Machine
from .performers import Flight, LeavesLoop, NoThreadError, StepContext, end_of
from .results import Form
from .retry import RetryPolicy
from .steps import callee_of

if TYPE_CHECKING:
    from concurrent.futures import Future

    from .chunks import Owner, Streams

__all__ = ["Flights"]

MAX_DAEMONS = 64
"""Sync steps with a time-out that one session runs at once: each has a thread of its own."""

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
        self.session: Owner | None = None  # for streams, which write while they run
        self.streams: Streams | None = None
        self.stopped: dict[str, str] = {}  # step ids of streams that were closed as nobody wanted the rest, by `at`
        self._ended: dict[str, e.EventBase] = {}  # outcomes that nobody has collected yet
        self._ends: dict[str, tuple[BaseException | None, timedelta]] = {}
        self._now = parts.environment.clock.now
        self._readers = parts.hub.readers
        self.pulse = Pulse(self.under_way, parts)

    # ---- before

    def ready(self, machine: Machine) -> tuple[list[Pending], bool]:
        """The steps that may begin an attempt now, and whether all that they need is to be called."""
        now: datetime | None = None
        left: int | None = None
        chosen, plain = [], True
        for at, pending in machine.pending.items():
            if pending.name is None or pending.cancelling or pending.begun or at in self.under_way or at in self._ended:
                continue
            if pending.due is not None:
                now = now or self._now()
                if e.parse_instant(pending.due) > now:
                    continue
            command: Any = pending.command
            if not command.given.plain or type(command) is not c.Step:
                plain = False
                if self._has_thread(command):
                    if left is None:
                        left = MAX_DAEMONS - sum(self._has_thread(flight.command) for flight in self.under_way.values())
                    left -= 1
                    if left < 0:
                        continue  # it waits for one of those threads
            chosen.append(pending)
        return chosen, plain

    def _has_thread(self, command: c.Step[Any]) -> bool:
        """Whether a step runs in a thread of its own."""
        own = command.given.apart and not self._is_async(command)
        return own and not isinstance(command, c.Transaction)

    def _is_async(self, command: c.Step[Any]) -> bool:
        """Whether a step runs on the event loop."""
        return self.parts.performer.awaits and not command.given.process and callee_of(command.fn).is_async

    def begins(self, ready: list[Pending]) -> list[e.EventBase]:
        """The `begin` events that have to be on disk before these steps are called."""
        begins: list[e.EventBase] = []
        for pending in ready:
            command: Any = pending.command
            if command.given.at_most_once:
                stamp = self.parts.stamp()
                begins.append(e.Begin(at=pending.at, step_id=pending.step_id, name=command.name, timestamp=stamp))
        return begins

    def launch(self, ready: list[Pending], *, alone: bool) -> None:
        """Begin an attempt of each; a lone sync step without a time-out runs in this thread, to its end."""
        run, parts, pulse = self.run, self.parts, self.pulse
        performer, results, line = parts.performer, run.machine.results, run.start.line
        for pending in ready:
            command: Any = pending.command
            at, step_id, attempt, given = pending.at, pending.step_id, pending.attempts + 1, command.given
            try:
                form = results.of(command)
            except CodecError as error:
                self.refuse(pending, error)
                continue
            here, context = alone, StepContext(run.run_id, step_id, attempt, (line, at, command.name), pulse)
            own, inputs = prepared(parts.codec, command)
            flight = Flight(at, step_id, command, form, context, parts.stamp(), inputs)
            if pending.details is not None:
                pulse.before[at] = pending.details
            if form.chunk is not None:
                here = alone and not command.record_chunks  # this thread has to write meanwhile
                flight.stream = flight.context = context = self._stream(command, form, pending)
            if parts.listens:
                parts.tell(lc.StepStarted(run.run_id, step_id, at, attempt))
                flight.since = self._now()
            if self._readers and not given.at_most_once:  # its `begin` says so
                parts.hub.put(run.run_id, Live(run.incarnation, run.seq, step_id, at, attempt))
            self.under_way[at] = flight  # before it runs, so that it can be told that nobody wants it any more
            try:
                if here and not given.apart and not (form.is_async and performer.awaits):
                    value, failure = performer.run_here(own, context)
                else:
                    flight.future = self._launch_elsewhere(flight, own, daemon=given.apart or (alone and not here))
                    flight.future.add_done_callback(lambda _: self.wakeup.set())
                    continue
            except InvalidInputError as refused:  # a process can't be given it: the step fails before it is called
                value, failure = None, refused
            finally:
                if flight.future is None:
                    del self.under_way[at]
            self._ended[at] = self._outcome(flight, pending, value, failure)

    def refuse(self, pending: Pending, error: CodecError) -> None:
        """A step can't be called: its result could never be read back. It fails."""
        self._ended[pending.at] = self._failed(pending, error, pending.attempts + 1, self.parts.stamp(), None)

    def end(self, flight: Flight, pending: Pending, error: BaseException | None) -> None:
        """An attempt that was not launched here has ended; one that failed is collected with the others."""
        if error is not None:
            self._ended[flight.at] = self._outcome(flight, pending, None, error)
        elif flight.since is not None:
            self._ends[flight.at] = (None, self._now() - flight.since)

    def _stream(self, command: c.Stream[Any, Any], form: Form, pending: Pending) -> StepContext:
        """The context of a stream's next attempt."""
        if self.streams is None:  # most sessions have none, and don't load what they need
            try:
                from .chunks import Streams
            except (ImportError, OSError) as error:  # no descriptor left to read a file with
                raise NoThreadError(str(error)) from error
            assert self.session is not None
            self.streams = Streams(self.parts, self.run, self.wakeup, self.session)
        self.stopped.pop(pending.at, None)
        return self.streams.open(command, form, pending.at, pending.step_id, pending.attempts + 1, self.pulse)

    def _launch_elsewhere(self, flight: Flight, own: c.Step[Any], *, daemon: bool) -> Future[Any]:
        """Begin an attempt that does not run in this thread."""
        if own.given.apart:
            self._count(flight)
        if not own.given.process or not self.parts.performer.awaits:
            return self.parts.performer.launch(own, flight.context, daemon=daemon)
        from .processes import STARTING, StepProcess  # with the first such step: few programs have any

        self._count(flight, STARTING)  # until it says that it calls the function
        flight.killable = True
        details, began = self.pulse.before.get(flight.at), partial(self._count, flight, wake=True)
        return StepProcess(own, flight.context, flight.form, self.parts.codec, details, began).start()

    def _count(self, flight: Flight, more: float = 0.0, *, wake: bool = False) -> None:
        """The time of an attempt begins now."""
        given, now = flight.command.given, self._now() + timedelta(seconds=more)
        if given.timeout is not None:
            flight.deadline = now + timedelta(seconds=given.timeout)
        if given.heartbeat_timeout is not None:
            flight.beaten = now
        if wake:
            self.wakeup.set()

    # ---- while they run

    @property
    def lone(self) -> Flight | None:
        """The attempt that runs in the session's own thread, asked for from another one."""
        return next((flight for flight in list(self.under_way.values()) if flight.future is None), None)

    def flies(self, at: str) -> bool:
        """Whether an attempt is under way, or has an outcome that is not recorded yet."""
        return at in self.under_way or at in self._ended

    def may_cancel(self, pending: Pending) -> bool:
        """Whether a cancelled step's outcome is `cancelled`; one that runs keeps its real one, unless it is lost."""
        flight = self.under_way.get(pending.at)
        if flight is None:
            return pending.at not in self._ended
        flight.context.cancel()
        queued = not flight.command.given.apart and not self._is_async(flight.command)
        if not pending.lost and not (queued and flight.future.cancel()):
            return False
        self._drop(flight)
        return True

    def deadlines(self) -> Iterator[datetime]:
        """When attempts time out, and when chunks of streams are to be written."""
        ends = (end for f in self.under_way.values() if f.command.given.apart and (end := f.ends) is not None)
        return ends if self.streams is None else chain(ends, self.streams.deadlines())

    def landed(self) -> bool:
        """Whether an attempt has ended or timed out."""
        if self._ended:
            return True
        return any(flight.future.done() or self._is_late(flight) for flight in self.under_way.values())

    def _is_late(self, flight: Flight) -> bool:
        ends = flight.ends if flight.command.given.apart else None
        return ends is not None and ends <= self._now()

    def cancel_all(self) -> None:
        """Tell every running step that nobody wants its result."""
        for flight in list(self.under_way.values()):
            flight.context.cancel()

    def drop_all(self) -> None:
        """The session ends: what still runs is only reported."""
        for flight in list(self.under_way.values()):
            flight.future.cancel()
            self._drop(flight)
        self.session = self.streams = None

    # ---- after

    def collect(self, machine: Machine, outcomes: dict[str, e.EventBase]) -> None:
        """Put what the attempts that have ended come to into `outcomes`, by `at`: `step` or `attempt` events."""
        outcomes.update(self._ended)
        self._ended.clear()
        for at, flight in list(self.under_way.items()):
            done = flight.future.done()
            if not done and not self._is_late(flight):
                continue
            if done and flight.stream is not None and flight.stream.owes:
                continue  # what it has yielded is written first
            pending = machine.pending.get(at)
            if not done and flight.killable and pending is not None:
                flight.overdue = self._timed_out(flight)  # and collected when it has ended, before another one begins
                continue
            if pending is None or not done:
                self._drop(flight)
            self.under_way.pop(at, None)
            if pending is not None:
                error = flight.overdue or (_error_of(flight) if done else self._timed_out(flight))
                outcomes[at] = self._outcome(flight, pending, None if error else flight.future.result(), error)

    def _timed_out(self, flight: Flight) -> BaseException:
        flight.context.cancel()
        given, step_id = flight.command.given, flight.step_id
        if flight.deadline is not None and flight.deadline <= self._now():
            return StepTimeoutError(f"step {step_id!r} took longer than {given.timeout:g} s")
        return StepTimeoutError(f"step {step_id!r} sent no heartbeat for {given.heartbeat_timeout:g} s")

    def _outcome(self, flight: Flight, pending: Pending, value: Any, error: BaseException | None) -> e.EventBase:
        """The event that says how an attempt ended."""
        number = flight.context.attempt
        if error is None:
            try:
                result = Raw(flight.form.write(value))
            except CodecError as unfit:
                error = unfit
            else:
                if flight.since is not None:
                    self._ends[flight.at] = (None, self._now() - flight.since)
                return e.Step(
                    at=pending.at,
                    step_id=flight.step_id,
                    name=flight.command.name,
                    attempts=number,
                    started=flight.started,
                    inputs=flight.inputs,
                    timestamp=self.parts.stamp(),
                    result=result,
                )
        if flight.stream is not None and flight.stream.was_stopped(error):
            return self._stopped(pending, number, error)
        if isinstance(error, Cancelled) and flight.context.cancelled:  # it was told, and has given up
            return e.Cancelled(at=flight.at, timestamp=self.parts.stamp())
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
        return self._failed(pending, error, number, flight.started, flight.inputs)

    def _wants(self, policy: RetryPolicy, error: BaseException, number: int) -> bool:
        """Whether another attempt follows; the user's own predicate must not cost the record of this one."""
        try:
            if isinstance(error, ToldError):
                return error.retryable and policy.wants_recorded(error.failure, number)
            return policy.wants(error, number)
        except Exception:  # noqa: BLE001 - it is the user's code
            logger.exception("the predicate of a retry policy raised; the step is not tried again")
            return False

    def _stopped(self, pending: Pending, number: int, error: BaseException) -> e.EventBase:
        """What comes of a stream that was closed early, since it is cancelled.

        Where the machine does not know of the cancel yet, it is an attempt that is to be followed by another: writing
        it meets the cancel, and there is none.
        """
        at, step_id, stamp = pending.at, pending.step_id, self.parts.stamp()
        self.stopped[at] = step_id
        if pending.cancelling:
            return e.Cancelled(at=at, timestamp=stamp)
        failure = failure_of(error, attempts=number)
        return e.Attempt(at=at, step_id=step_id, attempt=number, error=failure, due=stamp, timestamp=stamp)

    def given_up(self, pending: Pending, attempt: e.Attempt) -> e.EventBase:
        """The outcome of a step that is cancelled after an attempt failed: that failure, and no further attempts."""
        if pending.at in self.stopped:
            return e.Cancelled(at=pending.at, timestamp=self.parts.stamp())
        return self._event(pending, attempt.attempt, attempt.timestamp, self._digest(pending), attempt.error)

    def gave_up(self, pending: Pending) -> e.Step:
        """The outcome of a step that gave up because it was told that nobody wants it, which turned out to be wrong."""
        error = Cancelled("it was told of a cancel")
        return self._failed(pending, error, pending.attempts + 1, self.parts.stamp(), self._digest(pending))

    def _digest(self, pending: Pending) -> str | None:
        assert isinstance(pending.command, c.Step)
        return inputs_digest(self.parts.codec, pending.command)

    def _policy(self, command: c.Step[Any]) -> RetryPolicy:
        return command.given.retry or self.run.workflow.retry or self.parts.retry

    def _failed(
        self, pending: Pending, error: BaseException, attempts: int, started: str, inputs: str | None
    ) -> e.Step:
        self._keep_error(pending.at, error)
        return self._event(pending, attempts, started, inputs, failure_of(error, attempts=attempts))

    def _keep_error(self, at: str, error: BaseException) -> None:
        """Keep for the listener what the record doesn't tell."""
        if self.parts.listens:
            self._ends[at] = (error, _NO_TIME)

    def _event(self, pending: Pending, attempts: int, started: str, inputs: str | None, error: Failure) -> e.Step:
        return e.Step(
            at=pending.at,
            step_id=pending.step_id,
            name=pending.name or "",
            attempts=attempts,
            started=started,
            inputs=inputs,
            timestamp=self.parts.stamp(),
            error=error,
        )

    def _drop(self, flight: Flight) -> None:
        """Nobody waits for it any more: whatever it brings is told to the listener and forgotten."""
        self.under_way.pop(flight.at, None)
        flight.dropped = True
        if self.streams is not None and flight.stream is not None:
            self.streams.forget(flight.stream)
        flight.context.cancel()
        if self._is_async(flight.command):
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


def _error_of(flight: Flight) -> BaseException | None:
    """How the attempt failed; what ends the process is raised, never recorded."""
    error = end_of(flight.future)
    if isinstance(error, LeavesLoop):
        error = error.error
    if isinstance(error, (KeyboardInterrupt, SystemExit)) and not flight.dropped:
        raise error
    return error
