"""The JSONL store and its files: names, permissions, torn tails, damage, lost heads, and errors of the disk."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stepwell.errors import CorruptHistoryError, NewerFormatError, StoreError, StoreMisconfiguredError
from stepwell.store import (
    AlreadyCommitted,
    Committed,
    Created,
    Draft,
    HeadFilter,
    Lease,
    NotApplied,
    RunHead,
    Unknown,
    seal,
)
from stepwell.testing.contract import a_head, a_record, a_start
from stepwell_stores.file_names import encode
from stepwell_stores.jsonl import JsonlStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def store(path: Path) -> Iterator[JsonlStore]:
    store = JsonlStore(path)
    yield store
    store.close()


@pytest.fixture
def journal(path: Path, store: JsonlStore, create: Callable[..., Lease]) -> Path:
    """The journal of an open run "r" of three records, whose store is closed."""
    create(store)
    store.append("r", 0, 1, [a_record("one"), a_record("two")], attempt_id="a", head=a_head(), fence=1)
    store.close()
    return path / "r.0.jsonl"


def lines_of(store: JsonlStore, run_id: str = "r") -> list[bytes]:
    tail = store.read(run_id)
    assert tail is not None
    return tail.records


def head_of(store: JsonlStore, run_id: str = "r") -> RunHead:
    head = store.head(run_id)
    assert head is not None
    return head


THREE = seal([a_start()], session=1, offset=0, attempt_id="new") + seal(
    [a_record("one"), a_record("two")], session=1, offset=1
)
NEXT = seal([a_record("three")], session=1, offset=3)[0]
BATCH = seal([a_record("three"), a_record("four")], session=1, offset=3)
AFTER = seal([a_record("four")], session=1, offset=4)[0]


def holed(data: bytes, start: int, stop: int) -> bytes:
    """What is left when a part never reached the disk."""
    return data[:start] + b"\0" * (stop - start) + data[stop:]


def test_a_journal_is_plain_lines(journal: Path) -> None:
    assert journal.read_bytes() == b"".join(line + b"\n" for line in THREE)


def test_files_are_private_under_any_umask(path: Path, create: Callable[..., Lease]) -> None:
    old = os.umask(0)
    try:
        store = JsonlStore(path)
        store.release(create(store))
        store.claim("r", "me", 30)
        store.close()
        kinds = {p: stat.S_IMODE(p.stat().st_mode) for p in [path, *path.rglob("*")]}
        assert {0o700} == {mode for p, mode in kinds.items() if p.is_dir()}
        assert {0o600} == {mode for p, mode in kinds.items() if not p.is_dir()}
        assert {"r.0.jsonl", "r.fence", "r.head.json"} < {p.name for p in kinds}
    finally:
        os.umask(old)


def test_nothing_is_written_outside_the_directory(path: Path, store: JsonlStore) -> None:
    for run_id in ("../out", "/etc/x", "..", "a/b", "x" * 900):
        store.create(run_id, [a_start()], head=a_head(), attempt_id="a")
        assert (path / f"{encode(run_id)}.0.jsonl").is_file()
    assert [path] == list(path.parent.iterdir())


def test_a_hashed_name_keeps_its_id(path: Path, store: JsonlStore) -> None:
    run_id = "ä" * 400
    store.create(run_id, [a_start()], head=a_head(), attempt_id="a")
    (path / f"{encode(run_id)}.head.json").unlink()
    assert [run_id] == [head.run_id for head in store.heads(HeadFilter(), limit=5)]


def test_a_link_is_no_journal(path: Path, store: JsonlStore) -> None:
    store.head("r")
    target = path.parent / "target"
    target.write_bytes(THREE[0] + b"\n")
    (path / "r.0.jsonl").symlink_to(target)
    with pytest.raises(CorruptHistoryError, match=r"r\.0\.jsonl: is no file but a link"):
        store.read("r")
    assert THREE[0] + b"\n" == target.read_bytes()


def test_a_file_is_no_directory(path: Path) -> None:
    path.write_text("hello")
    with pytest.raises(StoreMisconfiguredError, match="no directory"):
        JsonlStore(path).head("r")
    assert path.read_text() == "hello"


def test_other_line_ends_are_data(store: JsonlStore) -> None:
    odd = Draft("step", '"result":"a\u2028b\u2029c\x85d\x0be\x0cf\\r"'.encode() + b',"raw":"\r"')
    store.create("r", [a_start(), odd], head=a_head(), attempt_id="a")
    assert lines_of(store) == seal([a_start(), odd], session=1, offset=0, attempt_id="a")
    store.close()


@pytest.mark.parametrize(
    "torn",
    [
        NEXT[:1],
        NEXT[:50],
        NEXT[:-1],
        b"\0",
        b"\0" * 4096,
        NEXT[:50] + b"\0" * 100,
        b"no record at all",
        BATCH[0] + b"\n",
        BATCH[0],
        BATCH[0] + b"\n" + BATCH[1][:20],
        b"\0" * 50 + b"\n",
        holed(NEXT, 10, 40) + b"\n",
        b"\0" * (len(BATCH[0]) + 1) + BATCH[1] + b"\n",
        holed(BATCH[0], 30, 50) + b"\n" + BATCH[1] + b"\n",
        BATCH[0] + b"\n" + holed(BATCH[1], 30, 50) + b"\n",
        holed(BATCH[0] + b"\n" + BATCH[1], 20, len(BATCH[0]) + 20) + b"\n",
    ],
    ids=[
        *("byte", "half", "brace", "nul", "nuls", "half-nuls", "text", "half-batch", "half-batch-bare", "batch-torn"),
        *("nul-line", "hole", "batch-first-gone", "batch-first-holed", "batch-last-holed", "batch-joined"),
    ],
)
def test_a_torn_tail_is_moved_aside(path: Path, journal: Path, torn: bytes) -> None:
    """Shows S9 (P1)."""
    whole = journal.read_bytes()
    journal.write_bytes(whole + torn)
    store = JsonlStore(path)
    assert lines_of(store) == THREE, "readers see what was whole"
    assert journal.read_bytes() == whole + torn, "and change nothing"
    assert store.append("r", 0, 3, [a_record("three")], attempt_id="a", fence=1) == Committed(3, 0)
    assert lines_of(store) == [*THREE, NEXT]
    assert (path / "r.0.jsonl.torn").read_bytes() == torn
    assert journal.read_bytes() == whole + NEXT + b"\n"
    store.close()


def test_a_record_that_lacks_its_newline_is_kept(path: Path, journal: Path) -> None:
    """Shows S10 (P1)."""
    whole = journal.read_bytes()
    journal.write_bytes(whole + NEXT)
    store = JsonlStore(path)
    assert lines_of(store) == [*THREE, NEXT]
    assert head_of(store).seq == 4
    assert store.append("r", 0, 3, [a_record("three")], attempt_id="a", fence=1) == AlreadyCommitted(3, 0)
    assert journal.read_bytes() == whole + NEXT + b"\n"
    assert store.append("r", 0, 4, [a_record("four")], attempt_id="a", fence=1) == Committed(4, 0)
    assert not (path / "r.0.jsonl.torn").exists()
    store.close()


@pytest.mark.parametrize(
    ("change", "line", "words"),
    [
        (lambda data: data.replace(b'"one"', b'"uno"'), 2, "checksum"),
        (lambda data: data.replace(b"\n", b"", 1), 1, ""),
        (lambda data: b"\n" + data, 1, "not a history record"),
        (lambda data: data + b"\n", 4, "not a history record"),
        (lambda data: data + b"junk\n", 4, "not a history record"),
        (lambda data: holed(data, len(THREE[0]) + 30, len(THREE[0]) + 50), 2, "checksum"),
        (lambda data: holed(data, len(data) - 30, len(data) - 20), 3, "checksum"),
        (lambda data: data + holed(NEXT, 60, 80) + b"\n" + AFTER + b"\nrest", 4, "checksum"),
        (lambda data: data + b"\0" * len(NEXT) + b"\n" + AFTER + b"\n" + AFTER + b"\n", 4, "not a history record"),
        (lambda data: data + THREE[1] + b"\n", 4, "another record"),
        (lambda data: THREE[0] + b"\n" + THREE[2] + b"\n" + THREE[1] + b"\n", 2, "another record"),
    ],
    ids=[
        *("changed", "joined", "empty-line", "empty-end", "junk", "nuls", "nuls-at-end", "nuls-before", "nul-line"),
        *("repeated", "swapped"),
    ],
)
def test_damage_is_named(path: Path, journal: Path, change: Callable[[bytes], bytes], line: int, words: str) -> None:
    damaged = change(journal.read_bytes())
    journal.write_bytes(damaged)
    store = JsonlStore(path)
    with pytest.raises(CorruptHistoryError) as caught:
        store.read("r")
    if len(damaged) < sum(len(record) + 1 for record in THREE):
        words, line = "acknowledged", 0
    assert words in str(caught.value)
    assert str(journal) in str(caught.value)
    assert line == 0 or f"line {line}, byte" in str(caught.value)
    assert caught.value.byte >= 0
    store.close()


def test_a_newer_format_is_told(path: Path, journal: Path) -> None:
    journal.write_bytes(journal.read_bytes() + b'{"v":2,"type":"x"}\n')
    store = JsonlStore(path)
    with pytest.raises(NewerFormatError, match="upgrade stepwell"):
        store.read("r")
    store.close()


def test_a_journal_shorter_than_acknowledged_is_corrupt(path: Path, journal: Path) -> None:
    """A cut at a line's end can't be seen in the file itself."""
    journal.write_bytes(THREE[0] + b"\n")
    store = JsonlStore(path)
    with pytest.raises(CorruptHistoryError, match="acknowledged"):
        store.head("r")
    store.close()


@pytest.mark.parametrize("damage", ["junk", "directory"])
def test_one_damaged_run_does_not_stop_the_others(path: Path, journal: Path, damage: str) -> None:
    if damage == "junk":
        journal.write_bytes(journal.read_bytes() + b"junk\n")
    else:
        journal.unlink()
        (path / "r.head.json").unlink()
        journal.mkdir()
    store = JsonlStore(path)
    store.create("good", [a_start()], head=a_head(due=5), attempt_id="a")
    assert store.next_due() == 5
    assert ["good"] == [lease.run_id for lease in store.claim_due("w", 30, now=9, limit=9)]
    with pytest.raises(CorruptHistoryError):
        store.heads(HeadFilter(), limit=9)
    assert [str(journal)] == [part.place for part in store.verify() if part.problem is not None]
    store.close()


@pytest.mark.parametrize("head", [None, b"", b"\0" * 40, b"[]", b"{", b'{"runId":"other"}'])
def test_a_lost_head_is_rebuilt_from_the_history(path: Path, journal: Path, head: bytes | None) -> None:
    place = path / "r.head.json"
    place.unlink() if head is None else place.write_bytes(head)
    store = JsonlStore(path)
    found = head_of(store)
    assert ("r", 0, 3, 1, False, None) == (
        found.run_id,
        found.incarnation,
        found.seq,
        found.fence,
        found.closed,
        found.lease_until,
    )
    assert ("pending", "triage", "1") == (found.head.status, found.head.workflow, found.head.version)
    assert found.head.created == 1_700_000_000_000_000
    assert found.head.due == found.head.updated == 1_700_000_001_000_000
    assert ["r"] == [lease.run_id for lease in store.claim_due("w", 30, now=found.head.updated, limit=9)]
    store.close()


@pytest.mark.parametrize(
    ("kind", "status"), [("complete", "completed"), ("error", "failed"), ("cancelled", "cancelled")]
)
def test_a_closed_run_is_known_by_its_last_record(
    path: Path, store: JsonlStore, create: Callable[..., Lease], kind: str, status: str
) -> None:
    create(store)
    store.append("r", 0, 1, [a_record(kind=kind)], attempt_id="a", head=a_head(), fence=1, then="closed")
    (path / "r.head.json").unlink()
    found = head_of(store)
    assert (True, status, None) == (found.closed, found.head.status, found.head.due)
    assert store.claim("r", "me", 30) == found


def test_a_head_that_is_behind_counts_as_due(path: Path, journal: Path) -> None:
    """A crash came between record and head; what never changes is still known."""
    store = JsonlStore(path)
    head = a_head(status="suspended", due=None, tags={"a": "b"}, version="7")
    store.append("r", 0, 3, [], attempt_id="a", head=head, fence=1)
    journal.write_bytes(journal.read_bytes() + NEXT + b"\n")
    found = head_of(store)
    assert (4, "pending", "7", {"a": "b"}) == (found.seq, found.head.status, found.head.version, found.head.tags)
    assert store.next_due() is not None
    store.close()


def test_fences_survive_the_loss_of_the_head(path: Path, store: JsonlStore) -> None:
    store.create("r", [a_start()], head=a_head(), attempt_id="a")
    for fence in (2, 3):
        lease = store.claim("r", "me", 30)
        assert isinstance(lease, Lease)
        assert fence == lease.fence
        store.release(lease)
    (path / "r.head.json").unlink()
    assert 3 == head_of(store).fence
    lease = store.claim("r", "me", 30)
    assert isinstance(lease, Lease)
    assert 4 == lease.fence


def test_a_fence_is_never_below_the_journal(path: Path, store: JsonlStore, create: Callable[..., Lease]) -> None:
    store.release(create(store))
    lease = store.claim("r", "me", 30)
    assert isinstance(lease, Lease)
    store.append("r", 0, 1, [a_record()], attempt_id="a", fence=lease.fence)
    (path / "r.fence").unlink()
    (path / "r.head.json").unlink()
    assert 2 == head_of(store).fence


def test_a_damaged_fence_is_named(path: Path, store: JsonlStore, create: Callable[..., Lease]) -> None:
    store.release(create(store))
    store.claim("r", "me", 30)
    (path / "r.fence").write_bytes(b"")
    with pytest.raises(CorruptHistoryError, match=r"r\.fence"):
        store.head("r")


def test_a_delete_that_was_cut_short_is_a_delete(path: Path, store: JsonlStore, create: Callable[..., Lease]) -> None:
    """The tombstone comes first; what is left of the files is never taken for the next run's."""
    create(store)
    store.append("r", 0, 1, [a_record(kind="complete")], attempt_id="a", head=a_head(), fence=1, then="closed")
    left = {name: (path / name).read_bytes() for name in ("r.0.jsonl", "r.head.json")}
    assert store.delete("r", 0)
    for name, data in {**left, "r.1.jsonl": left["r.0.jsonl"]}.items():
        (path / name).write_bytes(data)
    assert store.head("r") is None
    assert [] == store.heads(HeadFilter(), limit=5)
    assert create(store).fence == 2
    assert not (path / "r.1.jsonl").exists()
    assert 0 == head_of(store).incarnation


class Faults:
    """Makes the n-th call of one function of `os` fail, once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, number: int, at: int = 1, short: int = 0) -> None:
        real, self.left, self.fired = getattr(os, name), at, False

        def call(*values: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                self.fired = True
                if short:
                    real(values[0], values[1][:short])
                raise OSError(number, os.strerror(number))
            return real(*values, **options)

        monkeypatch.setattr(os, name, call)


def test_what_a_dead_writer_did_not_sync_is_synced_before_anybody_reads_it(
    path: Path, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers act on what they read as well; a record whose writer died before its sync is only in the page cache."""
    line = seal([a_record("late", "resume")], session=1, offset=3, attempt_id="z")[0] + b"\n"
    with journal.open("ab") as file:
        file.write(line)
    synced: list[str] = []
    fdatasync = os.fdatasync

    def watched(fd: int) -> None:
        fdatasync(fd)
        synced.append(str(Path(f"/proc/self/fd/{fd}").readlink()))

    monkeypatch.setattr(os, "fdatasync", watched)
    reader = JsonlStore(path)
    tail = reader.read("r")
    assert tail is not None
    assert line == tail.records[3] + b"\n"
    assert [str(journal)] == synced
    assert tail == reader.read("r")
    assert [str(journal)] == synced, "once is enough: the head knows it now"
    reader.close()


def test_sync_can_be_left_to_the_system(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then no call waits for the disk, and the store says so."""

    def never(fd: int) -> None:
        raise AssertionError("nobody asked for it")

    monkeypatch.setattr(os, "fdatasync", never)
    monkeypatch.setattr(os, "fsync", never)
    store = JsonlStore(path, sync="off")
    made = store.create("r", [a_start()], head=a_head(), attempt_id="a")
    assert isinstance(made, Created)
    assert isinstance(store.append("r", None, None, [a_record()], attempt_id="b"), Committed)
    assert isinstance(store.claim("r", "me", 30), Lease)
    assert ("off", False, True) == (
        store.durability.settings["sync"],
        store.durability.power_loss,
        store.durability.process_crash,
    )
    store.close()


def test_a_full_disk_is_not_applied(
    path: Path, store: JsonlStore, create: Callable[..., Lease], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a record was written, and is cut off again."""
    create(store)
    before = (path / "r.0.jsonl").read_bytes()
    faults = Faults(monkeypatch, "write", errno.ENOSPC, short=20)
    assert NotApplied() == store.append("r", 0, 1, [a_record()], attempt_id="a", fence=1)
    assert faults.fired
    assert before == (path / "r.0.jsonl").read_bytes()
    assert Committed(1, 0) == store.append("r", 0, 1, [a_record()], attempt_id="a", fence=1)


def test_a_failed_sync_is_unknown(
    path: Path, store: JsonlStore, create: Callable[..., Lease], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel may have dropped the bytes; nobody trusts them, and the same attempt settles it."""
    create(store)
    store.append("r", 0, 1, [a_record()], attempt_id="a", fence=1)
    faults = Faults(monkeypatch, "fdatasync", errno.EIO)
    assert Unknown() == store.append("r", 0, 2, [a_record()], attempt_id="b", fence=1)
    assert faults.fired
    assert 2 == head_of(store).seq
    assert Committed(2, 0) == store.append("r", 0, 2, [a_record()], attempt_id="b", fence=1)
    assert AlreadyCommitted(2, 0) == store.append("r", 0, 2, [a_record()], attempt_id="b", fence=1)


def test_an_append_that_can_not_be_undone_is_unknown_and_then_found(
    path: Path, store: JsonlStore, create: Callable[..., Lease], monkeypatch: pytest.MonkeyPatch
) -> None:
    create(store)
    Faults(monkeypatch, "fdatasync", errno.EIO)
    Faults(monkeypatch, "ftruncate", errno.EIO)
    assert Unknown() == store.append("r", 0, 1, [a_record()], attempt_id="a", fence=1)
    assert AlreadyCommitted(1, 0) == store.append("r", 0, 1, [a_record()], attempt_id="a", fence=1)
    assert Committed(2, 0) == store.append("r", 0, 2, [a_record()], attempt_id="a", fence=1)


CALLS = [
    *("open", "write", "fsync", "fdatasync", "replace", "fchmod", "unlink", "stat", "read", "close", "ftruncate"),
    *("pread", "fstat", "lseek"),
]


@pytest.mark.parametrize("name", CALLS)
def test_no_failing_call_breaks_a_run(
    path: Path, create: Callable[..., Lease], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Fail each call in turn through a whole life: what was acknowledged stays, and the run goes on afterwards."""
    for at in range(1, 200):
        store = JsonlStore(path)
        run_id = f"{name}-{at}"
        store.head(run_id)
        with monkeypatch.context() as patch:
            faults = Faults(patch, name, errno.EIO, at=at)
            acknowledged = _live(store, run_id)
        store.close()
        store = JsonlStore(path)
        assert acknowledged == lines_of(store, run_id)[: len(acknowledged)] if acknowledged else True
        if not faults.fired:
            break
        head = store.head(run_id)
        if head is not None and not head.closed:
            lease = store.claim(run_id, "you", 30)
            assert isinstance(lease, Lease)
            assert Committed(lease.seq, 0) == store.append(
                run_id, 0, lease.seq, [a_record()], attempt_id="z", fence=lease.fence
            )
        store.close()
    else:
        pytest.fail("the fault never ran out of calls")
    store.close()


def _live(store: JsonlStore, run_id: str) -> list[bytes]:
    """Create, claim, append and close; gives the records that were acknowledged."""
    known: list[bytes] = []
    try:
        made = store.create(run_id, [a_start()], head=a_head(), attempt_id="new")
        if not isinstance(made, Created):
            return known
        known += seal([a_start()], session=1, offset=0, attempt_id="new")
        lease = store.claim(run_id, "me", 30)
        if not isinstance(lease, Lease):
            return known
        for value in range(3):
            then = "closed" if value == 2 else "open"
            seq, records = len(known), [a_record(value)]
            outcome = store.append(
                run_id,
                0,
                seq,
                records,
                attempt_id="a",
                head=a_head(),
                fence=lease.fence,
                then=then,  # type: ignore[arg-type]
            )
            if not isinstance(outcome, Committed):
                return known
            known += seal(records, session=lease.fence, offset=seq, then=then)  # type: ignore[arg-type]
    except StoreError:
        pass
    return known
