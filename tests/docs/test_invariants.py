"""What the page on testing says of invariants is so: each is there, and each test that it names."""

from __future__ import annotations

import ast
import re

import pytest

from .invariants import DAYS, INVARIANTS, PROPERTIES, Invariant
from .pages import ROOT
from .test_parity import named_in

DST = ROOT / "tests" / "dst"
WATCHED = re.compile(r"""violate\(\s*"(S\d+)"|yield f"(S\d+):""")


def test_every_invariant_and_every_promise_is_there_once() -> None:
    assert [f"S{number}" for number in range(1, 21)] == [one.id for one in INVARIANTS]
    assert [f"P{number}" for number in range(1, 8)] == [one.id for one in PROPERTIES]
    assert {one.id for one in INVARIANTS} == {part for one in PROPERTIES for part in one.of}


@pytest.mark.parametrize("invariant", INVARIANTS, ids=lambda one: one.id)
def test_every_test_that_shows_an_invariant_exists(invariant: Invariant) -> None:
    assert bool(invariant.tests) != bool(invariant.why)
    for test in invariant.tests:
        path, _, name = test.partition("::")
        assert name in named_in(ROOT / path), f"{path} has no {name}"


@pytest.mark.parametrize("invariant", INVARIANTS, ids=lambda one: one.id)
def test_a_test_says_itself_what_it_shows(invariant: Invariant) -> None:
    promises = [one.id for one in PROPERTIES if invariant.id in one.of]
    for test in invariant.tests:
        path, _, name = test.partition("::")
        tree = ast.parse((ROOT / path).read_text("utf-8"))
        found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name]
        said = re.findall(r"[SP]\d+", " ".join(ast.get_docstring(node) or "" for node in found))
        assert {invariant.id, *promises} <= set(said), f"{test} does not say that it shows {invariant.id}"


def test_the_simulation_watches_what_it_is_said_to_watch() -> None:
    sources = "\n".join(path.read_text("utf-8") for path in sorted(DST.glob("*.py")))
    watched = {one or other for one, other in WATCHED.findall(sources)}
    assert watched == {invariant.id for invariant in INVARIANTS if DAYS in invariant.tests}
