"""How those who wait for a history to grow, or for a run to become due, are told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from stepwell.store import Committed, Created

from .liveness import ForkAware, watch_forks

__all__ = ["Bell", "DueBell"]

T = TypeVar("T")

_POLL = 0.1  # seconds between two looks at what other processes wrote


class DueBell(ForkAware):
    """Rung when a write of this process may have made a run due."""

    def __init__(self) -> None:
        self._wakes: dict[object, Callable[[], None]] = {}
        watch_forks(self)

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called at each ring, until the function that this gives is called."""
        token = object()
        self._wakes[token] = wake
        return lambda: self._wakes.pop(token, None) and None

    def ring(self) -> None:
        """Call all who listen."""
        for wake in list(self._wakes.values()):
            wake()

    def told(self, done: T, due: int | None) -> T:
        """Give the outcome of a write back, after ringing when it may have left a run due that nobody holds."""
        if due is not None and isinstance(done, (Created, Committed)) and done.lease is None:
            self.ring()
        return done

    def after_fork_in_child(self) -> None:
        """Those who listen are threads of the parent."""
        self._wakes = {}


class Bell(ForkAware):
    """Rung at every write of this process; what other processes write is looked for.

    Args:
        poll: seconds between two looks.
    """

    def __init__(self, poll: float = _POLL) -> None:
        self._poll = poll
        self._rung = threading.Condition()
        self._count = 0
        self._waiting = 0
        self.due = DueBell()
        watch_forks(self)

    def ring(self) -> None:
        """Wake all who wait for a history."""
        self._count += 1  # first: who begins to wait now sees it
        if self._waiting:
            with self._rung:
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
                self._waiting += 1
                try:
                    if self._count == before:
                        self._rung.wait(min(left, self._poll))
                finally:
                    self._waiting -= 1

    def after_fork_in_child(self) -> None:
        """Make a new lock: the inherited one may be held by a thread that isn't here."""
        self._rung = threading.Condition()
        self._waiting = 0
