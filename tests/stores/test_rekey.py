"""An encrypted store under another key, in its place: whole, verified, killed anywhere, and while others use it."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stepwell import CorruptHistoryError, Engine, StoreMisconfiguredError
from stepwell.store import HeadFilter, Store
from stepwell_stores.memory import MemoryStore
from stepwell_stores.sqlite import SqliteStore
from stepwell_stores.wrapping import DirectoryBlobs, EncryptedStore, KeyRing, OffloadingStore, Rekeyed

from .wrapped_tools import CANARY, KEYS, KINDS, ROTATED, bytes_of, engine_on, everything, failing, forged, make

NEW = {"k2": ROTATED["k2"]}


def filled(store: Store, *, tags: bool = True) -> Engine:
    """Open runs, closed ones, one of three incarnations, one that is blocked."""
    engine = engine_on(store)
    for number in range(4):
        engine.start(everything, f"{CANARY} {number}", run_id=f"r{number}", tags={"n": str(number)} if tags else {})
    engine.resume("r0", "answer", "yes")
    engine.start(failing, CANARY, run_id="failed")
    engine.retry("failed")
    engine.reset("failed")
    return engine


def histories(store: Store) -> dict[tuple[str, int], list[bytes]]:
    """Every record, as a reader has it."""
    found = {}
    for run in store.heads(HeadFilter(), limit=99):
        for number in range(run.incarnation + 1):
            tail = store.read(run.run_id, incarnation=number)
            assert tail is not None
            found[run.run_id, number] = tail.records
    return found


def labels(inner: Store) -> set[bytes]:
    """Under which keys records are."""
    return {line.partition(b'"enc":"')[2][:2] for lines in histories(inner).values() for line in lines}


@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_under_the_current_key_and_says_the_same(kind: str, tmp_path: Path) -> None:
    inner = make(kind, tmp_path)
    filled(EncryptedStore(inner, KEYS))
    rotated = EncryptedStore(inner, ROTATED)
    before, heads = histories(rotated), rotated.heads(HeadFilter(), limit=99)
    *_, done = rotated.rekey()
    assert isinstance(done, Rekeyed)
    assert (done.key, done.runs, done.rewritten, done.records, done.heads, done.share, done.passes) == (
        "k2",
        5,
        5,
        sum(map(len, before.values())),
        3,
        1.0,
        2,
    )
    alone = EncryptedStore(inner, NEW)
    assert histories(alone) == before
    assert alone.heads(HeadFilter(), limit=99) == heads
    assert labels(inner) == {b"k2"}
    *_, again = rotated.rekey()
    assert (again.rewritten, again.passes) == (0, 1)
    engine = engine_on(alone)
    assert engine.resume("r1", "answer", "yes").unwrap() == f"{CANARY} 1 yes"
    assert [part.problem for part in alone.verify() if part.problem is not None] == []
    engine.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_that_was_never_encrypted_becomes_so(kind: str, tmp_path: Path) -> None:
    inner = make(kind, tmp_path)
    filled(inner)
    before, heads = histories(inner), inner.heads(HeadFilter(), limit=99)
    with pytest.raises(StoreMisconfiguredError, match="is not encrypted"):
        list(EncryptedStore(inner, KEYS).rekey())
    *_, done = EncryptedStore(inner, KEYS, allow_plain=True, hide_tags=True).rekey()
    assert done.records == sum(map(len, before.values()))
    strict = EncryptedStore(inner, KEYS, hide_tags=True)
    assert histories(strict) == before
    assert strict.heads(HeadFilter(), limit=99) == heads
    assert [run.run_id for run in strict.heads(HeadFilter(tag=("n", "2")), limit=9)] == ["r2"]
    if kind == "sqlite":
        inner.vacuum()
    strict.close()
    if kind == "file":
        assert CANARY.encode() not in bytes_of(tmp_path)


class _KilledError(BaseException):
    """Nothing catches it."""


class Killing:
    """A store that is killed at its n-th rewrite, before it or after."""

    def __init__(self, inner: Any, nth: int, *, after: bool) -> None:
        self._inner, self._left, self._after = inner, nth, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def rewrite(self, *where: Any, **head: Any) -> bool:
        self._left -= 1
        if self._left == 0 and not self._after:
            raise _KilledError
        done: bool = self._inner.rewrite(*where, **head)
        if self._left == 0:
            raise _KilledError
        return done


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_rewrite_it_goes_on(after: bool) -> None:
    """And every record is readable with both keys at every moment."""
    inner = MemoryStore()
    filled(EncryptedStore(inner, KEYS))
    before = histories(EncryptedStore(inner, ROTATED))
    killed = 0
    for _ in range(100):
        store: Any = Killing(inner, 1 if after else 2, after=after)
        try:
            list(EncryptedStore(store, ROTATED).rekey())
        except _KilledError:
            killed += 1
            assert histories(EncryptedStore(inner, ROTATED)) == before
            continue
        break
    assert killed >= 9
    assert histories(EncryptedStore(inner, NEW)) == before


REKEY = """
import sys
from stepwell_stores import open_store
from stepwell_stores.wrapping import EncryptedStore
store = EncryptedStore(open_store(sys.argv[1]), {"k2": bytes(32), "k1": bytes(range(32))})
print("begun", flush=True)
for done in store.rekey():
    print(done.records, flush=True)
print("ended", flush=True)
"""


@pytest.mark.parametrize("kind", ["sqlite", "file"])
def test_a_process_that_is_killed_leaves_a_whole_store(
    kind: str, tmp_path: Path, python: Callable[..., subprocess.Popen[str]]
) -> None:
    """SIGKILL after each of the first runs; the next process goes on."""
    inner = make(kind, tmp_path)
    filled(EncryptedStore(inner, KEYS)).close()
    url = {"sqlite": f"sqlite:///{tmp_path}/runs.db", "file": f"file:{tmp_path}/runs"}[kind]
    both = EncryptedStore(make(kind, tmp_path), ROTATED)
    before = histories(both)
    for lines in (1, 2, 3):
        process = python(REKEY, url)
        assert process.stdout is not None
        for _ in range(lines):
            assert process.stdout.readline()
        process.kill()
        process.wait()
        assert histories(both) == before
    process = python(REKEY, url)
    assert "ended" in process.communicate(timeout=60)[0]
    assert histories(EncryptedStore(make(kind, tmp_path), NEW)) == before
    both.close()


@pytest.mark.parametrize("kind", KINDS)
def test_runs_are_driven_meanwhile(kind: str, tmp_path: Path) -> None:
    """By those who have both keys already, and the new one as the current."""
    inner = make(kind, tmp_path)
    engine = filled(EncryptedStore(inner, KEYS))
    store = EncryptedStore(inner, ROTATED)
    both = engine_on(store)
    stop, failures = threading.Event(), list[BaseException]()

    def drive() -> None:
        try:
            for number in range(40):
                if stop.is_set() and number > 10:
                    break
                both.start(everything, f"{CANARY} {number}", run_id=f"new{number}")
                both.signal("r1", "other", number)
                both.resume(f"new{number}", "answer", "yes").unwrap()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=drive)
    thread.start()
    *_, done = store.rekey()
    stop.set()
    thread.join(120)
    assert failures == []
    assert done.passes >= 2
    *_, done = store.rekey()
    assert labels(inner) == {b"k2"}
    assert both.resume("r1", "answer", "yes").unwrap() == f"{CANARY} 1 yes"
    engine.close()


def test_writers_that_were_not_told_of_the_new_key_are_noticed() -> None:
    inner = MemoryStore()
    old = engine_on(EncryptedStore(inner, KeyRing(ROTATED, current="k1")))
    old.start(everything, "x", run_id="r")

    def meanwhile() -> None:
        for number, _ in enumerate(EncryptedStore(inner, ROTATED).rekey()):
            old.signal("r", "more", number)

    with pytest.raises(StoreMisconfiguredError, match="others go on to write with another key than 'k2'"):
        meanwhile()


def test_large_payloads_are_encrypted_anew_as_well(tmp_path: Path) -> None:
    inner = SqliteStore(tmp_path / "runs.db")
    blobs = DirectoryBlobs(tmp_path / "blobs")
    beside = OffloadingStore(inner, blobs, threshold=300)
    filled(EncryptedStore(beside, KEYS))
    store = EncryptedStore(beside, ROTATED)
    before, names = histories(store), {blob.name for blob in blobs.list()}
    assert names
    *_, done = store.rekey()
    assert done.records == sum(map(len, before.values()))
    assert histories(EncryptedStore(beside, NEW)) == before
    after = {blob.name for blob in blobs.list()}
    assert len(after) == len(names)
    assert not after & names
    assert beside.collect(grace=-1).removed == 0
    inner.close()


def test_a_damaged_record_stops_it_and_is_named() -> None:
    inner = MemoryStore()
    filled(EncryptedStore(inner, KEYS))
    lines = inner._runs["r1"].histories[0]
    lines[2] = forged(lines[2].replace(b'"box":"', b'"box":"AAAA'))
    with pytest.raises(CorruptHistoryError, match="run 'r1', incarnation 0, event 2"):
        list(EncryptedStore(inner, ROTATED).rekey())


def test_a_store_that_can_not_rewrite_is_told_what_to_do() -> None:
    class Fixed(MemoryStore):
        rewrite = None  # type: ignore[assignment]

    with pytest.raises(StoreMisconfiguredError, match="Fixed can't rewrite records in their place: move the runs"):
        list(EncryptedStore(Fixed(), KEYS).rekey())
