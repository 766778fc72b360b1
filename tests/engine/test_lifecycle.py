"""What a listener hears, and what loggers say."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest

from stepwell import (
    All,
    BudgetExceededError,
    Child,
    ConflictError,
    DivergenceError,
    Emit,
    Flow,
    RetryPolicy,
    RunClosedError,
    RunCompleted,
    RunFailed,
    Sleep,
    Spend,
    Step,
    Suspend,
    get_logger,
    workflow,
)
from stepwell.lifecycle import (
    BudgetExceeded,
    BudgetNears,
    BudgetSpent,
    CancelAsked,
    ChildEnded,
    LifecycleEvent,
    PauseAsked,
    RunBlocked,
    RunClosed,
    RunOpened,
    RunParked,
    RunRemoved,
    SessionStarted,
    SignalSent,
    StepAttemptFailed,
    StepCompleted,
    StepDropped,
    StepErrored,
    StepReplayed,
    StepStarted,
    TimerFired,
    UnpauseAsked,
    ValueEmitted,
)

from .tools import HandClock, Meddled, Tally


@workflow
def life(x: int) -> Flow[str]:
    yield Step(int, x).options(name="first")
    yield Emit({"x": x}, topic="news")
    yield Sleep(timedelta(hours=1))
    return (yield from Suspend("go", into=str, reason="why not"))


def names(heard: list[Any]) -> list[str]:
    return [type(event).__name__ for event in heard]


def test_a_listener_hears_the_whole_life_of_a_run(bench: Any) -> None:
    heard: list[LifecycleEvent] = []
    clock = HandClock()
    engine = bench.engine(on_event=heard.append, clock=clock)
    engine.start(life, 1, run_id="r")
    due = clock.now() + timedelta(hours=1)
    assert [
        RunOpened("r", "life"),
        SessionStarted("r", 1, 1),
        StepStarted("r", "first", "0", 1),
        StepCompleted("r", "first", "0", 1, 0.0),
        ValueEmitted("r", {"x": 1}, "news"),
        RunParked("r", "suspended", (), due),
    ] == heard
    heard.clear()
    clock.advance(3600)
    engine.run_due()
    assert [
        SessionStarted("r", 2, 4),
        StepReplayed("r", "first", "0"),
        TimerFired("r", "2"),
        RunParked("r", "suspended", ("go",)),
    ] == heard
    heard.clear()
    assert RunCompleted("r", "now") == engine.resume("r", "go", "now")
    assert [
        SignalSent("r", "go"),
        SessionStarted("r", 3, 7),
        StepReplayed("r", "first", "0"),
        RunClosed("r", "completed"),
    ] == heard


def test_events_are_frozen(memory: Any) -> None:
    heard: list[Any] = []
    memory.engine(on_event=heard.append).start(life, 1, run_id="r")
    for event in heard:
        with pytest.raises(AttributeError):
            event.run_id = "other"


def test_failures_are_told_with_the_live_error(memory: Any) -> None:
    error = LookupError("gone")

    def breaks() -> None:
        raise error

    @workflow
    def w() -> Flow[None]:
        yield Step(breaks)

    heard: list[Any] = []
    outcome = memory.engine(on_event=heard.append).start(w, run_id="r")
    assert isinstance(outcome, RunFailed)
    (errored,) = (event for event in heard if isinstance(event, StepErrored))
    assert ("breaks", "0", 1, error) == (errored.step_id, errored.at, errored.attempt, errored.error)
    assert RunClosed("r", "failed", outcome.failure) == heard[-1]


def test_a_blocked_run_is_told(bench: Any) -> None:
    @workflow(name="life")
    def other(x: int) -> Flow[str]:
        return (yield from Suspend("go", into=str))

    bench.engine(clock=HandClock()).start(life, 1, run_id="r")
    heard: list[Any] = []
    engine = bench.engine(other, on_event=heard.append)
    with pytest.raises(DivergenceError):
        engine.advance("r")
    assert ["RunBlocked"] == names(heard)
    assert isinstance(heard[0], RunBlocked)
    assert "DIVERGENCE" == heard[0].code


def test_a_step_that_never_ran_is_told(bench: Any) -> None:
    heard: list[Any] = []

    @workflow
    def w() -> Flow[None]:
        yield Step(int).options(name="never")

    engine = bench.engine(on_event=heard.append)
    engine.submit(w, run_id="r")
    engine.cancel("r")
    assert [
        RunOpened("r", "w"),
        CancelAsked("r"),
        SessionStarted("r", 2, 2),
        StepDropped("r", "never", "0"),
        RunClosed("r", "cancelled"),
    ] == heard


def test_a_listener_that_raises_never_hurts_a_run(bench: Any, caplog: pytest.LogCaptureFixture) -> None:
    def breaks() -> int:
        raise ConnectionError

    @workflow
    def w() -> Flow[str]:
        yield Emit(1)
        yield All(Step(int).options(timeout=60), Step(str))
        try:
            yield Step(breaks).options(retry=RetryPolicy(2, initial=0))
        except Exception:
            yield Step(int)
        return (yield from Suspend("go", into=str))

    heard: list[Any] = []

    def listener(event: LifecycleEvent) -> None:
        heard.append(event)
        raise RuntimeError(f"no ear for {type(event).__name__}")

    engine = bench.engine(on_event=listener)
    with caplog.at_level(logging.ERROR, "stepwell"):
        assert "suspended" == engine.start(w, run_id="r").status
        assert RunCompleted("r", "now") == engine.resume("r", "go", "now")
    assert {StepAttemptFailed, RunClosed, ValueEmitted} <= {type(event) for event in heard}
    assert len(heard) == sum("the on_event listener raised" in record.message for record in caplog.records)


def test_a_workflows_logger_is_silent_in_replay(bench: Any, caplog: pytest.LogCaptureFixture) -> None:
    log = get_logger("shop")

    @workflow
    def talks() -> Flow[str]:
        log.info("begins")
        yield Step(int)
        log.info("goes on")
        yield Suspend("go")
        log.info("ends")
        return "done"

    caplog.set_level(logging.INFO, "shop")
    engine = bench.engine()
    engine.start(talks, run_id="r")
    assert ["begins", "goes on"] == [record.message for record in caplog.records if record.name == "shop"]
    engine.advance("r")
    engine.query("r")
    engine.start(talks, run_id="r")
    engine.submit(talks, run_id="r")
    engine.signal("r", "other")
    engine.run_due()
    assert ["begins", "goes on"] == [record.message for record in caplog.records if record.name == "shop"]
    bench.engine(talks).resume("r", "go")
    assert ["begins", "goes on", "ends"] == [record.message for record in caplog.records if record.name == "shop"]


def test_a_workflows_logger_is_silent_when_a_run_is_retried(bench: Any, caplog: pytest.LogCaptureFixture) -> None:
    log = get_logger("shop")
    tally = Tally()

    def breaks() -> int:
        if tally.add("breaks") == 1:
            raise ConnectionError
        return 1

    @workflow
    def talks() -> Flow[str]:
        log.info("begins")
        yield Step(breaks)
        log.info("ends")
        return "done"

    caplog.set_level(logging.INFO, "shop")
    engine = bench.engine()
    engine.start(talks, run_id="r")
    assert RunCompleted("r", "done") == engine.retry("r")
    assert ["begins", "ends"] == [record.message for record in caplog.records if record.name == "shop"]


def test_a_submitted_run_is_logged_when_it_is_begun(memory: Any, caplog: pytest.LogCaptureFixture) -> None:
    log = get_logger("shop")

    @workflow
    def talks() -> Flow[str]:
        log.info("begins")
        yield Step(int)
        log.info("ends")
        return "done"

    caplog.set_level(logging.INFO, "shop")
    engine = memory.engine()
    engine.submit(talks, run_id="r")
    engine.run_due()
    assert ["begins", "ends"] == [record.message for record in caplog.records if record.name == "shop"]


def test_a_logger_talks_outside_of_workflows(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "shop")
    get_logger("shop").info("plain")
    get_logger("shop").info("plain")
    assert ["plain", "plain"] == [record.message for record in caplog.records]
    assert "stepwell.workflow" == get_logger().name


def test_values_that_were_emitted_in_vain_are_told_once_they_are_recorded(memory: Any) -> None:
    heard: list[Any] = []

    @workflow
    def w() -> Flow[int]:
        yield Emit("one")
        return (yield from Step(int).options(into=int))

    plain = memory.engine()
    store = Meddled(memory.store(), 1, lambda: plain.signal("r", "noise"))
    engine = memory.engine(w, store=store, on_event=heard.append)
    assert RunCompleted("r", 0) == engine.start(w, run_id="r")
    assert ["one"] == [event.value for event in heard if isinstance(event, ValueEmitted)]


@workflow
def waits() -> Flow[str]:
    return (yield from Suspend("go", into=str))


def test_that_somebody_asks_a_run_to_stop_or_to_go_on_is_told(bench: Any) -> None:
    heard: list[Any] = []
    engine = bench.engine(waits, on_event=heard.append)
    engine.start(waits, run_id="r")
    heard.clear()
    engine.pause("r", "a release")
    engine.unpause("r")
    engine.cancel("r", "nobody wants it")
    assert [
        PauseAsked("r", "a release"),
        SessionStarted("r", 2, 3),
        RunParked("r", "paused", ("go",)),
        UnpauseAsked("r"),
        SessionStarted("r", 3, 4),
        RunParked("r", "suspended", ("go",)),
        CancelAsked("r", "nobody wants it"),
        SessionStarted("r", 4, 5),
        RunClosed("r", "cancelled"),
    ] == heard


def test_what_is_asked_of_a_run_is_told_where_nobody_can_drive_it(bench: Any) -> None:
    bench.engine(waits).start(waits, run_id="r")
    heard: list[Any] = []
    stranger = bench.engine(on_event=heard.append)
    stranger.pause("r")
    stranger.cancel("r")
    assert [PauseAsked("r"), CancelAsked("r")] == heard


def test_what_is_refused_is_not_told(bench: Any) -> None:
    heard: list[Any] = []
    engine = bench.engine(waits, on_event=heard.append)
    engine.start(waits, run_id="r")
    with pytest.raises(ConflictError):
        engine.delete("r")
    engine.resume("r", "go", "now")
    heard.clear()
    for refused in (engine.pause, engine.unpause, engine.cancel):
        with pytest.raises(RunClosedError):
            refused("r")
    assert [] == heard


def test_a_cancel_that_is_passed_on_to_a_child_is_told_of_both(bench: Any) -> None:
    @workflow
    def parent() -> Flow[str]:
        return (yield from Child(waits).options(run_id="child"))

    heard: list[Any] = []
    engine = bench.engine(parent, waits, on_event=heard.append)
    engine.start(parent, run_id="r")
    engine.cancel("r", "enough")
    asked = [event for event in heard if isinstance(event, CancelAsked)]
    assert [CancelAsked("r", "enough"), CancelAsked("child", "enough")] == asked
    assert [ChildEnded("r", "child", "cancelled", "0")] == [e for e in heard if isinstance(e, ChildEnded)]
    assert {"r", "child"} == {event.run_id for event in heard if isinstance(event, RunClosed)}


def test_the_end_of_a_child_is_told_once(bench: Any) -> None:
    @workflow
    def parent() -> Flow[str]:
        return (yield from Child(waits).options(run_id="child"))

    heard: list[Any] = []
    engine = bench.engine(parent, waits, on_event=heard.append)
    engine.start(parent, run_id="r")
    engine.resume("child", "go", "now")
    assert RunCompleted("r", "now") == engine.start(parent, run_id="r")
    assert [ChildEnded("r", "child", "completed", "0")] == [e for e in heard if isinstance(e, ChildEnded)]


def test_runs_that_are_removed_are_told_each_once(bench: Any) -> None:
    heard: list[Any] = []
    engine = bench.engine(waits, on_event=heard.append)
    for run_id in ("deleted", "pruned", "kept"):
        engine.start(waits, run_id=run_id)
    engine.resume("deleted", "go", "now")
    engine.cancel("pruned")
    heard.clear()
    engine.delete("deleted")
    assert [RunRemoved("deleted", "waits", "completed")] == heard
    heard.clear()
    engine.prune(older_than=0, dry_run=True)
    assert [] == heard
    engine.prune(older_than=0)
    engine.prune(older_than=0)
    assert [RunRemoved("pruned", "waits", "cancelled")] == heard


def test_a_budget_that_nears_its_end_and_is_passed_is_told_once_each(bench: Any) -> None:
    @workflow
    def spends(amounts: list[float]) -> Flow[int]:
        refused = 0
        for amount in amounts:
            try:
                yield Spend(amount)
            except BudgetExceededError:
                refused += 1
        yield Suspend("go")
        return refused

    heard: list[Any] = []
    engine = bench.engine(spends, on_event=heard.append, keep_parked=0)
    engine.start(spends, [80.0, 9.0, 1.0, 5.0, 5.0, 1.0, 1.0], run_id="slow", budget=100)
    engine.start(spends, [80.0, 30.0], run_id="quick", budget=100)
    engine.start(spends, [80.0, 30.0], run_id="free")
    for run_id in ("slow", "quick", "free"):
        engine.resume(run_id, "go")
    told = [event for event in heard if isinstance(event, (BudgetNears, BudgetExceeded))]
    assert [BudgetNears("slow", 90, 100), BudgetExceeded("slow", 101, 100), BudgetExceeded("quick", 110, 100)] == told
    assert 10 == sum(isinstance(event, BudgetSpent) for event in heard)


def test_what_children_spent_counts_for_the_budget_that_is_told(bench: Any) -> None:
    @workflow
    def child() -> Flow[int]:
        yield Spend(85)
        return 1

    @workflow
    def parent() -> Flow[int]:
        yield Spend(1)
        yield from Child(child)
        yield Spend(4)
        return 1

    heard: list[Any] = []
    bench.engine(parent, child, on_event=heard.append).start(parent, run_id="r", budget=100)
    assert [BudgetNears("r", 90, 100)] == [event for event in heard if isinstance(event, BudgetNears)]
    assert [1, 85, 90] == [event.spent for event in heard if isinstance(event, BudgetSpent)]
