"""What all servers of the tests share: they are found, not imported; listen on loopback; end by their pid."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Program", "folder", "free_port", "in_package", "missing", "on_path"]

PATIENCE = 60.0
"""Seconds after which a server that doesn't answer is taken for broken."""


def free_port() -> int:
    """A port of the loopback interface that nobody has.

    Not one of those that the kernel gives to outgoing connections, which might take it before the server does, or while
    the server is down.
    """
    for _ in range(1_000):
        with socket.socket() as listener, contextlib.suppress(OSError):
            port = 10_000 + secrets.randbelow(20_000)
            listener.bind(("127.0.0.1", port))
            return port
    raise OSError("no port of the loopback interface is free")


def in_package(name: str, *parts: str) -> Path | None:
    """A path inside an installed package, which is not imported; None when it is not there."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(next(iter(spec.submodule_search_locations)), *parts)
    return path if path.exists() else None


def on_path(*names: str) -> Path | None:
    """The first of these programs that PATH has."""
    return next((Path(found) for name in names if (found := shutil.which(name))), None)


def missing(what: str, package: str) -> None:
    """Skip the test that needs this server; with REQUIRE_REAL set, fail it."""
    text = f"no {what} here; pip install {package}"
    if os.environ.get("REQUIRE_REAL"):
        pytest.fail(text)
    pytest.skip(text)


@contextlib.contextmanager
def folder(kind: str, within: Path | None = None) -> Iterator[Path]:
    """A directory of the server's own, in another one where that is given."""
    path = Path(tempfile.mkdtemp(prefix=f"stepwell-{kind}-", dir=within))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class Program:
    """A server process: started, asked until it answers, killed and started again at will.

    Args:
        command: the program and its arguments.
        log: a file for what it prints.
        answers: asks the server something; an exception means not yet.
        options: for `Popen`.
    """

    def __init__(self, command: Sequence[Any], log: Path, answers: Callable[[], object], **options: Any) -> None:
        self._command, self._log, self._answers, self._options = [str(part) for part in command], log, answers, options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def started(self) -> bool:
        """Whether it was, and nobody has ended it since."""
        return self._process is not None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self._log.open("ab") as log:
            process = subprocess.Popen(self._command, stdout=log, stderr=log, **self._options)
        self._process, pause = process, threading.Event()
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self._answers()
            except Exception as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    self.kill()
                    text = self._log.read_text(errors="replace")[-3000:]
                    raise RuntimeError(f"{self._command[0]} does not answer:\n{text}") from error
                pause.wait(0.02)
            else:
                return

    def stop(self, how: signal.Signals = signal.SIGTERM, seconds: float = 20) -> None:
        """End it, by SIGKILL when it takes too long."""
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Stop it where it is."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)
