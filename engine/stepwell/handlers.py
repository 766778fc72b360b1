"""What each event does to a run: the machine's handlers, one for each type of event. Floor 3.

An *owner's* event answers or describes a command of the frontier: one that does not is a divergence, found before
anything changes. An *outside* event is taken in whenever it comes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any

from . import commands as c
from . import events as e
from .codec import Codec
from .divergence import divergence, unfit
from .errors import (
    ChildFailed,
    CodecError,
    CorruptHistoryError,
    DivergenceError,
    Failure,
    SignalRejected,
    StepFailed,
    TimedOut,
)
from .fibers import Pending, Verdict
from .limits import BudgetExceededError
from .mailbox import Mailbox
from .results import Results, delivered, flow_result, timed_out
from .scheduler import Scheduler
from .workflows import Workflow

__all__ = ["HANDLERS", "Handlers", "forced"]


class Handlers(ABC):
    """The state of a run, and what events do to it; `Machine` is what one works with."""

    workflow: Workflow[..., Any]
    codec: Codec
    run_id: str
    results: Results
    mailbox: Mailbox
    pending: dict[str, Pending]
    state: dict[str, bytes]
    patches: dict[str, bool]
    children: dict[str, str]
    abandoned: set[str]
    charged: dict[str, float]
    budget: float | None
    spent: float
    status: str
    closed: bool
    paused: bool
    cancelled: bool
    cancel_reason: str | None
    error: BaseException | None
    _fibers: Scheduler
    asking: str | None
    _held: deque[tuple[e.EventBase, int]]
    _timers_set: set[str]

    @property
    def waits(self) -> list[Pending]:
        """The Suspends of the frontier, oldest first."""
        return [p for p in self.pending.values() if isinstance(p.command, c.Suspend)]

    @abstractmethod
    def _stop_going_on(self) -> None:
        """A cancel came: a run that was about to go on as new is closed instead."""

    @abstractmethod
    def compensate(self) -> bool:
        """Begin to undo what was done; False when there is nothing to be undone, or it is being undone already."""

    # ---- the owner's events

    def _owed(self, event: Any, kinds: tuple[type[c.Command[Any]], ...], name: str | None = None) -> Pending:
        """The pending command that an owner's event is about; DivergenceError when there is none such."""
        pending = self.pending.get(event.at)
        if pending is None or not isinstance(pending.command, kinds) or name not in (None, pending.command.label):
            raise self._divergence(event)
        return pending

    def _on_step(self, event: e.Step) -> None:
        pending: Any = self.pending.get(event.at)
        if pending is None and event.at.startswith("undo.") and self.compensate():
            pending = self.pending.get(event.at)  # recorded when the workflow had no policy of restarts
        if pending is None or pending.name != event.name:
            raise self._divergence(event)
        fibers, value, failed = self._fibers, None, None
        if pending.lost:  # it ended together with the winner of its Race
            fibers.settle_cancelled(pending)
            return
        if event.error is not None:
            failed = StepFailed.of(event.error, event.step_id, event.at, fibers.event)
        elif event.result is e.UNSET:
            raise CorruptHistoryError(f"run {self.run_id!r}, event {fibers.event}: a step without an outcome")
        else:
            try:
                value = self.results.of(pending.command).read(event.result)
            except CodecError as error:
                raise unfit(self.run_id, fibers.event, event.step_id, error) from error
        fibers.settle(pending, value, failed)

    def _on_cancelled(self, event: e.Cancelled) -> None:
        if event.at is None:
            self._on_close(event)
            return
        pending = self._owed(event, (c.Step, c.Child))
        if not pending.cancelling:
            raise self._divergence(event, f"nobody cancels that {pending.command.kind}")
        if pending.child in self.children:
            self.abandoned.add(pending.child)  # it is told before this run is closed
        self._fibers.settle_cancelled(pending)

    def _on_attempt(self, event: e.Attempt | e.Chunk) -> None:
        pending = self._owed(event, (c.Step,), event.step_id.partition("#")[0])  # "#2" numbers a repeat
        pending.attempts, pending.due = event.attempt, event.due

    def _on_begin(self, event: e.Begin) -> None:
        self._owed(event, (c.Step,), event.name).begun = True

    def _on_heartbeat(self, event: e.Heartbeat) -> None:
        self._owed(event, (c.Step,), event.step_id.partition("#")[0]).details = bytes(event.details)

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
            self._fibers.settle(pending, timed_out(command, event, self.codec.decode(raw, into)))
        else:
            self._fibers.settle(pending, error=TimedOut(command.label, event.at, self._fibers.event))

    def _on_value(self, event: e.Now | e.Random | e.Uuid) -> None:
        kind, read = _VALUES[type(event)]
        self._fibers.settle(self._owed(event, (kind,)), read(event.value))

    def _on_emit(self, event: e.Emit) -> None:
        self._fibers.settle(self._owed(event, (c.Emit,), event.topic or ""))

    def _on_spend(self, event: e.Spend) -> None:
        pending = self._owed(event, (c.Spend,), event.label or "")
        self.spent += event.amount
        error = self.overspent(event.at, self._fibers.event)
        self._fibers.settle(pending, None if self.budget is None else self.budget - self.spent, error)

    def overspent(self, at: str, seq: int = -1) -> BudgetExceededError | None:
        """The error for a run that has passed its budget; None while it has not."""
        if self.budget is None or self.spent <= self.budget:
            return None
        text = f"the run has spent {self.spent:g}, and its budget is {self.budget:g}"
        return BudgetExceededError(text, spent=self.spent, budget=self.budget, at=at, seq=seq)

    def _on_child(self, event: e.Child) -> None:
        pending = self._owed(event, (c.Child,), event.workflow)
        pending.recorded, pending.child, pending.since = True, event.child_id, event.timestamp
        pending.budget = event.budget
        if not event.detached:
            self.children[event.child_id] = event.at
            self.charged.setdefault(event.child_id, 0)

    def _on_compensate(self, _event: e.Compensate) -> None:
        self.compensate()

    def _on_patch(self, event: e.Patch) -> None:
        self.patches[event.change_id] = True

    def _misplaced(self, event: e.EventBase) -> None:
        raise self._divergence(event, f"a {event.kind!r} event has no place here")

    def _on_retry(self, event: e.Retry) -> None:
        self.patches.update(event.patches)
        self.spent += event.spent

    def _on_close(self, event: e.EventBase) -> None:
        if forced(event):
            self._held.clear()
            self.asking = None
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
            return Verdict(delivered(self.codec, command, event))
        except CodecError as error:
            return Verdict(error=SignalRejected(command.signal, error.message, pending.at, seq))

    def _on_child_result(self, event: e.ChildResult) -> None:
        if event.child_id in self.charged:  # one that is retried by somebody ends again, and has spent more
            self.spent += max(0, event.spent - self.charged[event.child_id])
            self.charged[event.child_id] = max(event.spent, self.charged[event.child_id])
        self.children.pop(event.child_id, None)
        self.abandoned.discard(event.child_id)
        pending = self.pending.get(event.at)
        if pending is None or not isinstance(pending.command, c.Child) or pending.child != event.child_id:
            return  # it was answered or abandoned before, or is of another incarnation
        if event.status == "started":
            self._fibers.settle(pending, event.child_id)
        elif event.status == "completed":
            try:
                value = self.codec.decode(event.result or b"null", flow_result(pending.command.workflow))
            except CodecError as error:
                raise unfit(self.run_id, self._fibers.event, event.child_id, error) from error
            self._fibers.settle(pending, value)
        elif event.status == "cancelled" and pending.cancelling:
            self._fibers.settle_cancelled(pending)
        else:
            failure = event.error or Failure((), "the child was cancelled")
            failed = ChildFailed.of(failure, event.child_id, event.at, self._fibers.event)
            self._fibers.settle(pending, error=failed)

    def _on_cancel(self, event: e.Cancel) -> None:
        self.paused = False
        if not self.cancelled:
            self.cancelled, self.cancel_reason = True, event.reason
            self._fibers.cancel(self._fibers.root)
            self._stop_going_on()

    def _on_pause(self, event: e.Pause | e.Unpause) -> None:
        self.paused = isinstance(event, e.Pause) and not self.cancelled

    def _divergence(self, event: e.EventBase, why: str = "") -> DivergenceError:
        return divergence(self, event, self._fibers.event, why)


def forced(event: e.EventBase) -> bool:
    """Whether an event closes the run without asking the workflow."""
    return isinstance(event, e.Cancelled) and event.at is None and event.forced


_VALUES: dict[type, tuple[type[c.Command[Any]], Callable[[Any], Any]]] = {
    e.Now: (c.Now, e.parse_instant),
    e.Random: (c.Random, float),
    e.Uuid: (c.Uuid, e.parse_uuid),
}

HANDLERS: dict[type[e.EventBase], Callable[[Handlers, Any], None]] = {
    e.Start: Handlers._misplaced,
    e.Step: Handlers._on_step,
    e.Cancelled: Handlers._on_cancelled,
    e.Attempt: Handlers._on_attempt,
    e.Begin: Handlers._on_begin,
    e.Chunk: Handlers._on_attempt,
    e.Heartbeat: Handlers._on_heartbeat,
    e.Suspend: Handlers._on_suspend,
    e.Sleep: Handlers._on_sleep,
    e.Wake: Handlers._on_wake,
    e.Now: Handlers._on_value,
    e.Random: Handlers._on_value,
    e.Uuid: Handlers._on_value,
    e.Emit: Handlers._on_emit,
    e.Spend: Handlers._on_spend,
    e.Compensate: Handlers._on_compensate,
    e.Child: Handlers._on_child,
    e.ChildResult: Handlers._on_child_result,
    e.Patch: Handlers._on_patch,
    e.Retry: Handlers._on_retry,
    e.Complete: Handlers._on_close,
    e.Error: Handlers._on_close,
    e.Resume: Handlers._on_resume,
    e.Cancel: Handlers._on_cancel,
    e.Pause: Handlers._on_pause,
    e.Unpause: Handlers._on_pause,
}
