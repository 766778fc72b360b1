"""How those who wait for a history to grow are told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from .liveness import ForkAware, watch_forks

__all__ = ["Bell"]

_POLL = 0.1  # seconds between two looks at what other processes wrote


class Bell(ForkAware):
    """Rung at every write of this process; what other processes write is looked for."""

    def __init__(self) -> None:
        self._rung = threading.Condition()
        self._count = 0
        watch_forks(self)

    def ring(self) -> None:
        """Wake all who wait."""
        with self._rung:
            self._count += 1
            self._rung.notify_all()

    def wait(self, grown: Callable[[], bool], timeout: float) -> bool:
        """Block until `grown()`, at most `timeout` seconds; whether it did."""
        deadline = time.monotonic() + timeout
        while True:
            before = self._count
            if grown():
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            with self._rung:
                if self._count == before:
                    self._rung.wait(min(left, _POLL))

    def after_fork_in_child(self) -> None:
        """Make a new lock: the inherited one may be held by a thread that isn't here."""
        self._rung = threading.Condition()
