"""A long history moves in pages: what is held at once does not grow with it."""

from __future__ import annotations

import tracemalloc

import pytest

from stepwell.moves import Movable
from stepwell.store import Committed, Created, HeadFilter, LeaseRequest
from stepwell.testing.contract import a_head, a_record, a_start
from stepwell_stores import open_store
from stepwell_stores.s3 import log

from .places import BETWEEN_SERVERS, Places
from .zoo import engine_on

RECORDS, BYTES = 6_000, 1_000


@pytest.mark.parametrize("way", [("sqlite", "file"), ("file", "sqlite"), *BETWEEN_SERVERS], ids="-".join)
def test_a_long_history_moves_in_pages(way: tuple[str, str], places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_CACHE", 1 << 20)  # of a bucket's entries, which is no more than it may be
    source, target = (open_store(places.url(kind, name)) for kind, name in zip(way, ("from", "to"), strict=True))
    made = source.create("r", [a_start()], head=a_head(), attempt_id="a", lease=LeaseRequest("me", 60))
    assert isinstance(made, Created)
    assert made.lease is not None
    for seq in range(1, RECORDS, 100):
        done = source.append(
            "r", 0, seq, [a_record(f"{seq + n} {'x' * BYTES}") for n in range(100)], attempt_id="a", fence=1
        )
        assert isinstance(done, Committed)
    source.release(made.lease)
    engine_on(source).migrate(open_store("memory:"), tag="nobody")  # what is imported late
    tracemalloc.start()
    try:
        assert 1 == engine_on(source).migrate(target).moved
        assert RECORDS * BYTES / 2 > tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    head = target.heads(HeadFilter(), limit=9)[0]
    assert RECORDS + 1 == head.seq
    assert isinstance(target, Movable)
    assert [] == target.arrivals(limit=9)
    source.close()
    target.close()
