"""The worker: what it drives, when it looks, how it leaves, and what must not hurt it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from attrs import evolve

from stepwell import (
    All,
    ClosedError,
    CodecError,
    CorruptHistoryError,
    Engine,
    Flow,
    InvalidInputError,
    Now,
    RetryPolicy,
    RunCompleted,
    Running,
    Sleep,
    Step,
    StoreError,
    StoreMisconfiguredError,
    StoreUnavailableError,
    Suspend,
    workflow,
)
from stepwell.environment import SystemClock
from stepwell.store import NotApplied
from stepwell.worker import Worker

from .tools import PATIENCE, Tally, Task, Wrapped, eventually, kinds, steps

LONG = 3600.0
"""Seconds between two looks that no test waits for."""

IN_MAIN_THREAD = pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="only the main thread gets signals"
)


class Whole(Wrapped):
    """A store around a store, that a worker can be given."""

    def on_due(self, wake: Callable[[], None]) -> Callable[[], None]:
        unlisten: Callable[[], None] = self.inner.on_due(wake)
        return unlisten


class QuickClock(SystemClock):
    """Remembers how long was to be waited for, and waits no longer than a moment."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    def wait(self, wakeup: threading.Event, seconds: float) -> bool:
        self.asked.append(seconds)
        return wakeup.wait(min(seconds, 0.001))


class NotingClock(SystemClock):
    """Remembers how long was to be waited for."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    def wait(self, wakeup: threading.Event, seconds: float) -> bool:
        self.asked.append(seconds)
        return super().wait(wakeup, seconds)


class Gate:
    """A step that says that it runs, and waits until the test lets it go."""

    def __init__(self) -> None:
        self.entered, self.leave = threading.Event(), threading.Event()
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        self.entered.set()
        assert self.leave.wait(PATIENCE)
        return self.calls

    def step(self) -> Step[int]:
        return Step(self).options(name="gate", into=int)


@contextlib.contextmanager
def at_work(worker: Worker) -> Iterator[Task]:
    """Let it work in a thread while this lasts; the task's result is what `run` gave."""
    task = Task(worker.run)
    try:
        yield task
    finally:
        worker.stop()
        task.join(PATIENCE)
    assert not task.is_alive(), "the worker does not stop"


def drained(engine: Engine, **options: Any) -> Counter[str]:
    """What a worker does that ends when there is nothing left."""
    counts = Task(lambda: Worker(engine, **options).run(drain=True)).result()
    assert isinstance(counts, Counter)
    return counts


@workflow
def one(name: str) -> Flow[str]:
    yield Now()
    return name


@workflow
def ask() -> Flow[str]:
    return (yield from Suspend("answer", into=str))


# ---- what it is given


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"threads": 0}, "threads must be 1 to 1,000, got 0"),
        ({"threads": -1}, "threads must be"),
        ({"threads": 1001}, "threads must be"),
        ({"threads": True}, "threads must be"),
        ({"threads": 2.0}, "threads must be"),
        ({"threads": "2"}, "threads must be"),
        ({"poll": 0}, "poll must be at least 0.001 seconds, got 0"),
        ({"poll": -1}, "poll must be"),
        ({"poll": float("nan")}, "poll must be"),
        ({"poll": float("inf")}, "poll must be"),
        ({"poll": timedelta(microseconds=1)}, "poll must be at least"),
        ({"poll": "1"}, "poll must be"),
    ],
)
def test_a_wrong_argument_is_refused_at_once(memory: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        Worker(memory.engine(), **options)


def test_it_works_for_an_engine_only(memory: Any) -> None:
    with pytest.raises(InvalidInputError, match="works for an Engine, got 'sqlite"):
        Worker("sqlite:///runs.db")  # type: ignore[arg-type]


def test_a_closed_engine_is_said(memory: Any) -> None:
    engine = memory.engine()
    engine.close()
    with pytest.raises(ClosedError):
        Task(Worker(engine).run).result()


# ---- what it drives


@pytest.mark.parametrize("threads", [1, 4])
def test_it_drives_all_that_is_due_and_leaves_the_rest(bench: Any, threads: int) -> None:
    @workflow
    def nap() -> Flow[None]:
        yield Sleep(LONG)

    engine = bench.engine(one, ask, nap)
    for number in range(10):
        engine.submit(one, str(number), run_id=str(number))
    engine.submit(ask, run_id="ask")
    engine.submit(nap, run_id="nap")
    assert Counter(completed=10, suspended=2) == drained(engine, threads=threads)
    assert {"completed"} == {engine.get(str(number)).status for number in range(10)}
    assert Counter() == drained(engine)


def test_outcomes_are_told_as_they_come(bench: Any) -> None:
    told: list[Any] = []
    engine = bench.engine(one)
    engine.submit(one, "x", run_id="r")
    drained(engine, on_outcome=told.append)
    assert [RunCompleted("r", "x")] == told


def test_as_many_runs_are_driven_at_once_as_there_are_threads(bench: Any) -> None:
    together = threading.Barrier(3)

    @workflow
    def meet() -> Flow[None]:
        yield Step(together.wait, PATIENCE).options(name="meet", into=int)

    engine = bench.engine(meet)
    for _ in range(6):
        engine.submit(meet)
    assert Counter(completed=6) == drained(engine, threads=3)


def test_a_run_that_is_held_by_somebody_else_is_left_to_them(bench: Any) -> None:
    engine, other = bench.engine(one), bench.engine(one)
    engine.submit(one, "x", run_id="r")
    lease = other.store.claim("r", "other", 60.0)
    assert Counter() == drained(engine)
    other.store.release(lease)
    assert Counter(completed=1) == drained(engine)


def test_two_workers_share_the_runs_and_drive_none_twice(disk: Any) -> None:
    tally = Tally()

    @workflow
    def w(number: int) -> Flow[int]:
        return (yield from tally.step(str(number)))

    engines = [disk.engine(w, store=disk.store()) for _ in range(2)]
    for number in range(30):
        engines[0].submit(w, number)
    tasks = [Task(lambda engine=engine: Worker(engine, threads=2).run(drain=True)) for engine in engines]  # type: ignore[misc]
    assert Counter(completed=30) == sum((task.result() for task in tasks), Counter())
    assert {str(number): 1 for number in range(30)} == dict(tally.counts)


# ---- when it looks


def test_a_submitted_run_wakes_it_at_once(bench: Any) -> None:
    clock = NotingClock()
    engine, done = bench.engine(one, ask, clock=clock), threading.Event()
    worker = Worker(engine, poll=LONG, on_outcome=lambda _: done.set())
    with at_work(worker) as task:
        eventually(lambda: clock.asked)  # it has nothing to do
        engine.submit(one, "x", run_id="r")
        assert done.wait(PATIENCE)
        done.clear()
        engine.submit(ask, run_id="ask")
        assert done.wait(PATIENCE)
        done.clear()
        engine.signal("ask", "answer", "yes")
        assert done.wait(PATIENCE)
    assert Counter(completed=2, suspended=1) == task.result()


def test_what_nobody_tells_of_is_found_by_looking(bench: Any) -> None:
    """Shows S17 (P7)."""

    class Deaf(Whole):
        def on_due(self, wake: Callable[[], None]) -> Callable[[], None]:
            return lambda: None

    engine, done = bench.engine(one, store=Deaf(bench.store())), threading.Event()
    with at_work(Worker(engine, poll=0.01, on_outcome=lambda _: done.set())):
        for _ in range(3):
            engine.submit(one, "x")
            assert done.wait(PATIENCE)
            done.clear()


def test_a_timer_wakes_it_however_seldom_it_looks(bench: Any) -> None:
    @workflow
    def nap() -> Flow[str]:
        yield Sleep(0.05)
        return "awake"

    engine, ended = bench.engine(nap, park_after=0), threading.Event()
    worker = Worker(engine, poll=4.0, on_outcome=lambda o: ended.set() if isinstance(o, RunCompleted) else None)
    with at_work(worker):
        engine.submit(nap, run_id="r")
        assert ended.wait(PATIENCE)


def test_it_does_not_look_while_all_threads_are_busy(memory: Any) -> None:
    gate, looks = Gate(), []

    class Counting(Whole):
        def claim_due(self, *args: Any, **options: Any) -> Any:
            looks.append(options["limit"])
            return self.inner.claim_due(*args, **options)

    @workflow
    def w() -> Flow[int]:
        return (yield from gate.step())

    engine = memory.engine(w, store=Counting(memory.store()))
    with at_work(Worker(engine, threads=2, poll=0.001)):
        engine.submit(w)
        eventually(lambda: 1 == gate.calls and 1 in looks)
        engine.submit(w)
        eventually(lambda: 2 == gate.calls)
        engine.submit(w)
        before = len(looks)
        assert set(looks) == {1, 2}
        gate.leave.set()
        eventually(lambda: 3 == gate.calls)
    assert len(looks) > before


def test_an_idle_worker_looks_seldom_when_a_look_takes_long(memory: Any) -> None:
    """As that of a store without an index over many runs does."""
    clock = QuickClock()

    class Slow(Whole):
        def claim_due(self, *args: Any, **options: Any) -> Any:
            threading.Event().wait(0.02)
            return self.inner.claim_due(*args, **options)

    with at_work(Worker(memory.engine(one, store=Slow(memory.store()), clock=clock), poll=0.001)):
        eventually(lambda: len(clock.asked) > 3)
    assert 0.1 <= min(clock.asked[:3])


# ---- how it is told to stop


def test_it_stops_when_another_thread_says_so(bench: Any) -> None:
    clock = NotingClock()
    worker = Worker(bench.engine(one, clock=clock), poll=LONG)
    with at_work(worker) as task:
        eventually(lambda: clock.asked)
        worker.stop()
        worker.stop()
        assert Counter() == task.result()


def test_a_stop_is_never_lost_however_early_it_comes(memory: Any) -> None:
    for _ in range(300):
        worker = Worker(memory.engine(one), threads=1, poll=LONG)
        task = Task(worker.run)
        worker.stop()
        assert Counter() == task.result()


def test_it_works_once_at_a_time_and_as_often_as_one_likes(bench: Any) -> None:
    clock = NotingClock()
    engine = bench.engine(one, clock=clock)
    worker = Worker(engine)
    with at_work(worker):
        eventually(lambda: clock.asked)
        with pytest.raises(InvalidInputError, match="runs already"):
            worker.run(drain=True)
    for _ in range(2):
        engine.submit(one, "x")
        assert Counter(completed=1) == Task(lambda: worker.run(drain=True)).result()


def test_the_step_that_runs_is_recorded_and_no_other_begins(bench: Any) -> None:
    gate, tally = Gate(), Tally()

    @workflow
    def w() -> Flow[int]:
        yield tally.step("before")
        yield gate.step()
        return (yield from tally.step("after"))

    told: list[Any] = []
    engine = bench.engine(w)
    worker = Worker(engine, on_outcome=told.append)
    engine.submit(w, run_id="r")
    with at_work(worker) as task:
        assert gate.entered.wait(PATIENCE)
        worker.stop()
        engine.submit(w, run_id="later")
        gate.leave.set()
        assert Counter({"given up": 1}) == task.result()
    assert [Running("r")] == told
    assert (["before", "gate"], "pending", None) == (
        steps(engine),
        engine.get("r").status,
        engine.get("r").lease_until,
    )
    assert ["start"] == kinds(engine, "later")
    assert Counter(completed=2) == drained(engine)
    assert (2, 2, 2) == (tally["before"], gate.calls, tally["after"])  # once for each of the two runs


def test_branches_that_run_are_recorded_and_no_other_begins(bench: Any) -> None:
    gates, tally = [Gate(), Gate()], Tally()

    def branch(number: int) -> Flow[int]:
        yield Step(gates[number]).options(name=f"gate{number}", into=int)
        return (yield from tally.step(f"after{number}"))

    @workflow
    def w() -> Flow[list[int]]:
        return list((yield from All(branch(0), branch(1))))

    engine = bench.engine(w)
    worker = Worker(engine)
    engine.submit(w, run_id="r")
    with at_work(worker) as task:
        assert all(gate.entered.wait(PATIENCE) for gate in gates)
        worker.stop()
        for gate in gates:
            gate.leave.set()
        assert Counter({"given up": 1}) == task.result()
    assert ["gate0", "gate1"] == sorted(steps(engine))
    assert Counter(completed=1) == drained(engine)
    assert (1, 1, {"after0": 1, "after1": 1}) == (gates[0].calls, gates[1].calls, dict(tally.counts))


def test_a_short_sleep_or_the_delay_of_a_retry_is_not_waited_for(bench: Any) -> None:
    tries: list[int] = []

    def fail() -> None:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("not yet")

    @workflow
    def w() -> Flow[None]:
        yield Step(fail).options(retry=RetryPolicy(attempts=2, initial=50.0, jitter=0.0))

    engine = bench.engine(w, park_after=LONG)
    engine.submit(w, run_id="r")
    worker = Worker(engine, poll=0.01)
    with at_work(worker) as task:
        eventually(lambda: tries and "attempt" in kinds(engine))
        worker.stop()
        assert Counter(suspended=1) == task.result()
    record = engine.get("r")
    assert ("suspended", None) == (record.status, record.lease_until)
    assert 20 < (record.due - record.updated).total_seconds() <= 50


def test_a_run_that_is_still_being_loaded_is_given_up(bench: Any) -> None:
    entered, leave, tally = threading.Event(), threading.Event(), Tally()

    class Slow(Whole):
        def read(self, *args: Any, **options: Any) -> Any:
            entered.set()
            assert leave.wait(PATIENCE)
            return self.inner.read(*args, **options)

    @workflow
    def w() -> Flow[int]:
        return (yield from tally.step("s"))

    engine = bench.engine(w, store=Slow(bench.store()))
    engine.submit(w, run_id="r")
    worker = Worker(engine)
    with at_work(worker) as task:
        assert entered.wait(PATIENCE)
        worker.stop()
        leave.set()
        assert Counter({"given up": 1}) == task.result()
    assert (0, None) == (tally["s"], engine.get("r").lease_until)


def test_a_claimed_run_that_nobody_has_begun_is_given_back(bench: Any) -> None:
    class Stopping(Whole):
        def claim_due(self, *args: Any, **options: Any) -> Any:
            found = self.inner.claim_due(*args, **options)
            worker.stop()
            return found

    engine = bench.engine(one, store=Stopping(bench.store()))
    engine.submit(one, "x", run_id="r")
    worker = Worker(engine)
    with at_work(worker) as task:
        assert Counter({"given back": 1}) == task.result()
    assert ("pending", None, ["start"]) == (engine.get("r").status, engine.get("r").lease_until, kinds(engine))


# ---- signals of the process


@IN_MAIN_THREAD
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_the_handlers_are_as_before(memory: Any, number: signal.Signals) -> None:
    before = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
    engine = memory.engine(one)
    engine.submit(one, "x", run_id="r")
    counts = Worker(engine, poll=LONG, on_outcome=lambda _: os.kill(os.getpid(), number)).run()
    assert Counter(completed=1) == counts
    assert before == [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]


@IN_MAIN_THREAD
def test_a_handler_of_the_callers_own_may_stop_it(memory: Any) -> None:
    engine = memory.engine(one)
    engine.submit(one, "x", run_id="r")
    worker = Worker(engine, poll=LONG, on_outcome=lambda _: os.kill(os.getpid(), signal.SIGUSR1))
    before = signal.signal(signal.SIGUSR1, lambda *_: worker.stop())
    try:
        assert Counter(completed=1) == worker.run(handle_signals=False)
    finally:
        signal.signal(signal.SIGUSR1, before)


@IN_MAIN_THREAD
def test_ctrl_c_comes_through_once_the_steps_are_recorded_when_signals_are_the_callers(memory: Any) -> None:
    def slow() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        eventually(lambda: worker._stopped.is_set())

    @workflow
    def w() -> Flow[None]:
        yield Step(slow)
        yield Sleep(LONG)

    engine = memory.engine(w)
    engine.submit(w, run_id="r")
    worker = Worker(engine, poll=LONG)
    with pytest.raises(KeyboardInterrupt):
        worker.run(handle_signals=False)
    assert (["slow"], None) == (steps(engine), engine.get("r").lease_until)


DEAF_TO_KILL = """
import os, signal, sys, threading
from stepwell import Engine, Flow, Step, workflow
from stepwell.worker import Worker

kill, os.kill = os.kill, lambda *_: None  # as it is for the first process of a container

def hang() -> None:
    print("hanging", flush=True)
    threading.Event().wait(120)

@workflow
def w() -> Flow[None]:
    yield Step(hang)

engine = Engine("memory:", [w])
engine.submit(w)
Worker(engine).run()
"""


def test_the_second_signal_ends_also_a_process_that_signals_do_not_kill(
    python: Callable[..., subprocess.Popen[str]],
) -> None:
    process = python(DEAF_TO_KILL)
    assert process.stdout is not None
    assert "hanging\n" == process.stdout.readline()
    process.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.terminate()
    assert 128 + signal.SIGTERM == process.wait(PATIENCE)


# ---- what must not hurt it


@pytest.mark.parametrize(
    "error", [ValueError("mine"), SystemExit(3), BrokenPipeError()], ids=lambda e: type(e).__name__
)
def test_a_listener_that_raises_is_logged(memory: Any, caplog: pytest.LogCaptureFixture, error: BaseException) -> None:
    def listen(_: Any) -> None:
        raise error

    engine = memory.engine(one)
    for number in range(5):
        engine.submit(one, str(number))
    assert Counter(completed=5) == drained(engine, threads=1, on_outcome=listen)
    assert ["on_outcome raised"] * 5 == [record.message for record in caplog.records]


class Failing(Whole):
    """Fails in one method for so many calls."""

    def __init__(self, inner: Any, method: str, times: int, error: StoreError | None = None) -> None:
        super().__init__(inner)
        self.left, self.error = times, error or StoreUnavailableError("the store is away")
        working = getattr(inner, method)

        def call(*args: Any, **options: Any) -> Any:
            if self.left > 0:
                self.left -= 1
                if method == "append":
                    return NotApplied(self.error)
                raise self.error
            return working(*args, **options)

        setattr(self, method, call)


@pytest.mark.parametrize("method", ["claim_due", "next_due"])
def test_a_store_that_is_away_is_waited_for_longer_each_time(
    bench: Any, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    clock, tally = QuickClock(), Tally()

    @workflow
    def w() -> Flow[int]:
        return (yield from tally.step("s"))

    bench.engine().submit(w, run_id="r")
    failing = Failing(bench.store(), method, 9)
    engine = bench.engine(w, store=failing, clock=clock)
    assert Counter(completed=1) == drained(engine)
    assert 0 == failing.left
    pauses = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    assert pauses == [seconds for seconds in clock.asked if seconds in pauses][:9]
    assert 9 == sum("looking for runs failed" in record.message for record in caplog.records)
    assert {logging.WARNING} == {record.levelno for record in caplog.records}
    assert (1, None) == (tally["s"], engine.get("r").blocked)


def test_after_the_store_came_back_the_pauses_are_short_again(memory: Any) -> None:
    clock = QuickClock()
    failing = Failing(memory.store(), "claim_due", 3)
    with at_work(Worker(memory.engine(one, store=failing, clock=clock), poll=LONG)):
        eventually(lambda: 5.0 in clock.asked[3:])  # it has nothing to do
        failing.left = 2
        before = len(clock.asked)
        eventually(lambda: failing.left == 0 and len(clock.asked) > before + 3)
    assert [0.1, 0.2, 0.4] == clock.asked[:3]
    assert 4 < clock.asked[3]
    assert 0.1 in clock.asked[before - 1 :]
    assert 0.4 not in clock.asked[before:]


@pytest.mark.parametrize("method", ["read", "append"])
def test_a_store_that_fails_in_a_run_does_not_spoil_it(
    bench: Any, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    clock = QuickClock()

    @workflow
    def w() -> Flow[str]:
        yield Step(str, 1).options(into=str)
        return "done"

    runs = bench.engine()
    for number in range(4):
        runs.submit(w, run_id=str(number))
    failing = Failing(bench.store(), method, 40)
    engine = bench.engine(w, store=failing, clock=clock)
    counts = drained(engine, threads=2)
    assert 4 == counts["completed"]
    assert {"completed", "store failed"} == set(counts)
    assert [] == engine.runs(blocked=True)
    assert any("could not be driven on, trying again" in record.message for record in caplog.records)
    histories = [kinds(engine, str(number)) for number in range(4)]
    assert [["start", "step", "complete"]] * 4 == histories


@pytest.mark.parametrize(
    "error", [StoreMisconfiguredError("moved"), CorruptHistoryError("torn")], ids=lambda e: type(e).__name__
)
def test_a_store_that_can_not_be_used_ends_it(memory: Any, error: StoreError) -> None:
    engine = memory.engine(one, store=Failing(memory.store(), "claim_due", 1, error))
    engine.submit(one, "x", run_id="r")
    before = {thread.name for thread in threading.enumerate()}
    with pytest.raises(type(error), match=error.message):
        Task(Worker(engine).run).result()
    assert before >= {thread.name for thread in threading.enumerate() if thread.name.startswith("stepwell-worker")}
    assert Counter(completed=1) == drained(engine)


@IN_MAIN_THREAD
def test_what_ends_it_is_raised_in_the_main_thread_too(memory: Any) -> None:
    failing = Failing(memory.store(), "claim_due", 1, StoreMisconfiguredError("moved"))
    with pytest.raises(StoreMisconfiguredError, match="moved"):
        Worker(memory.engine(one, store=failing)).run()


# ---- runs that can't be driven


def good() -> Flow[str]:
    yield Step(str, 1).options(into=str)
    return (yield from Suspend("answer", into=str))


def exits_in_step() -> Flow[str]:
    yield Step(sys.exit, 3).options(name="str", into=str)
    return (yield from Suspend("answer", into=str))


def exits_in_branch() -> Flow[str]:
    yield All(Step(sys.exit, 3).options(name="a", into=str), Step(str, 2).options(name="b", into=str))
    return (yield from Suspend("answer", into=str))


def exits_at_once() -> Flow[str]:
    raise SystemExit(3)
    yield Step(str, 1)


def exits_later() -> Flow[str]:
    yield Step(str, 1).options(into=str)
    raise SystemExit(3)


def yields_nonsense() -> Flow[str]:
    yield Step(str, 1).options(into=str)
    yield "nonsense"  # type: ignore[misc]
    return ""


def diverges() -> Flow[str]:
    yield Step(str, 1).options(name="other", into=str)
    return (yield from Suspend("answer", into=str))


def wants_more(count: int) -> Flow[str]:
    yield Step(str, count).options(name="str", into=str)
    return (yield from Suspend("answer", into=str))


class Damaging(Whole):
    """Gives the poison's records damaged."""

    def read(self, run_id: str, *args: Any, **options: Any) -> Any:
        tail = self.inner.read(run_id, *args, **options)
        if run_id != "poison" or tail is None:
            return tail
        records = [line.replace(b"poison", b"p\xffison", 1)[:-4] + b'00"}' for line in tail.records]
        return evolve(tail, records=records, checked=False)


# Before: the code with which the run is submitted, and driven for a while if it is to be. Then the worker's code.
POISONS: dict[str, tuple[Any, bool, Any, str]] = {
    "unknown workflow": (good, False, None, "NOT_FOUND"),
    "input that does not decode": (good, False, wants_more, "CODEC"),
    "diverged code": (good, True, diverges, "DIVERGENCE"),
    "nonsense is yielded": (good, False, yields_nonsense, "INVALID_YIELD"),
    "damaged record": (good, True, good, "CORRUPT_HISTORY"),
    "a step that exits": (good, False, exits_in_step, "STEPWELL"),
    "a branch that exits": (good, False, exits_in_branch, "STEPWELL"),
    "a workflow that exits": (good, False, exits_later, "STEPWELL"),
    "a workflow that exits while it is replayed": (good, False, exits_at_once, "STEPWELL"),
}
BATCH = 20


def poisoned(bench: Any, kind: str, position: int, run_ids: list[str]) -> tuple[Any, Any]:
    """Submit a batch with a poison in its midst; the store and the workflows that the worker has."""
    before, driven, after, _ = POISONS[kind]
    old = workflow(name="w")(before)
    stranger = bench.engine(old, one)
    for number, run_id in enumerate(run_ids):
        if number == position:
            stranger.submit(old, run_id="poison")
            if driven:
                stranger.advance("poison")
                stranger.signal("poison", "answer", "poison")
        else:
            stranger.submit(one, run_id, run_id=run_id)
    workflows = [one, *([] if after is None else [workflow(name="w")(after)])]
    return (Damaging(bench.store()) if kind == "damaged record" else bench.store()), workflows


@pytest.mark.parametrize("kind", POISONS)
def test_a_poison_at_any_place_of_a_batch_is_marked_and_the_others_are_driven(
    memory: Any, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Shows S17 (P7)."""
    caplog.set_level(logging.CRITICAL)
    for position in range(BATCH):
        check_poison(memory, kind, position, 1 + position % 4)


@pytest.mark.parametrize("position", [0, 7, BATCH - 1])
@pytest.mark.parametrize("kind", POISONS)
def test_a_poison_on_disk(disk: Any, kind: str, position: int) -> None:
    check_poison(disk, kind, position, 4)


def check_poison(bench: Any, kind: str, position: int, threads: int) -> None:
    run_ids = [f"{position}-{number}" for number in range(BATCH)]
    store, workflows = poisoned(bench, kind, position, run_ids)
    engine = bench.engine(*workflows, store=store)
    counts = drained(engine, threads=threads)
    assert Counter({"completed": BATCH - 1, "not driven": 1}) == counts
    (blocked,) = engine.runs(blocked=True)
    assert ("poison", POISONS[kind][3], None) == (blocked.id, blocked.blocked.code, blocked.lease_until)
    assert Counter() == drained(bench.engine(*workflows, store=store)), "the same code is not tried again"
    if kind != "damaged record":
        again = bench.engine(workflow(name="w")(good), one)
        assert 1 == sum(drained(again).values()), "other code is"
        assert [] == again.runs(blocked=True)
    if "completed" != bench.engine().get("poison").status:
        bench.engine().cancel("poison", force=True)
    bench.engine().delete("poison")


def test_any_other_base_exception_of_a_workflow_is_its_failure(bench: Any) -> None:
    class Odd(BaseException):
        pass

    @workflow
    def w() -> Flow[None]:
        yield Now()
        raise Odd("odd")

    engine = bench.engine(w)
    engine.submit(w, run_id="r")
    assert Counter(failed=1) == drained(engine)
    assert "odd" == engine.get("r").failure.message


def test_input_that_does_not_decode_says_so(bench: Any) -> None:
    @workflow(name="w")
    def text(value: str) -> Flow[str]:
        yield Now()
        return value

    @workflow(name="w")
    def number(value: int) -> Flow[int]:
        yield Now()
        return value

    bench.engine().submit(text, "seven", run_id="r")
    engine = bench.engine(number)
    assert Counter({"not driven": 1}) == drained(engine)
    assert CodecError.code == engine.get("r").blocked.code
