"""The public API: exported, documented and explained, each name exactly once.

A name counts as documented in docs/reference/api.md by a heading that begins with it in back-quotes (### `Engine`, or
### `Engine(store, *, clock=None)`), by a line `::: stepwell.Engine`, or by a row of a table whose first column is
headed "Name". Dotted names, such as `Engine.start`, are members and are not compared.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import stepwell
from stepwell import errors

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "api.md"
SOURCES = sorted(
    path
    for folder in (ROOT / "engine" / "stepwell", ROOT / "stores" / "stepwell_stores")
    for path in folder.rglob("*.py")
)

HEADING = re.compile(r"^#+\s+`(?:stepwell\.)?(\w+)(?=[(\[`:= ])")
DIRECTIVE = re.compile(r"^:::\s+stepwell\.(\w+)\s*$")
TABLE_HEAD = re.compile(r"^\|\s*Name\s*\|", re.IGNORECASE)
TABLE_ROW = re.compile(r"^\|\s*`(?:stepwell\.)?(\w+)(?=[(\[`:= ])")


def documented_in(page: str) -> Iterator[str]:
    """The names that a page documents, in its order."""
    in_table = in_code = False
    for line in page.splitlines():
        if line.lstrip().startswith("```"):
            in_code = not in_code
        if in_code:
            continue
        in_table = bool(TABLE_HEAD.match(line)) or (in_table and line.startswith("|"))
        found = HEADING.match(line) or DIRECTIVE.match(line) or (TABLE_ROW.match(line) if in_table else None)
        if found:
            yield found.group(1)


def exported() -> list[str]:
    """The names that `stepwell` exports."""
    names = getattr(stepwell, "__all__", None)
    assert names, "stepwell/__init__.py has no __all__"
    return list(names)


def public_definitions(path: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]]:
    """Public classes and functions at the top of a module, without overloads, which have no text of their own."""
    for node in ast.parse(path.read_text("utf-8")).body:
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or node.name.startswith("_"):
            continue
        if any(ast.unparse(one).endswith("overload") for one in node.decorator_list):
            continue
        yield node.name, node


def public_members(cls: type[Any]) -> Iterator[tuple[str, Any]]:
    """Public methods and properties that a class has of itself, or of bases of ours that are not exported."""
    ours = [
        b
        for b in cls.__mro__
        if b is cls or (b.__module__.startswith("stepwell.") and not hasattr(stepwell, b.__name__))
    ]
    for name, member in (item for part in ours for item in vars(part).items()):
        wrapped = isinstance(member, (property, classmethod, staticmethod))
        if not name.startswith("_") and (wrapped or inspect.isfunction(member)):
            yield name, member


def all_subclasses(cls: type[Any]) -> Iterator[type[Any]]:
    """A class and everything below it."""
    yield cls
    for sub in cls.__subclasses__():
        yield from all_subclasses(sub)


def test_the_ways_to_document_a_name_are_understood() -> None:
    page = """# `stepwell`
## Engines
### `Engine(store, *, clock=None)`
#### `Engine.start(workflow)`
::: stepwell.Worker
| Name | Meaning |
|---|---|
| `NotFoundError` | ... |

| Option | Meaning |
|---|---|
| `if_open` | ... |
```python
### `NotThis`
```
"""
    assert ["stepwell", "Engine", "Worker", "NotFoundError"] == list(documented_in(page))


def test_every_exported_name_is_documented_and_every_documented_name_exported() -> None:
    documented = set(documented_in(PAGE.read_text("utf-8"))) - {"stepwell"}
    assert sorted(exported()) == sorted(documented)


def test_exports_exist_and_are_listed_once_in_order() -> None:
    names = exported()
    assert [] == [name for name in names if not hasattr(stepwell, name)]
    assert len(set(names)) == len(names)


def test_the_interpreter_can_list_what_is_exported() -> None:
    assert set(exported()) <= set(dir(stepwell))


def test_every_exported_name_and_its_members_have_a_docstring() -> None:
    bare = []
    for name in exported():
        thing = getattr(stepwell, name)
        if inspect.isclass(thing):
            if not vars(thing).get("__doc__"):
                bare.append(name)
            bare += [
                f"{name}.{member}" for member, _ in public_members(thing) if not inspect.getdoc(getattr(thing, member))
            ]
        elif inspect.isroutine(thing) and not inspect.getdoc(thing):  # an alias of types can't have one
            bare.append(name)
    assert [] == bare


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_public_name_of_a_module_has_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    bare = [name for name, node in public_definitions(path) if not ast.get_docstring(node)]
    assert ast.get_docstring(tree), "the module itself has none"
    assert [] == bare


def test_error_codes_are_unique_and_stable_in_form() -> None:
    for path in SOURCES:  # so that every subclass exists
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts[1:])
        if path.name not in ("__init__.py", "__main__.py") and "testing" not in path.parts:
            importlib.import_module(name)
    codes: dict[str, list[str]] = {}
    without = []
    for cls in set(all_subclasses(errors.StepwellError)):
        if not cls.__module__.startswith("stepwell"):
            continue
        if "code" not in vars(cls):
            if not cls.__module__.startswith("stepwell_stores"):  # kinds that only stores tell apart are one to callers
                without.append(cls.__name__)
            continue
        codes.setdefault(str(getattr(cls, "code", "")), []).append(cls.__name__)
    assert [] == without
    assert {} == {code: names for code, names in codes.items() if len(names) > 1}
    assert [] == [code for code in codes if not re.fullmatch(r"[A-Z][A-Z0-9_]*", code)]
