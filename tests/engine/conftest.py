"""Engines on every store, and programs in processes of their own.

A test that asks for `bench` or `disk` runs on the stores that need no server, or on those that `--stores` names.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stepwell import Engine, Workflow
from stepwell.store import HeadFilter, Lease, Store
from stepwell_stores import open_store


def embedded(kind: str, folder: Path) -> str:
    """The URL of a store that needs no server."""
    return {"memory": "memory:", "sqlite": f"sqlite:///{folder}/runs.db", "file": f"file:{folder}/runs"}[kind]


_BENCHES = pytest.StashKey[list["Bench"]]()


class Bench:
    """Stores and engines on one set of data; all are closed with the test."""

    def __init__(self, kind: str, url: str) -> None:
        self.kind, self.url, self._urls = kind, url, [url]
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

    def beside(self, name: object) -> str:
        """The URL of another store beside this one."""
        if self.kind == "postgres":
            url = f"{self.url}?schema=beside_{name}"
        elif "runs.db" in self.url:
            url = self.url.replace("runs.db", f"runs-{name}.db")
        else:
            url = f"{self.url}-{name}"
        self._urls.append(url)
        return url

    def bury(self) -> None:
        """End the leases of processes that were killed, as their time would: a server does not see that they died."""
        if self.kind in ("memory", "sqlite", "file"):
            return
        for url in self._urls:
            store = open_store(url)
            for held in store.heads(HeadFilter(status="running"), limit=1000):
                store.release(Lease(held.run_id, held.incarnation, held.fence, held.seq, "", 0))
            store.close()

    def close(self) -> None:
        for thing in reversed(self._opened):
            thing.close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    kinds = metafunc.config.getoption("--stores").split(",")
    for name, wanted in (("bench", kinds), ("disk", [kind for kind in kinds if kind != "memory"])):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, wanted, indirect=True)


def make_bench(kind: str, request: pytest.FixtureRequest) -> Iterator[Bench]:
    match kind:
        case "memory" | "sqlite" | "file":
            url = embedded(kind, request.getfixturevalue("tmp_path"))
        case "encrypted" | "wrapped":
            request.getfixturevalue("monkeypatch").setenv("STEPWELL_KEYS", f"k1:{b64encode(bytes(range(32))).decode()}")
            folder = request.getfixturevalue("tmp_path")
            url = f"encrypted+{embedded('sqlite', folder)}"
            if kind == "wrapped":
                url = f"compressed+encrypted+offloaded+{embedded('sqlite', folder)}?blobs={folder}/blobs"
                url += "&above=100&threshold=300"
        case "postgres":
            url = request.getfixturevalue("database")
        case "redis":
            url = request.getfixturevalue("valkey_server").url(prefix=uuid.uuid4().hex)
        case "s3":
            server, patch = request.getfixturevalue("s3_server"), request.getfixturevalue("monkeypatch")
            for name, value in server.environment.items():
                patch.setenv(name, value)
            url = server.url()
        case _:
            raise pytest.UsageError(f"--stores: no such store: {kind}")
    made = Bench(kind, url)
    request.node.stash.setdefault(_BENCHES, []).append(made)
    yield made
    made.close()


@pytest.fixture
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    yield from make_bench(request.param, request)


@pytest.fixture
def memory(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """For what no store can change."""
    yield from make_bench("memory", request)


@pytest.fixture
def disk(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """For what has to survive a process."""
    yield from make_bench(request.param, request)


@pytest.fixture
def python(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a program in a process of its own, with the same packages; it ends with the test."""
    started: list[subprocess.Popen[str]] = []

    class Process(subprocess.Popen[str]):
        def wait(self, timeout: float | None = None) -> int:
            code = super().wait(timeout)
            if code == -signal.SIGKILL:
                for bench in request.node.stash.get(_BENCHES, []):
                    bench.bury()
            return code

    def start(code: str, *arguments: str) -> subprocess.Popen[str]:
        process = Process(
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
