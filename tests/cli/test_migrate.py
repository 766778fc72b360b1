"""`stepwell migrate`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from stepwell import Engine
from stepwell.store import Lease

from .conftest import STORE, Result


@pytest.fixture
def filled(run: Callable[..., Result], here: Path) -> None:
    """Two runs that are over, one of them badly, and one that waits."""
    for number, words in enumerate((["hello", '"ada"'], ["read", '"nowhere"'], ["ask", '"why"'])):
        run("--store", STORE, "start", words[0], words[1], "--run-id", f"r{number}", "--tag", f"n={number}")


def moved(result: Result) -> object:
    return json.loads(result.out)


def test_runs_move_and_the_source_says_where_they_are(
    filled: None, stepwell: Callable[..., Result], run: Callable[..., Result]
) -> None:
    done = stepwell("migrate", STORE, "file:runs")
    assert (0, "3 runs moved, with 10 events\n", "") == (done.code, done.out, done.err)
    told = stepwell("--store", STORE, "show", "r2")
    assert 2 == told.code
    assert "stepwell: RUN_MOVED: run 'r2' was moved to file:runs, and goes on there\n" == told.err
    ended = run("--store", "file:runs", "resume", "r2", "review", '{"approved": true, "reviewer": "bob"}')
    assert 0 == ended.code
    assert "True by bob" in ended.out
    again = stepwell("migrate", STORE, "file:runs")
    assert (0, "0 runs moved, with 0 events\n") == (again.code, again.out)


def test_a_dry_run_moves_nothing(filled: None, stepwell: Callable[..., Result], here: Path) -> None:
    done = stepwell("--json", "migrate", STORE, "file:runs", "--dry-run")
    assert {"moved": 3, "events": 10, "runIds": ["r2", "r1", "r0"], "kept": {}, "keptIds": {}, "dryRun": True} == moved(
        done
    )
    with Engine(STORE) as engine:
        assert 3 == len(engine.runs())


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        (["--status", "suspended"], ["r2"]),
        (["--workflow", "hello"], ["r0"]),
        (["--tag", "n=1"], ["r1"]),
        (["--tag", "n"], ["r2", "r1", "r0"]),
        (["--tag", "m"], []),
    ],
)
def test_a_filter_says_which(filled: None, stepwell: Callable[..., Result], words: list[str], ids: list[str]) -> None:
    done = stepwell("--json", "migrate", STORE, "file:runs", *words)
    found = json.loads(done.out)
    assert ids == found["runIds"]


def test_a_run_that_is_driven_is_left_and_named(filled: None, stepwell: Callable[..., Result], here: Path) -> None:
    with Engine(STORE) as engine:
        lease = engine.store.claim("r2", "somebody", 60)
        assert isinstance(lease, Lease)
        done = stepwell("--json", "migrate", STORE, "file:runs")
        assert 3 == done.code
        assert {"r2": "busy"} == json.loads(done.out)["keptIds"]
        text = stepwell("migrate", STORE, "file:runs", "--wait", "0.3s")
        assert "1 run left: driven by somebody" in text.out
        assert "  r2" in text.out
        engine.store.release(lease)
        assert 0 == stepwell("migrate", STORE, "file:runs").code


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((STORE, STORE), "name another one"),
        (("sqlite:///none.db", "file:runs"), "no store at"),
        ((STORE, "nonsense:x"), "unknown store scheme"),
        ((STORE, "sqlite:////nowhere/at/all.db"), "there is no directory"),
        (("memory:", "file:runs"), "memory:"),
    ],
)
def test_a_mistake_is_told_in_a_line(
    filled: None, stepwell: Callable[..., Result], words: tuple[str, ...], text: str
) -> None:
    done = stepwell("migrate", *words)
    assert 2 == done.code
    assert 1 == done.err.count("\n")
    assert text in done.err
    with Engine(STORE) as engine:
        assert 3 == len(engine.runs())


def test_a_source_that_cant_be_written_is_refused_before_anything_moves(
    filled: None, stepwell: Callable[..., Result]
) -> None:
    done = stepwell("migrate", f"{STORE}?mode=ro", "file:runs")
    assert 2 == done.code
    assert "open for reading only" in done.err
