"""Eight processes that do the same to one run at once: `tests.crash.start_races`, as often as a commit can afford."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def run(*args: str) -> dict[str, Any]:
    """What the harness reports; it runs in a process of its own, since it forks."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "engine"), str(ROOT / "stores")])
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.start_races", *args],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert (1 if report["violations"] else 0) == done.returncode, done.stderr
    return report


COUNTS = {"jsonl": 200, "sqlite": 200, "postgres": 80, "redis": 80, "s3": 20}
"""Rounds of starts; on servers `tests.crash.soak --ci` makes 200 of each."""


@pytest.mark.parametrize("store", list(COUNTS))
def test_one_of_eight_processes_wins(server: str) -> None:
    """Shows S16 (P4, P5)."""
    starts = COUNTS[server]
    report = run("--store", server, "--count", str(starts))
    counts = report["counts"]
    assert [] == report["violations"]
    assert counts["starts"] == starts
    few = starts // 40
    assert min(counts[f"rounds, {name}"] for name in ("claim", "retry", "resume, one id", "delete")) > few
    assert counts["rounds, start on no store"] > few
    answers = ("Running", "RunCompleted", "ConflictError", "RunBusyError")
    assert min(counts[f"answers, {name}"] for name in answers) > few


def test_an_old_sqlite_file_is_migrated_once() -> None:
    report = run("--store", "sqlite", "--count", "40")
    assert [] == [violation for violation in report["violations"] if "old" in violation]
    assert report["counts"]["rounds, start on an old store"] >= 2


BUGS = ("existing run looked for before the transaction", "live lease not respected")


@pytest.mark.parametrize(
    ("store", "bug"),
    [(store, bug) for store in COUNTS for bug in BUGS[: 1 if store == "s3" else None]],  # the soak has the other one
)
def test_a_second_winner_is_found(server: str, bug: str) -> None:
    report = run("--store", server, "--count", "100", "--plant", bug)
    assert report["violations"], "several processes performed it, or what they wrote can't be read"
    assert report["counts"]["starts"] < 100
