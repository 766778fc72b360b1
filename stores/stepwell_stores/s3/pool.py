"""A few threads that ask a bucket several things at once.

Not the pool of the standard library: its locks may be held for ever by a thread that was interrupted, and it waits for
its threads when the interpreter ends.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import TypeVar

__all__ = ["Pool"]

T = TypeVar("T")
R = TypeVar("R")

_SECONDS = 10.0  # for which an end waits for what is under way


class Pool:
    """Threads that end with the process, or with `close`.

    Args:
        most: threads, which are started as they are needed.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._tasks: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def run(self, task: Callable[[], object]) -> None:
        """Have a thread do it; what it raises is lost."""
        self._tasks.put(task)
        if len(self._threads) < self._most and (not self._threads or self._tasks.qsize()):
            thread = threading.Thread(target=self._work, name="stepwell-s3", daemon=True)
            self._threads.append(thread)
            thread.start()

    def each(self, call: Callable[[T], R], things: Sequence[T]) -> list[R]:
        """Call for each thing; what they give, in order. The first exception is raised once all are done."""
        done: SimpleQueue[int] = SimpleQueue()
        results: dict[int, R] = {}
        failures: dict[int, BaseException] = {}

        def one(number: int) -> None:
            try:
                results[number] = call(things[number])
            except BaseException as e:  # noqa: BLE001 - raised again in the caller's thread
                failures[number] = e
            finally:
                done.put(number)

        for number in range(len(things)):
            self.run(lambda number=number: one(number))  # type: ignore[misc]
        for _ in things:
            done.get()
        if failures:
            raise failures[min(failures)]
        return [results[number] for number in range(len(things))]

    def close(self) -> None:
        """End the threads, when they have done what was asked of them."""
        threads, self._threads = self._threads, []
        for _ in threads:
            self._tasks.put(None)
        for thread in threads:
            thread.join(_SECONDS)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            with contextlib.suppress(Exception):
                task()
            del task  # not what it holds on to, while there is nothing to do
