"""The store in memory: the smallest one that keeps the contract, and the model for the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

from stepwell.errors import ClosedError, NotFoundError
from stepwell.store import (
    AppendOutcome,
    CreateOutcome,
    Draft,
    Durability,
    Head,
    HeadFilter,
    Lease,
    LeaseRequest,
    RunHead,
    Tail,
    Then,
    Verified,
)

from ..bell import DueBell
from ..liveness import ForkAware, watch_forks
from ..rules import (
    Clock,
    check_append,
    check_run_id,
    matches,
    may_try,
    system_clock,
)
from ..run_rows import RunRow
from .moves import MemoryMoves
from .upkeep import MemoryUpkeep

__all__ = ["MemoryStore"]


class MemoryStore(MemoryMoves, MemoryUpkeep, ForkAware):
    """Keeps histories in this process, as bytes, linearizable under one lock. Nothing survives the process.

    Args:
        clock: gives microseconds since 1970, for leases; None is this machine's clock.
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock or system_clock
        self._renew_lock()
        self._due_bell = DueBell()
        self._runs: dict[str, RunRow] = {}
        self._deleted: dict[str, RunRow] = {}  # what stays of them
        self._moves = {}
        self._closed = False
        watch_forks(self)

    @property
    def durability(self) -> Durability:
        """Nothing is survived."""
        return Durability(process_crash=False, power_loss=False, failover=False, settings={"store": "memory"})

    def create(
        self,
        run_id: str,
        records: Sequence[Draft],
        *,
        head: Head,
        attempt_id: str,
        then: Then = "open",
        lease: LeaseRequest | None = None,
    ) -> CreateOutcome:
        """Create a run; see the port."""
        check_run_id(run_id)
        with self._lock:
            self._check_open()
            there = self._runs.get(run_id)
            if there is None:
                self._refuse_absent(run_id)
                there = self._deleted.get(run_id)
            run, done = RunRow.create(
                there, run_id, records, now=self._clock(), head=head, attempt_id=attempt_id, then=then, lease=lease
            )
            self._runs[run_id] = run
            self._tell()
            return self._due_bell.told(done, head.due)

    def open_incarnation(
        self,
        run_id: str,
        incarnation: int,
        records: Sequence[Draft],
        *,
        head: Head,
        attempt_id: str,
        lease: LeaseRequest | None = None,
        expected_seq: int | None = None,
        fence: int | None = None,
    ) -> AppendOutcome:
        """Open the next incarnation; see the port."""
        check_run_id(run_id)
        with self._lock:
            run = self._run(run_id)
            done = run.open_incarnation(
                incarnation,
                records,
                now=self._clock(),
                head=head,
                attempt_id=attempt_id,
                lease=lease,
                expected_seq=expected_seq,
                fence=fence,
            )
            self._tell()
            return self._due_bell.told(done, head.due)

    def append(
        self,
        run_id: str,
        incarnation: int | None,
        expected_seq: int | None,
        records: Sequence[Draft],
        *,
        attempt_id: str,
        head: Head | None = None,
        due: int | None = None,
        then: Then = "open",
        fence: int | None = None,
        release: bool = False,
        lease: LeaseRequest | None = None,
    ) -> AppendOutcome:
        """Append to a history; see the port."""
        check_append(run_id, incarnation, expected_seq, records, attempt_id, head, then, fence, release, lease)
        with self._lock:
            run = self._runs.get(run_id) or self._run(run_id)
            if fence is None:
                done = run.append_outside(
                    incarnation, expected_seq, records, attempt_id, due, lease, 0 if lease is None else self._clock()
                )
                self._tell()
                return self._due_bell.told(done, due)
            assert incarnation is not None  # check_append saw to it
            assert expected_seq is not None
            done = run.append_own(incarnation, expected_seq, records, head, then, fence, release)
            if self._waiting:
                self._tell()
            return self._due_bell.told(done, head.due) if head is not None and release else done

    def head(self, run_id: str) -> RunHead | None:
        """The run's head; see the port."""
        check_run_id(run_id)
        with self._lock:
            self._check_open()
            run = self._there(run_id)
            return None if run is None else run.shown(self._clock())

    def heads(self, where: HeadFilter, *, limit: int, after: str | None = None) -> list[RunHead]:
        """A page of heads, newest first; see the port."""
        with self._lock:
            self._check_open()
            start = None if after is None else (self._created(after), after)
            rows = list(self._run_heads())
        rows = [r for r in rows if matches(r, where) and (start is None or (r.head.created, r.run_id) < start)]
        rows.sort(key=lambda r: (r.head.created, r.run_id), reverse=True)
        return rows[:limit]

    def read(
        self, run_id: str, from_seq: int = 0, *, incarnation: int | None = None, limit: int | None = None
    ) -> Tail | None:
        """Records of a history; see the port."""
        check_run_id(run_id)
        with self._lock:
            self._check_open()
            run = self._there(run_id)
            return None if run is None else run.tail(from_seq, incarnation, limit)

    def claim(self, run_id: str, owner: str, ttl: float) -> Lease | RunHead | None:
        """Take the lease of a run; see the port."""
        check_run_id(run_id)
        with self._lock:
            self._check_open()
            run = self._there(run_id)
            return None if run is None else run.claim(owner, ttl, self._clock()) or run.shown(self._clock())

    def claim_due(
        self, owner: str, ttl: float, *, now: int, limit: int, fingerprints: Iterable[str] = ()
    ) -> list[Lease]:
        """Take the leases of runs that are due; see the port."""
        known = frozenset(fingerprints)
        with self._lock:
            self._check_open()
            found = []
            for run in self._runs.values():
                when, left = run.due(self._clock()), run.held is not None
                if when is not None and (left or when <= now) and may_try(run.head.blocked, known):
                    found.append((when, run.run_id, run))
            found.sort(key=lambda item: item[:2])
            leases = (run.claim(owner, ttl, self._clock()) for _, _, run in found[:limit])
            return [lease for lease in leases if lease is not None]

    def next_due(self) -> int | None:
        """The earliest due instant; see the port."""
        with self._lock:
            self._check_open()
            dues = [run.due(self._clock()) for run in self._runs.values() if run.head.blocked is None]
            return min((due for due in dues if due is not None), default=None)

    def renew(self, lease: Lease, ttl: float) -> Lease | None:
        """Extend a lease; see the port."""
        with self._lock:
            self._check_open()
            run = self._runs.get(lease.run_id)
            return None if run is None else run.renew(lease, ttl, self._clock())

    def release(self, lease: Lease) -> None:
        """End a lease; see the port."""
        with self._lock:
            self._check_open()
            run = self._runs.get(lease.run_id)
            if run is not None:
                run.release(lease)
        self._due_bell.ring()

    def delete(self, run_id: str, incarnation: int, *, fence: int | None = None) -> bool:
        """Remove a closed run; see the port."""
        check_run_id(run_id)
        with self._lock:
            self._check_open()
            run = self._runs.get(run_id)
            rest = None if run is None else run.deleted(incarnation, fence)
            if rest is None:
                return False
            del self._runs[run_id]
            self._deleted[run_id] = rest
            self._tell()
            return True

    def wait(self, run_id: str, seq: int, timeout: float) -> bool:
        """Block until the history may be longer; see the port."""
        check_run_id(run_id)

        def grown() -> bool:
            run = self._runs.get(run_id)
            return self._closed or (run is not None and len(run.histories[-1]) > seq)

        with self._lock:
            self._check_open()
            self._waiting += 1
            try:
                told = self._changed.wait_for(grown, timeout)
            finally:
                self._waiting -= 1
            self._check_open()
            return told

    def on_due(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called when a run may have become due; see the port."""
        return self._due_bell.listen(wake)

    def verify(self) -> Iterator[Verified]:
        """Read every byte; see the port."""
        with self._lock:
            self._check_open()
            runs = {run_id: [list(lines) for lines in run.histories] for run_id, run in self._runs.items()}
        for done, (run_id, histories) in enumerate(runs.items(), 1):
            for number, lines in enumerate(histories):
                place = f"memory, run {run_id!r}, incarnation {number}"
                size = sum(map(len, lines))
                yield Verified(place, run_id, number, lines, size, share=done / len(runs))

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._closed = True
            self._runs.clear()
            self._tell()

    def before_fork(self) -> None:
        """Let no other thread be in the middle of a change, which the child would never see ended."""
        self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Let the others go on."""
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Make a new lock: those who wait for the inherited one aren't here."""
        self._renew_lock()

    def _renew_lock(self) -> None:
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._waiting = 0  # threads that wait for a change

    def _tell(self) -> None:
        """Wake those who wait for a change; the lock is held."""
        if self._waiting:
            self._changed.notify_all()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the store is closed")

    def _run(self, run_id: str) -> RunRow:
        run = self._runs.get(run_id)
        if run is None:
            self._check_open()  # a closed one has no runs
            self._refuse_absent(run_id)
            raise NotFoundError(f"no run {run_id!r}")
        return run

    def _created(self, run_id: str) -> int:
        run = self._runs.get(run_id) or self._deleted.get(run_id)
        if run is None:
            raise NotFoundError(f"no page begins after run {run_id!r}: there never was one")
        return run.head.created

    def _run_heads(self) -> Iterator[RunHead]:
        return (run.shown(self._clock()) for run in self._runs.values())

    def _histories(self) -> Iterator[list[bytes]]:
        return (lines for run in self._runs.values() for lines in run.histories)
