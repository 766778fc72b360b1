"""A store that fails when it is told to: for tests of a program, of an engine, and of what stands around a store."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar, cast

from attrs import evolve

from ..environment import Clock, SystemClock
from ..errors import InvalidInputError, StoreError, StoreUnavailableError
from ..store import (
    AppendOutcome,
    ClosedKey,
    CreateOutcome,
    Draft,
    Durability,
    Head,
    HeadFilter,
    Lease,
    LeaseRequest,
    NotApplied,
    RunHead,
    Store,
    StoreSize,
    Tail,
    Then,
    Unknown,
    Verified,
)
from .fault_plans import POSSIBLE, Fault, Injected, StoreCall

__all__ = ["Fault", "FaultStore", "Injected", "StoreCall"]

T = TypeVar("T")


class FaultStore:
    """A store around a store, chosen calls of which fail: see `Fault` for how, and for which.

    Give it to an engine in place of the store that it wraps. Of the faults that meet a call the first one counts;
    latencies come on top. Thread-safe; with threads, which call is the n-th is theirs to say.

    Args:
        store: keeps the port, and does the work. What `Transaction` needs is handed on, if it is there.
        faults: the plan.
        seed: of `rate`.
        clock: waits for `latency`; None is this machine's. A `VirtualClock` waits in no time.

    Attributes:
        inner: the store that it wraps, which never fails by itself.
        armed: False lets every call through, uncounted.
        injected: what was met, in order.

    Example:
        >>> from stepwell import Engine, Flow, Step, workflow
        >>> from stepwell_stores.memory import MemoryStore
        >>> @workflow
        ... def hello() -> Flow[str]:
        ...     return (yield from Step(str.upper, "ada").options(into=str))
        >>> store = FaultStore(MemoryStore(), Fault("lost", on="append", nth=1))
        >>> with Engine(store, [hello]) as engine:
        ...     engine.start(hello, run_id="r").unwrap()
        'ADA'
        >>> store
        FaultStore(MemoryStore, Fault('lost', on='append', nth=1)), which met: lost at append 1 of run 'r'
    """

    def __init__(self, store: Store, *faults: Fault, seed: int = 0, clock: Clock | None = None) -> None:
        for fault in faults:
            if not isinstance(fault, Fault):
                hint = "; give them one by one: FaultStore(store, *plan)" if isinstance(fault, (list, tuple)) else ""
                raise InvalidInputError(f"the plan of a FaultStore is made of Faults, got {fault!r}{hint}")
        if isinstance(store, str):
            raise InvalidInputError(f"a FaultStore goes around a store: open_store({store!r}) makes one of a URL")
        self.inner = store
        self.faults = faults
        self.seed = seed
        self.armed = True
        self.injected: list[Injected] = []
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._chances = [random.Random(f"{seed} {number}") for number in range(len(faults))]  # noqa: S311 - foreseeable
        self._met = [0] * len(faults)
        self._fitted = [0] * len(faults)
        self._numbers: Counter[tuple[str, str]] = Counter()
        if callable(getattr(store, "transact", None)):
            self.transact = self._transact

    @property
    def plan(self) -> tuple[Fault, ...]:
        """What was met, as a plan that meets the same calls again without seed, chance or predicate."""
        return tuple(one.fault for one in self.injected)

    def __repr__(self) -> str:
        seed = [f"seed={self.seed}"] if self.seed or any(fault.rate is not None for fault in self.faults) else []
        made = ", ".join([type(self.inner).__name__, *map(repr, self.faults), *seed])
        met = "; ".join(map(str, self.injected)) or "nothing yet"
        return f"FaultStore({made}), which met: {met}"

    # ---- deciding

    def _call(self, operation: str, done: Callable[[], T], run_id: str | None = None, **arguments: Any) -> T:
        """Make a call, or let it fail."""
        if not self.armed:
            return done()
        call = StoreCall(operation, run_id, arguments)
        chosen = None
        for met in self._meet(call):
            if met.fault.kind == "latency":
                self._clock.wait(threading.Event(), met.fault.seconds)
            else:
                chosen = met
        if chosen is None:
            return done()
        fault = chosen.fault
        text = f"a FaultStore was told to fail: {chosen}"
        if fault.kind == "before":
            raise (fault.error or StoreUnavailableError)(text)
        if fault.kind == "fenced":
            self._take_over(call, fault.seconds)
            return done()
        if fault.kind in ("after", "lost"):
            done()
        if fault.kind == "after":
            raise (fault.error or StoreError)(text)
        return cast("T", (NotApplied if fault.kind == "not_applied" else Unknown)(ConnectionError(text)))

    def _meet(self, call: StoreCall) -> list[Injected]:
        """Count a call, and give the faults that meet it: latencies, and one other at most."""
        found: list[Injected] = []
        with self._lock:
            for kind, operations in POSSIBLE.items():
                if call.operation in operations and (kind != "fenced" or call.owned):
                    self._numbers[kind, call.operation] += 1
            for number, fault in enumerate(self.faults):
                if not self._due(number, fault, call):
                    continue
                if fault.kind != "latency" and any(met.fault.kind != "latency" for met in found):
                    continue
                self._met[number] += 1
                nth = self._numbers[fault.kind, call.operation]
                same = evolve(fault, on=call.operation, nth=nth, when=None, rate=None, times=None)
                found.append(Injected(same, call.run_id))
            self.injected += found
        return found

    def _due(self, number: int, fault: Fault, call: StoreCall) -> bool:
        if not fault.fits(call):
            return False
        self._fitted[number] += 1
        if fault.nth is not None and self._fitted[number] not in fault.nth:
            return False
        if fault.rate is not None and self._chances[number].random() >= fault.rate:
            return False
        return fault.times is None or self._met[number] < fault.times

    def _take_over(self, call: StoreCall, seconds: float) -> None:
        """Another session gets the run, as if this one had been silent for too long; then it is silent itself."""
        assert call.run_id is not None
        head = self.inner.head(call.run_id)
        if head is not None and not head.closed and head.fence == call.arguments["fence"]:
            self.inner.release(Lease(call.run_id, head.incarnation, head.fence, head.seq, "", 0))
            self.inner.claim(call.run_id, "a rival of the FaultStore's", seconds)

    # ---- the port

    @property
    def durability(self) -> Durability:
        return self.inner.durability

    def create(
        self,
        run_id: str,
        records: Sequence[Draft],
        *,
        head: Head,
        attempt_id: str,
        then: Then = "open",
        lease: LeaseRequest | None = None,
    ) -> CreateOutcome:
        given: dict[str, Any] = {"head": head, "attempt_id": attempt_id, "then": then, "lease": lease}
        return self._call(
            "create", lambda: self.inner.create(run_id, records, **given), run_id, records=records, **given
        )

    def open_incarnation(
        self,
        run_id: str,
        incarnation: int,
        records: Sequence[Draft],
        *,
        head: Head,
        attempt_id: str,
        lease: LeaseRequest | None = None,
        expected_seq: int | None = None,
        fence: int | None = None,
    ) -> AppendOutcome:
        given: dict[str, Any] = {"head": head, "attempt_id": attempt_id, "lease": lease}
        given |= {"expected_seq": expected_seq, "fence": fence}
        return self._call(
            "open_incarnation",
            lambda: self.inner.open_incarnation(run_id, incarnation, records, **given),
            run_id,
            incarnation=incarnation,
            records=records,
            **given,
        )

    def append(
        self,
        run_id: str,
        incarnation: int | None,
        expected_seq: int | None,
        records: Sequence[Draft],
        *,
        attempt_id: str,
        head: Head | None = None,
        due: int | None = None,
        then: Then = "open",
        fence: int | None = None,
        release: bool = False,
        lease: LeaseRequest | None = None,
    ) -> AppendOutcome:
        given: dict[str, Any] = {"attempt_id": attempt_id, "head": head, "due": due, "then": then}
        given |= {"fence": fence, "release": release, "lease": lease}
        return self._call(
            "append",
            lambda: self.inner.append(run_id, incarnation, expected_seq, records, **given),
            run_id,
            incarnation=incarnation,
            expected_seq=expected_seq,
            records=records,
            **given,
        )

    def _transact(
        self,
        run_id: str,
        incarnation: int,
        expected_seq: int,
        work: Callable[[Any], Sequence[Draft]],
        **given: Any,
    ) -> AppendOutcome:
        transact = cast("Any", self.inner).transact
        return self._call(
            "transact",
            lambda: cast("AppendOutcome", transact(run_id, incarnation, expected_seq, work, **given)),
            run_id,
            incarnation=incarnation,
            expected_seq=expected_seq,
            **given,
        )

    def head(self, run_id: str) -> RunHead | None:
        return self._call("head", lambda: self.inner.head(run_id), run_id)

    def heads(self, where: HeadFilter, *, limit: int, after: str | None = None) -> list[RunHead]:
        return self._call("heads", lambda: self.inner.heads(where, limit=limit, after=after), where=where)

    def read(
        self, run_id: str, from_seq: int = 0, *, incarnation: int | None = None, limit: int | None = None
    ) -> Tail | None:
        return self._call(
            "read",
            lambda: self.inner.read(run_id, from_seq, incarnation=incarnation, limit=limit),
            run_id,
            from_seq=from_seq,
            incarnation=incarnation,
        )

    def claim(self, run_id: str, owner: str, ttl: float) -> Lease | RunHead | None:
        return self._call("claim", lambda: self.inner.claim(run_id, owner, ttl), run_id, owner=owner)

    def claim_due(
        self, owner: str, ttl: float, *, now: int, limit: int, fingerprints: Iterable[str] = ()
    ) -> list[Lease]:
        return self._call(
            "claim_due",
            lambda: self.inner.claim_due(owner, ttl, now=now, limit=limit, fingerprints=fingerprints),
            owner=owner,
        )

    def next_due(self) -> int | None:
        return self._call("next_due", self.inner.next_due)

    def renew(self, lease: Lease, ttl: float) -> Lease | None:
        return self._call("renew", lambda: self.inner.renew(lease, ttl), lease.run_id)

    def release(self, lease: Lease) -> None:
        return self._call("release", lambda: self.inner.release(lease), lease.run_id)

    def delete(self, run_id: str, incarnation: int, *, fence: int | None = None) -> bool:
        return self._call("delete", lambda: self.inner.delete(run_id, incarnation, fence=fence), run_id)

    def wait(self, run_id: str, seq: int, timeout: float) -> bool:
        return self._call("wait", lambda: self.inner.wait(run_id, seq, timeout), run_id)

    def on_due(self, wake: Callable[[], None]) -> Callable[[], None]:
        return self.inner.on_due(wake)

    def verify(self) -> Iterator[Verified]:
        return self._call("verify", self.inner.verify)

    def closed(
        self,
        *,
        after: ClosedKey | None = None,
        before: ClosedKey | None = None,
        newest_first: bool = False,
        limit: int,
    ) -> list[RunHead]:
        given: dict[str, Any] = {"after": after, "before": before, "newest_first": newest_first, "limit": limit}
        return self._call("closed", lambda: self.inner.closed(**given))

    def size(self) -> StoreSize:
        return self._call("size", self.inner.size)

    def vacuum(self) -> int:
        return self._call("vacuum", self.inner.vacuum)

    def close(self) -> None:
        self.inner.close()
