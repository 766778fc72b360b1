"""The leases that one engine holds: renewing them, and telling their sessions of events from outside. Floor 4."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from .logs import logger
from .performers import NoThreadError
from .session import POLL, Session
from .store import Lease, Store
from .watching import Watch

__all__ = ["Holding", "Sessions"]


class Holding(msgspec.Struct, eq=False):
    """A lease that is kept alive, from its grant on: a long history takes a while to load.

    Attributes:
        session: who drives the run under it; None as long as it is loaded.
        lost: a renewal found that a newer session owns the run.
    """

    lease: Lease
    session: Session | None = None
    lost: bool = False

    def lose(self) -> None:
        """Somebody else owns the run."""
        self.lost = True
        if self.session is not None:
            self.session.lose()

    def attach(self, session: Session) -> None:
        """From now on this session drives."""
        self.session = session
        if self.lost:
            session.lose()


class Sessions:
    """Held leases by run id, and the daemon thread that renews them.

    Args:
        store: where the leases are.
        ttl: seconds that a lease lasts; renewed after a third of it.
        renews: False in a simulation.
    """

    def __init__(self, store: Store, ttl: float, *, renews: bool) -> None:
        self._store = store
        self._ttl = ttl
        self._renews = renews
        self._held: dict[str, Holding] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._watch = Watch(self._driving)

    @contextmanager
    def held(self, lease: Lease) -> Iterator[Holding]:
        """Keep a lease alive while this lasts."""
        holding = Holding(lease)
        with self._lock:
            before, self._held[lease.run_id] = self._held.get(lease.run_id), holding
        try:
            if before is not None:  # its lease had lapsed, or this one would not have been granted
                before.lose()
            self._begin_to_renew(lease)
            yield holding
        finally:
            with self._lock:
                if self._held.get(lease.run_id) is holding:
                    del self._held[lease.run_id]

    def _begin_to_renew(self, lease: Lease) -> None:
        """Start the thread, once.

        Raises:
            NoThreadError: there is none to be had; the lease is given back.
        """
        with self._lock:
            if not self._renews or self._thread is not None:
                return
            thread = threading.Thread(target=self._renew, name="stepwell-leases", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                self._store.release(lease)
                raise NoThreadError(str(error)) from error
            self._thread = thread

    def use(self, store: Store) -> None:
        """From now on the leases are there."""
        self._store = store

    def notify(self, run_id: str, *, cancel: bool = False) -> None:
        """Something was appended to the run from outside; `cancel`: to end it."""
        with self._lock:
            holding = self._held.get(run_id)
        if holding is not None and holding.session is not None:
            holding.session.notify(cancel=cancel)

    def drives(self, run_id: str) -> bool:
        """Whether a run is driven here now."""
        return run_id in self._held

    def close(self) -> None:
        """End the renewing thread."""
        self._stop.set()
        self._watch.close()

    def forget(self) -> None:
        """In a forked child: the parent's sessions and threads are not there."""
        self._held, self._thread = {}, None
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._watch = Watch(self._driving)

    def _driving(self) -> list[Session]:
        """The sessions that are open now."""
        with self._lock:
            return [holding.session for holding in self._held.values() if holding.session is not None]

    def _renew(self) -> None:
        due = time.monotonic() + self._ttl / 3
        while not self._stop.wait(max(0.0, min(POLL / 2, due - time.monotonic()))):
            self._watch.glance()
            if time.monotonic() < due:
                continue
            due = time.monotonic() + self._ttl / 3
            with self._lock:
                held = list(self._held.values())
            for holding in held:
                try:
                    lease = self._store.renew(holding.lease, self._ttl)
                except Exception as error:  # noqa: BLE001 - it lapses if this goes on; the fence keeps the history right
                    if self._stop.is_set():
                        return
                    logger.warning("the lease of run %r could not be renewed: %s", holding.lease.run_id, error)
                    continue
                if lease is not None:
                    holding.lease = lease
                elif holding.session is None or not holding.session.machine.closed:
                    holding.lose()
