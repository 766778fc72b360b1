"""resume and signal: who gets what, and every misuse with its typed error."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
from attrs import frozen

from stepwell import (
    All,
    EventMismatchError,
    Flow,
    InvalidInputError,
    InvalidYieldError,
    RunCancelled,
    RunClosedError,
    RunCompleted,
    Running,
    RunSuspended,
    Signal,
    SignalRejected,
    Step,
    Suspend,
    workflow,
)

from .tools import HandClock, Tally, Task, eventually, kinds, steps


@frozen
class Verdict:
    """What a person decides."""

    approved: bool
    by: str


REVIEW = Signal("review", Verdict)


@workflow
def one() -> Flow[str]:
    verdict = yield from Suspend(REVIEW, reason="too dear")
    return f"{verdict.approved} by {verdict.by}"


@workflow
def two() -> Flow[list[str]]:
    first = yield from Suspend("review", into=str, reason="first")
    second = yield from Suspend("review", into=str, reason="second")
    return [first, second]


def test_resume_goes_on_with_the_payload(bench: Any) -> None:
    engine = bench.engine()
    assert RunSuspended("r", ("review",), "too dear") == engine.start(one, run_id="r")
    assert RunCompleted("r", "True by ada") == engine.resume("r", REVIEW, Verdict(True, "ada"))
    assert ["start", "suspend", "resume", "complete"] == kinds(engine)


def test_resume_works_in_another_engine(bench: Any) -> None:
    bench.engine().start(one, run_id="r")
    assert "False by bob" == bench.engine(one).resume("r", "review", Verdict(False, "bob")).unwrap()


def test_the_payload_may_be_plain_json(bench: Any) -> None:
    engine = bench.engine()
    engine.start(one, run_id="r")
    assert "True by ada" == engine.resume("r", "review", {"approved": True, "by": "ada"}).unwrap()


@pytest.mark.parametrize(
    "payload",
    [
        {"approved": "no", "by": "ada"},
        {"approved": 1, "by": "ada"},
        {"approved": True, "by": 7},
        {"approved": True},
        {"approved": True, "by": "ada", "more": 1},
        None,
        "yes",
        object(),
    ],
)
def test_a_payload_of_another_type_is_refused_before_anything_is_written(memory: Any, payload: Any) -> None:
    engine = memory.engine()
    engine.start(one, run_id="r")
    with pytest.raises(InvalidInputError, match="signal 'review' does not fit Verdict"):
        engine.resume("r", REVIEW, payload)
    with pytest.raises(InvalidInputError, match="signal 'review' does not fit Verdict"):
        engine.signal("r", REVIEW, payload)
    assert ["start", "suspend"] == kinds(engine)


def test_resume_with_the_wrong_event_is_refused(bench: Any) -> None:
    engine = bench.engine()
    engine.start(one, run_id="r")
    with pytest.raises(EventMismatchError, match="does not wait for signal 'reviewed'; it waits for 'review'"):
        engine.resume("r", "reviewed", Verdict(True, "ada"))
    assert ["start", "suspend"] == kinds(engine)


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 201, 7, None])
def test_a_signal_needs_a_name(memory: Any, name: Any) -> None:
    engine = memory.engine()
    engine.start(one, run_id="r")
    with pytest.raises(InvalidInputError, match="signal's name"):
        engine.resume("r", name, 1)


def test_resuming_twice_is_refused(bench: Any) -> None:
    engine = bench.engine()
    engine.start(one, run_id="r")
    engine.resume("r", REVIEW, Verdict(True, "ada"))
    with pytest.raises(RunClosedError) as caught:
        engine.resume("r", REVIEW, Verdict(False, "bob"))
    assert "completed" == caught.value.status
    with pytest.raises(RunClosedError):
        engine.signal("r", REVIEW, Verdict(False, "bob"))
    assert 1 == kinds(engine).count("resume")


def test_resuming_too_early_is_refused_and_nothing_is_buffered(bench: Any) -> None:
    engine = bench.engine()
    engine.submit(two, run_id="r")
    with pytest.raises(EventMismatchError, match=r"it waits for 'review'.*engine\.signal"):
        engine.resume("r", "other", "x")
    assert ["start"] == kinds(engine)
    assert RunSuspended("r", ("review",), "first") == engine.advance("r")


def test_a_stale_wait_id_never_answers_the_next_question(bench: Any) -> None:
    engine = bench.engine()
    engine.start(two, run_id="r")
    (first,) = engine.waiting()
    assert RunSuspended("r", ("review",), "second") == engine.resume("r", "review", "yes", wait=first.wait)
    (second,) = engine.waiting()
    assert first.wait != second.wait
    for call in (engine.resume, engine.signal):
        with pytest.raises(
            EventMismatchError, match=f"question '{first.wait}' was decided by somebody who gave no name"
        ):
            call("r", "review", "late click", wait=first.wait)
    assert ["yes", "no"] == engine.resume("r", "review", "no", wait=second.wait).unwrap()


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
def test_a_closed_run_takes_no_signals(bench: Any, end: str) -> None:
    @workflow
    def ends() -> Flow[None]:
        yield Suspend("go")
        if end == "failed":
            raise ValueError("as asked")

    engine = bench.engine()
    engine.start(ends, run_id="r")
    if end == "cancelled":
        engine.cancel("r")
    else:
        engine.resume("r", "go")
    assert end == engine.get("r").status
    for call in (engine.resume, engine.signal):
        with pytest.raises(RunClosedError, match="run 'r' is"):
            call("r", "go")


def test_resuming_a_busy_run_records_the_signal_and_says_running(bench: Any) -> None:
    entered, leave = threading.Event(), threading.Event()

    def hold() -> str:
        entered.set()
        assert leave.wait(30)
        return "held"

    @workflow
    def busy() -> Flow[list[str]]:
        return list((yield All(Step(hold), Suspend("go", into=str))))

    engine, other = bench.engine(), bench.engine(busy)
    driver = Task(lambda: engine.start(busy, run_id="r"))
    assert entered.wait(30)
    outcome = other.resume("r", "go", "now")
    assert isinstance(outcome, Running)
    assert isinstance(outcome.lease_until, datetime)
    leave.set()
    assert RunCompleted("r", ["held", "now"]) == driver.result()


def test_an_early_signal_is_buffered_until_it_is_asked_for(bench: Any) -> None:
    engine = bench.engine()
    engine.submit(two, run_id="r")
    engine.signal("r", "review", "first", id="1")
    engine.signal("r", "review", "second", id="2")
    assert RunCompleted("r", ["first", "second"]) == engine.advance("r")


def test_a_signal_makes_a_parked_run_due(bench: Any) -> None:
    engine = bench.engine()
    engine.start(one, run_id="r")
    assert [] == engine.run_due()
    engine.signal("r", REVIEW, Verdict(True, "ada"))
    assert "suspended" == engine.get("r").status
    assert [RunCompleted("r", "True by ada")] == engine.run_due()


@pytest.mark.parametrize("call", ["signal", "resume"])
def test_the_same_id_counts_once(bench: Any, call: str) -> None:
    engine = bench.engine()
    engine.start(two, run_id="r")
    getattr(engine, call)("r", "review", "yes", id="click-1")
    getattr(engine, call)("r", "review", "yes", id="click-1")
    engine.advance("r")
    assert (1, ("review",)) == (kinds(engine).count("resume"), engine.get("r").waiting_for)
    assert ["yes", "no"] == engine.resume("r", "review", "no", id="click-2").unwrap()


@pytest.mark.parametrize("call", ["signal", "resume"])
def test_a_signal_that_is_delivered_again_after_the_run_went_on_counts_once(bench: Any, call: str) -> None:
    @workflow
    def w() -> Flow[list[str]]:
        return [(yield from Suspend("review", into=str)), (yield from Suspend("other", into=str))]

    engine = bench.engine()
    engine.start(w, run_id="r")
    parked = engine.resume("r", "review", "yes", id="click-1")
    again = getattr(engine, call)("r", "review", "yes", id="click-1")
    assert again in (parked, None)
    assert 1 == kinds(engine).count("resume")
    assert RunCompleted("r", ["yes", "no"]) == engine.resume("r", "other", "no")


@pytest.mark.parametrize("signal_id", ["", "x" * 201, 7])
def test_a_signal_id_is_text(memory: Any, signal_id: Any) -> None:
    engine = memory.engine()
    engine.start(two, run_id="r")
    with pytest.raises(InvalidInputError, match="a signal's id must be printable text of 1 to 200 characters"):
        engine.signal("r", "review", "yes", id=signal_id)


def test_signals_that_are_sent_at_once_with_one_id_count_once(bench: Any) -> None:
    engines = [bench.engine(two) for _ in range(3)]
    engines[0].start(two, run_id="r")
    together = threading.Barrier(6)

    def send(engine: Any) -> None:
        together.wait(30)
        engine.signal("r", "review", "yes", id="click")

    for task in [Task(partial(send, engine)) for engine in engines * 2]:
        task.result()
    assert 1 == kinds(engines[0]).count("resume")


def test_a_buffered_signal_of_the_wrong_type_is_thrown_where_it_is_asked_for(bench: Any) -> None:
    @workflow
    def strict() -> Flow[str]:
        try:
            yield from Suspend(REVIEW)
        except SignalRejected as refused:
            return f"refused {refused.signal}"
        return "taken"

    engine = bench.engine()
    engine.submit(strict, run_id="r")
    other = bench.engine()  # knows nothing of the workflow, so nobody can check the payload
    other.signal("r", "review", "not a verdict")
    assert RunCompleted("r", "refused review") == engine.advance("r")


def test_a_wrong_yield_after_a_resume_blocks_the_run_and_frees_it(bench: Any) -> None:
    tally = Tally()

    @workflow(name="w")
    def wrong() -> Flow[str]:
        yield Suspend("go")
        yield "oops"  # type: ignore[misc]
        return ""

    @workflow(name="w")
    def mended() -> Flow[int]:
        yield Suspend("go")
        return (yield from tally.step("work"))

    engine = bench.engine()
    engine.start(wrong, run_id="r")
    with pytest.raises(InvalidYieldError, match="it yielded 'oops'"):
        engine.resume("r", "go")
    record = engine.get("r")
    assert ("INVALID_YIELD", None) == (record.blocked.code, record.lease_until)
    assert [RunCompleted("r", 1)] == bench.engine(mended).run_due()


def test_a_wait_times_out(bench: Any) -> None:
    @workflow
    def impatient() -> Flow[str]:
        return (yield from Suspend("go", into=str, timeout=timedelta(days=2), default="nobody came"))

    clock = HandClock()
    engine = bench.engine(clock=clock)
    assert clock.now() + timedelta(days=2) == engine.start(impatient, run_id="r").due
    clock.advance(2 * 86400 - 1)
    assert [] == engine.run_due()
    clock.advance(1)
    assert [RunCompleted("r", "nobody came")] == engine.run_due()


def test_a_signal_wakes_a_run_that_keeps_its_thread(bench: Any) -> None:
    @workflow
    def impatient() -> Flow[str]:
        return (yield from Suspend("go", into=str, timeout=4, default="nobody came"))

    clock = HandClock()
    engine = bench.engine(clock=clock)
    driver = Task(lambda: engine.start(impatient, run_id="r"))
    assert 1.0 == clock.until_somebody_waits()
    assert isinstance(engine.resume("r", "go", "here"), Running)
    assert RunCompleted("r", "here") == driver.result()


def test_waiting_lists_every_wait_oldest_first(bench: Any) -> None:
    clock = HandClock()
    engine = bench.engine(clock=clock)
    engine.start(two, run_id="a")
    clock.advance(60)
    engine.start(one, run_id="b")
    found = engine.waiting()
    assert [("a", "review", "first"), ("b", "review", "too dear")] == [(w.run_id, w.signal, w.reason) for w in found]
    assert timedelta(seconds=60) == found[1].since - found[0].since
    assert found == engine.waiting(REVIEW)
    assert [] == engine.waiting("other")
    engine.cancel("a")
    assert ["b"] == [w.run_id for w in engine.waiting()]


def test_a_run_that_was_cancelled_while_it_waited_is_not_resumed(bench: Any) -> None:
    engine = bench.engine()
    engine.start(one, run_id="r")
    assert RunCancelled("r", "never mind") == engine.cancel("r", "never mind")
    with pytest.raises(RunClosedError):
        engine.resume("r", REVIEW, Verdict(True, "ada"))


def test_two_people_who_answer_at_once_get_one_answer_taken(bench: Any) -> None:
    engines = [bench.engine(one) for _ in range(2)]
    engines[0].start(one, run_id="r")
    together = threading.Barrier(2)

    def answer(engine: Any, name: str) -> Any:
        together.wait(30)
        return engine.resume("r", REVIEW, Verdict(True, name))

    tasks = [Task(partial(answer, e, n)) for e, n in zip(engines, ("ada", "bob"), strict=True)]
    ends: list[Any] = []
    for task in tasks:
        try:
            ends.append(task.result())
        except (RunClosedError, EventMismatchError) as error:
            ends.append(error)
    eventually(lambda: engines[0].get("r").status == "completed")
    assert 1 == kinds(engines[0]).count("resume")
    assert 1 == sum(isinstance(end, RunCompleted) for end in ends)
    assert [] == steps(engines[0])
