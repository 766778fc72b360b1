"""What the JSONL store remembers of many runs: looks that read little, and claims that never trust what is old."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stepwell.errors import StoreError
from stepwell.store import Blocked, HeadFilter, Lease
from stepwell.testing.contract import a_head, a_record, a_start
from stepwell_stores.jsonl import JsonlStore
from stepwell_stores.jsonl import due as jsonl_due
from stepwell_stores.jsonl.files import Directory

RUNS = 40


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def store(path: Path) -> Iterator[JsonlStore]:
    store = JsonlStore(path, sync="off")
    for number in range(RUNS):
        put(store, f"r{number:02}", 100 + number)
    yield store
    store.close()


@pytest.fixture
def other(path: Path, store: JsonlStore) -> Iterator[JsonlStore]:
    """Another process's, as far as the store can tell."""
    assert store.path == str(path)
    other = JsonlStore(path, sync="off")
    yield other
    other.close()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read."""
    names: list[str] = []
    real = Directory.read

    def reading(self: Directory, name: str) -> bytes | None:
        names.append(name)
        return real(self, name)

    monkeypatch.setattr(Directory, "read", reading)
    return names


def put(store: JsonlStore, run_id: str, due: int | None, **changes: Any) -> None:
    store.create(run_id, [a_start()], head=a_head(due=due, **changes), attempt_id="a")


def claim(store: JsonlStore, limit: int = 1, *, now: int = 1000, fingerprints: tuple[str, ...] = ()) -> list[str]:
    return [lease.run_id for lease in store.claim_due("w", 3600, now=now, limit=limit, fingerprints=fingerprints)]


def settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let some time pass since the files were written."""
    ahead = time.time_ns() + 10_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: ahead)


def test_what_did_not_change_is_not_read_again(
    store: JsonlStore, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    assert store.next_due() == 100
    assert len(reads) >= RUNS
    reads.clear()
    assert store.next_due() == 100
    assert len(store.heads(HeadFilter(), limit=99)) == RUNS
    assert [] == reads


def test_what_changed_a_moment_ago_is_read_again(store: JsonlStore, reads: list[str]) -> None:
    """Two changes within one tick of the file system's clock look alike from outside."""
    put(store, "new", 5)
    assert store.next_due() == 5
    reads.clear()
    assert store.next_due() == 5
    assert "new.head.json" in reads


@pytest.mark.parametrize("change", ["append", "release", "close", "delete", "create", "lose"])
def test_what_another_process_changed_is_seen(
    path: Path, store: JsonlStore, other: JsonlStore, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    lease = store.claim("r07", "me", 3600)
    assert isinstance(lease, Lease)
    settle(monkeypatch)
    before = {head.run_id: head for head in store.heads(HeadFilter(), limit=99)}
    if change == "append":
        other.append("r07", None, None, [a_record("x")], attempt_id="b", due=3)
    elif change == "release":
        other.release(lease)
    elif change == "create":
        put(other, "new", 7)
    elif change == "lose":
        (path / "r07.head.json").unlink()
    else:
        at: Any = ("r07", 0, 1, [a_record(kind="complete")])
        other.append(*at, attempt_id="c", head=a_head(status="completed"), fence=lease.fence, then="closed")
        if change == "delete":
            other.delete("r07", 0)
    after = {head.run_id: head for head in store.heads(HeadFilter(), limit=99)}
    expected = {head.run_id: head for head in JsonlStore(path, sync="off").heads(HeadFilter(), limit=99)}
    assert before != after
    assert expected == after


def test_one_look_serves_many_claims(store: JsonlStore, reads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl_due, "_SECONDS", 3600.0)
    looks: list[str] = []
    real = os.listdir

    def listing(path: str) -> list[str]:
        looks.append(path)
        return real(path)

    monkeypatch.setattr(os, "listdir", listing)
    assert ["r00"] == claim(store)
    reads.clear()
    looks.clear()
    assert [f"r{number:02}" for number in range(1, RUNS)] == [claim(store)[0] for _ in range(RUNS - 1)]
    assert [] == looks
    assert len(reads) <= 3 * RUNS
    assert [] == claim(store)


@pytest.mark.parametrize("change", ["claim", "close", "later"])
def test_a_remembered_run_that_is_not_due_any_more_is_not_granted(
    store: JsonlStore, other: JsonlStore, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(jsonl_due, "_SECONDS", 3600.0)
    assert ["r00"] == claim(store)
    lease = other.claim("r01", "them", 3600)
    assert isinstance(lease, Lease)
    if change == "close":
        at: Any = ("r01", 0, 1, [a_record(kind="complete")])
        other.append(*at, attempt_id="c", head=a_head(status="completed"), fence=lease.fence, then="closed")
    elif change == "later":
        other.append("r01", 0, 1, [], attempt_id="c", head=a_head(due=10**6), fence=lease.fence, release=True)
    assert ["r02"] == claim(store)
    head = store.head("r01")
    assert head is not None
    assert head.fence == lease.fence


def test_what_this_process_makes_due_has_its_place_at_once(store: JsonlStore) -> None:
    """And what is left by its owner, or was written from outside."""
    assert ["r00"] == claim(store)
    put(store, "sooner", 1)
    assert ["sooner", "r01"] == claim(store, 2)
    put(store, "asleep", None)
    store.append("asleep", None, None, [a_record("x")], attempt_id="b", due=2)
    lease = store.claim("r30", "me", 3600)
    assert isinstance(lease, Lease)
    store.append("r30", 0, 1, [a_record("x")], attempt_id="c", head=a_head(due=3), fence=lease.fence, release=True)
    assert ["asleep", "r30", "r02"] == claim(store, 3)


def test_a_look_gets_old(store: JsonlStore, other: JsonlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then what other processes made due is found, in its order."""
    assert ["r00"] == claim(store)
    put(other, "sooner", 1)
    ahead = time.monotonic() + 3600
    monkeypatch.setattr(time, "monotonic", lambda: ahead)
    assert ["sooner", "r01"] == claim(store, 2)


def test_what_is_left_of_a_look_is_no_answer(store: JsonlStore, other: JsonlStore) -> None:
    """A claim that gets less than it may looks again."""
    assert RUNS - 1 == len(claim(store, RUNS - 1))
    put(other, "new", 1)
    assert ["r39", "new"] == claim(store, 2)
    assert [] == claim(store, 2)


def test_a_look_is_for_one_instant_and_one_code(store: JsonlStore) -> None:
    put(store, "stuck", 1, blocked=Blocked("DIVERGENCE", "m", ("old",)))
    assert ["r00"] == claim(store)
    assert ["stuck"] == claim(store, fingerprints=("new",))
    assert ["r01"] == claim(store, fingerprints=("old",))
    assert [] == claim(store, now=50)
    assert ["r02"] == claim(store)


def test_a_run_in_trouble_is_passed_by(path: Path, store: JsonlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was granted is not lost for it; where there was nothing else, the error is told."""
    (path / "r01.0.jsonl").write_bytes(b"")
    assert ["r00", "r02"] == claim(store, 2)
    monkeypatch.setattr(JsonlStore, "_grant", _fails)
    with pytest.raises(StoreError):
        claim(store)


def _fails(*_: Any) -> Any:
    raise StoreError("no luck")


DRAIN = """
import sys
from stepwell_stores.jsonl import JsonlStore
store = JsonlStore(sys.argv[1], sync="off")
print("ready", flush=True)
sys.stdin.readline()
while leases := store.claim_due(sys.argv[2], 3600, now=1000, limit=1):
    print(leases[0].run_id, leases[0].fence, flush=True)
print("end", flush=True)
sys.stdin.readline()
"""


def test_processes_share_the_runs_between_them(path: Path, store: JsonlStore, python: Callable[..., Any]) -> None:
    """Each run is claimed once, under one fence, and none is left."""
    workers = [python(DRAIN, str(path), f"w{number}") for number in range(3)]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("\n")
        worker.stdin.flush()
    claimed: list[str] = []
    for worker in workers:
        while (line := worker.stdout.readline()) != "end\n":
            claimed.append(line)
    assert [f"r{number:02} 2\n" for number in range(RUNS)] == sorted(claimed)
    assert [] == claim(store)
