"""Cut connections and killed servers: `tests.crash.redis_faults`, as often as each commit can afford."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.servers.valkey import Valkey

ROOT = Path(__file__).parents[2]


def run(*args: str) -> dict[str, Any]:
    """What the harness reports."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "engine"), str(ROOT / "stores")])
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.redis_faults", *args],
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


@pytest.fixture(autouse=True)
def _needs_a_server(valkey_server: Valkey) -> None:
    """It says why, where there is none."""


def test_whatever_is_cut_each_record_is_there_once() -> None:
    report = run("cuts", "--count", "150")
    counts = report["counts"]
    assert [] == report["violations"]
    assert min(counts["cuts of questions"], counts["cuts of answers"]) > 40
    assert counts["written, though the answer was lost"] > 20


def test_an_attempt_that_is_not_repeated_as_it_was_is_found() -> None:
    assert run("cuts", "--count", "150", "--plant", "another attempt")["violations"]


def test_what_a_killed_server_has_acknowledged_is_there() -> None:
    report = run("kills", "--count", "10")
    assert [] == report["violations"]
    assert report["counts"]["acks"] > 100


def test_without_a_file_it_is_not() -> None:
    report = run("kills", "--count", "2", "--plant", "no file")
    assert report["counts"]["lost"] > 0
