"""get, runs, waiting, history, query: what can be asked, page by page."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from stepwell import Flow, InvalidInputError, NotFoundError, RunCompleted, SetState, Signal, Step, Suspend, workflow
from stepwell.testing.environments import EPOCH

from .tools import HandClock, kinds


@workflow
def order(what: str) -> Flow[str]:
    yield SetState(what=what, phase="asked")
    how = yield from Suspend(
        Signal("how", str), reason=f"how is {what} sent?", timeout=timedelta(days=1), show={"what": what}
    )
    yield SetState(phase="sent")
    if how == "never":
        raise LookupError(what)
    return (yield from Step(str.upper, how).options(into=str))


@workflow
def other() -> Flow[None]:
    yield Suspend("else")


def test_a_record_says_everything(bench: Any) -> None:
    clock = HandClock()
    engine = bench.engine(clock=clock)
    engine.start(order, "tea", run_id="r", tags={"shop": "1"})
    record = engine.get("r")
    assert ("r", "order", "1", "suspended", 1, 1) == (
        record.id,
        record.workflow,
        record.version,
        record.status,
        record.attempts,
        record.sessions,
    )
    assert (["tea"], None, None, ("how",), {"shop": "1"}) == (
        record.input,
        record.result,
        record.failure,
        record.waiting_for,
        record.tags,
    )
    assert (EPOCH, EPOCH, None, EPOCH + timedelta(days=1), None, None) == (
        record.created,
        record.updated,
        record.completed,
        record.due,
        record.blocked,
        record.lease_until,
    )
    clock.advance(60)
    engine.resume("r", "how", "by ship")
    record = engine.get("r")
    minute = EPOCH + timedelta(seconds=60)
    assert ("completed", "BY SHIP", minute, EPOCH, (), None) == (
        record.status,
        record.result,
        record.completed,
        record.created,
        record.waiting_for,
        record.due,
    )
    assert (2, len(engine.history("r"))) == (record.sessions, record.events)


def test_a_record_of_a_failed_run_has_its_failure(bench: Any) -> None:
    engine = bench.engine()
    engine.start(order, "tea", run_id="r")
    outcome = engine.resume("r", "how", "never")
    assert outcome.failure == engine.get("r").failure
    assert "builtins.LookupError" == outcome.failure.type


def test_runs_are_listed_newest_first_and_page_by_page(bench: Any) -> None:
    clock = HandClock()
    engine = bench.engine(clock=clock)
    for number in range(5):
        engine.start(order, str(number), run_id=str(number))
        clock.advance(1)
    assert ["4", "3", "2", "1", "0"] == [run.id for run in engine.runs()]
    assert ["4", "3"] == [run.id for run in engine.runs(limit=2)]
    assert ["2", "1"] == [run.id for run in engine.runs(limit=2, after="3")]
    assert [] == engine.runs(after="0")
    assert None is engine.runs()[0].input


def test_runs_are_found_by_what_they_are(bench: Any) -> None:
    clock = HandClock()
    engine = bench.engine(clock=clock)
    engine.start(order, "tea", run_id="a", tags={"shop": "1", "vip": ""})
    clock.advance(1)
    engine.start(order, "milk", run_id="b", tags={"shop": "2"})
    clock.advance(1)
    engine.start(other, run_id="c")
    clock.advance(1)
    engine.submit(other, run_id="d")
    engine.resume("b", "how", "by ship")

    def ids(**where: Any) -> list[str]:
        return [run.id for run in engine.runs(**where)]

    assert ["c", "a"] == ids(status="suspended")
    assert ["b"] == ids(status="completed")
    assert ["d"] == ids(status="pending")
    assert ["b", "a"] == ids(workflow="order")
    assert ["b", "a"] == ids(tag="shop")
    assert ["b"] == ids(tag=("shop", "2"))
    assert ["a"] == ids(tag="vip", status="suspended")
    assert ["a"] == ids(waiting_for="how")
    assert ["c"] == ids(waiting_for=Signal("else"))
    assert [] == ids(blocked=True)
    assert ["d", "c", "b", "a"] == ids(blocked=False)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"status": "done"}, "status must be"),
        ({"limit": 0}, "limit must be"),
        ({"limit": 10_001}, "limit must be"),
        ({"limit": "9"}, "limit must be"),
        ({"waiting_for": ""}, "signal's name"),
        ({"waiting_for": 5}, "signal's name"),
        ({"tag": ("a", "b", "c")}, "tag must be a name, or a tuple of name and value, got .'a', 'b', 'c'."),
        ({"tag": ()}, "tag must be a name, or a tuple"),
        ({"tag": ["a", "b"]}, "tag must be a name, or a tuple"),
        ({"tag": 5}, "tag must be a name, or a tuple of name and value, got 5"),
        ({"tag": (None, "b")}, "tag must be a name, or a tuple"),
        ({"tag": ("a", 5)}, "the value of tag must be text or None, got 5"),
        ({"tag": "\ud800"}, "tag holds a lone surrogate"),
        ({"tag": ("a", "\ud800")}, "the value of tag holds a lone surrogate"),
        ({"workflow": 5}, "workflow must be text or None, got 5"),
        ({"workflow": order}, "workflow must be text or None, got <workflow order"),
        ({"workflow": "\ud800"}, "workflow holds a lone surrogate"),
        ({"blocked": "x"}, "blocked must be True, False or None, got 'x'"),
        ({"blocked": 1}, "blocked must be"),
        ({"after": 5}, "after must be text or None, got 5"),
        ({"after": "\ud800"}, "after holds a lone surrogate"),
    ],
)
def test_a_wrong_filter_is_refused(memory: Any, options: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidInputError, match=text):
        memory.engine().runs(**options)


def test_a_history_is_read_by_incarnation(bench: Any) -> None:
    engine = bench.engine()
    engine.start(order, "tea", run_id="r")
    engine.reset("r")
    assert ["start", "suspend", "cancelled"] == kinds(engine, incarnation=0)
    assert ["start", "suspend"] == kinds(engine) == kinds(engine, incarnation=1)
    with pytest.raises(NotFoundError):
        engine.history("r", incarnation=2)


@pytest.mark.parametrize("wrong", ["x", 1.0, True, -1])
def test_an_incarnation_is_a_number(memory: Any, wrong: Any) -> None:
    engine = memory.engine()
    engine.start(order, "tea", run_id="r")
    with pytest.raises(InvalidInputError, match="incarnation must be a whole number of 0 or more, or None, got"):
        engine.history("r", incarnation=wrong)


@pytest.mark.parametrize("wrong", ["x", -1, float("nan"), True])
def test_a_timeout_is_a_duration(memory: Any, wrong: Any) -> None:
    engine = memory.engine()
    engine.start(order, "tea", run_id="r")
    with pytest.raises(InvalidInputError, match="timeout must be"):
        engine.wait("r", timeout=wrong)


def test_what_is_shown_to_the_person_who_is_asked_is_in_the_history(bench: Any) -> None:
    engine = bench.engine()
    engine.start(order, "tea", run_id="r")
    assert b'{"what":"tea"}' == bytes(engine.history("r")[1].show)


def test_the_state_is_that_of_the_moment_and_the_last_one_is_kept(bench: Any) -> None:
    engine = bench.engine()
    engine.start(order, "tea", run_id="r")
    assert {"what": "tea", "phase": "asked"} == engine.query("r")
    assert RunCompleted("r", "X") == engine.resume("r", "how", "x")
    assert {"what": "tea", "phase": "sent"} == engine.query("r")
    engine.start(other, run_id="o")
    assert {} == engine.query("o")


def test_a_program_without_the_code_can_look_at_everything_that_needs_no_code(bench: Any) -> None:
    bench.engine().start(order, "tea", run_id="r")
    stranger = bench.engine()
    assert ("suspended", ["tea"]) == (stranger.get("r").status, stranger.get("r").input)
    assert ["how"] == [wait.signal for wait in stranger.waiting()]
    assert ["start", "suspend"] == kinds(stranger)
    assert "suspended" == stranger.wait("r").status
    with pytest.raises(NotFoundError, match="knows no workflow"):
        stranger.query("r")
    with pytest.raises(NotFoundError, match="knows no workflow"):
        stranger.resume("r", "how", "x")
    assert None is stranger.get("r").blocked, "asking blocks nothing"


def test_an_engine_shows_its_store(memory: Any) -> None:
    engine = memory.engine()
    assert engine.store is memory.store()
    assert "MemoryStore" in repr(engine)
