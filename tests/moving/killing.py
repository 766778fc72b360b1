"""A store whose callers are killed at a call, before it or after it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from stepwell.errors import RunArrivingError, RunMovedError
from stepwell.store import Store

PROGRAM = """
import os, sys
from stepwell_stores import open_store
from tests.moving.killing import Fuse, Fused, kill
from tests.moving.zoo import engine_on

source, target = sys.argv[1:]
engine_on(open_store("memory:")).migrate("memory:")  # what is imported late is imported once
for url in (source, target):
    open_store(url).close()
for line in sys.stdin:
    child = os.fork()  # a whole interpreter takes far longer to begin
    if not child:
        fuse = Fuse(int(line), kill)
        moved = engine_on(Fused(open_store(source), fuse)).migrate(Fused(open_store(target), fuse))
        os._exit(1 if moved.kept else 0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Moves once for each line of its input, which is the call that it is killed at; tells how that ended.

It opens no store itself: no thread and no socket of a driver is there when it forks.
"""


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
    [arrival] = [one for one in target.arrivals(limit=9999) if one.run.run_id == run_id]
    assert arrival.token == caught.value.token
    return "between"
