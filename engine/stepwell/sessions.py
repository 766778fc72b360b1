"""The sessions that are open in one engine: renewing their leases, and telling them of events from outside. Floor 4."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .logs import logger
from .session import Session
from .store import Store

__all__ = ["Sessions"]


class Sessions:
    """Open sessions by run id, and the daemon thread that renews their leases.

    Args:
        store: where the leases are.
        ttl: seconds that a lease lasts; renewed after a third of it.
        renews: False in a simulation.
    """

    def __init__(self, store: Store, ttl: float, *, renews: bool) -> None:
        self._store = store
        self._ttl = ttl
        self._renews = renews
        self._open: dict[str, Session] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def opened(self, session: Session) -> Iterator[None]:
        """Keep the session's lease alive while this lasts."""
        run_id = session.run.run_id
        with self._lock:
            self._open[run_id] = session
            if self._renews and self._thread is None:
                self._thread = threading.Thread(target=self._renew, name="stepwell-leases", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                if self._open.get(run_id) is session:
                    del self._open[run_id]

    def notify(self, run_id: str, *, cancel: bool = False) -> None:
        """Something was appended to the run from outside; `cancel`: to end it."""
        with self._lock:
            session = self._open.get(run_id)
        if session is not None:
            session.notify(cancel=cancel)

    def close(self) -> None:
        """End the renewing thread."""
        self._stop.set()

    def forget(self) -> None:
        """In a forked child: the parent's sessions and threads are not there."""
        self._open, self._thread = {}, None
        self._lock, self._stop = threading.Lock(), threading.Event()

    def _renew(self) -> None:
        while not self._stop.wait(self._ttl / 3):
            with self._lock:
                sessions = list(self._open.values())
            for session in sessions:
                try:
                    lease = self._store.renew(session.recorder.lease, self._ttl)
                except Exception as error:  # noqa: BLE001 - it lapses if this goes on; the fence keeps the history right
                    logger.warning("the lease of run %r could not be renewed: %s", session.run.run_id, error)
                    continue
                if lease is not None:
                    session.recorder.lease = lease
                elif not session.machine.closed:
                    session.lose()
