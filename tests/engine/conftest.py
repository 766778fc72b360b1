"""Engines on every store that a test can have without a server, and programs in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stepwell import Engine, Workflow
from stepwell.store import Store
from stepwell_stores import open_store


class Bench:
    """Stores and engines on one set of data; all are closed with the test."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.url = {"memory": "memory:", "sqlite": f"sqlite:///{folder}/runs.db", "file": f"file:{folder}/runs"}[kind]
        self._opened: list[Any] = []
        self._memory: Store | None = None

    def store(self, clock: Callable[[], int] | None = None) -> Store:
        """Another store on the same data; in memory, the same one."""
        if self._memory is not None:
            return self._memory
        store = open_store(self.url, clock=clock)
        self._opened.append(store)
        if self.kind == "memory":
            self._memory = store
        return store

    def engine(self, *workflows: Workflow[Any, Any], store: Any = None, **options: Any) -> Engine:
        """Another engine on the same data, or on a store that the test made."""
        engine = Engine(self.store() if store is None else store, workflows, **options)
        self._opened.append(engine)
        return engine

    def close(self) -> None:
        for thing in reversed(self._opened):
            thing.close()


@pytest.fixture(params=["memory", "sqlite", "file"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(request.param, tmp_path)
    yield made
    made.close()


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Bench]:
    """For what no store can change."""
    made = Bench("memory", tmp_path)
    yield made
    made.close()


@pytest.fixture(params=["sqlite", "file"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """For what has to survive a process."""
    made = Bench(request.param, tmp_path)
    yield made
    made.close()


@pytest.fixture
def python(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a program in a process of its own, with the same packages; it ends with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code, *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            cwd=tmp_path,
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
