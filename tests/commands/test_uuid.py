"""Uuid: a name drawn once, and recorded."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from stepwell import DivergenceError, Flow, Now, Random, Uuid, workflow
from stepwell import events as e
from stepwell.testing import WrongAnswerError, replay, returned

from ..unit.tools import STAMP, check_replay, fold, picture

DRAWN = UUID("0d0ec0fe-6d39-4c5d-9a52-0b9d8f3f6a01")


@workflow
def named() -> Flow[UUID]:
    return (yield from Uuid())


def test_the_recorded_uuid_is_what_the_yield_gives() -> None:
    run = replay(named, history=[returned(DRAWN)])
    assert DRAWN == run.result
    assert isinstance(run.result, UUID)
    check_replay(run)


@pytest.mark.parametrize("value", [None, str(DRAWN), 3, DRAWN.bytes])
def test_anything_else_is_no_answer(value: Any) -> None:
    with pytest.raises(WrongAnswerError, match="uuid at 0 can't give that value"):
        replay(named, history=[returned(value)])


@pytest.mark.parametrize("event", [e.Now(at="0", value=STAMP), e.Random(at="0", value=0.5), e.Uuid(at="1", value="")])
def test_another_event_diverges_and_changes_nothing(event: e.EventBase) -> None:
    run = fold(named)
    before = picture(run.machine)
    with pytest.raises(DivergenceError):
        run.machine.feed(event)
    assert before == picture(run.machine)


@pytest.mark.parametrize("other", [Now(), Random(), str(DRAWN)])
def test_all_are_equal(other: Any) -> None:
    assert Uuid() == Uuid()
    assert other != Uuid()
