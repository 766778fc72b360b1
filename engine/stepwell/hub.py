"""Where the streams of one engine meet those who read them, in the same process. Floor 4.

A run's own thread never waits for a reader: it puts what it has into the reader's inbox, which has a bound, and goes
on. The hub knows inboxes weakly, so a reader that nobody holds any more is forgotten.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque

import msgspec

__all__ = ["MAX_BYTES", "MAX_LIVE", "Hub", "Inbox", "Live"]

MAX_LIVE = 1_000
"""Live messages that one reader may leave unread; the oldest are dropped then."""

MAX_BYTES = 16 << 20
"""Bytes of chunks that it may leave unread."""


class Live(msgspec.Struct, frozen=True):
    """What is told as it happens and is in no history: that an attempt begins, or a chunk of it.

    Attributes:
        incarnation: of the run.
        base: how many events its history had when the attempt began: those come first.
        index: of the chunk in its attempt, from 0; None says that the attempt begins.
        value: the chunk as JSON.
    """

    incarnation: int
    base: int
    step_id: str
    at: str
    attempt: int
    index: int | None = None
    value: bytes = b""


class Inbox:
    """What one reader has not looked at yet."""

    def __init__(self) -> None:
        self.closed = False
        self._changed = threading.Condition()
        self._live: deque[Live] = deque()
        self._bytes = 0
        self._dropped = 0
        self._rung = False

    def put(self, message: Live) -> None:
        """Add a message, and drop the oldest ones when there are too many."""
        with self._changed:
            self._live.append(message)
            self._bytes += len(message.value)
            while len(self._live) > MAX_LIVE or self._bytes > MAX_BYTES:
                self._bytes -= len(self._live.popleft().value)
                self._dropped += 1
            self._changed.notify_all()

    def take(self) -> tuple[int, list[Live]]:
        """How many messages were dropped, and all that came after those."""
        with self._changed:
            dropped, live = self._dropped, list(self._live)
            self._live.clear()
            self._bytes = self._dropped = 0
            return dropped, live

    def ring(self) -> None:
        """Say that the history has grown."""
        with self._changed:
            self._rung = True
            self._changed.notify_all()

    def close(self) -> None:
        """Say that nothing comes any more."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Block until there is something to look at, at most so long."""
        with self._changed:
            self._changed.wait_for(lambda: self._live or self._rung or self.closed, seconds)
            self._rung = False


class Hub:
    """The readers of one engine, by run id.

    Attributes:
        readers: who reads a run; a run that nobody reads has no entry.
    """

    def __init__(self) -> None:
        self.readers: dict[str, tuple[weakref.ref[Inbox], ...]] = {}
        self._lock = threading.RLock()  # the garbage collector may forget a reader in the midst of a call
        self._closed = False

    def join(self, run_id: str) -> Inbox:
        """Give an inbox that gets what is told of a run from now on, for as long as somebody holds it."""
        inbox = Inbox()
        me = weakref.ref(self)

        def forget(dead: weakref.ref[Inbox]) -> None:
            hub = me()
            if hub is not None:
                hub.leave(run_id, dead)

        with self._lock:
            self.readers[run_id] = (*self.readers.get(run_id, ()), weakref.ref(inbox, forget))
            inbox.closed = self._closed
        return inbox

    def leave(self, run_id: str, gone: weakref.ref[Inbox] | Inbox) -> None:
        """Forget a reader."""
        with self._lock:
            left = tuple(one for one in self.readers.get(run_id, ()) if one is not gone and one() not in (gone, None))
            if left:
                self.readers[run_id] = left
            else:
                self.readers.pop(run_id, None)

    def put(self, run_id: str, message: Live) -> None:
        """Tell the readers of a run; never waits for them."""
        for inbox in self._inboxes(run_id):
            inbox.put(message)

    def ring(self, run_id: str) -> None:
        """Tell the readers of a run that its history has grown."""
        for inbox in self._inboxes(run_id):
            inbox.ring()

    def close(self) -> None:
        """End all readers; those that come later end at once."""
        with self._lock:
            self._closed, left = True, [one for refs in self.readers.values() for one in refs]
            self.readers.clear()
        for one in left:
            if (inbox := one()) is not None:
                inbox.close()

    def forget(self) -> None:
        """In a forked child: the parent's readers are not there."""
        self._lock = threading.RLock()
        self.readers.clear()

    def _inboxes(self, run_id: str) -> list[Inbox]:
        return [inbox for one in self.readers.get(run_id, ()) if (inbox := one()) is not None]
