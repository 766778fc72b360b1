"""Sleep: a wait for time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from stepwell import All, DivergenceError, Flow, InvalidInputError, Now, Sleep, Suspend, workflow
from stepwell import events as e
from stepwell.testing import WrongAnswerError, cancel, fired, replay

from ..unit.tools import STAMP, check_replay, fold, frontier, picture, slept, task

WINTER = datetime(2026, 1, 1, 12, tzinfo=UTC)


@workflow
def nap() -> Flow[Any]:
    got = yield Sleep(60)
    return [got]


def test_the_yield_gives_none_when_the_timer_fires() -> None:
    run = replay(nap, history=[fired()])
    assert [None] == run.result
    assert ["start", "sleep", "wake"] == [ev.kind for ev in run.events]
    check_replay(run)


def test_setting_the_timer_answers_nothing() -> None:
    run = fold(nap, e.Sleep(at="0", due=STAMP))
    [pending] = run.machine.pending.values()
    assert ("open", True, STAMP) == (run.machine.status, pending.recorded, pending.due)


def test_a_wake_without_a_timer_diverges() -> None:
    run = fold(nap)
    before = picture(run.machine)
    with pytest.raises(DivergenceError, match="no timer is set there"):
        run.machine.feed(e.Wake(at="0"))
    assert before == picture(run.machine)


def test_a_second_wake_is_ignored() -> None:
    """An owner that wrote it twice, before and after a crash, does no harm."""
    run = fold(nap, *slept("0"), e.Wake(at="0"))
    assert [None] == run.machine.result


def test_timers_fire_in_any_order() -> None:
    @workflow
    def many() -> Flow[list[int]]:
        order: list[int] = []

        def one(n: int) -> Flow[None]:
            yield Sleep(n)
            order.append(n)

        yield All(one(0), one(1), one(2))
        return order

    run = replay(many, history=[fired(at="0.2.0"), fired(at="0.0.0"), fired()])
    assert [2, 0, 1] == run.result
    check_replay(run)


def test_a_cancel_interrupts_it_at_once_and_the_timer_is_ignored() -> None:
    @workflow
    def stopped() -> Flow[None]:
        try:
            yield Sleep(60)
        finally:
            yield task("clean")

    run = fold(stopped, e.Sleep(at="0", due=STAMP), e.Cancel(), e.Wake(at="0"))
    assert ["1 clean"] == frontier(run)
    assert "cancelled" == replay(nap, history=[cancel()]).status


def test_only_a_wait_with_a_time_out_can_fire() -> None:
    @workflow
    def forever() -> Flow[Any]:
        return (yield Suspend("go"))

    with pytest.raises(WrongAnswerError, match="nothing pending takes this answer"):
        replay(forever, history=[fired()])


@pytest.mark.parametrize("other", [Sleep(61), Sleep(until=WINTER), Now(), Suspend("60")])
def test_sleeps_are_equal_when_they_last_as_long(other: Any) -> None:
    assert Sleep(60) == Sleep(timedelta(minutes=1))
    assert hash(Sleep(60)) == hash(Sleep(60.0))
    assert other != Sleep(60)


def test_instants_are_equal_in_every_time_zone() -> None:
    east = timezone(timedelta(hours=5))
    assert Sleep(until=WINTER) == Sleep(until=WINTER.astimezone(east))
    assert WINTER == Sleep(until=WINTER.astimezone(east)).until
    assert UTC is Sleep(until=WINTER.astimezone(east)).until.tzinfo  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("told", "arguments", "options"),
    [
        ("one of the two", (), {}),
        ("one of the two", (3,), {"until": WINTER}),
        ("with a time zone", (), {"until": datetime(2026, 1, 1)}),  # noqa: DTZ001
        ("with a time zone, got '2026'", (), {"until": "2026"}),
        ("Sleep's duration must be a timedelta or a number of seconds, got 'long'", ("long",), {}),
        ("got True", (True,), {}),
        ("got -1", (-1,), {}),
        ("got nan", (float("nan"),), {}),
        ("got inf", (float("inf"),), {}),
        ("between 0 seconds and 10,000 years, got 400000000000.0", (4e11,), {}),
    ],
)
def test_wrong_arguments_are_refused_at_once(told: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        Sleep(*arguments, **options)
    assert told in str(caught.value)
