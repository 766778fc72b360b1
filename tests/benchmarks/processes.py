"""Processes of their own for what is measured: each begins with an empty memory and nothing imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import stepwell
import stepwell_stores

__all__ = ["ROOT", "ChildError", "child", "until_finished", "wall"]

ROOT = Path(__file__).parents[2]
_PACKAGES = dict.fromkeys(str(Path(module.__path__[0]).parent) for module in (stepwell, stepwell_stores))


class ChildError(Exception):
    """A child failed, or did not say what it was to say."""


def environment(python: str | None) -> dict[str, str]:
    """What a child sees: this project's tests, and the library unless it runs in a peer's own environment."""
    path = [str(ROOT), *(_PACKAGES if python is None else ())]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COVERAGE"))}
    return {**kept, "PYTHONPATH": os.pathsep.join(path)}


def child(function: str, *, python: str | None = None, seconds: float = 3600, **options: Any) -> dict[str, Any]:
    """Call a function in a process of its own, and give what it returns.

    Args:
        function: `module.name`, the module below this package.
        python: another interpreter than this one.
        options: its arguments, which JSON can hold.

    Raises:
        ChildError: it failed or hung.
    """
    command = [python or sys.executable, "-m", "tests.benchmarks.child", function, json.dumps(options)]
    said = _run(command, python, seconds).splitlines()
    try:
        found: dict[str, Any] = json.loads(said[-1])
    except (ValueError, IndexError):
        raise ChildError(f"{function}: no result in {said[-1:]!r}") from None
    return found


def wall(code: str, *, python: str | None = None) -> float:
    """Milliseconds from the start of an interpreter that runs `code` to its end."""
    began = time.perf_counter()
    _run([python or sys.executable, "-c", code], python, 300)
    return 1000 * (time.perf_counter() - began)


def until_finished(code: str, *arguments: str, python: str | None = None) -> tuple[float, str]:
    """Milliseconds from the start of an interpreter to an instant that `code` prints, and what it prints after that.

    The instant is of `time.monotonic`, which all processes share; it stands in the line before the last.
    """
    began = time.monotonic()
    instant, durability = _run([python or sys.executable, "-c", code, *arguments], python, 300).splitlines()[-2:]
    return 1000 * (float(instant) - began), durability


def _run(command: Sequence[str], python: str | None, seconds: float) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment(python),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ChildError(f"{command[-2]}: took longer than {seconds:,.0f} seconds") from None
    if done.returncode:
        said = done.stderr.strip()
        print(said, file=sys.stderr)
        raise ChildError(f"{command[-2]}: exit code {done.returncode}: {said.splitlines()[-1:]}")
    return done.stdout
