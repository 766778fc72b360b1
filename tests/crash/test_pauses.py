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
from tests.crash.places import ON_SERVERS
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


COUNTS = {"jsonl": 300, "sqlite": 300, "postgres": 60, "redis": 60, "s3": 30}
"""Pauses; on servers they are waited for, and `tests.crash.soak --ci` makes 300 of each."""


@pytest.mark.parametrize("store", list(COUNTS))
def test_an_owner_of_yesterday_writes_nothing(server: str) -> None:
    """Shows S4 (P4)."""
    report = run("--store", server, "--count", str(COUNTS[server]))
    counts = report["counts"]
    assert [] == report["violations"]
    assert counts["pauses"] >= COUNTS[server]
    points = [point for point in CHANCES if server not in ON_SERVERS or point not in IN_THE_STORE]
    assert [] == [point for point in points if not counts.get(f"pauses, {point}")]
    few = COUNTS[server] // 15
    assert min(counts[name] for name in ("take-overs", "leases lost", "appends refused as Fenced")) > few


@pytest.mark.parametrize("store", list(COUNTS))
@pytest.mark.parametrize("bug", ["no fence", "fence checked before the transaction"])
def test_a_fence_that_guards_nothing_is_found(server: str, bug: str) -> None:
    report = run("--store", server, "--count", "200", "--plant", bug)
    assert any("stale write" in violation for violation in report["violations"])
