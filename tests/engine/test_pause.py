"""Pause and unpause: only what is in flight is recorded."""

from __future__ import annotations

import threading
from typing import Any

from stepwell import (
    All,
    Flow,
    Now,
    Random,
    RetryPolicy,
    RunCancelled,
    RunCompleted,
    Running,
    RunPaused,
    Sleep,
    Step,
    Suspend,
    Uuid,
    workflow,
)

from .tools import PATIENCE, HandClock, Meddled, Tally, Task, eventually, kinds, steps


def test_a_parked_run_is_paused_in_this_thread(bench: Any) -> None:
    @workflow
    def w() -> Flow[str]:
        return (yield from Suspend("go", into=str))

    engine = bench.engine()
    parked = engine.start(w, run_id="r")
    assert RunPaused("r") == engine.pause("r", "inventory")
    assert ("paused", None) == (engine.get("r").status, engine.get("r").due)
    assert RunPaused("r") == engine.start(w, run_id="r")
    assert RunPaused("r") == engine.wait("r")
    assert [] == engine.run_due()
    assert parked == engine.unpause("r")
    assert RunCompleted("r", "now") == engine.resume("r", "go", "now")
    assert "inventory" == engine.history("r")[2].reason


def test_a_submitted_run_that_is_paused_does_nothing(bench: Any) -> None:
    tally = Tally()

    @workflow
    def w() -> Flow[int]:
        yield Now()
        return (yield from tally.step("work"))

    engine = bench.engine()
    engine.submit(w, run_id="r")
    assert RunPaused("r") == engine.pause("r")
    assert RunPaused("r") == engine.advance("r")
    assert (["start", "pause"], 0) == (kinds(engine), tally["work"])
    assert RunCompleted("r", 1) == engine.unpause("r")


def test_a_running_run_records_what_is_in_flight_and_stops(bench: Any) -> None:
    entered, leave = threading.Barrier(3), threading.Event()
    tally = Tally()

    def hold(name: str) -> str:
        entered.wait(PATIENCE)
        assert leave.wait(PATIENCE)
        return name

    @workflow
    def w() -> Flow[list[Any]]:
        both = yield All(Step(hold, "a"), Step(hold, "b"))
        yield Now()
        return [*both, (yield from tally.step("after"))]

    engine = bench.engine()
    driver = Task(lambda: engine.start(w, run_id="r"))
    entered.wait(PATIENCE)
    assert isinstance(engine.pause("r"), Running)
    leave.set()
    assert RunPaused("r") == driver.result()
    assert (["start", "pause", "step", "step"], 0) == (kinds(engine), tally["after"])
    assert RunCompleted("r", ["a", "b", 1]) == engine.unpause("r")
    assert ["hold", "hold#2", "after"] == sorted(steps(engine), key=lambda name: (name == "after", name))


def test_a_pause_between_two_values_keeps_the_second_from_being_drawn(bench: Any) -> None:
    """After a conflict each value is written by itself, and a pause may land between any two of them."""

    @workflow
    def w() -> Flow[int]:
        yield All(Now(), Random(), Uuid())
        return (yield from Step(int).options(into=int))

    stranger = bench.engine(store=bench.store())
    conflicting = Meddled(bench.store(), 1, lambda: stranger.signal("r", "noise"))
    pausing = Meddled(conflicting, 2, lambda: stranger.pause("r"))
    engine = bench.engine(store=pausing)
    assert RunPaused("r") == engine.start(w, run_id="r")
    assert ["start", "resume", "pause"] == kinds(engine)
    assert RunCompleted("r", 0) == engine.unpause("r")


def test_no_timer_fires_while_a_run_is_paused(bench: Any) -> None:
    @workflow
    def w() -> Flow[str]:
        yield Sleep(60)
        return "slept"

    clock = HandClock()
    engine = bench.engine(clock=clock)
    engine.start(w, run_id="r")
    engine.pause("r")
    clock.advance(3600)
    assert ([], RunPaused("r")) == (engine.run_due(), engine.advance("r"))
    assert RunCompleted("r", "slept") == engine.unpause("r")


def test_a_step_is_not_tried_again_while_its_run_is_paused(bench: Any) -> None:
    tally, clock = Tally(), HandClock()

    def breaks() -> int:
        if tally.add("breaks") == 1:
            raise ConnectionError
        return tally["breaks"]

    @workflow
    def w() -> Flow[int]:
        return (yield from Step(breaks).options(retry=RetryPolicy(2, initial=60, jitter=0)))

    engine = bench.engine(clock=clock)
    engine.start(w, run_id="r")
    engine.pause("r")
    clock.advance(3600)
    assert (RunPaused("r"), 1) == (engine.advance("r"), tally["breaks"])
    assert RunCompleted("r", 2) == engine.unpause("r")


def test_a_signal_is_taken_while_a_run_is_paused(bench: Any) -> None:
    @workflow
    def w() -> Flow[str]:
        got = yield from Suspend("go", into=str)
        yield Now()
        return got

    engine = bench.engine()
    engine.start(w, run_id="r")
    engine.pause("r")
    assert RunPaused("r") == engine.resume("r", "go", "now")
    assert "now" not in kinds(engine)
    assert RunCompleted("r", "now") == engine.unpause("r")


def test_a_cancel_lifts_a_pause(bench: Any) -> None:
    @workflow
    def w() -> Flow[None]:
        yield Suspend("go")

    engine = bench.engine()
    engine.start(w, run_id="r")
    engine.pause("r")
    assert RunCancelled("r") == engine.cancel("r")


def test_pausing_and_unpausing_twice_is_once(bench: Any) -> None:
    @workflow
    def w() -> Flow[None]:
        yield Suspend("go")

    engine = bench.engine()
    parked = engine.start(w, run_id="r")
    assert [RunPaused("r")] * 2 == [engine.pause("r"), engine.pause("r")]
    assert [parked] * 2 == [engine.unpause("r"), engine.unpause("r")]


def test_a_run_can_be_paused_by_a_program_without_its_code(bench: Any) -> None:
    tally = Tally()

    @workflow
    def w() -> Flow[int]:
        yield Suspend("go")
        return (yield from tally.step("work"))

    engine, stranger = bench.engine(), bench.engine()
    engine.start(w, run_id="r")
    assert isinstance(stranger.pause("r"), Running)
    assert [RunPaused("r")] == engine.run_due()
    assert isinstance(stranger.unpause("r"), Running)
    assert ["suspended"] == [outcome.status for outcome in engine.run_due()]


def test_a_pause_wakes_a_run_that_keeps_its_thread(bench: Any) -> None:
    @workflow
    def w() -> Flow[str]:
        yield Sleep(4)
        return "slept"

    clock = HandClock()
    engine = bench.engine(clock=clock)
    driver = Task(lambda: engine.start(w, run_id="r"))
    clock.until_somebody_waits()
    engine.pause("r")
    assert RunPaused("r") == driver.result()
    clock.advance(4)
    eventually(lambda: engine.get("r").lease_until is None)
    assert RunCompleted("r", "slept") == engine.unpause("r")
