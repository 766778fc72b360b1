"""Runs move into stores with something around them, and out of those: what is encrypted there, or compressed, or kept
beside, is so for them too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.stores.wrapped_tools import forged

from stepwell import CorruptHistoryError, InvalidInputError, StoreMisconfiguredError
from stepwell.moves import Arrival, Departure, Movable
from stepwell.store import RunHead, Store, Waiting, envelope, seal
from stepwell.testing.contract import a_head, a_record, a_start
from stepwell_stores.jsonl import JsonlStore
from stepwell_stores.memory import MemoryStore
from stepwell_stores.sqlite import SqliteStore
from stepwell_stores.wrapping import CompressedStore, DirectoryBlobs, EncryptedStore, MemoryBlobs, OffloadingStore

from .zoo import KINDS, engine_on, fill, finish, heads, judge, picture, refuses, same

KEYS = {"new": bytes(range(32)), "old": bytes(32)}
SECRET = "CANARY-4711"


def encrypted(folder: Path) -> Store:
    return EncryptedStore(SqliteStore(folder / "encrypted.db"), KEYS, hide_tags=True)


def offloading(folder: Path) -> Store:
    return OffloadingStore(MemoryStore(), DirectoryBlobs(folder / "blobs"), threshold=150)


def everything(folder: Path) -> Store:
    inner = OffloadingStore(JsonlStore(folder / "all"), DirectoryBlobs(folder / "more"), threshold=250)
    return CompressedStore(EncryptedStore(inner, {"other": bytes(32)}), above=100)


MAKERS: dict[str, Callable[[Path], Store]] = {
    "plain": lambda _: MemoryStore(),
    "encrypted": encrypted,
    "compressed": lambda _: CompressedStore(MemoryStore(), above=0),
    "offloading": offloading,
    "everything": everything,
}
WAYS = [
    ("plain", "encrypted"),
    ("encrypted", "plain"),
    ("plain", "offloading"),
    ("compressed", "offloading"),
    ("offloading", "compressed"),
    ("encrypted", "everything"),
    ("everything", "encrypted"),
]


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_everything_arrives_as_it_was_and_goes_on(way: tuple[str, str], tmp_path: Path) -> None:
    source, target = (MAKERS[name](tmp_path) for name in way)
    log = tmp_path / "log"
    fill(source, log, KINDS)
    before = picture(source)
    moved = engine_on(source).migrate(target)
    assert (len(before), {}) == (moved.moved, moved.kept)
    same(before, picture(target))
    for store in (source, target):
        assert [] == [part.problem for part in store.verify() if part.problem is not None]
    assert {own_mark(target)} >= marks(target)
    refuses(source, "r0003")
    if isinstance(source, OffloadingStore):
        assert [] == list(source.blobs.list())
    if isinstance(target, OffloadingStore):
        needed = len(list(target.blobs.list()))
        assert 0 == target.collect(grace=-1).removed
        assert needed
    finish(target)
    judge(log, target)
    for store in (source, target):
        store.close()


def own_mark(store: Any) -> bytes:
    """What the type of every record of this store must end with, if it is one that changes each of them."""
    return b"+enc" if isinstance(store, EncryptedStore) else b""


def marks(store: Any) -> set[bytes]:
    """The end of the type of each record of an encrypted store, as it is kept; of others nothing."""
    if not isinstance(store, EncryptedStore):
        return set()
    found = picture(store.inner)
    return {envelope(line).type.encode()[-4:] for _, all_of in found.values() for lines in all_of for line in lines}


# ---- one record at a time


def a_run(run_id: str = "r") -> tuple[Arrival, list[bytes]]:
    lines = [
        *seal([a_start("order")], session=1, offset=0, attempt_id="new"),
        *seal([a_record(SECRET * 20), a_record(SECRET * 30)], session=1, offset=1),
    ]
    head = a_head(status="suspended", tags={"t": SECRET}, waiting=(Waiting("go", "go@1:1", 1, f"why {SECRET}"),))
    return Arrival(RunHead(run_id, 0, 3, 1, False, None, head), (3,), "there", "token"), lines


def bring(store: Any, run_id: str = "r") -> tuple[Arrival, list[bytes]]:
    arrival, lines = a_run(run_id)
    assert arrival == store.arrive(arrival)
    store.stage(run_id, "token", 0, 0, lines)
    return arrival, lines


def test_nothing_of_a_run_that_is_on_its_way_can_be_read_without_the_key() -> None:
    inner: Any = MemoryStore()
    store: Any = EncryptedStore(inner, KEYS, hide_tags=True)
    arrival, lines = bring(store)
    assert lines == store.staged("r", 0, limit=9)
    assert [arrival] == store.arrivals(limit=9)
    assert SECRET not in repr(inner.arrivals(limit=9))
    assert SECRET.encode() not in b"".join(inner.staged("r", 0, limit=9))
    assert store.land("r", "token")
    assert arrival.run == store.head("r")


@pytest.mark.parametrize("to", [("r", 0, 1), ("r", 1, 0), ("s", 0, 0)], ids=str)
def test_a_staged_record_is_bound_to_its_place(to: tuple[str, int, int]) -> None:
    """Run, incarnation and seq: who can write the store inside can't put it anywhere else."""
    inner: Any = MemoryStore()
    store: Any = EncryptedStore(inner, KEYS)
    run_id, number, seq = to
    for name in {"r", run_id}:
        bring(store, name)
    taken = inner.staged("r", 0, limit=9)[0]
    elsewhere = taken.replace(b'"offset":0', b'"offset":%d' % seq)
    inner.stage(run_id, "token", number, seq, [forged(elsewhere)])
    with pytest.raises(CorruptHistoryError, match="changed, or taken elsewhere"):
        store.staged(run_id, number, seq, limit=1)


def test_blobs_of_a_run_that_is_on_its_way_are_kept_and_go_with_it() -> None:
    blobs = MemoryBlobs()
    store: Any = OffloadingStore(MemoryStore(), blobs, threshold=200)
    arrival, lines = bring(store)
    first = {blob.name for blob in blobs.list()}
    assert 2 == len(first)
    assert (0, 2) == (store.collect(grace=-1).removed, store.collect(grace=-1).kept)
    store.stage("r", "token", 0, 1, lines[1:])  # in their place
    assert (2, 2) == ((done := store.collect(grace=-1)).removed, done.kept)
    assert first.isdisjoint(blob.name for blob in blobs.list())
    assert not store.turn_away(replace(arrival, token="another"))
    assert lines == store.staged("r", 0, limit=9)
    assert store.turn_away(arrival)
    assert [] == list(blobs.list())
    bring(store)
    assert store.land("r", "token")
    assert (0, 2) == ((done := store.collect(grace=-1)).removed, done.kept)
    assert lines == store.read("r").records
    assert not store.depart(replace(arrival.run, seq=2), Departure("there", "t"))
    assert lines == store.read("r").records
    assert store.depart(store.head("r"), Departure("there", "t"))
    assert [] == list(blobs.list())


def test_blobs_that_a_crash_leaves_are_collected() -> None:
    """After a departure and before its blobs went; and of records that never were staged."""
    blobs = MemoryBlobs()
    inner: Any = MemoryStore()
    store: Any = OffloadingStore(inner, blobs, threshold=200)
    bring(store)
    assert store.land("r", "token")
    assert inner.depart(inner.head("r"), Departure("there", "t"))
    arrival, lines = a_run("s")
    store.arrive(arrival)
    with pytest.raises(InvalidInputError, match="nothing is staged before 1"):
        store.stage("s", "token", 0, 1, lines[1:])
    assert (2, 2) == ((done := store.collect(grace=-1)).removed, done.kept)  # it may be about to be staged
    assert inner.turn_away(arrival)
    assert (2, 0) == ((done := store.collect(grace=-1)).removed, done.kept)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda store: CompressedStore(store, above=0),
        lambda store: EncryptedStore(store, KEYS),
        lambda store: OffloadingStore(store, MemoryBlobs(), threshold=1),
    ],
    ids=["compressed", "encrypted", "offloading"],
)
def test_what_was_changed_once_is_not_changed_again(wrap: Callable[[Store], Any]) -> None:
    """A source that is named without what stands around it: its records would be read as this one's own."""
    inner: Any = MemoryStore()
    bring(wrap(inner))
    raw = inner.staged("r", 0, limit=9)
    store = wrap(MemoryStore())
    store.arrive(a_run()[0])
    with pytest.raises(StoreMisconfiguredError, match="name the store that it comes from with that, too"):
        store.stage("r", "token", 0, 0, raw)
    assert [] == store.staged("r", 0, limit=9)


class Still(MemoryStore):
    """A store that can't move runs."""

    arrive = stage = staged = land = turn_away = arrivals = depart = None  # type: ignore[assignment]


def test_a_wrapper_can_do_what_the_store_inside_can() -> None:
    for wrap in (lambda one: CompressedStore(one), lambda one: EncryptedStore(one, KEYS), OffloadingStore):
        some: Any = (MemoryBlobs(),) if wrap is OffloadingStore else ()
        made: Any = wrap
        assert isinstance(made(MemoryStore(), *some), Movable)
        still = made(Still(), *some)
        assert not isinstance(still, Movable)
        for one, other in ((still, MemoryStore()), (MemoryStore(), still)):
            with pytest.raises(StoreMisconfiguredError, match=r"no run can be moved into a \w+ or out of it"):
                engine_on(one).migrate(other)
    both: Any = CompressedStore(EncryptedStore(Still(), KEYS))
    assert not isinstance(both, Movable)


def test_new_keys_are_not_enough_while_a_run_is_on_its_way() -> None:
    """Its records are under the old one, and nobody rewrites them."""
    inner = MemoryStore()
    bring(EncryptedStore(inner, {"old": bytes(32)}))
    store: Any = EncryptedStore(inner, KEYS)
    with pytest.raises(StoreMisconfiguredError, match="'r' is on its way here from there"):
        list(store.rekey())
    assert store.turn_away(store.arrivals(limit=1)[0])
    assert [] == [done.records for done in store.rekey()]
    assert [] == list(heads(store))
