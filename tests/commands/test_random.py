"""Random: a number drawn once, and recorded."""

from __future__ import annotations

from typing import Any

import pytest

from stepwell import All, DivergenceError, Flow, Now, Random, Uuid, workflow
from stepwell import events as e
from stepwell.testing import WrongAnswerError, replay, returned

from ..unit.tools import STAMP, check_replay, fold, picture


@workflow
def drawn() -> Flow[float]:
    return (yield from Random())


@pytest.mark.parametrize("value", [0.0, 0.1, 5e-324, 0.9999999999999999])
def test_the_recorded_number_is_what_the_yield_gives(value: float) -> None:
    run = replay(drawn, history=[returned(value)])
    assert value == run.result
    check_replay(run)


def test_each_yield_draws_anew() -> None:
    @workflow
    def twice() -> Flow[list[float]]:
        return list((yield All(Random(), Random())))

    run = replay(twice, history=[returned(0.25, at="0.1.0"), returned(0.5)])
    assert [0.5, 0.25] == run.result
    check_replay(run)


@pytest.mark.parametrize("value", [None, 1, 1.0, -0.1, "0.5"])
def test_anything_else_is_no_answer(value: Any) -> None:
    with pytest.raises(WrongAnswerError, match="random at 0 can't give that value"):
        replay(drawn, history=[returned(value)])


@pytest.mark.parametrize("event", [e.Now(at="0", value=STAMP), e.Uuid(at="0", value=""), e.Random(at="1", value=0.5)])
def test_another_event_diverges_and_changes_nothing(event: e.EventBase) -> None:
    run = fold(drawn)
    before = picture(run.machine)
    with pytest.raises(DivergenceError):
        run.machine.feed(event)
    assert before == picture(run.machine)


@pytest.mark.parametrize("other", [Now(), Uuid(), 0.5])
def test_all_are_equal(other: Any) -> None:
    assert Random() == Random()
    assert other != Random()
