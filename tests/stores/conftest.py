"""What the tests of single stores share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import TypeAlias

import pytest

from stepwell.store import Created, Lease, LeaseRequest, Store
from stepwell.testing.contract import a_head, a_start

Creator: TypeAlias = Callable[..., Lease]
Python: TypeAlias = Callable[..., "subprocess.Popen[str]"]


def _create(store: Store, run_id: str = "r", ttl: float = 3600) -> Lease:
    made = store.create(run_id, [a_start()], head=a_head(), attempt_id="new", lease=LeaseRequest("me", ttl))
    assert isinstance(made, Created)
    assert made.lease is not None
    return made.lease


@pytest.fixture
def create() -> Creator:
    """Create an open run under a lease."""
    return _create


@pytest.fixture
def python() -> Iterator[Python]:
    """Start a program in a process of its own, with the same packages; it ends with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: str) -> subprocess.Popen[str]:
        paths = os.pathsep.join(path for path in sys.path if path)
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env={**os.environ, "PYTHONPATH": paths},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def said(python: Python) -> Callable[..., str]:
    """Run a program to its end and give what it printed."""

    def run(code: str, *arguments: str) -> str:
        process = python(code, *arguments)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        return out.strip()

    return run
