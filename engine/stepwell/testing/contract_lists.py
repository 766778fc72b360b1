"""The store contract: the index, threads, reopening, and the end."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from stepwell.errors import ClosedError, NotFoundError
from stepwell.store import (
    AlreadyCommitted,
    Blocked,
    Committed,
    Conflict,
    Created,
    Exists,
    HeadFilter,
    Lease,
    Store,
    Waiting,
    envelope,
)

from .contract_bench import START, Bench, a_head, a_record, a_start, head_of, ids_of, lines_of, race


class Lists(Bench):
    """The index."""

    def fill(self, store: Store) -> None:
        """Five runs, two of them of one age."""
        tags = {"a": {"team": "x"}, "b": {"team": "y"}, "c": {"team": "x", "big": "1"}, "d": {}, "e": {}}
        waits = {"c": (Waiting("go", "w", 1),), "d": (Waiting("go", "w", 1), Waiting("stop", "v", 2))}
        statuses = {"c": "suspended", "d": "suspended", "e": "paused"}
        for age, run_id in enumerate("abced"):
            head = a_head(
                created=START + min(age, 3),
                workflow="late" if run_id == "e" else "triage",
                tags=tags[run_id],
                waiting=waits.get(run_id, ()),
                status=statuses.get(run_id, "pending"),
                blocked=Blocked("X", "m", ("f",)) if run_id == "e" else None,
            )
            store.create(run_id, [a_start()], head=head, attempt_id="a")
        assert isinstance(store.claim("b", "me", 30), Lease)

    def test_newest_first(self, store: Store) -> None:
        """By created, then by id, both descending."""
        self.fill(store)
        assert ids_of(store.heads(HeadFilter(), limit=99)) == ["e", "d", "c", "b", "a"]
        assert store.heads(HeadFilter(), limit=1) == [head_of(store, "e")]

    def test_pages_follow_each_other(self, store: Store) -> None:
        """Also after a run that is gone; after one that never was they can't."""
        self.fill(store)
        assert ids_of(store.heads(HeadFilter(), limit=2, after="e")) == ["d", "c"]
        assert ids_of(store.heads(HeadFilter(tag=("team", "x")), limit=2, after="c")) == ["a"]
        assert ids_of(store.heads(HeadFilter(waiting_for="go"), limit=2, after="d")) == ["c"]
        assert store.heads(HeadFilter(), limit=2, after="a") == []
        lease = store.claim("c", "me", 30)
        assert isinstance(lease, Lease)
        done = a_head(status="completed", created=START + 2)
        store.append(
            "c", 0, 1, [a_record(kind="complete")], attempt_id="x", head=done, fence=lease.fence, then="closed"
        )
        assert ids_of(store.heads(HeadFilter(closed=True), limit=9)) == ["c"]
        assert ids_of(store.heads(HeadFilter(closed=False, version="1"), limit=9)) == ["e", "d", "b", "a"]
        assert store.delete("c", 0)
        assert ids_of(store.heads(HeadFilter(), limit=2, after="c")) == ["b", "a"]
        with pytest.raises(NotFoundError):
            store.heads(HeadFilter(), limit=2, after="nobody")

    @pytest.mark.parametrize(
        ("where", "expected"),
        [
            (HeadFilter(status="pending"), "a"),
            (HeadFilter(status="running"), "b"),
            (HeadFilter(status="suspended"), "dc"),
            (HeadFilter(status="completed"), ""),
            (HeadFilter(workflow="late"), "e"),
            (HeadFilter(workflow="none"), ""),
            (HeadFilter(tag=("team", "x")), "ca"),
            (HeadFilter(tag=("team", None)), "cba"),
            (HeadFilter(tag=("x", None)), ""),
            (HeadFilter(waiting_for="go"), "dc"),
            (HeadFilter(waiting_for="stop"), "d"),
            (HeadFilter(blocked=True), "e"),
            (HeadFilter(blocked=False), "dcba"),
            (HeadFilter(version="1"), "edcba"),
            (HeadFilter(version="2"), ""),
            (HeadFilter(closed=False, version="1"), "edcba"),
            (HeadFilter(closed=True), ""),
            (HeadFilter(status="suspended", workflow="triage", tag=("big", "1"), waiting_for="go", blocked=False), "c"),
        ],
        ids=repr,
    )
    def test_filters(self, store: Store, where: HeadFilter, expected: str) -> None:
        """Each alone, and all at once."""
        self.fill(store)
        assert ids_of(store.heads(where, limit=99)) == list(expected)

    def test_a_run_that_is_driven_is_running_whatever_its_head_holds(self, store: Store) -> None:
        """It is found as running only, until its lease ends."""
        self.fill(store)
        leases = [store.claim(run_id, "me", 30) for run_id in ("a", "c", "e")]
        found = {
            status: "".join(ids_of(store.heads(HeadFilter(status=status), limit=99)))
            for status in ("running", "pending", "suspended", "paused")
        }
        assert found == {"running": "ecba", "pending": "", "suspended": "d", "paused": ""}
        assert ids_of(store.heads(HeadFilter(status="running"), limit=2, after="e")) == ["c", "b"]
        assert ids_of(store.heads(HeadFilter(status="running", tag=("team", "x")), limit=9)) == ["c", "a"]
        assert head_of(store, "c").head.status == "suspended"
        for lease in leases:
            assert isinstance(lease, Lease)
            store.release(lease)
        assert ids_of(store.heads(HeadFilter(status="running"), limit=9)) == ["b"]
        assert ids_of(store.heads(HeadFilter(status="suspended"), limit=9)) == ["d", "c"]
        assert ids_of(store.heads(HeadFilter(status="paused"), limit=9)) == ["e"]

    def test_a_wait_is_not_listed_while_its_run_is_driven(self, store: Store) -> None:
        """It may be answered already; once the lease has ended, the head tells."""
        self.fill(store)
        assert isinstance(store.claim("d", "me", 30), Lease)
        assert ids_of(store.heads(HeadFilter(waiting_for="go"), limit=9)) == ["c"]
        assert store.heads(HeadFilter(waiting_for="stop"), limit=9) == []
        assert store.heads(HeadFilter(waiting_for="go", status="running"), limit=9) == []
        assert ids_of(store.heads(HeadFilter(waiting_for="go", tag=("team", "x")), limit=9)) == ["c"]
        assert isinstance(store.claim("c", "me", 60), Lease)
        assert store.heads(HeadFilter(waiting_for="go", tag=("team", "x")), limit=9) == []
        self.advance(31)
        assert ids_of(store.heads(HeadFilter(waiting_for="go"), limit=9)) == ["d"]

    def test_a_closed_run_is_not_running(self, store: Store) -> None:
        """Closing ends the lease, and the status is what the owner wrote."""
        self.close_run(store, self.create(store))
        assert store.heads(HeadFilter(status="running"), limit=9) == []
        assert ids_of(store.heads(HeadFilter(status="completed"), limit=9)) == ["r"]

    def test_running_ends_with_the_lease(self, store: Store) -> None:
        """A lapsed lease leaves a pending run."""
        self.fill(store)
        self.advance(31)
        assert store.heads(HeadFilter(status="running"), limit=9) == []
        assert ids_of(store.heads(HeadFilter(status="pending"), limit=9)) == ["b", "a"]


class Concurrency(Bench):
    """Threads, waiting and the end."""

    def test_one_of_eight_appends_wins(self, store: Store) -> None:
        """At one position under one fence; the others are told where the tail is."""
        lease = self.create(store)
        for seq in range(1, 6):
            outcomes = race(8, lambda i, seq=seq: self.own(store, lease, seq, i))  # type: ignore[misc]
            assert outcomes.count(Committed(seq, 0)) == 1
            assert outcomes.count(Conflict(seq + 1, 0)) == 7

    def test_one_of_eight_creates_wins(self, store: Store) -> None:
        """The others find its run."""
        outcomes = race(8, lambda i: store.create("r", [a_start()], head=a_head(), attempt_id=f"a{i}"))
        assert outcomes.count(Created()) == 1
        assert outcomes.count(Exists(head_of(store))) == 7

    def test_one_of_eight_claims_wins(self, store: Store) -> None:
        """The fence rises once."""
        store.create("r", [a_start()], head=a_head(), attempt_id="a")
        outcomes = race(8, lambda i: store.claim("r", f"w{i}", 30))
        assert sum(isinstance(outcome, Lease) for outcome in outcomes) == 1
        assert head_of(store).fence == 2

    def test_all_of_eight_signals_land(self, store: Store) -> None:
        """Once each, without a gap."""
        self.create(store)
        outcomes = race(8, lambda i: [self.tell(store, f"out-{i}-{j}", value=[i, j]) for j in range(5)])
        assert sorted(outcome.seq for batch in outcomes for outcome in batch) == list(range(1, 41))
        assert [envelope(line).offset for line in lines_of(store)] == list(range(41))

    def test_wait_is_told(self, store: Store) -> None:
        """At once when it is longer already, when another thread writes, and not at all for nothing."""
        lease = self.create(store)
        assert store.wait("r", 0, 60) is True
        assert store.wait("r", 1, 0) is False
        assert store.wait("nobody", 0, 0) is False
        started, told = threading.Event(), []

        def watch() -> None:
            started.set()
            told.append(store.wait("r", 1, 60))

        thread = threading.Thread(target=watch)
        thread.start()
        started.wait(10)
        self.own(store, lease, 1)
        thread.join(30)
        assert told == [True]

    def test_closed_is_closed(self, store: Store) -> None:
        """Every further call says so; closing twice does no harm."""
        lease = self.create(store)
        store.close()
        store.close()
        calls: list[Callable[[], object]] = [
            lambda: store.create("x", [a_start()], head=a_head(), attempt_id="a"),
            lambda: store.open_incarnation("r", 1, [a_start()], head=a_head(), attempt_id="a"),
            lambda: self.own(store, lease, 1),
            lambda: self.tell(store, "a"),
            lambda: store.head("r"),
            lambda: store.heads(HeadFilter(), limit=1),
            lambda: store.read("r"),
            lambda: store.claim("r", "me", 1),
            lambda: store.claim_due("me", 1, now=START, limit=1),
            store.next_due,
            lambda: store.renew(lease, 1),
            lambda: store.release(lease),
            lambda: store.delete("r", 0),
            lambda: store.wait("r", 0, 1),
        ]
        for call in calls:
            with pytest.raises(ClosedError):
                call()


class Persistence(Bench):
    """What a store keeps for the next one that is opened on the same data."""

    def reopen(self, store: Store) -> Store:
        """Close `store` and open another on the same data."""
        raise NotImplementedError

    def test_everything_is_there_after_reopening(self, store: Store) -> None:
        """Records, heads, fences, attempts and tombstones."""
        lease = self.create(store, tags={"a": "b"}, waiting=(Waiting("go", "w", 1),))
        self.own(store, lease, 1)
        self.tell(store, "out", due=START + 3)
        store.release(lease)
        self.close_run(store, self.create(store, "gone"))
        store.delete("gone", 0)
        before, lines = head_of(store), lines_of(store)
        store = self.reopen(store)
        assert before == head_of(store)
        assert lines == lines_of(store)
        assert self.tell(store, "out") == AlreadyCommitted(2, 0)
        assert self.own(store, lease, 1) == AlreadyCommitted(1, 0)
        assert self.create(store, "gone").fence == 2
        assert ids_of(store.heads(HeadFilter(tag=("a", "b"), waiting_for="go"), limit=9)) == ["r"]
        store.close()
