"""Processes that the demo starts, shows, and kills."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from .mistakes import DemoError
from .opening import STORE_VARIABLE
from .terminal import Terminal

__all__ = ["Process"]

_STYLES = {
    "answered from history": "busy",
    ": ran,": "good",
    "malformed": "bad",
    "waits for": "wait",
    "completed": "good",
    "next:": "dim",
}
_LONGEST = 30.0  # seconds


class Process:
    """A Python process of its own, whose output is shown line by line behind its process id.

    Args:
        terminal: where its lines go; None keeps them to itself.
        arguments: what follows `python -m`.
        store: URL for its environment.
    """

    def __init__(self, terminal: Terminal | None, arguments: Sequence[str], store: str) -> None:
        environment = os.environ | {STORE_VARIABLE: store, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
        self._terminal = terminal
        self._child = subprocess.Popen(  # noqa: S603 - the arguments are the demo's own
            [sys.executable, "-m", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            encoding="utf-8",
            errors="replace",
        )
        self.pid = self._child.pid
        self.lines: list[str] = []
        self._pump = threading.Thread(target=self._read, name=f"demo-{self.pid}", daemon=True)
        self._pump.start()

    @property
    def ended(self) -> bool:
        """Whether it has exited."""
        return self._child.poll() is not None

    def finish(self) -> None:
        """Wait until it has exited by itself.

        Raises:
            DemoError: it failed, or takes too long.
        """
        try:
            code = self._child.wait(_LONGEST)
        except subprocess.TimeoutExpired:
            self.kill()
            raise DemoError(f"process {self.pid} did not end within {_LONGEST:.0f} seconds") from None
        self._pump.join(_LONGEST)
        if code != 0:
            last = f": {self.lines[-1]}" if self.lines else ""
            raise DemoError(f"process {self.pid} ended with exit code {code}{last}")

    def kill(self) -> None:
        """Send SIGKILL, which no process can catch, and wait until it is gone."""
        self._child.kill()
        self._child.wait()
        self._pump.join(_LONGEST)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if not self.ended:
            self.kill()
        if self._child.stdout is not None:
            self._child.stdout.close()

    def _read(self) -> None:
        assert self._child.stdout is not None
        for text in self._child.stdout:
            line = text.rstrip("\n")
            self.lines.append(line)
            if self._terminal is not None:
                self._show(self._terminal, line)

    def _show(self, terminal: Terminal, line: str) -> None:
        style = next((style for words, style in _STYLES.items() if words in line), "")
        try:
            terminal.write(terminal.styled(f"  {self.pid} │ ", "dim") + terminal.styled(line, style))
            terminal.flush()
        except OSError:  # the reader is gone: the next line that the demo itself writes ends it
            self._terminal = None
