"""A store whose callers are killed at a call, before it or after it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from stepwell.errors import RunArrivingError, RunMovedError
from stepwell.store import Store


class Killed(BaseException):
    """What a kill is within a process: nothing of ours runs after it."""


class Fuse:
    """Counts calls, and kills at one of them: at an even number before it is done, at an odd one after it."""

    def __init__(self, at: int, kill: Callable[[], None]) -> None:
        self.calls, self._at, self._kill, self.burnt = 0, at, kill, False

    def call(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if self.burnt:
            self._kill()
        self.calls += 2
        if self.calls - 2 == self._at:
            self.burnt = True
            self._kill()
        found = method(*args, **options)
        if self.calls - 1 == self._at:
            self.burnt = True
            self._kill()
        return found


class Fused:
    """A store around a store."""

    def __init__(self, store: Store, fuse: Fuse) -> None:
        self._store, self._fuse = store, fuse

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name == "close" or not callable(found):
            return found
        return lambda *args, **options: self._fuse.call(found, *args, **options)


def die() -> None:
    """Raise, as nothing else does."""
    raise Killed


def kill() -> None:
    """End this process as the kernel does when memory is short."""
    os.kill(os.getpid(), signal.SIGKILL)


def whereabouts(source: Any, target: Any, run_id: str) -> str:
    """Where a run can be driven: "source", "target", or "between" when nothing but landing it is left."""
    found = []
    for name, store in (("source", source), ("target", target)):
        try:
            if store.head(run_id) is not None:
                found.append(name)
        except (RunMovedError, RunArrivingError):
            pass
    if found:
        assert len(found) == 1, f"run {run_id!r} is in both"
        return found[0]
    with pytest.raises(RunMovedError) as caught:
        source.head(run_id)
    [arrival] = [one for one in target.arrivals(limit=99) if one.run.run_id == run_id]
    assert arrival.token == caught.value.token
    return "between"
