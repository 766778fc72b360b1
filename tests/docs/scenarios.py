"""Parts of pages that are made of tests and examples: the tables of scenarios, and the store of the how-to."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

__all__ = ["SYSTEMS", "own_store", "rows_of", "scenario_table"]

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "scenarios"
SYSTEMS = ("durabletask", "Temporal", "AWS")
SAYS = re.compile(r"(durabletask|Temporal|AWS): ([^.]+)\. (.+?)(?:\s+Here: (.+))?")


def rows_of(path: Path) -> Iterator[tuple[str, str, str, str, str]]:
    """System, scenario, what happens, what is otherwise here, and the test, for each test of a file, in order.

    Raises:
        ValueError: a test does not say what it shows.
    """
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            text = " ".join((ast.get_docstring(node) or "").split())
            found = SAYS.fullmatch(text)
            if found is None:
                raise ValueError(f"{path.name}: {node.name} does not begin with 'System: scenario. What happens.'")
            system, name, happens, here = found.groups()
            yield system, name, happens, here or "", f"[{path.name}](../../tests/scenarios/{path.name}): `{node.name}`"


def scenario_table(system: str) -> list[str]:
    """The scenarios of one system."""
    rows = [row[1:] for path in sorted(FOLDER.glob("test_*.py")) for row in rows_of(path) if row[0] == system]
    cells = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    return ["| Scenario | What happens | Here | Test |", "|---|---|---|---|", *(f"| {row} |" for row in cells)]


def own_store() -> list[str]:
    """The store of the how-to, whole: the example itself."""
    source = (ROOT / "examples" / "own-store" / "one_file.py").read_text("utf-8")
    return ["```python", "# one_file.py", *source.rstrip().splitlines(), "```"]
