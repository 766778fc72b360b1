"""Histories of the JSONL store page by page: each record is checked once, wherever the pages end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from stepwell import sealing
from stepwell.errors import CorruptHistoryError
from stepwell.store import Committed, Created, Draft, Lease, Tail, seal
from stepwell.testing.contract import a_head, a_record, a_start
from stepwell_stores.jsonl import JsonlStore
from stepwell_stores.jsonl import pages as jsonl_pages
from stepwell_stores.jsonl.journal import find_attempt

COUNT = 400


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def store(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JsonlStore]:
    monkeypatch.setattr(jsonl_pages, "_CHUNK", 1000)
    store = JsonlStore(path, sync="off")
    yield store
    store.close()


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the records that are checked."""
    numbers: list[int] = []
    real = vars(sealing)["first_broken"]

    def counting(lines: Sequence[bytes], seq: int) -> int | None:
        numbers.extend(range(seq, seq + len(lines)))
        broken: int | None = real(lines, seq)
        return broken

    monkeypatch.setattr(sealing, "first_broken", counting)
    return numbers


def fill(store: JsonlStore, lease: Lease, count: int = COUNT) -> list[bytes]:
    """Bring a history to `count` records, some of them larger than a chunk."""
    for seq in range(lease.seq, count):
        value = "x" * (2500 if seq % 50 == 7 else 10)
        done = store.append("r", 0, seq, [a_record(value)], attempt_id="a", head=a_head(), fence=lease.fence)
        assert done == Committed(seq, 0)
    tail = store.read("r")
    assert tail is not None
    assert len(tail.records) == count
    return tail.records


def pages(store: JsonlStore, limit: int, *, start: int = 0, incarnation: int | None = None) -> list[Tail]:
    found: list[Tail] = []
    more, seq = True, start
    while more:
        tail = store.read("r", seq, incarnation=incarnation, limit=limit)
        assert tail is not None
        assert tail.from_seq == seq
        found.append(tail)
        more, seq = tail.more, tail.seq
    return found


@pytest.mark.parametrize("limit", [1, 7, 50, COUNT - 1, COUNT, COUNT + 1])
def test_each_record_is_checked_once(
    store: JsonlStore, create: Callable[..., Lease], checked: list[int], limit: int
) -> None:
    lines = fill(store, create(store))
    checked.clear()
    found = pages(store, limit)
    assert lines == [line for page in found for line in page.records]
    assert [len(page.records) for page in found[:-1]] == [limit] * (len(found) - 1)
    assert list(range(COUNT)) == checked


def test_a_page_does_not_read_the_whole_file(
    path: Path, store: JsonlStore, create: Callable[..., Lease], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, create(store))
    store.read("r", 0, limit=200)
    journal = path / "r.0.jsonl"
    sizes: list[int] = []
    real = os.read

    def reading(fd: int, size: int) -> bytes:
        data = real(fd, size)
        if Path(f"/proc/self/fd/{fd}").readlink() == journal:
            sizes.append(len(data))
        return data

    monkeypatch.setattr(os, "read", reading)
    assert store.read("r", 200, limit=3) is not None
    assert sum(sizes) <= 2000


def test_a_page_that_begins_anywhere(store: JsonlStore, create: Callable[..., Lease]) -> None:
    lines = fill(store, create(store))
    for seq in (399, 1, 57, 58, 200):
        tail = store.read("r", seq, limit=60)
        assert tail is not None
        assert (seq, lines[seq : seq + 60], seq + 60 < COUNT) == (tail.from_seq, tail.records, tail.more)
    assert store.read("r", 5, limit=0) == Tail(0, 5, [], False, more=True)
    assert store.read("r", COUNT + 5, limit=2) == Tail(0, COUNT, [], False)


def test_what_comes_in_between_is_in_a_later_page(store: JsonlStore, create: Callable[..., Lease]) -> None:
    lease = create(store)
    lines = fill(store, lease, 100)
    first = store.read("r", 0, limit=100)
    assert first is not None
    assert (lines, False) == (first.records, first.more)
    half = store.read("r", 0, limit=60)
    assert half is not None
    store.append("r", 0, 100, [a_record("new")], attempt_id="a", fence=lease.fence)
    rest = store.read("r", half.seq, limit=60)
    assert rest is not None
    assert lines[60:] == rest.records[:-1]
    assert rest.seq == 101


def test_an_owner_reads_only_what_others_wrote(
    path: Path, store: JsonlStore, create: Callable[..., Lease], checked: list[int]
) -> None:
    fill(store, create(store), 50)
    store.append("r", 0, 50, [a_record("mine")], attempt_id="a", fence=1)
    with_others = JsonlStore(path, sync="off")
    assert Committed(51, 0) == with_others.append("r", None, None, [a_record("theirs")], attempt_id="out")
    with_others.close()
    checked.clear()
    tail = store.read("r", 51)
    assert tail is not None
    assert tail.seq == 52
    assert [51] == checked


def test_pages_of_an_older_incarnation(
    store: JsonlStore, create: Callable[..., Lease], checked: list[int], path: Path
) -> None:
    lease = create(store)
    fill(store, lease, 99)
    store.append("r", 0, 99, [a_record(kind="complete")], attempt_id="a", head=a_head(), fence=1, then="closed")
    store.open_incarnation("r", 1, [a_start()], head=a_head(), attempt_id="b")
    whole = store.read("r", incarnation=0)
    assert whole is not None
    for limit in (10, 33, 100, 101):
        checked.clear()
        found = pages(store, limit, incarnation=0)
        assert whole.records == [line for page in found for line in page.records]
        assert list(range(100)) == checked
        assert all(page.closed for page in found)
    assert store.read("r", 170, incarnation=0, limit=5) == Tail(0, 100, [], True)
    with (path / "r.0.jsonl").open("ab") as file:
        file.write(b"torn")
    assert [whole.records[:50], whole.records[50:]] == [page.records for page in pages(store, 50, incarnation=0)]
    (path / "r.0.jsonl").write_bytes(b"".join(line + b"\n" for line in whole.records[:-1]))
    with pytest.raises(CorruptHistoryError, match="not closed"):
        pages(store, 50, incarnation=0)
    (path / "r.0.jsonl").unlink()
    with pytest.raises(CorruptHistoryError, match="not closed"):
        pages(store, 50, incarnation=0)


def test_damage_in_a_page_is_named(path: Path, store: JsonlStore, create: Callable[..., Lease]) -> None:
    lines = fill(store, create(store), 100)
    assert store.read("r", 0, limit=50) is not None
    journal = path / "r.0.jsonl"
    damaged = [*lines[:70], lines[70].replace(b"xxx", b"xyx"), *lines[71:]]
    journal.write_bytes(b"".join(line + b"\n" for line in damaged))
    at = sum(len(line) + 1 for line in lines[:70])
    with pytest.raises(CorruptHistoryError, match=f"line 71, byte {at}: the checksum") as caught:
        store.read("r", 50, limit=50)
    assert (70, at) == (caught.value.seq, caught.value.byte)
    assert store.read("r", 0, limit=70) is not None


@pytest.mark.parametrize("text", ["", "other"])
def test_another_journal_under_the_same_name_is_read_from_its_beginning(
    path: Path, store: JsonlStore, create: Callable[..., Lease], text: str
) -> None:
    """Where a page began in a run that is gone says nothing of the next run of its id."""
    fill(store, create(store), 60)
    assert store.read("r", 0, limit=30) is not None
    store.append("r", 0, 60, [a_record(kind="complete")], attempt_id="a", head=a_head(), fence=1, then="closed")
    assert store.delete("r", 0)
    more: Any = [a_record(text * (i % 5 + 1)) for i in range(35)]
    assert isinstance(store.create("r", [a_start(), *more], head=a_head(), attempt_id="new"), Created)
    assert (path / "r.0.jsonl").exists()
    tail, whole = store.read("r", 30, limit=3), store.read("r")
    assert tail is not None
    assert whole is not None
    assert whole.records[30:33] == tail.records


@pytest.mark.parametrize("size", [1, 7, 100, 1000, 1 << 20])
def test_an_attempt_is_found_in_pieces_of_any_size(size: int) -> None:
    lines = [
        seal([Draft("resume", b'"value":%d' % number)], session=1, offset=number, attempt_id=f"a-{number}")[0]
        for number in range(50)
    ]
    data = b"\n".join(lines) + b"\n"
    for end in (len(data), len(data) - 1):  # with and without its last newline
        parts = [data[start : start + size] for start in range(0, end, size)]
        assert [*range(50)] == [find_attempt(parts, f"a-{number}", "") for number in range(50)]
        assert find_attempt(parts, "a-50", "") is None
