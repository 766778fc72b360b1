"""Leases and fences: who may drive, who has lost the right, and stores that can't say what they did."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import datetime
from typing import Any

import pytest

import stepwell.driving
import stepwell.loading
from stepwell import (
    All,
    Flow,
    LeaseLostError,
    RunBusyError,
    RunCompleted,
    Running,
    RunSuspended,
    Sleep,
    Step,
    StoreError,
    StoreUnavailableError,
    Suspend,
    current_step,
    workflow,
)
from stepwell.store import Committed, Created, NotApplied, Unknown
from stepwell.testing.contract_bench import ManualClock
from stepwell.testing.environments import VirtualClock

from .tools import PATIENCE, Tally, Task, Wrapped, eventually, fold, kinds, steps


class Held:
    """A step that waits until the test lets it go; only the first call."""

    def __init__(self) -> None:
        self.entered, self.leave = threading.Event(), threading.Event()
        self.calls = 0
        self.context: Any = None

    def __call__(self) -> int:
        self.calls += 1
        if self.calls == 1:
            self.context = current_step()
            self.entered.set()
            assert self.leave.wait(PATIENCE)
        return self.calls

    def step(self) -> Step[int]:
        return Step(self).options(name="held", into=int)


def test_a_live_lease_is_never_stolen(bench: Any) -> None:
    held = Held()

    @workflow
    def w() -> Flow[int]:
        return (yield from held.step())

    engine, other = bench.engine(w), bench.engine(w)
    driver = Task(lambda: engine.start(w, run_id="r"))
    assert held.entered.wait(PATIENCE)
    for someone in (engine, other):
        with pytest.raises(RunBusyError, match=r"driven by somebody else.*try again later") as caught:
            someone.advance("r")
        assert isinstance(caught.value.lease_until, datetime)
        assert caught.value.retryable
        assert [] == someone.run_due()
        joined = someone.start(w, run_id="r")
        assert isinstance(joined, Running)
        assert joined.lease_until is not None
    assert "running" == other.get("r").status
    assert ["r"] == [run.id for run in other.runs(status="running")]
    held.leave.set()
    assert RunCompleted("r", 1) == driver.result() == other.wait("r")


def test_a_stale_owner_is_told_and_writes_nothing(bench: Any) -> None:
    """Shows S4 (P4)."""
    clock, tally = ManualClock(), Tally()
    taken_over: list[Any] = []

    def falls_asleep() -> int:
        count = tally.add("asleep")
        if count == 1:
            clock.advance(31)  # the lease lapses, and somebody else takes over
            taken_over.extend(bench.engine(w, store=second).run_due())
        return count

    @workflow
    def w() -> Flow[list[int]]:
        yield tally.step("before")
        asleep = yield from Step(falls_asleep)
        return [asleep, (yield from tally.step("after"))]

    first = bench.store(clock)
    second = first if bench.kind == "memory" else bench.store(clock)
    engine = bench.engine(store=first)
    with pytest.raises(LeaseLostError, match="was taken over by session 2; this is session 1"):
        engine.start(w, run_id="r")
    assert [RunCompleted("r", [2, 1])] == taken_over
    assert (["start", "step", "step", "step", "complete"], 1) == (kinds(engine), tally["before"])
    assert [1, 1, 2, 2, 2] == [event.session for event in engine.history("r")]
    assert engine.wait("r") == taken_over[0]


def test_a_stale_owner_in_the_middle_of_its_branches_is_told(bench: Any) -> None:
    clock, tally = ManualClock(), Tally()
    both = threading.Barrier(2)
    taken_over: list[Any] = []

    def falls_asleep(name: str) -> int:
        count = tally.add(name)
        if count == 1 and both.wait(PATIENCE) == 0:
            clock.advance(31)
            taken_over.extend(bench.engine(w, store=second).run_due())
        return count

    @workflow
    def w() -> Flow[int]:
        return sum((yield All(Step(falls_asleep, "a"), Step(falls_asleep, "b"))))

    first = bench.store(clock)
    second = first if bench.kind == "memory" else bench.store(clock)
    engine = bench.engine(store=first)
    with pytest.raises(LeaseLostError):
        engine.start(w, run_id="r")
    eventually(lambda: taken_over)
    (outcome,) = taken_over
    assert outcome.result == fold(w, engine.history("r")).result
    assert 2 == len(steps(engine))


def test_a_stale_owner_that_looks_for_signals_performs_nothing_of_its_successor(bench: Any) -> None:
    """It finds the events of the newer session when it looks for some from outside, before it appends anything."""
    clock, tally = ManualClock(), Tally()
    held, asleep = threading.Event(), threading.Event()

    def first(name: str) -> int:
        if tally.add(name) == 1:
            asleep.set()
            assert held.wait(PATIENCE)
        return tally[name]

    @workflow
    def w() -> Flow[int]:
        count = sum((yield All(Step(first, "a"), Suspend("go", into=int))))
        yield from tally.step("after")
        return count

    store = bench.store(clock)
    second = store if bench.kind == "memory" else bench.store(clock)
    engine, other = bench.engine(w, store=store), bench.engine(w, store=second)
    driver = Task(lambda: engine.start(w, run_id="r"))
    assert asleep.wait(PATIENCE)
    clock.advance(31)
    held_by_other = Task(lambda: other.advance("r"))
    assert isinstance(held_by_other.result(), RunSuspended)  # it recorded the step, and waits for the signal
    engine.signal("r", "go", 1)  # tells the stale owner in this process to look, while its step runs
    with pytest.raises(LeaseLostError, match="was taken over by session 2; this is session 1"):
        driver.result()
    held.set()
    assert 0 == tally["after"]
    assert [RunCompleted("r", 3)] == other.run_due()
    assert 1 == tally["after"]


def test_a_lease_is_renewed_while_a_step_runs_and_its_loss_is_told_to_the_step(memory: Any) -> None:
    renewals = 0
    told: list[bool] = []

    class Renewing(Wrapped):
        def renew(self, lease: Any, ttl: float) -> Any:
            nonlocal renewals
            renewals += 1
            return self.inner.renew(lease, ttl) if renewals < 3 else None

    def long() -> int:
        told.append(current_step().wait_cancelled(PATIENCE))
        return 1

    @workflow
    def w() -> Flow[int]:
        return (yield from Step(long))

    engine = memory.engine(w, store=Renewing(memory.store()), lease=0.1)
    with pytest.raises(LeaseLostError, match="was lost"):
        engine.start(w, run_id="r")
    assert ([True], 3) == (told, renewals)


def test_a_lease_is_renewed_while_a_long_history_is_loaded(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a run that takes longer to load than a lease lasts would never be driven."""
    loading = threading.Event()
    leave = threading.Event()
    load = stepwell.loading.load

    def slowly(*args: Any, **options: Any) -> Any:
        loading.set()
        assert leave.wait(PATIENCE)
        return load(*args, **options)

    @workflow
    def w() -> Flow[int]:
        return (yield from Step(int).options(into=int))

    engine = memory.engine(w, lease=0.1)
    engine.submit(w, run_id="r")
    monkeypatch.setattr(stepwell.driving, "load", slowly)
    driver = Task(lambda: engine.advance("r"))
    assert loading.wait(PATIENCE)
    first = engine.store.head("r").lease_until
    eventually(lambda: engine.store.head("r").lease_until > first)
    leave.set()
    assert RunCompleted("r", 0) == driver.result()


def test_a_lease_that_is_lost_while_its_run_is_loaded_performs_nothing(
    memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session hears of it when it begins."""
    tally = Tally()
    loaded: list[Any] = []
    load = stepwell.loading.load

    @workflow
    def w() -> Flow[int]:
        return (yield from tally.step("one"))

    engine, other = memory.engine(w, lease=0.1), memory.engine(w)
    engine.submit(w, run_id="r")

    def overtaken(*args: Any, **options: Any) -> Any:
        run = load(*args, **options)
        if not loaded:
            loaded.append(run)
            (holding,) = engine._sessions._held.values()
            engine.store.release(holding.lease)  # as if it had lapsed
            other.store.claim("r", "somebody", 30)
            eventually(lambda: holding.lost)
        return run

    monkeypatch.setattr(stepwell.driving, "load", overtaken)
    with pytest.raises(LeaseLostError):
        engine.advance("r")
    assert 0 == tally["one"]


def test_a_renewal_that_fails_is_tried_again(memory: Any) -> None:
    renewed = threading.Event()
    renewals = 0

    class Renewing(Wrapped):
        def renew(self, lease: Any, ttl: float) -> Any:
            nonlocal renewals
            renewals += 1
            if renewals < 3:
                raise StoreUnavailableError("gone for a moment")
            renewed.set()
            return self.inner.renew(lease, ttl)

    def long() -> int:
        assert renewed.wait(PATIENCE)
        return 1

    @workflow
    def w() -> Flow[int]:
        return (yield from Step(long))

    assert RunCompleted("r", 1) == memory.engine(w, store=Renewing(memory.store()), lease=0.1).start(w, run_id="r")


# ---- stores that can't say


class Shaky(Wrapped):
    """Its `nth` write (from 1) ends otherwise, `times` times in a row: not applied, or unknown and (not) written."""

    def __init__(self, inner: Any, nth: int, how: str, times: int = 1) -> None:
        super().__init__(inner)
        self.nth, self.how, self.left = nth, how, times
        self.writes = 0
        self.told = Counter[str]()

    def _write(self, write: Any, where: Any, options: Any) -> Any:
        self.writes += 1
        if self.writes >= self.nth and self.left:
            self.left -= 1
            if self.how == "not applied":
                return NotApplied(TimeoutError("busy"))
            if self.how == "unknown, written":
                assert isinstance(write(*where, **options), (Committed, Created))
            return Unknown(TimeoutError("no answer"))
        done = write(*where, **options)
        self.told[type(done).__name__] += 1
        return done

    def create(self, *where: Any, **options: Any) -> Any:
        return self._write(self.inner.create, where, options)

    def append(self, *where: Any, **options: Any) -> Any:
        return self._write(self.inner.append, where, options)

    def open_incarnation(self, *where: Any, **options: Any) -> Any:
        return self._write(self.inner.open_incarnation, where, options)


def counted(tally: Tally) -> Any:
    @workflow
    def w() -> Flow[list[Any]]:
        first = yield from tally.step("one")
        yield Sleep(1)
        both = yield All(tally.step("two"), tally.step("three").options(at_most_once=True))
        got = yield from Suspend("go", into=str)
        return [first, *both, got, (yield from tally.step("four"))]

    return w


@pytest.mark.parametrize("how", ["not applied", "unknown, written", "unknown, not written"])
def test_a_write_that_went_wrong_is_repeated_and_no_step_is(bench: Any, how: str) -> None:
    for nth in range(1, 100):
        tally, run_id = Tally(), f"r{nth}"
        w = counted(tally)
        store = Shaky(bench.store(), nth, how)
        engine = bench.engine(w, store=store, clock=VirtualClock())
        assert "suspended" == engine.start(w, run_id=run_id).status
        outcome = engine.resume(run_id, "go", "now")
        assert [1, 1, 1, "now", 1] == outcome.unwrap()
        assert {"one": 1, "two": 1, "three": 1, "four": 1} == tally.counts
        assert outcome.result == fold(w, engine.history(run_id)).result
        if store.left:
            assert nth > 8
            return


@pytest.mark.parametrize("how", ["not applied", "unknown, not written"])
def test_a_store_that_stays_away_ends_the_session_and_not_the_run(bench: Any, how: str) -> None:
    """Shows S18 (P7)."""
    tally = Tally()
    w = counted(tally)
    error = StoreUnavailableError if how == "not applied" else StoreError
    shaky = Shaky(bench.store(), 2, how, times=8)
    engine = bench.engine(w, store=shaky, clock=VirtualClock())
    with pytest.raises(error, match="after 8 tries"):
        engine.start(w, run_id="r")
    assert (["start"], None, None) == (kinds(engine), engine.get("r").lease_until, engine.get("r").blocked)
    (outcome,) = engine.run_due()
    assert "suspended" == outcome.status
    assert 2 == tally["one"], "its outcome could not be recorded"


def test_a_store_that_stays_away_at_the_start_leaves_nothing(bench: Any) -> None:
    tally = Tally()
    w = counted(tally)
    engine = bench.engine(w, store=Shaky(bench.store(), 1, "not applied", times=8), clock=VirtualClock())
    with pytest.raises(StoreUnavailableError):
        engine.start(w, run_id="r")
    assert ([], 0) == (engine.runs(), tally["one"])
    assert "suspended" == engine.start(w, run_id="r").status


@pytest.mark.parametrize("how", ["not applied", "unknown, written", "unknown, not written"])
def test_outside_writes_are_repeated_too(bench: Any, how: str) -> None:
    @workflow
    def w() -> Flow[list[str]]:
        return [(yield from Suspend("go", into=str)), (yield from Suspend("go", into=str))]

    plain = bench.engine(w)
    for number, act in enumerate(
        [
            lambda engine, run_id: engine.signal(run_id, "go", "x"),
            lambda engine, run_id: engine.resume(run_id, "go", "x"),
            lambda engine, run_id: engine.pause(run_id),
            lambda engine, run_id: engine.cancel(run_id),
            lambda engine, run_id: engine.cancel(run_id, force=True),
            lambda engine, run_id: engine.reset(run_id),
            lambda engine, run_id: engine.fork(run_id, before=1, new_run_id=f"fork-{run_id}"),
        ]
    ):
        run_id = f"r{number}"
        plain.start(w, run_id=run_id)
        shaky = Shaky(bench.store(), 1, how)
        act(bench.engine(w, store=shaky, clock=VirtualClock()), run_id)
        assert 0 == shaky.left
        outside = [kind for kind in kinds(plain, run_id) if kind in ("resume", "pause", "cancel")]
        assert outside == list(dict.fromkeys(outside)), "each once"
        assert None is plain.get(run_id).lease_until


def test_a_signal_that_two_send_under_one_id_is_driven_by_one(bench: Any) -> None:
    """A webhook that is delivered twice: the second delivery repeats the first one's write, and gets no lease."""
    inside, leave = threading.Event(), threading.Event()
    ran: list[str] = []

    def effect() -> str:
        ran.append(threading.current_thread().name)
        inside.set()
        assert leave.wait(PATIENCE)
        return "done"

    @workflow
    def asks() -> Flow[str]:
        yield Suspend("approve", into=str)
        return (yield from Step(effect))

    first = bench.engine(asks)

    class Late(Wrapped):
        """The other delivery comes between the look and the append."""

        def append(self, *where: Any, fence: int | None = None, **how: Any) -> Any:
            if fence is None and not tasks:
                tasks.append(Task(lambda: first.resume("r", "approve", "a", id="one")))
                assert inside.wait(PATIENCE)
            return self.inner.append(*where, fence=fence, **how)

    tasks: list[Task] = []
    second = bench.engine(asks, store=Late(bench.store()))
    first.start(asks, run_id="r")
    outcome = second.resume("r", "approve", "b", id="one")
    assert isinstance(outcome, Running)
    leave.set()
    assert RunCompleted("r", "done") == tasks[0].result()
    assert 1 == len(ran)


def test_who_opened_an_incarnation_that_another_has_closed_drives_neither(bench: Any) -> None:
    """Two restarts at once: the first one's lease is for its own incarnation, and says nothing of the second one's."""
    inside, leave = threading.Event(), threading.Event()
    ran: list[str] = []

    def effect() -> str:
        ran.append(current_step().idempotency_key)
        if len(ran) > 1:
            inside.set()
            assert leave.wait(PATIENCE)
        return "done"

    @workflow
    def plain() -> Flow[str]:
        return (yield from Step(effect))

    other = bench.engine(plain)

    class Slow(Wrapped):
        """The other restart comes between the new incarnation and its load."""

        def open_incarnation(self, *where: Any, **how: Any) -> Any:
            done = self.inner.open_incarnation(*where, **how)
            tasks.append(Task(lambda: other.start(plain, run_id="r", if_open="restart")))
            assert inside.wait(PATIENCE)
            return done

    tasks: list[Task] = []
    engine = bench.engine(plain, store=Slow(bench.store()))
    assert RunCompleted("r", "done") == engine.start(plain, run_id="r")
    engine.start(plain, run_id="r", if_closed="restart")
    leave.set()
    assert RunCompleted("r", "done") == tasks[0].result()
    assert 2 == len(ran), "once in the first incarnation, and once in the newest"


def test_a_lease_that_lapsed_unnoticed_is_lost_when_its_own_engine_takes_the_run_again(memory: Any) -> None:
    """As after a pause of the whole process: the session of before must not go on beside the new one."""

    @workflow
    def w() -> Flow[int]:
        return (yield from Step(int).options(into=int))

    engine = memory.engine(w)
    engine.submit(w, run_id="r")
    sessions = engine._sessions
    old = engine.store.claim("r", "x", 30)
    with sessions.held(old) as before:
        engine.store.release(old)
        with sessions.held(engine.store.claim("r", "x", 30)) as after:
            assert (True, False) == (before.lost, after.lost)


def test_a_process_without_threads_to_spare_tries_to_renew_again(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A renewing thread that could not be started is no thread."""

    @workflow
    def w() -> Flow[int]:
        return (yield from Step(int).options(into=int))

    engine = memory.engine(w)
    engine.submit(w, run_id="r")

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as starved:
        starved.setattr(threading.Thread, "start", refuse)
        with pytest.raises(StoreUnavailableError, match="can't start new thread"):
            engine.run_due()
    assert engine._sessions._thread is None
    assert [RunCompleted("r", 0)] == engine.run_due()
    assert engine._sessions._thread is not None
