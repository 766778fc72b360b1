"""retry of a failed run, end to end: it ends as the one that never failed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from stepwell import (
    All,
    ConflictError,
    Flow,
    NotFoundError,
    Now,
    Patched,
    Race,
    Random,
    RunCompleted,
    RunFailed,
    RunSuspended,
    Sleep,
    Step,
    StepFailed,
    Suspend,
    Uuid,
    Workflow,
    current_step,
    workflow,
)

from .tools import PATIENCE, Tally, fold, kinds, steps


class Breakable:
    """A step that fails as long as it is told to, when its siblings are where the test wants them."""

    def __init__(self, failures: int = 1) -> None:
        self.left = failures
        self.calls = 0
        self.before: Callable[[], object] = lambda: None
        self.keys: list[str] = []

    def __call__(self) -> str:
        self.calls += 1
        self.keys.append(current_step().idempotency_key)
        if self.left:
            self.before()
            self.left -= 1
            raise ConnectionError("no line")
        return "mended"

    def step(self) -> Step[str]:
        return Step(self).options(name="breakable", into=str)


@pytest.fixture
def breakable() -> Breakable:
    return Breakable()


def check(engine: Any, w: Workflow[Any, Any], outcome: Any) -> None:
    """The history of the newest incarnation folds to the outcome."""
    machine = fold(w, engine.history(outcome.run_id), outcome.run_id)
    assert (True, outcome.result) == (machine.closed, machine.result)


# ---- retry


def test_a_failed_run_goes_on_from_the_step_that_failed(bench: Any, breakable: Breakable) -> None:
    tally = Tally()

    @workflow
    def w() -> Flow[list[Any]]:
        seen = [(yield from tally.step("a")), (yield from Random()), str((yield from Uuid())), str((yield from Now()))]
        seen.append((yield from breakable.step()))
        return [*seen, (yield from tally.step("b"))]

    engine = bench.engine()
    failed = engine.start(w, run_id="r")
    assert isinstance(failed, RunFailed)
    before = engine.history("r")
    outcome = engine.retry("r")
    assert isinstance(outcome, RunCompleted)
    assert [1, 1] == [tally["a"], tally["b"]]
    check(engine, w, outcome)
    assert ["start", "step", "random", "uuid", "now", "retry", "step", "step", "complete"] == kinds(engine)
    assert before == engine.history("r", incarnation=0)
    record = engine.get("r")
    assert (2, "completed", None) == (record.attempts, record.status, record.failure)
    assert 1 == len(set(breakable.keys)), "a retried step keeps its idempotency key"


def test_only_failed_runs_are_retried(bench: Any) -> None:
    @workflow
    def w() -> Flow[None]:
        yield Suspend("go")

    engine = bench.engine()
    engine.start(w, run_id="r")
    with pytest.raises(ConflictError, match="only a failed run can be retried, and run 'r' is open"):
        engine.retry("r")
    engine.cancel("r")
    with pytest.raises(ConflictError, match="is cancelled"):
        engine.retry("r")
    engine.start(w, run_id="r", if_closed="restart")
    engine.resume("r", "go")
    with pytest.raises(ConflictError, match="is completed"):
        engine.retry("r")


def test_a_run_may_fail_and_be_retried_many_times(bench: Any) -> None:
    tally, breakable = Tally(), Breakable(failures=3)

    @workflow
    def w() -> Flow[str]:
        yield tally.step("a")
        return (yield from breakable.step())

    engine = bench.engine()
    outcomes = [engine.start(w, run_id="r"), *(engine.retry("r") for _ in range(3))]
    assert ["failed", "failed", "failed", "completed"] == [outcome.status for outcome in outcomes]
    assert (1, 4, 4) == (tally["a"], breakable.calls, engine.get("r").attempts)
    check(engine, w, outcomes[-1])


def test_a_caught_failure_is_not_where_the_retry_begins(bench: Any, breakable: Breakable) -> None:
    tally = Tally()
    caught = Breakable()

    @workflow
    def w() -> Flow[str]:
        try:
            yield caught.step()
        except StepFailed:
            yield tally.step("comfort")
        return (yield from breakable.step().options(name="second"))

    engine = bench.engine()
    engine.start(w, run_id="r")
    outcome = engine.retry("r")
    assert RunCompleted("r", "mended") == outcome
    assert (1, 1, 2) == (caught.calls, tally["comfort"], breakable.calls)
    check(engine, w, outcome)


def test_an_error_that_was_raised_from_a_failed_step_is_mended_at_the_step(bench: Any, breakable: Breakable) -> None:
    @workflow
    def w() -> Flow[str]:
        try:
            return (yield from breakable.step())
        except StepFailed as error:
            raise LookupError("no order") from error

    engine = bench.engine()
    engine.start(w, run_id="r")
    assert RunCompleted("r", "mended") == engine.retry("r")


def test_an_error_of_the_workflows_own_is_tried_again_with_all_steps_kept(bench: Any) -> None:
    tally = Tally()

    @workflow
    def w() -> Flow[int]:
        yield tally.step("a")
        if tally["outside"] == 0:
            raise LookupError("not yet")
        return (yield from tally.step("b"))

    engine = bench.engine()
    assert isinstance(engine.start(w, run_id="r"), RunFailed)
    tally.add("outside")
    assert RunCompleted("r", 1) == engine.retry("r")
    assert 1 == tally["a"]


def test_siblings_that_finished_before_stay_finished(bench: Any, breakable: Breakable) -> None:
    tally = Tally()
    two_done = threading.Barrier(3)

    def sibling(name: str) -> str:
        tally.add(name)
        two_done.wait(PATIENCE)
        return name

    breakable.before = lambda: two_done.wait(PATIENCE)

    @workflow
    def w() -> Flow[list[Any]]:
        first = yield All(Step(sibling, "a"), breakable.step(), Step(sibling, "b"))
        return list(first)

    engine = bench.engine()
    assert isinstance(engine.start(w, run_id="r"), RunFailed)
    outcome = engine.retry("r")
    assert RunCompleted("r", ["a", "mended", "b"]) == outcome
    assert [1, 1] == [tally["a"], tally["b"]], "their outcomes were recorded, before the failure or after it"
    check(engine, w, outcome)


def test_a_sibling_in_flight_keeps_what_it_brought(bench: Any, breakable: Breakable) -> None:
    tally = Tally()
    entered, leave = threading.Event(), threading.Event()

    def slow() -> str:
        tally.add("slow")
        entered.set()
        assert leave.wait(PATIENCE) if tally["slow"] == 1 else True
        return "slow"

    breakable.before = lambda: entered.wait(PATIENCE)

    @workflow
    def w() -> Flow[list[Any]]:
        return list((yield All(Step(slow), breakable.step())))

    def let_go(event: Any) -> None:
        if type(event).__name__ == "StepErrored":
            leave.set()  # the failure is recorded, the sibling still runs

    engine = bench.engine(on_event=let_go)
    assert isinstance(engine.start(w, run_id="r"), RunFailed)
    assert ["breakable", "slow"] == steps(engine)
    outcome = engine.retry("r")
    assert RunCompleted("r", ["slow", "mended"]) == outcome
    assert 1 == tally["slow"]
    assert [False, False, True] == [event.kept for event in engine.history("r")[:3]]
    check(engine, w, outcome)


def test_siblings_that_never_started_are_started(bench: Any, breakable: Breakable) -> None:
    tally = Tally()

    @workflow
    def w() -> Flow[list[Any]]:
        return list((yield All(breakable.step(), tally.step("a"), tally.step("b"), limit=1)))

    engine = bench.engine()
    engine.start(w, run_id="r")
    assert 0 == tally["a"]
    assert RunCompleted("r", ["mended", 1, 1]) == engine.retry("r")


@pytest.mark.parametrize("failures", [1, 2])
def test_nested_groups_are_mended_as_if_nothing_had_been(bench: Any, failures: int) -> None:
    tally, breakable = Tally(), Breakable(failures)

    def branch(name: str) -> Flow[list[Any]]:
        first = yield tally.step(f"{name} 1")
        both = yield All(tally.step(f"{name} 2"), tally.step(f"{name} 3"))
        return [first, *both, (yield from Random()) < 1]

    def broken() -> Flow[list[Any]]:
        inner = yield All(tally.step("inner"), breakable.step(), branch("deep"))
        return [inner[0], inner[1], *inner[2]]

    @workflow
    def w() -> Flow[list[Any]]:
        before = yield tally.step("before")
        groups = yield All(branch("left"), broken(), Race(tally.step("quick"), Sleep(3600)))
        late = yield from Patched("late")
        return [before, *groups[0], *groups[1], groups[2][1], late, (yield from tally.step("after"))]

    engine = bench.engine()
    outcome = engine.start(w, run_id="r")
    for _ in range(failures):
        assert isinstance(outcome, RunFailed)
        outcome = engine.retry("r")
    assert RunCompleted("r", [1, 1, 1, 1, True, 1, "mended", 1, 1, 1, True, 1, True, 1]) == RunCompleted(
        "r", [1 if isinstance(value, int) and not isinstance(value, bool) else value for value in outcome.result]
    )
    recorded = steps(engine)
    assert len(recorded) == len(set(recorded))
    check(engine, w, outcome)
    assert failures + 1 == breakable.calls
    assert 1 == tally["before"] == tally["after"]


def test_a_retry_goes_on_in_another_engine(disk: Any, breakable: Breakable) -> None:
    @workflow
    def w() -> Flow[str]:
        return (yield from breakable.step())

    disk.engine().start(w, run_id="r")
    with pytest.raises(NotFoundError, match="knows no workflow"):
        disk.engine().retry("r")
    assert "failed" == disk.engine().get("r").status
    assert RunCompleted("r", "mended") == disk.engine(w).retry("r")


def test_signals_survive_a_retry(bench: Any, breakable: Breakable) -> None:
    @workflow
    def w() -> Flow[list[str]]:
        first = yield from Suspend("go", into=str)
        mended = yield from breakable.step()
        return [first, mended, (yield from Suspend("go", into=str))]

    engine = bench.engine()
    engine.start(w, run_id="r")
    engine.resume("r", "go", "first")
    parked = engine.retry("r")
    assert RunSuspended("r", ("go",)) == parked
    assert RunCompleted("r", ["first", "mended", "second"]) == engine.resume("r", "go", "second")


def test_a_wait_that_timed_out_is_begun_anew(bench: Any) -> None:
    @workflow
    def w() -> Flow[str]:
        return (yield from Suspend("go", into=str, timeout=0))

    engine = bench.engine()
    assert isinstance(engine.start(w, run_id="r"), RunFailed)
    assert isinstance(engine.retry("r"), RunFailed)
    assert 2 == engine.get("r").attempts


def test_two_who_retry_at_once_open_one_incarnation(bench: Any) -> None:
    breakable = Breakable()
    gate = threading.Barrier(2)
    entered = []

    @workflow
    def w() -> Flow[str]:
        return (yield from breakable.step())

    engines = [bench.engine(w) for _ in range(2)]
    engines[0].start(w, run_id="r")

    def retry(engine: Any) -> None:
        gate.wait(PATIENCE)
        try:
            entered.append(engine.retry("r"))
        except ConflictError as error:
            entered.append(error)

    threads = [threading.Thread(target=retry, args=(engine,)) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert 1 == sum(isinstance(end, RunCompleted) for end in entered)
    assert (2, 2) == (engines[0].get("r").attempts, breakable.calls)
