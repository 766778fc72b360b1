"""Runs that are kept in memory while they are parked: no replay, and never a state that the store does not have."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from stepwell import Engine, Flow, Race, Signal, Sleep, Step, Suspend, workflow
from stepwell.errors import ClosedError, InvalidInputError, NotFoundError, RunClosedError
from stepwell.lifecycle import LifecycleEvent, StepReplayed

from .conftest import Bench

add = Signal("add", int)
begun: list[int] = []
ended: list[str] = []


def price() -> int:
    return 100


@workflow
def adding(turns: int) -> Flow[int]:
    begun.append(turns)
    try:
        total = yield from Step(price)
        for _ in range(turns):
            total += yield from Suspend(add)
        return total
    finally:
        ended.append("finally")


@pytest.fixture(autouse=True)
def forget() -> None:
    begun.clear()
    ended.clear()


@pytest.mark.parametrize(("keep", "replays"), [(100, 0), (0, 3)])
def test_a_parked_run_is_not_replayed_for_a_signal(bench: Bench, keep: int, replays: int) -> None:
    engine = bench.engine(adding, keep_parked=keep)
    engine.start(adding, 3, run_id="r")
    for number in (1, 2):
        assert "suspended" == engine.resume("r", add, number).status
    assert 106 == engine.resume("r", add, 3).unwrap()
    assert 1 + replays == len(begun)
    again = bench.engine(adding)
    assert [event.kind for event in engine.history("r")] == [event.kind for event in again.history("r")]
    assert ["start", "step", *3 * ["suspend", "resume"], "complete"] == [event.kind for event in engine.history("r")]


def test_what_another_engine_did_meanwhile_is_taken_in(bench: Bench) -> None:
    one, other = bench.engine(adding), bench.engine(adding)
    one.start(adding, 5, run_id="r")
    for number in (1, 2):
        other.resume("r", add, number)
    one.resume("r", add, 3)
    other.signal("r", add, 4)
    other.run_due()
    assert 2 == len(begun)  # each has replayed it once, at most
    assert 115 == one.resume("r", add, 5).unwrap()


def test_a_run_that_another_engine_closed_is_closed(bench: Bench) -> None:
    one, other = bench.engine(adding), bench.engine(adding)
    one.start(adding, 1, run_id="r")
    assert 101 == other.resume("r", add, 1).unwrap()
    with pytest.raises(RunClosedError):
        one.resume("r", add, 2)


@pytest.mark.parametrize("turns", [1, 2])
def test_a_run_id_that_is_used_again_is_another_run(bench: Bench, turns: int) -> None:
    one, other = bench.engine(adding), bench.engine(adding)
    one.start(adding, 2, run_id="r")
    other.cancel("r")
    other.delete("r")
    other.start(adding, turns, run_id="r")
    outcome = one.resume("r", add, 7)
    assert ("completed" if turns == 1 else "suspended") == outcome.status
    assert [2, 2, turns, turns] == begun  # the last one by `one`, which did not go on with the first run


def test_a_new_incarnation_is_another_history(bench: Bench) -> None:
    one, other = bench.engine(adding), bench.engine(adding)
    one.start(adding, 2, run_id="r")
    one.resume("r", add, 1)
    other.reset("r")
    assert "suspended" == one.resume("r", add, 5).status
    assert 106 == one.resume("r", add, 1).unwrap()


def test_a_deleted_run_is_not_there(bench: Bench) -> None:
    one, other = bench.engine(adding), bench.engine(adding)
    one.start(adding, 2, run_id="r")
    other.cancel("r")
    other.delete("r")
    with pytest.raises(NotFoundError):
        one.resume("r", add, 1)


def test_those_parked_longest_ago_are_dropped(bench: Bench) -> None:
    engine = bench.engine(adding, keep_parked=2)
    for name in "abc":
        engine.start(adding, 2, run_id=name)
    assert ["finally"] == ended  # of "a"
    begun.clear()
    for name in "cba":
        engine.resume(name, add, 1)
    assert 1 == len(begun)


def test_the_generators_are_closed_with_the_engine(bench: Bench) -> None:
    engine = bench.engine(adding)
    engine.start(adding, 2, run_id="r")
    assert [] == ended
    engine.close()
    assert ["finally"] == ended


def test_a_listener_is_told_of_each_step_that_is_replayed(bench: Bench) -> None:
    told: list[LifecycleEvent] = []
    engine = bench.engine(adding, on_event=told.append)
    engine.start(adding, 2, run_id="r")
    engine.resume("r", add, 1)
    assert 1 == sum(isinstance(event, StepReplayed) for event in told)


def test_a_state_is_asked_of_what_is_kept(bench: Bench) -> None:
    engine = bench.engine(adding)
    engine.start(adding, 2, run_id="r")
    assert {} == engine.query("r") == engine.query("r")
    engine.resume("r", add, 1)
    assert 103 == engine.resume("r", add, 2).unwrap()
    assert 1 == len(begun)


def test_signals_from_many_threads_count_once_each(bench: Bench) -> None:
    engine = bench.engine(adding, keep_parked=1)
    for name in "ab":
        engine.start(adding, 20, run_id=name)
    with ThreadPoolExecutor(4) as pool:
        for number in range(20):
            for name in "ab":
                pool.submit(engine.signal, name, add, 1, id=str(number))
    while engine.run_due():
        pass
    assert [120, 120] == [engine.get(name).result for name in "ab"]


@pytest.mark.parametrize("wrong", [-1, True, 1.5, None])
def test_a_wrong_number_is_refused(bench: Bench, wrong: object) -> None:
    with pytest.raises(InvalidInputError, match="keep_parked"):
        bench.engine(adding, keep_parked=wrong)


def test_clean_up_that_fails_is_no_business_of_the_run_that_is_parked_next(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """Warnings are errors here, as they are in many test suites."""

    @workflow
    def careless(how: str) -> Flow[int]:
        try:
            return (yield from Suspend("go", into=int))
        finally:
            if how == "raise":
                raise ValueError("clean-up failed")
            if how == "exit":
                raise SystemExit(3)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine = bench.engine(careless, adding, keep_parked=2)
        for how in ("raise", "exit", "raise", "exit"):
            assert "suspended" == engine.start(careless, how).status
        for name in "ab":
            assert "suspended" == engine.start(adding, 2, run_id=name).status
        engine.start(careless, "raise")
        engine.close()
    assert 5 == caplog.text.count("closing the parked run")
    with pytest.raises(ClosedError):
        engine.store.head("a")


@workflow
def raced() -> Flow[int]:
    yield Race(Sleep(3600), Step(looked))
    return (yield from Suspend("go", into=int))


def looked() -> int:
    return 1


def test_a_parked_run_whose_race_is_over_does_not_hold_its_engine() -> None:
    """What a loser of the race was thrown has frames, and they would hold all who called."""
    engine = Engine("memory:", workflows=[raced])
    assert "suspended" == engine.start(raced).status
    gone = weakref.ref(engine)
    del engine
    gc.collect()
    assert gone() is None


LEFT = """
from stepwell import Engine, Flow, Step, Suspend, workflow

@workflow
def waiting() -> Flow[int]:
    try:
        return (yield from Suspend("go", into=int))
    finally:
        yield from Step(print, "clean-up")

def dropped():
    Engine("memory:", workflows=[waiting]).start(waiting)

dropped()
engine = Engine("memory:", workflows=[waiting])
engine.start(waiting)
print("over")
"""


def test_an_engine_that_nobody_closes_leaves_no_generator_to_the_garbage_collector() -> None:
    path = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, "-c", LEFT],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ("over\n", "", 0) == (done.stdout, done.stderr, done.returncode)
