"""What changes a run from outside: signals, pause, cancel, and the incarnations of fork, retry and reset. Floor 4."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
from msgspec.structs import replace

from . import events as e
from . import lifecycle as lc
from .deciding import is_decided, settles, standing
from .driving import Driver
from .environment import new_token
from .errors import (
    CodecError,
    ConflictError,
    CorruptHistoryError,
    DivergenceError,
    EventMismatchError,
    InvalidYieldError,
    NotFoundError,
    RunClosedError,
    StoreUnavailableError,
)
from .incarnations import Plan, find_cut, plan_fork, plan_retry
from .kin import cancel_child, tell_parent
from .loading import Parts, make_head, read_history
from .logs import logger, replaying
from .needs import needed_by
from .outcomes import Outcome, Running
from .reading import newest_event, outcome_of_head
from .recorder import settle
from .registry import known_workflow
from .sessions import Sessions
from .signals import Message
from .store import AlreadyCommitted, Committed, Conflict, Exists, RunHead
from .wire import to_draft
from .writing import append_outside, create_run

__all__ = ["RESTARTED", "Control"]

RESTARTED = "restarted"
"""Why an open run is cancelled that is about to begin anew."""

_CATCHES = 100
"""How often a forced cancel looks again where a run stands that moves on meanwhile."""


class Control:
    """Writes from outside, and opens incarnations.

    Args:
        parts: what the engine works with.
        sessions: the sessions that are open in it, to be told.
        driver: drives what was made runnable.
    """

    def __init__(self, parts: Parts, sessions: Sessions, driver: Driver) -> None:
        self.parts = parts
        self.sessions = sessions
        self.driver = driver

    # ---- outside events

    def signal(self, run_id: str, message: Message) -> None:
        """Record a signal; nobody is driven by it here."""
        if message.wait is not None and self._head(run_id).closed and is_decided(self.parts, run_id, message):
            return  # it was made before, and counts once
        head = self._open_head(run_id)
        if not self._send_checked(head, message):
            self._send_unchecked(head, message)
        self.sessions.notify(run_id)
        self.parts.tell(lc.SignalSent(run_id, message.name))

    def _send_checked(self, head: RunHead, message: Message) -> bool:
        """Check the signal against the folded run; False when this program's code can't fold it."""
        if known_workflow(self.parts.registry, head) is None:
            return False
        try:
            self.driver.send_checked(head.run_id, message, must_wait=False, drive=False)
        except (DivergenceError, CodecError, InvalidYieldError) as error:
            logger.warning("signal %r to run %r is not checked: %s", message.name, head.run_id, error)
            return False
        return True

    def _send_unchecked(self, head: RunHead, message: Message) -> None:
        """Record a signal without the run's code, as the command line does; its wait checks the payload."""
        event = message.event(self.parts, None)
        if message.wait is not None:
            self._decide_unchecked(head, message, event)
            return
        done = append_outside(self.parts, head.run_id, event, number=head.incarnation)
        self._refuse_closed(head.run_id, done)

    def _decide_unchecked(self, head: RunHead, message: Message, event: e.EventBase) -> None:
        """Record a decision without the run's code, at exactly the position up to which nobody has decided."""
        wait, run_id = message.wait or "", head.run_id
        for _ in range(_CATCHES):
            known = standing(read_history(self.parts.store, run_id, incarnation=head.incarnation), wait, message.id)
            if settles(self.parts, run_id, message, known):
                return
            waits = any((w.signal, w.wait) == (message.name, wait) for w in head.head.waiting)
            if known.ended is not None or not waits:
                raise EventMismatchError(
                    f"run {run_id!r} does not wait for signal {message.name!r} with wait {wait!r}",
                    run_id=run_id,
                    wait=wait,
                )
            done = append_outside(self.parts, run_id, event, number=head.incarnation, at=known.seq)
            if not isinstance(done, Conflict):
                return
            head = self._open_head(run_id)
        raise StoreUnavailableError(f"run {run_id!r} moves on too fast to check a decision against it; try again")

    def _open_head(self, run_id: str) -> RunHead:
        """The head of an open run whose history this program can read."""
        head = self._head(run_id)
        if head.closed:
            raise _closed(head)
        newest_event(self.parts.store, head)
        return head

    def send(self, run_id: str, event: e.EventBase) -> Outcome[Any]:
        """Record cancel, pause or unpause; a run that nobody drives is driven on in this thread."""
        parts = self.parts
        head = self._open_head(run_id)
        lease = None
        if known_workflow(parts.registry, head) is not None:
            lease = parts.lease_request()
        done = append_outside(parts, run_id, event, number=head.incarnation, lease=lease)
        self._refuse_closed(run_id, done)
        parts.tell(_asked(run_id, event))
        self.sessions.notify(run_id, cancel=isinstance(event, e.Cancel))
        if isinstance(done, Conflict) or lease is None:
            return Running(run_id)
        if done.lease is None:
            return Running(run_id) if done.busy_until is not None else self.driver.try_again(run_id)
        return self.driver.take(done.lease)

    def force_cancel(self, run_id: str, reason: str | None) -> None:
        """Close the run as cancelled without asking its workflow, in the name of whoever owns it now."""
        parts, attempt_id = self.parts, new_token()
        event = e.Cancelled(reason=reason, forced=True, timestamp=parts.stamp())
        for _ in range(_CATCHES):
            run = self._head(run_id)
            if run.closed:
                raise _closed(run)
            newest_event(parts.store, run)
            if self._close(run, event, attempt_id):
                break
        else:
            raise StoreUnavailableError(f"run {run_id!r} moves on too fast to be closed; try again")
        self.sessions.notify(run_id, cancel=True)
        parts.tell(lc.RunClosed(run_id, "cancelled"))
        start = next(read_history(parts.store, run_id, incarnation=run.incarnation), None)
        told = tell_parent(parts, start, run_id, event) if isinstance(start, e.Start) else None
        if told is not None:
            self.sessions.notify(told)
        self._cancel_children(run, reason)

    def _cancel_children(self, run: RunHead, reason: str | None) -> None:
        """Pass a forced cancel on to the children that the run waited for; nobody else would."""
        open_ones: dict[str, None] = {}
        for event in read_history(self.parts.store, run.run_id, incarnation=run.incarnation):
            if isinstance(event, e.Child) and not event.detached:
                open_ones[event.child_id] = None
            elif isinstance(event, e.ChildResult):
                open_ones.pop(event.child_id, None)
        told = [one for one in open_ones if cancel_child(self.parts, one, reason or "its parent was cancelled")]
        for child in told:  # all are told before any is driven: one that can't be must not keep the others from hearing
            self.sessions.notify(child, cancel=True)
        for child in told:
            self.driver.errands.drive(child)

    def _close(self, run: RunHead, event: e.Cancelled, attempt_id: str) -> bool:
        """Append the closing event where the run stands; False when it has moved on."""
        now = e.micros(self.parts.now())
        row = replace(run.head, status="cancelled", due=None, waiting=(), blocked=None, updated=now)
        done = settle(
            lambda: self.parts.store.append(
                run.run_id,
                run.incarnation,
                run.seq,
                [to_draft(event)],
                attempt_id=attempt_id,
                head=row,
                then="closed",
                fence=run.fence,
                release=True,
            ),
            self.parts.environment.clock,
        )
        return isinstance(done, (Committed, AlreadyCommitted))

    def _refuse_closed(self, run_id: str, done: object) -> None:
        if isinstance(done, Conflict):
            raise _closed(self._head(run_id))

    # ---- incarnations

    def fork(
        self,
        run_id: str,
        before: str | int | None,
        new_id: str,
        tags: dict[str, str] | None,
        replace: object = None,
    ) -> Outcome[Any]:
        """Create another run with the prefix of this one, and drive it; `replace`: with another result of a step."""
        history: list[e.EventBase] = list(read_history(self.parts.store, run_id))
        start = history[0]
        assert isinstance(start, e.Start)
        source = {"runId": run_id, "incarnation": start.incarnation}
        tags = start.tags if tags is None else tags
        if replace is None:
            source["offset"] = cut = find_cut(history, before)
            self.parts.registry.find(start.workflow, start.version)  # before anything is written
            plan = plan_fork(history, cut, source, tags)
        else:
            plan = self._plan_what_if(history, before, replace, new_id, source, tags)
        made = create_run(self.parts, new_id, _anew(plan, self.parts.stamp()), drive=True)
        if isinstance(made, Exists):
            raise ConflictError(f"run {new_id!r} is there already: a fork needs a run id of its own", run_id=new_id)
        return self.driver.take(made.lease) if made.lease is not None else Running(new_id)

    def _plan_what_if(
        self,
        history: list[e.EventBase],
        before: str | int | None,
        replace: object,
        new_id: str,
        source: dict[str, Any],
        tags: dict[str, str],
    ) -> Plan:
        """The history of a fork in which a step has another result."""
        from .replacing import check_follows, replace_result  # few programs ask what if

        start, codec = history[0], self.parts.codec
        assert isinstance(start, e.Start)
        workflow = self.parts.registry.find(start.workflow, start.version)
        with replaying():
            made = replace_result(workflow, history, replace, codec=codec, run_id=source["runId"])
            source["offset"], source["replaced"] = made.cut(before), made.step_id
            plan = plan_fork(made.history, source["offset"], source, tags)
            check_follows(workflow, plan, made.step_id, codec=codec, run_id=new_id)
        return plan

    def retry(self, run_id: str, *, drive: bool = True) -> Outcome[Any]:
        """Go on with a failed run from what failed."""
        head = self._head(run_id)
        if head.head.status != "failed" or not head.closed:
            status = head.head.status if head.closed else "open"
            raise ConflictError(f"only a failed run can be retried, and run {run_id!r} is {status}", run_id=run_id)
        workflow = self.parts.registry.find(head.head.workflow, head.head.version)
        history = list(read_history(self.parts.store, run_id, incarnation=head.incarnation))
        with replaying():
            plan = plan_retry(
                workflow,
                history,
                incarnation=head.incarnation + 1,
                codec=self.parts.codec,
                run_id=run_id,
                stamp=self.parts.stamp(),
            )
        return self._open(head, plan, drive)

    def restart(self, run_id: str, start: e.Start, *, drive: bool = True) -> Outcome[Any]:
        """Close the run when it is open, and begin it anew with this start."""
        head = self._head(run_id)
        if not head.closed:
            with suppress(RunClosedError):  # it has ended meanwhile
                self.force_cancel(run_id, RESTARTED)
            head = self._head(run_id)
        return self.begin_anew(head, start, (), drive=drive)

    def begin_anew(self, head: RunHead, start: e.Start, more: Sequence[e.EventBase], *, drive: bool) -> Outcome[Any]:
        """Open the incarnation after the closed one that `head` tells of, with this start and what follows it."""
        number = head.incarnation + 1
        start = msgspec.structs.replace(start, session=0, offset=0, incarnation=number, epoch=number, origin=0)
        start = msgspec.structs.replace(start, source=None, prefix=0, spent=0, seen=[], timestamp=self.parts.stamp())
        return self._open(head, Plan([start, *more]), drive)

    def reset(self, run_id: str) -> Outcome[Any]:
        """Begin the run anew with its own input."""
        start = next(read_history(self.parts.store, run_id))
        assert isinstance(start, e.Start)
        self.parts.registry.find(start.workflow, start.version)  # before the run is closed
        return self.restart(run_id, start)

    def delete(self, run_id: str) -> None:
        """Remove a closed run."""
        head = self._head(run_id)
        if not head.closed:
            raise ConflictError(f"run {run_id!r} is open; cancel it before you delete it", run_id=run_id)
        why, start = None, None
        with suppress(CorruptHistoryError):  # a damaged one may be removed
            start = next(read_history(self.parts.store, run_id, incarnation=head.incarnation), None)
        if isinstance(start, e.Start):
            why = needed_by(self.parts.store, start)
        if why is not None:
            raise ConflictError(f"run {run_id!r} can't be deleted yet: {why}", run_id=run_id)
        if not self.parts.store.delete(run_id, head.incarnation):
            raise ConflictError(f"run {run_id!r} was retried, reset or deleted meanwhile", run_id=run_id)
        self.parts.tell(lc.RunRemoved(run_id, head.head.workflow, head.head.status))

    def _open(self, head: RunHead, plan: Plan, drive: bool) -> Outcome[Any]:
        parts, run_id, start = self.parts, head.run_id, plan.events[0]
        assert isinstance(start, e.Start)
        row = make_head(parts, start, "pending", due=parts.now())
        lease = parts.lease_request() if drive else None
        records, attempt_id = [to_draft(event) for event in plan.events], new_token()
        done = settle(
            lambda: parts.store.open_incarnation(
                run_id, head.incarnation + 1, records, head=row, attempt_id=attempt_id, lease=lease
            ),
            parts.environment.clock,
        )
        if isinstance(done, Conflict):
            raise ConflictError(f"run {run_id!r} was retried or reset by somebody else meanwhile", run_id=run_id)
        parts.tell(lc.RunOpened(run_id, start.workflow, start.incarnation))
        granted = getattr(done, "lease", None)
        if granted is not None:
            return self.driver.take(granted)
        return outcome_of_head(parts.codec, parts.store, self._head(run_id), known_workflow(parts.registry, head))

    def _head(self, run_id: str) -> RunHead:
        head = self.parts.store.head(run_id)
        if head is None:
            raise NotFoundError(f"no run {run_id!r}", run_id=run_id)
        return head


def _asked(run_id: str, event: e.EventBase) -> lc.LifecycleEvent:
    if isinstance(event, e.Cancel):
        return lc.CancelAsked(run_id, event.reason)
    return lc.PauseAsked(run_id, event.reason) if isinstance(event, e.Pause) else lc.UnpauseAsked(run_id)


def _closed(run: RunHead) -> RunClosedError:
    status = run.head.status
    return RunClosedError(
        f"run {run.run_id!r} is {status}: nothing reaches it any more", run_id=run.run_id, status=status
    )


def _anew(plan: Plan, stamp: str) -> list[e.EventBase]:
    """A fork is created now, whenever its source was."""
    return [msgspec.structs.replace(plan.events[0], timestamp=stamp), *plan.events[1:]]
