"""The store in memory: the smallest one that keeps the contract, and the model for the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

from msgspec.structs import replace

from stepwell.errors import ClosedError, NotFoundError
from stepwell.store import (
    AlreadyCommitted,
    AppendOutcome,
    Committed,
    Conflict,
    Created,
    CreateOutcome,
    Draft,
    Durability,
    Exists,
    Fenced,
    Head,
    HeadFilter,
    Lease,
    LeaseRequest,
    RunHead,
    Tail,
    Then,
    Verified,
    seal,
)

from .bell import DueBell
from .liveness import ForkAware, watch_forks
from .memory_runs import Held, Run
from .memory_upkeep import MemoryUpkeep
from .rules import (
    Clock,
    check_append,
    check_first,
    check_lease,
    check_opening,
    check_run_id,
    earlier,
    matches,
    may_try,
    micros,
    system_clock,
)

__all__ = ["MemoryStore"]


class MemoryStore(MemoryUpkeep, ForkAware):
    """Keeps histories in this process, as bytes, linearizable under one lock. Nothing survives the process.

    Args:
        clock: gives microseconds since 1970, for leases; None is this machine's clock.
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock or system_clock
        self._renew_lock()
        self._due_bell = DueBell()
        self._runs: dict[str, Run] = {}
        self._deleted: dict[str, tuple[int, int]] = {}  # run id -> (fence, created)
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
        check_first(run_id, records, attempt_id, lease)
        with self._lock:
            self._check_open()
            run = self._runs.get(run_id)
            if run is not None:
                if run.attempts.get(attempt_id) != (0, 0):
                    return Exists(self._run_head(run))
                return self._due_bell.told(Created(self._regrant(run, lease)[0]), head.due)
            fence = self._deleted.get(run_id, (0, 0))[0] + 1
            lines = seal(records, session=fence, offset=0, then=then, attempt_id=attempt_id)
            run = self._runs[run_id] = Run(run_id, fence, head, then == "closed", [lines])
            run.attempts[attempt_id] = (0, 0)
            self._tell()
            return self._due_bell.told(Created(self._first_lease(run, lease)), head.due)

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
        check_first(run_id, records, attempt_id, lease)
        check_opening(run_id, expected_seq, fence)
        with self._lock:
            run = self._run(run_id)
            if run.attempts.get(attempt_id) == (incarnation, 0):
                return AlreadyCommitted(0, incarnation, *self._regrant(run, lease, incarnation))
            if (refused := run.position.refuses_opening(incarnation, expected_seq, fence)) is not None:
                return refused
            run.fence += 1
            run.histories.append(seal(records, session=run.fence, offset=0, attempt_id=attempt_id, left=expected_seq))
            run.attempts[attempt_id] = (incarnation, 0)
            run.head, run.closed = head, False
            self._tell()
            return self._due_bell.told(Committed(0, incarnation, self._first_lease(run, lease)), head.due)

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
            run = self._run(run_id)
            if fence is None:
                return self._append_outside(run, incarnation, expected_seq, records, attempt_id, due, lease)
            assert incarnation is not None  # check_append saw to it
            assert expected_seq is not None
            lines = seal(records, session=fence, offset=expected_seq, then=then)
            history = run.histories[-1]
            if (
                expected_seq != len(history)
                or fence != run.fence
                or incarnation != len(run.histories) - 1
                or run.closed
            ):
                return self._not_at_the_tail(run, incarnation, expected_seq, fence, lines)
            history += lines
            if head is not None:
                run.head = head
            if then == "closed":
                run.closed, run.held = True, None
            elif release:
                run.held = None
            if self._waiting:
                self._tell()
            done = Committed(expected_seq, incarnation)
            return self._due_bell.told(done, head.due) if head is not None and release else done

    def _not_at_the_tail(
        self, run: Run, incarnation: int, expected_seq: int, fence: int, lines: list[bytes]
    ) -> AlreadyCommitted | Conflict | Fenced:
        if lines and incarnation <= run.incarnation:
            there = run.histories[incarnation][expected_seq : expected_seq + len(lines)]
            if there == lines:
                return AlreadyCommitted(expected_seq, incarnation)
        refusal = run.position.refuses_owner(incarnation, expected_seq, fence)
        assert refusal is not None, "it was not at the tail"
        return refusal

    def _append_outside(
        self,
        run: Run,
        incarnation: int | None,
        expected_seq: int | None,
        records: Sequence[Draft],
        attempt_id: str,
        due: int | None,
        lease: LeaseRequest | None,
    ) -> Committed | AlreadyCommitted | Conflict | Fenced:
        known = run.attempts.get(attempt_id)
        if known is not None:
            return AlreadyCommitted(known[1], known[0], *self._regrant(run, lease))
        refusal = run.position.refuses_outside(incarnation, expected_seq)
        if refusal is not None:
            return refusal
        seq = len(run.lines)
        if records:
            run.lines.extend(seal(records, session=run.fence, offset=seq, attempt_id=attempt_id))
            run.attempts[attempt_id] = (run.incarnation, seq)
        run.head = replace(run.head, due=earlier(run.head.due, due))
        self._tell()
        return self._due_bell.told(Committed(seq, run.incarnation, *self._regrant(run, lease)), due)

    def head(self, run_id: str) -> RunHead | None:
        """The run's head; see the port."""
        check_run_id(run_id)
        with self._lock:
            self._check_open()
            run = self._runs.get(run_id)
            return None if run is None else self._run_head(run)

    def heads(self, where: HeadFilter, *, limit: int, after: str | None = None) -> list[RunHead]:
        """A page of heads, newest first; see the port."""
        with self._lock:
            self._check_open()
            start = None if after is None else (self._created(after), after)
            rows = [self._run_head(run) for run in self._runs.values()]
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
            run = self._runs.get(run_id)
            number = run.incarnation if run is not None and incarnation is None else incarnation
            if run is None or number is None or not 0 <= number <= run.incarnation:
                return None
            start = min(max(from_seq, 0), len(run.histories[number]))
            lines = run.histories[number][start:]
            closed = run.closed or number < run.incarnation
            more = limit is not None and len(lines) > limit
            return Tail(number, start, lines[:limit], closed, more)

    def claim(self, run_id: str, owner: str, ttl: float) -> Lease | RunHead | None:
        """Take the lease of a run; see the port."""
        check_run_id(run_id)
        request = LeaseRequest(owner, ttl)
        check_lease(request)
        with self._lock:
            self._check_open()
            run = self._runs.get(run_id)
            if run is None:
                return None
            return self._regrant(run, request)[0] or self._run_head(run)

    def claim_due(
        self, owner: str, ttl: float, *, now: int, limit: int, fingerprints: Iterable[str] = ()
    ) -> list[Lease]:
        """Take the leases of runs that are due; see the port."""
        known = frozenset(fingerprints)
        request = LeaseRequest(owner, ttl)
        check_lease(request)
        with self._lock:
            self._check_open()
            found = []
            for run in self._runs.values():
                when = self._due(run)
                left = run.held is not None
                if when is not None and (left or when <= now) and may_try(run.head.blocked, known):
                    found.append((when, run.run_id, run))
            found.sort(key=lambda item: item[:2])
            leases = (self._regrant(run, request)[0] for _, _, run in found[:limit])
            return [lease for lease in leases if lease is not None]

    def next_due(self) -> int | None:
        """The earliest due instant; see the port."""
        with self._lock:
            self._check_open()
            dues = [self._due(run) for run in self._runs.values() if run.head.blocked is None]
            return min((due for due in dues if due is not None), default=None)

    def renew(self, lease: Lease, ttl: float) -> Lease | None:
        """Extend a lease; see the port."""
        check_lease(LeaseRequest(lease.owner, ttl))
        with self._lock:
            self._check_open()
            run = self._runs.get(lease.run_id)
            if run is None or run.held is None or run.fence != lease.fence:
                return None
            run.held.until = self._clock() + micros(ttl)
            return self._lease(run, run.held)

    def release(self, lease: Lease) -> None:
        """End a lease; see the port."""
        with self._lock:
            self._check_open()
            run = self._runs.get(lease.run_id)
            if run is not None and run.fence == lease.fence:
                run.held = None
        self._due_bell.ring()

    def delete(self, run_id: str, incarnation: int, *, fence: int | None = None) -> bool:
        """Remove a closed run; see the port."""
        check_run_id(run_id)
        with self._lock:
            self._check_open()
            run = self._runs.get(run_id)
            if run is None or not run.closed or run.incarnation != incarnation or fence not in (None, run.fence):
                return False
            del self._runs[run_id]
            self._deleted[run_id] = (run.fence, run.head.created)
            self._tell()
            return True

    def wait(self, run_id: str, seq: int, timeout: float) -> bool:
        """Block until the history may be longer; see the port."""
        check_run_id(run_id)

        def grown() -> bool:
            run = self._runs.get(run_id)
            return self._closed or (run is not None and len(run.lines) > seq)

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

    def _run(self, run_id: str) -> Run:
        run = self._runs.get(run_id)
        if run is None:
            self._check_open()  # a closed one has no runs
            raise NotFoundError(f"no run {run_id!r}")
        return run

    def _created(self, run_id: str) -> int:
        if run_id in self._runs:
            return self._runs[run_id].head.created
        if run_id in self._deleted:
            return self._deleted[run_id][1]
        raise NotFoundError(f"no page begins after run {run_id!r}: there never was one")

    def _live(self, run: Run) -> Held | None:
        return run.held if run.held is not None and run.held.until > self._clock() else None

    def _run_head(self, run: Run) -> RunHead:
        live = self._live(run)
        until = None if live is None else live.until
        return RunHead(run.run_id, run.incarnation, len(run.lines), run.fence, run.closed, until, run.head)

    def _run_heads(self) -> Iterator[RunHead]:
        return map(self._run_head, self._runs.values())

    def _histories(self) -> Iterator[list[bytes]]:
        return (lines for run in self._runs.values() for lines in run.histories)

    def _due(self, run: Run) -> int | None:
        """When an open run that nobody holds wants to be driven. A lapsed lease makes it due when it lapsed."""
        if run.closed or self._live(run) is not None:
            return None
        return earlier(run.head.due, None if run.held is None else run.held.until)

    def _lease(self, run: Run, held: Held) -> Lease:
        return Lease(run.run_id, run.incarnation, run.fence, len(run.lines), held.owner, held.until)

    def _first_lease(self, run: Run, request: LeaseRequest | None) -> Lease | None:
        """Grant a lease together with a new incarnation, whose fence it takes."""
        run.held = None
        if request is None or run.closed:
            return None
        run.held = Held(request.owner, self._clock() + micros(request.ttl), request.token)
        return self._lease(run, run.held)

    def _regrant(
        self, run: Run, request: LeaseRequest | None, incarnation: int | None = None
    ) -> tuple[Lease | None, int | None]:
        """Grant a lease if the run is open and free, or find this request's own: (lease, busy until)."""
        if request is None or run.closed or incarnation not in (None, run.incarnation):
            return None, None
        live = self._live(run)
        if live is not None:
            mine = request.token and live.token == request.token
            return (self._lease(run, live), None) if mine else (None, live.until)
        run.fence += 1
        run.held = Held(request.owner, self._clock() + micros(request.ttl), request.token)
        return self._lease(run, run.held), None
