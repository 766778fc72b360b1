"""The machine: a fold over history. No clock, no store, no thread, no chance, no I/O.

Theory of operation
===================

A workflow is a generator that yields commands. The machine starts it and then knows the *frontier*: the commands that
were issued and not answered. Feeding an event answers one of them; the fiber that yielded it goes on until it yields
the next command; the frontier changes. That is all:

    machine = Machine(workflow, start)       # runs to the first frontier
    for event in history[1:]:                # replay, test, live: the same call
        machine.feed(event)
    machine.pending                          # the frontier, by `at`, oldest first

The machine can't tell whether it is replaying. Running live is: append an event to the store, then feed it. So live and
replay can't differ.

*Paths.* `at` names a command by its place in the code's structure: the root's commands are "0", "1", ...; the group
at "3" has branches "3.0", "3.1", whose commands are "3.0.0", "3.0.1". No interleaving or change in a sibling shifts it.

*Turns.* Fibers run from one FIFO queue, each until it blocks. Answers are delivered in history order, one at a time; a
turn ends when the queue is empty. So even variables that branches share are deterministic.

*Cancel.* A cancelled fiber's wait is interrupted at once. A step keeps its outcome, which the owner records: the
real one, or `cancelled` when it had not begun; then `Cancelled` comes at the fiber's next effect, wait or group. Once
thrown, steps are performed again, because clean-up needs them, and waits raise Cancelled again.

*Patched.* While a fiber asks, nothing advances. The owner's next event decides: its own `patch` event makes the answer
True, any other one was recorded by code that did not ask, which makes it False. Signals and cancels wait meanwhile.

*Divergence* is found before anything changes: an owner's event must fit what is pending at its `at`, in kind and name.

Floor 3: imports no time, random, os, threading, socket, sqlite3, logging (a test holds that).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from . import commands as c
from . import events as e
from .codec import Codec
from .divergence import divergence, unfit
from .errors import (
    Cancelled,
    CodecError,
    CorruptHistoryError,
    DivergenceError,
    InvalidInputError,
    InvalidYieldError,
    SignalRejected,
    StepFailed,
    TimedOut,
)
from .fibers import Fiber, Pending, Verdict
from .inputs import decode_input
from .mailbox import Mailbox
from .results import Results, default_and_show, flow_result
from .scheduler import Scheduler
from .workflows import Workflow

__all__ = ["Machine"]


class Machine:
    """The fold of one run.

    Args:
        workflow: the code.
        start: the first event of the history.
        codec: turns payloads into values.
        run_id: for the texts of errors.
        trace: a list that gets each command as it is issued, as (at, command).

    Attributes:
        pending: the frontier by `at`, oldest first.
        asking: change id that a fiber asks Patched about, or None.
        seq: number of events taken in so far, the start included; the offset of the next one.
        status: "open" until the generator has ended, then "complete", "error" or "cancelled": how the run must be
            closed.
        result: the workflow's return value, as it is read back; `result_raw` is how it is recorded.
        error: the exception that left the workflow.
        closed: whether the closing event has been fed.
        paused, cancelled: what outside events asked for.
        state: what SetState left, as JSON by name.
        mailbox: the signals that came.

    Raises:
        CodecError: the recorded input does not fit the workflow's parameters.
        InvalidYieldError: the workflow yielded something that is no command.
    """

    def __init__(
        self,
        workflow: Workflow[..., Any],
        start: e.Start,
        *,
        codec: Codec,
        run_id: str = "",
        trace: list[tuple[str, c.Command[Any]]] | None = None,
    ) -> None:
        self.workflow = workflow
        self.codec = codec
        self.run_id = run_id
        self.incarnation = start.incarnation
        self.trace = trace
        self.seq = 0
        self.status = "open"
        self.result: Any = None
        self.result_raw = b""
        self.error: BaseException | None = None
        self.closed = False
        self.paused = False
        self.cancelled = False
        self.cancel_reason: str | None = None
        self.state: dict[str, bytes] = {}
        self.patches: dict[str, bool] = {}
        self.mailbox = Mailbox()
        self._asking: tuple[Fiber, str] | None = None
        self._held: deque[tuple[e.EventBase, int]] = deque()
        self.results = Results(codec)
        self._timers_set: set[str] = set()
        root = workflow.fn(*decode_input(codec, workflow, start.input))
        self._fibers = Scheduler(workflow.name, root, self, trace)
        self.pending: dict[str, Pending] = self._fibers.pending
        self._turn(self._run)
        self.seq = 1

    # ---- what is asked from outside

    @property
    def asking(self) -> str | None:
        return self._asking[1] if self._asking else None

    @property
    def waits(self) -> list[Pending]:
        """The Suspends of the frontier, oldest first."""
        return [p for p in self.pending.values() if isinstance(p.command, c.Suspend)]

    def feed(self, event: e.EventBase) -> None:
        """Take in the next event of the history; raises as `fold`."""
        self.fold((event,))

    def fold(self, events: Iterable[e.EventBase]) -> None:
        """Take in the next events of the history, in order.

        Raises:
            DivergenceError: the event answers no command that was issued.
            CodecError: a recorded value does not fit the type that the workflow asks for now. As before, the machine is
                as it was before that event, but that a Patched may have been decided.
            InvalidYieldError: the workflow yielded something that is no command; its generators are closed.
        """
        self._turn(self._take_in, events)

    def cut(self) -> int | None:
        """Where a retry cuts the history of a failed run; None means: only the closing event is dropped."""
        return self._fibers.cut(self.error)

    def close(self) -> None:
        """Close the generators, innermost first; commands that they yield meanwhile are never performed."""
        token = c.made_in_turn.set(None)  # the garbage collector may call this in the midst of another machine's turn
        try:
            self._fibers.close()
        finally:
            c.made_in_turn.reset(token)

    # ---- what the scheduler asks

    def unnumbered(self, fiber: Fiber, command: c.Command[Any]) -> Verdict | None:
        if isinstance(command, c.Patched):
            if command.change_id in self.patches:
                return Verdict(self.patches[command.change_id])
            self._asking = (fiber, command.change_id)
            self._fibers.halted = True
            return None
        assert isinstance(command, c.SetState)
        try:
            encoded = {name: self.codec.encode(value) for name, value in command.values.items()}
        except CodecError as error:
            return Verdict(error=error)
        self.state.update(encoded)
        return Verdict()

    def admit(self, pending: Pending) -> Verdict | None:
        command = pending.command
        try:
            if isinstance(command, c.Suspend):
                pending.default, pending.show = default_and_show(self.codec, command)
                early = None if command.fresh else self.mailbox.take(command.signal)
                if early is not None:
                    return self._received(pending, early, early.offset)
                pending.wait = f"{command.signal}@{self.incarnation}:{pending.at}"
            elif isinstance(command, c.Emit):
                self.codec.encode(command.value)
        except CodecError as error:
            return Verdict(error=error)
        return None

    # ---- turns

    def _turn(self, run: Callable[..., None], *args: Any) -> None:
        token = c.made_in_turn.set(self._fibers.made)
        try:
            run(*args)
        except InvalidYieldError:  # nothing goes on from there
            self.close()
            raise
        finally:
            c.made_in_turn.reset(token)

    def _take_in(self, events: Iterable[e.EventBase]) -> None:
        fibers = self._fibers
        for event in events:
            fibers.event = self.seq
            if self._asking is not None or self.closed or fibers.void:
                self._take_in_late(event)
            else:
                _HANDLERS[type(event)](self, event)
                if (verdict := fibers.run()) is not None:
                    self._end(verdict)
            self.seq += 1

    def _take_in_late(self, event: e.EventBase) -> None:
        """Take in an event while a fiber asks Patched, or after the run was ended."""
        if event.at in self._fibers.void:
            return
        if self.closed:
            raise self._divergence(event, "the history goes on after the event that closed the run")
        if self._asking is None or isinstance(event, (e.Pause, e.Unpause)) or _forced(event):
            self._apply(event)
        elif isinstance(event, e.OUTSIDE):
            self._held.append((event, self.seq))
        else:
            self._decide(event)

    def _decide(self, event: e.EventBase) -> None:
        """The owner's next event while a fiber asks Patched: it says whether this run has the change."""
        while self._asking is not None:
            fiber, change_id = self._asking
            own = isinstance(event, e.Patch) and event.change_id == change_id
            told = event.patches if isinstance(event, e.Retry) else {}
            self.patches[change_id] = told.get(change_id, own)
            self._asking, self._fibers.halted = None, False
            self._fibers.answer(fiber, Verdict(self.patches[change_id]), first=True)
            self._run()
            while self._held and self._asking is None:
                held, self._fibers.event = self._held.popleft()
                self._apply(held)
            self._fibers.event = self.seq
            if own:
                return
        self._apply(event)

    def _apply(self, event: e.EventBase) -> None:
        _HANDLERS[type(event)](self, event)
        if (verdict := self._fibers.run()) is not None:
            self._end(verdict)

    def _run(self) -> None:
        """Let the fibers go on."""
        if (verdict := self._fibers.run()) is not None:
            self._end(verdict)

    def _end(self, verdict: Verdict) -> None:
        """Take in how the root ended, once."""
        if self.status != "open":
            return
        if isinstance(verdict.error, InvalidInputError):
            raise verdict.error  # a command that can't be made is a mistake of the code, like a wrong yield
        if self._fibers.thrown and (verdict.error is None or isinstance(verdict.error, Cancelled)):
            self.status = "cancelled"
        elif verdict.error is not None:
            self.status, self.error = "error", verdict.error
        else:
            self._returned(verdict.value)

    def _returned(self, value: Any) -> None:
        """Take in the workflow's return value; one that can't be recorded fails the run."""
        into = flow_result(self.workflow)
        try:
            self.result_raw = self.codec.encode(value, into)
            self.status, self.result = "complete", self.codec.decode(self.result_raw, into)
        except CodecError as error:
            self.status, self.error = "error", error

    # ---- the owner's events

    def _owed(self, event: Any, kinds: tuple[type[c.Command[Any]], ...], name: str | None = None) -> Pending:
        """The pending command that an owner's event is about; DivergenceError when there is none such."""
        pending = self.pending.get(event.at)
        if pending is None or not isinstance(pending.command, kinds) or name not in (None, pending.command.label):
            raise self._divergence(event)
        return pending

    def _on_step(self, event: e.Step) -> None:
        pending: Any = self.pending.get(event.at)
        if pending is None or pending.name != event.name:
            raise self._divergence(event)
        if pending.lost:  # it ended together with the winner of its Race
            self._fibers.settle_cancelled(pending)
        elif event.error is not None:
            failed = StepFailed.of(event.error, event.step_id, event.at, self._fibers.event)
            self._fibers.settle(pending, error=failed)
        elif event.result is e.UNSET:
            raise CorruptHistoryError(f"run {self.run_id!r}, event {self._fibers.event}: a step without an outcome")
        else:
            try:
                value = self.results.of(pending.command).read(event.result)
            except CodecError as error:
                raise unfit(self.run_id, self._fibers.event, event.step_id, error) from error
            self._fibers.settle(pending, value)

    def _on_cancelled(self, event: e.Cancelled) -> None:
        if event.at is None:
            self._on_close(event)
            return
        pending = self._owed(event, (c.Step,))
        if not pending.cancelling:
            raise self._divergence(event, "nobody cancels that step")
        self._fibers.settle_cancelled(pending)

    def _on_attempt(self, event: e.Attempt) -> None:
        pending = self._owed(event, (c.Step,), event.step_id.partition("#")[0])  # "#2" numbers a repeat
        pending.attempts, pending.due = event.attempt, event.due

    def _on_begin(self, event: e.Begin) -> None:
        self._owed(event, (c.Step,), event.name).begun = True

    def _on_suspend(self, event: e.Suspend) -> None:
        pending = self._owed(event, (c.Suspend,), event.waiting_for)
        pending.recorded, pending.wait, pending.due, pending.since = True, event.wait, event.due, event.timestamp
        if event.due is not None:
            self._timers_set.add(event.at)

    def _on_sleep(self, event: e.Sleep) -> None:
        pending = self._owed(event, (c.Sleep,))
        pending.recorded, pending.due, pending.since = True, event.due, event.timestamp
        self._timers_set.add(event.at)

    def _on_wake(self, event: e.Wake) -> None:
        if event.at in self._timers_set and event.at not in self.pending:
            return  # the wait was answered or abandoned before
        pending = self._owed(event, (c.Sleep, c.Suspend))
        if pending.due is None:
            raise self._divergence(event, "no timer is set there")
        command = pending.command
        if isinstance(command, c.Sleep):
            self._fibers.settle(pending)
        elif pending.default is not None:
            raw, into = pending.default
            raw = raw if event.value is e.UNSET else event.value
            self._fibers.settle(pending, self.codec.decode(raw, into))
        else:
            self._fibers.settle(pending, error=TimedOut(command.label, event.at, self._fibers.event))

    def _on_value(self, event: e.Now | e.Random | e.Uuid) -> None:
        kind, read = _VALUES[type(event)]
        self._fibers.settle(self._owed(event, (kind,)), read(event.value))

    def _on_emit(self, event: e.Emit) -> None:
        self._fibers.settle(self._owed(event, (c.Emit,), event.topic or ""))

    def _on_patch(self, event: e.Patch) -> None:
        self.patches[event.change_id] = True

    def _misplaced(self, event: e.EventBase) -> None:
        raise self._divergence(event, f"a {event.kind!r} event has no place here")

    def _on_retry(self, event: e.Retry) -> None:
        self.patches.update(event.patches)

    def _on_close(self, event: e.EventBase) -> None:
        if _forced(event):
            self._held.clear()
            self._asking = None
            self._fibers.end(Verdict())
            self.status = "cancelled"
        elif event.kind != self.status:
            raise self._divergence(event)
        self.closed = True

    # ---- outside events

    def _on_resume(self, event: e.Resume) -> None:
        if not self.mailbox.is_new(event):
            return
        waiting = [p for p in self.waits if p.command.label == event.event_name and event.wait in (None, p.wait)]
        if waiting:
            received = self._received(waiting[0], event, self._fibers.event)
            self._fibers.settle(waiting[0], received.value, received.error)
        elif event.wait is None:
            self.mailbox.keep(event, self._fibers.event)

    def _received(self, pending: Pending, event: e.Resume, seq: int) -> Verdict:
        command = pending.command
        assert isinstance(command, c.Suspend)
        try:
            return Verdict(self.codec.decode(event.value, Any if command.into is c.UNSET else command.into))
        except CodecError as error:
            return Verdict(error=SignalRejected(command.signal, error.message, pending.at, seq))

    def _on_cancel(self, event: e.Cancel) -> None:
        self.paused = False
        if not self.cancelled:
            self.cancelled, self.cancel_reason = True, event.reason
            self._fibers.cancel(self._fibers.root)

    def _on_pause(self, event: e.Pause | e.Unpause) -> None:
        self.paused = isinstance(event, e.Pause) and not self.cancelled

    def _divergence(self, event: e.EventBase, why: str = "") -> DivergenceError:
        return divergence(self, event, self._fibers.event, why)


def _forced(event: e.EventBase) -> bool:
    return isinstance(event, e.Cancelled) and event.at is None and event.forced


_VALUES: dict[type, tuple[type[c.Command[Any]], Callable[[Any], Any]]] = {
    e.Now: (c.Now, e.parse_instant),
    e.Random: (c.Random, float),
    e.Uuid: (c.Uuid, e.parse_uuid),
}

_HANDLERS: dict[type[e.EventBase], Callable[[Machine, Any], None]] = {
    e.Start: Machine._misplaced,
    e.Step: Machine._on_step,
    e.Cancelled: Machine._on_cancelled,
    e.Attempt: Machine._on_attempt,
    e.Begin: Machine._on_begin,
    e.Suspend: Machine._on_suspend,
    e.Sleep: Machine._on_sleep,
    e.Wake: Machine._on_wake,
    e.Now: Machine._on_value,
    e.Random: Machine._on_value,
    e.Uuid: Machine._on_value,
    e.Emit: Machine._on_emit,
    e.Patch: Machine._on_patch,
    e.Retry: Machine._on_retry,
    e.Complete: Machine._on_close,
    e.Error: Machine._on_close,
    e.Resume: Machine._on_resume,
    e.Cancel: Machine._on_cancel,
    e.Pause: Machine._on_pause,
    e.Unpause: Machine._on_pause,
}
