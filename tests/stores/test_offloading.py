"""Large payloads beside the store: nothing is lost, garbage is found, and what is missing is named."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from stepwell import CorruptHistoryError, Engine, InvalidInputError, StoreMisconfiguredError, StoreUnavailableError
from stepwell.store import Committed, Conflict, Created, HeadFilter, Lease, LeaseRequest, NotApplied, Store, envelope
from stepwell.testing.contract import a_head, a_record, a_start
from stepwell_stores.memory import MemoryStore
from stepwell_stores.sqlite import SqliteStore
from stepwell_stores.wrapping import DirectoryBlobs, EncryptedStore, MemoryBlobs
from stepwell_stores.wrapping.offloading import Collected, OffloadingStore, folder_of, run_of

from .wrapped_tools import CANARY, KEYS, engine_on, everything

LARGE = "x" * 1_000


class Trace(MemoryBlobs):
    """Blobs that can fail, or die, at a call."""

    def __init__(self) -> None:
        super().__init__()
        self.fails: BaseException | None = None
        self.deletes = True

    def put(self, name: str, data: bytes) -> None:
        if self.fails is not None:
            raise self.fails
        super().put(name, data)

    def delete(self, names: Sequence[str]) -> None:
        if not self.deletes:
            raise StoreUnavailableError("the blobs are away; try again")
        super().delete(names)

    @property
    def names(self) -> list[str]:
        return sorted(blob.name for blob in self.list())


@pytest.fixture
def blobs() -> Trace:
    return Trace()


@pytest.fixture
def inner() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def store(inner: MemoryStore, blobs: Trace) -> OffloadingStore:
    return OffloadingStore(inner, blobs, threshold=500)


def begun(store: Store, run_id: str = "r") -> Lease:
    made = store.create(run_id, [a_start()], head=a_head(), attempt_id="new", lease=LeaseRequest("me", 30))
    assert isinstance(made, Created)
    assert made.lease is not None
    return made.lease


def own(store: Store, seq: int, value: object = LARGE, run_id: str = "r", fence: int = 1, **options: Any) -> object:
    return store.append(run_id, 0, seq, [a_record(value)], attempt_id="own", fence=fence, **options)


def test_a_large_payload_lies_beside_the_store(store: OffloadingStore, inner: MemoryStore, blobs: Trace) -> None:
    begun(store)
    assert own(store, 1) == Committed(1, 0)
    assert own(store, 2, "small") == Committed(2, 0)
    lines = inner._runs["r"].histories[0]
    assert [envelope(line).type for line in lines] == ["start", "step+blob", "step"]
    (name,) = blobs.names
    assert name.startswith("run/r/0.1.")
    assert b'"blob":"%b","bytes":' % name.encode() in lines[1]
    assert LARGE.encode() not in lines[1]
    assert LARGE.encode() in (blobs.get(name) or b"")
    assert store.size().bytes > inner.size().bytes + 1_000


def test_its_blobs_go_with_a_run(store: OffloadingStore, blobs: Trace) -> None:
    for run_id in ("r", "other"):
        begun(store, run_id)
        own(store, 1, run_id=run_id)
    own(store, 2, head=a_head(status="completed"), then="closed")
    assert len(blobs.names) == 3
    assert store.delete("r", 0)
    (left,) = blobs.names
    assert left.startswith("run/other/")
    assert not store.delete("r", 0)


def test_a_run_that_takes_the_id_meanwhile_keeps_its_blobs(store: OffloadingStore, inner: MemoryStore) -> None:
    """The same payload at the same place, put between the delete of the run and that of its blobs."""
    begun(store)
    own(store, 1, head=a_head(status="completed"), then="closed")

    class Between(Trace):
        def delete(self, names: Sequence[str]) -> None:
            if inner.head("r") is None:
                lease = begun(store)
                assert own(store, 1, fence=lease.fence) == Committed(1, 0)
            super().delete(names)

    between = Between()
    between._blobs = store.blobs._blobs  # type: ignore[attr-defined]
    store.blobs = between
    assert store.delete("r", 0)
    tail = store.read("r")
    assert tail is not None
    assert LARGE.encode() in tail.records[1]


def test_a_run_that_is_about_to_take_the_id_keeps_what_it_has_put_already(store: OffloadingStore) -> None:
    begun(store)
    own(store, 1, head=a_head(status="completed"), then="closed")
    there = {blob.name for blob in store.blobs.list(folder_of("r"))}
    store._wrap("r", 0, 5, a_record(LARGE))  # its record follows once the old run is gone
    assert store.delete("r", 0)
    left = {blob.name for blob in store.blobs.list(folder_of("r"))}
    assert 1 == len(left - there) == len(left)


@pytest.mark.parametrize("where", ["put", "delete"])
def test_what_a_crash_leaves_is_collected_and_nothing_else(where: str, store: OffloadingStore, blobs: Trace) -> None:
    begun(store)
    own(store, 1)
    if where == "put":  # a blob without its record, whose place another record takes
        store._wrap("r", 0, 2, a_record(LARGE))
        assert store.collect(grace=-1) == Collected(0, 0, 2, 0), "its record may be under way"
        own(store, 2, "small")
        assert store.collect() == Collected(0, 0, 2, 0), "it is young"
        found = store.collect(grace=-1)
        assert (found.removed, found.kept) == (1, 1)
    else:
        own(store, 2, "end", head=a_head(status="completed"), then="closed")
        blobs.deletes = False
        assert store.delete("r", 0)
        blobs.deletes = True
        assert len(blobs.names) == 1
        assert store.collect() == Collected(0, 0, 1, 0)
        assert store.collect(grace=-1).removed == 1
        assert blobs.names == []
        return
    tail = store.read("r")
    assert tail is not None
    assert LARGE.encode() in tail.records[1]


def test_a_blob_for_a_closed_history_is_garbage_and_one_for_the_next_is_not(store: OffloadingStore) -> None:
    begun(store)
    own(store, 1, head=a_head(status="completed"), then="closed")
    for place in ((0, 1), (0, 2), (0, 7), (1, 0)):
        store._wrap("r", *place, a_record(LARGE))
    found = store.collect(grace=-1)
    assert (found.removed, found.kept) == (3, 2), "what names its place, and what the next history may name"


def test_every_incarnation_keeps_its_blobs(tmp_path: Path) -> None:
    """Of forks, retries and resets: each has blobs of its own."""
    blobs = DirectoryBlobs(tmp_path / "blobs")
    inner = SqliteStore(tmp_path / "runs.db")
    store = OffloadingStore(inner, blobs, threshold=100)
    with engine_on(store) as engine:
        engine.start(everything, CANARY, run_id="r")
        engine.fork("r", before=3, new_run_id="forked")
        engine.reset("r")
        engine.resume("r", "answer", "yes")
        engine.resume("forked", "answer", "no")
        before = store.collect(grace=-1)
        assert before.removed == 0
        engine.delete("r")
        assert engine.get("forked").result == f"{CANARY} no"
        assert not list(blobs.list(folder_of("r")))
        assert store.collect(grace=-1) == Collected(0, 0, len(list(blobs.list())), 0)
        problems = [part.problem for part in store.verify() if part.problem is not None]
        assert problems == []


def test_a_missing_blob_is_named(store: OffloadingStore, blobs: Trace) -> None:
    begun(store)
    own(store, 1)
    (name,) = blobs.names
    blobs.delete([name])
    with pytest.raises(CorruptHistoryError) as raised:
        store.read("r")
    assert "run 'r', incarnation 0, event 1" in raised.value.message
    assert name in raised.value.message
    assert raised.value.seq == 1
    (part,) = store.verify()
    assert isinstance(part.problem, CorruptHistoryError)
    assert len(part.records) == 1


@pytest.mark.parametrize("data", [b"", b"short", b"y" * 1_060])
def test_a_blob_that_is_another_one_is_not_believed(data: bytes, store: OffloadingStore, blobs: Trace) -> None:
    begun(store)
    own(store, 1)
    (name,) = blobs.names
    blobs._blobs[name] = (data, 0)
    with pytest.raises(CorruptHistoryError, match="is not what was written"):
        store.read("r")


def test_blobs_that_are_away_are_an_outcome_of_the_write(store: OffloadingStore, blobs: Trace) -> None:
    """Nothing was written, for certain: the engine tries again."""
    begun(store)
    blobs.fails = StoreUnavailableError("the blobs are away; try again")
    assert own(store, 1) == NotApplied()
    assert store.append("r", None, None, [a_record(LARGE)], attempt_id="out") == NotApplied()
    large = [a_record(LARGE)]
    assert store.create("s", large, head=a_head(), attempt_id="a") == NotApplied()
    blobs.fails = None
    assert own(store, 1, "end", head=a_head(status="completed"), then="closed") == Committed(1, 0)
    blobs.fails = StoreUnavailableError("the blobs are away; try again")
    assert store.open_incarnation("r", 1, large, head=a_head(), attempt_id="n") == NotApplied()
    assert store.collect(grace=-1) == Collected()


def test_a_refused_append_leaves_garbage_alone(store: OffloadingStore, blobs: Trace) -> None:
    begun(store)
    own(store, 1)
    assert own(store, 1, "y" * 1_000) == Conflict(2, 0)
    assert len(blobs.names) == 2
    assert store.collect(grace=-1).removed == 1


def test_what_nobody_knows_is_left_alone(store: OffloadingStore, blobs: Trace) -> None:
    for name in ("notes.txt", "run/r/readme", "other/r/0.1.ab", "hex/zz/0.1.ab", "run/=e4/0.1.ab"):
        blobs.put(name, b"mine")
    blobs.put("run/r/.tmp-0123", b"unfinished")
    found = store.collect(grace=-1)
    assert (found.removed, found.unknown) == (1, 5)


@pytest.mark.parametrize("run_id", ["r", "R", "orders/12", "é", "..", "con", "x" * 300, "🙂" * 200, "a b"])
def test_the_folder_of_a_run_tells_its_id(run_id: str) -> None:
    assert run_of(folder_of(run_id)) == run_id
    assert all(len(part) <= 200 for part in folder_of(run_id).split("/"))


def test_encryption_goes_around_it_and_not_inside() -> None:
    with pytest.raises(StoreMisconfiguredError, match="the blobs would not be encrypted"):
        OffloadingStore(EncryptedStore(MemoryStore(), KEYS), MemoryBlobs())
    with pytest.raises(StoreMisconfiguredError, match="wrap it once"):
        OffloadingStore(OffloadingStore(MemoryStore(), MemoryBlobs()), MemoryBlobs())
    with pytest.raises(InvalidInputError, match="threshold"):
        OffloadingStore(MemoryStore(), MemoryBlobs(), threshold=0)


def test_encrypted_blobs_hold_no_payload(tmp_path: Path) -> None:
    blobs = Trace()
    store = EncryptedStore(OffloadingStore(MemoryStore(), blobs, threshold=200), KEYS)
    engine_on(store).start(everything, CANARY * 50, run_id="r")
    assert blobs.names
    assert not any(CANARY.encode() in (blobs.get(name) or b"") for name in blobs.names)


def test_a_reader_without_it_is_told_so(store: OffloadingStore, inner: MemoryStore) -> None:
    engine_on(store).start(everything, LARGE, run_id="r")
    with pytest.raises(StoreMisconfiguredError, match="has its payload elsewhere; name the store as offloaded"):
        Engine(inner).history("r")


DRIVE = """
import sys
from stepwell_stores.wrapping import DirectoryBlobs
from stepwell_stores.wrapping import OffloadingStore
from stepwell_stores.sqlite import SqliteStore
from tests.stores.wrapped_tools import engine_on, everything
store = OffloadingStore(SqliteStore(sys.argv[1] + "/runs.db"), DirectoryBlobs(sys.argv[1] + "/blobs"), threshold=100)
engine = engine_on(store)
for number in range(int(sys.argv[2]), 10_000):
    engine.start(everything, f"{number} " * 100, run_id=f"r{number}")
    engine.resume(f"r{number}", "answer", "yes").unwrap()
    if number % 2:
        engine.delete(f"r{number}")
    print(number, flush=True)
"""


def test_killed_at_any_moment_nothing_is_lost(tmp_path: Path, python: Callable[..., subprocess.Popen[str]]) -> None:
    """SIGKILL while runs are driven and removed: every record finds its payload, and the rest is collected."""
    first = 0
    for moment in range(6):
        process = python(DRIVE, str(tmp_path), str(first))
        assert process.stdout is not None
        first = int(process.stdout.readline()) + 100
        for _ in range(moment):
            process.stdout.readline()
        process.kill()
        process.wait()
    blobs = DirectoryBlobs(tmp_path / "blobs")
    store = OffloadingStore(SqliteStore(tmp_path / "runs.db"), blobs, threshold=100)
    assert [part.problem for part in store.verify() if part.problem is not None] == []
    store.collect(grace=-1)
    named = set[str]()
    for run in store.inner.heads(HeadFilter(), limit=10_000):
        tail = store.inner.read(run.run_id)
        assert tail is not None
        named |= {line.partition(b'"blob":"')[2].partition(b'"')[0].decode() for line in tail.records} - {""}
    there = {blob.name for blob in blobs.list()}
    assert named <= there
    extra = {name.rpartition("/")[0] for name in there - named}
    assert len(extra) <= 6, "but for what may still be under way"
    store.close()
