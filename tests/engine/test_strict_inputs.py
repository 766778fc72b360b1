"""strict_inputs: a step that would be called with other inputs than were recorded is a divergence."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import frozen

from stepwell import (
    All,
    DivergenceError,
    Flow,
    InvalidInputError,
    Patched,
    RunCompleted,
    Step,
    Suspend,
    Workflow,
    workflow,
)
from stepwell import events as e
from stepwell.testing import replay, returned, simulate

from .tools import Tally


@frozen
class Item:
    name: str
    count: int = 1


def price(item: Item, *, rate: int = 1) -> int:
    return item.count * rate


def orders(rate: int, **options: Any) -> Workflow[[str], str]:
    """Order workflows that differ in what they hand to their step."""

    @workflow(name="order", **options)
    def order(name: str) -> Flow[str]:
        yield Step(price, Item(name), rate=rate)
        return (yield from Suspend("paid", into=str))

    return order


def test_changed_inputs_go_unnoticed_by_default(bench: Any) -> None:
    """The recorded result counts, whatever it would be today."""
    bench.engine().start(orders(1), "tea", run_id="r")
    assert RunCompleted("r", "yes") == bench.engine(orders(2)).resume("r", "paid", "yes")


@pytest.mark.parametrize("where", ["engine", "workflow"])
def test_changed_inputs_block_the_run(bench: Any, where: str) -> None:
    strict: dict[str, Any] = {"strict_inputs": True}
    for_engine, for_workflow = (strict, {}) if where == "engine" else ({}, strict)
    old, new = orders(1, **for_workflow), orders(2, **for_workflow)
    bench.engine(**for_engine).start(old, "tea", run_id="r")
    engine = bench.engine(new, **for_engine)
    with pytest.raises(DivergenceError, match="calls it with inputs") as caught:
        engine.advance("r")
    (step,) = (event for event in engine.history("r") if isinstance(event, e.Step))
    assert f"step 'price' with inputs {step.inputs}" == caught.value.recorded
    assert caught.value.yielded.startswith("step 'price' with inputs ")
    assert caught.value.recorded != caught.value.yielded
    assert ("r", 1, "0") == (caught.value.run_id, caught.value.seq, caught.value.at)
    for remedy in ("Patched", "new version", "fork", "strict_inputs off"):
        assert remedy in caught.value.message
    assert "DIVERGENCE" == engine.get("r").blocked.code
    assert [] == engine.run_due()
    assert RunCompleted("r", "yes") == bench.engine(old, **for_engine).resume("r", "paid", "yes")


def test_a_workflow_may_say_otherwise_than_its_engine(bench: Any) -> None:
    bench.engine().start(orders(1), "tea", run_id="r")
    engine = bench.engine(orders(2, strict_inputs=False), strict_inputs=True)
    assert RunCompleted("r", "yes") == engine.resume("r", "paid", "yes")


@pytest.mark.parametrize("again", [False, True])
def test_the_same_inputs_go_on(bench: Any, again: bool) -> None:
    """With the run in memory, and in an engine that replays it."""
    order = orders(1)
    engine = bench.engine(order, strict_inputs=True)
    engine.start(order, "tea", run_id="r")
    engine = bench.engine(order, strict_inputs=True) if again else engine
    assert RunCompleted("r", "yes") == engine.resume("r", "paid", "yes")


def test_inputs_that_do_not_encode_are_not_compared(bench: Any) -> None:
    def work(_thing: object) -> int:
        return 1

    @workflow
    def opaque() -> Flow[int]:
        yield Step(work, object())
        return (yield from Suspend("go", into=int))

    bench.engine(strict_inputs=True).start(opaque, run_id="r")
    assert RunCompleted("r", 2) == bench.engine(opaque, strict_inputs=True).resume("r", "go", 2)


def test_a_list_that_is_changed_after_it_was_handed_over_is_no_change_of_inputs(bench: Any) -> None:
    """Digests are made when the turn ends in which the step was asked for, as they are live."""

    def size(items: list[int]) -> int:
        return len(items)

    @workflow
    def growing() -> Flow[list[int]]:
        items = [1]
        while len(items) < 4:
            items.append((yield from Step(size, items)))

        def branch(number: int) -> Flow[int]:
            items.append(number)
            return (yield from Step(size, items))

        yield All(branch(7), branch(8))
        yield Suspend("go")
        return items

    bench.engine(strict_inputs=True).start(growing, run_id="r")
    assert [1, 1, 2, 3, 7, 8] == bench.engine(growing, strict_inputs=True).resume("r", "go").unwrap()


def test_a_step_that_decides_a_patched_is_compared_too(memory: Any) -> None:
    def asking(rate: int) -> Workflow[[], None]:
        @workflow(name="w")
        def w() -> Flow[None]:
            if rate > 1:
                yield Patched("rate")
            yield Step(price, Item("tea"), rate=rate)
            yield Suspend("go")

        return w

    memory.engine(strict_inputs=True).start(asking(1), run_id="r")
    with pytest.raises(DivergenceError, match="calls it with inputs"):
        memory.engine(asking(2), strict_inputs=True).advance("r")


def test_a_kept_run_that_somebody_else_drove_on_is_compared(disk: Any) -> None:
    """What it keeps in memory was not asked for the steps that other code has recorded meanwhile."""

    def late(rate: int) -> Workflow[[], int]:
        @workflow(name="late")
        def w() -> Flow[int]:
            yield Suspend("go")
            yield Step(price, Item("tea"), rate=rate)
            return (yield from Suspend("end", into=int))

        return w

    engine = disk.engine(strict_inputs=True)
    engine.start(late(1), run_id="r")
    disk.engine(late(2), strict_inputs=True).resume("r", "go")
    with pytest.raises(DivergenceError, match="calls it with inputs"):
        engine.resume("r", "end", 1)


def test_no_step_is_performed_for_a_run_whose_inputs_changed(bench: Any) -> None:
    tally = Tally()

    def counting(rate: int) -> Workflow[[], int]:
        @workflow(name="w")
        def w() -> Flow[int]:
            yield Step(price, Item("tea"), rate=rate)
            yield Suspend("go")
            return (yield from tally.step("after"))

        return w

    bench.engine().start(counting(1), run_id="r")
    engine = bench.engine(counting(2), strict_inputs=True)
    with pytest.raises(DivergenceError):
        engine.resume("r", "go")
    assert 0 == tally["after"]
    assert ["start", "step", "suspend"] == [event.kind for event in engine.history("r")]


@pytest.mark.parametrize("value", [1, "yes"])
def test_it_is_true_or_false(memory: Any, value: Any) -> None:
    with pytest.raises(InvalidInputError, match="strict_inputs must be True or False"):
        memory.engine(strict_inputs=value)
    with pytest.raises(InvalidInputError, match="strict_inputs must be True, False or None"):
        orders(1, strict_inputs=value)


def test_another_step_in_its_place_is_told_as_that(memory: Any) -> None:
    @workflow(name="order")
    def other(name: str) -> Flow[None]:
        yield Step(len, name)

    engine = memory.engine()
    engine.start(orders(1), "tea", run_id="r")
    with pytest.raises(DivergenceError, match="recorded is step 'price', the workflow 'order' yielded step 'len'"):
        memory.engine(other, strict_inputs=True).advance("r")


# ---- in the testing kit


def test_replay_notices_changed_inputs_of_a_recorded_history(memory: Any) -> None:
    engine = memory.engine()
    engine.start(orders(1), "tea", run_id="r")
    history = engine.history("r")
    assert Suspend("paid") == replay(orders(1), "tea", history=history).next
    with pytest.raises(DivergenceError, match="recorded with inputs"):
        replay(orders(2), "tea", history=history)
    with pytest.raises(DivergenceError, match="recorded with inputs"):
        replay(orders(1), "coffee", history=history)
    assert Suspend("paid") == replay(orders(2), "tea", history=history, strict_inputs=False).next


def test_a_fake_answer_says_nothing_of_inputs() -> None:
    assert Suspend("paid") == replay(orders(2), "tea", history=[returned(1)]).next


def test_simulate_finds_inputs_that_are_others_after_a_crash() -> None:
    calls = iter(range(100))

    @workflow
    def careless() -> Flow[int]:
        yield Step(price, Item("tea"), rate=next(calls))
        return (yield from Step(price, Item("milk")))

    with pytest.raises(DivergenceError, match="step 'price' was recorded with inputs"):
        simulate(careless, fakes={price: 1}, crash_after="every")
