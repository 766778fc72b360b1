"""Compression of records: which, how small, and what is not believed."""

from __future__ import annotations

import zlib
from base64 import b64encode

import pytest

from stepwell import CorruptHistoryError, Engine, InvalidInputError, StoreMisconfiguredError
from stepwell.store import Committed, Created, Draft, LeaseRequest, envelope, seal
from stepwell.testing.contract import a_head, a_record, a_start
from stepwell_stores.memory import MemoryStore
from stepwell_stores.wrapping import CompressedStore, EncryptedStore

from .wrapped_tools import KEYS, engine_on, everything, forged


def one_run(store: CompressedStore, *records: Draft) -> None:
    made = store.create("r", [a_start()], head=a_head(), attempt_id="new", lease=LeaseRequest("me", 30))
    assert isinstance(made, Created)
    for seq, record in enumerate(records, 1):
        assert store.append("r", 0, seq, [record], attempt_id="a", fence=1) == Committed(seq, 0)


def raw(inner: MemoryStore) -> list[bytes]:
    return inner._runs["r"].histories[0]


def test_large_records_get_smaller_and_come_back_as_they_were() -> None:
    inner = MemoryStore()
    store = CompressedStore(inner)
    large = a_record("stepwell " * 5_000)
    one_run(store, large, a_record("small"))
    assert [envelope(line).type for line in raw(inner)] == ["start", "step+z", "step"]
    assert len(raw(inner)[1]) < 1_000
    tail = store.read("r")
    assert tail is not None
    assert tail.records[1:] == seal([large], session=1, offset=1) + seal([a_record("small")], session=1, offset=2)


def test_what_does_not_get_smaller_stays_as_it_is() -> None:
    inner = MemoryStore()
    one_run(CompressedStore(inner, above=0), a_record("x"), a_record(b64encode(bytes(range(256))).decode()))
    assert {envelope(line).type for line in raw(inner)} == {"start", "step"}


def test_an_older_history_is_read_and_goes_on() -> None:
    """It can be put around a store at any time."""
    inner = MemoryStore()
    engine = engine_on(inner)
    engine.start(everything, "word " * 500, run_id="r")
    store = CompressedStore(inner)
    other = engine_on(store)
    assert other.resume("r", "answer", "yes").unwrap().endswith("yes")
    assert any(envelope(line).type.endswith("+z") for line in raw(inner))


def test_a_reader_without_it_is_told_so() -> None:
    inner = MemoryStore()
    engine_on(CompressedStore(inner)).start(everything, "word " * 500, run_id="r")
    with pytest.raises(StoreMisconfiguredError, match=r"is compressed; name the store as compressed\+URL"):
        Engine(inner).history("r")


def test_compressed_then_encrypted_is_the_right_order() -> None:
    inner = MemoryStore()
    store = CompressedStore(EncryptedStore(inner, KEYS))
    engine = engine_on(store)
    engine.start(everything, "word " * 1_000, run_id="r")
    assert {envelope(line).type for line in raw(inner)} >= {"start+z+enc", "suspend+z+enc"}
    assert sum(map(len, raw(inner))) < 30_000
    assert engine.resume("r", "answer", "yes").unwrap().endswith("yes")
    with pytest.raises(StoreMisconfiguredError, match="is encrypted"):
        engine_on(CompressedStore(inner)).history("r")


def bomb(size: int) -> bytes:
    return b64encode(zlib.compress(bytes(size)))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b'"z":', b'"y":', "marked as compressed, and is not"),
        (b'"data":"', b'"dato":"', "marked as compressed, and is not"),
        (b'"data":"', b'"data":"!', "can't be decompressed"),
        (b'"data":"eJ', b'"data":"AA', "can't be decompressed"),
        (b'"z":4', b'"z":3', "has another number"),
        (b'"z":4', b'"z":5', "has another number"),
        (b'"data":"', b'"data":"%b","more":"' % bomb(100), "marked as compressed|can't be decompressed|another number"),
    ],
)
def test_what_is_no_compressed_record_is_corrupt(old: bytes, new: bytes, words: str) -> None:
    inner = MemoryStore()
    store = CompressedStore(inner)
    one_run(store, a_record("stepwell " * 5_000))
    line = raw(inner)[1]
    assert old in line
    raw(inner)[1] = forged(line.replace(old, new))
    with pytest.raises(CorruptHistoryError, match=words) as raised:
        store.read("r")
    assert raised.value.seq == 1


def test_no_more_is_ever_unpacked_than_the_record_says() -> None:
    inner = MemoryStore()
    store = CompressedStore(inner)
    one_run(store, a_record("stepwell " * 5_000))
    line = raw(inner)[1]
    at = line.index(b'"data":"') + 8
    raw(inner)[1] = forged(line[:at] + bomb(200_000_000) + line[-19:])
    with pytest.raises(CorruptHistoryError, match="has another number"):
        store.read("r")


@pytest.mark.parametrize(
    "options", [{"above": -1}, {"above": 1.5}, {"above": True}, {"level": 0}, {"level": 10}], ids=str
)
def test_wrong_options_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(InvalidInputError):
        CompressedStore(MemoryStore(), **options)


def test_it_is_wrapped_once() -> None:
    with pytest.raises(StoreMisconfiguredError, match="compressed already"):
        CompressedStore(CompressedStore(MemoryStore()))
