"""Parked runs that are kept in memory, so that the next signal need not replay their histories. Floor 4.

A history only grows, within an incarnation; so a machine that has taken in the first n events is as good as one that is
made anew of them. What came since is read and fed. Before, the last of the n is read again: it must be the very same
record, for a run may have been deleted and its id used again, or its file put back from a backup.

Cached machines are an old idea of servers of workflows, which call it sticky execution.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from collections import deque
from collections.abc import MutableMapping
from typing import Any, Generic, Protocol, TypeVar

from .logs import logger
from .machine import Machine

__all__ = ["Parked"]


class Run(Protocol):
    """What is kept."""

    run_id: str
    machine: Machine


R = TypeVar("R", bound=Run)


class Parked(Generic[R]):
    """Parked runs by run id, those of longest ago dropped first. Thread-safe.

    Args:
        most: how many are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._runs: dict[str, R] = {}
        self._lock = threading.RLock()  # a signal's handler may send a signal
        weakref.finalize(self, _leave, self._runs)  # of an engine that nobody closes
        _close_left()

    def keep(self, run: R) -> None:
        """Take a run over, whose last event is as the store has it; the caller must not use it any more."""
        if _left:
            _close_left()
        dropped = {run.run_id: run}
        if self._most and not run.machine.closed:
            with self._lock:
                before = self._runs.pop(run.run_id, None)
                self._runs[run.run_id] = run
                dropped = {} if before is None else {run.run_id: before}
                if len(self._runs) > self._most:
                    oldest = next(iter(self._runs))
                    dropped[oldest] = self._runs.pop(oldest)
        _close(dropped)

    def take(self, run_id: str) -> R | None:
        """Give a run away: the caller's own from now on."""
        if not self._runs:
            return None
        with self._lock:
            return self._runs.pop(run_id, None)

    def close(self) -> None:
        """Drop all, and keep none from now on."""
        with self._lock:
            self._most = 0
        _close(self._runs)

    def forget(self) -> None:
        """In a forked child: what was kept stays the parent's, but for the generators, which are here as well."""
        self._lock = threading.RLock()
        _close(self._runs)


_left: deque[MutableMapping[str, Any]] = deque()
"""What engines kept that nobody closed. The garbage collector may find them in the midst of anything, such as a turn of
another machine or a change of a context variable, where code of the user's must not run: it runs later."""


def _leave(runs: MutableMapping[str, Any]) -> None:
    _left.append(runs)


@atexit.register
def _close_left() -> None:
    """Close what was left, at the next chance, at the latest at exit."""
    while _left:
        try:
            runs = _left.popleft()
        except IndexError:
            break
        _close(runs)


def _close(runs: MutableMapping[str, Any]) -> None:
    """Close the machines, and forget them; another thread may take some of them meanwhile.

    What comes of their clean-up code has nothing to do with the run that is parked now, or with closing the engine.
    """
    interrupted: KeyboardInterrupt | None = None
    while runs:
        try:
            run = runs.popitem()[1]
        except KeyError:
            break
        try:
            run.machine.close()
        except KeyboardInterrupt as error:
            interrupted = error
        except BaseException:  # noqa: BLE001 - it is the user's code, and another run's
            logger.exception("closing the parked run %r failed", run.run_id)
    if interrupted is not None:
        raise interrupted
