"""Cancel: what it interrupts, what it lets end, what it never starts."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import pytest

from stepwell import (
    All,
    Cancelled,
    Flow,
    InvalidInputError,
    Race,
    RetryPolicy,
    RunCancelled,
    RunClosedError,
    RunCompleted,
    RunFailed,
    Running,
    Sleep,
    Step,
    StepFailed,
    Suspend,
    current_step,
    workflow,
)

from .tools import PATIENCE, HandClock, Meddled, Tally, Task, fold, kinds, steps


class Held:
    """A step that waits until the test lets it go."""

    def __init__(self) -> None:
        self.entered, self.leave = threading.Event(), threading.Event()
        self.error: Exception | None = None
        self.context: Any = None

    def __call__(self) -> str:
        self.context = current_step()
        self.entered.set()
        assert self.leave.wait(PATIENCE)
        if self.error is not None:
            raise self.error
        return "held"

    def step(self, **options: Any) -> Step[str]:
        return Step(self).options(name="held", into=str, **options)


@pytest.fixture
def held() -> Held:
    return Held()


def test_a_parked_run_is_cancelled_in_this_thread(bench: Any) -> None:
    @workflow
    def w() -> Flow[None]:
        yield Suspend("go")

    engine = bench.engine()
    engine.start(w, run_id="r")
    assert RunCancelled("r", "enough") == engine.cancel("r", "enough")
    assert ["start", "suspend", "cancel", "cancelled"] == kinds(engine)
    assert ("cancelled", ()) == (engine.get("r").status, engine.get("r").waiting_for)


def test_a_submitted_run_is_cancelled_before_it_does_anything(bench: Any) -> None:
    tally = Tally()

    @workflow
    def w() -> Flow[None]:
        yield tally.step("never")

    engine = bench.engine()
    engine.submit(w, run_id="r")
    assert RunCancelled("r") == engine.cancel("r")
    assert (0, ["start", "cancel", "cancelled", "cancelled"]) == (tally["never"], kinds(engine))


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
def test_a_closed_run_cannot_be_cancelled(bench: Any, end: str) -> None:
    @workflow
    def w() -> Flow[None]:
        yield Suspend("go")
        if end == "failed":
            raise ValueError

    engine = bench.engine()
    engine.start(w, run_id="r")
    engine.cancel("r") if end == "cancelled" else engine.resume("r", "go")
    for force in (False, True):
        with pytest.raises(RunClosedError, match=end) as caught:
            engine.cancel("r", force=force)
        assert end == caught.value.status
    with pytest.raises(RunClosedError):
        engine.pause("r")
    with pytest.raises(RunClosedError):
        engine.unpause("r")


def test_a_reason_is_text(memory: Any) -> None:
    with pytest.raises(InvalidInputError, match="reason must be text or None, got 7"):
        memory.engine().cancel("r", 7)


def test_a_step_in_the_drivers_own_thread_is_told(bench: Any) -> None:
    told: list[bool] = []
    entered = threading.Event()

    def patient() -> str:
        entered.set()
        told.append(current_step().wait_cancelled(PATIENCE))
        return "told"

    @workflow
    def w() -> Flow[None]:
        try:
            yield Step(patient)
            yield Suspend("never")
        finally:
            yield Step(lambda: told.append(current_step().cancelled)).options(name="clean up", into=None)

    engine = bench.engine()
    driver = Task(lambda: engine.start(w, run_id="r"))
    assert entered.wait(PATIENCE)
    engine.cancel("r")
    assert RunCancelled("r") == driver.result()
    assert [True, False] == told


@pytest.mark.parametrize("where", ["same engine", "another engine"])
def test_a_running_run_is_cancelled_at_its_next_yield(bench: Any, held: Held, where: str) -> None:
    tally = Tally()

    @workflow
    def w() -> Flow[None]:
        yield held.step()
        yield tally.step("never")

    engine = bench.engine()
    driver = Task(lambda: engine.start(w, run_id="r"))
    assert held.entered.wait(PATIENCE)
    other = engine if where == "same engine" else bench.engine(w)
    assert isinstance(other.cancel("r", "enough"), Running)
    held.leave.set()
    assert RunCancelled("r", "enough") == driver.result()
    assert (["held"], 0) == (steps(engine), tally["never"])


def test_a_step_in_flight_keeps_its_real_outcome_so_that_it_can_be_undone(bench: Any, held: Held) -> None:
    undone = []

    def undo(what: str) -> None:
        undone.append(what)

    @workflow
    def w() -> Flow[None]:
        got = yield held.step(timeout=600)
        try:
            yield Sleep(1)
        finally:
            yield Step(undo, got)

    engine = bench.engine()
    driver = Task(lambda: engine.start(w, run_id="r"))
    assert held.entered.wait(PATIENCE)
    engine.cancel("r")
    assert held.context.wait_cancelled(PATIENCE)
    held.leave.set()
    assert RunCancelled("r") == driver.result()
    assert (["held"], ["held", "undo"]) == (undone, steps(engine))


def test_a_step_in_flight_that_fails_is_not_tried_again(bench: Any, held: Held) -> None:
    seen: list[str] = []
    held.error = ConnectionError("no line")

    @workflow
    def w() -> Flow[None]:
        try:
            yield held.step(timeout=600, retry=RetryPolicy(5, initial=0))
        except StepFailed as error:
            seen.append(error.failure.message)
            yield Sleep(1)

    engine = bench.engine()
    driver = Task(lambda: engine.start(w, run_id="r"))
    assert held.entered.wait(PATIENCE)
    engine.cancel("r")
    assert held.context.wait_cancelled(PATIENCE)
    held.leave.set()
    assert RunCancelled("r") == driver.result()
    assert ["no line"] == seen
    assert "attempt" not in kinds(engine)


def test_a_cancel_that_lands_before_a_failed_attempt_is_recorded_makes_it_the_last(bench: Any) -> None:
    seen: list[str] = []

    def breaks() -> None:
        raise ConnectionError("no line")

    @workflow
    def w() -> Flow[None]:
        try:
            yield Step(breaks).options(retry=RetryPolicy(5, initial=0))
        except StepFailed as error:
            seen.append(error.failure.message)
            raise

    outside = bench.engine(store=bench.store())
    engine = bench.engine(store=Meddled(bench.store(), 1, lambda: outside.cancel("r")))
    outcome = engine.start(w, run_id="r")
    assert isinstance(outcome, RunFailed)
    assert (["no line"], 1) == (seen, outcome.failure.attempts)
    assert ["start", "cancel", "step", "error"] == kinds(engine)


def test_a_step_that_waits_for_its_next_attempt_is_not_tried_again(bench: Any) -> None:
    tally, clock = Tally(), HandClock()

    def breaks() -> None:
        tally.add("breaks")
        raise ConnectionError

    @workflow
    def w() -> Flow[None]:
        yield Step(breaks).options(retry=RetryPolicy(5, initial=60))

    engine = bench.engine(clock=clock)
    engine.start(w, run_id="r")
    clock.advance(3600)
    assert RunCancelled("r") == engine.cancel("r")
    assert (1, ["start", "attempt", "cancel", "cancelled", "cancelled"]) == (tally["breaks"], kinds(engine))


def test_a_sleep_is_interrupted_at_once(bench: Any) -> None:
    @workflow
    def w() -> Flow[None]:
        yield Sleep(3)

    clock = HandClock()
    engine = bench.engine(clock=clock)
    driver = Task(lambda: engine.start(w, run_id="r"))
    clock.until_somebody_waits()
    engine.cancel("r")
    assert RunCancelled("r") == driver.result()
    assert ["start", "sleep", "cancel", "cancelled"] == kinds(engine)


def test_a_parked_sleep_is_interrupted_at_once(bench: Any) -> None:
    @workflow
    def w() -> Flow[None]:
        yield Sleep(86400)

    engine = bench.engine()
    assert engine.start(w, run_id="r").due is not None
    assert RunCancelled("r") == engine.cancel("r")


def test_clean_up_is_performed(bench: Any) -> None:
    tally = Tally()

    @workflow
    def w() -> Flow[str]:
        try:
            yield Suspend("go")
        finally:
            yield tally.step("release")
            yield All(tally.step("tell a"), tally.step("tell b"))
        return "never"

    engine = bench.engine()
    engine.start(w, run_id="r")
    assert RunCancelled("r") == engine.cancel("r")
    assert ["release", "tell a", "tell b"] == steps(engine)


def test_a_workflow_that_catches_the_cancel_is_cancelled_all_the_same(bench: Any) -> None:
    @workflow
    def w() -> Flow[str]:
        with contextlib.suppress(Cancelled):
            yield Suspend("go")
        return "nevertheless"

    engine = bench.engine()
    engine.start(w, run_id="r")
    assert RunCancelled("r") == engine.cancel("r")


def test_an_error_during_clean_up_fails_the_run(bench: Any) -> None:
    @workflow
    def w() -> Flow[str]:
        try:
            yield Suspend("go")
        except Cancelled as cancel:
            raise LookupError("no key for the lock") from cancel
        return "never"

    engine = bench.engine()
    engine.start(w, run_id="r")
    outcome = engine.cancel("r")
    assert isinstance(outcome, RunFailed)
    assert outcome.failure.is_a(LookupError)


def test_cancelling_twice_is_cancelling_once(bench: Any, held: Held) -> None:
    @workflow
    def w() -> Flow[None]:
        try:
            yield Suspend("go")
        finally:
            yield held.step()

    engine = bench.engine()
    engine.start(w, run_id="r")
    first = Task(lambda: engine.cancel("r", "first"))
    assert held.entered.wait(PATIENCE)
    assert isinstance(engine.cancel("r", "second"), Running)
    held.leave.set()
    assert RunCancelled("r", "first") == first.result()
    assert ["held"] == steps(engine)


def test_branches_are_cancelled_together(bench: Any, held: Held) -> None:
    tally = Tally()

    def later() -> Flow[None]:
        yield Suspend("go")
        yield tally.step("never")

    @workflow
    def w() -> Flow[None]:
        yield All(held.step(), later(), Race(Sleep(86400), Suspend("other")))

    engine = bench.engine()
    driver = Task(lambda: engine.start(w, run_id="r"))
    assert held.entered.wait(PATIENCE)
    engine.cancel("r")
    assert held.context.wait_cancelled(PATIENCE)
    held.leave.set()
    assert RunCancelled("r") == driver.result()
    assert (["held"], 0) == (steps(engine), tally["never"])
    assert fold(w, engine.history("r")).closed


def test_a_cancel_that_comes_after_the_last_step_leaves_the_result(bench: Any) -> None:
    tally = Tally()

    @workflow
    def w() -> Flow[int]:
        return (yield from tally.step("only"))

    outside = bench.engine(store=bench.store())
    store = Meddled(bench.store(), 2, lambda: outside.cancel("r"))  # 1: the step, 2: the end
    engine = bench.engine(store=store)
    assert RunCompleted("r", 1) == engine.start(w, run_id="r")
    assert ["start", "step", "cancel", "complete"] == kinds(engine)
