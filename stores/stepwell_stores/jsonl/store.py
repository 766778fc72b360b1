"""The store of plain files: one JSONL journal for each incarnation, for people who want to read and grep them.

For one machine and up to some ten thousand runs: there is no index on the disk, so lists and claims look whether any
run changed. All calls on a run hold its short write lock, readers too, so nobody sees a record before it is durable.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

from msgspec.structs import replace

from stepwell.errors import NotFoundError, StoreUnavailableError
from stepwell.store import (
    AlreadyCommitted,
    AppendOutcome,
    Committed,
    Created,
    CreateOutcome,
    Draft,
    Durability,
    Exists,
    Head,
    HeadFilter,
    Lease,
    LeaseRequest,
    NotApplied,
    RunHead,
    Tail,
    Then,
    Unknown,
    Verified,
    seal,
)

from ..bell import Bell
from ..filelock import fcntl
from ..filesystems import is_network, kind_of
from ..liveness import Owners
from ..rules import (
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
from .access import Access
from .due import Due
from .files import Directory, UnsyncedError, WriteError
from .index import Index
from .journal import mark
from .moves import JsonlMoves
from .runs import Fence, Held, Run, Runs, begun
from .upkeep import JsonlUpkeep
from .verify import verify

__all__ = ["JsonlStore"]


class JsonlStore(JsonlMoves, JsonlUpkeep):
    """Keeps histories in files of a directory, durable against power cuts.

    Args:
        directory: made with mode 0700 at first use; its parent must exist.
        must_exist: refuse to make it.
        clock: gives microseconds since 1970, for leases; None is this machine's clock.
        sync: "full" acknowledges what is on the disk; "off" leaves it to the system when it gets there, so a power cut
            loses what was acknowledged in the last half minute or so.
        network: also on a network file system, whose locks and syncs can't be trusted as a rule.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        must_exist: bool = False,
        clock: Clock | None = None,
        sync: Literal["full", "off"] = "full",
        network: bool = False,
    ) -> None:
        self.path = os.path.realpath(os.fspath(directory))
        self._clock = clock or system_clock
        self._synced = sync == "full"
        self._files = Directory(self.path, must_exist=must_exist, syncs=self._synced, network=network)
        self._runs = Runs(self._files)
        self._access = Access(self._files, self._runs)
        self._index = Index(self._files, self._runs, self._access)
        self._found = Due()
        self._owners = Owners(os.path.join(self.path, ".owners"))
        self._bell = Bell()

    @property
    def durability(self) -> Durability:
        """Whether acknowledged records were synced to the disk."""
        how = "F_FULLFSYNC" if hasattr(fcntl, "F_FULLFSYNC") else "fdatasync"
        settings = {
            "store": "jsonl",
            "path": self.path,
            "sync": how if self._synced else "off",
            "file_system": (kind := kind_of(self.path)),
            "owners": os.path.join(self.path, ".owners"),
        }
        survives = None if self._synced and is_network(kind) else self._synced  # a network may promise what it likes
        return Durability(process_crash=True, power_loss=survives, failover=False, settings=settings)

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

        def work(stem: str, run: Run | None) -> CreateOutcome:
            if run is not None:
                if self._runs.first_attempt(run, 0) != attempt_id:
                    return Exists(self._run_head(run))
                return Created(self._try_grant(run, lease)[0])
            old = self._runs.fence(stem)
            if old is not None and old.deleted:
                self._runs.clear(stem)
            fence = 1 if old is None else old.fence + 1
            if old is not None or "~" in stem:  # a hash alone doesn't tell the run's id
                self._runs.raise_fence(stem, Fence(run_id, fence))
            lines = seal(records, session=fence, offset=0, then=then, attempt_id=attempt_id)
            closed = then == "closed"
            new = begun(run_id, 0, lines, fence, closed, head, None if closed else self._held(lease))
            return Created(self._begin(new, lines))

        return self._bell.due.told(self._access.attempt(run_id, work), head.due)

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

        def work(_stem: str, run: Run | None) -> AppendOutcome:
            if run is None:
                raise NotFoundError(f"no run {run_id!r}")
            if 0 < incarnation <= run.incarnation and self._runs.first_attempt(run, incarnation) == attempt_id:
                asked = lease if incarnation == run.incarnation else None
                return AlreadyCommitted(0, incarnation, *self._try_grant(run, asked))
            if (refused := run.position.refuses_opening(incarnation, expected_seq, fence)) is not None:
                return refused
            rises = run.fence + 1
            if fence is not None:  # whoever remembers the run as open in the journal before sees that it is not
                self._runs.raise_fence(run.stem, Fence(run_id, rises))
            lines = seal(records, session=rises, offset=0, attempt_id=attempt_id, left=expected_seq)
            new = begun(run_id, incarnation, lines, rises, False, head, self._held(lease))
            return Committed(0, incarnation, self._begin(new, lines))

        return self._bell.due.told(self._access.attempt(run_id, work), head.due)

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

        def work(_stem: str, run: Run | None) -> AppendOutcome:
            if run is None:
                raise NotFoundError(f"no run {run_id!r}")
            if fence is None:
                return self._append_outside(run, incarnation, expected_seq, records, attempt_id, due, lease)
            assert incarnation is not None  # check_append saw to it
            assert expected_seq is not None
            lines = seal(records, session=fence, offset=expected_seq, then=then)
            if lines and self._runs.holds(run, incarnation, expected_seq, lines):
                return AlreadyCommitted(expected_seq, incarnation)
            refusal = run.position.refuses_owner(incarnation, expected_seq, fence)
            if refusal is not None:
                return refusal
            frees = release or then == "closed"
            new = replace(run, head=head or run.head, closed=then == "closed", held=None if frees else run.held)
            written = self._write(run, new, lines, fence)
            return Committed(expected_seq, incarnation) if isinstance(written, Run) else written

        left = due if fence is None else head.due if head is not None and release else None
        return self._bell.due.told(self._access.attempt(run_id, work), left)

    def _append_outside(
        self,
        run: Run,
        incarnation: int | None,
        expected_seq: int | None,
        records: Sequence[Draft],
        attempt_id: str,
        due: int | None,
        lease: LeaseRequest | None,
    ) -> AppendOutcome:
        for number in range(run.incarnation, -1, -1):
            known = self._runs.find(run, number, attempt_id)
            if known is not None:
                return AlreadyCommitted(known, number, *self._try_grant(run, lease))
        refusal = run.position.refuses_outside(incarnation, expected_seq)
        if refusal is not None:
            return refusal
        lines = seal(records, session=run.fence, offset=run.seq, attempt_id=attempt_id)
        new = replace(run, head=replace(run.head, due=earlier(run.head.due, due)))
        written = self._write(run, new, lines, run.fence)
        if not isinstance(written, Run):
            return written
        return Committed(run.seq, run.incarnation, *self._try_grant(written, lease))

    def _write(self, run: Run, new: Run, lines: list[bytes], session: int) -> Run | NotApplied | Unknown:
        """Append to the journal, then keep the head. A Run, which is `new` after that, when the records are durable."""
        if lines:
            try:
                size = run.size + self._runs.append(run, lines)
            except WriteError as e:
                return NotApplied(e) if e.undone else Unknown(e)
            new = replace(new, size=size, seq=run.seq + len(lines), session=session, tail=mark(lines[-1]))
            self._runs.save(new)
            self._notice(new)
        else:
            self._keep(new)
        self._bell.ring()
        return new

    def head(self, run_id: str) -> RunHead | None:
        """The run's head; see the port."""
        check_run_id(run_id)
        with self._access.found(run_id, writing=False) as (_, run):
            return None if run is None else self._run_head(run)

    def heads(self, where: HeadFilter, *, limit: int, after: str | None = None) -> list[RunHead]:
        """A page of heads, newest first; see the port. Looks at every run."""
        start = None if after is None else (self._created(after), after)
        rows = [self._run_head(run) for run in self._index.all(skip_damaged=False)]
        rows = [r for r in rows if matches(r, where) and (start is None or (r.head.created, r.run_id) < start)]
        rows.sort(key=lambda r: (r.head.created, r.run_id), reverse=True)
        return rows[:limit]

    def _created(self, run_id: str) -> int:
        with self._access.opened(run_id, writing=False) as (stem, run):
            if run is not None:
                return run.head.created
            fence = self._runs.fence(stem)
            if fence is None:
                raise NotFoundError(f"no page begins after run {run_id!r}: there never was one")
            return fence.created

    def read(
        self, run_id: str, from_seq: int = 0, *, incarnation: int | None = None, limit: int | None = None
    ) -> Tail | None:
        """Records of a history; see the port."""
        check_run_id(run_id)
        with self._access.found(run_id, writing=False) as (_, run):
            number = run.incarnation if run is not None and incarnation is None else incarnation
            if run is None or number is None or not 0 <= number <= run.incarnation:
                return None
            if number == run.incarnation and from_seq >= run.seq:
                return Tail(number, run.seq, [], run.closed)
            start, lines, more = self._runs.page(run, number, max(from_seq, 0), limit)
            return Tail(number, start, lines, run.closed or number < run.incarnation, more, checked=True)

    def claim(self, run_id: str, owner: str, ttl: float) -> Lease | RunHead | None:
        """Take the lease of a run; see the port."""
        check_run_id(run_id)
        request = LeaseRequest(owner, ttl)
        check_lease(request)
        with self._access.found(run_id) as (_, run):
            if run is None:
                return None
            return self._grant(run, request)[0] or self._run_head(run)

    def claim_due(
        self, owner: str, ttl: float, *, now: int, limit: int, fingerprints: Iterable[str] = ()
    ) -> list[Lease]:
        """Take the leases of runs that are due; see the port. Passes damaged ones by."""
        request = LeaseRequest(owner, ttl)
        check_lease(request)
        known = frozenset(fingerprints)

        def due(run: Run) -> int | None:
            when = self._due(run)
            wanted = when is not None and (run.held is not None or when <= now) and may_try(run.head.blocked, known)
            return when if wanted else None

        def find() -> list[tuple[int, str]]:
            runs = self._index.all(skip_damaged=True)
            return [(when, run.run_id) for run in runs if (when := due(run)) is not None]

        def grant(run_id: str) -> Lease | None:
            with self._access.opened(run_id) as (_, run):
                return None if run is None or due(run) is None else self._grant(run, request)[0]

        self._access.check_open()
        return self._found.claim(limit, (now, known), find, grant)

    def next_due(self) -> int | None:
        """The earliest due instant; see the port. Passes damaged runs by."""
        dues = [self._due(run) for run in self._index.all(skip_damaged=True) if run.head.blocked is None]
        return min((due for due in dues if due is not None), default=None)

    def renew(self, lease: Lease, ttl: float) -> Lease | None:
        """Extend a lease; see the port."""
        check_lease(LeaseRequest(lease.owner, ttl))
        with self._access.opened(lease.run_id) as (_, run):
            if run is None or run.held is None or run.fence != lease.fence:
                return None
            held = replace(run.held, until=self._clock() + micros(ttl), lock=self._owners.own())
            self._keep(replace(run, held=held))
            return _lease(run, held)

    def release(self, lease: Lease) -> None:
        """End a lease; see the port."""
        with self._access.opened(lease.run_id) as (_, run):
            if run is not None and run.held is not None and run.fence == lease.fence:
                self._keep(replace(run, held=None))
        self._bell.due.ring()

    def delete(self, run_id: str, incarnation: int, *, fence: int | None = None) -> bool:
        """Remove a closed run; see the port. A small file with its fence stays."""
        check_run_id(run_id)
        with self._access.opened(run_id) as (stem, run):
            if run is None or not run.closed or run.incarnation != incarnation or fence not in (None, run.fence):
                return False
            self._runs.raise_fence(stem, Fence(run_id, run.fence, True, run.head.created))
            self._runs.clear(stem, run.incarnation)
            return True

    def wait(self, run_id: str, seq: int, timeout: float) -> bool:
        """Block until the history may be longer; see the port."""

        def grown() -> bool:
            head = self.head(run_id)
            return head is not None and head.seq > seq

        return self._bell.wait(grown, timeout)

    def on_due(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called when a run may have become due; see the port."""
        return self._bell.due.listen(wake)

    def verify(self) -> Iterator[Verified]:
        """Read every byte; see the port."""
        return verify(self._files, self._runs, self._access)

    def close(self) -> None:
        """Close the lock files and give up the leases that this store holds."""
        self._access.close()
        self._owners.close()
        self._bell.ring()

    def _live(self, run: Run) -> bool:
        return run.held is not None and run.held.until > self._clock() and self._owners.alive(run.held.lock)

    def _run_head(self, run: Run) -> RunHead:
        until = run.held.until if run.held is not None and self._live(run) else None
        return RunHead(run.run_id, run.incarnation, run.seq, run.fence, run.closed, until, run.head)

    def _due(self, run: Run) -> int | None:
        """When an open run that nobody holds wants to be driven."""
        if run.closed or self._live(run):
            return None
        return earlier(run.head.due, None if run.held is None else min(run.held.until, self._clock()))

    def _held(self, request: LeaseRequest | None) -> Held | None:
        """A lease that begins now, as it is kept."""
        if request is None:
            return None
        return Held(request.owner, self._clock() + micros(request.ttl), self._owners.own(), request.token)

    def _notice(self, run: Run) -> None:
        """A write of ours may have left a run due."""
        if run.held is None and not run.closed and run.head.due is not None:
            self._found.add(run.head.due, run.run_id)

    def _keep(self, run: Run) -> None:
        """Keep a head that no record tells of."""
        try:
            self._runs.keep(run)
        except OSError as e:
            raise StoreUnavailableError(
                f"{self.path}: the lease of run {run.run_id!r} can't be written; is the disk full?"
            ) from e
        self._notice(run)

    def _begin(self, run: Run, lines: list[bytes]) -> Lease | None:
        """Write a new incarnation, and grant the lease that comes with it."""
        self._runs.begin(run, lines)
        self._notice(run)
        self._bell.ring()
        return None if run.held is None else _lease(run, run.held)

    def _try_grant(self, run: Run, request: LeaseRequest | None) -> tuple[Lease | None, int | None]:
        """As `_grant` for a write that is there: when the lease can't be had, that is no failure of the write."""
        try:
            return self._grant(run, request)
        except (OSError, UnsyncedError, StoreUnavailableError):
            return None, None

    def _grant(self, run: Run, request: LeaseRequest | None) -> tuple[Lease | None, int | None]:
        """Grant a lease if the run is open and free, or find this request's own: (lease, busy until)."""
        if request is None or run.closed:
            return None, None
        held = run.held
        if held is not None and self._live(run):
            if not request.token or held.token != request.token:
                return None, held.until
            return _lease(run, held), None
        # The number is durable before anybody is told it, so it is never given twice.
        self._runs.raise_fence(run.stem, Fence(run.run_id, run.fence + 1))
        held = self._held(request)
        assert held is not None
        run = replace(run, fence=run.fence + 1, held=held)
        self._keep(run)
        return _lease(run, held), None


def _lease(run: Run, held: Held) -> Lease:
    return Lease(run.run_id, run.incarnation, run.fence, run.seq, held.owner, held.until)
