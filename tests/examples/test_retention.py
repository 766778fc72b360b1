"""examples/retention as its README says: each call in a process of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

README = Path(__file__).parents[2] / "examples" / "retention" / "README.md"


def shown_in_readme() -> list[str]:
    """What the README shows, by call."""
    block = README.read_text("utf-8").split("```")[1]
    return [part.partition("\n")[2] for part in block.split("$ ")[1:]]


def test_it_does_what_the_readme_shows(call: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    first, second = shown_in_readme()
    assert first == call("inbox.py", "hello", "hello there", "HELLO!").stdout
    assert "hello: completed, session 1\n" in call("inbox.py", "hello").stdout, "it is handled once"
    assert second == call("inbox.py", "hello", KEEP="0").stdout


def test_a_message_that_is_refused_is_told_and_the_others_go_on(
    call: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = call("inbox.py", "", "fine", code=2)
    assert "fine: completed" in done.stdout
    assert done.stderr.startswith("INVALID_INPUT: ")
    assert 1 == done.stderr.count("\n")


def test_the_command_line_prunes_by_the_example_s_ttl(call: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    call("inbox.py", "hello")
    done = call("-m", "stepwell", "--app", "inbox:engine", "prune", KEEP="0")
    assert "  hello\n1 run removed, with 3 events\n" == done.stdout
