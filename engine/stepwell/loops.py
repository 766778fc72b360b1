"""The event loop of `async def` steps: somebody else's, or one in a daemon thread of our own. Floor 4."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

__all__ = ["Loop"]


class Loop:
    """An event loop that runs in another thread.

    Args:
        given: one that runs already; None makes one.
    """

    def __init__(self, given: asyncio.AbstractEventLoop | None) -> None:
        self._own = given is None
        self._loop = asyncio.new_event_loop() if given is None else given
        if self._own:
            threading.Thread(target=_serve, args=(self._loop,), name="stepwell-loop", daemon=True).start()
            self._end = weakref.finalize(self, _stop, self._loop, os.getpid())  # also when nobody closes the engine
            self._end.atexit = False

    def submit(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Run a coroutine there."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, begin: Callable[[], Coroutine[Any, Any, Any]], within: contextvars.Context) -> Future[Any]:
        """Run the coroutine that `begin` gives there, in a context; it is made when it can be run."""
        return asyncio.run_coroutine_threadsafe(_within(begin, within), self._loop)

    def stop(self) -> None:
        """End a loop of our own; tasks that run are cancelled."""
        if self._own:
            self._end()


def _stop(loop: asyncio.AbstractEventLoop, pid: int) -> None:
    if os.getpid() == pid:  # a forked child shares the pipe that would wake its parent's loop
        with suppress(RuntimeError):  # it is closed: it was stopped before
            loop.call_soon_threadsafe(loop.stop)


async def _within(begin: Callable[[], Coroutine[Any, Any, Any]], context: contextvars.Context) -> Any:
    return await asyncio.get_running_loop().create_task(begin(), context=context)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        if left := asyncio.all_tasks(loop):
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
