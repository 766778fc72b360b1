"""`received`: a fake history takes the signals that a live run takes, and no others."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from attrs import frozen

from stepwell import Engine, Flow, InvalidInputError, Signal, SignalRejected, Step, Suspend, workflow
from stepwell import events as e
from stepwell.testing import Answer, WrongAnswerError, received, replay, returned
from stepwell_stores.memory import MemoryStore


@frozen
class Verdict:
    approved: bool
    reviewer: str


review = Signal("review", Verdict)
times = Signal("times", list[timedelta])


def work() -> str:
    return "done"


@workflow
def later() -> Flow[Verdict | str]:
    """Works before it waits, so that a signal can be early."""
    yield Step(work)
    try:
        return (yield from Suspend(review))
    except SignalRejected as error:
        return f"refused: {error}"


@workflow
def at_once() -> Flow[Verdict]:
    return (yield from Suspend(review))


def payload_of(history: list[Any]) -> bytes:
    """The payload of the signal in a history."""
    return next(bytes(event.value) for event in history if isinstance(event, e.Resume))


@pytest.mark.parametrize("signal", [review, "review"])
@pytest.mark.parametrize("value", [Verdict(True, "ada"), {"approved": True, "reviewer": "ada"}])
def test_an_early_payload_is_recorded_as_it_is_live(signal: Any, value: Any) -> None:
    """By the Signal's type, by the value's own, or as plain JSON: with the bytes that the engine writes."""
    run = replay(later, history=[received(signal, value), returned("done")])
    assert Verdict(True, "ada") == run.result
    with Engine(MemoryStore(), [later]) as engine:
        engine.submit(later, run_id="r")
        engine.signal("r", signal, value)
        assert payload_of(engine.history("r")) == payload_of(run.events)


def test_an_early_payload_is_encoded_by_the_type_of_its_signal() -> None:
    """The value's own type, a list, would not say what is in it."""

    @workflow
    def patient() -> Flow[list[timedelta]]:
        yield Step(work)
        return (yield from Suspend(times))

    run = replay(patient, history=[received(times, [timedelta(seconds=1)]), returned("done")])
    assert [timedelta(seconds=1)] == run.result


def test_an_early_payload_that_does_not_fit_is_rejected_on_delivery() -> None:
    """Who has only the name can't be told; the workflow is."""
    run = replay(later, history=[received("review", {"approved": "no", "reviewer": "x"}), returned("done")])
    assert "refused: signal 'review' was refused: no Verdict: $.approved: expected bool, got str 'no'" == run.result


@pytest.mark.parametrize("signal", [review, "review"])
@pytest.mark.parametrize("value", ["yes", None, {"approved": 1, "reviewer": "x"}, object()])
def test_a_payload_that_no_live_sender_could_record_is_a_wrong_answer(signal: Any, value: Any) -> None:
    """The Suspend waits, so `engine.signal` would refuse it."""
    with pytest.raises(WrongAnswerError, match="signal 'review' does not fit Verdict"):
        replay(at_once, history=[received(signal, value)])
    with Engine(MemoryStore(), [at_once]) as engine:
        engine.start(at_once, run_id="r")
        with pytest.raises(InvalidInputError, match="signal 'review' does not fit Verdict"):
            engine.signal("r", signal, value)


def test_an_early_payload_that_is_not_of_its_signals_type_is_a_wrong_answer() -> None:
    """The sender knows the type, so it is refused at once."""
    with pytest.raises(WrongAnswerError, match="signal 'review' does not fit Verdict"):
        replay(later, history=[received(review, "yes")])
    with Engine(MemoryStore(), [later]) as engine:
        engine.submit(later, run_id="r")
        with pytest.raises(InvalidInputError, match="signal 'review' does not fit Verdict"):
            engine.signal("r", review, "yes")  # type: ignore[misc]


def test_an_early_payload_that_could_not_be_recorded_is_a_wrong_answer() -> None:
    """What is no value of a history is none early either."""
    with pytest.raises(WrongAnswerError, match="no sender could record that"):
        replay(later, history=[received("review", object())])


def test_the_payload_is_checked_by_the_wait_that_the_signal_names() -> None:
    """One that names a wait that is over answers nothing, whatever it holds."""
    run = replay(at_once, history=[received("review", "late", wait="review@0:9")])
    assert "open" == run.status


def test_an_answer_keeps_the_type_of_its_signal() -> None:
    """It says the same as ever."""
    answer = received(review, Verdict(True, "ada"))
    assert ("review", Verdict) == (answer.signal, answer.into)
    assert "received('review', Verdict(approved=True, reviewer='ada'))" == str(answer)
    assert Answer("received", 1, signal="go") == received("go", 1)


def test_what_is_no_signal_is_refused() -> None:
    wrong: Any = 5
    with pytest.raises(InvalidInputError, match="takes a Signal or the name of one, got 5"):
        received(wrong, "x")
