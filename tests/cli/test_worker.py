"""`stepwell worker`, in processes of its own, on real stores."""

from __future__ import annotations

import json
import runpy
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from stepwell import Engine, Flow, Now, Step, workflow

from .conftest import PATIENCE, WorkerProcess, environment, eventually

SHOP = """
import os, signal, sys, time
from stepwell import Engine, Flow, Sleep, Step, Suspend, workflow

def note(name: str) -> str:
    fd = os.open("effects", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{name}\\n".encode())
    os.close(fd)
    return name

def hang(name: str) -> str:
    handler = signal.getsignal(signal.SIGTERM)
    note(name)
    while not os.path.exists("go on"):
        if signal.getsignal(signal.SIGTERM) is not handler:
            open("told", "w").close()  # the first signal has been taken: another one would be the second
        time.sleep(0.005)
    return name

def fail() -> None:
    raise ValueError("first line\\nsecond \\x1b[31mline")

@workflow
def quick(name: str) -> Flow[str]:
    return (yield from Step(note, name))

@workflow
def slow(name: str) -> Flow[str]:
    yield Step(note, f"{name} before")
    yield Step(hang, f"{name} hangs")
    yield Step(note, f"{name} after")
    return name

@workflow
def ask(name: str) -> Flow[str]:
    yield Step(note, name)
    return (yield from Suspend("answer", into=str, reason="please\\x1b[31m look"))

@workflow
def nap(seconds: float) -> Flow[str]:
    yield Sleep(seconds)
    return "awake"

@workflow
def fails() -> Flow[None]:
    yield Step(fail)

engine = Engine(os.environ["STEPWELL_STORE"], workflows=[quick, slow, ask, nap, fails], park_after=0)
"""


@pytest.fixture(params=["sqlite:///runs.db", "file:runs"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def shop(here: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The app's module as this process has it, and as `shop.py` for the workers."""
    (here / "shop.py").write_text(SHOP, "utf-8")
    monkeypatch.setenv("STEPWELL_STORE", url)
    found = SimpleNamespace(**runpy.run_path("shop.py"))
    yield found
    found.engine.close()


@pytest.fixture
def start(worker: Callable[..., WorkerProcess], shop: SimpleNamespace, url: str) -> Callable[..., WorkerProcess]:
    """Starts a worker with the app."""
    return lambda *options: worker("--store", url, "--app", "shop:engine", *options)


def effects() -> list[str]:
    """What steps have left, in the order in which they were performed."""
    path = Path("effects")
    return path.read_text("utf-8").splitlines() if path.exists() else []


def once_it_runs(effect: str) -> None:
    """Wait until a step is being performed."""
    eventually(lambda: effect in effects())


# ---- what it tells


def test_it_tells_what_it_does_and_what_came_of_it(start, shop, here, url):
    shop.engine.submit(shop.quick, "q", run_id="q")
    shop.engine.submit(shop.ask, "a", run_id="a")
    shop.engine.submit(shop.nap, 3600.0, run_id="n")
    shop.engine.submit(shop.fails, run_id="f")
    worker = start("--drain", "--threads", "1")
    first, *outcomes, last = worker.rest()
    assert 0 == worker.wait()
    kind, path = url.partition(":")[0].replace("file", "jsonl"), here / url.rpartition(":")[2].lstrip("/")
    assert first == (
        f"worker on {kind} {path.resolve()}, 1 thread, until nothing is due. "
        "Ctrl-C or SIGTERM: finish the steps that run, then exit\n"
    )
    assert ["q  completed\n", "a  suspended  waits for 'answer': please\\x1b[31m look\n"] == outcomes[:2]
    assert outcomes[2].startswith("n  suspended  sleeps until 2")
    assert outcomes[3] == "f  failed  stepwell.errors.StepFailed: step 'fail' failed: ValueError: first line\n"
    assert last == "done: 2 suspended, 1 completed, 1 failed\n"
    assert [] == worker.errors


def test_in_json_each_outcome_is_an_object_and_the_last_one_is_the_summary(start, shop):
    shop.engine.submit(shop.quick, "q", run_id="q")
    shop.engine.submit(shop.ask, "a", run_id="a")
    shop.engine.submit(shop.nap, 3600.0, run_id="n")
    shop.engine.submit(shop.fails, run_id="f")
    worker = start("--drain", "--threads", "1", "--json")
    q, a, n, f, last = map(json.loads, worker.rest())
    assert 0 == worker.wait()
    assert {"runId": "q", "status": "completed"} == q
    waits = {"waitingFor": ["answer"], "reason": "please\x1b[31m look"}
    assert {"runId": "a", "status": "suspended", **waits} == a
    assert (["runId", "status", "waitingFor", "due"], []) == (list(n), n["waitingFor"])
    assert ("failed", "stepwell.errors.StepFailed") == (f["status"], f["failure"]["type"])
    assert {"summary": {"completed": 1, "suspended": 2, "failed": 1}} == last


def test_a_worker_that_finds_nothing_says_so(start):
    worker = start("--drain")
    assert "done: no run was due\n" == worker.rest()[-1]
    assert 0 == worker.wait()
    worker = start("--drain", "--json")
    assert ['{"summary": {}}\n'] == worker.rest()


def test_it_makes_the_store_that_is_not_there_yet(start, here, url):
    worker = start("--drain")
    assert 0 == worker.wait()
    assert (here / url.rpartition(":")[2].lstrip("/")).exists()


def test_lines_of_several_threads_do_not_mix(start, shop):
    names = [f"{number}-" + "x" * 150 for number in range(60)]
    for name in names:
        shop.engine.submit(shop.quick, "q", run_id=name)
    worker = start("--drain", "--threads", "8", "--json")
    *outcomes, last = map(json.loads, worker.rest())
    assert sorted(names) == sorted(one["runId"] for one in outcomes)
    assert {"summary": {"completed": 60}} == last


def test_what_the_library_warns_of_is_one_safe_line_each(worker, shop, here, url):
    listener = "def told(event):\n    raise ValueError('two\\nlines \\x1b[31m')\n"
    (here / "loud.py").write_text(listener + SHOP.replace("park_after=0", "on_event=told"), "utf-8")
    with Engine(url) as stranger:
        stranger.submit(workflow(name="strange")(unknown), run_id="s")
    loud = worker("--store", url, "--app", "loud:engine", "--drain")
    assert 0 == loud.wait()
    assert 2 <= len(loud.errors)
    for line in loud.errors:
        assert line.startswith("stepwell: ")
        assert line.removesuffix("\n").isprintable()
    assert "stepwell: the on_event listener raised; the run goes on: ValueError: two lines \\x1b[31m\n" in loud.errors
    assert any("run 's' could not be driven: this engine knows no workflow 'strange'" in line for line in loud.errors)


@pytest.mark.parametrize(("stream", "times"), [("sys.stderr", 1), ("open('log', 'w')", 1)])
def test_an_app_that_logs_to_stderr_itself_is_not_told_twice(worker, shop, here, stream, times, url):
    log = f"import logging, sys\nlogging.basicConfig(stream={stream})\n"
    (here / "logs.py").write_text(log + SHOP, "utf-8")
    with Engine(url) as stranger:
        stranger.submit(workflow(name="strange")(unknown), run_id="s")
    process = worker("--store", url, "--app", "logs:engine", "--drain")
    assert 0 == process.wait()
    assert times == sum("could not be driven" in line for line in process.errors)


def unknown() -> Flow[None]:
    yield Now()


BAD = {
    "no threads": (["--threads", "0"], "a whole number from 1 to 1000, as in --threads 4, and got '0'"),
    "too many threads": (["--threads", "1001"], "got '1001'"),
    "more threads than digits": (["--threads", "9" * 5000], "whole number"),
    "threads in words": (["--threads", "four"], "got 'four'"),
    "half a thread": (["--threads", "1.5"], "got '1.5'"),
    "other digits": (["--threads", "٣"], "whole number"),
    "no time": (["--poll", "0"], "seconds from 0.001 to 86400, as in --poll 0.5, and got '0'"),
    "negative": (["--poll=-1"], "got '-1'"),
    "not a number": (["--poll", "nan"], "got 'nan'"),
    "for ever": (["--poll", "inf"], "got 'inf'"),
    "time in words": (["--poll", "1s"], "got '1s'"),
    "an argument": (["r1"], "unrecognized arguments: r1"),
}


@pytest.mark.parametrize(("arguments", "words"), BAD.values(), ids=BAD)
def test_a_bad_value_is_refused_before_anything_is_opened(stepwell, here, arguments, words):
    (here / "untouched.py").write_text("raise RuntimeError\n")
    done = stepwell("--app", "untouched:engine", "worker", *arguments)
    assert (2, "", 1) == (done.code, done.out, done.err.count("\n"))
    assert done.err.startswith("stepwell: USAGE: argument" if "r1" not in arguments else "stepwell: USAGE: ")
    assert words in done.err


def test_it_needs_an_app(stepwell, here):
    done = stepwell("--store", "sqlite:///runs.db", "worker")
    assert (2, []) == (done.code, list(here.iterdir()))
    assert "worker runs workflow code: say where it is, as in --app" in done.err


def test_a_store_that_can_not_be_used_is_one_line(worker, shop, here):
    (here / "text.db").write_text("just some notes\n")
    process = worker("--store", "sqlite:///text.db", "--app", "shop:engine", "--json")
    assert (2, []) == (process.wait(), process.rest())
    assert 1 == len(process.errors)
    assert process.errors[0].startswith("stepwell: STORE_MISCONFIGURED: ")


# ---- what it finds


def test_what_another_process_submits_signals_or_lets_sleep_is_found(start, shop):
    worker = start("--json", "--poll", "0.02")
    shop.engine.submit(shop.quick, "first", run_id="q1")
    assert "q1" == worker.outcome()["runId"]
    shop.engine.submit(shop.ask, "a", run_id="a")
    assert {"runId": "a", "status": "suspended"}.items() <= worker.outcome().items()
    shop.engine.signal("a", "answer", "yes")
    assert {"runId": "a", "status": "completed"} == worker.outcome()
    shop.engine.submit(shop.nap, 0.3, run_id="n")
    slept = worker.outcome()
    assert ("n", "suspended") == (slept["runId"], slept["status"])
    assert {"runId": "n", "status": "completed"} == worker.outcome()
    worker.signal(signal.SIGTERM)
    assert {"summary": {"completed": 3, "suspended": 2}} == worker.outcome()
    assert (0, []) == (worker.wait(), worker.errors)


def test_a_run_is_found_within_a_few_looks(start, shop):
    worker = start("--json", "--poll", "0.1")
    shop.engine.submit(shop.quick, "warm up")
    worker.outcome()
    waited = []
    for number in range(5):
        began = time.monotonic()
        shop.engine.submit(shop.quick, "q", run_id=str(number))
        assert str(number) == worker.outcome()["runId"]
        waited.append(time.monotonic() - began)
    assert sorted(waited)[1] < 1.0, waited  # most of them; a busy machine may be late now and then


def test_two_workers_drive_each_run_once(start, shop):
    workers = [start("--threads", "2", "--poll", "0.01") for _ in range(2)]
    assert all(worker.line().startswith("worker on ") for worker in workers)
    for number in range(40):
        shop.engine.submit(shop.quick, str(number), run_id=str(number))
    eventually(lambda: 40 == len(shop.engine.runs(status="completed")))
    for worker in workers:
        worker.signal(signal.SIGTERM)
    told = [line.split()[0] for worker in workers for line in worker.rest() if "done: " not in line]
    assert [0, 0] == [worker.wait() for worker in workers]
    assert sorted(map(str, range(40))) == sorted(told) == sorted(effects())


# ---- how it ends


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_step_that_runs_be_recorded(start, shop, here, number):
    shop.engine.submit(shop.slow, "s", run_id="s")
    first = start("--json")
    once_it_runs("s hangs")
    first.signal(number)
    eventually((here / "told").exists)
    shop.engine.submit(shop.quick, "later", run_id="later")
    (here / "go on").touch()
    assert {"runId": "s", "status": "given up"} == first.outcome()
    assert {"summary": {"given up": 1}} == first.outcome()
    assert (0, []) == (first.wait(), first.errors)
    record = shop.engine.get("s")
    assert ("pending", None, None) == (record.status, record.lease_until, record.blocked)
    assert ["start", "step", "step"] == [event.kind for event in shop.engine.history("s")]
    second = start("--json", "--drain")
    assert {"summary": {"completed": 2}} == json.loads(second.rest()[-1])
    assert Counter(["s before", "s hangs", "s after", "later"]) == Counter(effects())


def test_an_idle_worker_ends_at_once(start, shop):
    worker = start("--poll", "3600")
    assert worker.line().startswith("worker on ")
    shop.engine.submit(shop.quick, "q", run_id="q")  # nobody tells it of that
    worker.signal(signal.SIGTERM)
    rest = worker.rest()
    assert (0, []) == (worker.wait(), worker.errors)
    assert rest[-1].startswith("done: ")


def test_the_second_signal_ends_it_although_a_step_runs(start, shop, here):
    shop.engine.submit(shop.slow, "s", run_id="s")
    first = start("--json")
    once_it_runs("s hangs")
    first.signal(signal.SIGTERM)
    eventually((here / "told").exists)
    assert not first.ended
    first.signal(signal.SIGTERM)
    assert (-signal.SIGTERM, []) == (first.wait(), first.rest())
    (here / "go on").touch()
    second = start("--json", "--drain")
    assert {"runId": "s", "status": "completed"} == second.outcome()
    assert Counter({"s before": 1, "s hangs": 2, "s after": 1}) == Counter(effects())


def test_the_next_worker_takes_over_at_once_from_one_that_was_killed(start, shop, here):
    shop.engine.submit(shop.slow, "s", run_id="s")
    first = start("--json")
    once_it_runs("s hangs")
    second = start("--poll", "0.05")
    assert second.line().startswith("worker on ")
    first.signal(signal.SIGKILL)
    killed = time.monotonic()
    eventually(lambda: 2 == effects().count("s hangs"))
    assert time.monotonic() - killed < 20, "a lease lasts 30 seconds; nobody waits for its end"
    (here / "go on").touch()
    eventually(lambda: "completed" == shop.engine.get("s").status)
    assert -signal.SIGKILL == first.wait()
    assert 1 == effects().count("s before")


def test_a_reader_that_goes_away_ends_it_and_the_steps_are_recorded(shop, here, url):
    shop.engine.submit(shop.slow, "s", run_id="s")
    command = [sys.executable, "-m", "stepwell", "--app", "shop:engine", "--store", url, "worker", "--poll", "0.02"]
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline().startswith("worker on ")
        once_it_runs("s hangs")
        child.stdout.close()
        shop.engine.submit(shop.quick, "q", run_id="q")
        eventually(lambda: "completed" == shop.engine.get("q").status)
        (here / "go on").touch()
        assert (141, "") == (child.wait(PATIENCE), child.stderr.read())
    assert ("pending", None) == (shop.engine.get("s").status, shop.engine.get("s").lease_until)
    assert 2 == [event.kind for event in shop.engine.history("s")].count("step")


# ---- runs that can't be driven

BEFORE = """
import os
from stepwell import *

@workflow
def fine(name: str) -> Flow[str]:
    return (yield from Step(str.upper, name).options(into=str))

@workflow
def diverges() -> Flow[str]:
    yield Step(str, 1).options(name="one", into=str)
    return (yield from Suspend("answer", into=str))

@workflow
def damaged(name: str) -> Flow[str]:
    return (yield from Suspend("answer", into=str))

@workflow
def unfit(name: str) -> Flow[str]:
    yield Now()
    return "done"

@workflow
def exits() -> Flow[str]:
    yield Now()
    return "done"

@workflow
def exits_at_once() -> Flow[str]:
    yield Now()
    return "done"

@workflow
def exits_later() -> Flow[str]:
    yield Now()
    return "done"

@workflow
def raises() -> Flow[str]:
    yield Now()
    return "done"

@workflow
def strange() -> Flow[str]:
    yield Now()
    return "done"

engine = Engine(os.environ["STEPWELL_STORE"],
    workflows=[fine, diverges, damaged, unfit, exits, exits_at_once, exits_later, raises, strange])
"""

AFTER = """
import os, sys
from stepwell import *

class Odd(BaseException):
    pass

@workflow
def fine(name: str) -> Flow[str]:
    return (yield from Step(str.upper, name).options(into=str))

@workflow
def diverges() -> Flow[str]:
    yield Step(str, 1).options(name="two", into=str)
    return (yield from Suspend("answer", into=str))

@workflow
def damaged(name: str) -> Flow[str]:
    return (yield from Suspend("answer", into=str))

@workflow
def unfit(number: int) -> Flow[str]:
    yield Now()
    return "done"

@workflow
def exits() -> Flow[str]:
    yield Step(sys.exit, 3).options(name="exit", into=str)
    return "done"

@workflow
def exits_at_once() -> Flow[str]:
    raise SystemExit(3)
    yield Now()

@workflow
def exits_later() -> Flow[str]:
    yield Now()
    raise SystemExit(3)

@workflow
def raises() -> Flow[str]:
    yield Now()
    raise Odd("odd")

engine = Engine(os.environ["STEPWELL_STORE"],
    workflows=[fine, diverges, damaged, unfit, exits, exits_at_once, exits_later, raises])
"""

CODES = {
    "diverges": "DIVERGENCE",
    "damaged": "CORRUPT_HISTORY",
    "unfit": "CODEC",
    "exits": "STEPWELL",
    "exits_at_once": "STEPWELL",
    "exits_later": "STEPWELL",
    "strange": "NOT_FOUND",
}


@pytest.mark.parametrize("first", [True, False], ids=["poisons first", "poisons last"])
def test_what_can_not_be_driven_is_marked_and_hurts_nobody(worker, here, url, stepwell, monkeypatch, first):
    monkeypatch.setenv("STEPWELL_STORE", url)
    (here / "app.py").write_text(BEFORE, "utf-8")
    app = SimpleNamespace(**runpy.run_path("app.py"))
    arguments = ("--store", url, "--app", "app:engine", "--drain", "--json", "--threads", "2")
    with app.engine as engine:
        fine = [lambda n=n: engine.submit(app.fine, str(n), run_id=f"fine-{n}") for n in range(8)]
        poisons = [lambda name=name: poison(engine, app, name) for name in (*CODES, "raises")]
        halves = (poisons, fine) if first else (fine, poisons)
        # one between every two, as long as there are any of both
        for submit in [one for pair in zip(*halves, strict=True) for one in pair]:
            submit()
        damage(here, url)
        (here / "app.py").write_text(AFTER, "utf-8")
        process = worker(*arguments)
        *told, last = map(json.loads, process.rest())
        assert 0 == process.wait()
        assert {"completed": 8, "failed": 1, "not driven": len(CODES)} == last["summary"]
        assert {f"fine-{n}" for n in range(8)} | {"raises"} == {one["runId"] for one in told}
        assert "odd" == engine.get("raises").failure.message
        listed = json.loads(stepwell("--store", url, "list", "--blocked", "--json").out)
        assert CODES == {one["runId"]: one["blocked"]["code"] for one in listed}
        assert not any("leaseUntil" in one for one in listed)

        process = worker(*arguments)
        assert [{"summary": {}}] == [json.loads(line) for line in process.rest()]
        assert (0, []) == (process.wait(), process.errors)

        (here / "app.py").write_text(BEFORE + "\n# mended\n", "utf-8")
        process = worker(*arguments)
        *told, last = map(json.loads, process.rest())
        assert {"completed": len(CODES) - 1, "not driven": 1} == last["summary"]
        listed = json.loads(stepwell("--store", url, "list", "--blocked", "--json").out)
        assert ["damaged"] == [one["runId"] for one in listed]


def poison(engine: Engine, app: SimpleNamespace, name: str) -> None:
    """Submit a run that the next code can't drive."""
    if name == "diverges":
        engine.start(app.diverges, run_id=name)
        engine.signal(name, "answer", "yes")
    elif name == "damaged":
        engine.start(app.damaged, "intact", run_id=name)
        engine.signal(name, "answer", "yes")
    elif name == "unfit":
        engine.submit(app.unfit, "seven", run_id=name)
    else:
        engine.submit(getattr(app, name), run_id=name)


def damage(here: Path, url: str) -> None:
    """Change a byte of a record."""
    if url.startswith("sqlite"):
        db = sqlite3.connect(here / "runs.db")
        db.execute("UPDATE stepwell_events SET body = CAST(replace(body, 'intact', 'inTact') AS BLOB)")
        db.commit()
        db.close()
    else:
        (path,) = (here / "runs").glob("damaged.0.jsonl")
        path.write_bytes(path.read_bytes().replace(b"intact", b"inTact"))


def test_a_step_may_print(worker, here, url):
    """Its text goes where the worker's lines go, and they stay whole."""
    source = SHOP.replace("def note(name: str) -> str:\n", "def note(name: str) -> str:\n    print('working')\n")
    (here / "chatty.py").write_text(source, "utf-8")
    quick = workflow(name="quick")(step_of)
    with Engine(url) as engine:
        for number in range(5):
            engine.submit(quick, str(number))
    process = worker("--store", url, "--app", "chatty:engine", "--drain", "--threads", "1")
    lines = process.rest()
    assert (0, 5) == (process.wait(), lines.count("working\n"))
    assert 5 == sum(line.endswith("  completed\n") for line in lines)


def step_of(name: str) -> Flow[str]:
    return (yield from Step(str, name).options(name="note", into=str))
