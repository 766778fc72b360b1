"""Runs that are read in one process and driven in others, which are killed in the midst of a stream."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

from stepwell import Engine
from stepwell import events as e

from .tools import PATIENCE, eventually

CHAT = """
import json, sys
from stepwell import Emit, Engine, Flow, Step, Stream, workflow

def look_up(prompt: str) -> str:
    return prompt.upper()

def answer(prompt: str):
    for n in range(COUNT):
        if n == STOP:
            sys.stdin.read()  # until the end
        yield f"{prompt} {n}"

def thanks(prompt: str):
    yield "thanks"

@workflow
def chat(prompt: str) -> Flow[int]:
    found = yield from Step(look_up, prompt)
    yield Emit("looked up", topic="progress")
    count = yield from Stream(answer, found).options(record_chunks=True, collect=len, into=int)
    yield Emit("answered", topic="progress")
    yield Stream(thanks, prompt).options(record_chunks=True)
    return count

COUNT, STOP = int(sys.argv[2]), int(sys.argv[3])
engine = Engine(sys.argv[1], [chat])
"""

DRIVE = CHAT + 'print(engine.start(chat, "hi", run_id="r").status)\n'

READ = """
import json, sys
from stepwell import Engine
from stepwell.streaming import Chunk, Done, Emitted, StatusChanged, StepChanged

after = json.loads(sys.argv[2])
with Engine(sys.argv[1]) as engine, engine.stream("r", after=after and tuple(after), timeout=60) as events:
    for event in events:
        what = {"kind": type(event).__name__, "position": event.position}
        if isinstance(event, Chunk):
            what |= {"attempt": event.attempt, "index": event.index, "value": event.value}
        print(json.dumps(what), flush=True)
"""

TOLD = {e.Start: "StatusChanged", e.Step: "StepChanged", e.Emit: "Emitted", e.Chunk: "Chunk", e.Complete: "Done"}


def read_until(process: subprocess.Popen[str], holds: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """What a reader told, up to the first event that is as wanted."""
    assert process.stdout is not None
    told: list[dict[str, Any]] = []
    while not told or not holds(told[-1]):  # a process that ends gives an empty line
        line = process.stdout.readline()
        assert line, f"the reader ended early, after {told}"
        told.append(json.loads(line))
    return told


def recorded(told: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    """What a reader told of the history."""
    return [(event["kind"], tuple(event["position"])) for event in told if event["position"] is not None]


def expected(engine: Engine) -> list[tuple[str, Any]]:
    """What there is to tell of the history."""
    history = engine.history("r")
    return [(TOLD[type(event)], (0, event.offset)) for event in history if type(event) in TOLD]


def test_a_reader_sees_each_recorded_thing_once_though_the_drivers_are_killed(
    disk: Any, python: Callable[..., subprocess.Popen[str]]
) -> None:
    first = python(DRIVE, disk.url, "40", "7")
    engine = disk.engine()
    told: list[dict[str, Any]] = []
    wait_for_run(engine)
    reader = python(READ, disk.url, "null")
    for attempt, stop in enumerate((7, 9), 1):  # where the driver stops is where it is killed
        told += read_until(reader, lambda event: event.get("index") == stop - 1)  # noqa: B023
        assert attempt == told[-1]["attempt"]
        first.kill()
        first.wait()
        first = python(DRIVE, disk.url, "40", "9" if attempt == 1 else "-1")
    assert "completed\n" == first.communicate(timeout=PATIENCE)[0]
    told += read_until(reader, lambda event: event["kind"] == "Done")
    assert 0 == reader.wait(PATIENCE)
    assert recorded(told) == expected(engine)
    chunks = [(event["attempt"], event["index"]) for event in told if event["kind"] == "Chunk"]
    assert [(1, n) for n in range(7)] + [(2, n) for n in range(9)] + [(3, n) for n in range(40)] + [(1, 0)] == chunks
    assert 3 == next(event.attempts for event in engine.history("r") if getattr(event, "name", "") == "answer")


def test_a_reader_that_is_killed_goes_on_in_another_process(
    disk: Any, python: Callable[..., subprocess.Popen[str]]
) -> None:
    driver = python(DRIVE, disk.url, "20", "5")
    engine = disk.engine()
    wait_for_run(engine)
    reader = python(READ, disk.url, "null")
    told = read_until(reader, lambda event: event.get("index") == 3)
    reader.kill()
    reader.wait()
    rest = python(READ, disk.url, json.dumps(told[-1]["position"]))
    driver.communicate(timeout=PATIENCE)  # it goes on
    told += read_until(rest, lambda event: event["kind"] == "Done")
    assert recorded(told) == expected(engine)


def wait_for_run(engine: Engine) -> None:
    """Wait until a run is there."""
    eventually(engine.runs)
