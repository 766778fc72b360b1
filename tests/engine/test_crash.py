"""Processes that are killed, for good and at once, and what the next one makes of it."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SHOP = '''
import os, sys
from stepwell import (
    All, Engine, Flow, Now, Random, RetryPolicy, SetState, Sleep, Step, StepInterrupted, Suspend, Uuid,
    current_step, failed, step, workflow,
)
from stepwell.lifecycle import RunParked, SignalSent, StepAttemptFailed, StepCompleted, StepStarted

def effect(name: str) -> str:
    """Leave a mark that outlives the process, and stop where the parent wants it."""
    line = f"{name} {current_step().idempotency_key}\\n".encode()
    fd = os.open("effects", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, line)
    os.close(fd)
    stop(f"in {name}")
    return name

def stop(place: str) -> None:
    if STOP == place:
        print("here", flush=True)
        sys.stdin.read()  # until the end

def do(name: str, **options: object) -> Step[str]:
    return Step(effect, name).options(name=name, **options)

def branch(name: str) -> Flow[list[str]]:
    first = yield from do(name + "1")
    return [first, (yield from do(name + "2"))]

@workflow
def order(kind: str) -> Flow[list[object]]:
    seen: list[object] = [(yield from do("one"))]
    seen += [(yield from Random()), str((yield from Uuid())), (yield from Now()).isoformat()]
    if kind == "once":
        try:
            seen.append((yield from do("charge", at_most_once=True)))
        except StepInterrupted as error:
            seen.append(f"interrupted: {error.step_id}")
    seen += [list(pair) for pair in (yield All(branch("left"), branch("right")))]
    yield Sleep(0)
    if kind == "wait":
        seen.append((yield from Suspend("go", into=str)))
    seen.append((yield from do("two")))
    return seen

def told(event: object) -> None:
    if isinstance(event, StepCompleted):
        stop(f"after {event.step_id}")
    elif isinstance(event, StepStarted):
        stop(f"before {event.step_id}")
    elif isinstance(event, (RunParked, SignalSent)):
        stop(type(event).__name__)

STOP = sys.argv[3]
engine = Engine(sys.argv[1], [order], on_event=told)
kind = sys.argv[2]
'''

DRIVE = (
    SHOP
    + """
import json
outcome = engine.start(order, kind, run_id="r")
if kind == "wait":
    outcome = engine.resume("r", "go", "went", id="click") if outcome.status == "suspended" else outcome
print(json.dumps(outcome.unwrap()))
"""
)

RUN_DUE = (
    SHOP
    + """
import json
print(json.dumps([outcome.unwrap() for outcome in engine.run_due()]))
"""
)

PLACES = [
    *(f"{when} {name}" for name in ("one", "left1", "right2", "two") for when in ("before", "in", "after")),
    "after left2",
]


@pytest.fixture
def killed(disk: Any, python: Callable[..., subprocess.Popen[str]]) -> Callable[..., None]:
    """Run a program until it says that it is where it should be, and kill it there."""

    def kill(code: str, kind: str, place: str) -> None:
        process = python(code, disk.url, kind, place)
        assert process.stdout is not None
        assert "here\n" == process.stdout.readline()
        process.kill()
        process.wait()

    return kill


@pytest.fixture
def run(disk: Any, python: Callable[..., subprocess.Popen[str]]) -> Callable[..., Any]:
    """Run a program to its end; what it printed."""

    def complete(code: str, kind: str) -> Any:
        process = python(code, disk.url, kind, "nowhere")
        said, _ = process.communicate(timeout=60)
        assert 0 == process.returncode
        return json.loads(said)

    return complete


@pytest.fixture
def effects(tmp_path: Path) -> Callable[[], Counter[str]]:
    """How often each step was performed, by name."""

    def count() -> Counter[str]:
        lines = [line.split() for line in (tmp_path / "effects").read_text().splitlines()]
        for name in {name for name, _ in lines}:
            assert 1 == len({key for other, key in lines if other == name}), "the idempotency key is stable"
        return Counter(name for name, _ in lines)

    return count


ALL = {"one", "left1", "left2", "right1", "right2", "two"}


@pytest.mark.parametrize("place", PLACES)
def test_the_next_process_repeats_no_recorded_step(disk: Any, killed: Any, run: Any, effects: Any, place: str) -> None:
    """Shows S2 (P2)."""
    killed(DRIVE, "plain", place)
    recorded = {event.step_id for event in disk.engine().history("r") if event.kind == "step"}
    before = effects() if (place, recorded) != ("before one", set()) else Counter[str]()
    result = run(DRIVE, "plain")
    assert ["one", ["left1", "left2"], ["right1", "right2"], "two"] == [result[0], *result[4:]]
    after = effects()
    assert set(after) == ALL
    assert all(after[name] == 1 for name in recorded), "what was recorded is not performed again"
    assert all(after[name] <= before[name] + 1 for name in ALL), "what was not recorded, once more"
    assert result == run(DRIVE, "plain")
    assert after == effects()
    when, _, name = place.partition(" ")
    assert {"before": 1, "in": 2, "after": 1}[when] == after[name]


def test_what_was_drawn_before_the_crash_is_kept(disk: Any, killed: Any, run: Any) -> None:
    """Shows S3 (P2)."""
    killed(DRIVE, "plain", "in left1")
    kinds = {event.kind: event for event in disk.engine().history("r")}
    result = run(DRIVE, "plain")
    assert [kinds["random"].value, kinds["uuid"].value] == result[1:3]


def test_what_a_dead_process_left_is_due_at_once(killed: Any, run: Any, effects: Any) -> None:
    killed(DRIVE, "plain", "in two")
    (result,) = run(RUN_DUE, "plain")
    assert ("one", "two", 2) == (result[0], result[-1], effects()["two"])
    assert [] == run(RUN_DUE, "plain")


@pytest.mark.parametrize(("place", "times"), [("before charge", 0), ("in charge", 1)])
def test_a_step_that_may_run_once_only_is_not_run_again(
    killed: Any, run: Any, effects: Any, place: str, times: int
) -> None:
    killed(DRIVE, "once", place)
    result = run(DRIVE, "once")
    assert ("interrupted: charge", times) == (result[4], effects()["charge"])
    assert ("two", 1) == (result[-1], effects()["two"])


def test_a_step_that_may_run_once_only_keeps_its_recorded_result(killed: Any, run: Any, effects: Any) -> None:
    killed(DRIVE, "once", "after charge")
    assert "charge" == run(DRIVE, "once")[4]
    assert 1 == effects()["charge"]


@pytest.mark.parametrize("place", ["RunParked", "SignalSent", "in two"])
def test_a_signal_counts_once_whenever_the_process_dies(
    disk: Any, killed: Any, run: Any, effects: Any, place: str
) -> None:
    """Shows S11 (P5)."""
    killed(DRIVE, "wait", place)
    result = run(DRIVE, "wait")
    assert ("went", "two") == (result[-2], result[-1])
    assert 1 == [event.kind for event in disk.engine().history("r")].count("resume")
    assert 1 == effects()["one"]


def test_a_run_survives_any_number_of_crashes(killed: Any, run: Any, effects: Any) -> None:
    for place in ("in one", "in one", "before two", "in two", "in two"):
        killed(DRIVE, "plain", place)
    result = run(DRIVE, "plain")
    assert ["one", ["left1", "left2"], ["right1", "right2"], "two"] == [result[0], *result[4:]]
    assert (3, 3) == (effects()["one"], effects()["two"])
