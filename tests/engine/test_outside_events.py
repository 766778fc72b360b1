"""Events from outside that land between any two of the owner's: every place is tried."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from stepwell import (
    All,
    Emit,
    Flow,
    Now,
    Patched,
    Race,
    Random,
    RunCompleted,
    RunPaused,
    SetState,
    Sleep,
    Step,
    StepFailed,
    Suspend,
    Uuid,
    Workflow,
    workflow,
)
from stepwell.testing.environments import VirtualClock

from .conftest import Bench, embedded
from .tools import Meddled, Tally, fold, steps


class Shape:
    """A workflow with effects, pure values, timers and branches, and what its generators saw."""

    def __init__(self, *, waits: bool = False) -> None:
        self.tally = Tally()
        self.seen: list[list[Any]] = []
        self.workflow = self._make(waits)

    def _make(self, waits: bool) -> Workflow[Any, Any]:
        tally = self.tally

        def breaks() -> int:
            tally.add("breaks")
            raise ConnectionError("as asked")

        def branch(name: str) -> Flow[list[Any]]:
            yield Sleep(1)
            drawn = yield from Random()
            yield tally.step(name)
            return [drawn]

        @workflow
        def mixed() -> Flow[list[Any]]:
            seen: list[Any] = []
            self.seen.append(seen)
            seen.append((yield from Now()).isoformat())
            seen.append((yield tally.step("one")))
            yield Emit(seen[-1])
            seen += [str((yield from Uuid())), (yield from Random())]
            yield SetState(half=True)
            if waits:
                seen.append((yield from Suspend("go", into=str)))
            seen.append(list((yield All(tally.step("two"), branch("three"), branch("four")))))
            if (yield from Patched("newer")):
                seen.append((yield tally.step("five").options(at_most_once=True)))
            seen.append(list((yield Race(Sleep(1_000_000), branch("six")))))
            try:
                yield Step(breaks)
            except StepFailed as error:
                seen.append(str(error))
            yield Sleep(2)
            seen.append((yield from Random()))
            return seen

        return mixed


def drive(quick: Any, shape: Shape, run_id: str, nth: int, act: Callable[[Any, str], Any]) -> tuple[Any, Meddled, Any]:
    """Run the shape while another engine acts right before the nth append."""
    inner = quick.store()
    outside = quick.engine(store=inner, clock=VirtualClock())  # it knows no workflow, so it folds nothing
    store = Meddled(inner, nth, lambda: act(outside, run_id))
    engine = quick.engine(shape.workflow, store=store, clock=VirtualClock())
    return engine.start(shape.workflow, run_id=run_id), store, engine


def nothing(engine: Any, run_id: str) -> None:
    """Leave the run alone."""


def check(engine: Any, shape: Shape, outcome: Any) -> None:
    """What was performed is recorded, once; the replay sees what the live run saw and ends as it ended."""
    run_id = outcome.run_id
    history = engine.history(run_id)
    assert shape.tally.counts == Counter(steps(engine, run_id))
    assert all(count == 1 for count in shape.tally.counts.values())
    live = shape.seen[-1]
    machine = fold(shape.workflow, history, run_id)
    assert live == shape.seen[-1]
    assert machine.closed
    assert {"complete": "completed"}.get(machine.status, machine.status) == outcome.status
    if isinstance(outcome, RunCompleted):
        assert outcome.result == machine.result == live
    assert list(range(len(history))) == [event.offset for event in history]


def everywhere(quick: Any, act: Callable[[Any, str], Any], *, waits: bool = False) -> Iterator[tuple[Shape, Any, Any]]:
    """Run a new shape for each place where `act` can land: the shape, its outcome and its engine."""
    for nth in range(1, 100):
        shape = Shape(waits=waits)
        outcome, store, engine = drive(quick, shape, f"r{nth}", nth, act)
        if store.appends < nth:  # the owner was done before
            assert nth > 3
            return
        yield shape, outcome, engine


@pytest.fixture(params=["memory", "sqlite"])
def quick(request: pytest.FixtureRequest, tmp_path: Any) -> Any:
    made = Bench(request.param, embedded(request.param, tmp_path))
    yield made
    made.close()


def test_an_undisturbed_run_is_replayed_as_it_ran(quick: Any) -> None:
    shape = Shape()
    outcome, store, engine = drive(quick, shape, "r", 0, nothing)
    assert isinstance(outcome, RunCompleted)
    check(engine, shape, outcome)
    assert 8 <= store.appends <= 20


def test_a_signal_that_nobody_waits_for_changes_nothing(quick: Any) -> None:
    for shape, outcome, engine in everywhere(quick, lambda e, r: e.signal(r, "noise", 1)):
        assert isinstance(outcome, RunCompleted)
        check(engine, shape, outcome)


def test_a_signal_that_is_waited_for_is_never_missed(quick: Any) -> None:
    for shape, outcome, engine in everywhere(quick, lambda e, r: e.signal(r, "go", "now"), waits=True):
        assert isinstance(outcome, RunCompleted)
        assert "now" in outcome.result
        check(engine, shape, outcome)


def test_a_cancel_lets_what_runs_end_and_closes_the_run(quick: Any) -> None:
    for shape, outcome, engine in everywhere(quick, lambda e, r: e.cancel(r, "enough")):
        assert ("cancelled", "enough") == (outcome.status, outcome.reason)
        check(engine, shape, outcome)


def test_a_pause_keeps_all_but_what_is_under_way_from_being_recorded(quick: Any) -> None:
    for shape, outcome, engine in everywhere(quick, lambda e, r: e.pause(r)):
        assert isinstance(outcome, RunPaused)
        kinds = [event.kind for event in engine.history(outcome.run_id)]
        assert set(kinds[kinds.index("pause") + 1 :]) <= {"step", "patch"}
        assert outcome == engine.advance(outcome.run_id)
        end = engine.unpause(outcome.run_id)
        assert isinstance(end, RunCompleted)
        check(engine, shape, end)


def test_a_pause_that_is_lifted_at_once_changes_nothing(quick: Any) -> None:
    def blink(engine: Any, run_id: str) -> None:
        engine.pause(run_id)
        engine.unpause(run_id)

    for shape, outcome, engine in everywhere(quick, blink):
        assert isinstance(outcome, RunCompleted)
        check(engine, shape, outcome)


def test_a_cancel_lifts_a_pause(quick: Any) -> None:
    def both(engine: Any, run_id: str) -> None:
        engine.pause(run_id)
        engine.cancel(run_id)

    for shape, outcome, engine in everywhere(quick, both):
        assert "cancelled" == outcome.status
        check(engine, shape, outcome)


def test_a_forced_cancel_closes_at_once_and_nothing_is_recorded_after_it(quick: Any) -> None:
    for shape, outcome, engine in everywhere(quick, lambda e, r: e.cancel(r, "now", force=True)):
        assert ("cancelled", "now") == (outcome.status, outcome.reason)
        history = engine.history(outcome.run_id)
        assert ("cancelled", True) == (history[-1].kind, history[-1].forced)
        assert all(count == 1 for count in shape.tally.counts.values())
        assert fold(shape.workflow, history).closed


def test_signals_that_land_at_every_place_at_once_cannot_starve_the_owner(quick: Any) -> None:
    """After a conflict the owner writes first and feeds after, so that it wins some time."""
    shape = Shape()
    inner = quick.store()
    outside = quick.engine(store=inner)

    class Storm(Meddled):
        def append(self, *where: Any, **how: Any) -> Any:
            if how.get("fence") is not None:
                self.appends += 1
                if self.appends % 2:
                    self.act()
            return self.inner.append(*where, **how)

    store = Storm(inner, 0, lambda: outside.signal("r", "noise"))
    engine = quick.engine(shape.workflow, store=store, clock=VirtualClock())
    outcome = engine.start(shape.workflow, run_id="r")
    assert isinstance(outcome, RunCompleted)
    check(engine, shape, outcome)
    assert [event.kind for event in engine.history("r")].count("resume") > 10


def test_the_same_command_sees_its_own_value_after_a_conflict(quick: Any) -> None:
    """What was drawn and not written is void: the workflow sees what is recorded, live too."""
    shape = Shape()
    outcome, _, engine = drive(quick, shape, "r", 3, lambda e, r: e.signal(r, "noise"))
    void, recorded = shape.seen[-2:]  # the machine was built again
    assert void[2:4] != recorded[2:4]
    check(engine, shape, outcome)


def test_a_new_run_has_the_change_whatever_else_ends_at_that_moment(quick: Bench) -> None:
    """An owner's event that is written while a Patched is asked would say that it has not."""
    engines: list[Any] = []

    def signals(run_id: str) -> int:
        engines[0].signal(run_id, "go", 1)
        return 1

    def asks() -> Flow[bool]:
        yield from Suspend("go")
        return (yield from Patched("new"))

    def asks_after(step: Step[int]) -> Flow[bool]:
        yield step
        return (yield from Patched("newer"))

    @workflow
    def changed(run_id: str) -> Flow[list[Any]]:
        tally = Tally()
        return list(
            (
                yield All(
                    Step(signals, run_id),
                    asks(),
                    tally.step("beside"),
                    asks_after(tally.step("one")),
                    asks_after(tally.step("two")),
                    tally.step("three"),
                )
            )
        )

    engines.append(quick.engine(changed))
    for number in range(10):
        said = engines[0].start(changed, f"r{number}", run_id=f"r{number}").unwrap()
        assert [True, True, True] == [said[1], said[3], said[4]]
