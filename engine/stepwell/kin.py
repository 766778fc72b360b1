"""What a run owes its parent and its children: to start them, to look after them, to tell how it ended. Floor 4.

A child is a run of its own, whose id follows from its parent's, so it can't be started twice. Its owner tells the
parent of its end, as anybody tells a run of something: by an event from outside. Should that owner die between the
child's end and the telling, the parent finds out by looking: whoever drives it looks first, and it is due from time to
time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace

from . import commands as c
from . import events as e
from . import lifecycle as lc
from .errors import (
    ConflictError,
    Failure,
    LeaseLostError,
    NotFoundError,
    RunCancelledError,
    RunMovedError,
    StepwellError,
    type_names,
)
from .failures import failure_of
from .fibers import Pending
from .loading import Loaded, Parts, make_head, read_history
from .logs import logger
from .reading import newest_event
from .recorder import settle, taken_over
from .store import Committed, Conflict, Exists, Lease, RunHead
from .wire import to_draft
from .writing import append_outside, create_run

__all__ = ["Kin", "cancel_child", "child_id", "next_look", "tell_parent"]

SHORTEST_LOOK, LONGEST_LOOK = 10.0, 600.0
"""Seconds after which a parent looks at the children that it waits for, though told nothing: at first, and at most."""

MAX_ID = 180
"""Bytes of a run id that is derived; a longer one is shortened to a digest, with room for its own children."""


def child_id(run_id: str, session: int, at: str, digest: Callable[[str], str]) -> str:
    """The run id of a child: the parent's, the session that began its history, and the path of the command.

    That session is another one in each incarnation, and also when the run id was deleted and is used again.
    """
    derived = f"{run_id}/{session}:{at}"
    return derived if len(derived.encode()) <= MAX_ID else f"{digest(run_id)}/{session}:{at}"


def next_look(machine_pending: list[Pending], now: datetime) -> datetime | None:
    """When a parent that waits for children looks at them: the longer it has waited, the later."""
    looks = []
    for pending in machine_pending:
        if isinstance(pending.command, c.Child) and pending.recorded:
            waited = (now - e.parse_instant(pending.since)).total_seconds() if pending.since else 0.0
            looks.append(now + timedelta(seconds=min(LONGEST_LOOK, max(SHORTEST_LOOK, waited / 2))))
    return min(looks, default=None)


def cancel_child(parts: Parts, run_id: str, reason: str | None) -> bool:
    """Ask a child to end, once, however many owners of its parent do so; False when it is closed or gone."""
    head = parts.store.head(run_id)
    if head is None or head.closed:
        return False
    event = e.Cancel(reason=reason, timestamp=parts.stamp())
    try:
        done = append_outside(
            parts, run_id, event, number=head.incarnation, attempt_id=f"parent-cancels-{head.incarnation}"
        )
    except NotFoundError:
        return False
    if isinstance(done, Committed):
        parts.tell(lc.CancelAsked(run_id, reason))
    return not isinstance(done, Conflict)


class Kin:
    """The parent and the children of one run, for one session.

    Args:
        parts: what the engine works with.
        run: the run.
        lease: the right to drive it.
        notify: tells a session in this process that something was appended to its run.
        drive: drives a run in the calling thread; never raises what is no business of the caller.

    Attributes:
        agenda: ids of runs that whoever drives this one is to drive next.
    """

    def __init__(
        self, parts: Parts, run: Loaded, lease: Lease, notify: Callable[..., None], drive: Callable[[str], object]
    ) -> None:
        self.parts = parts
        self.run = run
        self.began = run.start.session
        self._lease, self._fence = lease, lease.fence
        self.agenda: list[str] = []
        self._notify = notify
        self._drive = drive
        self._looked: set[str] = set()
        self._told: set[str] = set()
        self._handed_over: set[str] = set()

    # ---- children

    def beginning(self, pending: Pending) -> e.Child:
        """The event that says that a child is to be started."""
        command, machine, run = pending.command, self.run.machine, self.run
        assert isinstance(command, c.Child)
        budget = command.budget
        if machine.budget is not None and not command.detached:
            left = max(0, machine.budget - machine.spent)
            budget = left if budget is None else min(left, budget)
        return e.Child(
            at=pending.at,
            child_id=command.run_id or child_id(run.run_id, self.began, pending.at, self.parts.codec.digest),
            workflow=command.workflow.name,
            version=command.workflow.version,
            inputs=None if pending.input is None else self.parts.codec.digest(bytes(pending.input)),
            detached=command.detached,
            budget=budget,
            timestamp=self.parts.stamp(),
        )

    def look_after(self, pending: Pending) -> e.ChildResult | None:
        """See that a recorded child is there; how it ended, when nobody has told. Each is looked at once a session."""
        child = pending.child
        found = None
        if child not in self._looked:
            self._looked.add(child)
            with suppress(RunMovedError):  # it went ahead to another store, and this run will follow it
                found = self._found(pending)
        if found is None and pending.cancelling and not pending.lost:
            self.cancel(child)
        return found

    def look_again(self, events: list[e.ChildResult]) -> None:
        """What was found could not be written: the history had moved on."""
        self._looked.difference_update(event.child_id for event in events)

    def cancel(self, child: str) -> None:
        """Pass a cancel on to a child, once a session."""
        if child in self._told:
            return
        if self.parts.store.head(child) is not None:  # who is about to make it looks whether it is still wanted
            self._told.add(child)
        if cancel_child(self.parts, child, self.run.machine.cancel_reason or f"by its parent {self.run.run_id!r}"):
            self._notify(child, cancel=True)
            self.agenda.append(child)

    def _found(self, pending: Pending) -> e.ChildResult | None:
        command, child = pending.command, pending.child
        assert isinstance(command, c.Child)
        self.parts.registry.add(command.workflow)
        head = self.parts.store.head(child)
        if head is None:
            made = create_run(self.parts, child, [self._start(pending, command)], drive=False)
            head = made.head if isinstance(made, Exists) else None
            if not command.detached:
                self._check_wanted(pending)
        if head is not None:
            refused = self._not_mine(head, pending, command)
            if refused is not None:
                return refused
        if command.detached:
            self.agenda.append(child)
            return self._result(pending, "started")
        if head is not None and head.closed and (closing := self._closing(head)) is not None:
            return closing_result(child, pending.at, closing, self.parts.stamp())
        self.agenda.append(child)
        return None

    def _check_wanted(self, pending: Pending) -> None:
        """See that the parent still waits for a child that was just made: who ended that did not find it yet.

        Raises:
            LeaseLostError: another session has closed the parent, or does not wait for the child.
        """
        run, store = self.run, self.parts.store
        head = store.head(run.run_id)
        if head is not None and head.incarnation == run.incarnation and head.fence == self._fence and not head.closed:
            return
        if head is not None and head.incarnation == run.incarnation and not head.closed:
            events = read_history(store, run.run_id, incarnation=run.incarnation)
            if not any(isinstance(event, e.Cancelled) and event.at == pending.at for event in events):
                raise taken_over(self._lease, head.fence)  # whoever owns it now finds its child made
        cancel_child(self.parts, pending.child, f"its parent {run.run_id!r} does not wait for it")
        raise LeaseLostError(f"run {run.run_id!r} was ended by somebody else", run_id=run.run_id)

    def _closing(self, head: RunHead) -> e.EventBase | None:
        current = self.parts.store.head(head.run_id)
        return newest_event(self.parts.store, current) if current is not None and current.closed else None

    def _start(self, pending: Pending, command: c.Child[Any]) -> e.Start:
        run, start = self.run, self.run.start
        assert pending.input is not None
        parent: dict[str, Any] = {"runId": run.run_id, "incarnation": run.incarnation, "session": self.began}
        parent["at"] = pending.at
        if command.detached:
            parent["detached"] = True
        return e.Start(
            workflow=command.workflow.name,
            version=command.workflow.version,
            input=pending.input,
            tags=command.tags,
            budget=pending.budget,
            parent=parent,
            ancestors=[*start.ancestors, start.workflow],
            max_depth=start.max_depth,
            timestamp=self.parts.stamp(),
        )

    def _not_mine(self, head: RunHead, pending: Pending, command: c.Child[Any]) -> e.ChildResult | None:
        """How a child ends whose run id is taken; None when that run is this child, is begun anew as it, or joined."""
        first = next(read_history(self.parts.store, head.run_id, incarnation=head.incarnation), None)
        theirs = first.parent if isinstance(first, e.Start) else None
        mine = self._start(pending, command)
        if theirs == mine.parent or (command.join and head.head.workflow == command.workflow.name):
            return None
        if theirs is not None and theirs["runId"] == self.run.run_id and head.closed:
            number = head.incarnation + 1  # of an earlier incarnation of this run
            start = replace(mine, incarnation=number, epoch=number)
            row = make_head(self.parts, start, "pending", due=self.parts.now())
            opened = settle(
                lambda: self.parts.store.open_incarnation(
                    head.run_id, number, [to_draft(start)], head=row, attempt_id=f"child-{number}"
                ),
                self.parts.environment.clock,
            )
            if not isinstance(opened, Conflict):
                return None
        text = f"run {head.run_id!r} is there already, and it is no child of run {self.run.run_id!r} at {pending.at}"
        return self._result(pending, "failed", error=failure_of(ConflictError(text)))

    def _result(self, pending: Pending, status: str, **outcome: Any) -> e.ChildResult:
        return e.ChildResult(
            at=pending.at, child_id=pending.child, status=status, timestamp=self.parts.stamp(), **outcome
        )

    def hand_over(self, wakeup: threading.Event) -> None:
        """Have other threads drive what is on the agenda: this one is to wait for steps.

        Args:
            wakeup: is set when one of them has ended.
        """

        def drive(child: str) -> None:
            try:
                self._drive(child)
            finally:
                self._handed_over.discard(child)
                wakeup.set()

        while self.agenda and self.parts.environment.threads:
            child = self.agenda.pop()
            thread = threading.Thread(target=drive, args=(child,), name="stepwell-child", daemon=True)
            self._handed_over.add(child)
            try:
                thread.start()
            except RuntimeError:  # there is none to be had: it is driven afterwards
                self._handed_over.discard(child)
                self.agenda.append(child)
                return

    @property
    def busy(self) -> bool:
        """Whether other threads drive children of this run."""
        return bool(self._handed_over)

    # ---- the parent

    def tell_parent(self, closing: e.EventBase) -> None:
        """Tell the parent how this run has ended; when that fails, it finds out by looking."""
        told = tell_parent(self.parts, self.run.start, self.run.run_id, closing)
        if told is not None:
            self._notify(told)
            self.agenda.append(told)


def tell_parent(parts: Parts, start: e.Start, run_id: str, closing: e.EventBase) -> str | None:
    """Tell a child's parent how the child has ended; the parent's run id, None when nobody waits there."""
    parent = start.parent
    if parent is None or parent.get("detached"):
        return None
    result = closing_result(run_id, parent["at"], closing, parts.stamp())
    attempt_id = f"child-{parts.codec.digest([run_id, start.incarnation])}"
    try:
        head = parts.store.head(parent["runId"])
        if head is None or head.closed or head.incarnation != parent["incarnation"]:
            return None
        done = append_outside(parts, head.run_id, result, number=head.incarnation, attempt_id=attempt_id)
    except StepwellError as error:
        logger.warning("run %r could not tell its parent %r of its end: %s", run_id, parent["runId"], error)
        return None
    if isinstance(done, Conflict):
        return None
    parts.tell(lc.ChildEnded(head.run_id, run_id, result.status, result.at))
    return head.run_id


def closing_result(child: str, at: str, closing: e.EventBase, stamp: str) -> e.ChildResult:
    """What a parent is told of the event that closed a child."""
    how: dict[str, Any] = {}
    if isinstance(closing, e.Complete):
        how = {"status": "completed", "result": closing.result, "spent": closing.spent}
    elif isinstance(closing, e.Error):
        how = {"status": "failed", "error": closing.error, "spent": closing.spent}
    elif isinstance(closing, e.Cancelled):
        reason = f": {closing.reason}" if closing.reason else ""
        gone = Failure(type_names(RunCancelledError), f"run {child!r} was cancelled{reason}", RunCancelledError.code)
        how = {"status": "cancelled", "error": gone, "spent": closing.spent}
    return e.ChildResult(at=at, child_id=child, timestamp=stamp, **how)
