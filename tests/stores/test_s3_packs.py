"""Packs: a long run is loaded by a few reads, and what is in a pack is believed only as far as it is whole."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from tests.servers.tiny_s3 import TinyS3, tiny_s3

from stepwell.moves import Departure
from stepwell.store import Committed, Created, Lease
from stepwell.testing.contract import ManualClock, a_head, a_record, a_start
from stepwell_stores.s3 import S3Store
from stepwell_stores.s3 import bucket as s3_bucket
from stepwell_stores.s3 import opening as s3_opening

PACK = "p/runs/r/pack"


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[TinyS3]:
    monkeypatch.setattr(s3_bucket, "_PAUSES", (0.001, 0.001))
    monkeypatch.setattr(s3_opening, "_proven", set())
    monkeypatch.setattr(s3_opening, "_clocks", {})
    with tiny_s3() as server:
        yield server


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def opened(tiny: TinyS3, clock: ManualClock) -> S3Store:
    """A store as another process has it, which has shown that it can be written."""
    store = S3Store(tiny.open(), "p", clock=clock, keep_deleted=30)
    store._opening.writing()
    return store


def settled(store: S3Store) -> None:
    """Wait until what is done on the side is done."""
    meet = threading.Barrier(16)
    store._opening.reading().each(lambda _: meet.wait(10), range(16))


def driven(store: S3Store, steps: int, *, ends: bool = False) -> None:
    """A run with so many steps, each an entry; somebody else may drive it then."""
    assert isinstance(store.create("r", [a_start()], head=a_head(), attempt_id="new"), Created)
    go_on(store, steps, ends=ends)


def go_on(store: S3Store, steps: int, *, ends: bool = False) -> None:
    lease = store.claim("r", "me", 3600)
    assert isinstance(lease, Lease)
    for number in range(lease.seq, lease.seq + steps):
        done = store.append("r", 0, number, [a_record(number)], attempt_id="x", fence=lease.fence)
        assert isinstance(done, Committed)
    if ends:
        end = a_head(status="completed")
        seq = lease.seq + steps
        store.append("r", 0, seq, [a_record()], attempt_id="x", head=end, fence=lease.fence, then="closed")
    else:
        store.release(lease)
    settled(store)


def loaded(tiny: TinyS3, clock: ManualClock, *, owner: bool = False) -> tuple[list[bytes], Counter[str]]:
    """The history as a new process reads it, and what it asked for; one that drives the run has the lease before."""
    store = opened(tiny, clock)
    lease = store.claim("r", "me", 3600) if owner else None
    settled(store)
    del tiny.asked[:]
    tail = store.read("r")
    settled(store)
    asked = Counter("list" if not key else method for method, key in tiny.asked)
    if isinstance(lease, Lease):
        store.release(lease)
    store.close()
    assert tail is not None
    return tail.records, asked


def test_a_long_run_is_loaded_by_a_list_and_three_reads_once_its_owner_has_loaded_it(
    tiny: TinyS3, clock: ManualClock
) -> None:
    store = opened(tiny, clock)
    driven(store, 200)  # 203 entries, with the lease and its end
    first, before = loaded(tiny, clock, owner=True)
    assert before["GET"] > 200
    assert before["PUT"] == 1
    again, after = loaded(tiny, clock)
    assert {"list": 1, "GET": 3} == after  # the last entry, none after it, and the pack
    go_on(store, 20)
    longer, later = loaded(tiny, clock)
    assert {"list": 1, "GET": 3 + 22} == later  # those that came since, with a lease and its end
    assert (201, first, first) == (len(first), again, longer[:201])
    go_on(store, 60)
    assert loaded(tiny, clock, owner=True)[1]["PUT"] == 1
    assert {"list": 1, "GET": 3} == loaded(tiny, clock)[1]
    store.close()


def test_nobody_but_its_owner_writes_the_pack_of_a_run(tiny: TinyS3, clock: ManualClock) -> None:
    store = opened(tiny, clock)
    driven(store, 100)
    assert "PUT" not in loaded(tiny, clock)[1]
    assert PACK not in tiny.objects
    store.close()


def test_a_run_that_is_closed_leaves_one_and_a_short_one_does_not(tiny: TinyS3, clock: ManualClock) -> None:
    for steps in (20, 100):
        store = opened(tiny, clock)
        driven(store, steps, ends=True)
        assert (PACK in tiny.objects) == (steps == 100)
        if steps == 20:
            assert store.delete("r", 0)
        store.close()
    assert {"list": 1, "GET": 3} == loaded(tiny, clock)[1]


@pytest.mark.parametrize("harm", [b"", b"{}", b"cut", b"flip", b"other"])
def test_a_pack_that_is_damaged_or_old_harms_nobody(harm: bytes, tiny: TinyS3, clock: ManualClock) -> None:
    store = opened(tiny, clock)
    driven(store, 100)
    whole, _ = loaded(tiny, clock, owner=True)
    data, when = tiny.objects[PACK]
    changed = {b"cut": data[: len(data) // 2], b"flip": data.replace(b'"result":50', b'"result":51')}.get(harm, harm)
    if harm == b"other":
        changed = data.replace(b'"run_id":"r"', b'"run_id":"s"')
    assert changed != data
    tiny.objects[PACK] = changed, when
    assert whole == loaded(tiny, clock)[0]
    tiny.objects[PACK] = changed, when
    assert [None] == [part.problem for part in store.verify() if part.note is not None]
    store.close()


@pytest.mark.parametrize("how", ["removed", "moved"])
def test_a_pack_goes_with_the_entries_of_its_run(how: str, tiny: TinyS3, clock: ManualClock) -> None:
    store = opened(tiny, clock)
    driven(store, 100)
    loaded(tiny, clock, owner=True)
    assert True is (PACK in tiny.objects)
    if how == "moved":
        head: Any = store.head("r")
        assert store.depart(head, Departure("elsewhere", "t"))
    else:
        go_on(store, 1, ends=True)
        assert store.delete("r", 0)
    settled(store)
    clock.advance(100)
    assert store.vacuum() > 0
    assert [key for key in tiny.objects if "/runs/" in key and key.endswith("pack")] == []
    assert [part.problem for part in store.verify() if part.problem is not None] == []
    store.close()
