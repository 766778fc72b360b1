"""What every part of an engine's facade works with: the parts behind it, and its life. Floor 4."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from .control import Control
from .driving import Driver
from .errors import ClosedError
from .loading import Parts
from .queries import Queries
from .sessions import Sessions
from .store import Store

__all__ = ["Facade"]


class Facade:
    """Base of the parts of `Engine`: it checks what callers give, and hands the work on."""

    def __init__(self, parts: Parts, sessions: Sessions) -> None:
        self._parts = parts
        self._sessions = sessions
        self._driver, self._queries = Driver(parts, sessions), Queries(parts)
        self._control = Control(parts, sessions, self._driver)
        self._lock, self._pid, self._closed = threading.Lock(), os.getpid(), False
        self._left: list[Store] = []  # stores whose runs have all moved to another one

    @property
    def store(self) -> Store:
        """The store that this engine works with."""
        return self._parts.store

    def close(self) -> None:
        """Close the store's handles and end the threads; a later call raises ClosedError."""
        with self._lock:
            closed, self._closed = self._closed, True
        if closed:
            return
        with ExitStack() as stack:  # the performer last: that a step ends because its loop does is no outcome
            for store in self._left:
                stack.callback(store.close)
            for part in (self._parts.performer, self._parts.store, self._parts.parked, self._sessions, self._parts.hub):
                stack.callback(part.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<engine on {self._parts.store!r}>"

    def _ready(self) -> None:
        """Refuse a closed engine; in a forked child, let go of the parent's threads."""
        if self._closed:
            raise ClosedError("this engine was closed")
        if self._pid != os.getpid():
            self._lock, self._pid = threading.Lock(), os.getpid()
            for part in (self._sessions, self._parts.performer, self._parts.parked, self._parts.hub):
                part.forget()
            if (forget := getattr(self._parts.store, "forget", None)) is not None:  # two stores as one
                forget()
