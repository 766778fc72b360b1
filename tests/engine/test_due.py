"""run_due, sleeping and waiting: what is driven when, by which clock."""

from __future__ import annotations

import threading
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from stepwell import (
    DivergenceError,
    Flow,
    InvalidInputError,
    InvalidYieldError,
    Now,
    RunCompleted,
    Running,
    RunSuspended,
    Sleep,
    Suspend,
    workflow,
)
from stepwell.testing.environments import EPOCH, VirtualClock

from .tools import HandClock, Tally, Task, kinds


@workflow
def nap(seconds: float) -> Flow[str]:
    yield Sleep(seconds)
    return (yield from Now()).isoformat()


@workflow
def one(name: str) -> Flow[str]:
    yield Now()
    return name


def test_what_was_submitted_is_driven_in_the_order_in_which_it_came(bench: Any) -> None:
    clock = HandClock()
    engine = bench.engine(one, clock=clock)
    for name in ("c", "a", "b"):
        engine.submit(one, name, run_id=name)
        clock.advance(1)
    assert ["c", "a", "b"] == [outcome.unwrap() for outcome in engine.run_due()]
    assert [] == engine.run_due()


def test_the_earliest_due_comes_first(bench: Any) -> None:
    clock = HandClock()
    engine = bench.engine(nap, clock=clock)
    for run_id, seconds in (("late", 300.0), ("early", 100.0), ("later", 500.0)):
        engine.start(nap, seconds, run_id=run_id)
    clock.advance(400)
    assert ["early", "late"] == [outcome.run_id for outcome in engine.run_due()]
    clock.advance(100)
    assert ["later"] == [outcome.run_id for outcome in engine.run_due()]


def test_a_limit_is_kept(bench: Any) -> None:
    engine = bench.engine(one)
    for number in range(5):
        engine.submit(one, str(number), run_id=str(number))
    assert [2, 2, 1, 0] == [len(engine.run_due(limit=2)) for _ in range(4)]


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "2"])
def test_a_limit_is_a_whole_number(memory: Any, limit: Any) -> None:
    with pytest.raises(InvalidInputError, match="limit must be a whole number"):
        memory.engine().run_due(limit)


def test_a_run_that_cannot_be_driven_does_not_stop_the_others(bench: Any) -> None:
    @workflow(name="w")
    def old() -> Flow[None]:
        yield Suspend("go")

    @workflow(name="w")
    def new() -> Flow[None]:
        yield Suspend("stop")

    bench.engine(old).start(old, run_id="diverged")
    stranger = bench.engine()
    stranger.signal("diverged", "go")
    engine = bench.engine(new, one)
    engine.submit(one, "x", run_id="fine")
    assert [RunCompleted("fine", "x")] == engine.run_due()
    assert "DIVERGENCE" == engine.get("diverged").blocked.code
    assert [] == engine.run_due()
    with pytest.raises(DivergenceError):
        engine.advance("diverged")
    assert ["completed"] == [outcome.status for outcome in bench.engine(old).run_due()]


def test_wait_does_not_wait_for_a_blocked_run(bench: Any) -> None:
    @workflow(name="w")
    def old() -> Flow[None]:
        yield Suspend("go")

    @workflow(name="w")
    def new() -> Flow[None]:
        yield Suspend("stop")

    bench.engine(old).start(old, run_id="r")
    engine = bench.engine(new)
    with pytest.raises(DivergenceError):
        engine.advance("r")
    assert RunSuspended("r", ("go",)) == engine.wait("r")


def test_wait_does_not_wait_for_a_run_that_was_blocked_on_its_way(bench: Any) -> None:
    @workflow
    def wrong() -> Flow[None]:
        yield Now()
        yield Sleep(0)
        yield "oops"  # type: ignore[misc]

    engine = bench.engine(wrong)
    with pytest.raises(InvalidYieldError):
        engine.start(wrong, run_id="r")
    assert Running("r") == engine.wait("r", timeout=3600)


@pytest.mark.parametrize("clock", [None, HandClock()])
def test_a_time_out_of_wait_ends_whatever_the_clock_says(bench: Any, clock: Any) -> None:
    engine = bench.engine(one, clock=clock)
    engine.submit(one, "x", run_id="r")
    assert [Running("r")] * 2 == [engine.wait("r", timeout=seconds) for seconds in (0, 0.02)]


def test_a_long_sleep_parks_the_run(bench: Any) -> None:
    clock = HandClock()
    engine = bench.engine(nap, clock=clock)
    parked = engine.start(nap, 5.001, run_id="r")
    assert RunSuspended("r", (), None, EPOCH + timedelta(seconds=5.001)) == parked
    assert parked.due == engine.get("r").due
    assert parked == engine.wait("r") == engine.advance("r")
    clock.advance(5)
    assert [] == engine.run_due()
    clock.advance(1)
    assert ["2026-01-01T00:00:06+00:00"] == [outcome.unwrap() for outcome in engine.run_due()]


def test_a_short_sleep_keeps_the_thread(bench: Any) -> None:
    clock = HandClock()
    engine = bench.engine(nap, clock=clock)
    driver = Task(lambda: engine.start(nap, 0.9, run_id="r"))
    assert 0.9 == clock.until_somebody_waits()
    assert "sleep" == kinds(engine)[-1], "the instant is recorded before it is waited for"
    clock.advance(0.9)
    assert RunCompleted("r", "2026-01-01T00:00:00.900000+00:00") == driver.result()


@pytest.mark.parametrize(
    ("park_after", "status"), [(0, "suspended"), (59, "suspended"), (60, "completed"), (timedelta(1), "completed")]
)
def test_how_long_a_thread_is_kept_can_be_chosen(bench: Any, park_after: Any, status: str) -> None:
    engine = bench.engine(nap, clock=VirtualClock(), park_after=park_after)
    assert status == engine.start(nap, 60.0, run_id="r").status


def test_a_past_instant_is_no_wait(bench: Any) -> None:
    @workflow
    def late() -> Flow[str]:
        yield Sleep(until=EPOCH - timedelta(days=1))
        yield Sleep(0)
        return "awake"

    clock = HandClock()
    assert RunCompleted("r", "awake") == bench.engine(clock=clock, park_after=0).start(late, run_id="r")
    assert [] == clock.waits


def test_a_clock_drives_months_in_no_time(bench: Any) -> None:
    @workflow
    def months() -> Flow[list[str]]:
        days = []
        for _ in range(3):
            yield Sleep(timedelta(days=30))
            now = yield from Now()
            days.append(now.date().isoformat())
        return days

    clock = VirtualClock()
    engine = bench.engine(clock=clock)
    outcome = engine.start(months, run_id="r")
    while isinstance(outcome, RunSuspended):
        assert outcome.due is not None
        clock.advance_to(outcome.due)
        (outcome,) = engine.run_due()
    assert ["2026-01-31", "2026-03-02", "2026-04-01"] == outcome.unwrap()


def test_a_clock_that_jumps_back_fires_nothing_early(bench: Any) -> None:
    """Shows S12 (P6)."""
    clock = HandClock()
    engine = bench.engine(nap, clock=clock)
    due = engine.start(nap, 60.0, run_id="r").due
    clock.advance(-3600)
    assert ([], due) == (engine.run_due(), engine.advance("r").due)
    clock.advance(3660)
    assert 1 == len(engine.run_due())


def test_a_sleeping_run_can_be_found_and_asked(bench: Any) -> None:
    engine = bench.engine(nap, clock=HandClock())
    engine.start(nap, 60.0, run_id="r")
    assert "suspended" == engine.wait("r", timeout=0).status
    assert (["suspended"], [60.0]) == ([run.status for run in engine.runs()], engine.get("r").input)


def test_the_due_instant_survives_the_process(disk: Any) -> None:
    """Shows S12 (P6)."""
    clock, tally = HandClock(), Tally()

    @workflow
    def w() -> Flow[int]:
        yield tally.step("before")
        yield Sleep(timedelta(days=1))
        return (yield from tally.step("after"))

    first = disk.engine(w, clock=clock)
    first.start(w, run_id="r")
    first.close()
    clock.advance(86400)
    assert [RunCompleted("r", 1)] == disk.engine(w, clock=clock).run_due()
    assert 1 == tally["before"]


def test_a_run_that_is_woken_in_two_engines_wakes_once(bench: Any) -> None:
    """Shows S12 (P6)."""
    clock, tally = HandClock(), Tally()
    together = threading.Barrier(2)

    @workflow
    def w() -> Flow[int]:
        yield Sleep(60)
        return (yield from tally.step("woken"))

    engines = [bench.engine(w, clock=clock) for _ in range(2)]
    engines[0].start(w, run_id="r")
    clock.advance(60)

    def wake(engine: Any) -> Any:
        together.wait(30)
        return engine.run_due()

    tasks = [Task(partial(wake, engine)) for engine in engines]
    assert [RunCompleted("r", 1)] == [outcome for task in tasks for outcome in task.result()]
    assert (1, 1) == (tally["woken"], kinds(engines[0]).count("wake"))
