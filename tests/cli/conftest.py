"""A working directory with an app and a store, and the command line called in it."""

from __future__ import annotations

import itertools
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from stepwell import Engine
from stepwell.cli import main

ROOT = Path(__file__).parents[2]
SOURCES = os.pathsep.join(str(ROOT / name) for name in ("engine", "stores"))
STORE = "sqlite:///runs.db"

APP = """
import os
from attrs import frozen
from stepwell import Engine, Flow, Signal, Step, Suspend, workflow

@frozen
class Verdict:
    approved: bool
    reviewer: str

review = Signal("review", Verdict)

def shout(text: str) -> str:
    return text.upper()

def fail(path: str) -> str:
    with open(path) as file:
        return file.read()

def tidy() -> None:
    with open("tidied", "w"):
        pass

@workflow
def hello(name: str, times: int = 1) -> Flow[str]:
    return (yield from Step(shout, name * times))

@workflow
def ask(name: str) -> Flow[str]:
    yield Step(shout, name)
    try:
        verdict = yield from Suspend(review, reason="please look")
    finally:
        yield Step(tidy)
    return f"{verdict.approved} by {verdict.reviewer}"

@workflow
def read(path: str) -> Flow[str]:
    yield Step(shout, "first")
    return (yield from Step(fail, path))

engine = Engine(os.environ.get("STEPWELL_STORE", "sqlite:///runs.db"), workflows=[hello, ask, read])
"""

_numbers = itertools.count()
PATIENCE = 60.0
"""Seconds after which a test that waits for a process is sure that it won't come."""


@frozen
class Result:
    """How a call of the command line ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory; what the command line does to the process is undone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEPWELL_STORE", "")
    monkeypatch.delenv("STEPWELL_STORE")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path


@pytest.fixture
def write_app(here: Path) -> Callable[[str], str]:
    """Writes a module and gives its name, which no other test has."""

    def write(source: str) -> str:
        name = f"app_{os.getpid()}_{next(_numbers)}"
        (here / f"{name}.py").write_text(source, "utf-8")
        return name

    return write


@pytest.fixture
def app(write_app: Callable[[str], str]) -> str:
    """What `--app` takes for the app above."""
    return write_app(APP) + ":engine"


@pytest.fixture
def stepwell(here: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Calls `main` in this process. The module of the last call is imported anew, as a new process would."""

    def call(*arguments: str) -> Result:
        for name in [name for name in sys.modules if name.startswith("app_")]:
            del sys.modules[name]
        os.environ.pop("STEPWELL_STORE", None)
        capsys.readouterr()
        code = main(arguments)
        done = capsys.readouterr()
        return Result(code, done.out, done.err)

    return call


@pytest.fixture
def run(stepwell: Callable[..., Result], app: str) -> Callable[..., Result]:
    """`stepwell` with the app above."""

    def call(*arguments: str) -> Result:
        return stepwell("--app", app, *arguments)

    return call


@pytest.fixture
def process(here: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Calls the command line as a process of its own."""

    def call(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "stepwell", *arguments],
            env=environment(),
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
            **options,
        )

    return call


def environment(**more: str) -> dict[str, str]:
    """The environment of a child: the packages of this checkout, and no store."""
    found = {name: value for name, value in os.environ.items() if name != "STEPWELL_STORE"}
    return found | {"PYTHONPATH": SOURCES, "PYTHONIOENCODING": "utf-8", **more}


@pytest.fixture
def popen(here: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts a Python process with these arguments."""

    def start(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *arguments],
            env=environment(PYTHONUNBUFFERED="1"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )

    return start


@pytest.fixture
def engine(here: Path) -> Any:
    """Reads the store of the current directory."""
    with Engine(STORE) as found:
        yield found


class WorkerProcess:
    """`stepwell worker` in a process of its own, whose standard output is read as it comes."""

    def __init__(self, *arguments: str) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "stepwell", "worker", *arguments],
            env=environment(PYTHONDONTWRITEBYTECODE="1"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        self.pid = self._child.pid
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.errors: list[str] = []
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read, self._read_errors)]
        for reader in self._readers:
            reader.start()

    def _read(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _read_errors(self) -> None:
        assert self._child.stderr is not None
        self.errors.extend(self._child.stderr)

    def line(self) -> str:
        """The next line, "" at the end."""
        return self._lines.get(timeout=PATIENCE)

    def outcome(self) -> dict[str, Any]:
        """The next line, of a worker that was given --json."""
        found = json.loads(self.line())
        assert isinstance(found, dict)
        return found

    def rest(self) -> list[str]:
        """All lines until its output ends."""
        return list(iter(self.line, ""))

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._child.send_signal(number)

    @property
    def ended(self) -> bool:
        """Whether it has exited."""
        return self._child.poll() is not None

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        code = self._child.wait(PATIENCE)
        for reader in self._readers:
            reader.join(PATIENCE)
        return code

    def close(self) -> None:
        """End it whatever it does."""
        self._child.kill()
        self.wait()
        for stream in (self._child.stdout, self._child.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture
def worker(here: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """Starts workers; they end with the test."""
    started: list[WorkerProcess] = []

    def start(*arguments: str) -> WorkerProcess:
        started.append(WorkerProcess(*arguments))
        return started[-1]

    yield start
    for one in started:
        one.close()


def eventually(holds: Callable[[], object]) -> None:
    """Look again and again until something holds."""
    pause = threading.Event()
    for _ in range(int(PATIENCE / 0.01)):
        if holds():
            return
        pause.wait(0.01)
    raise AssertionError("it never came to hold")
