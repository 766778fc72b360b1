"""What a worker removes from time to time, as the workflows' ttl says: a little at a time, beside its work. Floor 4."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from .errors import StepwellError
from .loading import Parts
from .logs import logger
from .retention import Fate, Wanted, sweep
from .store import RunHead

__all__ = ["Sweeper"]

_AT_ONCE = 200
"""Runs that one pass looks at."""

_SHARE = 5
"""When there is more to do, the next pass begins after so many times as long as the last one took."""


class Sweeper:
    """Removes closed runs whose ttl is over, in a thread that lives for one short pass at a time.

    Without a workflow that has a ttl there is no thread, and nothing is asked of the store.

    Args:
        every: seconds between the end of one sweep through the store and the next; None: never.
        stopped: ends a pass between two runs.

    Attributes:
        removed: how many runs so far.
    """

    def __init__(self, parts: Parts, every: float | None, stopped: threading.Event) -> None:
        self.removed = 0
        self._parts, self._every, self._stopped = parts, every, stopped
        self._next = 0.0  # on the monotonic clock
        self._sweep: Iterator[tuple[RunHead, Fate]] | None = None
        self._thread: threading.Thread | None = None

    def look(self) -> None:
        """Begin a pass when it is time for one; quick, and never waits."""
        if self._every is None or time.monotonic() < self._next:
            return
        if self._thread is not None and self._thread.is_alive():
            return
        if not self._parts.registry.with_ttl():
            self._next = time.monotonic() + self._every
            return
        self._thread = threading.Thread(target=self._pass, name="stepwell-worker-prune", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until the pass that is under way has ended."""
        if self._thread is not None:
            self._thread.join()

    def _pass(self) -> None:
        began, removed, pause = time.monotonic(), 0, self._every or 0.0
        try:
            self._sweep = self._sweep or sweep(self._parts, Wanted())
            for looked, (_, fate) in enumerate(self._sweep, 1):
                removed += fate == "removed"
                if self._stopped.is_set():
                    break
                if looked == _AT_ONCE:
                    pause = min(pause, _SHARE * (time.monotonic() - began))
                    break
            else:
                self._sweep = None
        except StepwellError as error:
            self._sweep = None
            logger.warning("removing runs whose ttl is over failed; it is tried again later: %s", error)
        finally:
            self.removed += removed
            self._next = time.monotonic() + pause
        if removed:
            logger.info("%d closed runs were removed, as the ttl of their workflows says", removed)
