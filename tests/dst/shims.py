"""What the engine takes from Python's own modules, given by a simulation: threads, events, queues, time, tokens.

The engine's modules are the shipped ones; only the names `threading`, `time`, `SimpleQueue` and `os` in the few of them
that block, or draw something, stand for others while a simulation runs. In a thread that is none of a simulation's they
are what they always are. Three constants say how often something is looked at; with them as shipped, a day without
work would be spent on looking.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from tests.dst.kernel import Process, Task, here

from stepwell import environment, kin, ledger, performers, pools, recorder, sessions, sweeping, watching, worker
from stepwell.events import from_micros
from stepwell_stores.jsonl import due as jsonl_due

__all__ = ["SimClock", "installed"]

BLOCKING = (kin, ledger, performers, pools, recorder, sessions, sweeping, watching, worker)
"""The modules of the engine that make threads, or events that are waited for."""

IDLE = 900.0
"""Virtual seconds between two looks of a worker that knows of nothing to do."""


class SimClock:
    """The wall clock of one simulated process."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def now(self) -> datetime:
        """Its time, which may be wrong."""
        return from_micros(self._process.clock())

    def wait(self, wakeup: threading.Event, seconds: float) -> bool:
        """Wait for the event, at most so long; how long does not hang on the wall clock."""
        assert isinstance(wakeup, Event)
        return self._process.kernel.wait(wakeup.is_set, seconds, waiters=wakeup.waiters)


class Event(threading.Event):
    """An event that is waited for in virtual time."""

    def __init__(self) -> None:
        super().__init__()
        self.waiters: list[Task] = []

    def set(self) -> None:
        super().set()
        for task in self.waiters:
            task.woken = True

    def wait(self, timeout: float | None = None) -> bool:
        task = here()
        if task is None:
            return super().wait(timeout)
        process = task.process
        if task.name == "stepwell-leases" and not process.busy():  # it would look, and find no lease to be renewed
            return process.kernel.wait(lambda: self.is_set() or process.busy()) and self.is_set()
        return process.kernel.wait(self.is_set, timeout, waiters=self.waiters)


class Thread:
    """A thread of the simulated process that makes it."""

    def __init__(
        self,
        target: Callable[..., object],
        args: tuple[Any, ...] = (),
        name: str = "",
        daemon: bool | None = None,
    ) -> None:
        self.name, self.daemon = name, daemon
        self._work = lambda: target(*args)
        self._task: Task | None = None
        self._real = threading.Thread(target=target, args=args, name=name, daemon=daemon) if here() is None else None

    def start(self) -> None:
        if self._real is not None:
            self._real.start()
            return
        task = here()
        assert task is not None
        self._task = task.process.kernel.spawn(task.process, self._work, self.name)

    def is_alive(self) -> bool:
        if self._real is not None:
            return self._real.is_alive()
        return self._task is not None and not self._task.done

    def join(self, timeout: float | None = None) -> None:
        task = here()
        if self._real is not None or task is None:
            assert self._real is not None
            self._real.join(timeout)
            return
        task.process.kernel.wait(lambda: not self.is_alive(), timeout)


class SimpleQueue:
    """A queue that is waited for in virtual time."""

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._waiters: list[Task] = []

    def put(self, item: Any) -> None:
        self._items.append(item)
        for task in self._waiters:
            task.woken = True

    def get(self) -> Any:
        task = here()
        assert task is not None, "a queue of a simulation is for its threads"
        while not self._items:  # somebody else may take what is there before this thread runs
            task.process.kernel.wait(lambda: bool(self._items), waiters=self._waiters)
        return self._items.popleft()

    def get_nowait(self) -> Any:
        if not self._items:
            raise queue.Empty
        return self._items.popleft()


class Instead:
    """A module of which some names stand for others."""

    def __init__(self, module: Any, **names: Any) -> None:
        self.__dict__.update(names)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _monotonic() -> float:
    task = here()
    return time.monotonic() if task is None else task.process.kernel.time / 1e6


def _time_ns() -> int:
    task = here()
    return time.time_ns() if task is None else task.process.clock() * 1000


def _urandom(size: int) -> bytes:
    task = here()
    return os.urandom(size) if task is None else task.process.entropy.randbytes(size)


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Have the engine's modules take what blocks from simulations, as long as this lasts."""
    threads = Instead(threading, Event=Event, Thread=Thread)
    clock = Instead(time, monotonic=_monotonic, perf_counter=_monotonic)
    changes: list[tuple[Any, str, Any]] = [
        *((module, "threading", threads) for module in BLOCKING),
        *((module, "time", clock) for module in (jsonl_due, sessions, sweeping, watching, worker)),
        *((module, "SimpleQueue", SimpleQueue) for module in (pools, worker)),
        (environment, "os", Instead(os, urandom=_urandom)),
        (environment, "time_ns", _time_ns),
        (environment, "_last_id", 0),
        (worker, "_LONGEST_PAUSE", IDLE),
    ]
    before = [(module, name, vars(module)[name]) for module, name, _ in changes]
    for module, name, value in changes:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
