"""`stepwell lint`: for people, editors, GitHub and programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

FLAWED = """\
import time
from stepwell import Flow, Step, workflow

def late() -> bool:
    return time.time() > 3

@workflow
def order(item: str) -> Flow[None]:
    Step(print, item)
    yield Step(print, late())
"""
CLEAN = FLAWED.replace("    Step(print, item)\n", "").replace("late())", "late)")


@pytest.fixture(autouse=True)
def files(here: Path) -> None:
    (here / "flawed.py").write_text(FLAWED)
    (here / "clean.py").write_text(CLEAN)


def test_people_are_told_the_place_the_reason_the_remedy_and_the_way(stepwell) -> None:
    done = stepwell("lint", "flawed.py")
    assert 1 == done.code
    assert "flawed.py:5:12  clock\n    time.time() depends on when it runs" in done.out
    assert "    Write `now = yield from Now()`.\n    reached by order (flawed.py:10)\n" in done.out
    assert "flawed.py:9:5  unyielded\n" in done.out
    assert done.out.endswith("\n2 findings in 1 workflow of 1 file\n")


def test_clean_code_is_said_to_be_clean(stepwell) -> None:
    done = stepwell("lint", "clean")
    assert (0, "nothing found in 1 workflow of 1 file\n") == (done.code, done.out)


def test_editors_get_one_line_each(stepwell) -> None:
    done = stepwell("lint", "flawed", "--format", "editor")
    assert 1 == done.code
    first, second = done.out.splitlines()
    assert first.startswith("flawed.py:5:12: clock time.time() depends on")
    assert second.startswith("flawed.py:9:5: unyielded Step(print, item) makes a command")


def test_github_gets_annotations(stepwell, here: Path) -> None:
    (here / "a,b.py").write_text(FLAWED.replace("time.time() > 3", "time.time() % 3 == 0 or print('100%') is None"))
    done = stepwell("lint", "--format", "github", "a,b.py")
    assert 1 == done.code
    first = done.out.splitlines()[0]
    assert first.startswith("::error file=a%2Cb.py,line=5,col=12,title=stepwell lint%3A clock::time.time() depends on")


def test_programs_get_json(stepwell) -> None:
    done = stepwell("lint", "flawed.py", "clean.py", "--json")
    assert 1 == done.code
    told = json.loads(done.out)
    assert {"findings", "files", "workflows"} == set(told)
    assert 2 == told["files"]
    assert ["clock", "unyielded"] == [one["rule"] for one in told["findings"]]
    assert ["order (flawed.py:10)"] == told["findings"][0]["through"]
    assert [] == json.loads(stepwell("--json", "lint", "clean.py").out)["findings"]


def test_the_rules_can_be_shown(stepwell) -> None:
    done = stepwell("lint", "--rules")
    assert 0 == done.code
    assert "set-order\n    iteration over a set" in done.out
    assert 14 == len(json.loads(stepwell("lint", "--rules", "--json").out))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], "USAGE", "lint needs a file, a folder or a module"),
        (["nowhere.py"], "LINT", "there is no file, folder or module 'nowhere.py'"),
        (["clean.py", "--format", "xml"], "USAGE", "invalid choice: 'xml'"),
        ([""], "INVALID_INPUT", "lint takes workflows, paths and names of modules, got ''"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(stepwell, arguments, code: str, words: str) -> None:
    done = stepwell("lint", *arguments)
    assert (2, "") == (done.code, done.out)
    assert done.err.startswith(f"stepwell: {code}: ")
    assert words in done.err
    assert 1 == done.err.count("\n")


def test_nothing_of_the_users_runs(stepwell, here: Path) -> None:
    (here / "loud.py").write_text(CLEAN + "\nraise SystemExit('it runs')\n")
    assert 0 == stepwell("lint", "loud.py").code
    assert 0 == stepwell("lint", "loud").code
