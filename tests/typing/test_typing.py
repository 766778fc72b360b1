"""mypy and pyright agree with `right.py` and find every mistake in `wrong.py`.

Both files are checked as they are, and as copies in which everything is the other way round: each `assert_type` of
`right.py` names another type, and each wrong line of `wrong.py` is gone, with only its comment left. A checker has to
report every one of those lines. So there is no line that a checker skips, and a mistake that it does not find any more
fails the build.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from attrs import frozen

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RIGHT, WRONG = HERE / "right.py", HERE / "wrong.py"
IGNORES = {"mypy": re.compile(r"# type: ignore\["), "pyright": re.compile(r"# pyright: ignore\[")}
COMMENT = re.compile(r"  # (?:type|pyright): ignore\[.*$")
UNTRUE = "Exception"  # a type that no assert_type of right.py names


@frozen
class Finding:
    """What a checker says of a line."""

    file: str
    line: int
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text} [{self.rule}]"


@frozen
class Checked:
    """How a run of a checker ended."""

    status: int
    findings: list[Finding]

    def lines(self, path: Path, rule: str) -> set[int]:
        """Where in a file it reports a rule."""
        return {f.line for f in self.findings if Path(f.file).name == path.name and f.rule == rule}


def call(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a module of this Python at the project's top, where the checkers find their settings."""
    quiet = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, env=quiet, capture_output=True, text=True, timeout=300, check=False
    )


def mypy(cache: Path, *files: Path) -> Checked:
    """Run mypy; the cache is shared, so that only the first run is slow."""
    # Errors of what the files import are for the run over everything to tell.
    options = ["--cache-dir", str(cache), "--follow-imports", "silent", "--output", "json"]
    done = call("mypy", *options, *map(str, files))
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    errors = [one for one in found if one["severity"] == "error"]
    return Checked(done.returncode, [Finding(e["file"], e["line"], e["code"] or "", e["message"]) for e in errors])


def pyright(_cache: Path, *files: Path) -> Checked:
    """Run pyright."""
    done = call("pyright", "--outputjson", *map(str, files))
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = json.loads(done.stdout[done.stdout.index("{") :])["generalDiagnostics"]
    return Checked(
        done.returncode,
        [Finding(e["file"], e["range"]["start"]["line"] + 1, e.get("rule", ""), e["message"]) for e in found],
    )


Checker = Callable[..., Checked]
CHECKERS: dict[str, Checker] = {"mypy": mypy, "pyright": pyright}
ASSERTION_RULE = {"mypy": "assert-type", "pyright": "reportAssertTypeFailure"}
UNUSED_RULE = {"mypy": "unused-ignore", "pyright": "reportUnnecessaryTypeIgnoreComment"}


@pytest.fixture(scope="module", params=sorted(CHECKERS))
def name(request: pytest.FixtureRequest) -> str:
    """Each checker in turn."""
    checker = str(request.param)
    if find_spec(checker) is None:
        pytest.fail(f"{checker} is not installed: it comes with stepwell[test]")
    return checker


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what mypy knows of the engine."""
    return tmp_path_factory.mktemp("mypy-cache")


@pytest.fixture(scope="module")
def reversed_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Copies of right.py and wrong.py in which no assertion is true, and nothing is wrong."""
    folder = tmp_path_factory.mktemp("reversed")
    right, wrong = folder / "all_untrue.py", folder / "all_right.py"
    right.write_text(with_untrue_assertions(RIGHT.read_text("utf-8")), "utf-8")
    wrong.write_text("\n".join(map(without_mistake, WRONG.read_text("utf-8").splitlines())) + "\n", "utf-8")
    return right, wrong


@pytest.fixture(scope="module")
def reversed_checked(name: str, cache: Path, reversed_files: tuple[Path, Path]) -> Checked:
    """What the checker says of the copies."""
    return CHECKERS[name](cache, *reversed_files)


def assertions(source: str) -> Iterator[ast.Call]:
    """Every call of assert_type."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "assert_type":
            yield node


def with_untrue_assertions(source: str) -> str:
    """The same module, each assert_type of which names a wrong type."""
    lines = source.encode().splitlines(keepends=True)  # ast counts columns in bytes
    for made in sorted(assertions(source), key=lambda call: call.lineno, reverse=True):
        claim = made.args[1]
        assert claim.lineno == claim.end_lineno, f"line {claim.lineno}: a type on one line can be replaced"
        line = lines[claim.lineno - 1]
        lines[claim.lineno - 1] = line[: claim.col_offset] + UNTRUE.encode() + line[claim.end_col_offset :]
    return b"".join(lines).decode()


def without_mistake(line: str) -> str:
    """A line without its code, if it has a comment that expects an error."""
    comment = COMMENT.search(line)
    return line if comment is None else " " * (len(line) - len(line.lstrip())) + "pass" + comment.group()


def marked(name: str) -> set[int]:
    """Lines of wrong.py in which a checker has to find a mistake."""
    return {n for n, line in enumerate(WRONG.read_text("utf-8").splitlines(), 1) if IGNORES[name].search(line)}


def test_right_code_passes_and_each_mistake_is_found(name: str, cache: Path) -> None:
    checked = CHECKERS[name](cache, RIGHT, WRONG)
    assert [] == list(map(str, checked.findings))
    assert 0 == checked.status


def test_every_assertion_about_a_type_is_looked_at(
    name: str, reversed_files: tuple[Path, Path], reversed_checked: Checked
) -> None:
    right, _ = reversed_files
    reported = reversed_checked.lines(right, ASSERTION_RULE[name])
    spans = [range(call.lineno, (call.end_lineno or call.lineno) + 1) for call in assertions(right.read_text("utf-8"))]
    assert len(spans) > 200
    assert [] == [span.start for span in spans if reported.isdisjoint(span)]
    assert 1 == reversed_checked.status


def test_every_mistake_that_is_gone_is_missed(
    name: str, reversed_files: tuple[Path, Path], reversed_checked: Checked
) -> None:
    _, wrong = reversed_files
    expected = marked(name)
    assert len(expected) > 200
    assert expected == reversed_checked.lines(wrong, UNUSED_RULE[name])
    assert 1 == reversed_checked.status


def test_both_checkers_have_to_find_each_mistake() -> None:
    """But for the few of which a checker knows too little: this list says which, and why."""
    one_sided = marked("mypy") ^ marked("pyright")
    lines = WRONG.read_text("utf-8").splitlines()
    assert {
        "yield Step(partial(size, t), t)": "mypy takes any arguments for those of a partial",
    }.keys() == {COMMENT.sub("", lines[n - 1]).strip() for n in one_sided}


def test_the_examples_of_right_use_can_be_imported() -> None:
    """What type checkers accept is accepted at run time too, as far as that shows on import."""
    done = subprocess.run(
        [sys.executable, str(RIGHT)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "engine", ROOT / "stores")))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stderr)
