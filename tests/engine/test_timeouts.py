"""Time-outs of steps, sync and async: what is recorded, what is dropped, and what never holds the process."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any

import pytest

from stepwell import (
    All,
    Flow,
    RetryPolicy,
    RunCompleted,
    RunFailed,
    Step,
    StepTimeoutError,
    current_step,
    failed,
    step,
    workflow,
)
from stepwell.flights import MAX_DAEMONS
from stepwell.lifecycle import LateResult
from stepwell.testing.environments import VirtualClock

from .tools import PATIENCE, HandClock, Tally, Task, eventually, kinds

colour = contextvars.ContextVar("colour", default="none")


class Slow:
    """A step that comes back when the test lets it."""

    def __init__(self) -> None:
        self.entered, self.leave = threading.Event(), threading.Event()
        self.threads: list[threading.Thread] = []
        self.contexts: list[Any] = []

    def __call__(self) -> str:
        self.threads.append(threading.current_thread())
        self.contexts.append(current_step())
        self.entered.set()
        assert self.leave.wait(PATIENCE)
        return "late"

    async def later(self) -> str:
        self.contexts.append(current_step())
        self.entered.set()
        await asyncio.Event().wait()
        return "never"


@pytest.fixture
def slow() -> Any:
    made = Slow()
    yield made
    made.leave.set()
    for thread in made.threads:
        thread.join(PATIENCE)


def one_step(call: Any, **options: Any) -> Any:
    @workflow
    def w() -> Flow[str]:
        try:
            return (yield from Step(call).options(into=str, name="slow", timeout=7, **options))
        except failed(StepTimeoutError) as error:
            return str(error)

    return w


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_step_that_takes_too_long_fails(bench: Any, slow: Slow, kind: str) -> None:
    engine = bench.engine(clock=VirtualClock())
    call: Callable[..., Any] = slow if kind == "sync" else slow.later
    done = engine.start(one_step(call), run_id="r")
    assert (
        RunCompleted("r", "step 'slow' failed: stepwell.errors.StepTimeoutError: step 'slow' took longer than 7 s")
        == done
    )
    assert ["start", "step", "complete"] == kinds(engine)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_step_that_timed_out_is_told(bench: Any, slow: Slow, kind: str) -> None:
    clock = HandClock()
    engine = bench.engine(clock=clock)
    driver = Task(lambda: engine.start(one_step(slow if kind == "sync" else slow.later), run_id="r"))
    assert slow.entered.wait(PATIENCE)
    clock.until_somebody_waits()
    assert not slow.contexts[0].cancelled
    clock.advance(7)
    assert "completed" == driver.result().status
    assert slow.contexts[0].cancelled
    assert slow.contexts[0].wait_cancelled(PATIENCE)


def test_a_late_result_is_dropped_and_reported(bench: Any, slow: Slow) -> None:
    heard: list[Any] = []
    engine = bench.engine(clock=VirtualClock(), on_event=heard.append)
    engine.start(one_step(slow), run_id="r")
    before = kinds(engine)
    slow.leave.set()
    eventually(lambda: any(isinstance(event, LateResult) for event in heard))
    assert [LateResult("r", "slow", 1, "late")] == [event for event in heard if isinstance(event, LateResult)]
    assert before == kinds(engine)


def test_a_late_error_is_reported_too(memory: Any) -> None:
    heard: list[Any] = []
    leave = threading.Event()

    def breaks() -> str:
        assert leave.wait(PATIENCE)
        raise SystemExit("too late to end anything")

    memory.engine(clock=VirtualClock(), on_event=heard.append).start(one_step(breaks), run_id="r")
    leave.set()
    eventually(lambda: any(isinstance(event, LateResult) for event in heard))
    assert [SystemExit] == [type(event.error) for event in heard if isinstance(event, LateResult)]


def test_a_step_within_its_time_is_as_any_other(bench: Any) -> None:
    assert RunCompleted("r", "x") == bench.engine().start(one_step(lambda: "x"), run_id="r")


def test_a_sync_step_with_a_time_out_runs_in_a_daemon_thread_and_the_callers_context(memory: Any) -> None:
    seen: list[Any] = []

    def looks() -> str:
        seen.append((threading.current_thread().daemon, threading.current_thread() is caller, colour.get()))
        colour.set("changed by the step")
        return "x"

    caller = threading.current_thread()
    token = colour.set("red")
    memory.engine().start(one_step(looks), run_id="r")
    assert ([(True, False, "red")], "red") == (seen, colour.get())
    colour.reset(token)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_step_that_timed_out_may_be_tried_again(bench: Any, kind: str) -> None:
    tally, leave, clock = Tally(), threading.Event(), HandClock()
    entered = threading.Event()

    def lucky() -> str:
        if tally.add("call") == 1:
            entered.set()
            assert leave.wait(PATIENCE)
        return f"call {current_step().attempt}"

    async def async_lucky() -> str:
        if tally.add("call") == 1:
            entered.set()
            await asyncio.Event().wait()
        return f"call {current_step().attempt}"

    call: Any = lucky if kind == "sync" else async_lucky
    engine = bench.engine(clock=clock)
    retry = RetryPolicy(2, initial=0, on=StepTimeoutError)
    driver = Task(lambda: engine.start(one_step(call, retry=retry), run_id="r"))
    assert entered.wait(PATIENCE)
    clock.until_somebody_waits()
    clock.advance(7)
    assert RunCompleted("r", "call 2") == driver.result()
    leave.set()
    assert ["start", "attempt", "step", "complete"] == kinds(engine)
    assert engine.history("r")[1].error.is_a(StepTimeoutError)


def test_the_decorator_sets_the_time_out_of_a_function(memory: Any, slow: Slow) -> None:
    @step(timeout=7)
    def decorated() -> str:
        return slow()

    @workflow
    def w() -> Flow[str]:
        return (yield from Step(decorated))

    outcome = memory.engine(clock=VirtualClock()).start(w, run_id="r")
    assert isinstance(outcome, RunFailed)
    assert outcome.failure.is_a(StepTimeoutError)


def test_a_branch_that_timed_out_does_not_hold_its_siblings(bench: Any, slow: Slow) -> None:
    tally = Tally()

    @workflow
    def w() -> Flow[list[Any]]:
        both = yield All(Step(slow).options(timeout=7), tally.step("other"), settle=True)
        return [type(both[0]).__name__, both[1]]

    engine = bench.engine(clock=VirtualClock())
    assert RunCompleted("r", ["StepFailed", 1]) == engine.start(w, run_id="r")


def test_so_many_threads_and_no_more_are_made_for_steps_with_a_time_out(memory: Any) -> None:
    many = MAX_DAEMONS + 20
    heard: list[str] = []
    crowded = threading.Barrier(MAX_DAEMONS)
    tally = Tally()

    def crowd() -> int:
        if tally.add("crowd") <= MAX_DAEMONS:
            crowded.wait(PATIENCE)
        return 1

    @workflow
    def w() -> Flow[int]:
        return sum((yield All(*[Step(crowd).options(timeout=3600) for _ in range(many)])))

    engine = memory.engine(on_event=lambda event: heard.append(type(event).__name__))
    assert RunCompleted("r", many) == engine.start(w, run_id="r")
    assert MAX_DAEMONS == heard[: heard.index("StepCompleted")].count("StepStarted")


HANGS = """
import sys, threading
from stepwell import All, Engine, Flow, Race, Step, Sleep, failed, StepTimeoutError, workflow

def hangs() -> None:
    threading.Event().wait()

async def hangs_too() -> None:
    import asyncio
    await asyncio.Event().wait()

@workflow
def w(kind: str) -> Flow[str]:
    if kind == "branch":
        winner = yield Race(Step(hangs), Sleep(0.05))
        return f"branch {winner[0]} won"
    try:
        yield Step(hangs if kind == "sync" else hangs_too).options(timeout=0.05)
    except failed(StepTimeoutError):
        return "timed out"

engine = Engine(sys.argv[1])
print(engine.start(w, sys.argv[2], run_id="r").unwrap(), flush=True)
if sys.argv[3] == "close":
    engine.close()
"""


@pytest.mark.parametrize("close", ["close", "leave"])
@pytest.mark.parametrize(("kind", "says"), [("sync", "timed out"), ("async", "timed out"), ("branch", "branch 1 won")])
def test_a_step_that_hangs_never_holds_the_exit_of_the_process(
    disk: Any, python: Callable[..., Any], kind: str, says: str, close: str
) -> None:
    process = python(HANGS, disk.url, kind, close)
    said, _ = process.communicate(timeout=60)
    assert (f"{says}\n", 0) == (said, process.returncode)
