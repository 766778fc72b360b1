"""The programs of an example in processes of their own, in an empty directory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETTINGS = {"BANK", "CHAT_PAUSE", "DIE", "KEEP", "MAX_EVENTS", "STEPWELL_DEMO_USER", "STEPWELL_STORE"}
"""Variables that examples read: a test that wants one sets it."""
PATIENCE = 60.0
"""Seconds after which a program is sure not to come back."""


@pytest.fixture
def example(request: pytest.FixtureRequest) -> Path:
    """The folder of the example that the test module is named after."""
    name = request.path.stem.removeprefix("test_")
    folders = [ROOT / "examples" / name, ROOT / "examples" / name.replace("_", "-")]
    return next(folder for folder in folders if folder.is_dir())


@pytest.fixture
def begin(example: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `python words...`; scripts are the example's, and variables keywords. It ends with the test."""
    settings = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    settings["PYTHONPATH"] = os.pathsep.join(str(path) for path in (example, ROOT / "engine", ROOT / "stores"))
    settings |= {"PYTHONIOENCODING": "utf-8", "PYTHONDONTWRITEBYTECODE": "1"}
    started: list[subprocess.Popen[str]] = []

    def start(*words: str, **variables: str) -> subprocess.Popen[str]:
        script = next(iter(words)).endswith(".py")
        process = subprocess.Popen(
            [sys.executable, "-W", "error", *([str(example / words[0]), *words[1:]] if script else words)],
            cwd=tmp_path,
            env=settings | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def call(begin: Callable[..., subprocess.Popen[str]]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program to its end, as `begin` starts it; it has to end with `code`, and without a traceback."""

    def run(*words: str, given: str = "", code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        process = begin(*words, **variables)
        said, complained = process.communicate(given, timeout=PATIENCE)
        assert code == process.returncode, complained
        assert "Traceback" not in complained
        return subprocess.CompletedProcess(words, code, said, complained)

    return run
