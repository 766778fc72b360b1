"""Now: the time, recorded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from stepwell import DivergenceError, Flow, Now, Random, Uuid, workflow
from stepwell import events as e
from stepwell.testing import WrongAnswerError, cancel, replay, returned

from ..unit.tools import STAMP, check_replay, fold, picture, task

NOON = datetime(2026, 7, 1, 12, 30, 0, 123456, tzinfo=UTC)


@workflow
def dated() -> Flow[datetime]:
    return (yield from Now())


def test_the_recorded_instant_is_what_the_yield_gives() -> None:
    """To the microsecond, aware, in UTC."""
    run = replay(dated, history=[returned(NOON)])
    assert NOON == run.result
    assert timedelta(0) == run.result.utcoffset()
    check_replay(run)


@pytest.mark.parametrize("year", [1, 999, 1970, 9999])
def test_every_instant_can_be_recorded(year: int) -> None:
    instant = datetime(year, 2, 3, tzinfo=UTC)
    assert instant == replay(dated, history=[returned(instant)]).result


def test_an_instant_of_another_zone_is_the_same_instant() -> None:
    given = NOON.astimezone(timezone(timedelta(hours=-3)))
    assert "2026-07-01T12:30:00.123456Z" == replay(dated, history=[returned(given)]).events[1].value  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", [None, "2026-01-01", 3.0, datetime(2026, 1, 1)])  # noqa: DTZ001
def test_anything_else_is_no_answer(value: Any) -> None:
    with pytest.raises(WrongAnswerError, match="now at 0 can't give that value"):
        replay(dated, history=[returned(value)])


@pytest.mark.parametrize("event", [e.Random(at="0", value=0.5), e.Uuid(at="0", value=""), e.Now(at="1", value=STAMP)])
def test_another_event_diverges_and_changes_nothing(event: e.EventBase) -> None:
    run = fold(dated)
    before = picture(run.machine)
    with pytest.raises(DivergenceError):
        run.machine.feed(event)
    assert before == picture(run.machine)


def test_a_cancelled_workflow_may_still_ask() -> None:
    """It waits for nothing and has no effect, so Cancelled comes later."""

    @workflow
    def stopped() -> Flow[None]:
        yield Now()
        yield task("work")

    run = replay(stopped, history=[cancel(), returned(NOON)])
    assert "cancelled" == run.status
    assert ["0"] == [at for at, _ in run.commands]
    check_replay(run)


@pytest.mark.parametrize("other", [Random(), Uuid(), NOON])
def test_all_are_equal(other: Any) -> None:
    assert Now() == Now()
    assert hash(Now()) == hash(Now())
    assert other != Now()
