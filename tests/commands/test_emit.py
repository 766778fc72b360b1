"""Emit: a value for the readers of a run's events."""

from __future__ import annotations

from typing import Any

import pytest

from stepwell import All, CodecError, DivergenceError, Emit, Flow, InvalidInputError, workflow
from stepwell import events as e
from stepwell.testing import cancel, replay, returned

from ..unit.tools import check_replay, fold, frontier, picture, raw, task


@workflow
def told() -> Flow[Any]:
    got = yield Emit({"done": 1}, topic="progress")
    yield task("work")
    return [got, (yield Emit(None))]


def test_it_gives_none_and_a_fake_history_need_not_answer_it() -> None:
    run = replay(told, history=[returned()])
    assert [None, None] == run.result
    assert [{"done": 1}, None] == run.emitted
    check_replay(run)


def test_it_is_recorded_where_it_was_asked() -> None:
    events = replay(told, history=[returned()]).events
    assert ["start", "emit", "step", "emit"] == [ev.kind for ev in events]
    assert ("0", "progress", b'{"done":1}') == (events[1].at, events[1].topic, bytes(events[1].value))  # type: ignore[attr-defined]


def test_a_recorded_history_brings_its_own() -> None:
    run = replay(told, history=[e.Emit(at="0", value=raw({"done": 1}), topic="progress")])
    assert ["1 work"] == frontier(run)
    assert [{"done": 1}] == run.emitted


def test_each_one_takes_a_number() -> None:
    run = replay(told)
    assert ["0", "1"] == [at for at, _ in run.commands]


@pytest.mark.parametrize("topic", [None, "other", ""])
def test_another_topic_than_recorded_diverges(topic: str | None) -> None:
    run = fold(told)
    before = picture(run.machine)
    with pytest.raises(DivergenceError):
        run.machine.feed(e.Emit(at="0", value=raw(1), topic=topic))
    assert before == picture(run.machine)


def test_a_value_that_can_not_be_recorded_is_thrown_at_the_yield() -> None:
    @workflow
    def wrong() -> Flow[str]:
        try:
            yield Emit(object())
        except CodecError as error:
            return error.path
        return "taken"

    assert "$" == replay(wrong).result


def test_branches_emit_in_their_order() -> None:
    @workflow
    def many() -> Flow[None]:
        yield All(Emit(1), Emit(2), Emit(3))

    run = replay(many)
    assert [1, 2, 3] == run.emitted
    assert "complete" == run.status
    check_replay(run)


def test_a_cancelled_workflow_may_still_tell() -> None:
    @workflow
    def stopped() -> Flow[None]:
        try:
            yield task("work")
        finally:
            yield Emit("stopped")

    run = replay(stopped, history=[cancel(), returned()])
    assert ["stopped"] == run.emitted
    assert "complete" == run.status


def test_they_are_equal_when_value_and_topic_are() -> None:
    assert Emit(1) == Emit(1)
    assert Emit(1) != Emit(2)
    assert Emit(1) != Emit(1, topic="x")


def test_a_topic_is_text() -> None:
    with pytest.raises(InvalidInputError, match="topic must be text or None, got 3"):
        Emit(1, topic=3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("told", "topic"), [("topic holds a lone surrogate", "a\ud800"), ("topic can have 10,000 characters", "x" * 10_001)]
)
def test_a_topic_that_can_not_be_recorded_is_refused_where_it_is_made(told: str, topic: str) -> None:
    with pytest.raises(InvalidInputError, match=told):
        Emit(1, topic=topic)


def test_a_topic_may_hold_lines() -> None:
    assert "a\nb" == Emit(1, topic="a\nb").topic
