"""Finding out that a run was cancelled elsewhere while its step runs in the session's own thread. Floor 4.

A session that waits for steps in other threads looks at the tail of its history every second. While a lone step runs in
the session's own thread, nobody does: that is what this thread is for. It is made when a step has run for a while, and
ends when none does any more.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterable

from . import events as e
from .logs import logger
from .performers import Flight
from .session import POLL, Session
from .wire import read_tail

__all__ = ["Watch", "look"]

_SHARE = 5
"""A round that takes long is followed by a pause of so many times its length: there may be many such steps."""


def look(session: Session) -> None:
    """Look whether the run was ended or taken over while a step runs in the session's own thread.

    What is found is only told to the step: the session reads it when the step is over.
    """
    run, fence = session.run, session.lease.fence
    tail = session.parts.store.read(run.run_id, session.recorder.seq, incarnation=run.incarnation)
    news = [] if tail is None else read_tail(tail, run.run_id)
    if tail is None or any(event.session > fence for event in news):
        session.lose()
    elif tail.closed or any(isinstance(event, e.Cancel) for event in news):
        session.notify(cancel=True)


class Watch:
    """Looks after the lone steps of an engine's sessions.

    Args:
        sessions: gives those that are open now.
    """

    def __init__(self, sessions: Callable[[], Iterable[Session]]) -> None:
        self._weak = weakref.WeakMethod(sessions)  # of an object that has this watch
        self._seen: dict[int, Flight] = {}  # lone steps of the last glance, by the id of their session
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._lock = threading.Lock()

    def _sessions(self) -> Iterable[Session]:
        sessions = self._weak()
        return () if sessions is None else sessions()

    def glance(self) -> None:
        """Begin to look after a step that runs since the last glance; this reads nothing, and is called often."""
        lone = {id(session): flight for session in self._sessions() if (flight := session.flights.lone) is not None}
        before, self._seen = self._seen, lone
        if any(before.get(key) is flight for key, flight in lone.items()):
            self._begin()

    def close(self) -> None:
        """End the thread."""
        self._stop.set()

    def _begin(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            thread = threading.Thread(target=self._look_after, name="stepwell-watch", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # there may be one at the next glance
                logger.debug("no thread to look after a step that runs: %s", error)
                return
            self._thread = thread

    def _look_after(self) -> None:
        pause = 0.0
        while not self._stop.wait(pause):
            began = time.monotonic()
            lone = [session for session in self._sessions() if session.flights.lone is not None]
            for session in lone:
                try:
                    look(session)
                except Exception as error:  # noqa: BLE001 - its own thread meets what is wrong, and tells
                    if self._stop.is_set():
                        return
                    logger.debug("run %r could not be looked at: %s", session.run.run_id, error)
            pause = max(POLL / 2, _SHARE * (time.monotonic() - began))
            if not lone:
                with self._lock:
                    self._thread = None
                return
