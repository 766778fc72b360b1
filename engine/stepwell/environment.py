"""What the engine takes from outside: time, chance and threads, as one explicit record. Floor 4.

A simulation gives its own and drives the same engine: virtual time, seeded chance, steps performed in the thread of the
caller.
"""

from __future__ import annotations

import os
import random
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Executor, Future
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from attrs import field, frozen

__all__ = ["Clock", "Entropy", "Environment", "SystemClock", "SystemEntropy", "new_run_id"]


class Clock(Protocol):
    """Time, and waiting for it."""

    def now(self) -> datetime:
        """The current time, aware, in UTC."""
        ...

    def wait(self, wakeup: threading.Event, seconds: float) -> bool:
        """Block until the event is set or the seconds are over; True when it is set."""
        ...


class Entropy(Protocol):
    """Chance."""

    def random(self) -> float:
        """A float in [0, 1)."""
        ...

    def uuid(self) -> uuid.UUID:
        """A random UUID."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def wait(self, wakeup: threading.Event, seconds: float) -> bool:
        return wakeup.wait(min(seconds, threading.TIMEOUT_MAX))


class SystemEntropy:
    """The operating system's randomness."""

    def __init__(self) -> None:
        self._random = random.SystemRandom()

    def random(self) -> float:
        return self._random.random()

    def uuid(self) -> uuid.UUID:
        return uuid.uuid4()


class DaemonPool(Executor):
    """A bounded pool of daemon threads: a step that nobody waits for any more does not hold the process's exit.

    (`ThreadPoolExecutor` joins its threads when the interpreter ends.) Threads are made as they are needed and stay.
    """

    def __init__(self, max_workers: int) -> None:
        self._max = max_workers
        self._tasks: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._threads = 0
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._closed = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("the pool is closed")
            self._tasks.put((future, lambda: fn(*args, **kwargs)))
            if not self._idle.acquire(blocking=False) and self._threads < self._max:
                self._threads += 1
                threading.Thread(target=self._work, name=f"stepwell-step-{self._threads}", daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002 - Executor's names
        with self._lock:
            self._closed = True
            while cancel_futures and (task := self._next()) is not None:
                task[0].cancel()
            for _ in range(self._threads):
                self._tasks.put(None)

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        """A task that no thread has taken yet."""
        try:
            return self._tasks.get_nowait()
        except Empty:
            return None

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            future, call = task
            if future.set_running_or_notify_cancel():
                try:
                    result = call()
                except BaseException as error:  # noqa: BLE001 - the future's reader decides
                    future.set_exception(error)
                else:
                    future.set_result(result)
            del task, future, call
            self._idle.release()


@frozen
class Environment:
    """Time, chance and threads of one engine.

    Attributes:
        executor: runs steps of branches; None means a bounded pool of the engine's own, made at first use.
        threads: whether background threads are used, to renew leases and for steps with a time-out; a simulation in one
            thread does without.
    """

    clock: Clock = field(factory=SystemClock)
    entropy: Entropy = field(factory=SystemEntropy)
    executor: Executor | None = None
    threads: bool = True

    def make_executor(self) -> Executor:
        """The pool that is used when none was given."""
        return DaemonPool(min(32, 4 * (os.cpu_count() or 1)))


_id_lock = threading.Lock()
_last_id = 0


def _unlock_in_child() -> None:
    """A forked child must not wait for a thread that only its parent has."""
    global _id_lock  # noqa: PLW0603 - one lock for the process
    _id_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_in_child)


def new_run_id() -> str:
    """A UUID of version 7: sortable by time, and rising within a process. Source: RFC 9562, section 5.7."""
    global _last_id  # noqa: PLW0603 - a process has one sequence of ids
    with _id_lock:
        stamp = time.time_ns() * 4096 // 1_000_000  # milliseconds, and 12 bits below them
        _last_id = stamp = max(stamp, _last_id + 1)
    high = ((stamp >> 12) & (2**48 - 1)) << 16 | 0x7000 | (stamp & 0xFFF)
    low = int.from_bytes(os.urandom(8), "big") & (2**62 - 1) | 2**63
    return str(uuid.UUID(int=high << 64 | low))
