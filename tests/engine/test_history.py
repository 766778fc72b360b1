"""What engine.history and engine.diff give: look-ups, a timeline, and where two runs part."""

from __future__ import annotations

import copy
import pickle
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from attrs import frozen

from stepwell import (
    CodecError,
    Flow,
    History,
    InvalidInputError,
    NotFoundError,
    Now,
    RetryPolicy,
    RunFailed,
    Sleep,
    Step,
    StepFailed,
    Suspend,
    diff,
    failed,
    workflow,
)
from stepwell import events as e
from stepwell.depicting import elapsed, said, subject_of
from stepwell.testing import VirtualClock

NASTY = "\x1b[31mred\r\n\u202e\x9b"


@frozen
class Found:
    kind: str
    severity: int


def classify(text: str) -> Found:
    if text == "bad":
        raise ValueError("bad text")
    return Found("bug", len(text))


@workflow
def triage(text: str) -> Flow[str]:
    found = yield from Step(classify, text)
    try:
        yield Step(classify, "bad")
    except failed(ValueError):
        pass
    word = yield from Suspend("review", into=str)
    return f"{found.kind} {word}"


def test_a_history_is_the_list_of_its_events(bench: Any) -> None:
    engine = bench.engine()
    engine.start(triage, "broken", run_id="r")
    history = engine.history("r")
    assert isinstance(history, History)
    assert history == list(history) == engine.history("r")
    assert (["step", "step"], 4) == ([event.kind for event in history[1:3]], len(history))
    assert ("r", 0) == (history.run_id, history.incarnation)
    engine.reset("r")
    assert (1, 0) == (engine.history("r").incarnation, engine.history("r", incarnation=0).incarnation)


def test_steps_and_signals_are_looked_up(bench: Any) -> None:
    engine = bench.engine()
    engine.start(triage, "broken", run_id="r")
    engine.resume("r", "review", "fine")
    history = engine.history("r")
    assert history[1] is history.step("classify")
    assert ("0", 1) == (history.step("classify").at, history.step("classify").attempts)
    assert ["classify", "classify#2"] == [step.step_id for step in history.steps]
    assert ["review"] == [signal.event_name for signal in history.signals]


def test_results_are_read_back_as_plain_json_or_as_a_type(bench: Any) -> None:
    engine = bench.engine()
    engine.start(triage, "broken", run_id="r")
    history = engine.history("r")
    assert {"kind": "bug", "severity": 6} == history.result_of("classify")
    assert Found("bug", 6) == history.result_of("classify", into=Found)
    with pytest.raises(CodecError):
        history.result_of("classify", into=int)


def test_a_step_that_is_not_there_is_told_with_those_that_are(memory: Any) -> None:
    engine = memory.engine()
    engine.start(triage, "broken", run_id="r")
    for look_up in (engine.history("r").step, engine.history("r").result_of):
        with pytest.raises(NotFoundError, match=r"no step 'classify#3' .*; recorded steps: classify, classify#2"):
            look_up("classify#3")
    with pytest.raises(NotFoundError, match="recorded steps: none"):
        History().step("classify")
    with pytest.raises(NotFoundError, match="'classify#2' has no result: it failed with ValueError: bad text"):
        engine.history("r").result_of("classify#2")


def test_a_step_that_is_under_way_is_told_so(memory: Any) -> None:
    def flaky() -> int:
        raise OSError("busy")

    @workflow
    def w() -> Flow[Any]:
        return (yield Step(flaky).options(retry=RetryPolicy(9, initial=600, cap=600)))

    engine = memory.engine()
    engine.start(w, run_id="r")
    with pytest.raises(NotFoundError, match="step 'flaky' has begun, and no outcome is recorded"):
        engine.history("r").step("flaky")


def test_a_history_is_copied_and_pickled(memory: Any) -> None:
    engine = memory.engine()
    engine.start(triage, "broken", run_id="r")
    history = engine.history("r")
    for other in (pickle.loads(pickle.dumps(history)), copy.copy(history), copy.deepcopy(history)):
        assert isinstance(other, History)
        assert ([event.kind for event in history], "r") == ([event.kind for event in other], other.run_id)
        assert history.result_of("classify") == other.result_of("classify")


# ---- the timeline


def test_a_timeline_has_one_line_an_event_and_the_time_since_the_start(bench: Any) -> None:
    clock = VirtualClock()
    engine = bench.engine(clock=clock)

    @workflow
    def w() -> Flow[Any]:
        yield Step(classify, "broken")
        yield Sleep(timedelta(days=3, hours=2))
        yield Now()
        return (yield from Suspend("review", into=str))

    engine.start(w, run_id="r")
    clock.advance_to(clock.now() + timedelta(days=3, hours=2))
    engine.advance("r")
    engine.resume("r", "review", "fine")
    lines = engine.history("r").timeline().splitlines()
    assert [event.kind for event in engine.history("r")] == [line.split()[1] for line in lines]
    assert (["+0.000s", "+3d02h"], '"fine"') == ([lines[1].split()[0], lines[-1].split()[0]], lines[-1].split()[-1])
    assert '{"kind": "bug", "severity": 6}' in lines[1]


def test_a_timeline_shows_nothing_raw(bench: Any) -> None:
    @workflow
    def w(text: str) -> Flow[Any]:
        return (yield from Suspend("review", into=str, reason=text))

    engine = bench.engine()
    engine.start(w, NASTY, run_id="r")
    engine.resume("r", "review", NASTY)
    for text in (engine.history("r").timeline(), engine.history("r").mermaid()):
        assert set() == {char for char in text if not char.isprintable() and char != "\n"}
        assert "red" in text


def test_what_a_fork_took_over_lies_before_its_start(bench: Any) -> None:
    clock = VirtualClock()
    engine = bench.engine(clock=clock)
    engine.start(triage, "broken", run_id="r")
    clock.advance_to(clock.now() + timedelta(minutes=5))
    engine.fork("r", before="classify#2", new_run_id="f")
    assert ["+0.000s", "-5m00s", "+0.000s", "+0.000s"] == [
        line.split()[0] for line in engine.history("f").timeline().splitlines()
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "+0.000s"),
        (0.0129, "+0.012s"),
        (59.9999, "+59.999s"),
        (60, "+1m00s"),
        (3599.9, "+59m59s"),
        (3600, "+1h00m"),
        (86_399, "+23h59m"),
        (86_400 * 14 + 7_300, "+14d02h"),
        (-5, "-5.000s"),
    ],
)
def test_times_are_short(seconds: float, text: str) -> None:
    assert text == elapsed(seconds)


def test_an_empty_history_has_no_lines() -> None:
    assert ("", "sequenceDiagram\n    participant workflow as workflow") == (History().timeline(), History().mermaid())


def test_an_event_that_nothing_has_words_for_is_told_by_its_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tide(e.EventBase, frozen=True, kw_only=True, tag="tide"):
        at: str  # type: ignore[misc]
        name: str
        water_level: int
        measured: msgspec.Raw
        note: str | None = None

    monkeypatch.setitem(e.KINDS, Tide, "tide")
    tide = Tide(at="0", name="harbour", water_level=3, measured=msgspec.Raw(b'{"a":1}'))
    assert ("harbour", 'waterLevel 3; measured {"a": 1}') == (subject_of(tide), said(tide))
    history = History([tide])
    assert 'tide  0  harbour  waterLevel 3; measured {"a": 1}' == history.timeline().strip()
    assert 'Note over workflow: tide harbour waterLevel 3; measured {"a": 1}'.replace(";", "#59;") in history.mermaid()
    higher = Tide(at="0", name="harbour", water_level=4, measured=msgspec.Raw(b'{"a":1}'))
    assert ["waterLevel"] == [change.path for change in diff([tide], [higher]).rows[0].changes]


# ---- diff


def test_two_runs_are_compared(bench: Any) -> None:
    engine = bench.engine()
    for run_id, text in (("a", "one"), ("b", "one"), ("c", "other")):
        engine.start(triage, text, run_id=run_id)
    assert engine.diff("a", "b").same
    found = engine.diff("a", "c")
    assert found.first is not None
    assert ("a", "c", ("input",)) == (found.a, found.b, found.first.changed)
    engine.resume("a", "review", "fine")
    further = engine.diff("a", "b").first
    assert further is not None
    assert further.a is not None
    assert ("only a", "resume") == (further.mark, further.a.kind)


def test_two_incarnations_of_a_run_are_compared(bench: Any) -> None:
    broken = [True]

    def work(number: int) -> int:
        if number == 2 and broken:
            raise OSError("down")
        return number

    @workflow
    def w() -> Flow[int]:
        one = yield from Step(work, 1)
        return one + (yield from Step(work, 2))

    engine = bench.engine()
    assert isinstance(engine.start(w, run_id="r"), RunFailed)
    broken.clear()
    engine.retry("r")
    found = engine.diff("r", "r", incarnation_a=0)
    assert ("r, incarnation 0", "r, incarnation 1") == (found.a, found.b)
    assert found.first is not None
    assert ["work#2", "work#2"] == [side.step_id for side in (found.first.a, found.first.b) if side is not None]
    assert {"result", "error"} == set(found.first.changed)
    assert ["same", "same", "beside", "changed", "changed"] == [row.mark for row in found.rows]
    assert engine.diff("r", "r").same


def test_a_diff_needs_no_code_and_writes_nothing(bench: Any) -> None:
    engine = bench.engine()
    for run_id in ("a", "b"):
        engine.start(triage, "one", run_id=run_id)
    before = engine.get("a")
    assert bench.engine().diff("a", "b").same
    assert before == engine.get("a")


def test_what_is_not_there_is_not_compared(bench: Any) -> None:
    engine = bench.engine()
    engine.start(triage, "one", run_id="a")
    with pytest.raises(NotFoundError, match="no run 'gone'"):
        engine.diff("a", "gone")
    with pytest.raises(NotFoundError):
        engine.diff("a", "a", incarnation_b=7)
    with pytest.raises(InvalidInputError, match="incarnation must be"):
        engine.diff("a", "a", incarnation_b=-1)
    with pytest.raises(InvalidInputError, match="a run id must be"):
        engine.diff("a", 3)


def test_a_failure_is_read_from_its_step(bench: Any) -> None:
    @workflow
    def w() -> Flow[Any]:
        try:
            return (yield from Step(classify, "bad"))
        except StepFailed as error:
            return str(error)

    engine = bench.engine()
    engine.start(w, run_id="r")
    error = engine.history("r").step("classify").error
    assert error is not None
    assert error.is_a(ValueError)
