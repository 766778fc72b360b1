"""Sagas: what was done is undone in reverse, as recorded steps, whatever dies meanwhile."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from stepwell import (
    All,
    Cancelled,
    Compensate,
    ConflictError,
    Engine,
    Flow,
    InvalidInputError,
    RetryPolicy,
    RunCancelled,
    RunCompleted,
    RunFailed,
    Step,
    Suspend,
    current_step,
    workflow,
)
from stepwell import events as e
from stepwell.testing import cancelled, raised, replay, returned  # noqa: F401

from .dying import every_death
from .tools import PATIENCE, Tally, Task, kinds


def test_what_was_done_is_undone_in_reverse_when_the_run_fails(bench: Any) -> None:
    tally = Tally()

    @workflow
    def trip(fails: bool) -> Flow[str]:
        for name in ("flight", "hotel", "car"):
            yield Compensate(tally.add, f"cancel {name}")
            yield from tally.step(name)
        if fails:
            raise ValueError("no money")
        return "booked"

    engine = bench.engine(trip)
    assert RunCompleted("good", "booked") == engine.start(trip, False, run_id="good")
    assert ["flight", "hotel", "car"] == tally.order
    tally.order.clear()
    outcome = engine.start(trip, True, run_id="bad")
    assert isinstance(outcome, RunFailed)
    assert ("ValueError: no money", ()) == (str(outcome.failure), outcome.suppressed)
    assert ["flight", "hotel", "car", "cancel car", "cancel hotel", "cancel flight"] == tally.order
    undone = [event for event in engine.history("bad") if isinstance(event, e.Step) and event.at.startswith("undo.")]
    assert [("undo.0", "add"), ("undo.1", "add#2"), ("undo.2", "add#3")] == [(one.at, one.step_id) for one in undone]
    assert "error" == kinds(engine, "bad")[-1]
    with pytest.raises(ConflictError, match="has undone what it did"):
        engine.retry("bad")


def test_a_compensation_that_fails_is_kept_beside_the_first_failure_and_stops_no_other(bench: Any) -> None:
    tally = Tally()

    def broken(what: str) -> None:
        raise ConnectionError(f"no line to {what}")

    @workflow
    def trip() -> Flow[str]:
        yield Compensate(tally.add, "first")
        yield Compensate(broken, "hotel").options(name="cancel-hotel", retry=RetryPolicy(2, initial=0))
        yield Compensate(broken, "car")
        raise ValueError("no money")

    engine = bench.engine(trip)
    for outcome in (engine.start(trip, run_id="r"), bench.engine(trip).advance("r")):
        assert isinstance(outcome, RunFailed)
        assert outcome.failure.is_a(ValueError)
        assert ["step 'broken' failed: ConnectionError: no line to car"] == [
            one.message for one in outcome.suppressed[:1]
        ]
        assert "step 'cancel-hotel' failed after 2 attempts" in outcome.suppressed[1].message
    assert 1 == tally["first"]


def test_a_run_that_is_cancelled_is_undone_after_its_own_clean_up(bench: Any) -> None:
    tally = Tally()

    @workflow
    def waiting() -> Flow[str]:
        yield Compensate(tally.add, "undo")
        try:
            return (yield from Suspend("go", into=str))
        except Cancelled:
            yield from tally.step("clean-up")
            raise

    engine = bench.engine(waiting)
    engine.start(waiting, run_id="r")
    assert RunCancelled("r") == engine.cancel("r")
    assert ["clean-up", "undo"] == tally.order


def test_branches_register_in_the_order_in_which_they_come(bench: Any) -> None:
    tally = Tally()

    def branch(name: str) -> Flow[None]:
        yield from tally.step(name)
        yield Compensate(tally.add, f"undo {name}")

    @workflow
    def both() -> Flow[int]:
        yield All(branch("a"), branch("b"))
        raise ValueError

    engine = bench.engine(both)
    assert "failed" == engine.start(both, run_id="r").status
    done = [name for name in tally.order if not name.startswith("undo")]
    finished = [event.step_id for event in engine.history("r") if isinstance(event, e.Step)][:2]
    assert sorted(done) == sorted(finished)
    assert [f"undo {name}" for name in reversed(finished)] == tally.order[2:]


def test_a_fake_history_shows_what_is_undone() -> None:
    def refund(x: int) -> None: ...
    def charge(x: int) -> int: ...  # type: ignore[empty-body]
    def ship() -> None: ...

    @workflow
    def order(x: int) -> Flow[int]:
        paid = yield from Step(charge, x)
        yield Compensate(refund, paid)
        yield from Step(ship)
        return paid

    run = replay(order, 5, history=[returned(5), raised(ConnectionError("no van"))])
    assert Step(refund, 5) == run.next
    run.feed(returned(None))
    assert "error" == run.status
    assert run.failure.is_a(ConnectionError)


def test_wrong_compensations_are_refused_where_they_are_made() -> None:
    with pytest.raises(InvalidInputError, match="Step needs a function"):
        Compensate(3)  # type: ignore[arg-type]


def test_whatever_dies_while_it_is_undone_each_compensation_is_recorded_once(bench: Any) -> None:
    tally = Tally()

    @workflow
    def trip(number: int) -> Flow[str]:
        for name in ("a", "b"):
            yield Compensate(tally.add, f"{number} undo {name}")
            yield from tally.step(f"{number} {name}")
        raise ValueError("no money")

    def check(engine: Engine, number: int) -> None:
        if engine.store.head(f"r{number}") is None:
            return
        outcome = engine.advance(f"r{number}")
        assert isinstance(outcome, RunFailed)
        assert outcome.failure.is_a(ValueError)
        steps = [event.at for event in engine.history(f"r{number}") if isinstance(event, e.Step)]
        assert ["0", "1", "undo.0", "undo.1"] == steps
        assert sum(n for name, n in tally.counts.items() if name.startswith(f"{number} ")) <= 5
        assert tally[f"{number} undo a"] >= 1 <= tally[f"{number} undo b"]

    deaths = every_death(bench, (trip,), lambda engine, n: engine.start(trip, n, run_id=f"r{n}"), check)
    assert deaths >= 10


def test_a_run_that_is_restarted_is_undone_only_when_it_has_failed_for_good(bench: Any) -> None:
    tally = Tally()

    def flaky(good_at: int) -> int:
        if tally.add("try") < good_at:
            raise ConnectionError("down")
        return tally["try"]

    @workflow(restart=RetryPolicy(3, initial=0))
    def trip(good_at: int) -> Flow[int]:
        yield Compensate(tally.add, "undone")
        return (yield from Step(flaky, good_at))

    engine = bench.engine(trip)
    assert RunCompleted("good", 2) == engine.start(trip, 2, run_id="good")
    assert 0 == tally["undone"]
    tally.counts.clear()
    outcome = engine.start(trip, 100, run_id="bad")
    assert isinstance(outcome, RunFailed)
    assert (3, 1) == (tally["try"], tally["undone"])
    assert ["compensate", "step", "error"] == kinds(engine, "bad")[-3:]


def test_a_compensation_without_a_name_is_refused_where_it_is_yielded(memory: Any) -> None:
    @workflow
    def nameless() -> Flow[int]:
        yield Compensate(lambda: 3)
        return 1

    with pytest.raises(InvalidInputError, match="a lambda has no name"):
        memory.engine(nameless).start(nameless)


def test_a_cancel_does_not_stop_what_is_undone(memory: Any) -> None:
    begun, go_on = threading.Event(), threading.Event()
    told: list[bool] = []

    def undo() -> None:
        begun.set()
        assert go_on.wait(PATIENCE)
        told.append(current_step().cancelled)

    @workflow
    def failing() -> Flow[int]:
        yield Compensate(undo)
        raise ValueError("no")

    engine = memory.engine(failing)
    task = Task(lambda: engine.start(failing, run_id="r"))
    assert begun.wait(PATIENCE)
    engine.cancel("r")
    go_on.set()
    outcome = task.result()
    assert isinstance(outcome, RunFailed)
    assert ([False], ()) == (told, outcome.suppressed)
