"""A session: one continuous stretch of driving a run by one owner. Floor 4.

The rule is *record, then feed*: the outcome of an effect is on disk before the workflow sees it. What has no effect
behind it (Now, Random, Uuid, Emit, timers, `cancelled`) is fed at once, kept in a batch, and written in one append
before the next effect starts, or the session waits, parks or closes. No other write is ever ahead of the history.

When that append meets an event from outside, everything that was fed and not written is void: the machine is built
again from the store's bytes, outcomes of effects are kept by their `at`, pure values are drawn again, and until an
append succeeds the session writes first and feeds after, so that it can't lose that race for ever.
"""

from __future__ import annotations

import weakref
from datetime import datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from . import commands as c
from . import events as e
from . import lifecycle as lc
from .blocking import block_driven
from .ends import STATUS, closing_event, next_events
from .errors import CodecError, CorruptHistoryError, DivergenceError, InvalidInputError, LeaseLostError, StepwellError
from .fibers import Pending
from .frontier import answer_to, suspend_event
from .kin import Kin, next_look
from .ledger import Ledger
from .limits import HistoryLimitError
from .loading import Loaded, Parts, make_head
from .logs import logger
from .outcomes import Outcome, Running, RunPaused, RunSuspended
from .performers import NoThreadError
from .reading import outcome_of
from .registry import may_ask
from .restarts import Restarts
from .store import Lease, Status
from .transacting import Transactions

__all__ = ["CODE_ERRORS", "PASSING", "GoesOn", "Session"]

CODE_ERRORS = (DivergenceError, CodecError, InvalidInputError, HistoryLimitError)
"""Code and history don't fit: the run is blocked, its history stays as it is."""

PASSING = (MemoryError, OSError, NoThreadError)
"""Want of something that the next session may have again."""

POLL = 1.0
"""Seconds after which an owner that waits looks for events from outside, when nobody told it of any."""


class GoesOn(msgspec.Struct, frozen=True):
    """The run goes on in the next incarnation, whose lease this is."""

    lease: Lease


class Session(Ledger):
    """Drives one run under one lease until it is parked or closed.

    Args:
        parts: what the engine works with.
        run: the run as its history has it.
        lease: the right to drive it.
        kin: its parent and its children.
    """

    def __init__(self, parts: Parts, run: Loaded, lease: Lease, kin: Kin) -> None:
        super().__init__(parts, run, lease)
        self.kin = kin
        self.told = False  # of an event from outside
        self.leaving = False
        self.contained: type[BaseException] | None = None  # what is this run's own fault, and blocks it
        self.transactions = Transactions(parts, run, self.flights)
        self.restarts = Restarts(parts, run)
        self.flights.session = self
        self.flights.pulse.session = weakref.ref(self)
        self._outcomes: dict[str, e.EventBase] = {}
        self._parked = False

    def notify(self, *, cancel: bool = False) -> None:
        """Tell the session, from any thread, that something was appended from outside; `cancel`: to end the run."""
        if cancel and not self.machine.cancelled and not self.machine.undone:  # what undoes is not stopped by it
            self.flights.cancel_all()  # a step in this session's own thread hears of it now
        self.told = True
        self.wakeup.set()

    def leave(self) -> None:
        """Ask the session, from any thread, to begin no further step; those that run are recorded first."""
        self.leaving = True
        self.wakeup.set()

    def lose(self) -> None:
        """Tell the session, from any thread, that its lease is lost."""
        self.recorder.lost = True
        self.flights.cancel_all()
        self.wakeup.set()

    def drive(self) -> Outcome[Any] | GoesOn:
        """Drive until parked or closed, or until the next incarnation is open.

        Raises:
            DivergenceError, CodecError, InvalidInputError: the run is blocked now.
            LeaseLostError: a newer session owns the run.
            StoreError: the store failed; the next session goes on from what is recorded.
        """
        parts, run_id = self.parts, self.run.run_id
        parts.tell(lc.SessionStarted(run_id, self.lease.fence, self.run.seq))
        for step in self.run.replayed:
            parts.tell(step)
        try:
            self.restarts.look()
            while True:
                outcome = self._go_on() if self.restarts.due is None else self._await_restart()
                if outcome is not None:
                    return outcome
        except (*CODE_ERRORS, CorruptHistoryError) as error:
            block_driven(self.parts, self.recorder, self.run, error)
            raise
        except (StepwellError, *PASSING):
            self._let_go()
            raise
        except BaseException as error:
            if self.contained and isinstance(error, self.contained):  # it would be raised in the next session as well
                block_driven(self.parts, self.recorder, self.run, StepwellError(f"{type(error).__name__}: {error}"))
            else:
                self._let_go()
            raise
        finally:
            self.flights.drop_all()
            if not self._parked:
                self.machine.close()

    # ---- one round

    def _go_on(self) -> Outcome[Any] | GoesOn | None:
        """Do the next thing that is to be done; the outcome once there is nothing left."""
        machine, flights = self.machine, self.flights
        if machine.closed:
            return self._ended()
        if self.recorder.lost:
            raise LeaseLostError(f"the lease of run {self.run.run_id!r} was lost", run_id=self.run.run_id)
        if flights.landed() and machine.asking is None:  # what is asked is answered before anything else is written
            if flights.streams is not None and not flights.streams.flush():  # what they yielded comes before
                return None
            flights.collect(machine, self._outcomes)
        if self._outcomes and machine.asking is None and not self._record_outcomes():
            return None
        if self._answer_pure():
            return None
        if machine.has_children and not machine.paused and self._tend_children():
            return None
        if machine.status != "open" and not machine.paused:
            return self._continue_run() if machine.status == "continue" else self._close_run()
        if not machine.paused and not self.leaving:
            ready, plain = flights.ready(machine)
            if ready:
                self._launch(ready, plain=plain)
                return None
        wait = self._seconds_to_wait()
        if wait is not None:
            self._wait(wait)
            return None
        return self._park()

    def _await_restart(self) -> Outcome[Any] | None:
        """Wait until a run that failed may go on; the outcome when that is for another session."""
        machine = self.machine
        left = 0.0 if machine.closed or self.recorder.lost else self.restarts.seconds_left(machine)
        if not left:
            self.restarts.due = None
        elif machine.paused or self.leaving or left > self.parts.park_after:
            return self._park()
        else:
            self._wait(min(POLL, left))
        return None

    def _answer_pure(self) -> bool:
        """Answer, and feed, every command that has no effect behind it."""
        machine, moved = self.machine, False
        if machine.asking is not None:
            self._feed_pure(e.Patch(change_id=machine.asking, timestamp=self.parts.stamp()))
            return True
        if machine.paused or machine.status != "open":
            return False
        now = None
        for pending in list(machine.pending.values()):
            if pending.name is not None and not pending.cancelling and not pending.begun:
                continue  # a step that is to be performed
            if machine.pending.get(pending.at) is not pending:
                continue
            now = now or self.parts.now()
            if pending.cancelling and self._batch and self.flights.flies(pending.at):
                self._append([])  # what decides over a step that runs has to be on disk first
                return True
            event = answer_to(pending, self.parts, now, self.flights)
            if event is not None:
                moved = True
                if isinstance(event, e.Cancelled):
                    self.reports.dropped[pending.at] = pending.step_id
                self._feed_pure(event)
                if machine is not self.machine or machine.asking is not None or machine.paused:
                    break  # what came from outside, or from the code, is to be looked at first
        return moved

    def _record_outcomes(self) -> bool:
        """Write what effects came to, and only then feed it; False when there is more, or the tail had moved."""
        machine, outcomes = self.machine, self._outcomes
        for at, event in list(outcomes.items()):
            if (pending := machine.pending.get(at)) is None:
                self.flights.report_void(outcomes.pop(at))
            elif pending.cancelling and isinstance(event, e.Attempt):  # since the attempt failed
                outcomes[at] = self.flights.given_up(pending, event)
            elif isinstance(event, e.Cancelled):  # it was told, and gave up
                self.reports.dropped[at] = pending.step_id
                if not pending.cancelling:
                    self._find_cancel(at, pending)
                    return False
        chosen = outcomes
        if len(outcomes) > 1 and may_ask(self.run.workflow):
            # one may bring up a Patched, which has to be answered before the next one is written
            chosen = dict([next(iter(outcomes.items()))])
        if chosen:
            events, pulse = list(chosen.values()), self.flights.pulse
            if pulse.fresh:
                events[:0] = pulse.last_of(machine, chosen)
            if not self._append(events):
                return False
            pulse.written(events)
            if chosen is outcomes:
                self._outcomes = outcomes = {}
            else:
                del outcomes[next(iter(chosen))]
            machine.fold(events)
        return not outcomes

    def _tend_children(self) -> bool:
        """Start children, and see to those that are under way; whether anything was written."""
        machine, kin = self.machine, self.kin
        if self._batch and (machine.abandoned or any(isinstance(p.command, c.Child) for p in machine.pending.values())):
            self._append([])  # what decides over children is on disk before they hear of it
            return True
        for child in list(machine.abandoned):
            kin.cancel(child)
        begun: list[e.EventBase] = []
        ended: list[e.ChildResult] = []
        for pending in list(machine.pending.values()):
            if not isinstance(pending.command, c.Child):
                continue
            if pending.recorded:
                found = kin.look_after(pending)
                if found is not None:
                    ended.append(found)
            elif not (pending.cancelling or self.leaving):
                begun.append(kin.beginning(pending))
        if begun:
            self.growth.check(self.recorder, cleaning=machine.cancelled)
        for events in (begun, ended):
            if events and not self._append([*events]):
                kin.look_again(ended)
                return True
            machine.fold(events)
        return bool(begun or ended)

    def _find_cancel(self, at: str, pending: Pending) -> None:
        """Read the cancel that a step has heard of before this session has."""
        self._catch_up()
        if self.machine.pending.get(at) is pending and not pending.cancelling:
            self._outcomes[at] = self.flights.gave_up(pending)

    def _launch(self, ready: list[Pending], *, plain: bool) -> None:
        """Start the steps that are ready; all that they follow from is on disk before."""
        machine, growth, recorder = self.machine, self.growth, self.recorder
        if recorder.seq >= growth.events or recorder.size >= growth.size:
            growth.check(recorder, cleaning=machine.cancelled)
        begins: list[e.EventBase] = []
        transaction = None
        if not plain:
            ready, transaction = self.transactions.split(ready)
            begins = self.flights.begins(ready)
        if self._batch or begins:
            if not self._append(begins):
                return
            machine.fold(begins)
        self.flights.launch(ready, alone=len(machine.pending) == 1)
        if transaction is not None:
            self._transact(transaction)

    def _transact(self, pending: Pending) -> None:
        """Perform a Transaction, whose record is on disk together with its rows, and only then feed it."""
        event = self.transactions.perform(pending, self.recorder.transact)
        if event is None:
            self._catch_up()
            return
        self.run.last = event
        if self.parts.listens:
            self.reports.tell_of(event, self.machine)
        self.machine.feed(event)

    def write_beats(self) -> None:
        """Write what steps have told, unless that was done a moment ago."""
        events = self.flights.pulse.due(self.machine)
        if events and self.record(events):
            self.flights.pulse.written(events)

    # ---- waiting

    def _seconds_to_wait(self) -> float | None:
        """How long to wait in this thread for what comes next; None: park."""
        now = self.parts.now()
        dues = [] if self.machine.paused else self._dues()
        if self.flights.under_way or (self.kin.busy and not self.leaving):
            soon = [(d - now).total_seconds() for d in (*dues, *self.flights.deadlines())]
            return max(0.0, min([POLL, *soon]))
        if (
            dues
            and not self.leaving
            and not self.kin.agenda
            and (seconds := (min(dues) - now).total_seconds()) <= self.parts.park_after
        ):
            return min(POLL, max(0.0, seconds))
        return None

    def _dues(self) -> list[datetime]:
        """When timers fire and steps are tried again."""
        pending = self.machine.pending.values()
        return [e.parse_instant(p.due) for p in pending if p.due is not None and not self.flights.flies(p.at)]

    def _wait(self, seconds: float) -> None:
        streams = self.flights.streams
        if streams is not None and streams.is_due() and not streams.flush():
            return
        if self.flights.pulse.fresh:
            self.write_beats()
        if self._batch and not self._append([]):
            return
        if self.kin.agenda:
            self.kin.hand_over(self.wakeup)
        self.parts.environment.clock.wait(self.wakeup, seconds)
        self.wakeup.clear()
        if self.told or not self.flights.landed():
            self.told = False
            self._catch_up()

    # ---- ends

    def _park(self) -> Outcome[Any] | None:
        """Write the waits and the head, and let the lease go; None when something came between."""
        machine, parts, run_id = self.machine, self.parts, self.run.run_id
        waits: list[e.EventBase] = []
        status: Status = "paused"
        due = None
        if not machine.paused and self.restarts.due is not None:
            status, due = "suspended", self.restarts.due
        elif not machine.paused:
            waits = [suspend_event(p, parts.now()) for p in machine.waits if not p.recorded]
            left = self._left_over()  # for whoever comes next, when this session was told to leave
            status, due = ("pending", parts.now()) if left else ("suspended", min(self._dues(), default=None))
        look = next_look(list(machine.pending.values()), parts.now()) if machine.has_children else None
        wanted = min((one for one in (due, look) if one is not None), default=None)
        head = make_head(parts, self.run.start, status, machine=machine, due=wanted)
        if not self._append(waits, head=head, release=True):
            return None
        self._keep(waits)
        waiting_for = tuple(w.signal for w in head.waiting)
        parts.tell(lc.RunParked(run_id, status, waiting_for, due))
        if status == "pending":
            return Running(run_id)
        if status == "paused":
            return RunPaused(run_id)
        if self.restarts.due is not None:
            return self.restarts.outcome(waiting_for)
        reason = head.waiting[0].reason if head.waiting else None
        return RunSuspended(run_id, waiting_for, reason, due, tuple(machine.children))

    def _left_over(self) -> bool:
        """Whether there is something to begin: steps, or children."""
        pending = self.machine.pending.values()
        unborn = self.machine.has_children and any(isinstance(p.command, c.Child) and not p.recorded for p in pending)
        return bool(self.flights.ready(self.machine)[0]) or unborn

    def _keep(self, waits: list[e.EventBase]) -> None:
        """Keep the parked run in memory, as far as there is room."""
        run, recorder = self.run, self.recorder
        self.machine.fold(waits)
        if not run.last.session:  # this session's own: as it was sealed
            run.last = replace(run.last, session=self.lease.fence, offset=recorder.seq - 1)
        if run.seq == recorder.seq:
            self._parked = True
            self.parts.parked.keep(run)

    def _continue_run(self) -> GoesOn | None:
        """Open the next incarnation, which ends this one; None when something came between."""
        machine, parts, run = self.machine, self.parts, self.run
        if self._batch and not self._append([]):
            return None
        number = run.incarnation + 1
        events = next_events(run, machine, self.recorder.seq, parts.stamp())
        head = make_head(parts, run.start, "pending", due=parts.now())
        lease = self.recorder.open_next(number, events, head, parts.lease_request())
        if lease is None:
            self._catch_up()
            return None
        parts.tell(lc.RunContinued(run.run_id, number))
        return GoesOn(lease)

    def _close_run(self) -> Outcome[Any] | GoesOn | None:
        """Write the closing event, and feed it; how the run goes on when its workflow's policy restarts it instead."""
        machine, parts = self.machine, self.parts
        if machine.status == "error" and self.run.workflow.restart is not None:
            if self._batch:
                self._append([])  # what the next incarnation begins with is read from the history
                return None
            again = self.restarts.open_next(machine, self.recorder, leaving=self.leaving)
            if again:
                lease = self.restarts.lease
                return self.restarts.outcome(()) if lease is None else GoesOn(lease)
            if again is not None:
                self._catch_up()
                return None
            if machine.to_undo:
                begins = e.Compensate(timestamp=parts.stamp())
                if self._append([begins]):
                    machine.feed(begins)
                return None
        event = closing_event(machine, self.recorder.seq + len(self._batch), parts.stamp())
        if machine.error is not None:
            logger.info("run %r failed", self.run.run_id, exc_info=machine.error)
        status = STATUS[machine.status]
        head = make_head(parts, self.run.start, status)
        if self._append([event], head=head, then="closed", release=True):
            machine.feed(event)
            self.run.last = event
            parts.tell(lc.RunClosed(self.run.run_id, status, event.error if isinstance(event, e.Error) else None))
            if self.run.start.parent is not None:
                self.kin.tell_parent(event)
        return None

    def _ended(self) -> Outcome[Any]:
        return outcome_of(self.parts.codec, self.run.run_id, self.run.workflow, self.run.last)

    def _let_go(self) -> None:
        """Give the lease back, so that the next session need not wait for it to lapse."""
        try:
            self.parts.store.release(self.recorder.lease)
        except Exception as failed:  # noqa: BLE001 - the lease lapses by itself
            logger.warning("the lease of run %r could not be released: %s", self.run.run_id, failed)
