"""The owner's pen: appends to one run under one lease, and knows what each of the six outcomes asks for. Floor 4."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, cast

from . import events as e
from .environment import Clock
from .errors import LeaseLostError, StoreUnavailableError
from .store import (
    AlreadyCommitted,
    AppendOutcome,
    Committed,
    Conflict,
    Fenced,
    Head,
    Lease,
    LeaseRequest,
    NotApplied,
    Store,
    Then,
    Transactional,
    Unknown,
)
from .wire import to_draft

__all__ = ["Recorder", "settle", "taken_over"]

_UNDECIDED = (NotApplied, Unknown)
_DONE = (Committed, AlreadyCommitted)
_ENVELOPE = 90
"""Bytes of a record beside its body, about."""

TRIES = 8
"""How often an append that was not applied, or whose outcome is not known, is tried again, with growing pauses."""

PATIENCE = timedelta(seconds=30)
"""After which it is not tried again: each try may wait long for a server that does not answer."""


def settle(
    attempt: Callable[[], AppendOutcome], clock: Clock, what: str = "an append"
) -> Committed | AlreadyCommitted | Conflict | Fenced:
    """Repeat one attempt until the store can say how it ended.

    Args:
        what: is attempted, for messages.

    Raises:
        StoreUnavailableError: it was not applied, time and again; or one try may have been, and then the next session
            finds out by reading.
    """
    done = attempt()
    if not isinstance(done, _UNDECIDED):
        return done
    doubt, tries = isinstance(done, Unknown), 1
    until = clock.now() + PATIENCE
    while tries < TRIES and clock.now() < until:
        clock.wait(threading.Event(), min(1.0, 0.01 * 2 ** (tries - 1)))
        tries, done = tries + 1, attempt()
        if not isinstance(done, _UNDECIDED):
            return done
        doubt = doubt or isinstance(done, Unknown)
    how = f"can't say whether {what} was written" if doubt else f"did not take {what}"
    raise StoreUnavailableError(
        f"the store {how}, after {tries} {'try' if tries == 1 else 'tries'}: {done.cause}"
    ) from done.cause


def taken_over(lease: Lease, fence: int) -> LeaseLostError:
    """The error for the owner of a lease when a newer session owns the run; `fence` is its number."""
    return LeaseLostError(
        f"run {lease.run_id!r} was taken over by session {fence}; this is session {lease.fence}", run_id=lease.run_id
    )


class Recorder:
    """Writes the events of one session.

    Attributes:
        lease: the right to write; renewed from another thread.
        seq: number of events that are in the history, as far as this session knows.
        size: bytes of the history, about.
        lost: set when a renewal found that a newer session owns the run.
    """

    def __init__(self, store: Store, clock: Clock, lease: Lease, seq: int, size: int = 0) -> None:
        self.store = store
        self.clock = clock
        self.lease = lease
        self.seq = seq
        self.size = size
        self.lost = False
        self._count = 0

    def append(
        self,
        events: Sequence[e.EventBase],
        *,
        head: Head | None = None,
        then: Then = "open",
        release: bool = False,
    ) -> bool:
        """Write events at the tail; False when the tail has moved and has to be read first.

        Raises:
            LeaseLostError: a newer session owns the run.
            StoreUnavailableError, StoreError: as `settle`, and the store's own.
        """
        self._count += 1
        lease, seq = self.lease, self.seq
        records = list(map(to_draft, events))
        attempt = partial(
            self.store.append,
            lease.run_id,
            lease.incarnation,
            seq,
            records,
            attempt_id=f"{lease.fence}-{seq}-{self._count}",
            head=head,
            then=then,
            fence=lease.fence,
            release=release,
        )
        outcome = settle(attempt, self.clock)
        if isinstance(outcome, _DONE):
            self.seq = seq + len(records)
            for record in records:
                self.size += len(record.body) + _ENVELOPE
            return True
        return self._moved(outcome)

    def transact(self, work: Callable[[Any], e.EventBase], seconds: float) -> bool:
        """Write the event that `work` gives together with its rows; False as `append`, and then it was not called.

        Args:
            work: is given the store's connection; called again when nothing was committed for certain.
            seconds: how long it may take.

        Raises:
            LeaseLostError, StoreError: as `append`.
            Exception: as `Transactional.transact`.
        """
        self._count += 1
        lease, seq, transact = self.lease, self.seq, cast("Transactional", self.store).transact
        attempt_id = f"{lease.fence}-{seq}-{self._count}"
        outcome = settle(
            lambda: transact(
                lease.run_id,
                lease.incarnation,
                seq,
                lambda connection: [to_draft(work(connection))],
                attempt_id=attempt_id,
                fence=lease.fence,
                seconds=seconds,
            ),
            self.clock,
        )
        if isinstance(outcome, _DONE):
            self.seq = seq + 1
            return True
        return self._moved(outcome)

    def _moved(self, outcome: Conflict | Fenced) -> bool:
        """False when the tail has moved on under the same owner."""
        lease = self.lease
        if isinstance(outcome, Fenced):
            raise taken_over(lease, outcome.fence)
        if outcome.incarnation != lease.incarnation:
            raise LeaseLostError(f"run {lease.run_id!r} was reset or retried meanwhile")
        return False

    def open_next(self, number: int, events: Sequence[e.EventBase], head: Head, request: LeaseRequest) -> Lease | None:
        """Open the next incarnation, which ends this one; None when the tail has moved and has to be read first.

        Raises:
            LeaseLostError, StoreError, StoreUnavailableError: as `append`, also when the new lease is gone already.
        """
        lease, seq = self.lease, self.seq
        records = [to_draft(event) for event in events]
        outcome = settle(
            lambda: self.store.open_incarnation(
                lease.run_id,
                number,
                records,
                head=head,
                attempt_id=f"{lease.fence}-{seq}-next",
                lease=request,
                expected_seq=seq,
                fence=lease.fence,
            ),
            self.clock,
        )
        if isinstance(outcome, Fenced):
            raise taken_over(lease, outcome.fence)
        if isinstance(outcome, Conflict):
            if outcome.incarnation != lease.incarnation:
                raise LeaseLostError(f"run {lease.run_id!r} was reset or retried meanwhile", run_id=lease.run_id)
            return None
        if outcome.lease is None:
            raise LeaseLostError(f"run {lease.run_id!r} goes on elsewhere", run_id=lease.run_id)
        return outcome.lease

    def give_up(self, head: Head) -> None:
        """Write the head and end the lease, wherever the tail is; a run that was closed meanwhile stays as it is."""
        while not self.append([], head=head, release=True):
            found = self.store.head(self.lease.run_id)
            if found is None or found.closed:
                return
            self.seq = found.seq
