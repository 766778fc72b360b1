"""Steps in processes of their own: what passes, what is refused, how they are ended, and that nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any

import cattrs
import pytest

from stepwell import (
    All,
    Codec,
    Flow,
    InvalidInputError,
    Race,
    RetryPolicy,
    RunCancelled,
    RunCompleted,
    Step,
    StepProcessError,
    StepTimeoutError,
    failed,
    process_child,
    step,
    workflow,
)
from stepwell import events as e
from stepwell.lifecycle import LateResult, StepErrored
from stepwell.testing import simulate

from .tools import PATIENCE, Task, eventually, kinds

MODULE = '''
"""Steps that a child process can import."""
import asyncio, os, signal, subprocess, sys, threading, time
from datetime import timedelta
from attrs import frozen
from stepwell import Cancelled, InvalidInputError, current_step

@frozen
class Item:
    name: str
    left: timedelta

class Broken(ValueError):
    code = "E7"

def pid() -> int:
    return os.getpid()

def twice(item: Item, *more: Item, by: int = 2, **rest: timedelta) -> list[Item]:
    return [Item(one.name * by, one.left * by + sum(rest.values(), timedelta())) for one in (item, *more)]

def untyped(value):
    return value

def odd() -> object:
    return object()

async def later(name: str) -> str:
    await asyncio.sleep(0)
    return f"{name} {current_step().step_id}"

def context() -> list[str | int | None]:
    c = current_step()
    return [c.run_id, c.step_id, c.attempt, c.idempotency_key, c.last_details]

def breaks(path: str) -> None:
    raise Broken(f"no {path}")

def tells(path: str) -> list[int | None]:
    c = current_step()
    before = c.last_details
    c.heartbeat(c.attempt * 10)
    if c.attempt < 3:
        raise OSError("down")
    return [before]

def wrong_details() -> str:
    try:
        current_step().heartbeat(object())
    except InvalidInputError as error:
        return str(error)

def mark(path: str, text: str) -> None:
    with open(path, "a") as file:
        file.write(text + "\\n")

def hangs(path: str) -> None:
    """Until it is told; then it cleans up."""
    try:
        mark(path, f"began {os.getpid()}")
        time.sleep(600)
    finally:
        mark(path, f"cleaned {current_step().cancelled}")

def deaf(path: str) -> None:
    """Lets nothing pass."""
    mark(path, f"began {os.getpid()}")
    while True:
        try:
            time.sleep(600)
        except BaseException:
            mark(path, "deaf")

async def hangs_too(path: str) -> None:
    try:
        mark(path, f"began {os.getpid()}")
        await asyncio.sleep(600)
    finally:
        mark(path, f"cleaned {current_step().cancelled}")

def spawns(path: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    mark(path, f"began {os.getpid()}")
    mark(path, f"spawned {child.pid}")
    time.sleep(600)

def first_hangs(path: str) -> str:
    if current_step().attempt == 1:
        deaf(path)
    return "second"

def beats(path: str) -> None:
    mark(path, f"began {os.getpid()}")
    while True:
        current_step().heartbeat("here")
        time.sleep(0.01)

def silent(path: str) -> None:
    mark(path, f"began {os.getpid()}")
    time.sleep(600)

def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)

def leaves() -> None:
    sys.exit(3)

def says() -> None:
    print("out", flush=True)
    print("err", file=sys.stderr, flush=True)

def keyboard() -> None:
    raise KeyboardInterrupt

def lingers(path: str) -> str:
    """Has a thread that never ends."""
    mark(path, f"began {os.getpid()}")
    threading.Thread(target=lambda: time.sleep(600)).start()
    return "done"

class Holder:
    @staticmethod
    def static(n: int) -> int:
        return n + 1
    def method(self) -> int:
        return 1

holder = Holder()
hidden = pid
def pid_of_another() -> int:
    return 0
renamed, pid_of_another = pid_of_another, pid
'''


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module above, where this process and its children find it."""
    (tmp_path / "process_steps.py").write_text(MODULE, "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "process_steps", raising=False)
    yield import_module("process_steps")
    del sys.modules["process_steps"]


@pytest.fixture
def marks(tmp_path: Path) -> Callable[[], list[list[str]]]:
    """What the steps have left behind, in words."""
    path = tmp_path / "marks"
    return lambda: [line.split() for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children that do not end are killed after a moment."""
    monkeypatch.setattr(process_child, "GRACE", 0.3)


def flow(fn: Any, *args: Any, **options: Any) -> Any:
    @workflow
    def w() -> Flow[Any]:
        return (yield from Step(fn, *args).options(process=True, **options))

    return w


def alive(pid: int | str) -> bool:
    """Whether a process is there; one that only waits to be reaped is not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def gone(pid: str) -> bool:
    """Whether it is not there any more."""
    return not alive(pid)


def outcome_of(engine: Any, fn: Any, *args: Any, **options: Any) -> Any:
    return engine.start(flow(fn, *args, **options), run_id="r")


# ---- what passes


def test_a_step_runs_in_another_process(bench: Any, steps: Any) -> None:
    engine = bench.engine()
    assert os.getpid() != outcome_of(engine, steps.pid).unwrap()
    assert ["start", "step", "complete"] == kinds(engine)


def test_arguments_and_result_have_their_types(memory: Any, steps: Any) -> None:
    from datetime import timedelta

    minute, second = timedelta(minutes=1), timedelta(seconds=1)
    one, two = steps.Item("a", minute), steps.Item("b", minute)

    @workflow
    def w() -> Flow[bool]:
        found = yield from Step(steps.twice, one, two, by=3, more_time=second).options(process=True)
        return found == [steps.Item("aaa", 3 * minute + second), steps.Item("bbb", 3 * minute + second)]

    assert RunCompleted("r", True) == memory.engine().start(w, run_id="r")


def test_json_passes_without_annotations_and_into_says_more(memory: Any, steps: Any) -> None:
    engine = memory.engine()
    assert {"a": [1, None]} == outcome_of(engine, steps.untyped, {"a": [1, None]}).unwrap()

    @workflow(name="other")
    def w() -> Flow[bool]:
        found = yield from Step(steps.untyped, ["a", "b"]).options(process=True, into=tuple[str, ...])
        return found == ("a", "b")

    assert RunCompleted("s", True) == engine.start(w, run_id="s")


def test_an_async_step_runs_on_a_loop_of_its_own(memory: Any, steps: Any) -> None:
    assert "ada later" == outcome_of(memory.engine(), steps.later, "ada").unwrap()


def test_the_step_knows_itself(memory: Any, steps: Any) -> None:
    engine = memory.engine()

    @workflow
    def w() -> Flow[list[Any]]:
        return [(yield Step(steps.context).options(process=True)), (yield Step(steps.context))]

    there, here = engine.start(w, run_id="r").unwrap()
    assert ["r", "context", 1, None] == [there[0], there[1], there[2], there[4]]
    assert ("context#2", 32) == (here[1], len(there[3]))


def test_a_static_method_can_be_imported_too(memory: Any, steps: Any) -> None:
    assert 3 == outcome_of(memory.engine(), steps.Holder.static, 2).unwrap()


def test_branches_run_in_processes_side_by_side(memory: Any, steps: Any) -> None:
    @workflow
    def w() -> Flow[int]:
        return len(set((yield All(*[Step(steps.pid).options(process=True) for _ in range(3)]))))

    assert RunCompleted("r", 3) == memory.engine().start(w, run_id="r")


def test_what_it_tells_reaches_the_next_attempt(bench: Any, steps: Any, tmp_path: Path) -> None:
    engine = bench.engine()
    assert [20] == outcome_of(engine, steps.tells, "x", retry=RetryPolicy(3, initial=0)).unwrap()
    beats = [bytes(event.details) for event in engine.history("r") if isinstance(event, e.Heartbeat)]
    assert [b"10", b"20"] == beats[:2]


def test_wrong_details_are_refused_there(memory: Any, steps: Any) -> None:
    engine = memory.engine()
    assert "a heartbeat's details must be plain JSON" in outcome_of(engine, steps.wrong_details).unwrap()


def test_a_simulation_calls_its_fakes(steps: Any) -> None:
    assert 7 == simulate(flow(steps.pid), fakes={"pid": 7}).result


# ---- how it fails


def test_a_failure_is_recorded_as_if_it_were_here(bench: Any, steps: Any) -> None:
    heard: list[Any] = []
    engine = bench.engine(on_event=heard.append)

    @workflow
    def w() -> Flow[str]:
        try:
            yield Step(steps.breaks, "way").options(process=True)
        except failed(steps.Broken) as error:
            return str(error)
        return ""

    assert RunCompleted("r", "step 'breaks' failed: process_steps.Broken: no way") == engine.start(w, run_id="r")
    (recorded,) = [event for event in engine.history("r") if isinstance(event, e.Step)]
    assert recorded.error is not None
    assert ("E7", True, 1) == (recorded.error.code, recorded.error.is_a(ValueError), recorded.error.attempts)
    assert recorded.error.where.startswith("process_steps:breaks:")
    (live,) = [event.error for event in heard if isinstance(event, StepErrored)]
    assert live is not None
    assert 'raise Broken(f"no {path}")' in live.__notes__[0]


@pytest.mark.parametrize(
    ("policy", "attempts"),
    [
        (RetryPolicy(3, initial=0), 3),
        (RetryPolicy(3, initial=0, on=ValueError), 3),
        (RetryPolicy(3, initial=0, on=OSError), 1),
        (RetryPolicy(3, initial=0, give_up_on=ValueError), 1),
    ],
)
def test_a_retry_policy_goes_by_the_types_of_the_failure(memory: Any, steps: Any, policy: Any, attempts: int) -> None:
    outcome = outcome_of(memory.engine(), steps.breaks, "x", retry=policy)
    assert attempts == outcome.failure.attempts


@pytest.mark.parametrize(
    ("name", "how"),
    [("killed", "signal SIGKILL"), ("leaves", "exit code 3"), ("keyboard", "signal SIGINT")],
)
def test_the_death_of_the_process_is_a_failure_that_may_be_tried_again(
    memory: Any, steps: Any, name: str, how: str
) -> None:
    engine = memory.engine()
    outcome = outcome_of(engine, getattr(steps, name), retry=RetryPolicy(2, initial=0, on=StepProcessError))
    assert ["start", "attempt", "step", "error"] == kinds(engine)
    assert f"the process of step '{name}' ended without a result: {how}" in outcome.failure.message
    assert outcome.failure.is_a(StepProcessError)


def test_a_result_that_can_not_be_recorded_fails_the_step_once(memory: Any, steps: Any) -> None:
    engine = memory.engine()
    outcome = outcome_of(engine, steps.odd, retry=RetryPolicy(3, initial=0))
    assert ("stepwell.errors.CodecError", ["start", "step", "error"]) == (outcome.failure.types[1], kinds(engine))


def test_a_process_that_lingers_after_its_result_is_ended(
    memory: Any, steps: Any, tmp_path: Path, marks: Any, soon: None
) -> None:
    assert "done" == outcome_of(memory.engine(), steps.lingers, str(tmp_path / "marks")).unwrap()
    (_, pid) = marks()[0]
    eventually(lambda: not alive(pid))


# ---- what is refused


def test_what_a_process_can_not_find_is_refused_before_anything_is_written(memory: Any, steps: Any) -> None:
    def local() -> int:
        return 1

    main = FunctionType(local.__code__, {"__name__": "__main__"}, "main")
    for wrong in (local, lambda: 1, steps.holder.method, main):

        @workflow
        def w() -> Flow[Any]:
            return (yield from Step(wrong).options(process=True, name="x"))  # noqa: B023 - it is called here

        with pytest.raises(InvalidInputError, match="needs a function at the top of a module that can be imported"):
            memory.engine().start(w, run_id="r")
    assert [] == memory.engine().runs()
    with pytest.raises(InvalidInputError, match="is defined inside another function"):
        step(process=True)(local)
    with pytest.raises(InvalidInputError, match="process must be True or False"):
        Step(steps.pid).options(process="yes")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]


def test_a_function_that_its_name_does_not_lead_to_fails_before_it_is_called(memory: Any, steps: Any) -> None:
    outcome = outcome_of(memory.engine(), steps.renamed)
    assert "process_steps.pid_of_another is not this function" in outcome.failure.message
    assert outcome.failure.is_a(InvalidInputError)


@pytest.mark.parametrize("value", [object(), {1, 2}, threading.Lock()])
def test_an_argument_that_is_no_json_fails_the_step_before_it_is_called(memory: Any, steps: Any, value: Any) -> None:
    engine = memory.engine()
    outcome = outcome_of(engine, steps.untyped, value, retry=RetryPolicy(3, initial=0))
    assert "step 'untyped': argument 1 can't be passed to a process: $" in outcome.failure.message
    assert ["start", "step", "error"] == kinds(engine)


def test_an_argument_that_does_not_fit_its_annotation_is_told(memory: Any, steps: Any) -> None:
    outcome = outcome_of(memory.engine(), steps.breaks, 3)
    assert "step 'breaks': argument 1 can't be passed to a process" in outcome.failure.message


def test_a_codec_with_a_converter_can_not_be_passed_on(memory: Any, steps: Any) -> None:
    outcome = outcome_of(memory.engine(codec=Codec(cattrs.Converter())), steps.pid)
    assert "codec has a converter of its own" in outcome.failure.message


# ---- how it is ended


@pytest.mark.parametrize("name", ["hangs", "hangs_too"])
def test_a_time_out_ends_the_process_which_cleans_up(
    bench: Any, steps: Any, tmp_path: Path, marks: Any, name: str
) -> None:
    engine = bench.engine()
    outcome = outcome_of(engine, getattr(steps, name), str(tmp_path / "marks"), timeout=1.5)
    assert outcome.failure.is_a(StepTimeoutError)
    assert f"step '{name}' took longer than 1.5 s" in outcome.failure.message
    (began, cleaned) = marks()
    assert (["cleaned", "True"], False) == (cleaned, alive(began[1]))


def test_what_does_not_end_is_killed_before_the_next_attempt_begins(
    bench: Any, steps: Any, tmp_path: Path, marks: Any, soon: None
) -> None:
    @workflow
    def w() -> Flow[Any]:
        path = str(tmp_path / "marks")
        return (yield from Step(steps.first_hangs, path).options(process=True, timeout=2, retry=policy))

    policy = RetryPolicy(2, initial=0)
    assert RunCompleted("r", "second") == bench.engine().start(w, run_id="r")
    assert not alive(marks()[0][1])
    assert ["deaf"] in marks()


def test_silence_ends_the_process(bench: Any, steps: Any, tmp_path: Path, marks: Any) -> None:
    engine = bench.engine()
    outcome = outcome_of(engine, steps.silent, str(tmp_path / "marks"), heartbeat_timeout=1.5)
    assert "step 'silent' sent no heartbeat for 1.5 s" in outcome.failure.message
    assert not alive(marks()[0][1])


@pytest.mark.parametrize("where", ["here", "elsewhere"])
@pytest.mark.parametrize("name", ["hangs", "hangs_too", "beats", "deaf", "spawns"])
def test_a_cancel_ends_the_process_and_what_it_has_started(
    disk: Any, steps: Any, tmp_path: Path, marks: Any, soon: None, name: str, where: str
) -> None:
    asked = flow(getattr(steps, name), str(tmp_path / "marks"))
    engine = disk.engine(asked)
    driver = Task(lambda: engine.start(asked, run_id="r"))
    eventually(lambda: len(marks()) >= (2 if name == "spawns" else 1))
    (engine if where == "here" else disk.engine(asked)).cancel("r", "enough")
    assert RunCancelled("r", "enough") == driver.result()
    for words in marks():
        if words[0] in ("began", "spawned"):
            eventually(partial(gone, words[1]))
    assert ["cancel", "cancelled", "cancelled"] == [kind for kind in kinds(engine) if kind != "heartbeat"][1:]
    if name.startswith("hangs"):
        assert ["cleaned", "True"] == marks()[-1]


def test_the_loser_of_a_race_is_ended_and_nobody_waits_for_it(
    memory: Any, steps: Any, tmp_path: Path, marks: Any, soon: None
) -> None:
    heard: list[Any] = []
    path = str(tmp_path / "marks")

    def begun() -> None:
        eventually(marks)

    @workflow
    def w() -> Flow[int]:
        index, _ = yield Race(Step(steps.deaf, path).options(process=True), Step(begun))
        return index

    assert RunCompleted("r", 1) == memory.engine(on_event=heard.append).start(w, run_id="r")
    eventually(lambda: not alive(marks()[0][1]))
    eventually(lambda: any(isinstance(event, LateResult) for event in heard))


def test_a_lease_that_is_lost_ends_the_process(disk: Any, steps: Any, tmp_path: Path, marks: Any) -> None:
    from stepwell import LeaseLostError

    asked = flow(steps.hangs, str(tmp_path / "marks"))
    engine = disk.engine(asked)
    driver = Task(lambda: engine.start(asked, run_id="r"))
    eventually(marks)
    (session,) = engine._sessions._driving()
    session.lose()
    with pytest.raises(LeaseLostError):
        driver.result()
    eventually(lambda: ["cleaned", "True"] in marks())
    eventually(lambda: not alive(marks()[0][1]))
    assert ["start"] == kinds(engine)


# ---- the end of the parent

PARENT = """
import sys, threading
from stepwell import Engine, Flow, Step, workflow
import process_steps

@workflow
def w(name: str, path: str) -> Flow[None]:
    yield Step(getattr(process_steps, name), path).options(process=True)

print("ready", flush=True)
Engine(sys.argv[1], [w]).start(w, *sys.argv[2:], run_id="r")
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("name", ["hangs", "spawns"])
def test_nothing_is_left_when_the_parent_dies(
    disk: Any, python: Any, steps: Any, tmp_path: Path, marks: Any, name: str, number: int
) -> None:
    parent = python(PARENT, disk.url, name, str(tmp_path / "marks"))
    eventually(lambda: len(marks()) >= (2 if name == "spawns" else 1))
    began = marks()
    parent.send_signal(number)
    assert parent.wait(PATIENCE) in (-number, 1)
    for _, pid in began:
        eventually(partial(gone, pid))
    if name == "hangs":
        assert ["cleaned", "True"] == marks()[-1]
    assert ["start"] == kinds(disk.engine())


def test_what_a_step_prints_is_seen(
    memory: Any, steps: Any, python: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    code = PARENT.replace("(name: str, path: str)", "(name: str)").replace(", path)", ")")
    said, _ = python(code, "memory:", "says").communicate(timeout=60)
    assert "ready\nout\n" == said


def test_nothing_that_is_recorded_says_where_code_is_found(bench: Any, steps: Any) -> None:
    """The child is told by the parent's own code what to call."""
    engine = bench.engine()
    outcome_of(engine, steps.pid)
    for record in engine.store.read("r").records:
        assert "process_steps" not in json.dumps(json.loads(record))
