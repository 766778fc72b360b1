"""What the reference says of other systems' features and events is what the code has and the tests show."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import get_args

import pytest

from stepwell import lifecycle, streaming

from .pages import ROOT

REFERENCE = ROOT / "docs" / "reference"
PARITY, LIFECYCLE = REFERENCE / "parity.md", REFERENCE / "lifecycle.md"
MARK = re.compile(r"(?:yes|partly|not yet)(?=$|[:;] \S)")
SHOWN = re.compile(r"\[([\w.]+)\]\(([\w./]+)\): ((?:`\w+`(?:, )?)+)(?:; |$)")
CLASS = re.compile(r"`([A-Z]\w+)`")

TOLD = {
    "AgentsKit": "step:replay step:start step:success step:failure flow:start node:start node:success node:failure "
    "flow:done run:error onCost onExceeded",
    "OrkaJS": "pending running paused completed failed cancelled token tool_call done onRetry onWarning onSchedule",
    "Alkaline": "started signal suspended completed failed meter.record",
    "kassette": "start step suspend resume complete error cancel",
}
"""What each of the others tells of, in words that stand in its table."""


def rows_of(text: str) -> list[list[str]]:
    """The cells of all rows of tables, headings and rules left out."""
    lines = text.splitlines()
    heads = {i for i, line in enumerate(lines) if line.startswith("|---")}
    rows = [line for i, line in enumerate(lines) if line.startswith("|") and not {i, i + 1} & heads]
    return [[cell.strip() for cell in row.strip().strip("|").split("|")] for row in rows]


def features() -> list[list[str]]:
    """The rows of the parity table."""
    return [cells for cells in rows_of(PARITY.read_text("utf-8")) if len(cells) == 8]


@cache
def named_in(path: Path) -> set[str]:
    """Names of the tests in a file, functions and classes."""
    tree = ast.parse(path.read_text("utf-8"))
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    return {name for name in functions if name.startswith("test_")} | {
        name for name in classes if name.startswith("Test") or name.endswith("Machine")
    }


def sections() -> dict[str, list[list[str]]]:
    """The tables of the page of lifecycle events, by heading."""
    parts = re.split(r"^##+ (.*)\n", LIFECYCLE.read_text("utf-8"), flags=re.MULTILINE)
    return {head: rows_of(text) for head, text in zip(parts[1::2], parts[2::2], strict=True)}


def told() -> set[str]:
    """The classes of what listeners and readers are told."""
    names = [*lifecycle.__all__, *streaming.__all__]
    return set(names) - {"LifecycleEvent", "StreamEvent", "StepStatus"}


# ---- parity


def test_the_rows_have_no_gap() -> None:
    assert [str(number) for number in range(1, 59)] == [cells[0] for cells in features()]


@pytest.mark.parametrize("cells", features(), ids=lambda cells: f"{cells[0]} {cells[1]}")
def test_what_is_claimed_is_shown_by_a_test_and_what_is_not_there_by_none(cells: list[str]) -> None:
    ours, shown = cells[6:]
    mark = MARK.match(ours)
    assert mark, f"begins with yes, partly or not yet: {ours}"
    found = SHOWN.findall(shown)
    assert shown == "".join(one.group() for one in SHOWN.finditer(shown)), "files and tests, and nothing else"
    assert bool(found) == (mark.group() != "not yet")
    for name, target, tests in found:
        path = (REFERENCE / target).resolve()
        assert name == path.name
        assert set() == set(re.findall(r"`(\w+)`", tests)) - named_in(path)


def test_no_mark_of_the_others_is_missing() -> None:
    assert [] == [cells[0] for cells in features() if not all(cells[:6])]


# ---- lifecycle events


@pytest.mark.parametrize("peer", TOLD)
def test_every_event_of_the_others_has_its_counterpart(peer: str) -> None:
    text = "\n".join(cells[0] for cells in sections()[peer])
    assert [] == [word for word in TOLD[peer].split() if not re.search(rf"(?<![\w:]){re.escape(word)}(?![\w:])", text)]
    for event, ours, when in sections()[peer]:
        assert CLASS.findall(ours) or ours == "not yet", event
        assert bool(when) == (ours != "not yet"), event


def test_every_class_that_is_named_is_there_and_every_class_is_named() -> None:
    ours = {name: [cells[1] for cells in sections()[name]] for name in TOLD}
    mapped = {name for cells in ours.values() for cell in cells for name in CLASS.findall(cell)}
    extras = {name for cells in sections()["What only we tell"] for name in CLASS.findall(cells[0])}
    assert set() == mapped & extras, "what others have is no extra of ours"
    assert told() == mapped | extras


def test_the_union_of_lifecycle_events_has_every_class() -> None:
    union = {cls.__name__ for cls in get_args(lifecycle.LifecycleEvent)}
    assert set(lifecycle.__all__) - {"LifecycleEvent"} == union
