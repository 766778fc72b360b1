"""An engine goes on working while its runs move to another store, and works with that one then."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from stepwell import (
    Engine,
    EventMismatchError,
    Flow,
    InvalidInputError,
    NotFoundError,
    RunMovedError,
    Step,
    StoreMisconfiguredError,
    workflow,
)
from stepwell.store import Lease
from stepwell.swapping import BothStores
from stepwell.testing import VirtualClock
from stepwell.worker import Worker
from stepwell_stores import open_store

from .conftest import Pair
from .zoo import EVERY, KINDS, asking, engine_on, fill, finish, heads, judge, picture, plain, refuses, same

entered, leave = threading.Event(), threading.Event()


def hold() -> str:
    entered.set()
    assert leave.wait(60)
    return "held"


@workflow
def held() -> Flow[str]:
    return (yield from Step(hold))


@pytest.fixture(autouse=True)
def _anew() -> None:
    entered.clear()
    leave.clear()


def test_the_engine_works_with_the_new_store(pair: Pair, tmp_path: Path) -> None:
    source, target, log = pair.source.store(), pair.target.store(), tmp_path / "log"
    fill(source, log, KINDS)
    before = picture(source)
    engine = engine_on(source)
    assert len(before) == engine.swap_store(target).moved
    assert engine.store is target
    same(before, picture(target))
    refuses(source, "r0003")
    finish(target)
    judge(log, target)
    assert "completed" == engine.get("r0003").status


def test_it_works_meanwhile_and_what_is_driven_moves_when_it_has_ended(pair: Pair, tmp_path: Path) -> None:
    source, target, log = pair.source.store(), pair.target.store(), str(tmp_path / "log")
    engine = Engine(source, [*EVERY, held], clock=VirtualClock(), park_after=0)
    engine.start(asking, log, "a", run_id="a")
    drives = threading.Thread(target=lambda: engine.start(held, run_id="held"))
    drives.start()
    assert entered.wait(60)
    moved, known = [], threading.Event()

    def swap() -> None:
        moved.append(engine.swap_store(target, on_run=lambda *_: known.set(), wait=60))

    swaps = threading.Thread(target=swap)
    swaps.start()
    assert known.wait(60)
    assert isinstance(engine.store, BothStores)
    engine.start(plain, log, "new", run_id="new")
    assert "completed" == engine.get("new").status
    assert "running" == engine.get("held").status
    assert {"a", "held", "new"} == {record.id for record in engine.runs()}
    assert "completed" == engine.resume("a", "go").status
    with pytest.raises(NotFoundError):
        engine.get("nobody")
    leave.set()
    drives.join(60)
    swaps.join(60)
    assert not swaps.is_alive()
    assert {} == moved[0].kept
    assert engine.store is target
    assert "held" == engine.start(held, run_id="held").unwrap()
    assert {"a", "held", "new"} == {run.run_id for run in heads(target)}
    assert [] == list(heads(source))


def test_runs_that_others_hold_stay_and_the_engine_works_with_both(pair: Pair, tmp_path: Path) -> None:
    source, target, log = pair.source.store(), pair.target.store(), str(tmp_path / "log")
    engine = engine_on(source)
    for number in range(7):
        engine.start(asking, log, str(number), run_id=f"r{number}")
        engine.start(plain, log, f"c{number}", run_id=f"c{number}")
    leases = [source.claim(f"r{number}", "somebody", 60) for number in (1, 4)]
    done = engine.swap_store(target, wait=0)
    assert ({"busy": 2}, {"r1": "busy", "r4": "busy"}) == (done.kept, done.kept_ids)
    engine.submit(plain, log, "new", run_id="new")
    everything = [record.id for record in engine.runs()]
    assert {*(f"r{n}" for n in range(7)), *(f"c{n}" for n in range(7)), "new"} == set(everything)
    pages: list[str] = []
    while page := engine.runs(limit=2, after=pages[-1] if pages else None):
        pages += [record.id for record in page]
    assert everything == pages
    assert [f"c{number}" for number in range(7)] == sorted(head.run_id for head in engine.store.closed(limit=99))
    assert 15 == sum(engine.size().runs.values())
    assert ["completed"] == [outcome.status for outcome in engine.run_due()]
    assert [] == [part.problem for part in engine.store.verify() if part.problem is not None]
    with pytest.raises(InvalidInputError, match="already"):
        engine.swap_store("memory:")
    for lease in leases:
        assert isinstance(lease, Lease)
        source.release(lease)
    assert "completed" == engine.resume("r1", "go").status
    assert 2 == engine.swap_store(target).moved
    assert engine.store is target
    with pytest.raises(EventMismatchError):
        engine.resume("r2", "stop")
    refuses(source, "r1")


def test_a_worker_of_the_engine_goes_on(tmp_path: Path) -> None:
    source, target = open_store(f"sqlite:///{tmp_path}/a.db"), open_store(f"file:{tmp_path}/b")
    log = tmp_path / "log"
    with Engine(source, EVERY) as engine:
        for number in range(60):
            engine.submit(plain, str(log), f"r{number}", run_id=f"r{number}")
        worker = Worker(engine, threads=2, poll=0.01)
        works = threading.Thread(target=worker.run)
        works.start()
        done = engine.swap_store(target, wait=60)
        assert {} == done.kept
        for number in range(60):
            engine.wait(f"r{number}", timeout=60)
        worker.stop()
        works.join(60)
        assert {"completed": 60} == engine.size().runs
        assert 120 == len(set(log.read_text().splitlines())) == len(log.read_text().splitlines())
        with pytest.raises(RunMovedError):
            source.head("r0")


def test_what_is_no_place_to_move_to_is_refused(tmp_path: Path) -> None:
    class Bare:
        """A store that can't move runs."""

        create = append = read = head = claim = print

    engine = Engine(f"sqlite:///{tmp_path}/a.db", EVERY)
    engine.start(plain, str(tmp_path / "log"), "r", run_id="r")
    with pytest.raises(InvalidInputError, match="name another"):
        engine.swap_store(f"sqlite:///{tmp_path}/a.db")
    with pytest.raises(StoreMisconfiguredError, match=r"no arrive\(\)"):
        engine.swap_store(Bare())  # type: ignore[arg-type]
    with pytest.raises(StoreMisconfiguredError, match="no directory"):
        engine.swap_store(f"sqlite:///{tmp_path}/nowhere/a.db")
    with pytest.raises(InvalidInputError, match="wait"):
        engine.swap_store("memory:", wait=-1)
    assert engine.store.head("r") is not None
    assert not isinstance(engine.store, BothStores)
    engine.close()
