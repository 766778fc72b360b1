"""The store as one simulated process has it: the shipped one, behind calls that may fail in every way that is allowed.

Each call is a point at which others may run. Before or after it the process may be killed or stopped for longer than
its lease, the store may be slow or not there, a reply may be lost though the write was made, or the write not made at
all. What the store really did is told to the world, whatever the caller is told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import frozen
from tests.dst.kernel import Process, here
from tests.dst.world import World

from stepwell.errors import StoreUnavailableError
from stepwell.store import AlreadyCommitted, Committed, Created, Draft, Exists, Lease, NotApplied, Store, Unknown

__all__ = ["Rates", "SimStore"]

IDLE = frozenset({"claim_due", "next_due", "closed", "heads"})
"""Calls of those who have nothing to do, which is most of the day: a fault there shows little."""


@frozen
class Rates:
    """How likely each fault is at one call of a store."""

    kill_before: float = 0.0
    kill_after: float = 0.0
    pause: float = 0.0
    slow: float = 0.0
    unavailable: float = 0.0
    lost_reply: float = 0.0
    not_applied: float = 0.0
    unknown: float = 0.0
    dropped_bell: float = 0.0


class SimStore:
    """One process's handle on the store that all share.

    Args:
        inner: the shipped store.
        rates: gives the faults that may be met now.
        ttl: seconds that leases last, to stop a process for longer.
    """

    def __init__(self, inner: Any, process: Process, world: World, rates: Callable[[], Rates], ttl: float) -> None:
        self._inner: Store = inner
        self._process, self._world, self._rates, self._ttl = process, world, rates, ttl
        self._kernel = process.kernel
        self._chance = process.kernel.chance
        if callable(getattr(inner, "transact", None)):
            self.transact = self._transact

    # ---- writes

    def create(self, run_id: str, records: Sequence[Draft], **how: Any) -> Any:
        def done(made: Any) -> None:
            if isinstance(made, Created):
                head = self._inner.head(run_id)
                assert head is not None
                if self._world.made_by.get(run_id) != how["attempt_id"]:  # or else it is the reply to a repeat
                    self._world.made_by[run_id] = how["attempt_id"]
                    self._world.created(self._process, run_id, records, head.fence)
                self._world.granted(self._process, made.lease)
            elif isinstance(made, Exists):
                self._world.met("run was there already")

        return self._write("create", run_id, lambda: self._inner.create(run_id, records, **how), done)

    def open_incarnation(self, run_id: str, incarnation: int, records: Sequence[Draft], **how: Any) -> Any:
        def done(outcome: Any) -> None:
            if isinstance(outcome, Committed):
                head = self._inner.head(run_id)
                assert head is not None
                self._world.opened(self._process, run_id, incarnation, records, head.fence)
            if isinstance(outcome, (Committed, AlreadyCommitted)):
                self._world.granted(self._process, outcome.lease)

        return self._write(
            "open", run_id, lambda: self._inner.open_incarnation(run_id, incarnation, records, **how), done
        )

    def append(
        self, run_id: str, incarnation: int | None, expected_seq: int | None, records: Sequence[Draft], **how: Any
    ) -> Any:
        world, process = self._world, self._process
        kinds = ",".join(record.type for record in records)

        def done(outcome: Any) -> None:
            head = how.get("head")
            if isinstance(outcome, Committed):
                closed = how.get("then") == "closed"
                world.appended(process, run_id, outcome.seq, records, how.get("fence"), closed=closed)
                if head is not None and head.status == "suspended" and how.get("release"):
                    world.parked(run_id, head.due)
                if head is not None and head.blocked is not None:
                    world.violate("S17", f"run {run_id} was blocked: {head.blocked}")
            if isinstance(outcome, (Committed, AlreadyCommitted)):
                world.granted(process, outcome.lease)
            if how.get("fence") is not None:
                world.met(f"owner's append: {type(outcome).__name__}")

        return self._write(
            f"append[{kinds}]",
            run_id,
            lambda: self._inner.append(run_id, incarnation, expected_seq, records, **how),
            done,
        )

    def _transact(
        self, run_id: str, incarnation: int, expected_seq: int, work: Callable[[Any], Sequence[Draft]], **how: Any
    ) -> Any:
        inner: Any = self._inner
        records: list[Draft] = []

        def watched(database: Any) -> Sequence[Draft]:
            records[:] = work(database)
            return records

        def done(outcome: Any) -> None:
            if isinstance(outcome, Committed):
                self._world.appended(self._process, run_id, outcome.seq, records, how["fence"], closed=False)
            self._world.met(f"transaction: {type(outcome).__name__}")

        return self._write(
            "transact", run_id, lambda: inner.transact(run_id, incarnation, expected_seq, watched, **how), done
        )

    def delete(self, run_id: str, incarnation: int, *, fence: int | None = None) -> bool:
        def done(gone: Any) -> None:
            if gone:
                self._world.removed(run_id)

        deleted: bool = self._call("delete", run_id, lambda: self._inner.delete(run_id, incarnation, fence=fence), done)
        return deleted

    # ---- leases

    def claim(self, run_id: str, owner: str, ttl: float) -> Any:
        def done(claimed: Any) -> None:
            self._world.granted(self._process, claimed if isinstance(claimed, Lease) else None)

        claimed = self._call("claim", run_id, lambda: self._inner.claim(run_id, owner, ttl), done)
        self._got(claimed)
        return claimed

    def claim_due(self, owner: str, ttl: float, **how: Any) -> list[Lease]:
        def done(leases: Any) -> None:
            for lease in leases:
                self._world.granted(self._process, lease)

        found: list[Lease] = self._call("claim_due", "", lambda: self._inner.claim_due(owner, ttl, **how), done)
        for lease in found:
            self._got(lease)
        return found

    def renew(self, lease: Lease, ttl: float) -> Lease | None:
        again: Lease | None = self._call(
            "renew",
            lease.run_id,
            lambda: self._inner.renew(lease, ttl),
            lambda found: self._world.renewed(self._process, lease, found),
        )
        return again

    def release(self, lease: Lease) -> None:
        self._call("release", lease.run_id, lambda: self._inner.release(lease))

    # ---- reads

    def head(self, run_id: str) -> Any:
        return self._call("head", run_id, lambda: self._inner.head(run_id))

    def heads(self, where: Any, **how: Any) -> Any:
        return self._call("heads", "", lambda: self._inner.heads(where, **how))

    def read(self, run_id: str, from_seq: int = 0, **how: Any) -> Any:
        return self._call("read", run_id, lambda: self._inner.read(run_id, from_seq, **how))

    def next_due(self) -> int | None:
        due: int | None = self._call("next_due", "", self._inner.next_due)
        return due

    def closed(self, **how: Any) -> Any:
        return self._call("closed", "", lambda: self._inner.closed(**how))

    def wait(self, run_id: str, seq: int, timeout: float) -> bool:
        """Look from time to time, as stores do for what other processes write."""
        kernel = self._kernel

        def grown() -> bool:
            run = self._world.run(run_id)
            return run is None or len(run.last.events) > seq

        return kernel.wait(grown, timeout)

    def on_due(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Hand the bell on, but for when it is lost. What other processes write rings none here, as with files."""

        def perhaps() -> None:
            task = here()
            if task is None or task.process is not self._process or self._process.dead:
                return
            if self._chance.random() < self._rates().dropped_bell:
                self._world.met("notification dropped")
            else:
                self._world.met("notification heard")
                wake()

        return self._inner.on_due(perhaps)

    def close(self) -> None:
        """Leave the handle open: others may share it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    # ---- faults

    def _write(self, name: str, run_id: str, call: Callable[[], Any], done: Callable[[Any], None]) -> Any:
        """A write, whose reply may be lost, or which may not be made."""
        rates = self._rates()
        lot = self._chance.random()
        if lot < rates.not_applied:
            self._call(name, run_id, lambda: None)
            return self._lied("write not applied", NotApplied())
        if lot < rates.not_applied + rates.unknown:
            self._call(name, run_id, lambda: None)
            return self._lied("unknown, and not written", Unknown())
        made = self._call(name, run_id, call, done)
        if isinstance(made, (Committed, Created, AlreadyCommitted)):
            if lot > 1 - rates.lost_reply:
                return self._lied("unknown, and written", Unknown())
            self._got(made.lease)
        return made

    def _got(self, lease: Any) -> None:
        """The process knows that it has a lease."""
        if isinstance(lease, Lease):
            self._process.fences[lease.run_id] = lease.fence

    def _lied(self, what: str, answer: Any) -> Any:
        self._world.met(what)
        self._kernel.tell(what)
        return answer

    def _call(
        self, name: str, run_id: str, call: Callable[[], Any], done: Callable[[Any], None] = lambda _: None
    ) -> Any:
        kernel, rates, world = self._kernel, self._rates(), self._world
        lot = self._chance.random() * (3 if name in IDLE else 0.3)
        if rates.kill_before:  # else there are no faults now
            self._before(rates, lot, name)
        kernel.turn()
        result = call()
        done(result)
        kernel.tell(name, run_id, _brief(result))
        if not self._process.dead and self._chance.random() < rates.kill_after * (0.3 if name in IDLE else 3):
            world.met("killed after a call of the store")
            kernel.kill(self._process)
        return result

    def _before(self, rates: Rates, lot: float, name: str) -> None:
        kernel, world = self._kernel, self._world
        bounds = iter((rates.kill_before, rates.pause, rates.slow, rates.unavailable))
        if lot < (bound := next(bounds)):
            world.met("killed before a call of the store")
            kernel.tell("killed before", name)
            kernel.kill(self._process)
        elif lot < (bound := bound + next(bounds)):
            world.met("stopped for longer than a lease")
            self._process.paused = kernel.time + int(self._ttl * (1 + 3 * self._chance.random()) * 1e6)
            kernel.tell("stopped before", name)
        elif lot < (bound := bound + next(bounds)):
            world.met("slow store")
            kernel.sleep(self._chance.random() * 3)
        elif lot < bound + next(bounds):
            world.met("store not there")
            raise StoreUnavailableError(f"{name}: not there for a moment")


def _brief(result: Any) -> str:
    """What a result says, without what is drawn anew in each simulation on other handles."""
    if isinstance(result, (list, tuple)):
        return f"[{len(result)}]"
    if isinstance(result, (Committed, AlreadyCommitted)):
        return f"{type(result).__name__} {result.incarnation}.{result.seq} {result.lease and result.lease.fence}"
    if isinstance(result, Lease):
        return f"lease {result.fence}"
    if isinstance(result, (bool, int)):
        return repr(result)
    return type(result).__name__
