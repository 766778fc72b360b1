"""fork with another result of a recorded step: what if it had said something else?"""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from stepwell import (
    All,
    CodecError,
    ConflictError,
    DivergenceError,
    Flow,
    InvalidInputError,
    NotFoundError,
    Patched,
    Race,
    RunCompleted,
    RunFailed,
    RunSuspended,
    Step,
    StepFailed,
    Suspend,
    current_step,
    workflow,
)
from stepwell.testing import received, replay, returned

from .tools import Tally, kinds, steps


@frozen
class Found:
    kind: str
    severity: int


def classify(text: str) -> Found:
    return Found("bug", len(text))


def shout(text: str) -> str:
    return text.upper()


@workflow
def triage(text: str) -> Flow[str]:
    found = yield from Step(classify, text)
    note = "nobody"
    if found.severity > 3:
        note = yield from Suspend("review", into=str)
    return (yield from Step(shout, f"{found.kind} by {note}"))


def test_a_fork_goes_another_way_with_another_result(bench: Any) -> None:
    engine = bench.engine()
    engine.start(triage, "broken", run_id="r", tags={"a": "1"})
    engine.resume("r", "review", "ann")
    before = engine.history("r")
    assert RunCompleted("f", "TYPO BY NOBODY") == engine.fork(
        "r", replace=("classify", Found("typo", 1)), new_run_id="f"
    )
    assert ["start", "step", "step", "complete"] == kinds(engine, "f")
    start = engine.history("f")[0]
    assert {"runId": "r", "incarnation": 0, "offset": 2, "replaced": "classify"} == start.source
    assert (1, {"a": "1"}) == (start.prefix, start.tags)
    assert before == engine.history("r"), "the source stays as it is"
    found = engine.diff("r", "f")
    assert found.first is not None
    assert ["result.kind", "result.severity"] == [change.path for change in found.first.changes]


def test_the_value_may_be_plain_json_and_is_recorded_as_the_step_would(bench: Any) -> None:
    engine = bench.engine()
    engine.start(triage, "broken", run_id="r")
    engine.fork("r", replace=("classify", {"severity": 2, "kind": "typo"}), new_run_id="f")
    assert Found("typo", 2) == engine.history("f").result_of("classify", Found)
    assert engine.history("r").step("classify").inputs == engine.history("f").step("classify").inputs


@pytest.mark.parametrize(
    ("replace", "where", "error", "text"),
    [
        (("classify", {"kind": "typo"}), {}, InvalidInputError, r"step 'classify' is none: .*severity: is missing"),
        (("classify", {"kind": "typo", "severity": "high"}), {}, InvalidInputError, "severity"),
        (("classify", object()), {}, InvalidInputError, "result of step 'classify' is none"),
        (("classify", "x" * 2_000_000), {}, InvalidInputError, "result of step 'classify' is none"),
        (("nothing", 1), {}, NotFoundError, "recorded steps: classify, shout"),
        (("classify", Found("a", 5)), {"before": "nothing"}, NotFoundError, "no step 'nothing'"),
        (("classify", Found("a", 5)), {"before": 99}, InvalidInputError, "a seq from 1 to 6"),
        (
            ("shout", "HI"),
            {"before": "classify"},
            InvalidInputError,
            "event 4, and a fork before 'classify' keeps",
        ),
        (("classify", Found("a", 1)), {"before": "classify"}, InvalidInputError, "leave `before` out"),
        (("classify", Found("a", 1)), {"before": "shout"}, ConflictError, "does not come to all that is recorded"),
        ("classify", {}, InvalidInputError, "must be a step id and a value"),
        (("classify",), {}, InvalidInputError, "must be a step id and a value"),
        ((1, Found("a", 1)), {}, InvalidInputError, "must be a step id and a value"),
        (None, {}, InvalidInputError, "got None"),
    ],
)
def test_bad_input_is_told_before_anything_is_written(
    memory: Any, replace: Any, where: dict[str, Any], error: Any, text: str
) -> None:
    engine = memory.engine()
    engine.start(triage, "broken", run_id="r")
    engine.resume("r", "review", "ann")
    with pytest.raises(error, match=text):
        engine.fork("r", replace=replace, **where)
    assert ["r"] == [record.id for record in engine.runs()]


def test_a_workflow_that_is_unknown_is_told_before_anything_is_written(bench: Any) -> None:
    bench.engine().start(triage, "broken", run_id="r")
    engine = bench.engine()
    with pytest.raises(NotFoundError, match="knows no workflow"):
        engine.fork("r", replace=("classify", {"kind": "x", "severity": 1}))
    assert ["r"] == [record.id for record in engine.runs()]


def test_a_later_point_keeps_what_the_workflow_comes_to_all_the_same(bench: Any) -> None:
    engine = bench.engine()
    engine.start(triage, "broken", run_id="r")
    engine.resume("r", "review", "ann")
    forked = engine.fork("r", replace=("classify", Found("leak", 5)), before="shout", new_run_id="f")
    assert RunCompleted("f", "LEAK BY ANN") == forked
    assert ["start", "step", "suspend", "resume", "step", "complete"] == kinds(engine, "f")
    assert 4 == engine.history("f")[0].source["offset"]


def test_what_is_kept_is_not_performed_again_and_what_is_dropped_is(bench: Any) -> None:
    tally = Tally()

    @workflow
    def w() -> Flow[list[int]]:
        first = yield from tally.step("a")
        yield tally.step("b")
        second = yield from tally.step("a")
        return [first, second, (yield from tally.step("c"))]

    engine = bench.engine()
    engine.start(w, run_id="r")
    assert RunCompleted("f", [1, 70, 2]) == engine.fork("r", replace=("a#2", 70), new_run_id="f")
    assert {"a": 2, "b": 1, "c": 2} == dict(tally.counts)
    assert ["a", "b", "a#2", "c"] == steps(engine, "f")


def test_a_step_that_failed_is_given_a_result(bench: Any) -> None:
    def charge() -> int:
        raise ValueError("card declined")

    @workflow
    def w() -> Flow[str]:
        try:
            return f"charged {(yield from Step(charge))}"
        except StepFailed as error:
            raise RuntimeError("no money") from error

    engine = bench.engine()
    assert isinstance(engine.start(w, run_id="r"), RunFailed)
    assert RunCompleted("f", "charged 12") == engine.fork("r", replace=("charge", 12), new_run_id="f")
    event = engine.history("f").step("charge")
    assert (None, 12) == (event.error, engine.history("f").result_of("charge"))


def test_a_result_that_the_code_of_today_refuses_is_replaced(bench: Any) -> None:
    def measure() -> str:
        return "twelve"

    def workflow_of(fn: Any) -> Any:
        @workflow(name="w")
        def w() -> Flow[Any]:
            return (yield Step(fn).options(name="measure"))

        return w

    def measure_number() -> int:
        return 0

    bench.engine().start(workflow_of(measure), run_id="r")
    engine = bench.engine(workflow_of(measure_number))
    with pytest.raises(CodecError):
        engine.fork("r", before=2)
    assert RunCompleted("f", 12) == engine.fork("r", replace=("measure", 12), new_run_id="f")


def test_code_that_does_not_fit_what_came_before_is_told(bench: Any) -> None:
    @workflow(name="triage")
    def other(text: str) -> Flow[str]:
        yield Step(shout, text)
        found = yield from Step(classify, text)
        return found.kind

    bench.engine().start(triage, "a", run_id="r")
    engine = bench.engine(other)
    with pytest.raises(DivergenceError, match="diverges at event 1"):
        engine.fork("r", replace=("classify", Found("x", 1)), new_run_id="f")
    assert ["r"] == [record.id for record in engine.runs()]


def test_a_step_behind_a_patch_that_the_run_has_not(bench: Any) -> None:
    @workflow(name="w")
    def old() -> Flow[str]:
        return (yield from Step(shout, "a"))

    @workflow(name="w")
    def new() -> Flow[str]:
        if (yield from Patched("p")):
            yield Step(shout, "new")
        return (yield from Step(shout, "a"))

    bench.engine().start(old, run_id="r")
    assert RunCompleted("f", "Z") == bench.engine(new).fork("r", replace=("shout", "Z"), new_run_id="f")


def test_in_branches_what_was_recorded_before_the_step_stays(bench: Any) -> None:
    tally = Tally()

    @workflow
    def w() -> Flow[Any]:
        both = yield All(tally.step("left"), tally.step("right"), limit=1)
        index, _ = yield Race(tally.step("fast"), Suspend("never"))
        return [*both, index]

    engine = bench.engine()
    engine.start(w, run_id="r")
    assert [1, 50, 0] == engine.fork("r", replace=("right", 50)).unwrap()
    assert {"left": 1, "right": 1, "fast": 2} == dict(tally.counts)
    assert [1, 1, 0] == engine.fork("r", replace=("fast", 0)).unwrap(), "the losers are cancelled anew"
    assert 2 == tally["fast"]


def test_a_fork_after_a_cancel_is_refused_with_another_result_too(bench: Any) -> None:
    @workflow
    def w() -> Flow[str]:
        try:
            yield Suspend("go")
        finally:
            yield Step(shout, "tidy")
        return ""

    engine = bench.engine()
    engine.start(w, run_id="r")
    engine.cancel("r")
    with pytest.raises(ConflictError, match="comes after a cancel"):
        engine.fork("r", replace=("shout", "x"))


def test_a_fork_of_a_fork_names_the_nearest_source(bench: Any) -> None:
    engine = bench.engine()
    engine.start(triage, "broken", run_id="r")
    engine.fork("r", replace=("classify", Found("x", 9)), new_run_id="f")
    assert RunSuspended("f", ("review",)) == engine.wait("f")
    engine.fork("f", before="classify", new_run_id="g")
    assert {"runId": "f", "incarnation": 0, "offset": 1} == engine.history("g")[0].source


def test_the_replaced_history_is_one_like_any_other() -> None:
    run = replay(triage, "broken", history=[returned(Found("typo", 5)), received("review", "ann"), returned("TYPO")])
    assert "TYPO" == run.result


def test_idempotency_keys_of_a_fork_are_its_own(bench: Any) -> None:
    keys: list[str] = []

    def note(number: int) -> int:
        keys.append(current_step().idempotency_key)
        return number

    @workflow
    def w() -> Flow[Any]:
        yield Step(note, 1)
        return (yield Step(note, 2))

    engine = bench.engine()
    engine.start(w, run_id="r")
    engine.fork("r", replace=("note", 5))
    assert (3, 3) == (len(keys), len(set(keys)))


# ---- processes

SHOP = """
import os, sys
from stepwell import Engine, Flow, Step, workflow

def effect(name: str) -> str:
    fd = os.open("effects", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{name}\\n".encode())
    os.close(fd)
    if name == STOP:
        print("here", flush=True)
        sys.stdin.read()
    return name

def do(name):
    return Step(effect, name).options(name=name)

@workflow
def order() -> Flow[list[str]]:
    found = yield from do("look")
    paid = yield from do(f"pay for {found}")
    return [found, paid, (yield from do(f"ship {found}"))]

STOP = sys.argv[2]
engine = Engine(sys.argv[1], [order], lease=0.5)
"""
FORK = SHOP + "engine.fork('r', replace=('look', 'cake'), new_run_id='f')"


@pytest.mark.parametrize("place", ["pay for cake", "ship cake"])
def test_a_fork_that_is_killed_goes_on_with_the_other_result(
    disk: Any, python: Callable[..., subprocess.Popen[str]], tmp_path: Path, place: str
) -> None:
    start = python(SHOP + "print(engine.start(order, run_id='r').status)", disk.url, "nowhere")
    assert "completed\n" == start.communicate(timeout=60)[0]
    forker = python(FORK, disk.url, place)
    assert forker.stdout is not None
    assert "here\n" == forker.stdout.readline()
    forker.kill()
    forker.wait()
    code = "print([outcome.unwrap() for outcome in engine.run_due()] or engine.wait('f').unwrap())"
    again = python(SHOP + "import json\n" + code, disk.url, "nowhere")
    assert "'cake', 'pay for cake', 'ship cake'" in again.communicate(timeout=60)[0]
    counts = Counter((tmp_path / "effects").read_text().splitlines())
    assert {place: 2} == {name: count for name, count in counts.items() if count > 1}, "only what was under way"
    assert 1 == counts["look"]
    engine = disk.engine()
    assert "look" == engine.history("r").result_of("look")
    assert "cake" == engine.history("f").result_of("look")
