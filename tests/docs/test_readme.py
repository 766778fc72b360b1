"""What the README promises: two command lines, a workflow of 20 lines, its test, what is recorded and guaranteed."""

from __future__ import annotations

import re
import tomllib

from stepwell import events

from .pages import ROOT, blocks_of

README = ROOT / "README.md"
TEXT = README.read_text("utf-8")
LINES = (
    "python3 -m venv .venv && .venv/bin/pip install -q -e '.[cli]' && .venv/bin/stepwell demo",
    "python3 -m venv .venv && .venv/bin/pip install -q -e '.[test]' && .venv/bin/python -m pytest -n 2",
)


def code_lines(block: str) -> list[str]:
    """The lines of a block that are not blank."""
    return [line for line in block.splitlines() if line.strip()]


def test_the_command_lines_are_the_two() -> None:
    assert list(LINES) == [line for block in blocks_of(README, "sh") for line in block.splitlines()]


def test_the_two_are_what_the_checks_of_the_project_take_from_it() -> None:
    found = re.findall(r"\bpython3 -m venv \.venv && [^`\n]*", TEXT)
    assert [LINES[0]] == [line for line in found if re.search(r"&& \.venv/bin/stepwell demo$", line)]
    assert [LINES[1]] == [line for line in found if re.search(r"&& \.venv/bin/python -m pytest( |$)", line)]


def test_the_extras_that_they_install_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert set(re.findall(r"'\.\[(\w+)\]'", TEXT)) <= set(extras)


def test_it_shows_a_workflow_of_20_lines_at_most() -> None:
    workflows = [block for block in blocks_of(README, "python") if "@workflow" in block]
    assert 1 == len(workflows)
    assert len(code_lines(workflows[0])) <= 20


def test_it_shows_the_unit_test_of_that_workflow_by_fake_history() -> None:
    tests = [block for block in blocks_of(README, "python") if "def test_" in block]
    assert 1 == len(tests)
    assert "replay(triage" in tests[0]
    assert "history=[" in tests[0]


def test_every_type_of_record_is_in_the_table_of_what_is_recorded_when() -> None:
    table = TEXT.partition("## What is recorded when")[2].partition("\n## ")[0]
    recorded = set(re.findall(r"`([a-zA-Z]+)`", table))
    assert [] == sorted(events.EVENT_TYPES.keys() - recorded - {"retry"})


def test_it_says_what_is_guaranteed() -> None:
    assert "At-least-once execution, at-most-once recording" in TEXT
