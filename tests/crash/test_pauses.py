"""Owners that are stopped past their leases: `tests.crash.pauses`, as often as each commit can afford."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.crash.stops import CHANCES, IN_THE_STORE

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGSTOP") or sys.platform == "darwin", reason="needs Linux")


def run(*args: str) -> dict[str, Any]:
    """What the harness reports; it runs in a process of its own, since it forks."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "engine"), str(ROOT / "stores")])
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.pauses", *args],
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


@pytest.mark.parametrize("store", ["jsonl", "sqlite", "redis"])
def test_an_owner_of_yesterday_writes_nothing(store: str) -> None:
    """Shows S4 (P4)."""
    count = 300 if store != "redis" else 120
    report = run("--store", store, "--count", str(count))
    counts = report["counts"]
    assert [] == report["violations"]
    assert counts["pauses"] >= count
    points = [point for point in CHANCES if store != "redis" or point not in IN_THE_STORE]
    assert [] == [point for point in points if not counts.get(f"pauses, {point}")]
    assert min(counts[name] for name in ("take-overs", "leases lost", "appends refused as Fenced")) > 20


@pytest.mark.parametrize("store", ["jsonl", "sqlite", "redis"])
@pytest.mark.parametrize("bug", ["no fence", "fence checked before the transaction"])
def test_a_fence_that_guards_nothing_is_found(store: str, bug: str) -> None:
    report = run("--store", store, "--count", "200", "--plant", bug)
    assert any("stale write" in violation for violation in report["violations"])
