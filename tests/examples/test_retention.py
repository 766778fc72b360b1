"""examples/retention as its README says: each call in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "retention"
SOURCES = os.pathsep.join(str(ROOT / name) for name in ("engine", "stores"))
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("STEPWELL_STORE", "KEEP")}
ENVIRONMENT |= {"PYTHONPATH": SOURCES, "PYTHONIOENCODING": "utf-8"}


@pytest.fixture
def call(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=ENVIRONMENT | environment,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return done

    return run


def shown_in_readme() -> list[str]:
    """What the README shows, by call."""
    block = (EXAMPLE / "README.md").read_text("utf-8").split("```")[1]
    return [part.partition("\n")[2] for part in block.split("$ ")[1:]]


def test_it_does_what_the_readme_shows(call: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    first, second = shown_in_readme()
    inbox = str(EXAMPLE / "inbox.py")
    assert first == call(inbox, "hello", "hello there", "HELLO!").stdout
    assert "hello: completed, session 1\n" in call(inbox, "hello").stdout, "it is handled once"
    assert second == call(inbox, "hello", KEEP="0").stdout


def test_a_message_that_is_refused_is_told_and_the_others_go_on(
    call: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = call(str(EXAMPLE / "inbox.py"), "", "fine")
    assert (2, True) == (done.returncode, "fine: completed" in done.stdout)
    assert done.stderr.startswith("INVALID_INPUT: ")
    assert 1 == done.stderr.count("\n")


def test_the_command_line_prunes_by_the_example_s_ttl(call: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    call(str(EXAMPLE / "inbox.py"), "hello")
    path = os.pathsep.join([SOURCES, str(EXAMPLE)])
    done = call("-m", "stepwell", "--app", "inbox:engine", "prune", KEEP="0", PYTHONPATH=path)
    assert (0, "  hello\n1 run removed, with 3 events\n") == (done.returncode, done.stdout)
