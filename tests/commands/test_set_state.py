"""SetState: what can be read of a run from outside."""

from __future__ import annotations

from typing import Any

import pytest

from stepwell import All, CodecError, Flow, InvalidInputError, SetState, workflow
from stepwell.testing import cancel, replay, returned

from ..unit.tools import check_replay, frontier, task


@workflow
def told() -> Flow[Any]:
    got = yield SetState(phase="one", done=0)
    yield task("work")
    yield SetState(done=1, notes=["x"])
    yield task("more")
    return got


def test_values_are_merged_by_name() -> None:
    run = replay(told)
    assert {"phase": "one", "done": 0} == run.state
    run.feed(returned())
    assert {"phase": "one", "done": 1, "notes": ["x"]} == run.state
    check_replay(run)


def test_it_gives_none_takes_no_number_and_is_not_recorded() -> None:
    """It follows from the history, so it can be added to a workflow that runs already."""
    run = replay(told, history=[returned(), returned()])
    assert run.result is None
    assert ["0", "1"] == [at for at, _ in run.commands]
    assert ["start", "step", "step"] == [ev.kind for ev in run.events]


def test_the_last_state_is_kept_when_the_run_ends() -> None:
    run = replay(told, history=[returned(), returned()])
    assert {"phase": "one", "done": 1, "notes": ["x"]} == run.state


def test_a_value_is_taken_as_it_is_at_the_yield() -> None:
    """What the workflow does to it afterwards is not seen."""

    @workflow
    def changing() -> Flow[None]:
        items = [1]
        yield SetState(items=items)
        items.append(2)
        yield task("work")

    assert {"items": [1]} == replay(changing).state


def test_one_value_that_can_not_be_recorded_leaves_all_as_they_were() -> None:
    @workflow
    def wrong() -> Flow[str]:
        yield SetState(a=1)
        try:
            yield SetState(a=2, b=object())
        except CodecError as error:
            return error.path
        return "taken"

    run = replay(wrong)
    assert "$" == run.result
    assert {"a": 1} == run.state


def test_branches_set_it_in_their_order() -> None:
    @workflow
    def many() -> Flow[None]:
        def one(n: int) -> Flow[None]:
            yield SetState(last=n)
            yield task(f"t{n}")
            yield SetState(last=n)

        yield All(one(0), one(1))

    run = replay(many)
    assert {"last": 1} == run.state
    run.feed(returned(at="0.0.0"))
    assert {"last": 0} == run.state
    check_replay(run)


def test_a_cancelled_workflow_may_still_set_it() -> None:
    @workflow
    def stopped() -> Flow[None]:
        yield task("work")
        yield SetState(stopped=True)
        yield task("never")

    run = replay(stopped, history=[cancel(), returned()])
    assert {"stopped": True} == run.state
    assert "cancelled" == run.status
    assert [] == frontier(run)


def test_they_are_equal_when_their_values_are() -> None:
    assert SetState(a=[1]) == SetState(a=[1])
    assert hash(SetState(a=[1])) == hash(SetState(a=[1]))
    assert SetState(a=1) != SetState(a=2)
    assert SetState(a=1) != SetState(b=1)


@pytest.mark.parametrize("name", ["values", "self", "done", "two\nlines"])
def test_any_name_will_do(name: str) -> None:
    assert {name: 1} == SetState(**{name: 1}).values


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("a name that SetState sets holds a lone surrogate", "a\ud800"),
        ("a name that SetState sets can have 10,000 characters at most", "x" * 10_001),
    ],
)
def test_a_name_that_can_not_be_recorded_is_refused_where_it_is_made(told: str, name: str) -> None:
    with pytest.raises(InvalidInputError, match=told):
        SetState(**{name: 1})


def test_a_value_may_be_called_self() -> None:
    @workflow
    def named() -> Flow[None]:
        yield SetState(self=1)

    assert {"self": 1} == replay(named).state
