"""`lint` itself: what it takes, what it tells, what it refuses, and comments that silence it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from stepwell import Flow, InvalidInputError, Step, durable, workflow
from stepwell.testing import Finding, LintError, lint
from stepwell.testing.linting.rules import RULES

ORDERS = """\
import time

from stepwell import Flow, Step, workflow

from helpers import stamped


def plain() -> float:
    return time.time()


@workflow(name="orders", version="2")
def order(item: str) -> Flow[str]:
    yield Step(plain)
    return (yield from stamped(item))


@workflow
def other(item: str) -> Flow[float]:
    yield Step(print, item)
    return time.time()
"""

HELPERS = """\
import time

from stepwell import Flow, Step


def stamped(item: str) -> Flow[str]:
    yield Step(print, item)
    return label(item)


def label(item: str) -> str:
    größe, now = len(item), time.time()
    return f"{item} {größe} {now}"


def unused() -> float:
    return time.time()  # stepwell: allow clock nobody calls it
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "orders.py").write_text(ORDERS, "utf-8")
    (tmp_path / "helpers.py").write_text(HELPERS, "utf-8")
    return tmp_path


@pytest.fixture
def imported(here: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the files above."""
    monkeypatch.syspath_prepend(here)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield importlib.import_module("orders")
    for name in ("orders", "helpers"):
        del sys.modules[name]


def places(found: list[Finding]) -> list[tuple[str, int, str]]:
    return [(one.file, one.line, one.rule) for one in found]


# ---- what it takes


def test_a_workflow_is_found_in_its_file_and_no_other_one_is_looked_at(imported: ModuleType) -> None:
    assert [("helpers.py", 12, "clock")] == places(lint(imported.order))
    assert [("orders.py", 21, "clock")] == places(lint(imported.other))


@pytest.mark.parametrize("target", ["orders.py", "orders", ".", Path("orders.py")], ids=repr)
def test_files_modules_and_folders_are_not_imported(here: Path, target: str | Path) -> None:
    assert [("helpers.py", 12, "clock"), ("orders.py", 21, "clock")] == places(lint(target))
    assert "orders" not in sys.modules


def test_a_package_is_every_module_in_it(here: Path) -> None:
    (here / "shop" / "inner").mkdir(parents=True)
    (here / "shop" / "__init__.py").write_text("")
    (here / "shop" / "inner" / "__init__.py").write_text("from ..far import now\n")
    (here / "shop" / "far.py").write_text("from time import time as now\n")
    flow = "@workflow\ndef order() -> Flow[None]:\n    yield Step(print, now())\n"
    (here / "shop" / "inner" / "deep.py").write_text(f"from stepwell import *\nfrom . import now\n{flow}")
    assert [("shop/inner/deep.py", 5, "clock")] == places(lint("shop"))
    assert [("shop/inner/deep.py", 5, "clock")] == places(lint("shop.inner.deep"))


def test_modules_that_import_each_other_are_read_once(here: Path) -> None:
    flow = "@workflow\ndef w() -> Flow[None]:\n    yield Step(x, loop)\n"
    (here / "a.py").write_text(f"from stepwell import *\nfrom b import x, loop\n{flow}")
    (here / "b.py").write_text("from a import x\nfrom b import loop\n")
    assert [] == lint("a.py", "b.py", "a.py")


def test_one_call_that_is_durable_has_nothing_to_find() -> None:
    assert [] == lint(durable(inside))


def test_nothing_is_found_in_nothing() -> None:
    assert [] == lint()


# ---- what it tells


def test_a_finding_tells_where_why_what_to_write_and_how_the_workflow_gets_there(here: Path) -> None:
    found = lint("orders.py")[0]
    assert ("helpers.py", 12, 29) == (found.file, found.line, found.column), "columns are characters, not bytes"
    assert "time.time() depends on when it runs, and a replay runs at another time." == found.reason
    assert RULES["clock"].remedy == found.remedy
    assert "order" == found.workflow
    assert ("order (orders.py:15)", "stamped (helpers.py:8)") == found.through
    assert str(found).startswith("helpers.py:12:29: clock time.time() depends on ")
    assert {"rule", "file", "line", "column", "reason", "remedy", "workflow", "through"} == set(found.json())


def test_files_elsewhere_are_named_in_full(here: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert {(here / "helpers.py").as_posix(), (here / "orders.py").as_posix()} == {one.file for one in lint(here)}


def test_what_many_workflows_reach_is_told_once(here: Path) -> None:
    again = "\n@workflow\ndef again(item: str) -> Flow[str]:\n    return (yield from stamped(item))\n"
    (here / "orders.py").write_text(ORDERS + again, "utf-8")
    assert [("helpers.py", 12, "clock"), ("orders.py", 21, "clock")] == places(lint("orders"))


def test_every_finding_speaks_in_sentences(here: Path) -> None:
    for rule in RULES.values():
        assert rule.remedy.endswith(".")
        assert rule.remedy[0].isupper()
        assert "|" not in rule.finds


# ---- comments


def lint_text(here: Path, line: str) -> list[tuple[int, str]]:
    head = "import time\nfrom stepwell import *\n@workflow\ndef w() -> Flow[None]:\n"
    (here / "one.py").write_text(f"{head}{line}\n    yield Step(print)\n", "utf-8")
    return [(one.line, one.rule) for one in lint("one.py")]


@pytest.mark.parametrize(
    "line",
    [
        "    a = time.time()  # stepwell: allow clock told to people only",
        "    a = time.time()  # noqa  # stepwell: allow clock told to people only",
        "    # stepwell: allow clock told to people only\n    a = time.time()",
        "    # stepwell: allow clock told to people only\n    # and to nobody else\n    a = time.time()",
        "    a = (\n        time.time(),\n        time.time(),\n    )  # stepwell: allow clock told to people only",
        "    a = max(\n        # stepwell: allow clock told to people only\n        time.time(),\n        1,\n    )",
    ],
)
def test_a_comment_with_a_reason_silences_its_rule_on_its_statement(here: Path, line: str) -> None:
    assert [] == lint_text(here, line)


def test_a_comment_does_not_silence_the_lines_around_it(here: Path) -> None:
    lines = "    a = time.time()  # stepwell: allow clock told to people only\n    b = time.time()"
    assert [(6, "clock")] == lint_text(here, lines)


def test_a_comment_at_a_loop_is_about_its_head(here: Path) -> None:
    lines = "    while time.time() < 1:  # stepwell: allow clock for a test\n        a = time.time()"
    assert [(6, "clock")] == lint_text(here, lines)


def test_a_comment_without_a_reason_silences_nothing_and_is_told(here: Path) -> None:
    assert [(5, "clock"), (5, "allow")] == lint_text(here, "    a = time.time()  # stepwell: allow clock")
    told = [one.reason for one in lint("one.py") if one.rule == "allow"]
    assert ["It does not say why clock is allowed here."] == told


def test_a_comment_that_is_no_comment_is_none(here: Path) -> None:
    assert [(5, "clock")] == lint_text(here, '    a = time.time(), "# stepwell: allow clock it is text"')


def test_a_comment_in_code_that_no_workflow_reaches_is_left_alone(here: Path) -> None:
    assert "allow" not in {one.rule for one in lint("orders.py", "helpers.py")}


def test_allow_can_not_be_allowed(here: Path) -> None:
    assert [(5, "allow")] == lint_text(here, "    a = 1  # stepwell: allow allow because")


# ---- what it refuses


def test_what_is_no_target_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="lint takes workflows, paths and names of modules, got 3"):
        lint(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["nowhere.py", "no.such.module", "json", "stepwell.engine", "no such"])
def test_what_is_not_there_is_told_with_the_remedy(here: Path, name: str) -> None:
    with pytest.raises(LintError, match=r"there is no file, folder or module .* give a path, as in"):
        lint(name)


def test_what_is_no_python_is_told_with_its_line(here: Path) -> None:
    (here / "broken.py").write_text("x = 1\ndef f(:\n")
    with pytest.raises(LintError, match=r"broken.py:2 is no Python 3\.\d+: invalid syntax"):
        lint("broken.py")
    (here / "latin.py").write_bytes(b"x = '\xe4'\n")
    with pytest.raises(LintError, match=r"latin.py is no Python"):
        lint("latin.py")


def test_a_helper_that_is_no_python_is_not_looked_into(here: Path) -> None:
    (here / "helpers.py").write_text("def f(:\n")
    assert [("orders.py", 21, "clock")] == places(lint("orders.py"))


def test_a_workflow_without_a_source_is_told_with_the_remedy() -> None:
    names: dict[str, Any] = {}
    exec("from stepwell import *\n@workflow\ndef made() -> Flow[None]:\n    yield Sleep(1)\n", names)
    with pytest.raises(LintError, match=r"the source of workflow 'made' can't be found \(<string>\); .* into a module"):
        lint(names["made"])


def test_a_file_that_has_changed_since_is_told(imported: ModuleType, here: Path) -> None:
    (here / "orders.py").write_text("\n\n" + ORDERS, "utf-8")
    with pytest.raises(LintError, match=r"orders.py:12 holds no function 'order' any more: .* start Python anew"):
        lint(imported.order)


# ---- a workflow of this file


def inside(item: str) -> str:
    return item.upper()


@workflow
def clean(item: str) -> Flow[str]:
    return (yield from Step(inside, item))


def test_a_suite_can_lint_its_own_workflows() -> None:
    assert [] == lint(clean)


def test_a_workflow_that_a_test_makes_is_found() -> None:
    @workflow
    def made(items: set[str]) -> Flow[None]:
        for item in items:
            yield Step(print, item)

    assert ["set-order"] == [one.rule for one in lint(made)]
