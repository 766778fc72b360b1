"""A run as plain data, with the port's decisions about it: for stores that load a run, decide in Python, and save it.

Where a run is loaded from, how it is saved, and that nobody else is there meanwhile, is for the store to see to.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field
from msgspec.structs import replace

from stepwell.store import (
    AlreadyCommitted,
    AppendOutcome,
    Committed,
    Created,
    CreateOutcome,
    Draft,
    Exists,
    Head,
    Lease,
    LeaseRequest,
    RunHead,
    Tail,
    Then,
    seal,
)

from .rules import Position, check_append, check_first, check_lease, check_opening, earlier, micros

__all__ = ["RunRow"]


@define
class RunRow:
    """A run with all of its records. Its methods change it when they say so, and not at all when they refuse.

    `now` is always the store's clock, in microseconds since 1970. Arguments are checked as the port demands, before
    anything is changed. Encodes with msgspec.

    Attributes:
        histories: records by incarnation, the current one last; none once it was deleted.
        attempts: where each attempt was written, as (incarnation, seq).
        held: who has the lease, until when, and the token that it was asked for with.
    """

    run_id: str
    fence: int
    head: Head
    closed: bool
    histories: list[list[bytes]] = field(factory=list)
    attempts: dict[str, tuple[int, int]] = field(factory=dict)
    held: tuple[str, int, str] | None = None

    @classmethod
    def create(
        cls,
        there: RunRow | None,
        run_id: str,
        records: Sequence[Draft],
        *,
        now: int,
        head: Head,
        attempt_id: str,
        then: Then = "open",
        lease: LeaseRequest | None = None,
    ) -> tuple[RunRow, CreateOutcome]:
        """Create a run, unless `there` is one, which may be the remains of one that was deleted."""
        check_first(run_id, records, attempt_id, lease)
        if there is not None and there.histories:
            if there.attempts.get(attempt_id) != (0, 0):
                return there, Exists(there.shown(now))
            return there, Created(there._ask(lease, now)[0])
        fence = there.fence + 1 if there else 1
        lines = seal(records, session=fence, offset=0, then=then, attempt_id=attempt_id)
        run = cls(run_id, fence, head, then == "closed", [lines], {attempt_id: (0, 0)})
        return run, Created(run._hold(lease, now))

    def open_incarnation(
        self,
        incarnation: int,
        records: Sequence[Draft],
        *,
        now: int,
        head: Head,
        attempt_id: str,
        lease: LeaseRequest | None = None,
        expected_seq: int | None = None,
        fence: int | None = None,
    ) -> AppendOutcome:
        """Open the next incarnation; see the port."""
        check_first(self.run_id, records, attempt_id, lease)
        check_opening(self.run_id, expected_seq, fence)
        if self.attempts.get(attempt_id) == (incarnation, 0):
            current = incarnation == self.position.incarnation
            return AlreadyCommitted(0, incarnation, *self._ask(lease if current else None, now))
        if (refused := self.position.refuses_opening(incarnation, expected_seq, fence)) is not None:
            return refused
        self.fence, self.head, self.closed = self.fence + 1, head, False
        self.histories.append([])
        self._add(seal(records, session=self.fence, offset=0, attempt_id=attempt_id, left=expected_seq), attempt_id)
        return Committed(0, incarnation, self._hold(lease, now))

    def append(
        self,
        incarnation: int | None,
        expected_seq: int | None,
        records: Sequence[Draft],
        *,
        now: int,
        attempt_id: str,
        head: Head | None = None,
        due: int | None = None,
        then: Then = "open",
        fence: int | None = None,
        release: bool = False,
        lease: LeaseRequest | None = None,
    ) -> AppendOutcome:
        """Append as the owner, or from outside; see the port."""
        check_append(self.run_id, incarnation, expected_seq, records, attempt_id, head, then, fence, release, lease)
        if fence is None:
            return self.append_outside(incarnation, expected_seq, records, attempt_id, due, lease, now)
        assert incarnation is not None  # check_append saw to it
        assert expected_seq is not None
        return self.append_own(incarnation, expected_seq, records, head, then, fence, release)

    def append_own(
        self,
        incarnation: int,
        expected_seq: int,
        records: Sequence[Draft],
        head: Head | None,
        then: Then,
        fence: int,
        release: bool,
    ) -> AppendOutcome:
        """Append as the owner, with arguments that were checked."""
        lines = seal(records, session=fence, offset=expected_seq, then=then)
        history = self.histories[-1]
        if expected_seq != len(history) or fence != self.fence or incarnation != len(self.histories) - 1 or self.closed:
            return self._not_at_the_tail(incarnation, expected_seq, fence, lines)
        history += lines
        if head is not None:
            self.head = head
        if then == "closed":
            self.closed, self.held = True, None
        elif release:
            self.held = None
        return Committed(expected_seq, incarnation)

    def _not_at_the_tail(self, incarnation: int, expected_seq: int, fence: int, lines: list[bytes]) -> AppendOutcome:
        there = self.histories[incarnation] if incarnation < len(self.histories) else []
        if lines and there[expected_seq : expected_seq + len(lines)] == lines:
            return AlreadyCommitted(expected_seq, incarnation)
        refused = self.position.refuses_owner(incarnation, expected_seq, fence)
        assert refused is not None, "it was not at the tail"
        return refused

    def append_outside(
        self,
        incarnation: int | None,
        expected_seq: int | None,
        records: Sequence[Draft],
        attempt_id: str,
        due: int | None,
        lease: LeaseRequest | None,
        now: int,
    ) -> AppendOutcome:
        """Append from outside, with arguments that were checked."""
        if (known := self.attempts.get(attempt_id)) is not None:
            return AlreadyCommitted(known[1], known[0], *self._ask(lease, now))
        at = self.position
        if (refused := at.refuses_outside(incarnation, expected_seq)) is not None:
            return refused
        if records:
            self._add(seal(records, session=self.fence, offset=at.seq, attempt_id=attempt_id), attempt_id)
        self.head = replace(self.head, due=earlier(self.head.due, due))
        return Committed(at.seq, at.incarnation, *self._ask(lease, now))

    def deleted(self, incarnation: int, fence: int | None = None) -> RunRow | None:
        """What stays when it is deleted; None when it may not be."""
        if not (self.histories and self.closed) or fence not in (None, self.fence):
            return None
        if incarnation != len(self.histories) - 1:
            return None
        return self.remains()

    def remains(self) -> RunRow:
        """What stays of a run that is gone: its fence, which is not given again, and when it was created, for pages."""
        old = self.head
        head = Head(old.status, old.workflow, old.version, old.created, old.updated)  # neither tags nor waits
        return RunRow(self.run_id, self.fence, head, True)

    # ---- what it shows

    @property
    def position(self) -> Position:
        """Where it stands."""
        return Position(len(self.histories) - 1, len(self.histories[-1]), self.fence, self.closed)

    def shown(self, now: int) -> RunHead:
        """Its head, with what the store knows of it."""
        at, until = self.position, self._until(now)
        return RunHead(self.run_id, at.incarnation, at.seq, self.fence, self.closed, until, self.head)

    def tail(self, from_seq: int, incarnation: int | None, limit: int | None) -> Tail | None:
        """Records of an incarnation, None when there is no such one."""
        newest = len(self.histories) - 1
        number = newest if incarnation is None else incarnation
        if not 0 <= number <= newest:
            return None
        there = self.histories[number]
        start = min(max(from_seq, 0), len(there))
        lines = there[start:]
        more = limit is not None and len(lines) > limit
        return Tail(number, start, lines[:limit], self.closed or number < newest, more)

    def due(self, now: int) -> int | None:
        """When it wants to be driven; one with a lease that has lapsed was left by a dead owner, and is due."""
        if self.closed or self._until(now) is not None:
            return None
        return earlier(self.head.due, None if self.held is None else self.held[1])

    # ---- leases

    def claim(self, owner: str, ttl: float, now: int) -> Lease | None:
        """Take the lease; None when it is held, or the run closed."""
        request = LeaseRequest(owner, ttl)
        check_lease(request)
        return self._ask(request, now)[0]

    def renew(self, lease: Lease, ttl: float, now: int) -> Lease | None:
        """Extend the lease; None when it is lost."""
        request = LeaseRequest(lease.owner, ttl, "" if self.held is None else self.held[2])
        check_lease(request)
        return None if self.held is None or self.fence != lease.fence else self._hold(request, now)

    def release(self, lease: Lease) -> None:
        """End the lease, if it is still this one."""
        if self.fence == lease.fence:
            self.held = None

    def _until(self, now: int) -> int | None:
        return self.held[1] if self.held is not None and self.held[1] > now else None

    def _hold(self, request: LeaseRequest | None, now: int) -> Lease | None:
        """Grant a lease under the fence that there is."""
        self.held = None
        if request is None or self.closed:
            return None
        self.held = (request.owner, now + micros(request.ttl), request.token)
        return self._lease()

    def _lease(self) -> Lease:
        assert self.held is not None
        at = self.position
        return Lease(self.run_id, at.incarnation, self.fence, at.seq, self.held[0], self.held[1])

    def _ask(self, request: LeaseRequest | None, now: int) -> tuple[Lease | None, int | None]:
        """Grant a lease if it is free, or find the one that this very request was granted: (lease, busy until)."""
        if request is None or self.closed:
            return None, None
        if self.held is not None and (until := self._until(now)) is not None:
            mine = request.token and self.held[2] == request.token
            return (self._lease(), None) if mine else (None, until)
        self.fence += 1
        return self._hold(request, now), None

    def _add(self, lines: list[bytes], attempt_id: str) -> None:
        self.attempts[attempt_id] = (len(self.histories) - 1, len(self.histories[-1]))
        self.histories[-1] += lines
