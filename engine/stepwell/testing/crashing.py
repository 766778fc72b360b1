"""A store that lets the process 'die' after chosen appends."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from ..store import AlreadyCommitted, Committed, Created, Draft, Lease, Store

__all__ = ["CrashingStore", "SimulatedCrash"]


class SimulatedCrash(BaseException):
    """The process dies here, right after something was recorded."""


class CrashingStore:
    """Wraps a store: after each write that recorded events, `dies(total)` says whether the process dies.

    The dead owner's lease ends at once, as it does on stores that see their owners die. Nothing is asked after a write
    that leaves an `at_most_once` step begun: a process that dies between its `begin` and its outcome changes how the
    run goes on, with `StepInterrupted`, and rightly so. Nor after one that ends with `chunk`: a stream that is
    interrupted begins anew, and where the process dies each time it would never end.

    Args:
        store: the store that is written to.
        dies: is given the number of events that were recorded so far.
    """

    def __init__(self, store: Store, dies: Callable[[int], bool]) -> None:
        self._store = store
        self._dies = dies
        self.recorded = 0
        self._lease: Lease | None = None
        self._begun: set[tuple[str, str]] = set()  # run and `at` of the steps that are recorded as begun, and no more

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def create(self, run_id: str, records: Any, **how: Any) -> Any:
        return self._count(self._store.create(run_id, records, **how), run_id, records)

    def open_incarnation(self, run_id: str, incarnation: int, records: Any, **how: Any) -> Any:
        return self._count(self._store.open_incarnation(run_id, incarnation, records, **how), run_id, records)

    def append(self, run_id: str, incarnation: Any, expected_seq: Any, records: Any, **how: Any) -> Any:
        done = self._store.append(run_id, incarnation, expected_seq, records, **how)
        return self._count(done, run_id, records) if how.get("fence") is not None else done

    def claim(self, run_id: str, owner: str, ttl: float, **how: Any) -> Any:
        claimed = self._store.claim(run_id, owner, ttl, **how)
        self._lease = claimed if isinstance(claimed, Lease) else None
        return claimed

    def _count(self, done: Any, run_id: str, records: Sequence[Draft]) -> Any:
        self._lease = getattr(done, "lease", None) or self._lease
        if records and isinstance(done, (Committed, AlreadyCommitted, Created)):
            self.recorded += len(records)
            self._follow(run_id, records)
            if not self._begun and records[-1].type not in ("chunk", "heartbeat") and self._dies(self.recorded):
                if self._lease is not None:
                    self._store.release(self._lease)
                raise SimulatedCrash
        return done

    def _follow(self, run_id: str, records: Sequence[Draft]) -> None:
        """See which steps are begun and have no outcome."""
        for record in records:
            if record.type == "begin":
                self._begun.add((run_id, _at(record)))
            elif self._begun and record.type in ("step", "attempt", "cancelled"):
                self._begun.discard((run_id, _at(record)))


def _at(record: Draft) -> str:
    found: dict[str, Any] = json.loads(b"{" + record.body + b"}")
    return str(found.get("at", ""))
