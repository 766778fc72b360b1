"""`stepwell check`: which open runs the code at hand would break, and that nothing is written to find out."""

from __future__ import annotations

import gc
import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stepwell import Engine
from stepwell.digests import digest
from stepwell.store import Lease
from stepwell.testing.fleet import Fleet
from stepwell_stores import open_store

from .conftest import environment

SQLITE, FILES = "sqlite:///runs.db", "file:runs"
OLD = """
import os
from stepwell import *

def reserve(item: str) -> str:
    return item
def ship(item: str) -> str:
    return item
def check_fraud(item: str) -> str:
    return item

@workflow
def order(item: str) -> Flow[str]:
    yield Step(reserve, item)
    yield Suspend("paid")
    return (yield from Step(ship, item))

@workflow
def parcel(item: str) -> Flow[str]:
    yield Step(ship, item)
    return (yield from Suspend("collected", into=str))

engine = Engine(os.environ.get("STEPWELL_STORE", "sqlite:///elsewhere.db"), workflows=[order, parcel])
"""
CHANGES = {
    "same": lambda text: text,
    "step": lambda text: text.replace("    yield Step(res", "    yield Step(check_fraud, item)\n    yield Step(res"),
    "inputs": lambda text: text.replace("Step(reserve, item)", "Step(reserve, item + '!')"),
    "version": lambda text: text.replace("@workflow\ndef order", "@workflow(version='2')\ndef order"),
    "unknown": lambda text: text.replace("workflows=[order, parcel]", "workflows=[parcel]"),
}
IDS = ["order-0", "order-1", "order-2"]


@pytest.fixture(params=[SQLITE, FILES])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def filled(here: Path, url: str, write_app: Callable[[str], str], stepwell: Any) -> str:
    """A store with three open orders and two parcels, one of which is closed; by the old code."""
    app = write_app(OLD) + ":engine"
    with Engine(url):
        for number in range(3):
            item = ("order", f'"item-{number}"', "--run-id", f"order-{number}")
            assert 0 == stepwell("--app", app, "--store", _made(url), "start", *item).code
    for name in ("kept", "given"):
        assert 0 == stepwell("--app", app, "--store", url, "start", "parcel", '"box"', "--run-id", name).code
    assert 0 == stepwell("--app", app, "--store", url, "resume", "given", "collected", '"ada"').code
    return url


def _made(url: str) -> str:
    """The URL, once there is such a store."""
    with Engine(url) as engine:
        engine.runs()
    return url


@pytest.fixture
def check(filled: str, write_app: Callable[[str], str], stepwell: Any) -> Callable[..., Any]:
    """Checks the store with changed code: exit code and what was printed, JSON unless it is told otherwise."""

    def call(change: str, *arguments: str, text: bool = False) -> Any:
        app = write_app(CHANGES[change](OLD)) + ":engine"
        done = stepwell("--app", app, "--store", filled, "check", *arguments, *(() if text else ("--json",)))
        assert "" == done.err
        return done.code, done.out if text else json.loads(done.out)

    return call


def seen(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Every file below a folder: a digest of its bytes, when it was changed, and which one it is."""
    gc.collect()  # engines of apps that were dropped close their files
    found = {}
    for one in sorted(folder.rglob("*")):
        if not one.name.startswith("app_") and "__pycache__" not in one.parts:
            about = one.stat()
            text = one.read_bytes() if one.is_file() else b""
            found[str(one.relative_to(folder))] = (digest(text), about.st_mtime_ns, about.st_ino)
    return found


def test_code_that_fits_breaks_nothing(check: Any) -> None:
    assert (0, {"checked": 4, "fits": 4, "gone": 0, "breaks": 0, "runs": []}) == check("same")
    assert (0, "4 open runs checked: no run would break\n") == check("same", text=True)


def test_each_run_that_breaks_is_named_with_what_diverges_and_a_remedy(check: Any) -> None:
    code, found = check("step")
    assert 1 == code
    assert (4, 1, 3) == (found["checked"], found["fits"], found["breaks"])
    assert IDS == sorted(run["runId"] for run in found["runs"])
    for run in found["runs"]:
        assert ("order", "1", 0) == (run["workflow"], run["version"], run["incarnation"])
        assert (1, "0") == (run["seq"], run["at"])
        assert ("command", "DIVERGENCE") == (run["kind"], run["code"])
        assert ("step 'reserve'", "step 'check_fraud'") == (run["recorded"], run["yielded"])
        assert ["Patched", "version", "fork"] == [one["by"] for one in run["remedies"]]


def test_people_are_shown_runs_that_break_in_the_same_way_together(check: Any) -> None:
    code, text = check("step", text=True)
    assert 1 == code
    assert 1 == text.count("yielded    step 'check_fraud'")
    assert "  also       'order-" in text
    assert text.endswith("4 open runs checked: 3 runs would break (order 3)\n")


def test_changed_inputs_count_unless_they_are_to_be_ignored(check: Any) -> None:
    code, found = check("inputs")
    assert (1, 3) == (code, found["breaks"])
    (change,) = next(run for run in found["runs"] if run["runId"] == "order-1")["changed"]
    assert ("reserve", '["item-1!"]') == (change["subject"], change["now"])
    assert change["digest"] != change["recordedDigest"]
    code, found = check("inputs", "--ignore-inputs")
    assert (0, 0) == (code, found["breaks"])


@pytest.mark.parametrize(
    ("change", "code", "by"), [("version", "VERSION_MISMATCH", "version"), ("unknown", "NOT_FOUND", "workflows")]
)
def test_a_workflow_that_is_gone_breaks_its_runs(check: Any, change: str, code: str, by: str) -> None:
    exit_code, found = check(change)
    assert (1, 3) == (exit_code, found["breaks"])
    assert {(code, by)} == {(run["code"], run["remedies"][0]["by"]) for run in found["runs"]}


def test_one_workflow_may_be_asked_for(check: Any) -> None:
    for name, wanted in (("parcel", (0, 1)), ("order", (1, 3))):
        code, found = check("step", "--workflow", name)
        assert wanted == (code, found["checked"])


def test_a_workflow_that_nobody_knows_is_no_success(
    filled: str, write_app: Callable[[str], str], stepwell: Any
) -> None:
    """A name that is mistyped in a pipeline would let everything pass."""
    app = write_app(OLD) + ":engine"
    done = stepwell("--app", app, "--store", filled, "check", "--workflow", "ordr")
    assert 2 == done.code
    assert "--workflow ordr: the app has no workflow of that name" in done.err


def test_several_processes_find_what_one_does(check: Any) -> None:
    for change in ("same", "step", "inputs"):
        one, two = (check(change, "--processes", number) for number in "12")
        for _, found in (one, two):
            found["runs"].sort(key=lambda run: run["runId"])
            for run in found["runs"]:
                run["line"] = run["line"].partition(":")[2]  # each check has an app of its own
        assert one == two


def test_nothing_is_written(filled: str, here: Path, write_app: Any, process: Any) -> None:
    """No byte, no time, no file, no lease: not even by looking."""
    app = write_app(CHANGES["step"](OLD)) + ":engine"
    store = open_store(filled)
    lease = store.claim("order-1", "somebody", 3600.0)
    assert isinstance(lease, Lease)
    head = store.head("order-1")
    before = seen(here)
    for number in "12":
        done = process("--app", app, "--store", filled, "check", "--json", "--processes", number)
        assert (1, 3) == (done.returncode, json.loads(done.stdout)["breaks"])
    assert before == seen(here)
    assert head == store.head("order-1")
    assert store.renew(lease, 3600.0) is not None
    store.close()


AS_NOBODY = """
import os, sys
sys.path.insert(0, sys.argv[1])
import stepwell.cli.checking, stepwell.testing.fleet_processes, stepwell.cli, app  # nobody may read these
if os.geteuid() == 0:  # for whom no permission counts
    os.setgid(65534)
    os.setuid(65534)
sys.exit(stepwell.cli.main(["--app", "app:engine", "--store", sys.argv[2], "check", "--json", "--processes", "1"]))
"""


def test_a_copy_is_checked_that_can_not_be_written(filled: str, here: Path) -> None:
    """By somebody who may read it, and nothing else."""
    place = Path(os.path.realpath(tempfile.mkdtemp()))
    (place / "code").mkdir()
    (place / "code" / "app.py").write_text(CHANGES["step"](OLD), "utf-8")
    path = here / filled.rpartition("/")[2].removeprefix("file:")
    copy = place / "copy"
    copy.mkdir()
    if path.is_dir():
        shutil.copytree(path, copy / path.name)
    else:
        shutil.copy(path, copy)
    for one in (*copy.rglob("*"), copy, place):
        one.chmod(0o555 if one.is_dir() else 0o444)
    before = seen(copy)
    try:
        done = subprocess.run(
            [
                sys.executable,
                "-B",
                "-c",
                AS_NOBODY,
                str(place / "code"),
                filled.replace(path.name, str(copy / path.name)),
            ],
            env=environment(),
            cwd="/",
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )
        assert "" == done.stderr
        assert (1, 3) == (done.returncode, json.loads(done.stdout)["breaks"])
        assert before == seen(copy)
    finally:
        for one in (place, copy, *copy.rglob("*")):
            one.chmod(0o755)
        shutil.rmtree(place)


def test_a_damaged_history_is_a_break_and_the_others_are_checked(filled: str, here: Path, check: Any) -> None:
    if filled == SQLITE:
        db = sqlite3.connect(here / "runs.db")
        db.execute(
            "UPDATE stepwell_events SET body = CAST(replace(body, 'item-1', 'item-9') AS BLOB) WHERE run_id = 'order-1'"
        )
        db.commit()
        db.close()
    else:
        (journal,) = (here / "runs").glob("order-1.*.jsonl")
        journal.write_bytes(journal.read_bytes().replace(b"item-1", b"item-9"))
    code, found = check("same")
    assert (1, 4, 3) == (code, found["checked"], found["fits"])
    (run,) = found["runs"]
    assert ("order-1", "damaged", "CORRUPT_HISTORY", "backup") == (
        *(run[key] for key in ("runId", "kind", "code")),
        run["remedies"][0]["by"],
    )


def test_what_the_app_prints_disturbs_nothing(filled: str, write_app: Any, stepwell: Any) -> None:
    text = OLD.replace("    yield Step(ship", "    print('hello')\n    yield Step(ship") + "print('loaded')\n"
    done = stepwell("--app", write_app(text) + ":engine", "--store", filled, "check", "--processes", "2")
    assert 0 == done.code
    assert done.out.endswith("4 open runs checked: no run would break\n")


def test_a_process_that_dies_is_told(here: Path, write_app: Any, stepwell: Any) -> None:
    app = write_app(OLD) + ":engine"
    _made(SQLITE)
    stepwell("--app", app, "--store", SQLITE, "start", "order", '"tea"')
    dies = OLD.replace("    yield Step(reserve", "    os._exit(3)\n    yield Step(reserve")
    done = stepwell("--app", write_app(dies) + ":engine", "--store", SQLITE, "check", "--processes", "2")
    assert (2, "stepwell: CHECK: a process of the check has died (exit code 3); what it printed says why\n") == (
        done.code,
        done.err,
    )


def test_a_store_that_is_written_meanwhile_is_checked(here: Path, write_app: Any, stepwell: Any, process: Any) -> None:
    """A live SQLite store has a log, which is read as it is."""
    app = write_app(OLD) + ":engine"
    _made(SQLITE)
    stepwell("--app", app, "--store", SQLITE, "start", "order", '"tea"', "--run-id", "a")
    with Engine(SQLITE) as engine:
        engine.signal("a", "other", 1)  # the log is not empty now
        assert (here / "runs.db-wal").stat().st_size
        before = seen(here)
        done = process("--app", app, "--store", SQLITE, "check", "--json")
        assert (0, 1) == (done.returncode, json.loads(done.stdout)["fits"])
        assert before == seen(here)


def test_many_runs_are_read_page_by_page(here: Path, write_app: Any, stepwell: Any) -> None:
    app = write_app(OLD + "for n in range(1203 if __name__ == '__fill__' else 0):\n    engine.submit(order, str(n))\n")
    url = "sqlite:///runs.db?sync=normal"
    _made(url)
    space: dict[str, Any] = {"__name__": "__fill__"}
    os.environ["STEPWELL_STORE"] = url
    exec(compile((here / f"{app}.py").read_text("utf-8"), "app", "exec"), space)
    space["engine"].close()
    done = stepwell("--app", f"{app}:engine", "--store", url, "check", "--json", "--processes", "2")
    assert (0, 1203) == (done.code, json.loads(done.out)["fits"])


def test_a_run_that_is_closed_meanwhile_breaks_nothing(here: Path) -> None:
    space: dict[str, Any] = {"__name__": "app"}
    exec(OLD, space)
    new: dict[str, Any] = {"__name__": "app"}
    exec(CHANGES["step"](OLD), new)
    with Engine("memory:", [space["order"]]) as engine:
        engine.start(space["order"], "tea", run_id="a")
        with Engine(engine.store, [new["order"]]) as other:
            fleet = Fleet(other._parts)
            heads = engine.store.heads

            def ending(*where: Any, **how: Any) -> Any:
                found = heads(*where, **how)
                if found:
                    engine.resume("a", "paid")
                return found

            engine.store.heads = ending  # type: ignore[method-assign]
            assert [0.0] == list(fleet.check())
    assert (0, 1, []) == (fleet.fits, fleet.gone, fleet.misfits)


def test_the_app_s_own_store_is_checked_when_none_is_named(here: Path, write_app: Any, stepwell: Any) -> None:
    app = write_app(OLD) + ":engine"
    _made("sqlite:///elsewhere.db")
    stepwell("--app", app, "start", "order", '"tea"')
    done = stepwell("--app", app, "check")
    assert (0, "1 open run checked: no run would break\n") == (done.code, done.out)


def test_a_bar_shows_how_far_it_has_come(filled: str, write_app: Any, stepwell: Any, monkeypatch: Any) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    app = write_app(CHANGES["step"](OLD)) + ":engine"
    assert 1 == stepwell("--app", app, "--store", filled, "check", "--processes", "1").code
    assert "replaying open runs" in screen.getvalue()
    screen.truncate(0)
    assert 1 == stepwell("--app", app, "--store", filled, "check", "--json", "--processes", "1").code
    assert "" == screen.getvalue().strip("\0")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("check",), "USAGE: check replays runs against workflow code: say where it is"),
        (("--app", "APP", "--store", "sqlite:///none.db", "check"), "no store at"),
        (("--app", "APP", "--store", "nonsense", "check"), "not a store URL"),
        (("--app", "APP", "check", "--processes", "0"), "takes a whole number from 1 to 256"),
        (("--app", "no_such:engine", "check"), "APP: no module 'no_such'"),
    ],
)
def test_mistakes_are_told_in_a_line(write_app: Any, stepwell: Any, arguments: Any, text: str) -> None:
    app = write_app(OLD) + ":engine"
    done = stepwell(*(app if one == "APP" else one for one in arguments))
    assert 2 == done.code
    assert text in done.err
    assert 1 == done.err.count("\n")
