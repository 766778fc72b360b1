"""`stepwell migrate`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stepwell import Engine, RunArrivingError
from stepwell.cli.opening import parts_of
from stepwell.migrating import moving, tally
from stepwell.store import HeadFilter, Lease
from stepwell_stores import open_store

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


# ---- moves that nobody will end


class Broken(Exception):
    """The move ends here."""


class Breaking:
    """A store at one of whose calls whoever moves runs is gone."""

    def __init__(self, store: Any, at: str) -> None:
        self._store, self._at = store, at

    def __getattr__(self, name: str) -> Any:
        return self._break if name == self._at else getattr(self._store, name)

    def _break(self, *_: Any, **_options: Any) -> None:
        raise Broken


@pytest.fixture
def broken_off(filled: None, here: Path) -> Callable[[str], None]:
    """Move runs, up to the first call of the target's method, which is not made."""

    def move(at: str) -> None:
        source, target = open_store(STORE), open_store("file:runs")
        names = (STORE, "file:runs")
        with Engine(source) as engine, pytest.raises(Broken):
            tally(moving(parts_of(engine), Breaking(target, at), HeadFilter(), names=names))
        target.close()

    return move


def test_a_move_that_nobody_ends_is_abandoned(
    broken_off: Callable[[str], None], stepwell: Callable[..., Result], run: Callable[..., Result]
) -> None:
    broken_off("stage")
    taken = run("--store", "file:runs", "start", "ask", '"why"', "--run-id", "r2")
    assert 3 == taken.code
    assert "is being moved here" in taken.err
    listed = stepwell("migrate", STORE, "file:runs", "--abandon")
    assert (0, "") == (listed.code, listed.err)
    assert "1 arrival would be turned away\n  r2\nsay --yes if nobody" in listed.out
    assert 3 == run("--store", "file:runs", "start", "ask", '"why"', "--run-id", "r2").code
    done = stepwell("--json", "migrate", STORE, "file:runs", "--abandon", "--yes")
    assert {"abandoned": 1, "runIds": ["r2"], "keptIds": {}, "dryRun": False} == moved(done)
    assert "0 arrivals turned away\n" == stepwell("migrate", STORE, "file:runs", "--abandon", "--yes").out
    assert 0 == run("--store", STORE, "resume", "r2", "review", '{"approved": true, "reviewer": "bob"}').code
    assert 0 == run("--store", "file:runs", "start", "ask", '"why"', "--run-id", "r2").code


def test_a_run_that_has_left_the_source_is_never_turned_away(
    broken_off: Callable[[str], None], stepwell: Callable[..., Result]
) -> None:
    """What was copied is all that there is of it."""
    broken_off("land")
    done = stepwell("migrate", STORE, "file:runs", "--abandon", "--yes")
    assert (0, "") == (done.code, done.err)
    assert "0 arrivals turned away\n1 arrival left: that have left the source: move again" in done.out
    assert "  r2\n" in done.out
    assert "3 runs moved, with 10 events\n" == stepwell("migrate", STORE, "file:runs").out


def test_what_is_driven_or_comes_from_elsewhere_is_not_turned_away(
    broken_off: Callable[[str], None], stepwell: Callable[..., Result], here: Path
) -> None:
    broken_off("stage")
    with Engine(STORE) as engine:
        lease = engine.store.claim("r2", "somebody", 60)
        assert isinstance(lease, Lease)
        busy = stepwell("migrate", STORE, "file:runs", "--abandon", "--yes")
        assert 3 == busy.code
        assert "1 arrival left: that somebody drives or moves: try again\n  r2\n" in busy.out
        engine.store.release(lease)
    with Engine("sqlite:///other.db") as engine:
        assert [] == engine.runs()
    other = stepwell("--json", "migrate", "sqlite:///other.db", "file:runs", "--abandon", "--yes")
    assert {"r2": "elsewhere"} == json.loads(other.out)["keptIds"]
    with Engine("file:runs") as engine, pytest.raises(RunArrivingError):
        engine.get("r2")


def test_a_copy_of_a_run_that_was_removed_meanwhile_is_turned_away(
    broken_off: Callable[[str], None], stepwell: Callable[..., Result]
) -> None:
    broken_off("stage")
    with Engine(STORE) as engine:
        engine.cancel("r2", force=True)
        engine.delete("r2")
    done = stepwell("--json", "migrate", STORE, "file:runs", "--abandon", "--yes")
    assert ["r2"] == json.loads(done.out)["runIds"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((STORE, "file:runs", "--yes"), "it is for --abandon"),
        ((STORE, "file:runs", "--abandon", "--tag", "n"), "with nothing else"),
        ((STORE, "file:runs", "--abandon", "--dry-run"), "with nothing else"),
        ((STORE, "file:runs", "--abandon"), "no store at"),
        ((STORE, STORE, "--abandon"), "both stores are"),
    ],
)
def test_abandoning_takes_two_stores_and_nothing_else(
    filled: None, stepwell: Callable[..., Result], words: tuple[str, ...], text: str
) -> None:
    done = stepwell("migrate", *words)
    assert 2 == done.code
    assert text in done.err
