"""`check_history`: what does not fit any more, and which of Patched, a version and a fork mends it."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import frozen

from stepwell import (
    All,
    Child,
    Codec,
    DivergenceError,
    Emit,
    Engine,
    Flow,
    InvalidInputError,
    Patched,
    Sleep,
    Step,
    Suspend,
    Workflow,
    workflow,
)
from stepwell.inputs import inputs_digest
from stepwell.testing import check_history
from stepwell.testing.digesting import Digests


def reserve(item: str) -> str:
    return f"{item} is reserved"


def check_fraud(item: str) -> bool:
    return True


def ship(item: str, size: str = "small") -> str:
    return f"{item} ({size})"


def order(fn: Any, **options: Any) -> Workflow[..., Any]:
    """The function as another code of the same workflow."""
    return workflow(name="order", **options)(fn)


def of_may(item: str) -> Flow[str]:
    yield Step(reserve, item)
    yield Suspend("paid")
    return (yield from Step(ship, item))


@pytest.fixture
def opened() -> Any:
    """The history of an order that waits for its money, and its engine."""
    return recorded(of_may, close=False)


@pytest.fixture
def closed() -> Any:
    """The history of an order that was shipped."""
    return recorded(of_may)


def recorded(fn: Any, *, close: bool = True) -> Any:
    made = order(fn)
    with Engine("memory:", workflows=[made]) as engine:
        engine.start(made, "teapot", run_id="o1")
        if close:
            engine.resume("o1", "paid")
        return engine.history("o1")


def remedies(found: Any) -> list[str]:
    return [one.by for one in found.remedies]


def test_code_that_asks_for_the_same_fits(opened: Any, closed: Any) -> None:
    assert check_history(order(of_may), opened) is None
    assert check_history(order(of_may), closed) is None


def test_a_new_step_shows_what_is_recorded_and_what_is_yielded_and_where(opened: Any) -> None:
    def of_june(item: str) -> Flow[str]:
        yield Step(check_fraud, item)
        yield Step(reserve, item)
        yield Suspend("paid")
        return (yield from Step(ship, item))

    found = check_history(order(of_june), opened)
    assert found is not None
    assert ("command", "DIVERGENCE", 1, "0") == (found.kind, found.code, found.seq, found.at)
    assert ("step 'reserve'", "step 'check_fraud'") == (found.recorded, found.yielded)
    assert found.line.startswith("test_fitting.py:")
    assert "of_june" in found.line
    assert (2, ("1 step 'reserve'", "2 suspend 'paid'")) == (found.left_over, found.left)
    assert ["Patched", "version", "fork"] == remedies(found)
    assert "put step 'check_fraud', which this history has not, behind" in found.remedies[0].how
    for text in ("step 'reserve'", "step 'check_fraud'", "left over", "mend by    Patched", "or by      fork"):
        assert text in str(found)


def test_the_line_of_a_branch_is_the_workflows_own() -> None:
    """A step that is a branch by itself stands at the line of its group, not at one of ours."""

    def both(item: str) -> Flow[None]:
        yield All(Step(reserve, item), Step(ship, item))

    def other(item: str) -> Flow[None]:
        yield All(Step(reserve, item), Step(check_fraud, item))

    found = check_history(order(other), recorded(both, close=False))
    assert found is not None
    assert ("step 'ship'", "step 'check_fraud'") == (found.recorded, found.yielded)
    assert found.line.startswith("test_fitting.py:")
    assert found.line.endswith("other")


def test_the_patch_that_is_proposed_mends_it(opened: Any, closed: Any) -> None:
    def of_july(item: str) -> Flow[str]:
        if (yield from Patched("fraud")):
            yield Step(check_fraud, item)
        yield Step(reserve, item)
        yield Suspend("paid")
        return (yield from Step(ship, item))

    assert check_history(order(of_july), opened) is None
    assert check_history(order(of_july), closed) is None


def test_a_step_that_is_left_out_is_to_be_kept_for_old_runs(opened: Any) -> None:
    def without(item: str) -> Flow[str]:
        if not (yield from Patched("no-reserve")):
            yield Step(reserve, item)
        yield Suspend("paid")
        return (yield from Step(ship, item))

    def bare(item: str) -> Flow[str]:
        yield Suspend("paid")
        return (yield from Step(ship, item))

    found = check_history(order(bare), opened)
    assert found is not None
    assert "the code leaves step 'reserve' out; keep it for old runs" in found.remedies[0].how
    assert check_history(order(without), opened) is None


def test_code_that_has_little_in_common_wants_a_new_version_first(opened: Any) -> None:
    def rewritten(item: str) -> Flow[str]:
        return (yield from Step(str.upper, item))

    found = check_history(order(rewritten), opened)
    assert found is not None
    assert ["version", "Patched", "fork"] == remedies(found)


def test_the_fork_that_is_proposed_goes_on_and_says_what_is_done_again() -> None:
    def of_june(item: str) -> Flow[str]:
        yield Step(reserve, item)
        yield Step(check_fraud, item)
        yield Suspend("paid")
        return (yield from Step(ship, item))

    old, new = order(of_may), order(of_june)
    with Engine("memory:", workflows=[old]) as engine:
        engine.start(old, "teapot", run_id="o1")
        found = check_history(new, engine.history("o1"))
        assert found is not None
        assert "before=2): nothing that is recorded is done again; cancel the old run" in found.remedies[2].how
        with Engine(engine.store, workflows=[new]) as other:
            forked = other.fork("o1", before=found.seq, new_run_id="o2")
            assert ("paid",) == forked.waiting_for  # type: ignore[union-attr]
            assert check_history(new, other.history("o2")) is None


def test_no_fork_is_proposed_after_a_cancel() -> None:
    """An engine refuses one."""

    def tidies(item: str) -> Flow[None]:
        yield Step(reserve, item)
        try:
            yield Suspend("paid")
        finally:
            yield Step(ship, item)

    def tidies_otherwise(item: str) -> Flow[None]:
        yield Step(reserve, item)
        try:
            yield Suspend("paid")
        finally:
            yield Step(check_fraud, item)

    old = order(tidies)
    with Engine("memory:", workflows=[old]) as engine:
        engine.start(old, "teapot", run_id="o1")
        engine.cancel("o1")
        engine.run_due()
        found = check_history(order(tidies_otherwise), engine.history("o1"))
    assert found is not None
    assert ["Patched", "version"] == remedies(found)


def test_a_leftover_tail_is_told(closed: Any) -> None:
    def early(item: str) -> Flow[str]:
        return (yield from Step(reserve, item))

    found = check_history(order(early), closed)
    assert found is not None
    assert ("tail", 2) == (found.kind, found.seq)
    assert "nothing: the workflow has ended (complete)" == found.yielded
    assert ("2 suspend 'paid'", "3 resume 'paid'", "4 step 'ship'", "5 complete") == found.left
    assert "left over  4 recorded events" in str(found)


def test_code_that_goes_on_after_the_recorded_end_is_told(closed: Any) -> None:
    def longer(item: str) -> Flow[str]:
        yield from of_may(item)
        yield Step(check_fraud, item)
        return item

    found = check_history(order(longer), closed)
    assert found is not None
    assert ("end", "complete") == (found.kind, found.recorded)
    assert "step 'check_fraud' at 3" == found.yielded


def test_all_changed_inputs_are_told_with_their_values(closed: Any) -> None:
    def otherwise(item: str) -> Flow[str]:
        yield Step(reserve, item + "!")
        yield Suspend("paid")
        return (yield from Step(ship, item, size="large"))

    found = check_history(order(otherwise), closed, inputs={"0": '["teapot"]'})
    assert found is not None
    assert ("inputs", 1, "0") == (found.kind, found.seq, found.at)
    assert [("reserve", '["teapot"]', '["teapot!"]'), ("ship", None, '[["teapot"],{"size":"large"}]')] == [
        (one.subject, one.recorded, one.now) for one in found.changed
    ]
    assert all(one.digest != one.recorded_digest for one in found.changed)
    assert ["Patched", "version", "fork", "strict_inputs"] == remedies(found)
    assert "done again: step 'reserve', step 'ship'" in found.remedies[2].how
    assert check_history(order(otherwise), closed, strict_inputs=False) is None
    assert check_history(order(otherwise, strict_inputs=False), closed) is None


def test_inputs_that_the_workflow_changes_afterwards_are_no_change() -> None:
    """What counts is what they were when the step was asked for."""

    def grows(item: str) -> Flow[str]:
        basket = [item]
        yield Step(list, basket).options(name="pack", into=list[str])
        basket.append("lid")
        yield All(Step(list, basket).options(name="pack", into=list[str]), Step(reserve, item))
        basket.clear()
        yield Suspend("paid")
        return item

    assert check_history(order(grows), recorded(grows)) is None


def test_changed_inputs_behind_a_question_are_found() -> None:
    def asks(extra: str) -> Any:
        def flow(item: str) -> Flow[str]:
            yield Patched("more")
            yield Step(reserve, item + extra)
            yield Suspend("paid")
            return item

        return flow

    history = [event for event in recorded(asks("")) if event.kind != "patch"]
    assert check_history(order(asks("")), history) is None
    found = check_history(order(asks("!")), history)
    assert found is not None
    assert ["reserve"] == [one.subject for one in found.changed]


def test_changed_inputs_of_a_child_are_found() -> None:
    @workflow
    def packing(item: str) -> Flow[str]:
        return (yield from Step(reserve, item))

    def parent(extra: str) -> Workflow[..., Any]:
        def flow(item: str) -> Flow[str]:
            return (yield from Child(packing, item + extra))

        return order(flow)

    old = parent("")
    with Engine("memory:", workflows=[old, packing]) as engine:
        engine.start(old, "teapot", run_id="o1").unwrap()
        history = engine.history("o1")
    assert check_history(old, history) is None
    found = check_history(parent("!"), history)
    assert found is not None
    assert [("packing", '["teapot!"]')] == [(one.subject, one.now) for one in found.changed]


def test_a_result_that_the_type_of_today_can_not_read_is_told(opened: Any) -> None:
    @frozen
    class Reserved:
        number: int

    def typed(item: str) -> Flow[str]:
        yield Step(reserve, item).options(into=Reserved)
        yield Suspend("paid")
        return item

    found = check_history(order(typed), opened)
    assert found is not None
    assert ("value", "CODEC", 1) == (found.kind, found.code, found.seq)
    assert ["types", "version", "fork"] == remedies(found)


def test_an_input_that_the_parameters_of_today_can_not_take_is_told(opened: Any) -> None:
    def more(item: str, colour: str) -> Flow[str]:
        yield Step(reserve, item)
        return colour

    found = check_history(order(more), opened)
    assert found is not None
    assert ("input", ["types", "version"]) == (found.kind, remedies(found))
    assert found.yielded.endswith("missing a required argument: 'colour'")

    def counted(item: int) -> Flow[str]:
        yield Step(reserve, str(item))
        return ""

    found = check_history(order(counted), opened)
    assert found is not None
    assert "expected int, got str 'teapot'" in str(found)


def test_code_that_yields_no_command_is_told(opened: Any) -> None:
    def wrong(item: str) -> Flow[Any]:
        yield Step(reserve, item)
        yield reserve(item)  # type: ignore[misc]

    found = check_history(order(wrong), opened)
    assert found is not None
    assert ("yield", "INVALID_YIELD", ["code"]) == (found.kind, found.code, remedies(found))


def test_another_outcome_of_a_closed_run_is_told(closed: Any) -> None:
    def shouts(item: str) -> Flow[str]:
        return (yield from of_may(item)).upper()

    def fails(item: str) -> Flow[str]:
        raise ValueError((yield from of_may(item)))

    def fails_otherwise(item: str) -> Flow[str]:
        raise LookupError((yield from of_may(item)))

    found = check_history(order(shouts), closed)
    assert found is not None
    assert ("result", 'result "teapot (small)"', 'result "TEAPOT (SMALL)"') == (
        found.kind,
        found.recorded,
        found.yielded,
    )
    assert "record" == found.remedies[0].by
    history = recorded(fails)
    assert check_history(order(fails), history) is None
    found = check_history(order(fails_otherwise), history)
    assert found is not None
    assert "failure ValueError: teapot (small)" == found.recorded
    assert found.yielded.startswith("failure LookupError")


def test_it_finds_what_the_engine_raises(opened: Any) -> None:
    """And nothing else: a run that an engine goes on with fits."""

    def slow(item: str) -> Flow[str]:
        yield Step(reserve, item)
        yield Sleep(60)
        return item

    old, new = order(of_may), order(slow)
    with Engine("memory:", workflows=[old]) as engine:
        engine.start(old, "teapot", run_id="o1")
        found = check_history(new, engine.history("o1"))
        assert found is not None
        with Engine(engine.store, workflows=[new]) as other, pytest.raises(DivergenceError) as caught:
            other.advance("o1")
    assert (caught.value.seq, caught.value.at, caught.value.recorded) == (found.seq, found.at, found.recorded)


def test_what_is_no_history_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="begins with its start event"):
        check_history(order(of_may), [])


def test_nothing_is_performed(opened: Any) -> None:
    called: list[str] = []

    def notes(item: str) -> str:
        called.append(item)
        return item

    def performs(item: str) -> Flow[str]:
        yield Step(notes, item).options(name="reserve")
        yield Suspend("paid")
        yield Emit(item)
        return (yield from Step(notes, item))

    assert check_history(order(performs), opened) is None
    assert [] == called


@pytest.mark.parametrize(
    "args", [(), (1,), (True,), (1.0,), ("é" * 300,), (None, "a", 2**70), ("\ud800",), ([1, "x"], {"b": 1, "a": 2})]
)
def test_digests_are_those_that_an_engine_records(args: tuple[Any, ...]) -> None:
    digests = Digests(Codec())
    called: Any = reserve
    step = Step(called, *args)
    assert inputs_digest(Codec(), step) == digests.of(step) == digests.of(step)
    keyword = Step(called, *args, size="large")
    assert inputs_digest(Codec(), keyword) == digests.of(keyword)
