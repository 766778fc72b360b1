"""Restarts: a run that fails goes on from what failed, as the policy of its workflow says. Floor 4.

A run that is to be restarted is not closed. Its owner opens the next incarnation in place of the close, in one write,
as `engine.retry` would: with the history up to what failed, and a `retry` event that says why, when and which time it
is. So it is an open run that is due later: everybody sees it, any worker claims it when it is time, and it can be
cancelled. There is no moment at which it has failed and nobody knows that it is to go on; and since the write holds the
owner's fence and the number of the incarnation, none is restarted twice.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace

from . import events as e
from . import lifecycle as lc
from .environment import new_token
from .errors import Failure, LeaseLostError, StepFailed
from .failures import failure_of
from .incarnations import plan_retry
from .loading import Loaded, Parts, make_head, read_history
from .logs import logger, replaying
from .machine import Machine
from .outcomes import RunSuspended
from .recorder import Recorder, settle, taken_over
from .retry import RetryPolicy
from .store import AlreadyCommitted, Committed, Conflict, Fenced, Lease
from .wire import read_tail, to_draft

__all__ = ["Restarts"]


class Restarts:
    """The restarts of one run, as its session sees them.

    Args:
        parts: what the engine works with.
        run: the run that is driven.

    Attributes:
        due: until when the run waits after it failed; None: it need not.
        lease: for whoever drives it on in its next incarnation, when that is soon.
    """

    def __init__(self, parts: Parts, run: Loaded) -> None:
        self.parts = parts
        self.run = run
        self.due: datetime | None = None
        self.lease: Lease | None = None
        self._event: e.Retry | None = None

    def look(self) -> None:
        """Find out whether the run began after a failure, and when it is to go on."""
        start = self.run.start
        if start.incarnation == 0 or start.source is None:
            return
        tail = self.parts.store.read(self.run.run_id, start.prefix + 1, incarnation=self.run.incarnation, limit=1)
        event = read_tail(tail, self.run.run_id)[0] if tail is not None and tail.records else None
        if isinstance(event, e.Retry):
            self._event = event
            self.due = None if event.due is None else e.parse_instant(event.due)

    def seconds_left(self, machine: Machine) -> float:
        """How long the run still has to wait; 0 once it may go on, for good. One that is cancelled waits no more."""
        left = 0.0 if self.due is None or machine.cancelled else (self.due - self.parts.now()).total_seconds()
        if left <= 0:
            self.due = None
        return max(0.0, left)

    def outcome(self, waiting_for: tuple[str, ...]) -> RunSuspended:
        """That the run waits for its restart."""
        reason = None if self._event is None else f"restart {self._event.restart} after: {_words(self._event)}"
        return RunSuspended(self.run.run_id, waiting_for, reason, self.due)

    def open_next(self, machine: Machine, recorder: Recorder, *, leaving: bool) -> bool | None:
        """Open the next incarnation of a run that has failed, if its workflow's policy wants that.

        Args:
            machine: as the whole history has it, and nothing more.
            leaving: whoever drives the run won't drive it on.

        Returns:
            Whether it is open; False when something came from outside, which has to be taken in before. None: the run
            is to be closed.

        Raises:
            LeaseLostError: a newer session owns the run.
        """
        parts, run, policy, error = self.parts, self.run, self.run.workflow.restart, machine.error
        number = 1 if self._event is None else self._event.restart + 1
        if policy is None or error is None or machine.cancelled or not _wants(policy, error, number):
            return None
        if machine.undone:  # what was done is undone: it can't go on from there
            return None
        history: list[e.EventBase] = list(read_history(parts.store, run.run_id, incarnation=run.incarnation))
        if len(history) != recorder.seq:
            return False
        failure, cut = failure_of(error), machine.cut()
        events = self._planned(history, failure, len(history) if cut is None else cut)
        if _repeats(history, events):
            return None
        due = parts.now() + timedelta(seconds=policy.delay(number, f"{run.run_id}/restart"))
        start: Any = events[0]
        place: int = start.prefix + 1
        retry: Any = events[place]
        marked: e.Retry = replace(retry, error=failure, due=e.instant(due), restart=number)
        events[place] = self._event = marked
        soon = not leaving and (due - parts.now()).total_seconds() <= parts.park_after
        opened = _open(parts, run, recorder, events, due, soon=soon)
        if isinstance(opened, Conflict):
            return False
        self.due, self.lease = due, opened.lease
        logger.info("run %r failed, and goes on at %s", run.run_id, due, exc_info=error)
        parts.tell(lc.RunRestarting(run.run_id, number, failure, due))
        parts.tell(lc.RunOpened(run.run_id, start.workflow, start.incarnation))
        return True

    def _planned(self, history: list[e.EventBase], failure: Failure, cut: int) -> list[e.EventBase]:
        """What the next incarnation begins with."""
        with replaying():
            plan = plan_retry(
                self.run.workflow,
                [*history, e.Error(error=failure, cause=cut)],
                incarnation=self.run.incarnation + 1,
                codec=self.parts.codec,
                run_id=self.run.run_id,
                stamp=self.parts.stamp(),
            )
        return list(plan.events)


def _open(
    parts: Parts, run: Loaded, recorder: Recorder, events: list[e.EventBase], due: datetime, *, soon: bool
) -> Committed | AlreadyCommitted | Conflict:
    start: Any = events[0]
    head = make_head(parts, start, "suspended", due=due)
    records, attempt_id = [to_draft(event) for event in events], new_token()
    lease, seq = parts.lease_request() if soon else None, recorder.seq
    done = settle(
        lambda: parts.store.open_incarnation(
            run.run_id,
            start.incarnation,
            records,
            head=head,
            attempt_id=attempt_id,
            lease=lease,
            fence=recorder.lease.fence,
            expected_seq=seq,
        ),
        parts.environment.clock,
    )
    if isinstance(done, Fenced):
        raise taken_over(recorder.lease, done.fence)
    if isinstance(done, Conflict) and done.incarnation != run.incarnation:
        raise LeaseLostError(f"run {run.run_id!r} was reset or retried meanwhile", run_id=run.run_id)
    return done


def _wants(policy: RetryPolicy, error: BaseException, number: int) -> bool:
    """Whether a failure is worth another try; one of a step is told by what is recorded of it, live too."""
    try:
        if isinstance(error, StepFailed):
            if not policy.wants_recorded(error.failure, number):
                return False
            return policy.when is None or bool(policy.when(error))
        return policy.wants(error, number)
    except Exception:  # noqa: BLE001 - it is the user's code
        logger.exception("the predicate of a restart policy raised; the run is not restarted")
        return False


def _words(event: e.Retry) -> str:
    """Why a run was restarted, for people."""
    failure = event.error
    if failure is None:
        return "it failed"
    return failure.message if "stepwell.errors.StepFailed" in failure.types else str(failure)


def _repeats(history: list[e.EventBase], planned: list[e.EventBase]) -> bool:
    """Whether a step that is marked at_most_once would be begun again: only a person may ask for that."""
    begun = {event.at for event in history if isinstance(event, e.Begin)}
    return not begun <= {event.at for event in planned if isinstance(event, (e.Begin, e.Step))}
