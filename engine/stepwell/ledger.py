"""What a session has written, and what it has fed and not yet written. Floor 4.

Record, then feed: but what has no effect behind it is fed at once and kept in a batch, which is written before anything
else. When an append meets an event from outside, the batch is void, and the machine is built again.
"""

from __future__ import annotations

import threading
from typing import Any

from . import events as e
from .errors import LeaseLostError
from .flights import Flights
from .growth import Growth
from .loading import Loaded, Parts, load
from .recorder import Recorder, taken_over
from .reports import Reports
from .store import Lease
from .wire import read_tail

__all__ = ["Ledger"]

MAX_BATCH = 512
"""Events that are fed before they are written, at most."""


class Ledger:
    """The run of a session, its machine, and the way to its history.

    Args:
        parts: what the engine works with.
        run: the run as its history has it.
        lease: the right to drive it.
    """

    def __init__(self, parts: Parts, run: Loaded, lease: Lease) -> None:
        self.parts = parts
        self.run = run
        self.machine = run.machine
        self.lease = lease
        self.wakeup = threading.Event()
        self.recorder = Recorder(parts.store, parts.environment.clock, lease, run.seq, run.size)
        self.growth = Growth(parts, run.run_id)
        self.flights = Flights(parts, run, self.wakeup)
        self.reports = Reports(parts, run.run_id, self.flights, run.machine.spent)
        self._batch: list[e.EventBase] = []
        self._write_first = False
        self._readers = parts.hub.readers

    def _feed_pure(self, event: e.EventBase) -> None:
        """Feed an event that no effect is behind, and write it soon; after a conflict, write it first."""
        if self._write_first:
            if not self._append([event]):
                return  # the tail has moved: look again what is to be answered
            self.machine.feed(event)
        else:
            self.machine.feed(event)
            self._batch.append(event)
            if len(self._batch) >= MAX_BATCH and self._append([]):
                self.growth.check(self.recorder, cleaning=self.machine.cancelled)

    def record(self, events: list[e.EventBase]) -> bool:
        """Write events, and only then feed them; False when the tail had moved."""
        if not self._append(events):
            return False
        self.machine.fold(events)
        return True

    def _append(self, events: list[e.EventBase], **how: Any) -> bool:
        """Write the batch and these events; False when the tail had moved, which is taken in then."""
        written = [*self._batch, *events] if self._batch else events
        if self.recorder.append(written, **how):
            self._batch.clear()
            self._write_first = False
            if written:
                self.run.last = written[-1]
            if self._readers:
                self.parts.hub.ring(self.run.run_id)
            if self.parts.listens:
                for event in written:
                    self.reports.tell_of(event, self.machine)
            return True
        self._catch_up()
        return False

    def _catch_up(self) -> None:
        """Take in what was appended from outside; build the machine again when it is ahead of the history."""
        self._take_in()
        self.reports.spent = self.machine.spent

    def _take_in(self) -> None:
        if self._batch:
            self._batch.clear()
            self._write_first = True
            self.machine.close()
            again = load(self.parts, self.run.run_id, incarnation=self.run.incarnation)
            self.run.machine = self.machine = again.machine
            self._check_owner(again.last)
            self.run.last = again.last
            self.recorder.seq = again.seq
            return
        tail = self.parts.store.read(self.run.run_id, self.recorder.seq, incarnation=self.run.incarnation)
        if tail is None:
            raise LeaseLostError(f"run {self.run.run_id!r} was deleted", run_id=self.run.run_id)
        events = read_tail(tail, self.run.run_id)
        if events:
            self._check_owner(events[-1])
        for event in events:
            self.machine.feed(event)
            self.run.last = event
            self.recorder.seq += 1

    def _check_owner(self, newest: e.EventBase) -> None:
        """A newer session has written, or was told of something: this one must not perform what that one performs."""
        if newest.session > self.lease.fence:
            raise taken_over(self.lease, newest.session)
