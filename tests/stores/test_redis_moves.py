"""Runs that come into a Redis server and leave it: its keys, its answers, and movers that are cut off."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.moving.killing import whereabouts
from tests.moving.zoo import engine_on, finish, judge, picture, same
from tests.servers.proxy import Link, proxy
from tests.servers.valkey import Valkey, valkey

from stepwell import RunMovedError, StoreUnavailableError
from stepwell.moves import Arrival, Departure
from stepwell.store import AlreadyCommitted, Committed, Created, Head, LeaseRequest, RunHead, Waiting, seal
from stepwell.testing.contract import ManualClock, a_head, a_record, a_start
from stepwell_stores.redis import RedisStore
from stepwell_stores.sqlite import SqliteStore
from stepwell_stores.wrapping import EncryptedStore

from .moving_tools import open_runs
from .test_rekey import filled as driven
from .test_rekey import histories, labels
from .test_rewrite import filled, lines_of, other
from .wrapped_tools import KEYS, ROTATED


@pytest.fixture
def prefix() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def store(valkey_server: Valkey, prefix: str) -> Iterator[RedisStore]:
    made = RedisStore(valkey_server.url(prefix=prefix), clock=ManualClock())
    yield made
    made.close()


@pytest.fixture
def client(valkey_server: Valkey) -> Iterator[Any]:
    with valkey_server.connect() as made:
        yield made


def keys(client: Any, prefix: str) -> set[str]:
    """The names of the store's keys, without what all have in front."""
    base = f"{{{prefix}}}:"
    return {key.decode().removeprefix(base) for key in client.keys(f"{base}*")}


def calls(client: Any) -> int:
    """How many scripts the server has run."""
    stats = client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval"))


def arriving(store: Any, histories: list[list[bytes]], *, fence: int = 3) -> Arrival:
    """A run on its way, with all of its records staged."""
    run = RunHead("r", len(histories) - 1, len(histories[-1]), fence, False, None, a_head(status="suspended"))
    arrival: Arrival | None = store.arrive(Arrival(run, tuple(map(len, histories)), "over there", "t"))
    assert arrival is not None
    for number, lines in enumerate(histories):
        store.stage("r", "t", number, 0, lines)
    return arrival


def problems(store: Any) -> list[object]:
    return [part.problem for part in store.verify() if part.problem is not None]


# ---- keys


def test_what_is_turned_away_or_lands_leaves_no_key_of_its_move(
    store: RedisStore, client: Any, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = seal([a_start(), a_record()], session=1, offset=0, attempt_id="new")
    arrival = arriving(store, [lines, lines])
    assert keys(client, prefix) >= {"arriving", "gone", "in:r", "meta", "move:r"}
    assert [] == problems(store)
    with monkeypatch.context() as here:
        here.setattr(RedisStore, "_sweep", lambda *_: None)  # the process ends here
        assert store.turn_away(arrival)
    assert {"trash", "meta"} == {name for name in keys(client, prefix) if not name.startswith("log:")}
    arriving(store, [lines])
    assert [] == problems(store)
    store.vacuum()
    assert store.land("r", "t")
    assert not keys(client, prefix) & {"arriving", "gone", "in:r", "move:r", "trash"}
    assert [lines] == [tail.records for tail in [store.read("r")] if tail is not None]
    assert [] == problems(store)


def test_a_run_that_departed_leaves_two_fields(store: RedisStore, client: Any, prefix: str) -> None:
    driven = store.create("r", [a_start()], head=a_head(due=5), attempt_id="a", lease=LeaseRequest("me", 60))
    assert isinstance(driven, Created)
    head = store.head("r")
    assert head is not None
    assert store.depart(head, Departure("elsewhere", "t"))
    assert {"meta", "gone", "move:r"} == keys(client, prefix)
    assert store.depart(head, Departure("elsewhere", "t"))


def test_a_call_that_names_a_moved_run_is_one_script_as_ever(store: RedisStore, client: Any) -> None:
    """That it is away is a part of the answer."""
    store.create("r", [a_start()], head=a_head(), attempt_id="a")
    head = store.head("r")
    assert head is not None
    store.depart(head, Departure("elsewhere", "t"))
    for call in (
        lambda: store.head("r"),
        lambda: store.create("r", [a_start()], head=a_head(), attempt_id="a"),
        lambda: store.append("r", 0, 1, [a_record()], attempt_id="x", fence=1),
        lambda: store.append("r", None, None, [a_record()], attempt_id="x"),
    ):
        with pytest.raises(RunMovedError):
            call()  # the server may not have had the script
        before = calls(client)
        with pytest.raises(RunMovedError):
            call()
        assert calls(client) - before == 1


def test_attempts_of_records_that_were_replaced_are_forgotten(store: RedisStore) -> None:
    """And those of records that came beyond what landed."""
    start = seal([a_start()], session=1, offset=0, attempt_id="new")
    mine, others = (
        seal([a_record(attempt, "resume")], session=1, offset=1, attempt_id=attempt) for attempt in ("mine", "others")
    )
    late = seal([a_record("late", "resume")], session=1, offset=2, attempt_id="late")
    arrival = arriving(store, [[*start, *others, *late]])
    store.stage("r", "t", 0, 1, mine)
    wanted = replace(arrival, run=replace(arrival.run, seq=2, fence=4), counts=(2,))
    assert store.arrive(wanted) is not None
    assert store.land("r", "t")
    told = [store.append("r", None, None, [a_record()], attempt_id=attempt) for attempt in ("mine", "others", "late")]
    assert [AlreadyCommitted(1, 0), Committed(2, 0), Committed(3, 0)] == told


def test_a_full_server_still_lets_runs_go_and_turns_them_away() -> None:
    with valkey(maxmemory="3mb") as server:
        store = RedisStore(server.url(prefix="p"))
        assert isinstance(store.create("r", [a_start()], head=a_head(), attempt_id="a"), Created)
        head = store.head("r")
        assert head is not None
        lines = seal([a_start(), *[a_record("x" * 20_000)] * 20], session=1, offset=0, attempt_id="new")
        far = RunHead("far", 0, len(lines), 1, False, None, a_head())
        arrival = store.arrive(Arrival(far, (len(lines),), "over there", "t"))
        assert arrival is not None
        store.stage("far", "t", 0, 0, lines)
        with server.connect() as client:
            client.config_set("maxmemory", 1)
            with pytest.raises(StoreUnavailableError, match="memory is full"):
                store.land("far", "t")
            assert store.arrivals(limit=9) == [arrival]
            assert store.depart(head, Departure("elsewhere", "t"))
            assert store.turn_away(arrival)
            client.config_set("maxmemory", 0)
        assert store.head("far") is None
        assert [] == problems(store)
        store.close()


# ---- a mover that is cut off


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_mover_that_is_cut_off_anywhere_has_lost_nothing_and_goes_on(
    way: Any, valkey_server: Valkey, tmp_path: Path
) -> None:
    """After so many bytes to the server, or from it: the connection is lost, and no other one is to be had."""
    clock, log = ManualClock(), tmp_path / "log"
    first = SqliteStore(tmp_path / "first.db", clock=clock)
    open_runs(first, log)
    before, places = picture(first), set()
    first.close()
    ended, count = False, 400
    with proxy(valkey_server.port) as link:
        while not ended:
            shutil.copy(tmp_path / "first.db", tmp_path / f"{count}.db")
            source, name = SqliteStore(tmp_path / f"{count}.db", clock=clock), uuid.uuid4().hex
            target = RedisStore(valkey_server.url(prefix=name), clock=clock)
            through = RedisStore(f"redis://127.0.0.1:{link.port}/0?prefix={name}", clock=clock)
            _cut_for_good(link, way, count)
            try:
                engine_on(source).migrate(through)
                ended = True
            except StoreUnavailableError:
                pass
            link.heal()
            clock.advance(1000)  # the lease of who was cut off
            places |= {whereabouts(source, target, run_id) for run_id in before}
            assert {} == engine_on(source).migrate(target).kept
            same(before, picture(target))
            assert [] == problems(target)
            count += 1_900 if way == "up" else 650
            for one in (source, through, target):
                one.close()
    assert {"source", "between", "target"} == places


def _cut_for_good(server: Any, way: str, count: int) -> None:
    """Cut the connection after so many bytes, and refuse others."""
    left = count

    def decide(link: Link, going: Any, data: bytes) -> None:
        nonlocal left
        kept = data if going != way else data[: max(left, 0)]
        left -= len(data) if going == way else 0
        if kept:
            link.send(going, kept)
        if left <= 0:
            server.refusing = True
            link.cut()

    server.on_bytes = decide


def test_answers_that_were_lost_are_found_again(valkey_server: Valkey, prefix: str, store: RedisStore) -> None:
    """The script of a step is run, and the connection ends before the answer: the same again finds that it is done."""
    lines = seal([a_start(), a_record()], session=1, offset=0, attempt_id="new")
    with proxy(valkey_server.port) as link:
        through = RedisStore(f"redis://127.0.0.1:{link.port}/0?prefix={prefix}", clock=ManualClock())
        assert through.head("r") is None
        run = RunHead("r", 0, 2, 1, False, None, a_head())
        arrival = Arrival(run, (2,), "over there", "t")
        found: list[Any] = []
        head = replace(run, fence=1)
        for call in (
            lambda: through.arrive(arrival),
            lambda: through.stage("r", "t", 0, 0, lines),
            lambda: through.stage("r", "t", 0, 1, lines[1:]),
            lambda: through.land("r", "t"),
            lambda: through.depart(head, Departure("elsewhere", "t")),
        ):
            link.cut_after("down", 1)
            found.append(call())
        through.close()
    assert [arrival, None, None, True, True] == found
    with pytest.raises(RunMovedError):
        store.head("r")


# ---- records in place of others


def test_records_and_head_are_put_in_place_of_others(store: RedisStore) -> None:
    lease, lines = filled(store)
    run = store.head("r")
    assert run is not None
    after = replace(run.head, waiting=(Waiting("go", "w", 1, "other"),), tags={"a": "b"})
    new = [other(line) for line in lines[1:]]
    assert store.rewrite("r", 1, 1, lines[1:], new, head=(run.head, after))
    assert lines_of(store, 1) == [lines[0], *new]
    assert store.head("r") == replace(run, head=after)
    assert [] == problems(store)
    assert store.append("r", None, None, [a_record(2, "resume")], attempt_id="out") == AlreadyCommitted(2, 1)
    assert store.append("r", 1, 3, [a_record()], attempt_id="own", fence=lease.fence) == Committed(3, 1)
    assert store.rewrite("r", 1, 0, [], [], head=(after, run.head))
    assert store.head("r") == replace(run, seq=4)


def test_what_is_not_there_is_not_rewritten(store: RedisStore) -> None:
    _, lines = filled(store)
    run = store.head("r")
    assert run is not None
    new = [other(line) for line in lines]
    wrong: list[tuple[str, int, int, list[bytes], list[bytes], tuple[Head, Head] | None]] = [
        ("r", 1, 0, new, lines, None),
        ("r", 1, 1, lines, new, None),
        ("r", 1, -1, lines, new, None),
        ("r", 2, 0, lines, new, None),
        ("r", -1, 0, lines, new, None),
        ("r", 1, 0, [*lines, lines[0]], [*new, new[0]], None),
        ("r", 1, 0, lines, new[:2], None),
        ("s", 0, 0, lines, new, None),
        ("r", 1, 0, lines, new, (replace(run.head, workflow="x"), run.head)),
    ]
    for run_id, number, seq, old, after, heads in wrong:
        assert not store.rewrite(run_id, number, seq, old, after, head=heads)
    assert lines_of(store, 1) == lines
    assert store.head("r") == run


def test_an_encrypted_store_is_brought_under_another_key(store: RedisStore) -> None:
    engine = driven(EncryptedStore(store, KEYS))
    engine.close()
    inner = RedisStore(f"{_url(store)}", clock=ManualClock())
    rotated = EncryptedStore(inner, ROTATED)
    before = histories(rotated)
    *_, done = rotated.rekey()
    assert done.records == sum(map(len, before.values()))
    assert {b"k2"} == labels(inner)
    assert histories(EncryptedStore(inner, {"k2": ROTATED["k2"]})) == before
    assert [] == problems(inner)
    inner.close()


def _url(store: RedisStore) -> str:
    where = store._server.where
    return f"redis://127.0.0.1:{where.options['port']}/0?prefix={where.prefix}"


def test_runs_that_went_through_it_end_as_they_would_have(store: RedisStore, tmp_path: Path) -> None:
    """Signals that came early, a timer, a child, and a third incarnation go on after two moves."""
    log = tmp_path / "log"
    first, last = (SqliteStore(tmp_path / f"{name}.db") for name in ("first", "last"))
    open_runs(first, log)
    before = picture(first)
    assert 5 == engine_on(first).migrate(store).moved
    same(before, picture(store))
    assert 5 == engine_on(store).migrate(last).moved
    same(before, picture(last))
    finish(last)
    judge(log, last)
    for one in (first, last):
        one.close()
