"""Encryption at rest: what can be read without the key, what can be changed, and how keys come and go."""

from __future__ import annotations

import importlib
import logging
import sqlite3
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from stepwell import CorruptHistoryError, Engine, Flow, Step, StoreMisconfiguredError, Transaction, workflow
from stepwell.reading import waits_of_head
from stepwell.store import (
    AlreadyCommitted,
    Blocked,
    Committed,
    Conflict,
    Created,
    Draft,
    HeadFilter,
    LeaseRequest,
    Store,
    Waiting,
    envelope,
)
from stepwell.testing import HistoryFile
from stepwell.testing.contract import a_head, a_record, a_start
from stepwell_stores.jsonl import JsonlStore
from stepwell_stores.memory import MemoryStore
from stepwell_stores.sqlite import SqliteStore
from stepwell_stores.wrapping import CompressedStore, EncryptedStore, KeyRing

from .wrapped_tools import CANARY, KEYS, KINDS, ROTATED, bytes_of, engine_on, everything, failing, forged, make


def filled(store: Store) -> Engine:
    """A run that waits, one that is completed, one that has failed, one that is cancelled; and a fork."""
    engine = engine_on(store)
    for run_id in ("waits", "done", "gone"):
        engine.start(everything, CANARY, run_id=run_id, tags={"team": "x"})
    engine.resume("done", "answer", f"{CANARY} yes")
    engine.fork("done", before=3, new_run_id="forked")
    engine.signal("waits", "later", {"note": CANARY})
    engine.start(failing, CANARY, run_id="failed")
    engine.retry("failed")
    engine.cancel("gone", reason=f"for {CANARY}")
    return engine


@pytest.mark.parametrize("kind", ["sqlite", "file"])
def test_no_payload_is_ever_on_the_disk(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Looked for while the store is open, so that a log beside the file is there too; the control finds it."""
    caplog.set_level(logging.DEBUG)
    plain, sealed = tmp_path / "plain", tmp_path / "sealed"
    plain.mkdir()
    sealed.mkdir()
    for folder in (plain, sealed):
        inner = make(kind, folder)
        store = inner if folder is plain else EncryptedStore(inner, KEYS)
        engine = filled(store)
        found = bytes_of(folder)
        assert (CANARY.encode() in found or CANARY.upper().encode() in found) == (folder is plain)
        assert b"please look at" not in found or folder is plain
        assert b"team" in found, "tags stay readable unless they are hidden"
        engine.close()
        assert (CANARY.encode() in bytes_of(folder)) == (folder is plain)
    told = [record for record in caplog.records if CANARY in record.getMessage()]
    assert told == [], "but for the live traceback of a run that fails, which is the program's own error"


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_the_same_as_without(kind: str, tmp_path: Path) -> None:
    """Results, reasons, states, chunks, failures, forks, retries, and what `verify` reads."""
    store = EncryptedStore(make(kind, tmp_path), KEYS)
    with filled(store) as engine:
        assert engine.get("done").result == f"{CANARY} {CANARY} yes"
        assert engine.query("waits") == {"seen": CANARY}
        (wait,) = [one for one in engine.waiting("answer") if one.run_id == "waits"]
        assert wait.reason == f"please look at {CANARY}"
        assert engine.resume("forked", "answer", "no").unwrap() == f"{CANARY} no"
        assert engine.history("failed").steps[-1].error.message == f"no {CANARY}"  # type: ignore[union-attr]
        assert len([event for event in engine.history("done") if event.kind == "chunk"]) == 5
        parts = list(store.verify())
        assert [part.problem for part in parts if part.problem is not None] == []
        assert {part.run_id for part in parts} >= {"done", "waits", "forked", "failed", "gone"}
        tail = store.read("done")
        assert tail is not None
        HistoryFile.of(everything, tail.records, run="done").check(everything)


@pytest.mark.parametrize("kind", KINDS)
def test_a_reader_without_keys_is_told_so_and_sees_no_garbage(kind: str, tmp_path: Path) -> None:
    inner = make(kind, tmp_path)
    filled(EncryptedStore(inner, KEYS))
    store = EncryptedStore(inner, KEYS)
    with engine_on(inner) as engine:
        calls: list[Callable[[], object]] = [
            lambda: engine.history("done"),
            lambda: engine.get("done").result,
            lambda: engine.advance("waits"),
            lambda: engine.waiting("answer"),
        ]
        for call in calls:
            with pytest.raises(StoreMisconfiguredError, match="is encrypted with key 'k1'; name the store as"):
                call()
        record = next(one for one in engine.runs() if one.id == "waits")
        assert (record.workflow, record.tags, record.waiting_for) == ("everything", {"team": "x"}, ("answer",))
        sealed, head = inner.head("waits"), store.head("waits")
        assert sealed is not None
        assert [wait.reason for wait in waits_of_head(sealed)] == ["(encrypted)"]
        assert head is not None
        assert head.head.waiting[0].reason == f"please look at {CANARY}"


def one_run(store: Store, run_id: str = "r", count: int = 3) -> None:
    """A run with a start and steps, under its first lease."""
    lease = LeaseRequest("me", 30)
    made = store.create(run_id, [a_start()], head=a_head(), attempt_id="new", lease=lease)
    assert isinstance(made, Created)
    for seq in range(1, count):
        step = [a_record(f"{CANARY} {seq}")]
        assert store.append(run_id, 0, seq, step, attempt_id="a", fence=1) == Committed(seq, 0)


def lines_of(store: Store, run_id: str = "r") -> list[bytes]:
    tail = store.read(run_id)
    assert tail is not None
    return tail.records


def test_wrong_and_missing_keys_are_told_by_their_id() -> None:
    inner = MemoryStore()
    one_run(EncryptedStore(inner, KEYS))
    for keys, words in (
        ({"k1": bytes(32)}, "is encrypted with another key 'k1' than the ring's"),
        ({"k9": bytes(32)}, r"is encrypted with key 'k1', which is not in the ring \(it has 'k9'\)"),
    ):
        store = EncryptedStore(inner, keys)
        with pytest.raises(StoreMisconfiguredError, match=words) as raised:
            store.read("r")
        assert "run 'r', incarnation 0, event 0" in raised.value.message
        with pytest.raises(StoreMisconfiguredError, match=words):
            list(store.verify())


def test_verify_goes_on_behind_a_run_whose_key_is_gone() -> None:
    inner = MemoryStore()
    one_run(EncryptedStore(inner, {"new": bytes(32)}), "first")
    one_run(EncryptedStore(inner, KEYS), "old")
    one_run(EncryptedStore(inner, {"new": bytes(32)}), "second")
    parts = list(EncryptedStore(inner, {"new": bytes(32)}).verify())
    assert [(part.run_id, part.unread, len(part.records)) for part in parts] == [
        ("first", False, 3),
        ("old", True, 0),
        ("second", False, 3),
    ]
    assert "key 'k1'" in str(parts[1].problem)


def test_every_byte_of_a_record_is_authenticated() -> None:
    """Whatever is changed in a record, with a checksum to match: it is refused, or read as it was written."""
    inner = MemoryStore()
    store = EncryptedStore(inner, KEYS)
    one_run(store)
    before, raw = lines_of(store), inner._runs["r"].histories[0]
    refused = 0
    for at in range(len(raw[1]) - 18):
        for flip in (1, 4):
            line = bytearray(raw[1])
            line[at] ^= flip
            inner._runs["r"].histories[0] = [raw[0], forged(bytes(line)), raw[2]]
            try:
                found = lines_of(store)
            except (CorruptHistoryError, StoreMisconfiguredError):
                refused += 1
                continue
            assert found[1][found[1].index(b'"timestamp"') : -18] == before[1][before[1].index(b'"timestamp"') : -18]
    assert refused > 300


def swapped(inner: MemoryStore) -> None:
    lines = inner._runs["r"].histories[0]
    one, two = lines[1].replace(b'"offset":1', b'"offset":2'), lines[2].replace(b'"offset":2', b'"offset":1')
    inner._runs["r"].histories[0] = [lines[0], forged(two), forged(one)]


def of_another_run(inner: MemoryStore) -> None:
    inner._runs["r"].histories[0][1] = inner._runs["other"].histories[0][1]


def of_another_incarnation(inner: MemoryStore) -> None:
    inner._runs["r"].histories.append(inner._runs["r"].histories[0])


def of_another_type(inner: MemoryStore) -> None:
    lines = inner._runs["r"].histories[0]
    lines[1] = forged(lines[1].replace(b'"type":"step+enc"', b'"type":"emit+enc"'))


def with_another_instant(inner: MemoryStore) -> None:
    lines = inner._runs["r"].histories[0]
    assert b"22:13:21" in lines[1]
    lines[1] = forged(lines[1].replace(b"22:13:21", b"22:13:22"))


def cut_short(inner: MemoryStore) -> None:
    lines = inner._runs["r"].histories[0]
    at = lines[1].index(b'"box":"') + 7
    lines[1] = forged(lines[1][: at + 8] + lines[1][-19:])


def not_in_base64(inner: MemoryStore) -> None:
    lines = inner._runs["r"].histories[0]
    lines[1] = forged(lines[1].replace(b'"box":"', b'"box":"!'))


@pytest.mark.parametrize(
    "tamper",
    [
        swapped,
        of_another_run,
        of_another_incarnation,
        of_another_type,
        with_another_instant,
        cut_short,
        not_in_base64,
    ],
    ids=lambda tamper: tamper.__name__,
)
def test_a_record_that_was_tampered_with_is_corrupt(tamper: Callable[[MemoryStore], None]) -> None:
    inner = MemoryStore()
    store = EncryptedStore(inner, KEYS)
    one_run(store)
    one_run(store, "other")
    tamper(inner)
    with pytest.raises(CorruptHistoryError) as raised:
        lines_of(store)
    assert raised.value.place.startswith("run 'r', incarnation ")
    told = "".join(traceback.format_exception(raised.value))
    assert CANARY not in told
    problems = [part.problem for part in store.verify() if part.problem is not None]
    assert [type(problem) for problem in problems] == [CorruptHistoryError]


@pytest.mark.parametrize("field", ["reason", "blocked", "tags"])
def test_a_text_of_a_head_can_not_be_changed_or_taken_to_another_run(field: str) -> None:
    inner = MemoryStore()
    store = EncryptedStore(inner, KEYS, hide_tags=True)
    for run_id in ("r", "other"):
        head = a_head(
            waiting=(Waiting("go", "w", 1, f"{run_id} why"),),
            blocked=Blocked("X", f"{run_id} because", ("f",)),
            tags={"who": run_id},
        )
        store.create(run_id, [a_start()], head=head, attempt_id="a")
        assert store.head(run_id).head == head  # type: ignore[union-attr]
    mine, other = inner._runs["r"], inner._runs["other"]
    changes: dict[str, dict[str, Any]] = {
        "reason": {"waiting": other.head.waiting},
        "blocked": {"blocked": other.head.blocked},
        "tags": {"tags": other.head.tags},
    }
    mine.head = replace(mine.head, **changes[field])
    with pytest.raises(CorruptHistoryError, match="run 'r'"):
        store.head("r")
    with pytest.raises(CorruptHistoryError, match="run 'r'"):
        store.heads(HeadFilter(), limit=9)


def test_what_is_not_encrypted_is_refused_unless_it_is_allowed() -> None:
    inner = MemoryStore()
    one_run(inner)
    head = a_head(waiting=(Waiting("go", "w", 1, "why"),))
    inner.append("r", 0, 3, [], attempt_id="x", head=head, fence=1)
    strict, moving = EncryptedStore(inner, KEYS), EncryptedStore(inner, KEYS, allow_plain=True)
    for call in (lambda: strict.read("r"), lambda: strict.head("r"), lambda: list(strict.verify())):
        with pytest.raises(StoreMisconfiguredError, match="is not encrypted, and so not read; wrap it with"):
            call()
    assert lines_of(moving) == lines_of(inner)
    assert moving.head("r") == inner.head("r")
    assert moving.append("r", 0, 3, [a_record("new")], attempt_id="y", fence=1) == Committed(3, 0)
    assert envelope(lines_of(inner)[3]).type == "step+enc"
    assert len(lines_of(moving)) == 4


def test_new_records_have_the_current_key_and_old_ones_stay_readable() -> None:
    inner = MemoryStore()
    one_run(EncryptedStore(inner, KEYS))
    rotated = EncryptedStore(inner, ROTATED)
    before = lines_of(rotated)
    assert rotated.append("r", 0, 3, [a_record("new")], attempt_id="a", fence=1) == Committed(3, 0)
    assert [b'"enc":"k1:' in line for line in lines_of(inner)] == [True, True, True, False]
    assert lines_of(rotated)[:3] == before


def test_an_attempt_is_known_again_after_a_rotation() -> None:
    """Its bytes are others each time; what they say is compared."""
    inner = MemoryStore()
    store, rotated = EncryptedStore(inner, KEYS), EncryptedStore(inner, ROTATED)
    one_run(store)
    for other in (store, rotated):
        again = other.append("r", 0, 2, [a_record(f"{CANARY} 2")], attempt_id="a", fence=1)
        assert again == AlreadyCommitted(2, 0)
        assert other.append("r", 0, 2, [a_record("other")], attempt_id="a", fence=1) == Conflict(3, 0)
        assert other.append("r", 0, 2, [a_record(), a_record()], attempt_id="a", fence=1) == Conflict(3, 0)


def test_a_ring_that_is_asked_for_finds_the_key_that_another_process_rotated_to() -> None:
    inner, vault = MemoryStore(), dict(KEYS)
    store = EncryptedStore(inner, lambda: dict(vault))
    one_run(store)
    vault = dict(ROTATED)
    EncryptedStore(inner, ROTATED).append("r", None, None, [a_record("out")], attempt_id="out")
    assert len(lines_of(store)) == 4
    assert store.keys.current.id == "k2", "and writes with it from then on"


def test_the_same_record_never_has_the_same_bytes() -> None:
    store = EncryptedStore(MemoryStore(), KEYS)
    draft = Draft("step", b'"timestamp":"2023-11-14T22:13:21.000000Z","at":"0"')
    boxes = {store._wrap("r", 0, 1, draft).body for _ in range(2_000)}
    assert len(boxes) == 2_000


def test_runs_have_keys_of_their_own() -> None:
    key = KeyRing(KEYS).current
    assert len({key.derived("run", f"r{n}") for n in range(100)} | {key.derived("check"), key.derived("tags")}) == 102


def test_hidden_tags_are_found_by_their_value_whatever_key_hid_them(tmp_path: Path) -> None:
    inner = SqliteStore(tmp_path / "runs.db")
    for number in range(6):
        keys = KEYS if number % 2 else ROTATED
        store = EncryptedStore(inner, keys, hide_tags=True)
        tags = {"customer": "acme" if number < 4 else "other", "n": str(number)}
        store.create(f"r{number}", [a_start(tags=tags)], head=a_head(created=number, tags=tags), attempt_id="a")
    store = EncryptedStore(inner, ROTATED, hide_tags=True)
    found = store.heads(HeadFilter(tag=("customer", "acme")), limit=99)
    assert [(run.run_id, run.head.tags["n"]) for run in found] == [(f"r{n}", str(n)) for n in (3, 2, 1, 0)]
    page = store.heads(HeadFilter(tag=("customer", None)), limit=2, after="r4")
    assert [run.run_id for run in page] == ["r3", "r2"]
    assert store.heads(HeadFilter(tag=("n", "acme")), limit=9) == []
    assert b"acme" not in bytes_of(tmp_path)
    assert b"customer" not in bytes_of(tmp_path)
    inner.close()


def test_hidden_tags_are_not_shown_to_who_has_no_key() -> None:
    inner = MemoryStore()
    with Engine(EncryptedStore(inner, KEYS, hide_tags=True), [everything]) as engine:
        engine.start(everything, "x", run_id="r", tags={"customer": "acme"})
        assert engine.get("r").tags == {"customer": "acme"}
        assert [one.id for one in engine.runs(tag=("customer", "acme"))] == ["r"]
        inner.create("plain", [a_start()], head=a_head(tags={"a": "b"}), attempt_id="a")
        with pytest.raises(StoreMisconfiguredError, match="its tags: are not hidden"):
            engine.store.head("plain")
        (record, *_) = [one for one in Engine(inner).runs() if one.id == "r"]
        assert record.tags == {}


def test_a_lost_head_is_made_again_from_what_stays_readable(tmp_path: Path) -> None:
    """A store of files makes it from the history, which it can't decrypt."""
    store = EncryptedStore(JsonlStore(tmp_path / "runs"), KEYS)
    with engine_on(store) as engine:
        engine.start(failing, CANARY, run_id="r", tags={"team": "x"})
    (tmp_path / "runs" / "r.head.json").unlink()
    again = EncryptedStore(JsonlStore(tmp_path / "runs"), KEYS)
    run = again.head("r")
    assert run is not None
    assert (run.head.status, run.head.workflow, run.head.version, run.head.tags) == (
        "failed",
        "failing",
        "1",
        {"team": "x"},
    )
    assert run.head.created > 0
    again.close()


def book(db: sqlite3.Connection, text: str) -> str:
    db.execute("INSERT INTO booked VALUES (?)", (text,))
    return text


@workflow
def booking(text: str) -> Flow[str]:
    return (yield from Transaction(book, text))


def test_a_transaction_is_handed_on_with_its_record_encrypted(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "runs.db")) as db:
        db.execute("CREATE TABLE booked (name TEXT)")
    inner = SqliteStore(tmp_path / "runs.db")
    with Engine(EncryptedStore(inner, KEYS), [booking]) as engine:
        assert engine.start(booking, "one", run_id="r").unwrap() == "one"
        assert engine.start(booking, "one", run_id="r").unwrap() == "one"
        assert [envelope(line).type for line in lines_of(inner)] == ["start+enc", "step+enc", "complete+enc"]
        with closing(sqlite3.connect(tmp_path / "runs.db")) as db:
            assert db.execute("SELECT name FROM booked").fetchall() == [("one",)]
    assert not hasattr(EncryptedStore(MemoryStore(), KEYS), "transact")


def test_signals_and_an_owner_meet_in_one_order() -> None:
    """Outside writers find their place by trying; none is lost, however fast the owner writes."""
    inner = MemoryStore()
    store = EncryptedStore(inner, KEYS)
    one_run(store, count=1)
    stop, failures = threading.Event(), list[BaseException]()

    def own() -> None:
        try:
            seq = 1
            while not stop.is_set():
                done = store.append("r", 0, seq, [a_record(seq)], attempt_id="own", fence=1)
                seq = done.seq + (isinstance(done, Committed)) if isinstance(done, (Committed, Conflict)) else seq
        except BaseException as error:
            failures.append(error)

    owner = threading.Thread(target=own)
    owner.start()
    done = [store.append("r", None, None, [a_record(n, "resume")], attempt_id=f"o{n}") for n in range(100)]
    stop.set()
    owner.join(60)
    assert failures == []
    assert all(isinstance(one, Committed) for one in done)
    lines = lines_of(store)
    assert [envelope(line).offset for line in lines] == list(range(len(lines)))
    assert [envelope(lines[one.seq]).attempt_id for one in done] == [f"o{n}" for n in range(100)]  # type: ignore[union-attr]


def test_the_order_of_wrappers_is_checked() -> None:
    with pytest.raises(StoreMisconfiguredError, match="write CompressedStore"):
        EncryptedStore(CompressedStore(MemoryStore()), KEYS)
    with pytest.raises(StoreMisconfiguredError, match="encrypted already"):
        EncryptedStore(EncryptedStore(MemoryStore(), KEYS), KEYS)


def test_no_key_is_in_what_is_shown_of_a_store() -> None:
    store = EncryptedStore(MemoryStore(), KEYS)
    one_run(store)
    shown = repr(store) + repr(store.keys) + repr(store.durability)
    assert store.durability.settings["encryption"] == "AES-256-GCM, current key 'k1' of k1"
    for form in (KEYS["k1"].hex(), repr(KEYS["k1"])[2:-1]):
        assert form not in shown


def test_a_missing_package_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("cryptography")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(StoreMisconfiguredError, match=r"pip install 'stepwell\[crypto\]'"):
        EncryptedStore(MemoryStore(), KEYS)


def test_the_package_is_imported_by_who_uses_it_alone() -> None:
    module = importlib.import_module("stepwell_stores.wrapping.encrypted")
    assert not any(name.startswith("cryptography") for name in vars(module))


@workflow
def hello(name: str) -> Flow[str]:
    return (yield from Step(str.upper, name).options(into=str))


def test_a_step_costs_no_more_calls_of_the_inner_store() -> None:
    """But for an outside event, which looks for its place."""
    calls: list[str] = []

    class Counted(MemoryStore):
        def __getattribute__(self, name: str) -> Any:
            if name in ("append", "read", "head", "create"):
                calls.append(name)
            return super().__getattribute__(name)

    for wrap in (False, True):
        calls.clear()
        store: Store = Counted()
        with Engine(EncryptedStore(store, KEYS) if wrap else store, [hello]) as engine:
            calls.clear()
            engine.start(hello, "ada", run_id="r").unwrap()
            assert sorted(calls) == ["append", "append", "create"]
