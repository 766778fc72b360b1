"""Budgets: charged once, whatever is replayed or retried; children spend their parent's."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from stepwell import (
    All,
    BudgetExceededError,
    Child,
    ChildFailed,
    Compensate,
    Engine,
    Flow,
    InvalidInputError,
    RunCompleted,
    RunFailed,
    Spend,
    Step,
    StepFailed,
    Suspend,
    workflow,
)
from stepwell.lifecycle import BudgetSpent

from .dying import every_death
from .tools import Tally, kinds


@workflow
def spending(amounts: list[float]) -> Flow[list[float | None]]:
    left: list[float | None] = []
    for amount in amounts:
        left += [(yield from Spend(amount, "tokens"))]
    return left


def test_a_charge_gives_what_is_left_and_is_shown(bench: Any) -> None:
    engine = bench.engine(spending)
    assert RunCompleted("r", [9, 7, 6.5]) == engine.start(spending, [1, 2, 0.5], run_id="r", budget=10)
    assert (3.5, 10) == (engine.get("r").spent, engine.get("r").budget)
    assert RunCompleted("n", [None]) == engine.start(spending, [5], run_id="n")
    assert (5, None) == (engine.get("n").spent, engine.get("n").budget)
    assert 0 == engine.runs()[0].spent


def test_a_whole_number_stays_one_on_replay(bench: Any) -> None:
    @workflow
    def whole() -> Flow[str]:
        left = yield Spend(1)
        yield from Suspend("go")
        return repr(left)

    engine = bench.engine(whole, keep_parked=0)
    engine.start(whole, run_id="r", budget=3)
    assert 1 == engine.get("r").spent
    assert "2" == engine.resume("r", "go").unwrap()


def test_the_charge_that_passes_the_limit_is_recorded_and_throws_as_do_those_that_follow(bench: Any) -> None:
    tally = Tally()

    @workflow
    def stubborn() -> Flow[list[str]]:
        yield Compensate(tally.add, "undone")
        said = []
        for _ in range(3):
            try:
                yield Spend(6)
            except BudgetExceededError as error:
                said.append(f"{error.spent:g}/{error.budget:g}")
        yield from tally.step("clean-up")
        return said

    engine = bench.engine(stubborn)
    assert RunCompleted("r", ["12/10", "12/10"]) == engine.start(stubborn, run_id="r", budget=10)
    assert (12, 2) == (engine.get("r").spent, kinds(engine, "r").count("spend"))

    @workflow
    def plain() -> Flow[int]:
        yield Compensate(tally.add, "undone")
        yield Spend(6)
        return 1

    outcome = engine.start(plain, run_id="p", budget=5)
    assert isinstance(outcome, RunFailed)
    assert ("BUDGET_EXCEEDED", 1) == (outcome.failure.code, tally["undone"])


def test_nothing_is_charged_twice_by_a_retry(bench: Any) -> None:
    works = {"now": False}

    def flaky() -> int:
        if not works["now"]:
            raise ConnectionError
        return 1

    @workflow
    def order() -> Flow[float | None]:
        yield Spend(5, "plan")
        yield All(Step(flaky), Spend(2, "beside"))
        return (yield Spend(1))

    engine = bench.engine(order)
    assert "failed" == engine.start(order, run_id="r", budget=10).status
    assert 7 == engine.get("r").spent
    works["now"] = True
    assert RunCompleted("r", 2) == engine.retry("r")
    assert 8 == engine.get("r").spent


def test_children_spend_what_their_parent_has_left(bench: Any) -> None:
    @workflow
    def parent() -> Flow[list[Any]]:
        yield Spend(10)
        first = yield from Child(spending, [20.0, 5.0])
        second = yield from Child(spending, [1.0]).options(budget=3)
        return [first, second, (yield Spend(4))]

    engine = bench.engine(parent)
    assert RunCompleted("r", [[70, 65], [2], 60]) == engine.start(parent, run_id="r", budget=100)
    assert (40, 25, 1) == tuple(engine.get(one).spent for one in ("r", "r/1:1", "r/1:2"))
    poor = engine.start(parent, run_id="poor", budget=20)
    assert isinstance(poor, RunFailed)
    assert poor.failure.is_a(BudgetExceededError)
    assert 30 == engine.get("poor").spent
    assert 10 == engine.get("poor/1:1").budget


def test_a_child_that_failed_has_spent_all_the_same(bench: Any) -> None:
    works = {"now": False}

    def flaky() -> int:
        if not works["now"]:
            raise ConnectionError
        return 1

    @workflow
    def child() -> Flow[int]:
        yield Spend(7)
        return (yield from Step(flaky))

    @workflow
    def parent() -> Flow[int]:
        return (yield from Child(child))

    engine = bench.engine(parent)
    engine.start(parent, run_id="r", budget=100)
    assert 7 == engine.get("r").spent
    works["now"] = True
    assert 1 == engine.retry("r").unwrap()
    assert 14 == engine.get("r").spent


def test_a_meter_is_called_once_a_charge_and_never_on_replay(bench: Any, caplog: pytest.LogCaptureFixture) -> None:
    metered: list[BudgetSpent] = []

    @workflow
    def waiting() -> Flow[int]:
        yield Spend(1, "first")
        yield from Suspend("go")
        yield Spend(2, "second")
        return 1

    bench.engine(waiting, meter=metered.append).start(waiting, run_id="r", budget=10)
    assert [BudgetSpent("r", 1, "first", 1, 9)] == metered
    bench.engine(waiting, meter=metered.append).resume("r", "go")
    assert [BudgetSpent("r", 2, "second", 3, 7)] == metered[1:]

    def raises(_charge: BudgetSpent) -> None:
        raise ValueError("no meter")

    assert "completed" == bench.engine(spending, meter=raises).start(spending, [1]).status
    assert "the meter raised" in caplog.text
    with pytest.raises(InvalidInputError, match="meter"):
        bench.engine(spending, meter=3)


@pytest.mark.parametrize("wrong", [-1, "10", True, float("nan"), float("inf")])
def test_wrong_amounts_are_refused(memory: Any, wrong: Any) -> None:
    with pytest.raises(InvalidInputError, match="a number, 0 or more"):
        Spend(wrong)
    with pytest.raises(InvalidInputError, match="budget must be a number"):
        memory.engine(spending).start(spending, [1], budget=wrong)


def test_whatever_dies_each_charge_counts_once(bench: Any) -> None:
    tally = Tally()

    @workflow
    def child(number: int) -> Flow[int]:
        yield Spend(10)
        return (yield from tally.step(f"child {number}"))

    @workflow
    def parent(number: int) -> Flow[float | None]:
        yield Spend(1)
        yield from tally.step(f"parent {number}")
        yield from Child(child, number)
        return (yield Spend(1))

    def check(engine: Engine, number: int) -> None:
        if engine.store.head(f"r{number}") is not None:
            assert RunCompleted(f"r{number}", 88) == engine.advance(f"r{number}")
            assert 12 == engine.get(f"r{number}").spent

    def act(engine: Engine, number: int) -> object:
        return engine.start(parent, number, run_id=f"r{number}", budget=100)

    assert every_death(bench, (parent, child), act, check) > 20


def test_what_a_retry_does_again_is_charged_again_and_what_it_keeps_is_not(bench: Any) -> None:
    """What was spent after the failure was spent, though the retried run goes another way."""
    tries = Tally()

    def flaky() -> int:
        if tries.add("flaky") < 3:
            raise ConnectionError
        return 1

    @workflow
    def order() -> Flow[float | None]:
        yield Spend(1, "before")
        try:
            yield Step(flaky)
        except StepFailed as error:
            yield from tries.step("apology")
            yield Spend(100, "apology")
            raise ValueError("sorry") from error
        return (yield Spend(5, "after"))

    engine = bench.engine(order)
    assert "failed" == engine.start(order, run_id="r", budget=1_000).status
    assert 101 == engine.get("r").spent
    assert "failed" == engine.retry("r").status
    assert (201, 2) == (engine.get("r").spent, tries["apology"])
    assert RunCompleted("r", 794) == engine.retry("r")
    assert 206 == engine.get("r").spent


def test_the_charge_that_passed_the_limit_is_not_made_twice_by_a_retry(bench: Any) -> None:
    engine = bench.engine(spending)
    assert "failed" == engine.start(spending, [6.0, 6.0], run_id="r", budget=10).status
    assert 12 == engine.get("r").spent
    assert "failed" == engine.retry("r").status
    assert 12 == engine.get("r").spent


def test_a_child_that_is_retried_by_hand_charges_what_it_spent_more(bench: Any) -> None:
    works = {"now": False}

    def flaky() -> int:
        if not works["now"]:
            raise ConnectionError
        return 1

    @workflow
    def child() -> Flow[int]:
        yield Spend(10)
        yield Step(flaky)
        yield Spend(500)
        return 1

    @workflow
    def parent() -> Flow[int]:
        with suppress(ChildFailed):
            yield Child(child)
        yield Suspend("go")
        return 1

    engine = bench.engine(parent)
    engine.start(parent, run_id="r")
    works["now"] = True
    engine.retry("r/1:0")
    assert 510 == engine.get("r").spent
    engine.resume("r", "go")
    assert 510 == engine.get("r").spent
