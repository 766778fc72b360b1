"""The interpreter that explains the engine: short, and a real one."""

from __future__ import annotations

import ast
import json
from typing import Any

import pytest

from stepwell import Engine, Flow, Step, Suspend, Workflow, workflow

from .pages import ROOT, blocks_of

PAGE = ROOT / "docs" / "explanation" / "how-replay-works.md"
BLOCK = next(block for block in blocks_of(PAGE, "python") if "def run(" in block)


@pytest.fixture
def run() -> Any:
    """The interpreter of the page."""
    namespace: dict[str, Any] = {}
    exec(BLOCK, namespace)
    return namespace["run"]


def double(x: int) -> int:
    return 2 * x


@workflow
def some_work() -> Flow[int]:
    x = yield from Step(double, 3)
    y = yield from Suspend("more", into=int)
    return (yield from Step(double, x + y))


def test_it_has_20_lines_at_most() -> None:
    (function,) = (node for node in ast.parse(BLOCK).body if isinstance(node, ast.FunctionDef))
    assert function.end_lineno is not None
    assert function.end_lineno - function.lineno + 1 <= 20


@pytest.mark.parametrize("crashes", [False, True])
def test_it_does_what_the_engine_does(run: Any, crashes: bool) -> None:
    flow: Workflow[[], int] = some_work
    journal: list[str] = []
    assert "waits for more" == run(flow, journal, {})
    if crashes:
        journal = json.loads(json.dumps(journal))
    got = run(flow, journal, {"more": 4})
    with Engine("memory:", workflows=[flow]) as engine:
        engine.start(flow, run_id="r")
        assert engine.resume("r", "more", 4).unwrap() == got == 20


def test_a_cut_journal_performs_only_what_is_missing(run: Any) -> None:
    calls: list[int] = []

    def count(x: int) -> int:
        calls.append(x)
        return x

    @workflow
    def three() -> Flow[int]:
        total = 0
        for x in (1, 2, 3):
            total += yield from Step(count, x)
        return total

    journal: list[str] = []
    assert 6 == run(three, journal, {})
    for kept in range(4):
        calls.clear()
        assert 6 == run(three, journal[:kept], {})
        assert [1, 2, 3][kept:] == calls


def test_the_page_uses_the_interpreter_that_it_shows() -> None:
    others = [block for block in blocks_of(PAGE, "python") if block != BLOCK]
    assert sum(block.count("run(purchase, journal") for block in others) >= 3
