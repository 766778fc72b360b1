"""What the stores on servers ask: where a fault can be put before, into and after each question.

For a store in Postgres it is a statement, or the begin and the end of a transaction; in Redis, a script; in a bucket, a
request. A process that dies in the midst of one dies some time after it was begun, while another thread waits for the
answer: the server may have heard of it or not, may be at work on it, and may have answered.
"""

from __future__ import annotations

import importlib.util
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, Self

from attrs import define, field
from tests.crash.faults import Observer

__all__ = ["Requests", "asking"]

_LONGEST = 2_000
"""Microseconds: a process that dies in the midst of a question does it within that time."""


def asking() -> list[tuple[Any, str]]:
    """The functions that put an owner's writes to a server: (owner, name), as far as drivers are installed."""
    from stepwell_stores.redis.server import Server

    found: list[tuple[Any, str]] = [(Server, "run")]
    if importlib.util.find_spec("psycopg"):
        from stepwell_stores.postgres.connections import Connections

        found += [(Connections, "_run"), (Connections, "transaction")]
    if importlib.util.find_spec("obstore"):
        from stepwell_stores.s3.bucket import Bucket

        found.append((Bucket, "_put"))
    return found


def _questions(store: str) -> list[tuple[Any, str]]:
    """Everything that a store of this kind asks."""
    if store == "postgres":
        from stepwell_stores.postgres.session import Session

        return [(Session, name) for name in ("run", "quick", "begin", "commit")]
    if store == "redis":
        from stepwell_stores.redis.server import Server

        return [(Server, "_send")]
    import obstore

    return [(obstore, name) for name in ("put", "get", "head", "list", "delete")]


@define
class Requests:
    """Puts an observer in front of every question of one kind of store, in this whole process.

    Args:
        observer: decides; what it is told of as bytes are microseconds.
        store: `postgres`, `redis` or `s3`.
    """

    observer: Observer
    store: str
    counts: Counter[str] = field(factory=Counter)
    _real: list[tuple[Any, str, Any]] = field(factory=list)

    def __enter__(self) -> Self:
        for owner, name in _questions(self.store):
            real = getattr(owner, name)
            self._real.append((owner, name, real))
            setattr(owner, name, self._wrapped(name, real))
        return self

    def __exit__(self, *_: object) -> None:
        for owner, name, real in self._real:
            setattr(owner, name, real)
        self._real.clear()

    def _wrapped(self, kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def ask(*args: Any, **how: Any) -> Any:
            self.counts[kind] += 1
            action = self.observer(kind, self.store, _LONGEST)
            if action.part is not None and action.after is not None:
                later = threading.Timer(action.part / 1_000_000, action.after)
                later.daemon = True
                later.start()
            try:
                return real(*args, **how)
            finally:
                if action.after is not None:
                    action.after()

        return ask
