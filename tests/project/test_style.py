"""The habits that a linter has no rule for."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LONGEST_FUNCTION = 70  # lines, without the docstring
LONGEST_FILE = 450  # lines, with everything
UNFINISHED = re.compile(r"\b(?:" + "|".join(["TO" + "DO", "FIX" + "ME"]) + r")\b")
TEXTS = {".py", ".md", ".toml", ".cfg", ".yaml", ".yml", ".sql", ".html", ".js", ".css", ""}


def python_files(*folders: str) -> list[Path]:
    """Every Python file below these folders of the project."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    """The path as seen from the project's top."""
    return path.relative_to(ROOT).as_posix()


def functions_of(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function, also methods and inner ones."""
    return (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, less those of the docstring."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is not None:
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


@pytest.mark.parametrize("path", python_files("engine", "stores"), ids=name_of)
def test_functions_are_short(path: Path) -> None:
    lengths = {function.name: length(function) for function in functions_of(ast.parse(path.read_text("utf-8")))}
    assert {} == {name: lines for name, lines in lengths.items() if lines > LONGEST_FUNCTION}


@pytest.mark.parametrize("path", python_files("engine", "stores"), ids=name_of)
def test_files_are_short(path: Path) -> None:
    lines = len(path.read_text("utf-8").splitlines())
    assert lines <= LONGEST_FILE


@pytest.mark.parametrize("path", python_files("tests"), ids=name_of)
def test_no_test_sleeps(path: Path) -> None:
    """A sleep is too long on a fast machine and too short on a slow one: use a virtual clock, an event, a poll."""
    tree = ast.parse(path.read_text("utf-8"))
    direct = any(
        isinstance(node, ast.ImportFrom) and node.module == "time" and any(one.name == "sleep" for one in node.names)
        for node in ast.walk(tree)
    )
    calls = [
        node.lineno for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "time.sleep"
    ]
    assert not direct, "imports sleep from time"
    assert [] == calls, "lines that call time.sleep"


def test_nothing_is_left_for_later() -> None:
    folders = ("engine", "stores", "tests", "examples", "docs", ".ci", "changelog.d")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in TEXTS]
    files += [path for path in ROOT.iterdir() if path.suffix in TEXTS - {""}]
    left = [
        f"{name_of(path)}:{number}"
        for path in files
        if path.is_file() and "work" not in path.relative_to(ROOT).parts[1:2]
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if UNFINISHED.search(line)
    ]
    assert [] == left
