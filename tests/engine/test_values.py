"""What goes into steps and comes out of them: copies, types, results that can't be recorded, the end of the process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from attrs import define, frozen

from stepwell import (
    All,
    CodecError,
    Flow,
    RetryPolicy,
    RunCompleted,
    RunFailed,
    Step,
    Suspend,
    failed,
    workflow,
)

from .tools import Tally, fold, kinds, steps


@define
class Basket:
    """A thing that can be changed in place."""

    items: list[str]


@frozen
class Point:
    """A pair that is no list."""

    xy: tuple[int, int]


class Opaque:
    """Nothing that a history could hold."""


def test_a_step_that_changes_its_argument_changes_nothing_in_the_workflow(bench: Any) -> None:
    def sort(basket: Basket, more: list[str]) -> int:
        basket.items.sort()
        more.clear()
        return len(basket.items)

    @workflow
    def shop(basket: Basket) -> Flow[list[str]]:
        more = ["x"]
        yield Step(sort, basket, more)
        yield Step(sort, basket, more=more)
        return basket.items + more

    engine, basket = bench.engine(), Basket(["tea", "milk"])
    assert ["tea", "milk", "x"] == engine.start(shop, basket, run_id="r").unwrap()
    assert Basket(["tea", "milk"]) == basket


def test_a_workflow_that_changes_its_input_changes_nothing_outside(bench: Any) -> None:
    @workflow
    def eat(basket: Basket) -> Flow[int]:
        basket.items.clear()
        yield Suspend("go")
        return len(basket.items)

    engine, basket = bench.engine(), Basket(["tea"])
    engine.start(eat, basket, run_id="r")
    assert Basket(["tea"]) == basket
    assert [{"items": ["tea"]}] == engine.get("r").input


def test_what_cannot_be_copied_is_handed_over_as_it_is(memory: Any) -> None:

    lock = threading.Lock()
    seen = []

    def locked(held: Any) -> None:
        seen.append(held)

    @workflow
    def uses() -> Flow[None]:
        yield Step(locked, lock)

    assert "completed" == memory.engine().start(uses, run_id="r").status
    assert [lock] == seen


def test_a_value_enters_the_workflow_as_it_is_read_back(bench: Any) -> None:
    """Shows S7 (P3)."""

    def typed() -> Point:
        return Point((1, 2))

    def untyped():
        return {"xy": [1, 2]}

    seen: list[Any] = []

    @workflow
    def looks() -> Flow[None]:
        mine: list[Any] = []
        seen.append(mine)
        mine.append((yield from Step(typed)))
        mine.append((yield Step(untyped)))
        mine.append((yield from Step(untyped).options(into=Point)))

    engine = bench.engine()
    engine.start(looks, run_id="r")
    fold(looks, engine.history("r"))
    assert [[Point((1, 2)), {"xy": [1, 2]}]] * 2 == [mine[:2] for mine in seen]


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda: Opaque(), "$"),
        (lambda: {"a": [1, Opaque()]}, "$.a[1]"),
        (lambda: {"a": float("nan")}, "$.a"),
        (lambda: (1, 2), "$"),
        (lambda: {1: 2}, "$"),
    ],
)
def test_a_result_that_cannot_be_recorded_fails_the_step_once_and_for_all(
    bench: Any, make: Callable[[], Any], path: str
) -> None:
    tally = Tally()

    def effect():
        tally.add("effect")
        return make()

    @workflow
    def acts() -> Flow[str]:
        yield Step(effect).options(retry=RetryPolicy(5, initial=0))
        return "done"

    engine = bench.engine()
    outcome = engine.start(acts, run_id="r")
    assert isinstance(outcome, RunFailed)
    assert outcome.failure.is_a(CodecError)
    assert path in outcome.failure.message
    assert (1, ["start", "step", "error"]) == (tally["effect"], kinds(engine))
    assert outcome == engine.advance("r")
    assert 1 == tally["effect"]


def test_a_workflow_may_catch_what_could_not_be_recorded(bench: Any) -> None:
    def effect() -> int:
        return "not an int"  # type: ignore[return-value]

    @workflow
    def acts() -> Flow[str]:
        try:
            yield Step(effect)
        except failed(CodecError) as caught:
            return str(caught.failure.code)
        return "done"

    assert RunCompleted("r", "CODEC") == bench.engine().start(acts, run_id="r")


def test_an_annotation_that_cannot_be_decoded_is_refused_before_the_call(bench: Any) -> None:
    tally = Tally()

    def effect() -> Opaque:
        tally.add("effect")
        return Opaque()

    def unresolved() -> NoSuchClass:  # type: ignore[name-defined]  # noqa: F821
        tally.add("effect")

    @workflow
    def acts(which: int) -> Flow[str]:
        yield Step((effect, unresolved)[which]).options(retry=RetryPolicy(3, initial=0))
        return "done"

    @workflow
    def branches() -> Flow[str]:
        yield All(Step(effect), Step(unresolved))
        return "done"

    engine = bench.engine()
    for run_id in ("0", "1"):
        outcome = engine.start(acts, int(run_id), run_id=run_id)
        assert outcome.failure.is_a(CodecError)
    assert engine.start(branches, run_id="r").failure.is_a(CodecError)
    assert 0 == tally["effect"]


def test_a_result_of_the_workflow_that_cannot_be_recorded_fails_the_run(bench: Any) -> None:
    @workflow
    def opaque() -> Flow[Any]:
        yield Step(int)
        return Opaque()

    engine = bench.engine()
    outcome = engine.start(opaque, run_id="r")
    assert outcome.failure.is_a(CodecError)
    assert outcome == engine.advance("r")


class Stop(KeyboardInterrupt):
    """Ctrl-C, of a kind that pytest does not take for its own."""


@pytest.mark.parametrize("error", [Stop(), SystemExit(3)])
@pytest.mark.parametrize("where", ["here", "branch", "timeout", "async", "async branch"])
def test_what_ends_the_process_is_never_recorded_and_frees_the_run(
    bench: Any, error: BaseException, where: str
) -> None:
    tally = Tally()

    def ends() -> int:
        if tally.add("ends") == 1:
            raise error
        return tally["ends"]

    async def ends_too() -> int:
        return ends()

    one: Step[int] = Step(ends_too if where.startswith("async") else ends).options(into=int, name="ends")

    @workflow
    def works() -> Flow[int]:
        yield tally.step("before")
        if "branch" in where:
            return sum((yield All(one, tally.step("sibling"))))
        return (yield from (one.options(timeout=30) if where == "timeout" else one))

    engine = bench.engine()
    with pytest.raises(type(error)):
        engine.start(works, run_id="r")
    record = engine.get("r")
    assert ("pending", None, None) == (record.status, record.lease_until, record.blocked)
    assert "ends" not in steps(engine)
    (outcome,) = engine.run_due()
    assert "completed" == outcome.status
    assert (1, 2) == (tally["before"], tally["ends"])


@pytest.mark.parametrize("error", [Stop(), SystemExit(3)])
def test_what_ends_the_process_inside_the_workflow_is_never_recorded(bench: Any, error: BaseException) -> None:
    tally = Tally()

    @workflow
    def works() -> Flow[str]:
        yield tally.step("before")
        if tally.add("own code") == 1:
            raise error
        return "done"

    engine = bench.engine()
    with pytest.raises(type(error)):
        engine.start(works, run_id="r")
    assert (["start", "step"], None) == (kinds(engine), engine.get("r").lease_until)
    assert [RunCompleted("r", "done")] == engine.run_due()


def test_arguments_by_keyword_reach_the_step(bench: Any) -> None:
    def join(a: str, b: str, *, sep: str) -> str:
        return sep.join((a, b))

    @workflow
    def joins() -> Flow[str]:
        return (yield from Step(join, "a", b="b", sep="-"))

    assert "a-b" == bench.engine().start(joins, run_id="r").unwrap()


def test_an_argument_that_is_called_self_reaches_the_step(memory: Any) -> None:
    def told(**named: str) -> dict[str, str]:
        return named

    @workflow
    def names() -> Flow[dict[str, str]]:
        return (yield from Step(told, self="a", fn="b"))

    assert {"self": "a", "fn": "b"} == memory.engine().start(names, run_id="r").unwrap()
