"""Files of the JSONL store that stay open between appends: none is opened, and none is trusted that was exchanged."""

from __future__ import annotations

import errno
import gc
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from stepwell.errors import CorruptHistoryError
from stepwell.store import Committed, Conflict, Fenced, Lease, NotApplied, Unknown
from stepwell.testing.contract import a_head, a_record, a_start
from stepwell_stores.jsonl import JsonlStore
from stepwell_stores.jsonl import open as jsonl_open
from stepwell_stores.jsonl.runs import Fence


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def store(path: Path) -> Iterator[JsonlStore]:
    store = JsonlStore(path)
    yield store
    store.close()


@pytest.fixture
def lease(store: JsonlStore, create: Callable[..., Lease]) -> Lease:
    """Of a run "r" of three records, whose files are open."""
    lease = create(store)
    for seq in (1, 2):
        assert own(store, lease, seq) == Committed(seq, 0)
    return lease


@pytest.fixture
def other(path: Path, lease: Lease) -> Iterator[JsonlStore]:
    assert lease.run_id == "r"
    other = JsonlStore(path)
    yield other
    other.close()


def own(store: JsonlStore, lease: Lease, seq: int, **how: Any) -> Any:
    return store.append(lease.run_id, 0, seq, [a_record(seq)], attempt_id="a", fence=lease.fence, **how)


def open_files(path: Path) -> list[str]:
    """The files of a store that this process has open, but for its locks."""
    found = []
    for fd in Path("/proc/self/fd").iterdir():
        try:
            place = fd.readlink()
        except OSError:
            continue
        if place.parent == path:
            found.append(place.name)
    return sorted(found)


def test_an_owner_who_goes_on_opens_nothing(
    path: Path, store: JsonlStore, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("open", "read", "write", "fdatasync", "fsync", "fstat", "close", "replace", "unlink"):
        real = getattr(os, name)

        def call(*args: Any, _name: str = name, _real: Any = real, **how: Any) -> Any:
            calls.append(_name)
            return _real(*args, **how)

        monkeypatch.setattr(os, name, call)
    assert own(store, lease, 3) == Committed(3, 0)
    assert ["write", "fdatasync", "write"] == calls, "the journal, and when that is durable, the head"
    assert store.renew(lease, 3600) is not None
    assert ["write"] == calls[3:]
    monkeypatch.undo()
    assert ["r.0.jsonl", "r.head.json"] == open_files(path)


def test_files_of_closed_runs_and_closed_stores_are_closed(
    path: Path, store: JsonlStore, lease: Lease, create: Callable[..., Lease]
) -> None:
    assert own(store, lease, 3, then="closed", head=a_head()) == Committed(3, 0)
    assert [] == open_files(path)
    again = create(store, "s")
    assert own(store, again, 1) == Committed(1, 0)
    assert ["s.0.jsonl", "s.head.json"] == open_files(path)
    store.close()
    assert [] == open_files(path)


def test_a_store_that_is_dropped_leaves_nothing_open(path: Path, create: Callable[..., Lease]) -> None:
    store = JsonlStore(path)
    assert own(store, create(store), 1) == Committed(1, 0)
    assert [] != open_files(path)
    del store
    gc.collect()
    assert [] == open_files(path)


def test_only_so_many_stay_open(
    path: Path, store: JsonlStore, create: Callable[..., Lease], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonl_open, "_MOST", 2)
    leases = [create(store, run_id) for run_id in "abcd"]
    for lease in leases:
        assert own(store, lease, 1) == Committed(1, 0)
    assert ["c.0.jsonl", "c.head.json", "d.0.jsonl", "d.head.json"] == open_files(path)
    for lease in leases:
        assert own(store, lease, 2) == Committed(2, 0)


def test_when_no_file_can_be_opened_those_that_stay_open_make_room(
    path: Path, store: JsonlStore, lease: Lease, create: Callable[..., Lease], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def full(*args: Any, **how: Any) -> int:
        if "r.0.jsonl" in open_files(path):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(*args, **how)

    monkeypatch.setattr(os, "open", full)
    assert create(store, "s").fence == 1
    assert own(store, lease, 3) == Committed(3, 0)


def test_a_child_has_files_of_its_own(path: Path, store: JsonlStore, lease: Lease) -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:  # pragma: no cover - a child's lines are not seen
        code = 1
        try:
            before = open_files(path)
            done = own(store, lease, 3) == Committed(3, 0)
            os.write(writing, json.dumps([before, done]).encode())
            code = 0
        finally:
            os._exit(code)
    os.waitpid(pid, 0)
    assert [[], True] == json.loads(os.read(reading, 1000))
    os.close(reading)
    os.close(writing)
    assert own(store, lease, 3) == store.append("r", 0, 3, [a_record(3)], attempt_id="a", fence=1)
    assert own(store, lease, 4) == Committed(4, 0)


# ---- what others did


def test_an_owner_meets_what_was_written_from_outside(store: JsonlStore, lease: Lease, other: JsonlStore) -> None:
    assert other.append("r", None, None, [a_record("out")], attempt_id="out", due=5) == Committed(3, 0)
    assert own(store, lease, 3, head=a_head()) == Conflict(4, 0)
    assert own(store, lease, 4) == Committed(4, 0)
    head = other.head("r")
    assert head is not None
    assert (5, 5) == (head.seq, head.head.due)


def test_an_owner_whose_lease_was_taken_is_fenced(store: JsonlStore, lease: Lease, other: JsonlStore) -> None:
    other.release(lease)
    taken = other.claim("r", "them", 3600)
    assert isinstance(taken, Lease)
    assert own(store, lease, 3) == Fenced(taken.fence)
    assert own(other, taken, 3) == Committed(3, 0)
    assert own(other, taken, 4) == Committed(4, 0)
    again = JsonlStore(other.path)
    other.release(taken)
    assert isinstance(again.claim("r", "me", 30), Lease)
    assert own(other, taken, 5) == Fenced(3)
    again.close()


def test_a_number_that_was_raised_and_given_to_nobody_counts(
    store: JsonlStore, lease: Lease, other: JsonlStore
) -> None:
    """Whoever raised it died before he wrote the head."""
    for number, seq in ((2, 3), (3, 4)):
        with other._access.locked("r"):
            other._runs.raise_fence("r", Fence("r", number))
        assert own(store, lease, seq) == Fenced(number)
        lease = structs.replace(lease, fence=number)
        assert own(store, lease, seq) == Committed(seq, 0)


def test_what_another_process_did_with_the_lease_is_seen(store: JsonlStore, lease: Lease, other: JsonlStore) -> None:
    """Only the head tells, and neither its size nor its place."""
    renewed = other.renew(lease, 7200)
    assert renewed is not None
    head = store.head("r")
    assert head is not None
    assert renewed.until == head.lease_until
    assert own(store, lease, 3) == Committed(3, 0)
    assert other.head("r") == structs.replace(head, seq=4)
    other.release(lease)
    head = store.head("r")
    assert head is not None
    assert head.lease_until is None


@pytest.mark.parametrize("name", ["r.0.jsonl", "r.head.json"])
def test_a_file_that_was_put_in_place_of_another_is_the_one_that_counts(
    path: Path, store: JsonlStore, lease: Lease, name: str
) -> None:
    shutil.copy(path / name, path.parent / "copy")
    (path.parent / "copy").replace(path / name)
    assert own(store, lease, 3) == Committed(3, 0)
    assert len((path / "r.0.jsonl").read_bytes().split(b"\n")) == 5
    assert json.loads((path / "r.head.json").read_bytes())["seq"] == 4


def test_a_journal_that_is_gone_or_a_link_is_told(path: Path, store: JsonlStore, lease: Lease) -> None:
    journal = path / "r.0.jsonl"
    journal.replace(path.parent / "away")
    with pytest.raises(CorruptHistoryError, match="is gone"):
        own(store, lease, 3)
    journal.symlink_to(path.parent / "away")
    assert not isinstance(_caught(lambda: own(store, lease, 3)), Committed)
    assert len((path.parent / "away").read_bytes().split(b"\n")) == 4


def _caught(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except CorruptHistoryError as error:
        return error


@pytest.mark.parametrize("data", [None, b"", b"\0"])
def test_a_lost_head_is_made_again(path: Path, store: JsonlStore, lease: Lease, data: bytes | None) -> None:
    place = path / "r.head.json"
    place.unlink() if data is None else place.write_bytes(data)
    assert own(store, lease, 3) == Committed(3, 0)
    assert json.loads(place.read_bytes())["seq"] == 4


def test_a_run_that_was_deleted_and_made_again_is_another(
    path: Path, store: JsonlStore, lease: Lease, other: JsonlStore, create: Callable[..., Lease]
) -> None:
    assert own(other, lease, 3, then="closed", head=a_head()) == Committed(3, 0)
    assert other.delete("r", 0)
    fresh = create(other)
    assert fresh.fence == 2
    assert own(store, lease, 3) == Fenced(2)
    assert [a_start().type] == [json.loads(line)["type"] for line in (path / "r.0.jsonl").read_bytes().splitlines()]


@pytest.mark.parametrize("call", ["write", "fdatasync"])
def test_after_a_failure_the_journal_is_opened_anew(
    path: Path, store: JsonlStore, lease: Lease, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """A descriptor whose sync failed once is never asked again."""

    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "no")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fails)
        assert own(store, lease, 3) in (Unknown(), NotApplied())
    assert [] == open_files(path)
    assert own(store, lease, 3) == Committed(3, 0)


@pytest.mark.parametrize("key", ["tail", "lease", "size"])
def test_a_head_that_lacks_a_part_is_not_believed(path: Path, store: JsonlStore, lease: Lease, key: str) -> None:
    store.close()
    place = path / "r.head.json"
    row = json.loads(place.read_bytes())
    del row["crc"], row[key]
    text = json.dumps(row).encode()[:-1]
    place.write_bytes(b'%b, "crc": "%08x"}' % (text, zlib.crc32(text)))
    again = JsonlStore(path)
    head = again.head(lease.run_id)
    assert head is not None
    assert (3, None) == (head.seq, head.lease_until), "it is rebuilt from the journal"
    again.close()
