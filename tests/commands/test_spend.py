"""Spend: charges to the budget of a run."""

from __future__ import annotations

import pytest

from stepwell import BudgetExceededError, Flow, InvalidInputError, Spend, Step, workflow
from stepwell.testing import replay, returned


def ask(x: int) -> int: ...  # type: ignore[empty-body]


@workflow
def chatting(turns: int) -> Flow[float | None]:
    left = None
    for turn in range(turns):
        tokens = yield from Step(ask, turn)
        left = yield from Spend(tokens, "tokens")
    return left


def test_a_fake_history_need_not_answer_it() -> None:
    run = replay(chatting, 2, history=[returned(10), returned(5)], budget=20)
    assert (5, 15) == (run.result, run.spent)
    assert replay(chatting, 1, history=[returned(10)]).result is None


def test_the_charge_that_passes_the_limit_throws() -> None:
    run = replay(chatting, 3, history=[returned(10), returned(15)], budget=20)
    assert run.failure.is_a(BudgetExceededError)
    assert "the run has spent 25, and its budget is 20" == run.failure.message
    assert 25 == run.spent


def test_two_are_equal_when_they_charge_the_same() -> None:
    assert Spend(3, "a") == Spend(3, label="b") != Spend(4)
    assert "a" == Spend(3, "a").label
    with pytest.raises(InvalidInputError, match="Spend's label"):
        Spend(3, 4)  # type: ignore[arg-type]
