"""Two stores as one, while the runs of the first move to the second under an engine that goes on working. Floor 4.

Each run is where it is, and a call that names it goes there; what is new begins in the second store. Lists are merged.
Used by one engine, for as long as `swap_store` takes or leaves runs behind.
"""

from __future__ import annotations

import heapq
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from .errors import NotFoundError, RunArrivingError, RunMovedError
from .moving import MovableStore
from .store import (
    AppendOutcome,
    ClosedKey,
    CreateOutcome,
    Draft,
    Durability,
    HeadFilter,
    Lease,
    RunHead,
    Status,
    Store,
    StoreSize,
    Tail,
    Verified,
    closed_key,
)

__all__ = ["BothStores"]

T = TypeVar("T")

_LONGEST = 1.0  # seconds of one wait: meanwhile the run may have moved
_PAGE = 500


class BothStores:
    """A store made of two.

    Args:
        source: where runs are that have not moved yet.
        target: where they go to, and new ones begin.

    Attributes:
        moving: is held while some of them move. Who asks for a lease then, or for a list, waits for that: a run that is
            on its way is in neither store, and a lease is the mover's.
    """

    def __init__(self, source: MovableStore, target: MovableStore) -> None:
        self.source, self.target = source, target
        self.moving = threading.RLock()
        if all(callable(getattr(store, "transact", None)) for store in (source, target)):
            self.transact = self._transact

    def forget(self) -> None:
        """In a forked child: whoever moves runs is not there."""
        self.moving = threading.RLock()

    def __repr__(self) -> str:
        return f"<{self.source!r}, whose runs move to {self.target!r}>"

    @property
    def durability(self) -> Durability:
        """That of the store where everything will be."""
        return self.target.durability

    # ---- one run

    def _where(self, run_id: str) -> Store:
        try:
            return self.target if self.source.head(run_id) is None else self.source
        except RunMovedError:
            return self.target

    def _there(self, run_id: str, call: Callable[[Store], T]) -> T:
        """Make a call where the run is; it may move in the midst of that."""
        try:
            return call(self._where(run_id))
        except (RunMovedError, RunArrivingError):
            with self.moving:
                return call(self._where(run_id))

    def _held(self, run_id: str, call: Callable[[Store], T], lease: object = True) -> T:
        """As `_there`, of a call that asks for a lease."""
        if lease is None:
            return self._there(run_id, call)
        with self.moving:
            return call(self._where(run_id))

    def create(self, run_id: str, records: Sequence[Draft], **how: Any) -> CreateOutcome:
        """Create a run in the target, unless the source has it."""
        return self._held(run_id, lambda store: store.create(run_id, records, **how), how.get("lease"))

    def open_incarnation(self, run_id: str, incarnation: int, records: Sequence[Draft], **how: Any) -> AppendOutcome:
        """Open the next incarnation where the run is."""

        def call(store: Store) -> AppendOutcome:
            return store.open_incarnation(run_id, incarnation, records, **how)

        return self._held(run_id, call, how.get("lease"))

    def append(
        self, run_id: str, incarnation: int | None, expected_seq: int | None, records: Sequence[Draft], **how: Any
    ) -> AppendOutcome:
        """Append where the run is."""

        def call(store: Store) -> AppendOutcome:
            return store.append(run_id, incarnation, expected_seq, records, **how)

        return self._held(run_id, call, how.get("lease"))

    def _transact(self, run_id: str, *args: Any, **how: Any) -> AppendOutcome:
        call: Callable[[Any], AppendOutcome] = lambda store: store.transact(run_id, *args, **how)  # noqa: E731
        return self._there(run_id, call)

    def head(self, run_id: str) -> RunHead | None:
        """The run's head."""
        return self._there(run_id, lambda store: store.head(run_id))

    def read(self, run_id: str, from_seq: int = 0, **how: Any) -> Tail | None:
        """Records of a run."""
        return self._there(run_id, lambda store: store.read(run_id, from_seq, **how))

    def claim(self, run_id: str, owner: str, ttl: float) -> Lease | RunHead | None:
        """Take the lease of a run."""
        return self._held(run_id, lambda store: store.claim(run_id, owner, ttl))

    def renew(self, lease: Lease, ttl: float) -> Lease | None:
        """Extend a lease."""
        return self._there(lease.run_id, lambda store: store.renew(lease, ttl))

    def release(self, lease: Lease) -> None:
        """End a lease."""
        self._there(lease.run_id, lambda store: store.release(lease))

    def delete(self, run_id: str, incarnation: int, *, fence: int | None = None) -> bool:
        """Remove a closed run."""
        return self._there(run_id, lambda store: store.delete(run_id, incarnation, fence=fence))

    def wait(self, run_id: str, seq: int, timeout: float) -> bool:
        """Block until the history may be longer."""
        return self._there(run_id, lambda store: store.wait(run_id, seq, min(timeout, _LONGEST)))

    # ---- all of them

    def heads(self, where: HeadFilter, *, limit: int, after: str | None = None) -> list[RunHead]:
        """A page of the runs of both, newest first."""
        with self.moving:
            return self._heads(where, limit, after)

    def _heads(self, where: HeadFilter, limit: int, after: str | None) -> list[RunHead]:
        last = None
        if after is not None:
            head = self.head(after)
            last = None if head is None else (head.head.created, head.run_id)
        pages = [list(self._page(store, where, limit, after, last)) for store in (self.source, self.target)]
        merged = heapq.merge(*pages, key=lambda run: (run.head.created, run.run_id), reverse=True)
        return list({run.run_id: run for run in merged}.values())[:limit]

    def _page(
        self, store: Store, where: HeadFilter, limit: int, after: str | None, last: tuple[int, str] | None
    ) -> list[RunHead]:
        try:
            return store.heads(where, limit=limit, after=after)
        except NotFoundError:
            if last is None:
                raise
        rows = (run for run in self._every(store, where) if (run.head.created, run.run_id) < last)
        return list(islice(rows, limit))

    def _every(self, store: Store, where: HeadFilter) -> Iterator[RunHead]:
        after = None
        while page := store.heads(where, limit=_PAGE, after=after):
            yield from page
            after = page[-1].run_id

    def closed(
        self,
        *,
        after: ClosedKey | None = None,
        before: ClosedKey | None = None,
        newest_first: bool = False,
        limit: int,
    ) -> list[RunHead]:
        """A page of the closed runs of both."""
        which: dict[str, Any] = {"after": after, "before": before, "newest_first": newest_first, "limit": limit}
        with self.moving:
            pages = [store.closed(**which) for store in (self.source, self.target)]
        merged = heapq.merge(*pages, key=closed_key, reverse=newest_first)
        return list({run.run_id: run for run in merged}.values())[:limit]

    def claim_due(
        self, owner: str, ttl: float, *, now: int, limit: int, fingerprints: Iterable[str] = ()
    ) -> list[Lease]:
        """Take leases of runs that are due, those of the target first: the others are about to move."""
        known = tuple(fingerprints)
        with self.moving:
            found = self.target.claim_due(owner, ttl, now=now, limit=limit, fingerprints=known)
            if len(found) < limit:
                found += self.source.claim_due(owner, ttl, now=now, limit=limit - len(found), fingerprints=known)
        return found

    def next_due(self) -> int | None:
        """The earliest due instant of both."""
        dues = (self.source.next_due(), self.target.next_due())
        return min((due for due in dues if due is not None), default=None)

    def on_due(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called by both."""
        ends = [store.on_due(wake) for store in (self.source, self.target)]

        def end() -> None:
            for one in ends:
                one()

        return end

    def size(self) -> StoreSize:
        """How large both are."""
        with self.moving:
            one, other = self.source.size(), self.target.size()
        runs = Counter[Status](one.runs)
        runs.update(other.runs)
        return StoreSize(dict(runs), one.events + other.events, one.bytes + other.bytes, one.free + other.free)

    def vacuum(self) -> int:
        """Give space back in both."""
        return self.source.vacuum() + self.target.vacuum()

    def verify(self) -> Iterator[Verified]:
        """Read every byte of both."""
        yield from self.source.verify()
        yield from self.target.verify()

    def close(self) -> None:
        """Close both."""
        self.source.close()
        self.target.close()
