"""Heartbeats: what a step tells of its progress, what is recorded of it, and what silence and a cancel come to."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from stepwell import (
    All,
    Cancelled,
    Flow,
    InvalidInputError,
    RetryPolicy,
    RunCancelled,
    RunCompleted,
    Step,
    StepTimeoutError,
    current_step,
    failed,
    step,
    workflow,
)
from stepwell import events as e
from stepwell.testing import simulate
from stepwell.testing.simulating import REAL

from .tools import PATIENCE, HandClock, Tally, Task, eventually, fold, kinds


def told(engine: Any, run_id: str = "r") -> list[Any]:
    """The details that are recorded."""
    return [json.loads(bytes(event.details)) for event in engine.history(run_id) if isinstance(event, e.Heartbeat)]


class Ticker:
    """A step that beats when the test says so."""

    def __init__(self) -> None:
        self.entered, self.moved, self.go = threading.Event(), threading.Event(), threading.Event()
        self.orders: list[Any] = []
        self.context: Any = None

    def order(self, *details: Any) -> None:
        """Have it beat once for each, and wait until it has."""
        self.orders = list(details)
        self.moved.clear()
        self.go.set()
        assert self.moved.wait(PATIENCE)

    def __call__(self) -> str:
        self.context = current_step()
        self.entered.set()
        while True:
            assert self.go.wait(PATIENCE)
            self.go.clear()
            for details in self.orders:
                if details == "end":
                    return "done"
                self.context.heartbeat(details)
            self.moved.set()

    def end(self) -> None:
        self.orders = ["end"]
        self.go.set()


@pytest.fixture
def ticker() -> Any:
    made = Ticker()
    yield made
    made.end()


def one_step(call: Any, **options: Any) -> Any:
    @workflow
    def w() -> Flow[Any]:
        return (yield from Step(call).options(into=Any, name="long", **options))

    return w


# ---- what is recorded


def test_the_newest_details_are_recorded_while_the_step_runs_and_few_appends_do(bench: Any, ticker: Ticker) -> None:
    clock = HandClock()
    engine = bench.engine(clock=clock)
    driver = Task(lambda: engine.start(one_step(ticker, heartbeat_timeout=3600), run_id="r"))
    assert ticker.entered.wait(PATIENCE)
    for second in range(3):
        clock.until_somebody_waits()
        ticker.order(*[{"row": second * 1000 + number} for number in range(1000)])
        clock.advance(1.5)
        eventually(lambda: len(told(engine)) == second + 1)  # noqa: B023 - it is called here
    ticker.end()
    assert RunCompleted("r", "done") == driver.result()
    assert [{"row": 999}, {"row": 1999}, {"row": 2999}] == told(engine)
    assert ["start", "heartbeat", "heartbeat", "heartbeat", "step", "complete"] == kinds(engine)
    assert fold(one_step(ticker, heartbeat_timeout=3600), engine.history("r")).closed


def test_signs_of_life_alone_are_not_recorded(bench: Any, ticker: Ticker) -> None:
    clock = HandClock()
    engine = bench.engine(clock=clock)
    driver = Task(lambda: engine.start(one_step(ticker, heartbeat_timeout=30), run_id="r"))
    assert ticker.entered.wait(PATIENCE)
    for _ in range(4):
        ticker.order(None)
        clock.until_somebody_waits()
        clock.advance(20)
    ticker.end()
    assert RunCompleted("r", "done") == driver.result()
    assert ["start", "step", "complete"] == kinds(engine)


@pytest.mark.parametrize("options", [{}, {"heartbeat_timeout": 60}, {"timeout": 60}])
def test_the_next_attempt_knows_how_far_the_last_one_was(bench: Any, options: Any) -> None:
    def imports() -> list[Any]:
        context = current_step()
        before = context.last_details
        context.heartbeat({"row": 5 * context.attempt})
        if context.attempt < 3:
            raise OSError("down")
        return [before, context.last_details]

    engine = bench.engine()
    done = engine.start(one_step(imports, retry=RetryPolicy(3, initial=0), **options), run_id="r")
    assert RunCompleted("r", [{"row": 10}, {"row": 10}]) == done
    assert [{"row": 5}, {"row": 10}] == told(engine)[:2]
    recorded = [kind for kind in kinds(engine) if kind != "heartbeat"]
    assert ["start", "attempt", "attempt", "step", "complete"] == recorded


def test_a_first_attempt_has_nothing_to_go_on_from(memory: Any) -> None:
    def looks() -> Any:
        return [current_step().last_details]

    assert [None] == memory.engine().start(one_step(looks), run_id="r").unwrap()


def test_a_lone_step_in_the_callers_thread_has_its_details_recorded_too(bench: Any) -> None:
    """There the heartbeat itself writes: the session has no other thread."""
    clock, during = HandClock(), []

    def imports() -> str:
        for row in range(3):
            current_step().heartbeat(row)
            during.append(told(engine))
            current_step().heartbeat(row + 100)
            clock.advance(1)
        return "done"

    engine = bench.engine(clock=clock)
    assert RunCompleted("r", "done") == engine.start(one_step(imports), run_id="r")
    assert [[0], [0, 1], [0, 1, 2]] == during


def test_a_signal_may_land_between_two_heartbeats_of_a_lone_step(bench: Any) -> None:
    clock = HandClock()
    other = bench.engine()

    def imports() -> str:
        for row in range(4):
            other.signal("r", "note", row)
            current_step().heartbeat(row)
            clock.advance(1)
        return "done"

    engine = bench.engine(clock=clock)
    assert RunCompleted("r", "done") == engine.start(one_step(imports), run_id="r")
    assert 4 == kinds(engine).count("resume")
    assert kinds(engine)[-2:] == ["step", "complete"]
    assert fold(one_step(imports), engine.history("r")).closed


def test_several_steps_tell_of_themselves_in_one_append(bench: Any) -> None:
    clock = HandClock()
    tickers = [Ticker(), Ticker()]

    @workflow
    def w() -> Flow[int]:
        return len((yield All(*[Step(t).options(name=f"t{n}", into=str) for n, t in enumerate(tickers)])))

    engine = bench.engine(clock=clock)
    driver = Task(lambda: engine.start(w, run_id="r"))
    clock.until_somebody_waits()
    for number, one in enumerate(tickers):
        assert one.entered.wait(PATIENCE)
        one.order(number)
    clock.advance(1.5)
    eventually(lambda: len(told(engine)) == 2)
    for one in tickers:
        one.end()
    assert RunCompleted("r", 2) == driver.result()


@pytest.mark.parametrize("wrong", [object(), {1: 2}, {"a": {1, 2}}, float("nan"), b"x", "x" * 70_000])
def test_details_that_can_not_be_recorded_are_refused(memory: Any, wrong: Any) -> None:
    def tells() -> str:
        with pytest.raises(InvalidInputError, match="a heartbeat's details must be plain JSON"):
            current_step().heartbeat(wrong)
        return "fine"

    engine = memory.engine()
    assert RunCompleted("r", "fine") == engine.start(one_step(tells), run_id="r")
    assert ["start", "step", "complete"] == kinds(engine)


def test_details_are_taken_as_they_were(memory: Any) -> None:
    def tells() -> None:
        rows = [1]
        current_step().heartbeat(rows)
        rows.append(2)
        raise OSError("down")

    engine = memory.engine()
    engine.start(one_step(tells), run_id="r")
    assert [[1]] == told(engine)


# ---- retry and fork


def test_a_retried_run_goes_on_from_the_details_and_a_fork_begins_anew(bench: Any) -> None:
    tally = Tally()

    def first() -> int:
        return 1

    def imports() -> Any:
        before = current_step().last_details
        current_step().heartbeat({"row": 7})
        if tally.add("imports") == 1:
            raise OSError("down")
        return [before]

    @workflow
    def w() -> Flow[Any]:
        yield Step(first)
        return (yield from Step(imports).options(into=Any))

    engine = bench.engine(w)
    assert "failed" == engine.start(w, run_id="r").status
    assert ["start", "step", "heartbeat", "step", "error"] == kinds(engine)
    assert RunCompleted("r", [{"row": 7}]) == engine.retry("r")
    assert ["start", "step", "heartbeat", "retry"] == kinds(engine)[:4]
    assert RunCompleted("f", [None]) == engine.fork("r", before="imports", new_run_id="f")


def test_details_of_a_step_that_is_not_pending_are_a_divergence(memory: Any) -> None:
    engine = memory.engine()
    engine.start(one_step(lambda: 1), run_id="r")
    start, done, _ = engine.history("r")
    beat = e.Heartbeat(at="0", step_id="long", attempt=1, details=done.result, timestamp=done.timestamp)
    assert b"1" == fold(one_step(lambda: 1), [start, beat]).pending["0"].details
    for history in ([start, done, beat], [start, e.Heartbeat(at="1", step_id="long", attempt=1, details=done.result)]):
        with pytest.raises(Exception, match="heartbeat"):
            fold(one_step(lambda: 1), history)


# ---- silence


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_attempt_that_is_silent_for_too_long_is_timed_out_and_tried_again(bench: Any, kind: str) -> None:
    clock, entered, leave, heard = HandClock(), threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        current_step().heartbeat("half way")
        entered.set()

    def imports() -> Any:
        context = current_step()
        if context.attempt == 1:
            first()
            assert leave.wait(PATIENCE)
            with pytest.raises(Cancelled):
                context.heartbeat("too late")
            heard.set()
        return [context.attempt, context.last_details]

    async def imports_async() -> Any:
        if current_step().attempt == 1:
            first()
            await asyncio.Event().wait()
        return [current_step().attempt, current_step().last_details]

    engine = bench.engine(clock=clock)
    policy = RetryPolicy(2, initial=0, on=StepTimeoutError)
    call: Any = imports if kind == "sync" else imports_async
    driver = Task(lambda: engine.start(one_step(call, heartbeat_timeout=30, retry=policy), run_id="r"))
    assert entered.wait(PATIENCE)
    clock.until_somebody_waits()
    clock.advance(30)
    assert RunCompleted("r", [2, "half way"]) == driver.result()
    (attempt,) = [event for event in engine.history("r") if isinstance(event, e.Attempt)]
    assert "step 'long' sent no heartbeat for 30 s" == attempt.error.message
    assert ["half way"] == told(engine)
    leave.set()
    assert kind == "async" or heard.wait(PATIENCE)
    assert ["half way"] == told(engine), "what comes from an attempt that is over is dropped"


def test_the_time_between_heartbeats_counts_and_the_whole_time_besides(bench: Any, ticker: Ticker) -> None:
    clock = HandClock()
    engine = bench.engine(clock=clock)

    @workflow
    def w() -> Flow[str]:
        try:
            return (yield from Step(ticker).options(into=str, name="long", heartbeat_timeout=30, timeout=50))
        except failed(StepTimeoutError) as error:
            return str(error.failure.message)

    driver = Task(lambda: engine.start(w, run_id="r"))
    assert ticker.entered.wait(PATIENCE)
    for _ in range(2):
        clock.until_somebody_waits()
        clock.advance(20)
        ticker.order(None)
    clock.until_somebody_waits()
    clock.advance(20)
    assert RunCompleted("r", "step 'long' took longer than 50 s") == driver.result()


def test_the_decorator_sets_the_time_between_heartbeats(memory: Any) -> None:
    @step(heartbeat_timeout=timedelta(minutes=1))
    def slow() -> None: ...

    assert (60.0, None) == (Step(slow).given.heartbeat_timeout, Step(slow).given.timeout)
    assert 5.0 == Step(slow).options(heartbeat_timeout=5).options(name="x").given.heartbeat_timeout
    for wrong in (0, -1, "1 h"):
        with pytest.raises(InvalidInputError, match="heartbeat_timeout"):
            Step(slow).options(heartbeat_timeout=wrong)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]


# ---- cancel


def beats_until_told(entered: threading.Event) -> Callable[..., Any]:
    def beats() -> None:
        entered.set()
        while True:
            current_step().heartbeat()
            current_step().wait_cancelled(0.01)

    return beats


@pytest.mark.parametrize("how", ["lone", "apart", "async", "branch"])
@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_a_heartbeat_ends_a_step_that_nobody_wants_any_more(bench: Any, how: str, where: str) -> None:
    entered, tally = threading.Event(), Tally()
    sync = beats_until_told(entered)

    async def beats_async() -> None:
        entered.set()
        while True:
            current_step().heartbeat()
            await asyncio.sleep(0.01)

    def tidy() -> int:
        current_step().heartbeat("clean-up is no step that nobody wants")
        return tally.add("tidy")

    @workflow
    def w() -> Flow[None]:
        long: Step[None] = Step(beats_async if how == "async" else sync).options(
            name="long", heartbeat_timeout=60 if how == "apart" else None
        )
        try:
            yield All(long, tally.step("other")) if how == "branch" else long
        finally:
            yield Step(tidy)

    engine = bench.engine(w)
    driver = Task(lambda: engine.start(w, run_id="r"))
    assert entered.wait(PATIENCE)
    (engine if where == "here" else bench.engine(w)).cancel("r", "enough")
    assert RunCancelled("r", "enough") == driver.result()
    found = kinds(engine)
    assert found.index("cancel") < found.index("cancelled")
    ended = [event.at for event in engine.history("r") if isinstance(event, e.Cancelled)]
    assert (1, None) == (tally["tidy"], ended[-1])
    assert ("0.0.0" if how == "branch" else "0") in ended
    assert fold(w, engine.history("r")).closed


def test_a_step_that_raises_cancelled_of_itself_has_failed(bench: Any) -> None:
    """Nobody has told it."""

    def wrong() -> None:
        raise Cancelled

    engine = bench.engine()
    outcome = engine.start(one_step(wrong), run_id="r")
    assert ("failed", ["start", "step", "error"]) == (outcome.status, kinds(engine))


def test_a_step_that_is_told_by_mistake_has_failed(bench: Any) -> None:
    """The history holds no cancel."""

    def told_wrongly() -> None:
        current_step().cancel()
        current_step().heartbeat()

    engine = bench.engine()
    outcome = engine.start(one_step(told_wrongly, retry=RetryPolicy(3, initial=0)), run_id="r")
    assert ("failed", ["start", "step", "error"]) == (outcome.status, kinds(engine))


def test_the_loser_of_all_hears_of_it(bench: Any) -> None:
    entered = threading.Event()

    def breaks() -> None:
        assert entered.wait(PATIENCE)
        raise OSError("down")

    @workflow
    def w() -> Flow[None]:
        yield All(Step(beats_until_told(entered)).options(name="long"), Step(breaks))

    engine = bench.engine(w)
    outcome = engine.start(w, run_id="r")
    assert "failed" == outcome.status
    assert "cancelled" in kinds(engine)


# ---- simulations


def test_a_simulation_gives_details_on_too() -> None:
    def imports() -> Any:
        context = current_step()
        before = context.last_details
        context.heartbeat(context.attempt)
        if context.attempt < 3:
            raise OSError("down")
        return [before]

    for options in ({}, {"heartbeat_timeout": 5.0}):
        flow = one_step(imports, retry=RetryPolicy(3), **options)
        for crash in (None, "every"):
            assert [2] == simulate(flow, fakes={"long": REAL}, crash_after=crash).result


# ---- a crash

IMPORT = """
import sys
from stepwell import All, Engine, Flow, Step, current_step, workflow

def imports() -> list:
    context = current_step()
    before = context.last_details
    for row in range(before or 0, 5):
        context.heartbeat(row)
        if before is None and row == 3:
            while True:  # beats on, so that the newest is recorded within a second
                context.heartbeat(row)
                if how == "lone" or recorded():
                    if recorded():
                        print("here", flush=True)
                        sys.stdin.read()
                context.wait_cancelled(0.01)
    return [before]

def recorded() -> bool:
    last = [event for event in Engine(url).history("r") if event.kind == "heartbeat"][-1:]
    return bool(last) and bytes(last[0].details) == b"3"

def other() -> None: ...

@workflow
def w(how: str) -> Flow[list]:
    long = Step(imports).options(heartbeat_timeout=60 if how == "apart" else None)
    if how == "branch":
        return (yield All(long, Step(other)))[0]
    return (yield from long)

url, how = sys.argv[1:]
engine = Engine(url, [w])
print(engine.start(w, how, run_id="r").unwrap(), flush=True)
"""


@pytest.mark.parametrize("how", ["lone", "apart", "branch"])
def test_after_a_crash_the_step_goes_on_from_what_it_told_last(
    disk: Any, python: Callable[..., subprocess.Popen[str]], how: str
) -> None:
    dies = python(IMPORT, disk.url, how)
    assert dies.stdout is not None
    assert "here\n" == dies.stdout.readline()
    dies.kill()
    dies.wait()
    said, _ = python(IMPORT, disk.url, how).communicate(timeout=60)
    assert "[3]\n" == said
