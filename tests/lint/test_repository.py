"""Code that was not written for lint: the examples, the pages' blocks, workflows of other tests. It raises no alarm."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.docs.pages import PAGES, ROOT, blocks_of, name_of

from stepwell.testing import lint
from stepwell.testing.linting.linter import look_at

FUTURE = "from __future__ import annotations\n"
STORES = {"own-store"}  # examples that show no workflow
EXAMPLES = sorted(path for path in (ROOT / "examples").iterdir() if path.is_dir() and path.name not in STORES)
# Workflows that these pages show as what not to do.
ON_PURPOSE = {
    "docs/explanation/guarantees.md": ["io"],
    "docs/how-to/lint.md": ["clock", "unyielded", "set-order"],
    "docs/how-to/property-tests.md": ["set-order"],
}
TESTS = [
    "crash/corpus.py",
    "benchmarks/flows.py",
    "typing/right.py",
    "commands/test_now.py",
    "commands/test_child.py",
    "commands/test_stream.py",
    "commands/test_compensate.py",
    "commands/test_spend.py",
    "engine/test_budgets.py",
    "engine/test_compensations.py",
    "engine/test_approvals.py",
    "engine/test_resume.py",
]
DELIBERATE = {"engine/test_resume.py": ["no-command"]}  # one yields 'oops'


@pytest.mark.parametrize("folder", EXAMPLES, ids=name_of)
def test_examples_raise_no_alarm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    report = look_at(["."])
    assert report.workflows
    assert [] == list(map(str, report.findings))


@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(page, "python")], ids=name_of)
def test_pages_show_no_mistake(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = [block.replace(FUTURE, "") for block in blocks_of(page, "python")]
    (tmp_path / "page.py").write_text("\n".join(blocks), "utf-8")
    assert ON_PURPOSE.get(name_of(page), []) == [finding.rule for finding in lint("page.py")]


@pytest.mark.parametrize("name", TESTS)
def test_workflows_of_tests_raise_no_alarm(name: str) -> None:
    report = look_at([ROOT / "tests" / name])
    assert report.workflows
    assert DELIBERATE.get(name, []) == [finding.rule for finding in report.findings]


def test_there_is_enough_of_it() -> None:
    names = [name for folder in EXAMPLES for name in look_at([folder]).workflows]
    names += [name for path in TESTS for name in look_at([ROOT / "tests" / path]).workflows]
    assert len(names) >= 60
