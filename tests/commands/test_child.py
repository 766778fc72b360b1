"""Child: what a fake history says of a run of its own."""

from __future__ import annotations

from typing import Any

import pytest

from stepwell import All, Child, ChildFailed, Flow, Race, Step, failed, workflow
from stepwell.testing import WrongAnswerError, cancelled, raised, replay, returned
from stepwell.testing.answers import cancel


def fetch(x: int) -> int: ...  # type: ignore[empty-body]


@workflow
def child(x: int, y: int = 2) -> Flow[tuple[int, str]]:
    yield Step(fetch, x)
    return x, str(y)


@workflow
def parent(x: int) -> Flow[str]:
    try:
        number, text = yield from Child(child, x)
    except failed(ConnectionError) as error:
        return f"failed: {error.failure.message}"
    return f"{number} {text}"


def test_its_result_is_of_the_type_that_its_workflow_declares() -> None:
    run = replay(parent, 3)
    assert Child(child, 3) == run.next == Child(child, 3, 2)
    run.feed(returned((3, "2")))
    assert "3 2" == run.result
    with pytest.raises(WrongAnswerError, match="could not be recorded"):
        replay(parent, 3, history=[returned("three")])


def test_its_failure_is_caught_by_type() -> None:
    assert "failed: no line" == replay(parent, 3, history=[raised(ConnectionError("no line"))]).result
    assert replay(parent, 3, history=[raised(ValueError("no"))]).failure.is_a(ChildFailed, ValueError)


def test_a_detached_one_gives_its_run_id() -> None:
    @workflow
    def starting() -> Flow[str]:
        return (yield from Child(child, 1).options(detached=True, run_id="mine"))

    assert "mine" == replay(starting, history=[returned(None)]).result


def test_one_that_was_not_started_is_cancelled_with_its_parent() -> None:
    run = replay(parent, 3, history=[cancel(), cancelled()])
    assert "cancelled" == run.status


def test_children_are_branches_as_steps_are() -> None:
    @workflow
    def both() -> Flow[list[Any]]:
        first, second = yield All(Child(child, 1), Child(child, 2))
        name, winner = yield Race(quick=Child(child, 3), slow=Child(child, 4))
        return [first[0], second[0], name, winner[0]]

    history = [returned((2, "b"), at="0.1.0"), returned((1, "a")), returned((4, "d"), at="1.1.0")]
    assert [1, 2, "slow", 4] == replay(both, history=[*history, cancelled()]).result
