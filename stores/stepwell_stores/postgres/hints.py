"""Hints between processes: who waits for a run, or for runs that are due, listens; who writes tells.

A hint is sent after the commit, in a statement of its own that nothing waits for on disk; sent in the transaction it
would have all of its kind commit one after the other. It may be lost. Who waits looks from time to time by himself.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import threading
from collections.abc import Callable

from stepwell.errors import StepwellError

from ..liveness import ForkAware, watch_forks
from .address import psycopg
from .session import Session

__all__ = ["Hints", "channel_of"]

_RESTS = (0.1, 0.5, 2.0, 10.0)  # seconds before the next try after the connection was lost

_LONGEST = 1900  # characters of a hint; it has a limit in bytes

logger = logging.getLogger("stepwell")


def channel_of(schema: str) -> str:
    """The channel of a schema's hints."""
    return f"stepwell_{schema}"[:63]


class Hints(ForkAware):
    """Listens in a thread of its own, from the first call of `listen` on.

    Args:
        connect: makes a connection that is this thread's alone.
        schema: of the store.
        heard: called for each hint, with its text; "" when hints may have been missed.
    """

    def __init__(self, connect: Callable[[], Session] | None, schema: str, heard: Callable[[str], None]) -> None:
        self._connect, self._channel, self._heard = connect, channel_of(schema), heard
        self._begin()
        watch_forks(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._bell: socket.socket | None = None

    def listen(self) -> None:
        """See that the thread runs."""
        if self._connect is None or self._thread is not None:
            return
        with self._lock:
            if self._thread is None:
                self._bell, end = socket.socketpair()
                self._thread = threading.Thread(
                    target=self._listen, args=(self._connect, end), name="stepwell-listen", daemon=True
                )
                self._thread.start()

    def tell(self, session: Session, text: str) -> None:
        """Send a hint. Whether it arrives says nothing about what was written before."""
        if self._connect is not None:
            with contextlib.suppress(psycopg.Error):
                session.run("SELECT pg_notify(%s, %s)", (self._channel, text[:_LONGEST]))

    def send(self, write: Callable[[Callable[[Session], None]], None], text: str) -> None:
        """Send a hint on a connection that `write` gives."""
        if self._connect is not None:
            with contextlib.suppress(StepwellError):
                write(lambda session: self.tell(session, text))

    def close(self) -> None:
        """End the thread."""
        with self._lock:
            if self._bell is not None:
                self._bell.close()
                self._bell = None

    def after_fork_in_child(self) -> None:
        """The thread is the parent's, and so is its socket."""
        if self._bell is not None:
            with contextlib.suppress(OSError):
                os.close(self._bell.detach())
        self._begin()

    def _listen(self, connect: Callable[[], Session], end: socket.socket) -> None:
        failures, before = 0, False
        with end, selectors.DefaultSelector() as stop:
            stop.register(end, selectors.EVENT_READ)
            while True:
                try:
                    session = connect()
                    try:
                        session.run(f'LISTEN "{self._channel}"')
                        failures = 0
                        if before:
                            self._heard("")  # what was told meanwhile is not told again
                        before = True
                        self._hear(session, end)
                        return
                    finally:
                        session.close()
                except Exception as error:  # noqa: BLE001 - hints are not needed, so nothing ends for their sake
                    logger.debug("no hints from %s: %s", self._channel, error)
                    rest = _RESTS[min(failures, len(_RESTS) - 1)]
                    failures += 1
                    if stop.select(rest):
                        return

    def _hear(self, session: Session, end: socket.socket) -> None:
        """Hand on what comes, until the other end of the pair is closed."""
        line = session.raw.pgconn
        with selectors.DefaultSelector() as both:
            both.register(end, selectors.EVENT_READ)
            both.register(line.socket, selectors.EVENT_READ, data=line)
            while True:
                ready = both.select()
                if any(key.data is None for key, _ in ready):
                    return
                line.consume_input()
                while (note := line.notifies()) is not None:
                    self._heard(note.extra.decode())
