"""Steps that are `async def`, and steps of branches: where they run."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import pytest

from stepwell import (
    All,
    ClosedError,
    Engine,
    Flow,
    Race,
    RunCompleted,
    RunFailed,
    Sleep,
    Step,
    current_step,
    workflow,
)
from stepwell_stores.memory import MemoryStore

from .tools import PATIENCE, Tally, Task, eventually

colour = contextvars.ContextVar("colour", default="none")


async def where() -> str:
    await asyncio.sleep(0)
    return threading.current_thread().name


class Shout:
    """A callable object that is async."""

    async def __call__(self, text: str) -> str:
        return text.upper()


def test_async_steps_run_on_one_background_loop(bench: Any) -> None:
    loops: list[Any] = []

    async def note() -> str:
        loops.append(asyncio.get_running_loop())
        return await where()

    @workflow
    def w() -> Flow[list[str]]:
        first = yield from Step(note)
        both = yield All(Step(note), Step(note))
        return [first, *both]

    engine = bench.engine()
    assert ["stepwell-loop"] * 3 == engine.start(w, run_id="r").unwrap()
    assert 1 == len({id(loop) for loop in loops})


def test_async_branches_run_at_the_same_time(memory: Any) -> None:
    here: dict[str, asyncio.Event] = {}

    async def meet(name: str, other: str) -> str:
        for one in (name, other):
            here.setdefault(one, asyncio.Event())
        here[name].set()
        await here[other].wait()
        return name

    @workflow
    def w() -> Flow[list[str]]:
        return list((yield All(Step(meet, "a", "b"), Step(meet, "b", "a"))))

    assert ["a", "b"] == memory.engine().start(w, run_id="r").unwrap()


@pytest.mark.parametrize(
    "call",
    [
        functools.partial(Shout().__call__, "a"),
        functools.partial(Shout(), "a"),
        lambda: Shout()("a"),
    ],
)
def test_whatever_gives_a_coroutine_is_awaited(memory: Any, call: Any) -> None:
    @workflow
    def w() -> Flow[list[str]]:
        alone = yield from Step(call).options(into=str, name="shout")
        both = yield All(Step(call).options(into=str, name="shout"), Step(Shout(), "b").options(into=str))
        return [alone, *both]

    assert ["A", "A", "B"] == memory.engine().start(w, run_id="r").unwrap()


def test_an_async_step_knows_itself_and_the_callers_context(memory: Any) -> None:
    seen: list[Any] = []

    async def looks() -> None:
        await asyncio.sleep(0)
        seen.append((current_step().step_id, current_step().attempt, colour.get()))
        colour.set("changed by the step")

    @workflow
    def w() -> Flow[None]:
        yield Step(looks)
        yield All(Step(looks), Step(looks))

    token = colour.set("red")
    memory.engine().start(w, run_id="r")
    assert {("looks", 1, "red"), ("looks#2", 1, "red"), ("looks#3", 1, "red")} == set(seen)
    assert "red" == colour.get()
    colour.reset(token)


def test_an_async_step_that_fails_is_recorded(bench: Any) -> None:
    async def breaks() -> None:
        raise LookupError("no such page")

    @workflow
    def w() -> Flow[None]:
        yield Step(breaks)

    outcome = bench.engine().start(w, run_id="r")
    assert isinstance(outcome, RunFailed)
    assert outcome.failure.is_a(LookupError)


def test_an_async_step_that_cancels_itself_is_recorded_as_failed(memory: Any) -> None:
    async def cancels() -> None:
        raise asyncio.CancelledError

    @workflow
    def w() -> Flow[None]:
        yield Step(cancels)

    outcome = memory.engine().start(w, run_id="r")
    assert isinstance(outcome, RunFailed)
    assert "CancelledError" in outcome.failure.types[1]


def test_a_loop_of_the_users_own_is_used(memory: Any) -> None:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="mine", daemon=True)
    thread.start()

    @workflow
    def w() -> Flow[str]:
        return (yield from Step(where))

    engine = memory.engine(loop=loop)
    assert RunCompleted("r", "mine") == engine.start(w, run_id="r")
    engine.close()
    assert thread.is_alive()
    loop.call_soon_threadsafe(loop.stop)
    thread.join(PATIENCE)
    loop.close()


def test_closing_the_engine_ends_the_loop_and_what_runs_on_it(memory: Any) -> None:
    entered, ended = threading.Event(), threading.Event()

    async def hangs() -> None:
        try:
            entered.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    @workflow
    def w() -> Flow[None]:
        yield Step(hangs)

    before = set(threading.enumerate())
    engine = memory.engine()
    driver = Task(lambda: engine.start(w, run_id="r"))
    assert entered.wait(PATIENCE)
    engine.close()
    assert ended.wait(PATIENCE)
    eventually(lambda: not loops(before))
    with pytest.raises(ClosedError):  # and the step's end is not recorded: the next session performs it again
        driver.result()


def loops(before: set[threading.Thread]) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "stepwell-loop" and thread not in before]


def test_the_loop_of_an_engine_that_nobody_closes_ends_with_it() -> None:
    @workflow
    def w() -> Flow[str]:
        return (yield from Step(where))

    before = set(threading.enumerate())
    engine = Engine(MemoryStore())
    assert "stepwell-loop" == engine.start(w).unwrap()
    assert 1 == len(loops(before))
    del engine
    gc.collect()
    eventually(lambda: not loops(before))


def test_a_lone_sync_step_runs_in_the_callers_thread(memory: Any) -> None:
    @workflow
    def w() -> Flow[bool]:
        return (yield from Step(lambda: threading.current_thread() is caller).options(into=bool, name="same"))

    caller = threading.current_thread()
    assert memory.engine().start(w, run_id="r").unwrap()


def test_steps_of_branches_run_at_the_same_time(bench: Any) -> None:
    meet = threading.Barrier(3)

    def meets() -> int:
        return meet.wait(PATIENCE) * 0 + 1

    @workflow
    def w() -> Flow[int]:
        return sum((yield All(Step(meets), Step(meets), Step(meets))))

    assert RunCompleted("r", 3) == bench.engine().start(w, run_id="r")


def test_the_pool_is_bounded(memory: Any) -> None:
    lock = threading.Lock()
    threads: set[str] = set()

    def note() -> int:
        with lock:
            threads.add(threading.current_thread().name)
        return 1

    @workflow
    def w() -> Flow[int]:
        return sum((yield All(*[Step(note) for _ in range(200)])))

    assert RunCompleted("r", 200) == memory.engine().start(w, run_id="r")
    assert 1 <= len(threads) <= 32
    assert all(name.startswith("stepwell-step-") for name in threads)


def test_the_user_may_give_an_executor(bench: Any) -> None:
    submitted: list[Any] = []

    class Watched(ThreadPoolExecutor):
        def submit(self, *args: Any, **kwargs: Any) -> Any:
            submitted.append(1)
            return super().submit(*args, **kwargs)

    def named() -> str:
        return threading.current_thread().name.partition("_")[0]

    @workflow
    def w() -> Flow[list[str]]:
        return list((yield All(Step(named), Step(named))))

    with Watched(1, thread_name_prefix="mine") as pool:
        engine = bench.engine(executor=pool)
        assert ["mine", "mine"] == engine.start(w, run_id="r").unwrap()
        engine.close()
        assert (2, 7) == (len(submitted), pool.submit(lambda: 7).result())  # it is the user's to shut down


def test_an_executor_that_refuses_work_hurts_the_call_and_not_the_run(bench: Any) -> None:
    class Closed(Executor):
        def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
            raise RuntimeError("cannot schedule new futures after shutdown")

    tally = Tally()

    @workflow
    def w() -> Flow[list[int]]:
        return list((yield All(tally.step("a"), tally.step("b"))))

    with pytest.raises(RuntimeError, match="cannot schedule"):
        bench.engine(executor=Closed()).start(w, run_id="r")
    engine = bench.engine(w)
    assert None is engine.get("r").lease_until
    assert [RunCompleted("r", [1, 1])] == engine.run_due()


def test_the_loser_of_a_race_is_told_and_not_waited_for(bench: Any) -> None:
    contexts: list[Any] = []
    leave, entered = threading.Event(), threading.Event()

    def loses() -> str:
        contexts.append(current_step())
        entered.set()
        assert leave.wait(PATIENCE)
        return "late"

    def wins() -> str:
        assert entered.wait(PATIENCE)
        return "won"

    @workflow
    def w() -> Flow[list[Any]]:
        return list((yield Race(slow=Step(loses), fast=Step(wins))))

    engine = bench.engine()
    assert ["fast", "won"] == engine.start(w, run_id="r").unwrap()
    assert contexts[0].cancelled
    leave.set()


def test_a_limit_keeps_branches_from_starting(memory: Any) -> None:
    lock = threading.Lock()
    running, most = 0, 0

    def count() -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        with lock:
            running -= 1
        return 1

    @workflow
    def w() -> Flow[int]:
        return sum((yield All(*[Step(count) for _ in range(20)], limit=2)))

    assert RunCompleted("r", 20) == memory.engine().start(w, run_id="r")
    assert most <= 2


def test_a_sleep_beside_a_step_fires_while_the_step_runs(bench: Any) -> None:
    leave = threading.Event()

    def waits() -> str:
        assert leave.wait(PATIENCE)
        return "step"

    def slept() -> Flow[str]:
        yield Sleep(0.01)
        leave.set()
        return "slept"
        yield

    @workflow
    def w() -> Flow[list[str]]:
        return list((yield All(Step(waits), slept())))

    assert ["step", "slept"] == bench.engine().start(w, run_id="r").unwrap()
