"""The store contract: reading every byte, and telling who waits for due runs."""

from __future__ import annotations

from stepwell.store import HeadFilter, Lease, LeaseRequest, Store

from .contract_bench import START, Bench, a_head, a_record, a_start, lines_of


class Watching(Bench):
    """`verify` and `on_due`."""

    def test_verify_reads_every_record_of_every_incarnation(self, store: Store) -> None:
        """And finds nothing wrong, nor changes anything."""
        lease = self.create(store, "one")
        store.append("one", 0, 1, [a_record(), a_record()], attempt_id="b", fence=lease.fence)
        store.append("one", 0, 3, [a_record()], attempt_id="c", fence=lease.fence, then="closed", head=a_head())
        store.open_incarnation("one", 1, [a_start()], head=a_head(), attempt_id="d")
        store.create("two", [a_start()], head=a_head(), attempt_id="e")
        heads = store.heads(HeadFilter(), limit=9)
        parts = list(store.verify())
        assert [part.problem for part in parts if part.problem is not None] == []
        found = {(part.run_id, part.incarnation): list(part.records) for part in parts if part.run_id is not None}
        assert {
            ("one", 0): lines_of(store, "one", incarnation=0),
            ("one", 1): lines_of(store, "one", incarnation=1),
            ("two", 0): lines_of(store, "two"),
        } == found
        assert sum(map(len, found["one", 0])) <= sum(part.size for part in parts if part.run_id == "one")
        assert all(part.place for part in parts)
        assert heads == store.heads(HeadFilter(), limit=9)

    def test_verify_says_how_far_it_is(self, store: Store) -> None:
        """From 0 to 1, never back."""
        for name in "abc":
            store.create(name, [a_start()], head=a_head(), attempt_id="a")
        shares = [part.share for part in store.verify()]
        assert sorted(shares) == shares
        assert shares[-1] == 1.0
        assert all(0 <= share <= 1 for share in shares)

    def test_verify_of_an_empty_store_finds_nothing(self, store: Store) -> None:
        """No runs, no problems."""
        assert [part for part in store.verify() if part.problem is not None or part.run_id is not None] == []

    def test_who_waits_for_due_runs_is_told_of_this_process_s_writes(self, store: Store) -> None:
        """A new run, an event from outside, a lease that ends: a hint each, and none after the end."""
        told: list[int] = []
        unlisten = store.on_due(lambda: told.append(1))
        store.create("r", [a_start()], head=a_head(due=START), attempt_id="a")
        assert told
        lease = store.claim("r", "me", 30)
        told.clear()
        self.tell(store, "out", due=START)
        assert told, "the owner may be in another process"
        told.clear()
        assert isinstance(lease, Lease)
        store.release(lease)
        assert told
        told.clear()
        unlisten()
        unlisten()
        store.create("s", [a_start()], head=a_head(due=START), attempt_id="a")
        assert told == []

    def test_who_drives_a_run_itself_tells_nobody(self, store: Store) -> None:
        """A run that is created with its lease is in good hands."""
        told: list[int] = []
        store.on_due(lambda: told.append(1))
        store.create("r", [a_start()], head=a_head(due=START), attempt_id="a", lease=LeaseRequest("me", 30))
        assert told == []
