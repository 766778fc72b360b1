"""The store contract: which runs are closed since when, how large the store is, and removal for good."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from stepwell.errors import ClosedError, InvalidInputError
from stepwell.store import Committed, Created, Exists, HeadFilter, Lease, Store, closed_key, envelope

from .contract_bench import START, Bench, a_head, a_record, a_start, head_of, ids_of, lines_of, race

_END = ("\U0010ffff", 2**62, "")


class Upkeep(Bench):
    """Retention.

    Attributes:
        filler: text that takes room. A store that compresses gives one that can't be compressed.
    """

    filler = "x" * 100_000

    def close_at(
        self, store: Store, run_id: str, updated: int, workflow: str = "triage", status: str = "completed"
    ) -> None:
        """Create a run and close it at an instant."""
        lease = self.create(store, run_id, workflow=workflow)
        done = a_head(status=status, updated=START + updated, workflow=workflow)
        store.append(
            run_id, 0, 1, [a_record(kind="complete")], attempt_id="x", head=done, fence=lease.fence, then="closed"
        )

    def fill_closed(self, store: Store) -> None:
        """Five closed runs of two workflows, and two open ones."""
        for run_id, updated in (("b", 5), ("a", 5), ("c", 1)):
            self.close_at(store, run_id, updated)
        self.close_at(store, "é", 9, "Alpha", "failed")
        self.close_at(store, "z", 2, "Alpha", "cancelled")
        self.create(store, "open")
        store.create("pending", [a_start()], head=a_head(), attempt_id="new")

    # ---- closed

    def test_closed_runs_come_in_the_order_of_their_keys(self, store: Store) -> None:
        """By workflow, then by when they were closed, then by id; open ones never."""
        self.fill_closed(store)
        assert ids_of(store.closed(limit=99)) == ["z", "é", "c", "a", "b"]
        assert ids_of(store.closed(limit=99, newest_first=True)) == ["b", "a", "c", "é", "z"]
        assert store.closed(limit=1) == [head_of(store, "z")]

    def test_a_page_of_closed_runs_lies_between_two_keys(self, store: Store) -> None:
        """Neither is given, and neither has to be there."""
        self.fill_closed(store)
        key = closed_key(head_of(store, "a"))
        assert ids_of(store.closed(after=key, limit=9)) == ["b"]
        assert ids_of(store.closed(before=key, limit=9)) == ["z", "é", "c"]
        assert ids_of(store.closed(before=key, limit=2, newest_first=True)) == ["c", "é"]
        assert ids_of(store.closed(after=("Alpha", START + 2, "z"), before=key, limit=9)) == ["é", "c"]
        assert ids_of(store.closed(after=("Alpha", START + 2, "y"), before=("Alpha", 2**62, ""), limit=9)) == ["z", "é"]
        assert ids_of(store.closed(after=("triage", -(2**62), ""), before=("triage", START + 6, ""), limit=1)) == ["c"]
        assert store.closed(after=key, before=key, limit=9) == []
        assert store.closed(after=_END, limit=9) == []

    def test_a_run_that_is_opened_again_is_not_closed(self, store: Store) -> None:
        """Until it is closed once more, at its new place."""
        self.fill_closed(store)
        store.open_incarnation("c", 1, [a_start()], head=a_head(), attempt_id="again")
        assert ids_of(store.closed(limit=99)) == ["z", "é", "a", "b"]
        lease = store.claim("c", "me", 30)
        assert isinstance(lease, Lease)
        self.close_run(store, lease)
        assert ids_of(store.closed(limit=99)) == ["z", "é", "c", "a", "b"]
        assert head_of(store, "c").head.updated == START

    def test_a_run_that_is_born_closed_is_closed(self, store: Store) -> None:
        """And one that was deleted is not."""
        done = a_head(status="completed")
        store.create("r", [a_start(), a_record(kind="complete")], head=done, attempt_id="new", then="closed")
        assert ids_of(store.closed(limit=9)) == ["r"]
        assert store.delete("r", 0)
        assert store.closed(limit=9) == []

    def test_an_empty_page_can_not_be_asked_for(self, store: Store) -> None:
        """It would say that there are no more."""
        with pytest.raises(InvalidInputError, match="limit"):
            store.closed(limit=0)

    # ---- size

    def test_a_new_store_has_nothing_in_it(self, store: Store) -> None:
        """No runs, no events."""
        size = store.size()
        assert (size.runs, size.events) == ({}, 0)

    def test_the_size_counts_runs_by_status_and_all_events(self, store: Store) -> None:
        """A run under a live lease is running; earlier incarnations have events too."""
        self.fill_closed(store)
        found = store.size()
        assert found.runs == {"completed": 3, "failed": 1, "cancelled": 1, "running": 1, "pending": 1}
        assert found.events == 5 * 2 + 2
        store.open_incarnation("c", 1, [a_start(), a_record()], head=a_head(), attempt_id="again")
        self.advance(31)
        found = store.size()
        assert found.runs == {"completed": 2, "failed": 1, "cancelled": 1, "pending": 3}
        assert found.events == 5 * 2 + 2 + 2
        assert sum(found.runs.values()) == len(store.heads(HeadFilter(), limit=99))

    def test_records_take_bytes(self, store: Store) -> None:
        """At least as many as they have; what is free is a part of it."""
        lease = self.create(store)
        before = store.size()
        for seq in range(1, 4):
            self.own(store, lease, seq, self.filler)
        after = store.size()
        assert after.events == before.events + 3
        assert after.bytes >= max(300_000, before.bytes + 1)
        assert 0 <= after.free <= after.bytes

    def test_removed_runs_take_no_space_for_long(self, store: Store) -> None:
        """Without `vacuum` it may be free and not given back; with it, it is."""
        lease = self.create(store)
        for seq in range(1, 11):
            self.own(store, lease, seq, self.filler)
        self.close_run(store, lease, 11)
        self.create(store, "stays")
        lines = lines_of(store, "stays")
        full = store.size()
        assert store.delete("r", 0)
        self.advance(31)  # a store may want that nobody drives a run
        gone = store.size()
        assert (gone.events, gone.runs) == (1, {"pending": 1})
        assert gone.bytes - gone.free <= full.bytes - full.free
        assert store.vacuum() >= 0
        empty = store.size()
        assert empty.bytes < full.bytes - 900_000
        assert empty.free == 0
        assert lines_of(store, "stays") == lines
        assert store.vacuum() >= 0

    # ---- delete

    def test_a_delete_that_names_another_fence_removes_nothing(self, store: Store) -> None:
        """So who looked at a run removes that one, and no other that took its id meanwhile."""
        self.close_run(store, self.create(store))
        seen = head_of(store)
        assert store.delete("r", 0, fence=seen.fence)
        self.close_run(store, self.create(store))
        assert head_of(store).incarnation == seen.incarnation
        assert not store.delete("r", 0, fence=seen.fence)
        assert store.delete("r", 0, fence=seen.fence + 1)

    def test_a_run_that_takes_the_id_of_a_removed_one_sees_nothing_of_it(self, store: Store) -> None:
        """No record, incarnation, attempt, tag or fence, however often."""
        fences: list[int] = []
        for _ in range(3):
            lease = self.create(store, tags={"old": "1"})
            fences.append(lease.fence)
            assert isinstance(self.tell(store, "out"), Committed)
            self.close_run(store, lease, 2)
            made = store.open_incarnation("r", 1, [a_start()], head=a_head(), attempt_id="more")
            assert isinstance(made, Committed)
            again = store.claim("r", "me", 30)
            assert isinstance(again, Lease)
            fences.append(again.fence)
            self.close_run(store, again)
            assert store.delete("r", 1)
            assert store.head("r") is None
            assert [store.read("r", incarnation=number) for number in (None, 0, 1)] == [None] * 3
        assert fences == sorted(set(fences))
        assert isinstance(store.create("r", [a_start()], head=a_head(), attempt_id="new"), Created)
        assert [envelope(line).session for line in lines_of(store)] == [head_of(store).fence]
        assert head_of(store).fence > fences[-1]
        assert store.read("r", incarnation=1) is None
        assert store.heads(HeadFilter(tag=("old", None)), limit=9) == []
        assert isinstance(self.tell(store, "out"), Committed)

    def test_of_many_who_remove_a_run_one_does(self, store: Store) -> None:
        """Also while others take the id."""
        self.close_run(store, self.create(store))
        assert sorted(race(8, lambda _: store.delete("r", 0, fence=1))) == [False] * 7 + [True]
        made = race(8, lambda i: store.create("r", [a_start()], head=a_head(), attempt_id=f"a{i}"))
        assert [type(one) for one in made].count(Exists) == 7
        assert head_of(store).fence == 2

    def test_a_closed_store_is_kept_no_more(self, store: Store) -> None:
        """Every call says so."""
        store.close()
        calls: list[Callable[[], object]] = [lambda: store.closed(limit=1), store.size, store.vacuum]
        for call in calls:
            with pytest.raises(ClosedError):
                call()
