"""An incarnation that its owner ended with the next one: what the files say, and what damage is still found."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepwell.errors import CorruptHistoryError
from stepwell.store import Committed, Created, Lease, LeaseRequest
from stepwell.testing.contract_bench import a_head, a_record, a_start
from stepwell_stores import open_store


def taken_over(folder: Path) -> None:
    """A run of three records, whose owner went on in the next incarnation."""
    store = open_store(f"file:{folder}")
    made = store.create("r", [a_start()], head=a_head(), attempt_id="new", lease=LeaseRequest("me", 30))
    assert isinstance(made, Created)
    assert made.lease is not None
    store.append("r", 0, 1, [a_record(1), a_record(2)], attempt_id="own", fence=made.lease.fence)
    other = open_store(f"file:{folder}")  # keeps what it knows of the run in memory
    assert isinstance(other.append("r", None, None, [a_record(3)], attempt_id="out"), Committed)
    kept = (folder / "r.head.json").read_bytes()
    done = store.open_incarnation(
        "r", 1, [a_start()], head=a_head(), attempt_id="n", fence=made.lease.fence, expected_seq=4
    )
    assert Committed(0, 1) == done
    (folder / "r.head.json").write_bytes(kept)  # the owner died before it could write the head
    found = other.head("r")
    assert found is not None
    assert (1, 1, False, None) == (found.incarnation, found.seq, found.closed, found.lease_until)
    lease = other.claim("r", "other", 30)
    assert isinstance(lease, Lease)
    assert (1, 1) == (lease.incarnation, lease.seq)
    store.close()
    other.close()


def test_a_store_that_remembers_the_run_as_it_was_sees_that_it_has_gone_on(tmp_path: Path) -> None:
    taken_over(tmp_path)
    store = open_store(f"file:{tmp_path}")
    tail = store.read("r", incarnation=0)
    assert tail is not None
    assert (4, True) == (len(tail.records), tail.closed)
    assert [] == [part.problem for part in store.verify() if part.problem is not None]
    store.close()


@pytest.mark.parametrize("left", [1, 3])
def test_a_history_that_was_cut_short_is_told_from_one_that_ended_so(tmp_path: Path, left: int) -> None:
    taken_over(tmp_path)
    path = tmp_path / "r.0.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:left]))
    store = open_store(f"file:{tmp_path}")
    with pytest.raises(CorruptHistoryError, match=f"holds {left} records and is not closed"):
        store.read("r", incarnation=0)
    assert ["is not closed" in str(part.problem) for part in store.verify() if part.problem is not None] == [True]
    store.close()
