"""examples/what-if as its README says: each command in a process of its own."""

from __future__ import annotations

import functools

import pytest

from stepwell import Engine


@pytest.fixture(params=["sqlite:///{}/loans.db", "file:{}/loans"])
def url(request, tmp_path):
    return request.param.format(tmp_path)


@pytest.fixture
def call(call, url):
    return functools.partial(call, STEPWELL_STORE=url)


@pytest.fixture
def ada(call):
    call("-m", "stepwell", "--app", "loans:engine", "start", "loan", '"Ada"', "10000", "--run-id", "ada")


def test_another_score_goes_another_way_and_the_run_stays_as_it_is(call, ada, url, tmp_path):
    done = call("what_if.py", "ada", "50", "--mermaid", str(tmp_path / "ada.mmd"), code=1)
    assert "80 points: completed; 50 points: suspended" == done.stdout.splitlines()[0]
    assert "part at event 1, step score at 0: result.points: 80 | 50" in done.stdout
    assert (tmp_path / "ada.mmd").read_text("utf-8").startswith("sequenceDiagram\n")
    with Engine(url) as engine:
        assert ["start", "step", "step", "complete"] == [event.kind for event in engine.history("ada")]
        (fork,) = engine.runs(tag=("what-if", "ada"))
        assert ("suspended", ("decision",)) == (fork.status, fork.waiting_for)


def test_a_score_that_changes_nothing_is_told_so(call, ada):
    done = call("what_if.py", "ada", "90")
    assert ["80 points: completed; 90 points: completed", "10000 paid to Ada"] == [
        line for line in done.stdout.splitlines() if not line.startswith("  [")
    ][:2]


def test_a_loan_that_is_not_there_is_told(call, ada):
    assert "NOT_FOUND: " in call("what_if.py", "bob", "50", code=2).stderr


def test_the_command_line_does_the_same(call, ada):
    value = '{"points": 5, "why": "what if"}'
    where = ("-m", "stepwell", "--app", "loans:engine")
    done = call(*where, "fork", "ada", "--replace", "score", "--value", value, "--run-id", "ada-5")
    assert "declined: only 5 points" in done.stdout
    assert "result.points: 80 | 5" in call(*where, "diff", "ada", "ada-5", code=1).stdout
    lines = call(*where, "show", "ada-5", "--timeline").stdout.splitlines()
    assert ["start", "step", "step", "complete"] == [line.split()[1] for line in lines]
