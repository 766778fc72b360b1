"""The store contract: leases, fences, incarnations, and what is due."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from stepwell.errors import InvalidInputError
from stepwell.store import (
    AlreadyCommitted,
    Blocked,
    Committed,
    Conflict,
    Created,
    Fenced,
    HeadFilter,
    Lease,
    LeaseRequest,
    RunHead,
    Store,
    Tail,
    envelope,
    seal,
)

from .contract_bench import START, Bench, a_head, a_record, a_start, head_of, lines_of, race


class Leases(Bench):
    """Who may drive, and for how long."""

    def test_a_lease_comes_with_create(self, store: Store) -> None:
        """It has the first fence, and the head shows it."""
        lease = self.create(store)
        assert (lease.run_id, lease.incarnation, lease.fence, lease.seq, lease.owner) == ("r", 0, 1, 1, "me")
        assert head_of(store).lease_until == lease.until

    def test_a_live_lease_is_not_taken(self, store: Store) -> None:
        """Not by its own owner either; the head says until when."""
        lease = self.create(store)
        for owner in ("you", "me"):
            assert store.claim("r", owner, 30) == head_of(store)
        assert head_of(store).lease_until == lease.until
        assert head_of(store).fence == 1

    def test_claim_takes_a_free_lease(self, store: Store) -> None:
        """The fence rises by one."""
        store.create("r", [a_start()], head=a_head(), attempt_id="a")
        lease = store.claim("r", "me", 30)
        assert isinstance(lease, Lease)
        assert (lease.run_id, lease.incarnation, lease.fence, lease.seq, lease.owner) == ("r", 0, 2, 1, "me")
        assert head_of(store).fence == 2

    def test_a_lapsed_lease_is_taken_over(self, store: Store) -> None:
        """The old owner is fenced from then on, and not before."""
        old = self.create(store)
        self.advance(31)
        assert head_of(store).lease_until is None
        assert self.own(store, old, 1) == Committed(1, 0)
        new = store.claim("r", "you", 30)
        assert isinstance(new, Lease)
        assert new.fence == old.fence + 1
        assert self.own(store, old, 2) == Fenced(new.fence)
        assert store.renew(old, 30) is None
        store.release(old)
        assert head_of(store).lease_until == new.until

    def test_renew_extends(self, store: Store) -> None:
        """From now on, not from where it would have ended; lapsed and not taken is not lost."""
        lease = self.create(store)
        self.advance(20)
        longer = store.renew(lease, 30)
        assert longer == replace(lease, until=lease.until + 20_000_000)
        self.advance(29)
        assert head_of(store).lease_until is not None
        self.advance(5)
        assert head_of(store).lease_until is None
        assert store.renew(lease, 30) is not None
        assert isinstance(store.claim("r", "you", 30), RunHead)

    def test_release_ends_it(self, store: Store) -> None:
        """At once, keeping the rest; a released lease can't be renewed."""
        lease = self.create(store, due=START + 5)
        before = head_of(store)
        store.release(lease)
        store.release(lease)
        assert head_of(store) == replace(before, lease_until=None)
        assert store.renew(lease, 30) is None
        assert isinstance(store.claim("r", "you", 30), Lease)

    def test_an_append_may_release(self, store: Store) -> None:
        """With or without a record, in the same write."""
        lease = self.create(store)
        assert self.own(store, lease, 1, head=a_head(status="suspended"), release=True) == Committed(1, 0)
        assert head_of(store).lease_until is None
        lease2 = store.claim("r", "you", 30)
        assert isinstance(lease2, Lease)
        outcome = store.append("r", 0, 2, [], attempt_id="x", head=a_head(), fence=lease2.fence, release=True)
        assert outcome == Committed(2, 0)
        assert head_of(store).lease_until is None

    def test_closing_ends_it(self, store: Store) -> None:
        """A closed run can't be claimed."""
        lease = self.create(store)
        self.close_run(store, lease)
        assert head_of(store).lease_until is None
        assert store.renew(lease, 30) is None
        assert store.claim("r", "you", 30) == head_of(store)

    def test_a_blocked_run_can_be_claimed_by_name(self, store: Store) -> None:
        """Someone forces it."""
        store.create("r", [a_start()], head=a_head(blocked=Blocked("X", "m", ("f",))), attempt_id="a")
        assert isinstance(store.claim("r", "me", 30), Lease)


class Incarnations(Bench):
    """The next life of a run, and its end."""

    def test_the_next_opens_when_the_last_is_closed(self, store: Store) -> None:
        """With the next fence, the given head and a lease; the old history stays."""
        lease = self.create(store)
        again = a_head(updated=START + 9, version="2")
        opened = store.open_incarnation("r", 1, [a_start()], head=again, attempt_id="n")
        assert opened == Conflict(1, 0)
        self.close_run(store, lease)
        old = lines_of(store)
        for wrong in (0, 2):
            opened = store.open_incarnation("r", wrong, [a_start()], head=again, attempt_id="n")
            assert opened == Conflict(2, 0, closed=True)
        opened = store.open_incarnation(
            "r", 1, [a_start(), a_record()], head=again, attempt_id="n", lease=LeaseRequest("me", 30)
        )
        assert isinstance(opened, Committed)
        assert opened.lease is not None
        assert (opened.seq, opened.incarnation, opened.lease.fence, opened.lease.seq) == (0, 1, 2, 2)
        assert head_of(store) == RunHead("r", 1, 2, 2, False, opened.lease.until, again)
        assert lines_of(store) == seal([a_start(), a_record()], session=2, offset=0, attempt_id="n")
        assert store.read("r", incarnation=0) == Tail(0, 0, old, closed=True)
        assert self.own(store, lease, 2) == Fenced(2)

    def test_the_same_attempt_opens_once(self, store: Store) -> None:
        """It is told so, with its lease, and also when that incarnation is long over."""
        self.close_run(store, self.create(store))
        first, again = (
            store.open_incarnation(
                "r", 1, [a_start()], head=a_head(), attempt_id="n", lease=LeaseRequest("me", 30, "t")
            )
            for _ in "ab"
        )
        assert isinstance(first, Committed)
        assert again == AlreadyCommitted(0, 1, first.lease)
        other = store.open_incarnation("r", 1, [a_start()], head=a_head(), attempt_id="other")
        assert other == Conflict(1, 1)
        assert first.lease is not None
        self.close_run(store, first.lease)
        store.open_incarnation("r", 2, [a_start()], head=a_head(), attempt_id="n2")
        late = store.open_incarnation("r", 1, [a_start()], head=a_head(), attempt_id="n")
        assert late == AlreadyCommitted(0, 1)

    def test_an_owner_ends_its_incarnation_with_the_next_one(self, store: Store) -> None:
        """In one write: the run is never closed in between, and the old history stays as it is."""
        lease = self.create(store)
        self.own(store, lease, 1)
        before = lines_of(store)
        head = a_head(status="suspended", due=START + 9)
        where: dict[str, Any] = {"head": head, "fence": lease.fence, "expected_seq": 2}
        opened = store.open_incarnation("r", 1, [a_start(), a_record()], attempt_id="n", **where)
        assert opened == Committed(0, 1)
        after = head_of(store)
        assert (after.incarnation, after.seq, after.closed, after.lease_until) == (1, 2, False, None)
        assert (after.head, after.fence > lease.fence) == (head, True)
        assert store.read("r", incarnation=0) == Tail(0, 0, before, True)
        first = envelope(lines_of(store)[0])
        assert (first.attempt_id, first.left) == ("n", 2)
        assert store.open_incarnation("r", 1, [a_start(), a_record()], attempt_id="n", **where) == AlreadyCommitted(
            0, 1
        )
        assert self.own(store, lease, 2) == Fenced(after.fence)
        assert store.renew(lease, 30) is None
        assert self.tell(store, "out") == Committed(2, 1)
        assert store.next_due() is not None
        self.advance(1)
        mine = store.claim("r", "me", 30)
        assert isinstance(mine, Lease)
        assert (mine.incarnation, mine.seq) == (1, 3)
        assert [part.problem for part in store.verify() if part.problem is not None] == []

    def test_an_owner_may_go_on_in_the_next_incarnation(self, store: Store) -> None:
        """With a lease that is granted with it; a repeated write gets the same one."""
        lease = self.create(store)
        where: dict[str, Any] = {"head": a_head(), "fence": lease.fence, "expected_seq": 1}
        request = LeaseRequest("me", 30, "token")
        opened = store.open_incarnation("r", 1, [a_start()], attempt_id="n", lease=request, **where)
        assert isinstance(opened, Committed)
        assert opened.lease is not None
        assert opened.lease.fence == head_of(store).fence
        again = store.open_incarnation("r", 1, [a_start()], attempt_id="n", lease=request, **where)
        assert again == AlreadyCommitted(0, 1, opened.lease)
        assert isinstance(self.own(store, opened.lease, 1), Committed)

    def test_an_owner_that_is_behind_opens_nothing(self, store: Store) -> None:
        """When something came from outside, another session owns the run, or the number is not the next one."""
        lease = self.create(store)
        self.tell(store, "out")

        def opening(number: int, seq: int, fence: int) -> Any:
            how: dict[str, Any] = {"head": a_head(), "attempt_id": f"{number}-{seq}", "fence": fence}
            return store.open_incarnation("r", number, [a_start()], expected_seq=seq, **how)

        assert opening(1, 1, lease.fence) == Conflict(2, 0)
        assert opening(2, 2, lease.fence) == Conflict(2, 0)
        self.advance(31)
        newer = store.claim("r", "other", 30)
        assert isinstance(newer, Lease)
        assert opening(1, 2, lease.fence) == Fenced(newer.fence)
        self.close_run(store, newer, 2)
        assert opening(1, 3, newer.fence) == Conflict(3, 0, closed=True)
        assert head_of(store).incarnation == 0
        with pytest.raises(InvalidInputError):
            store.open_incarnation("r", 1, [a_start()], head=a_head(), attempt_id="n", fence=newer.fence)

    def test_fences_only_rise(self, store: Store) -> None:
        """Through leases, incarnations and a delete, no number comes twice."""
        seen = [self.create(store).fence]
        for incarnation in (0, 1, 2):
            self.advance(31)
            first = store.claim("r", "me", 30)
            assert isinstance(first, Lease)
            self.advance(31)
            second = store.claim("r", "me", 30)
            assert isinstance(second, Lease)
            seen += [first.fence, second.fence]
            self.close_run(store, second)
            opened = store.open_incarnation(
                "r", incarnation + 1, [a_start()], head=a_head(), attempt_id=f"n{incarnation}"
            )
            assert isinstance(opened, Committed)
            seen.append(head_of(store).fence)
        lease = store.claim("r", "me", 30)
        assert isinstance(lease, Lease)
        self.close_run(store, lease)
        assert store.delete("r", 3)
        seen += [lease.fence, self.create(store).fence]
        assert sorted(set(seen)) == seen
        assert envelope(lines_of(store)[0]).session == seen[-1]

    def test_delete_wants_a_closed_run(self, store: Store) -> None:
        """At the incarnation that the caller saw."""
        lease = self.create(store)
        assert store.delete("r", 0) is False
        self.close_run(store, lease)
        assert store.delete("r", 1) is False
        assert store.delete("r", 0) is True
        assert store.delete("r", 0) is False
        assert store.head("r") is None
        assert store.read("r") is None
        assert store.heads(HeadFilter(), limit=9) == []

    def test_a_deleted_id_begins_anew(self, store: Store) -> None:
        """With nothing of the old run but the fence: its attempts are forgotten, its owners fenced."""
        old = self.create(store)
        self.tell(store, "out")
        self.close_run(store, old, 2)
        store.open_incarnation("r", 1, [a_start(), a_record()], head=a_head(), attempt_id="n")
        lease = store.claim("r", "me", 30)
        assert isinstance(lease, Lease)
        self.close_run(store, lease, 2)
        store.delete("r", 1)
        fresh = store.create("r", [a_start("fresh")], head=a_head(workflow="fresh"), attempt_id="again")
        assert fresh == Created()
        assert (head_of(store).incarnation, head_of(store).seq, head_of(store).closed) == (0, 1, False)
        assert self.own(store, old, 1) == Fenced(head_of(store).fence)
        assert self.tell(store, "out") == Committed(1, 0)
        assert store.read("r", incarnation=1) is None


class Due(Bench):
    """What a worker finds to do."""

    @staticmethod
    def put(store: Store, run_id: str, **changes: Any) -> None:
        """Create an open run that nobody holds."""
        store.create(run_id, [a_start()], head=a_head(**changes), attempt_id="a")

    @staticmethod
    def due(store: Store, now: int, limit: int = 99, fingerprints: tuple[str, ...] = ()) -> list[str]:
        """Ids of the runs that are claimed."""
        return [lease.run_id for lease in store.claim_due("w", 30, now=now, limit=limit, fingerprints=fingerprints)]

    def test_the_earliest_is_first(self, store: Store) -> None:
        """Up to the limit, and nothing that is not due yet or has no due."""
        for run_id, due in (("c", 30), ("a", 10), ("b", 20), ("later", 99), ("never", None)):
            self.put(store, run_id, due=None if due is None else START + due)
        assert store.next_due() == START + 10
        assert self.due(store, START + 9) == []
        assert self.due(store, START + 30, limit=2) == ["a", "b"]
        assert self.due(store, START + 30) == ["c"]
        assert store.next_due() == START + 99

    def test_a_claim_is_a_lease(self, store: Store) -> None:
        """With a risen fence, the tail's seq and the store's clock."""
        self.put(store, "r", due=START)
        (lease,) = store.claim_due("w", 30, now=START, limit=5)
        assert (lease.run_id, lease.incarnation, lease.fence, lease.seq, lease.owner) == ("r", 0, 2, 1, "w")
        assert head_of(store).lease_until == lease.until
        assert self.own(store, lease, 1) == Committed(1, 0)

    def test_held_and_closed_runs_are_nobodys(self, store: Store) -> None:
        """They are neither claimed nor the next that is due."""
        self.create(store, "held", due=START)
        self.close_run(store, self.create(store, "closed", due=START))
        assert self.due(store, START + 5) == []
        assert store.next_due() is None

    def test_a_run_left_by_its_owner_is_due(self, store: Store) -> None:
        """When its lease lapses, whatever its head says."""
        lease = self.create(store, due=None)
        assert store.next_due() is None
        self.advance(31)
        assert store.next_due() == lease.until
        assert self.due(store, START) == ["r"]

    def test_released_runs_follow_their_head(self, store: Store) -> None:
        """No due, no claim; an event from outside makes them due."""
        store.release(self.create(store, due=None))
        assert self.due(store, START + 10**12) == []
        self.tell(store, "out", due=START + 4)
        assert store.next_due() == START + 4
        assert self.due(store, START + 4) == ["r"]

    def test_blocked_runs_wait_for_other_code(self, store: Store) -> None:
        """They are tried by workers that name their fingerprints, and not the one that failed."""
        self.put(store, "blocked", due=START, blocked=Blocked("DIVERGENCE", "m", ("old",)))
        assert store.next_due() is None
        assert self.due(store, START) == []
        assert self.due(store, START, fingerprints=("old", "other")) == []
        assert self.due(store, START, fingerprints=("new",)) == ["blocked"]

    def test_a_run_that_several_could_not_drive_is_tried_by_none_of_them(self, store: Store) -> None:
        """Or workers of different code would pass it to and fro."""
        self.put(store, "blocked", due=START, blocked=Blocked("NOT_FOUND", "m", ("second", "first")))
        assert self.due(store, START, fingerprints=("first",)) == []
        assert self.due(store, START, fingerprints=("second", "other")) == []
        assert self.due(store, START, fingerprints=("third",)) == ["blocked"]

    def test_blocked_runs_left_by_their_owner_wait_too(self, store: Store) -> None:
        """Death is no reason to try the same code again."""
        self.create(store, blocked=Blocked("DIVERGENCE", "m", ("old",)))
        self.advance(31)
        assert store.next_due() is None
        assert self.due(store, START, fingerprints=("old",)) == []
        assert self.due(store, START, fingerprints=("new",)) == ["r"]

    def test_workers_never_share_a_run(self, store: Store) -> None:
        """Eight of them, twenty runs: each run is claimed once."""
        for i in range(20):
            self.put(store, f"r{i}", due=START)
        claimed = race(8, lambda _: self.due(store, START, limit=5))
        rest = self.due(store, START)
        assert sorted(f"r{i}" for i in range(20)) == sorted([*(run_id for batch in claimed for run_id in batch), *rest])
