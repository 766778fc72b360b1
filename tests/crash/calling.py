"""How a test calls a harness: in a process of its own, which mounts, forks and dies as it likes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

__all__ = ["reached", "report_of"]

ROOT = Path(__file__).parents[2]
PATIENCE = 600
"""Seconds after which the harness itself is taken for hung."""


def report_of(harness: str, *options: object) -> dict[str, Any]:
    """Run a harness, and give what it reports.

    The test is skipped when the machine can't do what the harness needs. When all that is missing is a package, and
    REQUIRE_REAL is set, it fails.
    """
    path = [str(ROOT), *(entry for entry in sys.path if entry)]
    done = subprocess.run(
        [sys.executable, "-m", f"tests.crash.{harness}", *map(str, options)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
    )
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if report["skipped"]:
        package = report["facts"].get("package")
        if package and os.environ.get("REQUIRE_REAL"):
            pytest.fail(f"{report['skipped']}; install {package}")
        pytest.skip(report["skipped"])
    assert bool(report["violations"]) == bool(done.returncode)
    return report


def reached(report: dict[str, Any], *names: str) -> None:
    """See that the states for which the harness is there did come up."""
    assert [] == [name for name in names if not report["counts"].get(name)]
