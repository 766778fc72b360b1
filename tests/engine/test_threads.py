"""Many threads, several engines, forked children, and the end of an engine."""

from __future__ import annotations

import os
import threading
from functools import partial
from typing import Any

import pytest

from stepwell import All, ClosedError, Engine, Flow, RunCompleted, Running, SetState, Step, Suspend, workflow
from stepwell.pools import DaemonPool

from .tools import PATIENCE, Tally, Task, kinds, steps

THREADS = 8


@pytest.mark.parametrize("engines", [1, 2])
def test_of_threads_that_start_one_run_one_drives_it(bench: Any, engines: int) -> None:
    """Shows S16 (P4, P5)."""
    tally = Tally()
    together = threading.Barrier(THREADS)

    @workflow
    def w() -> Flow[list[int]]:
        first = yield from tally.step("a")
        both = yield All(tally.step("b"), tally.step("c"))
        return [first, *both]

    made = [bench.engine(w) for _ in range(engines)]

    def start(engine: Engine) -> Any:
        together.wait(PATIENCE)
        return engine.start(w, run_id="r")

    tasks = [Task(partial(start, made[i % engines])) for i in range(THREADS)]
    outcomes = [task.result() for task in tasks]
    done = RunCompleted("r", [1, 1, 1])
    assert all(outcome == done or isinstance(outcome, Running) for outcome in outcomes)
    assert done == made[0].wait("r", timeout=PATIENCE)
    assert {"a": 1, "b": 1, "c": 1} == tally.counts
    assert 1 == made[0].get("r").sessions


def test_threads_drive_different_runs_in_one_engine(bench: Any) -> None:
    tally = Tally()
    together = threading.Barrier(THREADS)

    @workflow
    def w(name: str) -> Flow[list[Any]]:
        first = yield from tally.step(f"{name} 1")
        got = yield All(tally.step(f"{name} 2"), Suspend("go", into=str))
        return [name, first, *got]

    engine = bench.engine(w)

    def work(number: int) -> Any:
        together.wait(PATIENCE)
        outcomes = []
        for turn in range(3):
            run_id = f"{number}-{turn}"
            engine.start(w, run_id, run_id=run_id)
            outcomes.append(engine.resume(run_id, "go", "now"))
        return outcomes

    tasks = [Task(partial(work, number)) for number in range(THREADS)]
    outcomes = [outcome for task in tasks for outcome in task.result()]
    assert [[o.run_id, 1, 1, "now"] for o in outcomes] == [o.unwrap() for o in outcomes]
    assert 2 * 3 * THREADS == len(tally.counts) == sum(tally.counts.values())


def test_threads_share_what_is_due(bench: Any) -> None:
    tally = Tally()
    together = threading.Barrier(4)

    @workflow
    def w(name: str) -> Flow[int]:
        return (yield from tally.step(name))

    engines = [bench.engine(w) for _ in range(2)]
    names = [f"run {number}" for number in range(12)]
    for name in names:
        engines[0].submit(w, name, run_id=name)

    def work(engine: Engine) -> Any:
        together.wait(PATIENCE)
        return [outcome.run_id for outcome in engine.run_due()]

    tasks = [Task(partial(work, engine)) for engine in engines * 2]
    assert sorted(names) == sorted(name for task in tasks for name in task.result())
    assert dict.fromkeys(names, 1) == tally.counts


def test_two_engines_on_two_stores_know_nothing_of_each_other(tmp_path: Any) -> None:
    @workflow(name="w")
    def one() -> Flow[str]:
        return (yield from Step(lambda: "one").options(name="s", into=str))

    @workflow(name="w")
    def two() -> Flow[str]:
        return (yield from Step(lambda: "two").options(name="s", into=str))

    with (
        Engine(f"sqlite:///{tmp_path}/1.db", [one]) as first,
        Engine(f"sqlite:///{tmp_path}/2.db", [two]) as second,
        Engine("memory:", [one]) as third,
    ):
        assert "one" == first.start(one, run_id="r").unwrap()
        assert "two" == second.start(two, run_id="r").unwrap()
        assert [] == third.runs()


def test_wait_gives_the_outcome_of_a_run_that_another_thread_drives(bench: Any) -> None:
    entered, leave = threading.Event(), threading.Event()

    def hold() -> str:
        entered.set()
        assert leave.wait(PATIENCE)
        return "held"

    @workflow
    def w() -> Flow[str]:
        return (yield from Step(hold))

    engine = bench.engine(w)
    driver = Task(lambda: engine.start(w, run_id="r"))
    assert entered.wait(PATIENCE)
    waiters = [Task(partial(e.wait, "r", timeout=PATIENCE)) for e in (engine, bench.engine(w))]
    assert isinstance(engine.wait("r", timeout=0), Running)
    assert isinstance(engine.wait("r", timeout=0.01), Running)
    leave.set()
    assert [RunCompleted("r", "held")] * 3 == [task.result() for task in (driver, *waiters)]


def test_wait_gives_the_outcome_once_the_run_is_parked(bench: Any) -> None:
    entered, leave = threading.Event(), threading.Event()

    def hold() -> str:
        entered.set()
        assert leave.wait(PATIENCE)
        return "held"

    @workflow
    def w() -> Flow[str]:
        yield Step(hold)
        return (yield from Suspend("go", into=str))

    engine = bench.engine(w)
    driver = Task(lambda: engine.start(w, run_id="r"))
    assert entered.wait(PATIENCE)
    waiter = Task(lambda: engine.wait("r", timeout=PATIENCE))
    leave.set()
    assert driver.result() == waiter.result()
    assert ("go",) == waiter.result().waiting_for


def test_a_live_run_can_be_asked_for_its_state(bench: Any) -> None:
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        assert leave.wait(PATIENCE)

    @workflow
    def w() -> Flow[None]:
        yield SetState(phase="packing", left=3)
        yield Step(hold)
        yield SetState(left=0)

    engine = bench.engine(w)
    driver = Task(lambda: engine.start(w, run_id="r"))
    assert entered.wait(PATIENCE)
    before = kinds(engine)
    for someone in (engine, bench.engine(w)):
        assert {"phase": "packing", "left": 3} == someone.query("r")
    assert before == kinds(engine)
    leave.set()
    driver.result()
    assert {"phase": "packing", "left": 0} == engine.query("r")
    assert {"phase": "packing", "left": 0} == bench.engine().query("r")


# ---- the end


def test_a_closed_engine_refuses_every_call(bench: Any) -> None:
    @workflow
    def w() -> Flow[None]:
        yield Suspend("go")

    engine = bench.engine(w)
    engine.start(w, run_id="r")
    engine.close()
    engine.close()
    calls = [
        lambda: engine.start(w, run_id="r"),
        lambda: engine.advance("r"),
        lambda: engine.run_due(),
        lambda: engine.wait("r"),
        lambda: engine.resume("r", "go"),
        lambda: engine.signal("r", "go"),
        lambda: engine.cancel("r"),
        lambda: engine.get("r"),
        lambda: engine.runs(),
        lambda: engine.waiting(),
        lambda: engine.history("r"),
        lambda: engine.fork("r", before=1),
        lambda: engine.retry("r"),
        lambda: engine.reset("r"),
        lambda: engine.delete("r"),
    ]
    for call in calls:
        with pytest.raises(ClosedError, match="closed"):
            call()


def test_an_engine_opens_nothing_before_its_first_call(tmp_path: Any) -> None:
    with Engine(f"sqlite:///{tmp_path}/runs.db"), Engine(f"file:{tmp_path}/runs"):
        assert [] == list(tmp_path.iterdir())


def test_steps_that_were_not_begun_are_not_begun_by_closing(memory: Any) -> None:
    entered, leave, begun = threading.Event(), threading.Event(), Tally()

    def first() -> int:
        entered.set()
        assert leave.wait(PATIENCE)
        return 1

    pool = DaemonPool(1)
    running = pool.submit(first)
    queued = [pool.submit(begun.add, "late") for _ in range(3)]
    assert entered.wait(PATIENCE)
    pool.shutdown(wait=False, cancel_futures=True)
    leave.set()
    assert 1 == running.result(PATIENCE)
    assert [True] * 3 == [future.cancelled() for future in queued]
    assert 0 == begun["late"]
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(first)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_uses_the_engine(disk: Any) -> None:
    @workflow
    def w(name: str) -> Flow[list[Any]]:
        async def later() -> str:
            return name

        both = yield All(Step(str.upper, name).options(into=str), Step(later))
        return [*both, (yield from Step(str.lower, name).options(into=str, timeout=60))]

    engine = disk.engine(w)
    assert ["A", "A", "a"] == engine.start(w, "A", run_id="parent").unwrap()  # its threads and handles are there
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            outcome = engine.start(w, "B", run_id="child")
            known = engine.start(w, "A", run_id="parent")
            os.write(writer, repr([outcome.unwrap(), known.unwrap()]).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert "[['B', 'B', 'b'], ['A', 'A', 'a']]" == said
    assert RunCompleted("child", ["B", "B", "b"]) == engine.start(w, "B", run_id="child")
    assert ["later", "lower", "upper"] == sorted(steps(engine, "child"))
