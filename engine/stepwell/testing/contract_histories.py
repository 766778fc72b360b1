"""The store contract: records, positions, and the outcomes of appends by owners and others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from stepwell.errors import InvalidInputError, NotFoundError
from stepwell.store import (
    AlreadyCommitted,
    Blocked,
    Committed,
    Conflict,
    Created,
    Draft,
    Exists,
    Fenced,
    Head,
    HeadFilter,
    Lease,
    LeaseRequest,
    RunHead,
    Store,
    Tail,
    Waiting,
    envelope,
    seal,
)

from .contract_bench import ODD_RUN_IDS, START, Bench, a_head, a_record, a_start, head_of, ids_of, lines_of


class Histories(Bench):
    """Records, positions and the outcomes of appends."""

    def test_it_is_a_store(self, store: Store) -> None:
        """It has every method of the port."""
        assert isinstance(store, Store)
        assert store.durability.process_crash in (True, False, None)

    def test_bytes_come_back_as_they_went_in(self, store: Store) -> None:
        """A record is never parsed and written anew."""
        odd = Draft("step", b'"b":1.50,"a":"\xc3\xa9\\u0000\\n\xf0\x9f\x99\x82 \\/","a":  {"z":[],"b":-0.0}')
        long = Draft("step", b'"x":"' + b"y" * 300_000 + b'"')
        lease = self.create(store)
        assert store.append("r", 0, 1, [odd, long], attempt_id="a", fence=1) == Committed(1, 0)
        assert lease.fence == 1
        assert lines_of(store)[1:] == seal([odd, long], session=1, offset=1)

    def test_the_head_comes_back_as_it_went_in(self, store: Store) -> None:
        """All that the engine keeps in the index is given back."""
        head = Head(
            status="suspended",
            workflow="größe",
            version="2",
            created=START,
            updated=START + 1,
            due=START + 2,
            waiting=(Waiting("b", "b@0:1", 5, "why \U0001f642?", 9), Waiting("a", "a@0:2", 6)),
            tags={"team": "ops", "é": "'\"\\"},
            blocked=Blocked("DIVERGENCE", "two\nlines", ("abc",)),
        )
        store.create("r", [a_start()], head=head, attempt_id="a")
        assert head_of(store) == RunHead("r", 0, 1, 1, False, None, head)

    def test_create_has_one_winner(self, store: Store) -> None:
        """The id is taken for every other attempt, and the same attempt is told again that it won."""
        first = store.create("r", [a_start()], head=a_head(), attempt_id="a")
        again = store.create("r", [a_start()], head=a_head(), attempt_id="a")
        other = store.create("r", [a_start("other")], head=a_head(workflow="other"), attempt_id="b")
        assert first == again == Created()
        assert other == Exists(head_of(store))
        assert lines_of(store) == seal([a_start()], session=1, offset=0, attempt_id="a")

    def test_create_of_a_closed_run_grants_no_lease(self, store: Store) -> None:
        """A history that is closed from the start has no owner."""
        done = a_head(status="completed")
        records = [a_start(), a_record(kind="complete")]
        made = store.create("r", records, head=done, attempt_id="a", then="closed", lease=LeaseRequest("me", 30))
        assert made == Created()
        assert head_of(store).closed
        assert head_of(store).lease_until is None

    def test_an_owner_appends(self, store: Store) -> None:
        """Records and head are there together, sealed with the fence."""
        lease = self.create(store, due=START)
        head = a_head(status="suspended", updated=START + 7)
        assert self.own(store, lease, 1, head=head) == Committed(1, 0)
        assert head_of(store) == RunHead("r", 0, 2, 1, False, lease.until, head)
        assert lines_of(store)[1:] == seal([a_record()], session=1, offset=1)

    def test_an_owner_may_change_every_field_of_the_head(self, store: Store) -> None:
        """Workflow, version, created and tags too, and lists follow."""
        lease = self.create(store, tags={"a": "1"})
        head = Head("paused", "other", "9", START + 5, START + 6, None, (Waiting("go", "w", 1),), {"b": "2"})
        assert self.own(store, lease, 1, head=head) == Committed(1, 0)
        assert head_of(store).head == head
        assert store.heads(HeadFilter(tag=("a", None)), limit=9) == []
        for where in (HeadFilter(tag=("b", "2")), HeadFilter(workflow="other")):
            assert ids_of(store.heads(where, limit=9)) == ["r"]
        head = replace(head, waiting=(Waiting("stop", "w2", 2),))
        assert self.own(store, lease, 2, head=head, release=True) == Committed(2, 0)
        assert store.heads(HeadFilter(waiting_for="go"), limit=9) == []
        for where in (HeadFilter(waiting_for="stop"), HeadFilter(status="paused")):
            assert ids_of(store.heads(where, limit=9)) == ["r"]

    def test_an_owner_may_write_the_head_alone(self, store: Store) -> None:
        """Parking leaves no record."""
        lease = self.create(store)
        head = a_head(status="suspended", due=START + 9)
        for _ in range(2):
            assert store.append("r", 0, 1, [], attempt_id="x", head=head, fence=lease.fence) == Committed(1, 0)
        assert head_of(store).head == head
        assert head_of(store).seq == 1
        assert store.append("r", 0, 2, [], attempt_id="x", head=a_head(), fence=lease.fence) == Conflict(1, 0)
        assert head_of(store).head == head

    def test_an_owners_attempt_is_found_again(self, store: Store) -> None:
        """Success stays success: after more records, under a newer fence and when closed."""
        lease = self.create(store)
        self.own(store, lease, 1, "one")
        self.own(store, lease, 2, "two")
        assert self.own(store, lease, 1, "one") == AlreadyCommitted(1, 0)
        store.release(lease)
        newer = store.claim("r", "you", 30)
        assert isinstance(newer, Lease)
        assert self.own(store, lease, 2, "two") == AlreadyCommitted(2, 0)
        self.close_run(store, newer, 3)
        assert self.own(store, lease, 2, "two") == AlreadyCommitted(2, 0)
        assert len(lines_of(store)) == 4

    def test_other_bytes_at_a_taken_position_conflict(self, store: Store) -> None:
        """Only the very same records are the same attempt."""
        lease = self.create(store)
        self.own(store, lease, 1, "one")
        assert self.own(store, lease, 1, "other") == Conflict(2, 0)

    def test_a_tail_elsewhere_conflicts(self, store: Store) -> None:
        """Before the tail and after it, and in an incarnation that isn't there."""
        lease = self.create(store)
        assert self.own(store, lease, 0) == Conflict(1, 0)
        assert self.own(store, lease, 2) == Conflict(1, 0)
        assert self.own(store, replace(lease, incarnation=1), 1) == Conflict(1, 0)
        assert len(lines_of(store)) == 1

    def test_a_closed_history_takes_nothing_more(self, store: Store) -> None:
        """From nobody."""
        lease = self.create(store)
        self.close_run(store, lease)
        assert self.own(store, lease, 2) == Conflict(2, 0, closed=True)
        assert self.tell(store, "out") == Conflict(2, 0, closed=True)
        assert envelope(lines_of(store)[-1]).then == "closed"

    def test_an_older_fence_is_fenced_first(self, store: Store) -> None:
        """Whatever else is wrong, a stale owner hears that it is stale."""
        old = self.create(store)
        store.release(old)
        new = store.claim("r", "you", 30)
        assert isinstance(new, Lease)
        for seq in (0, 1, 7):
            assert self.own(store, old, seq) == Fenced(new.fence)
        self.close_run(store, new)
        assert self.own(store, old, 2) == Fenced(new.fence)

    def test_a_batch_is_gapless(self, store: Store) -> None:
        """Five hundred records land together, numbered from where they should. Shows S5 (P1)."""
        lease = self.create(store)
        batch = [a_record(i) for i in range(500)]
        assert store.append("r", 0, 1, batch, attempt_id="a", fence=lease.fence) == Committed(1, 0)
        assert list(range(501)) == [envelope(line).offset for line in lines_of(store)]
        assert store.append("r", 0, 1, batch, attempt_id="a", fence=lease.fence) == AlreadyCommitted(1, 0)
        assert store.append("r", 0, 1, batch[:3], attempt_id="a", fence=lease.fence) == Conflict(501, 0)

    def test_reads_are_paged(self, store: Store) -> None:
        """From a seq on, up to a limit, and past the end."""
        lease = self.create(store)
        store.append("r", 0, 1, [a_record(i) for i in range(4)], attempt_id="a", fence=lease.fence)
        lines = lines_of(store)
        assert store.read("r", 2, limit=2) == Tail(0, 2, lines[2:4], False, more=True)
        assert store.read("r", 3, limit=2) == Tail(0, 3, lines[3:], False)
        assert store.read("r", 5) == Tail(0, 5, [], False)
        assert store.read("r", 99) == Tail(0, 5, [], False)
        assert store.read("r", incarnation=1) is None

    def test_what_is_not_there(self, store: Store) -> None:
        """Reads give None, writes raise NotFoundError."""
        assert store.head("r") is None
        assert store.read("r") is None
        assert store.claim("r", "me", 30) is None
        assert store.delete("r", 0) is False
        assert store.next_due() is None
        assert store.heads(HeadFilter(), limit=5) == []
        with pytest.raises(NotFoundError):
            self.tell(store, "a")
        with pytest.raises(NotFoundError):
            store.append("r", 0, 0, [a_record()], attempt_id="a", fence=1)
        with pytest.raises(NotFoundError):
            store.open_incarnation("r", 1, [a_start()], head=a_head(), attempt_id="a")

    def test_wrong_arguments_write_nothing(self, store: Store) -> None:
        """Each is refused before the store is touched."""
        lease = self.create(store)
        one = [a_record()]
        wrong: list[Callable[[], object]] = [
            lambda: store.create("", one, head=a_head(), attempt_id="a"),
            lambda: store.create("\ud800", one, head=a_head(), attempt_id="a"),
            lambda: store.create("x" * 2000, one, head=a_head(), attempt_id="a"),
            lambda: store.create("n", [], head=a_head(), attempt_id="a"),
            lambda: store.create("n", one, head=a_head(), attempt_id='a"b'),
            lambda: store.create("n", one, head=a_head(), attempt_id="a", lease=LeaseRequest("me", 0)),
            lambda: store.append("r", None, 1, one, attempt_id="a", fence=1),
            lambda: store.append("r", 0, None, one, attempt_id="a", fence=1),
            lambda: store.append("r", 0, 1, one, attempt_id="a", fence=1, lease=LeaseRequest("me", 1)),
            lambda: store.append("r", 0, 1, [], attempt_id="a", fence=1, then="closed"),
            lambda: store.append("r", None, None, one, attempt_id="a", head=a_head()),
            lambda: store.append("r", None, None, one, attempt_id="a", release=True),
            lambda: store.append("r", None, None, one, attempt_id="a", then="closed"),
            lambda: store.claim("r", "me", -1),
            lambda: store.renew(lease, 0),
        ]
        for call in wrong:
            with pytest.raises(InvalidInputError):
                call()
        assert ids_of(store.heads(HeadFilter(), limit=9)) == ["r"]
        assert len(lines_of(store)) == 1

    def test_odd_run_ids_are_all_different(self, store: Store) -> None:
        """No two ids share a history, and each comes back as it is."""
        for i, run_id in enumerate(ODD_RUN_IDS):
            records = [a_start(f"w{i}")]
            assert store.create(run_id, records, head=a_head(workflow=f"w{i}"), attempt_id="a") == Created()
        for i, run_id in enumerate(ODD_RUN_IDS):
            assert head_of(store, run_id).head.workflow == f"w{i}"
            assert lines_of(store, run_id) == seal([a_start(f"w{i}")], session=1, offset=0, attempt_id="a")
        assert sorted(ids_of(store.heads(HeadFilter(), limit=99))) == sorted(ODD_RUN_IDS)


class Outside(Bench):
    """What others append to a run that they don't own."""

    def test_they_land_at_the_tail(self, store: Store) -> None:
        """Sealed with the head's fence and their attempt; only `due` changes."""
        lease = self.create(store, due=START + 50)
        before = head_of(store)
        assert self.tell(store, "out-1", due=START + 9) == Committed(1, 0)
        assert self.tell(store, "out-2", due=START + 20) == Committed(2, 0)
        assert self.tell(store, "out-3") == Committed(3, 0)
        after = head_of(store)
        assert after == replace(before, seq=4, head=replace(before.head, due=START + 9))
        record = envelope(lines_of(store)[1])
        assert ("out-1", lease.fence, 1) == (record.attempt_id, record.session, record.offset)

    def test_their_attempt_counts_once(self, store: Store) -> None:
        """Also when it is repeated after the close and in the next incarnation."""
        lease = self.create(store)
        assert self.tell(store, "out") == Committed(1, 0)
        assert self.tell(store, "out") == AlreadyCommitted(1, 0)
        assert self.tell(store, "out", value="other bytes") == AlreadyCommitted(1, 0)
        self.close_run(store, lease, 2)
        assert self.tell(store, "out") == AlreadyCommitted(1, 0)
        store.open_incarnation("r", 1, [a_start()], head=a_head(), attempt_id="next")
        assert self.tell(store, "out") == AlreadyCommitted(1, 0)
        assert self.tell(store, "out-2") == Committed(1, 1)

    def test_a_batch_of_theirs_is_one_attempt(self, store: Store) -> None:
        """It is known by its first record."""
        self.create(store)
        batch = [a_record(i, "resume") for i in range(3)]
        assert store.append("r", None, None, batch, attempt_id="out") == Committed(1, 0)
        assert store.append("r", None, None, batch, attempt_id="out") == AlreadyCommitted(1, 0)
        assert len(lines_of(store)) == 4

    def test_they_may_name_a_position(self, store: Store) -> None:
        """Then it is compared."""
        self.create(store)
        record = [a_record(kind="resume")]
        assert store.append("r", 0, 5, record, attempt_id="a") == Conflict(1, 0)
        assert store.append("r", 1, None, record, attempt_id="a") == Conflict(1, 0)
        assert store.append("r", 0, 1, record, attempt_id="a") == Committed(1, 0)
        assert store.append("r", 0, 1, record, attempt_id="a") == AlreadyCommitted(1, 0)

    def test_they_may_only_set_due(self, store: Store) -> None:
        """No record, but the run is to be driven."""
        self.create(store)
        assert store.append("r", None, None, [], attempt_id="a", due=START + 3) == Committed(1, 0)
        assert head_of(store).head.due == START + 3
        assert head_of(store).seq == 1

    def test_the_owner_meets_them_by_conflict(self, store: Store) -> None:
        """It reads the new tail, appends after it, and its head settles `due`."""
        lease = self.create(store)
        self.tell(store, "out", due=START + 1)
        assert self.own(store, lease, 1, head=a_head()) == Conflict(2, 0)
        assert self.own(store, lease, 2, head=a_head(due=None)) == Committed(2, 0)
        assert head_of(store).head.due is None

    def test_they_may_take_a_free_lease(self, store: Store) -> None:
        """With the same write; the fence rises, the record has the one before."""
        lease = self.create(store)
        busy = self.tell(store, "out-1", lease=LeaseRequest("you", 30))
        assert busy == Committed(1, 0, busy_until=lease.until)
        store.release(lease)
        granted = self.tell(store, "out-2", lease=LeaseRequest("you", 30)).lease
        assert (granted.run_id, granted.incarnation, granted.fence, granted.seq, granted.owner) == ("r", 0, 2, 3, "you")
        assert envelope(lines_of(store)[2]).session == 1
        assert self.own(store, lease, 3) == Fenced(2)
        assert self.own(store, granted, 3) == Committed(3, 0)

    def test_a_repeated_attempt_gets_its_lease_again(self, store: Store) -> None:
        """And nobody else's, even under the same owner's name."""
        mine, other = LeaseRequest("me", 30, "mine"), LeaseRequest("me", 30, "other")
        made = [store.create("r", [a_start()], head=a_head(), attempt_id="a", lease=mine) for _ in "ab"]
        assert made[0] == made[1]
        assert isinstance(made[0], Created)
        assert made[0].lease is not None
        store.release(made[0].lease)
        first = self.tell(store, "out", lease=other)
        again = self.tell(store, "out", lease=other)
        assert first.lease == again.lease
        assert first.lease is not None
        assert store.create("r", [a_start()], head=a_head(), attempt_id="a", lease=mine) == Created(None)
        store.release(first.lease)
        assert self.tell(store, "out", lease=mine).lease.fence == first.lease.fence + 1

    def test_who_sends_what_another_has_sent_does_not_get_his_lease(self, store: Store) -> None:
        """A webhook that comes twice has one attempt id, and must not be driven by two under one fence."""
        store.create("r", [a_start()], head=a_head(), attempt_id="a")
        first = self.tell(store, "signal", lease=LeaseRequest("me", 30, "first"))
        assert first.lease is not None
        for token in ("second", ""):
            second = self.tell(store, "signal", lease=LeaseRequest("me", 30, token))
            assert (second.lease, second.busy_until) == (None, first.lease.until)
        store.release(first.lease)
        bare = [self.tell(store, "signal", lease=LeaseRequest("me", 30)) for _ in "ab"]
        assert bare[0].lease.fence == first.lease.fence + 1
        assert (bare[1].lease, bare[1].busy_until) == (None, bare[0].lease.until), "no token, no claim to it"
