"""Hints by pub/sub: that a history grew, or a run became due, in whatever process. Nothing depends on them.

A message may be lost, come late or come for nothing; who waits looks by himself from time to time. One thread of the
store listens, on a connection of its own, from the first time that somebody waits.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from ..bell import DueBell
from ..liveness import ForkAware, watch_forks
from .rows import name_of
from .server import Server

__all__ = ["Hints"]

_POLL = 0.1  # seconds between two looks at a history
_PATIENCE = 1.0  # seconds between two looks at whether there is an end, and after a lost connection


class Hints(ForkAware):
    """Wakes those who wait.

    Attributes:
        due: rung when a run may have become due.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._base = f"{{{server.where.prefix}}}:told"
        self.due = DueBell()
        self._begin()
        watch_forks(self)

    def _begin(self) -> None:
        self._told = threading.Condition()
        self._wanted: Counter[str] = Counter()  # channels, and how many want them
        self._count = 0
        self._thread: threading.Thread | None = None
        self._connection: Any = None
        self._sending = threading.Lock()
        self._ended = threading.Event()

    def after_fork_in_child(self) -> None:
        """The thread is in the parent."""
        self._begin()

    # ---- who waits

    def wait(self, run_id: str, grown: Callable[[], bool], timeout: float) -> bool:
        """Block until `grown()`, at most `timeout` seconds; whether it did."""
        deadline = time.monotonic() + timeout
        if grown():
            return True
        if timeout <= 0:
            return False
        with self._listening(f"{self._base}:{name_of(run_id)}"):
            while True:
                before = self._count
                if grown():
                    return True
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                with self._told:
                    if self._count == before:
                        self._told.wait(min(left, _POLL))

    def ring(self) -> None:
        """Wake all who wait for a history."""
        with self._told:
            self._count += 1
            self._told.notify_all()

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called when a run may have become due; gives the function that ends this."""
        channel, unlisten = f"{self._base}-due", self.due.listen(wake)
        self._want(channel)
        once = threading.Lock()

        def end() -> None:
            unlisten()
            if once.acquire(blocking=False):
                self._leave(channel)

        return end

    @contextlib.contextmanager
    def _listening(self, channel: str) -> Iterator[None]:
        self._want(channel)
        try:
            yield
        finally:
            self._leave(channel)

    def _want(self, channel: str) -> None:
        with self._sending:
            self._wanted[channel] += 1
            if self._thread is None and not self._server.closed:
                self._thread = threading.Thread(target=self._run, name="stepwell-redis-hints", daemon=True)
                self._thread.start()
            elif self._wanted[channel] == 1:
                self._say("SUBSCRIBE", channel)

    def _leave(self, channel: str) -> None:
        with self._sending:
            self._wanted[channel] -= 1
            if self._wanted[channel] <= 0:
                del self._wanted[channel]
                self._say("UNSUBSCRIBE", channel)

    def _say(self, *command: str) -> None:
        """Send, if there is a connection; the lock is held. If it fails, the thread finds out and begins anew."""
        if self._connection is not None:
            with contextlib.suppress(Exception):
                self._connection.send_command(*command, check_health=False)

    # ---- the thread

    def _run(self) -> None:
        ended = self._ended
        while not ended.is_set():
            with contextlib.suppress(Exception):  # whatever it is: hints are not needed, and come again later
                self._hear(ended)
            ended.wait(_PATIENCE)

    def _hear(self, ended: threading.Event) -> None:
        pool = self._server.pool()
        connection = pool.connection_class(**{**pool.connection_kwargs, "protocol": 2})
        try:
            connection.connect()
            with self._sending:
                connection.send_command("SUBSCRIBE", f"{self._base}-none", *self._wanted, check_health=False)
                self._connection = connection
            while not ended.is_set():
                if connection.can_read(_PATIENCE):
                    self._heard(connection.read_response(disable_decoding=True))
        finally:
            with self._sending:
                self._connection = None
            connection.disconnect()

    def _heard(self, message: Any) -> None:
        if not isinstance(message, list) or message[:1] != [b"message"]:
            return
        if message[1] == f"{self._base}-due".encode():
            self.due.ring()
        else:
            self.ring()

    def close(self) -> None:
        """End the thread, and wake who waits."""
        self._ended.set()
        self.ring()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(2 * _PATIENCE)
