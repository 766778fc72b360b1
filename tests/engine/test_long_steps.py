"""Steps that take long, in real processes: a cancel and a lost lease reach them; what may run once only does."""

from __future__ import annotations

import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stepwell import (
    All,
    Cancelled,
    Flow,
    Race,
    RetryPolicy,
    Sleep,
    Step,
    StepInterrupted,
    StoreUnavailableError,
    failed,
    workflow,
)
from stepwell import events as e

from .tools import PATIENCE, eventually, kinds

LONG = """
import asyncio, os, sys, threading
from stepwell import All, Engine, Flow, LeaseLostError, Step, current_step, step, workflow

heard = threading.Event()

def tell(text: str) -> None:
    sys.stdout.write(text + chr(10))  # in one piece, whatever another thread says
    sys.stdout.flush()

def waits() -> None:
    tell("began")
    if current_step().wait_cancelled(60):
        tell("told")
        heard.set()

def beats() -> None:
    tell("began")
    try:
        while True:
            current_step().heartbeat({"pid": os.getpid()})
            current_step().wait_cancelled(0.02)
    finally:
        tell("told")
        heard.set()

async def waits_async() -> None:
    tell("began")
    try:
        while True:
            current_step().heartbeat()
            await asyncio.sleep(0.02)
    finally:
        tell("told")
        heard.set()

def other() -> None: ...

@workflow
def w(how: str) -> Flow[None]:
    if how == "branch":
        yield All(Step(waits), Step(other))
    elif how == "process":
        import long_steps
        yield Step(long_steps.waits).options(process=True)
    elif how == "apart":
        yield Step(waits).options(timeout=60)
    else:
        yield Step({"lone": waits, "lone beats": beats, "async": waits_async}[how])
    yield Step(other)  # here a run that is cancelled ends

def main(url: str, how: str, lease: str) -> None:
    engine = Engine(url, [w], lease=float(lease))
    try:
        tell(engine.start(w, how, run_id="r").status)
    except LeaseLostError:
        tell("lost")
        assert how == "process" or heard.wait(60)
"""

HOWS = ["lone", "lone beats", "apart", "branch", "async", "process"]


@pytest.fixture
def long_step(disk: Any, python: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> Callable[..., Any]:
    """Start a process with a run whose step takes long; its process, once the step has begun."""
    (tmp_path / "long_steps.py").write_text(LONG, "utf-8")

    def start(how: str, lease: float = 30) -> subprocess.Popen[str]:
        code = "import sys; sys.path.insert(0, '.'); sys.dont_write_bytecode = True\n"
        process = python(code + "import long_steps; long_steps.main(*sys.argv[1:])", disk.url, how, str(lease))
        assert process.stdout is not None
        assert "began\n" == process.stdout.readline()
        return process

    return start


@pytest.mark.parametrize("how", HOWS)
def test_a_cancel_from_another_process_reaches_the_step(disk: Any, long_step: Any, how: str) -> None:
    """Well before the 60 seconds that it would take."""
    process = long_step(how)
    disk.engine().cancel("r")
    said, _ = process.communicate(timeout=PATIENCE)
    assert ["cancelled"] + ([] if how == "process" else ["told"]) == sorted(said.splitlines())
    assert "cancel" in kinds(disk.engine())


@pytest.mark.parametrize("how", HOWS)
def test_a_step_of_an_owner_that_was_stopped_past_its_lease_hears_of_it(disk: Any, long_step: Any, how: str) -> None:
    process = long_step(how, lease=1)
    other = disk.engine()

    def stopped() -> bool:
        """Past its lease; and not while it holds a lock of the store, which would stop everybody."""
        process.send_signal(signal.SIGSTOP)
        try:
            eventually(lambda: other.get("r").status != "running")
            return bool(other.store.claim("r", "somebody else", 60).fence == 2)
        except StoreUnavailableError:
            process.send_signal(signal.SIGCONT)
            return False

    eventually(stopped)
    process.send_signal(signal.SIGCONT)
    said, _ = process.communicate(timeout=PATIENCE)
    assert ["lost"] + ([] if how == "process" else ["told"]) == sorted(said.splitlines())
    steps = {event.step_id for event in other.history("r") if isinstance(event, e.Step)}
    assert steps <= {"other"}  # a sibling may have ended before


# ---- at most once

ONCE = """
import os, sys
from stepwell import All, Cancelled, Engine, Flow, RetryPolicy, Step, StepInterrupted, workflow

def mark(text: str) -> None:
    with open("effects", "a") as file:
        file.write(text + "\\n")

def charge() -> str:
    mark("charge")
    if "stop" in sys.argv:
        print("here", flush=True)
        sys.stdin.read()
    return "charged"

def other() -> str:
    return "other"

def refund() -> None:
    mark("refund")

def careful(how: str) -> Flow[str]:
    once = Step(charge).options(at_most_once=True, retry=RetryPolicy(5, initial=0),
                                timeout=60 if how == "apart" else None)
    in_doubt = ""
    try:
        try:
            return (yield from once)
        except StepInterrupted as error:
            in_doubt = error.step_id
        yield Step(other)  # here a run that is cancelled ends
    finally:
        if in_doubt:
            yield Step(refund)
    return f"in doubt: {in_doubt}"

@workflow
def w(how: str) -> Flow[str]:
    if how == "branch":
        return (yield All(careful(how), Step(other)))[0]
    return (yield from careful(how))

engine = Engine(sys.argv[1], [w])
if "cancel" in sys.argv:
    print(engine.cancel("r").status)
else:
    print(engine.start(w, sys.argv[2], run_id="r").unwrap())
"""


@pytest.mark.parametrize("how", ["lone", "apart", "branch"])
@pytest.mark.parametrize("then", ["start", "cancel"])
def test_what_may_run_once_is_not_run_again_after_a_kill(
    disk: Any, python: Callable[..., subprocess.Popen[str]], tmp_path: Path, how: str, then: str
) -> None:
    """Between the record of its begin and that of its outcome; the workflow decides, also when it is cancelled."""
    process = python(ONCE, disk.url, how, "stop")
    assert process.stdout is not None
    assert "here\n" == process.stdout.readline()
    process.kill()
    process.wait()
    assert "begin" in kinds(disk.engine())
    said, _ = python(ONCE, disk.url, how, then).communicate(timeout=60)
    assert ("in doubt: charge" if then == "start" else "cancelled") == said.strip()
    assert Counter({"charge": 1, "refund": 1}) == Counter((tmp_path / "effects").read_text().split())
    (charge,) = [event for event in disk.engine().history("r") if isinstance(event, e.Step) and event.name == "charge"]
    assert charge.error is not None
    assert charge.error.is_a("stepwell.errors.StepInterrupted")


def test_a_failure_of_what_may_run_once_is_final_whatever_the_policy(bench: Any) -> None:
    calls = []

    def charge() -> None:
        calls.append(1)
        raise OSError("down")

    @workflow
    def w() -> Flow[str]:
        try:
            yield Step(charge).options(at_most_once=True, retry=RetryPolicy(5, initial=0))
        except failed(OSError):
            return "decided"
        return ""

    engine = bench.engine()
    assert "decided" == engine.start(w, run_id="r").unwrap()
    assert ([1], ["start", "begin", "step", "complete"]) == (calls, kinds(engine))


def test_what_may_run_once_and_is_in_doubt_in_a_branch_leaves_its_siblings_alone(bench: Any) -> None:
    calls: Counter[str] = Counter()

    def charge() -> str:
        calls["charge"] += 1
        raise KeyboardInterrupt

    def ship() -> str:
        calls["ship"] += 1
        return "shipped"

    def careful() -> Flow[str]:
        try:
            return (yield from Step(charge).options(at_most_once=True))
        except StepInterrupted:
            return "in doubt"

    @workflow
    def w() -> Flow[list[str]]:
        return list((yield from All(careful(), Step(ship))))

    engine = bench.engine(w)
    with pytest.raises(KeyboardInterrupt):
        engine.start(w, run_id="r")
    assert ["in doubt", "shipped"] == bench.engine(w).advance("r").unwrap()
    assert 1 == calls["charge"]


def test_what_may_run_once_and_loses_its_race_in_doubt_is_not_run_again(bench: Any) -> None:
    calls: Counter[str] = Counter()

    def charge() -> None:
        calls["charge"] += 1
        raise KeyboardInterrupt

    @workflow
    def w() -> Flow[int]:
        try:
            index, _ = yield Race(Step(charge).options(at_most_once=True), Sleep(3600))
        except (StepInterrupted, Cancelled):
            return -1
        return index

    engine = bench.engine(w)
    with pytest.raises(KeyboardInterrupt):
        engine.start(w, run_id="r")
    assert -1 == bench.engine(w).advance("r").unwrap()
    assert 1 == calls["charge"]


def test_a_retry_of_the_run_is_a_decision_to_begin_again(bench: Any) -> None:
    """By whoever calls it; what else came of the step is known by then."""
    calls = []

    def charge() -> str:
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return "charged"

    @workflow
    def w() -> Flow[str]:
        return (yield from Step(charge).options(at_most_once=True))

    engine = bench.engine(w)
    with pytest.raises(KeyboardInterrupt):
        engine.start(w, run_id="r")
    assert "failed" == engine.advance("r").status
    assert "charged" == engine.retry("r").unwrap()
