"""Virtual time and threads that are none, for simulations."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from ..errors import InvalidInputError
from ..events import micros
from ..retry import as_seconds

__all__ = ["EPOCH", "InlineExecutor", "SeededEntropy", "VirtualClock", "same_chance"]

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
"""When a simulation begins, unless it is told otherwise."""


class VirtualClock:
    """A clock that stands still until somebody waits for it or moves it.

    Args:
        start: the first instant, aware.
    """

    def __init__(self, start: datetime = EPOCH) -> None:
        if start.tzinfo is None:
            raise InvalidInputError(f"a VirtualClock starts at a datetime with a time zone, got {start!r}")
        self._now = start.astimezone(UTC)

    def now(self) -> datetime:
        """The virtual time, aware, in UTC."""
        return self._now

    def micros(self) -> int:
        """The virtual time as stores take it."""
        return micros(self._now)

    def wait(self, wakeup: threading.Event, seconds: float) -> bool:
        """Move on by the seconds at once, unless the event is set."""
        if not wakeup.is_set():
            self.advance(seconds)
        return wakeup.is_set()

    def advance(self, duration: timedelta | float) -> None:
        """Move on by a duration."""
        self._now += timedelta(seconds=as_seconds(duration, "duration"))

    def advance_to(self, instant: datetime) -> None:
        """Move on to an instant; never back."""
        self._now = max(self._now, instant)


class SeededEntropy:
    """Chance that is the same for the same seed."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)  # noqa: S311 - it is to be foreseeable

    def random(self) -> float:
        return self._random.random()

    def uuid(self) -> uuid.UUID:
        return uuid.UUID(int=self._random.getrandbits(128), version=4)


class InlineExecutor(Executor):
    """Runs what is submitted at once, in the caller's thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - the future's reader decides
            future.set_exception(error)
        return future


@contextmanager
def same_chance(seed: int | None = None) -> Iterator[None]:
    """Leave the state of `random`, which a workflow may draw from by mistake, as it was.

    Args:
        seed: what it is to begin with meanwhile; None: with what it has.
    """
    state = random.getstate()
    if seed is not None:
        random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
