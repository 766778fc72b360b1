"""The threads that steps of branches run in. Floor 4."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import Empty, SimpleQueue
from typing import Any

__all__ = ["DaemonPool"]


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
