"""`stepwell prune`, `stepwell size`, and the worker's part in it."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stepwell import Engine
from stepwell.cli.pruning import duration
from stepwell.testing.environments import VirtualClock

from .conftest import STORE, Result, WorkerProcess, environment

APP = """
import os
from stepwell import Engine, Flow, Step, Suspend, workflow

def one() -> int:
    return 1

@workflow(ttl=3600)
def short() -> Flow[int]:
    return (yield from Step(one))

@workflow
def kept() -> Flow[int]:
    return (yield from Step(one))

@workflow
def waits() -> Flow[int]:
    yield Suspend("go")
    return 1

engine = Engine(os.environ.get("STEPWELL_STORE", "sqlite:///runs.db"), workflows=[short, kept, waits])
"""


@pytest.fixture
def app(write_app: Callable[[str], str]) -> str:
    return write_app(APP) + ":engine"


@pytest.fixture(params=[STORE, "file:runs"])
def store(request: pytest.FixtureRequest, app: str, here: Path) -> str:
    """A store with runs that were closed long ago, and one that is open."""
    fill(app, request.param)
    found: str = request.param
    return found


def fill(app: str, url: str, runs: int = 3) -> None:
    sys.path.insert(0, str(Path.cwd()))
    module = __import__(app.partition(":")[0])
    clock = VirtualClock()
    with Engine(url, [module.short, module.kept, module.waits], clock=clock) as engine:
        for number in range(runs):
            for wf in (module.short, module.kept):
                engine.start(wf, run_id=f"{wf.name}-{number}")
            clock.advance(60)
        engine.start(module.waits, run_id="open")
        engine.start(module.waits, run_id="cancelled")
        engine.cancel("cancelled")


def ids(stepwell: Callable[..., Result], store: str) -> list[str]:
    return sorted(row["runId"] for row in json.loads(stepwell("--store", store, "list", "--json").out))


EVERYTHING = ["cancelled", "kept-0", "kept-1", "kept-2", "open", "short-0", "short-1", "short-2"]


def test_what_is_older_is_removed_and_told(stepwell: Callable[..., Result], store: str) -> None:
    done = stepwell("--store", store, "prune", "--older-than", "1d")
    assert (0, "") == (done.code, done.err)
    assert "7 runs removed, with 22 events" in done.out
    assert "short-2" in done.out
    assert ["open"] == ids(stepwell, store)
    assert "0 runs removed, with 0 events\n" == stepwell("--store", store, "prune", "--older-than", "0").out


def test_the_ttl_of_an_app_s_workflows_says_what_goes(stepwell: Callable[..., Result], app: str, store: str) -> None:
    done = stepwell("--app", app, "--store", store, "prune", "--json")
    assert 0 == done.code
    told = json.loads(done.out)
    assert (3, ["short-0", "short-1", "short-2"], 9) == (told["removed"], told["runIds"], told["events"])
    assert (False, False, {}) == (told["more"], told["dryRun"], told["kept"])
    assert [name for name in EVERYTHING if not name.startswith("short")] == ids(stepwell, store)


def test_a_dry_run_removes_nothing(stepwell: Callable[..., Result], store: str) -> None:
    done = stepwell("--store", store, "prune", "--keep-last", "1", "--dry-run", "--vacuum")
    assert "4 runs would be removed, with 12 events" in done.out
    assert "3 runs kept: among the newest, which --keep-last keeps" in done.out
    assert EVERYTHING == ids(stepwell, store)


def test_status_workflow_and_limit_narrow_it(stepwell: Callable[..., Result], store: str) -> None:
    def pruned(*more: str) -> list[str]:
        found = json.loads(stepwell("--store", store, "prune", "--older-than", "0", "--json", *more).out)
        ids: list[str] = found["runIds"]
        return ids

    assert ["cancelled"] == pruned("--status", "cancelled", "--status", "failed")
    assert ["kept-0"] == pruned("--workflow", "kept", "--limit", "1")
    done = stepwell("--store", store, "prune", "--older-than", "0", "--limit", "2")
    assert "There may be more: --limit ended it" in done.out


def test_many_ids_are_told_in_short(stepwell: Callable[..., Result], app: str, here: Path) -> None:
    fill(app, STORE, 12)
    done = stepwell("--store", STORE, "prune", "--older-than", "0", "--workflow", "kept")
    assert ["  kept-9", "  and 2 more"] == done.out.splitlines()[9:11]
    assert 12 == len(json.loads(stepwell("--store", STORE, "prune", "--older-than", "0", "--json").out)["runIds"]) - 1


def test_space_is_given_back(stepwell: Callable[..., Result], here: Path, app: str) -> None:
    fill(app, STORE, 100)
    before = (here / "runs.db").stat().st_size
    stepwell("--store", STORE, "prune", "--older-than", "0")
    size = json.loads(stepwell("--store", STORE, "size", "--json").out)
    assert ({"suspended": 1}, 2) == (size["runs"], size["events"])
    assert size["freeBytes"] > 50_000
    done = stepwell("--store", STORE, "prune", "--older-than", "0", "--vacuum")
    assert "given back to the file system" in done.out
    assert (here / "runs.db").stat().st_size < before - 50_000
    assert 0 == json.loads(stepwell("--store", STORE, "size", "--json").out)["freeBytes"]
    told = json.loads(stepwell("--store", STORE, "prune", "--vacuum", "--json").out)
    assert (0, 0) == (told["removed"], told["freedBytes"])


def test_a_first_vacuum_while_a_run_is_driven_is_put_off(
    stepwell: Callable[..., Result], here: Path, app: str, engine: Any
) -> None:
    fill(app, STORE)
    assert engine.store.claim("open", "me", 3600) is not None
    done = stepwell("--store", STORE, "prune", "--older-than", "0", "--vacuum")
    assert 3 == done.code
    assert "7 runs removed" in done.out
    assert "no space was given back: " in done.out
    assert "1 of its runs are being driven; try again when nobody drives one" in done.out
    assert ["open"] == ids(stepwell, STORE)
    told = stepwell("--store", STORE, "prune", "--older-than", "0", "--vacuum", "--json")
    assert (3, True) == (told.code, "being driven" in json.loads(told.out)["notVacuumed"])


def test_the_size_is_shown(stepwell: Callable[..., Result], store: str) -> None:
    done = stepwell("--store", store, "size")
    assert (0, "") == (done.code, done.err)
    first, second, third = done.out.splitlines()
    assert "runs    8: 1 cancelled, 6 completed, 1 suspended" == first
    assert "events  24" == second
    assert third.startswith("size    ")
    stepwell("--store", store, "prune", "--older-than", "0")
    stepwell("--store", store, "cancel", "open", "--force")
    stepwell("--store", store, "prune", "--older-than", "0")
    assert "runs    0" == stepwell("--store", store, "size").out.splitlines()[0]


# ---- mistakes


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "nothing says what to remove: give --older-than or --keep-last, or --app"),
        (["--status", "failed"], "nothing says what to remove"),
        (["--status", "failed", "--vacuum"], "nothing says what to remove"),
        (["--older-than", "-1"], "--older-than"),
        (["--older-than", "soon"], "takes a duration such as 45s, 30m, 12h, 7d, 2w or 1d12h, and got 'soon'"),
        (["--older-than", "nan"], "takes a duration"),
        (["--older-than", "99999999999999d"], "older_than must be between 0 seconds and 10,000 years"),
        (["--keep-last", "-1"], "--keep-last"),
        (["--keep-last", "1.5"], "takes a whole number, 0 or more, and got '1.5'"),
        (["--keep-last", "٣"], "takes a whole number"),
        (["--older-than", "1d", "--status", "running"], "invalid choice: 'running'"),
        (["--older-than", "1d", "--limit", "0"], "takes a whole number, 1 or more, and got '0'"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line_and_removes_nothing(
    stepwell: Callable[..., Result], app: str, here: Path, arguments: list[str], words: str
) -> None:
    fill(app, STORE)
    done = stepwell("--store", STORE, "prune", *arguments)
    assert (2, "") == (done.code, done.out)
    assert words in done.err
    assert 1 == done.err.count("\n")
    assert EVERYTHING == ids(stepwell, STORE)


def test_an_app_without_a_ttl_says_nothing_of_what_goes(
    stepwell: Callable[..., Result], app: str, write_app: Callable[[str], str], here: Path
) -> None:
    fill(app, STORE)
    none = write_app(APP.replace("(ttl=3600)", "")) + ":engine"
    done = stepwell("--app", none, "prune")
    assert (2, True) == (done.code, "no workflow of the app has a ttl" in done.err)
    done = stepwell("--app", app, "prune", "--workflow", "kept")
    assert (2, True) == (done.code, "workflow 'kept' has no ttl in the app" in done.err)
    assert EVERYTHING == ids(stepwell, STORE)


@pytest.mark.parametrize("verb", [["prune", "--older-than", "1d"], ["size"]])
def test_a_store_that_is_not_there_is_not_made(stepwell: Callable[..., Result], here: Path, verb: list[str]) -> None:
    done = stepwell("--store", STORE, *verb)
    assert (2, "") == (done.code, done.out)
    assert "no store at" in done.err
    assert [] == list(here.iterdir())


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("90", 90),
        ("1.5", 1.5),
        ("45s", 45),
        ("30m", 1800),
        ("12h", 43_200),
        ("7d", 604_800),
        ("2w", 1_209_600),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert seconds == duration(text)
    assert 86_400 + 12 * 3600 + 60 == duration("1d12h1m")


# ---- in processes of their own


def test_progress_is_shown_on_a_terminal(app: str, here: Path) -> None:
    fill(app, STORE, 30)
    screen, terminal = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "-m", "stepwell", "--store", STORE, "prune", "--older-than", "0", "--json"],
        env=environment(TERM="xterm", COLUMNS="100"),
        stdout=subprocess.PIPE,
        stderr=terminal,
        encoding="utf-8",
    )
    os.close(terminal)
    shown = io.BytesIO()
    try:
        while part := os.read(screen, 65536):
            shown.write(part)
    except OSError:  # its last end was closed
        pass
    os.close(screen)
    out, _ = done.communicate(timeout=60)
    assert 0 == done.returncode
    assert 61 == json.loads(out)["removed"]
    assert b"removing runs" in shown.getvalue()


def test_a_worker_prunes_and_says_so(app: str, store: str, worker: Callable[..., WorkerProcess]) -> None:
    one = worker("--app", app, "--store", store, "--drain", "--json")
    assert [json.dumps({"summary": {"pruned": 3}}) + "\n"] == one.rest()
    assert 0 == one.wait()


def test_a_worker_that_is_told_not_to_prune_does_not(
    app: str, store: str, worker: Callable[..., WorkerProcess], stepwell: Callable[..., Result]
) -> None:
    one = worker("--app", app, "--store", store, "--drain", "--json", "--prune-every", "0")
    assert [json.dumps({"summary": {}}) + "\n"] == one.rest()
    assert EVERYTHING == ids(stepwell, store)


@pytest.mark.parametrize("every", ["-1", "never", "nan", "0.0001"])
def test_an_interval_that_is_none_is_refused(stepwell: Callable[..., Result], app: str, every: str) -> None:
    done = stepwell("--app", app, "worker", "--drain", "--prune-every", every)
    assert (2, True) == (done.code, "--prune-every" in done.err)
