"""The store in a bucket: S3 and what speaks it, Google Cloud Storage, Azure, through obstore.

Theory of operation. A bucket has no transactions: what can be done atomically is to create one object at a key where
there is none (`If-None-Match: *`). So everything that happens to a run, whatever it is, is *one object* at the next key
of the run's log:

    runs/<run>/000000000000     created, with its first records
    runs/<run>/000000000001     a lease was granted: no record, and the fence is 2 from here on
    runs/<run>/000000000002     the owner appended a record
    runs/<run>/000000000003     a signal came
    runs/<run>/000000000004     the owner closed the run
    runs/<run>/000000000005     the next incarnation began, with its first records; the fence is 3
    runs/<run>/lease            how long the lease was extended to (once it was)
    due/<instant>/<run>.<entry> a hint: look at this run then
    runs/<run>/pack             copies of many entries, for who loads a long run: see `packs`
    stepwell.json  clock  probe/...

An *entry* holds the records that it adds and where the run stands after it: incarnation, number of records, fence,
lease, closed or not, head, newest attempts. So the last entry tells all, and N appends are N small uploads. Keys count
entries, not records: records are gapless inside, whatever else happened between them. A batch is one object, so it is
there or not.

Why a stale owner can't write. Granting a lease is an entry like any other: it takes the next key. An owner decides on
the entry that it knows as the last one, and creates its own at the key after that one. If a newer fence was granted
after it looked, before, or while its request was on the way, that key is taken, and the bucket refuses: however long
the owner, or its request, was asleep. It then reads on, and learns that it is fenced. The order in which a run's
entries were created is the one order of all that happened to it, in which each was decided on the one before. For the
same reason all incarnations are one log: the entry that opens the next one takes the key at which a late append to the
one before would land.

Lost answers. An entry holds a nonce. When an answer is lost the same bytes are sent again to the same key; "it exists"
(412) then means "read it": these very bytes, so it was done; others, so it was not and never will be, for the key is
taken; nothing, so two met (409), and it is sent again. The driver's own tries are switched off, and would do no harm.
When all tries end without an answer, the outcome is Unknown, and the caller's next try of the attempt finds its records
by their bytes, or its attempt id, as the port says; late arrivals of the first meet the second's object, or are it.

Removal. `delete` adds an entry, the *grave*, which says that the run is gone and keeps its fence: from then on nobody
sees any of it, at once. A run that takes the id goes on in the same log after the grave, with the next fence, and
looks at nothing before it. The entries before the grave are removed later, by `vacuum`, or by whoever looks for due
runs from time to time; and again by the next one, when that was killed. A key that is removed is free, and a request
that has slept since before the grave could be taken there. That is why

- the first key is never free again: a stub stays there. So a create needs to look at nothing;
- entries are removed when their grave is at least `keep_deleted` old by the bucket's clock, and a writer whose
  acknowledged entry took more than half of that, by its own clock, since it saw the entry before as the last one, looks
  whether a later grave stands; if so what it wrote is left over, nothing was done, and it decides anew;
- in the same way, "nothing comes after the entry that I know" is believed only when that was known within this time;
  otherwise the keys are listed, which finds the grave, or what came after it.

A list is used for nothing else than to find the last key, and is confirmed by asking for the one after it.

Moves. What comes from another store is staged in the same log, and lands by one entry; what goes ends in a grave that
says where to. `moves` has the argument.

Leases are for liveness only. They lapse by the bucket's clock: who writes learns how far its own clock is off, from the
time that the bucket gives an object (whole seconds in S3, so within a second or two), when it opens the bucket and from
time to time. An owner that is seen to be dead on the same machine holds nothing (`owners`). Extending a lease
replaces the `lease` object, with `If-Match` and a nonce in it, for a tag tells contents and not versions; it grants
nothing, and a fence that is not the log's makes it void.

Heads are in the entries, so they are never behind. Lists look at every run: at the names of all objects, and at the
last entries of the runs that changed. Runs that are due are found by hints (`due`), which are made before the entry
that needs them, so that none is missing when a process dies.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from stepwell.errors import (
    CorruptHistoryError,
    InvalidInputError,
    StoreMisconfiguredError,
)
from stepwell.store import (
    AppendOutcome,
    Committed,
    CreateOutcome,
    Draft,
    Durability,
    Head,
    Lease,
    LeaseRequest,
    RunHead,
    Tail,
    Then,
    seal,
)

from ..bell import Bell
from ..liveness import ForkAware, watch_forks
from ..outcomes import outcome_of
from ..rules import Clock, check_append, check_first, check_lease, check_opening, check_run_id, micros
from . import decisions
from .bucket import Bucket
from .decisions import Asked
from .due import due_runs
from .entries import State, name_of
from .log import Log, Logs
from .moves import S3Moves
from .opening import Opening, borrow, check_name, check_prefix, connect, driver_there
from .owners import MachineOwners
from .packs import MANY, pack_later
from .records import records as records_of
from .upkeep import S3Upkeep

__all__ = ["S3Store"]


class S3Store(S3Moves, S3Upkeep, ForkAware):
    """Keeps each run as a log of small objects in a bucket. See the module for how and why that is safe.

    Args:
        bucket: the bucket's name, found and entered as the environment says (`AWS_ACCESS_KEY_ID`,
            `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT_URL`, ...); or a store of obstore's that you have, such
            as `obstore.store.S3Store`, `GCSStore` or `AzureStore`, with credentials and a prefix of its own.
        prefix: of all keys, so that several engines share a bucket.
        region, endpoint: instead of the environment's.
        must_exist: refuse, at first use, a prefix that holds no store yet.
        clock: gives microseconds since 1970, for tests; None is the bucket's clock.
        poll: seconds between two looks at a history that somebody waits for; each is a request.
        keep_deleted: seconds for which the objects of a removed run are kept, unseen; at least 30.

    Raises:
        StoreMisconfiguredError: obstore is not installed, or an argument can't be right.
    """

    def __init__(
        self,
        bucket: Any,
        prefix: str = "",
        *,
        region: str | None = None,
        endpoint: str | None = None,
        must_exist: bool = False,
        clock: Clock | None = None,
        poll: float = 1.0,
        keep_deleted: float = 900.0,
    ) -> None:
        driver_there()
        prefix = check_prefix(prefix)
        if not poll > 0 or not keep_deleted >= 30:
            raise InvalidInputError(f"poll must be more than 0 and keep_deleted 30 or more, got {poll, keep_deleted}")
        make: Callable[[], Bucket]
        if isinstance(bucket, str):
            make = partial(connect, check_name(bucket), prefix, region, endpoint)
        else:
            ready = borrow(bucket, prefix)
            make = lambda: ready  # noqa: E731 - the other one is a partial
        self._opening = Opening(make, must_exist=must_exist, clock=clock)
        self._bell, self._owners = Bell(poll), MachineOwners()
        self._keep = keep_deleted
        self._states: dict[str, State] = {}
        self._known: Logs | None = None
        self._lock = threading.Lock()
        self._mended = self._opening.timer()
        watch_forks(self)

    @property
    def durability(self) -> Durability:
        """What the service promises, where that is known; asks the bucket to show that it keeps conditions."""
        bucket = self._opening.reading()
        settings: dict[str, Any] = {"store": bucket.place}
        try:
            self._opening.writing()
            settings["conditional_writes"] = "kept"
        except StoreMisconfiguredError as e:
            if "does not keep" in str(e):
                raise
            settings["conditional_writes"] = f"not tried: {e}"
        config = getattr(bucket.objects, "config", None) or {}
        kind = type(bucket.objects).__name__
        if kind == "MemoryStore":
            return Durability(process_crash=False, power_loss=False, failover=False, settings=settings)
        if config.get("endpoint"):
            settings["endpoint"] = config["endpoint"]
        promised = True if kind in ("S3Store", "GCSStore", "AzureStore") and not config.get("endpoint") else None
        return Durability(process_crash=True, power_loss=promised, failover=promised, settings=settings)

    # ---- writes

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
        """Create a run; see the port."""
        check_first(run_id, records, attempt_id, lease)
        logs, log = self._log(run_id, writing=True)
        find, asked = logs.find(log), self._asked(lease)

        def decide(there: State | None, now: int) -> decisions.Change:
            return decisions.create(there, now, run_id, records, head, attempt_id, then, asked, find)

        done: CreateOutcome = self._write(lambda: logs.change(log, decide, new=True))
        return self._bell.due.told(done, head.due)

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
        """Open the next incarnation; see the port."""
        check_first(run_id, records, attempt_id, lease)
        check_opening(run_id, expected_seq, fence)
        logs, log = self._log(run_id, writing=True)
        find, asked = logs.find(log), self._asked(lease)

        def decide(state: State | None, now: int) -> decisions.Change:
            wanted = (run_id, incarnation, records, head, attempt_id, asked, expected_seq, fence)
            return decisions.next_incarnation(state, now, *wanted, find)

        done: AppendOutcome = self._write(lambda: logs.change(log, decide))
        return self._bell.due.told(done, head.due)

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
        """Append to a history; see the port."""
        check_append(run_id, incarnation, expected_seq, records, attempt_id, head, then, fence, release, lease)
        logs, log = self._log(run_id, writing=True)
        find = logs.find(log)
        if fence is None:
            asked = self._asked(lease)

            def decide(state: State | None, now: int) -> decisions.Change:
                wanted = (run_id, incarnation, expected_seq, records, attempt_id, due, asked)
                return decisions.tell(state, now, *wanted, find)

        else:
            assert incarnation is not None  # check_append saw to it
            assert expected_seq is not None
            lines = seal(records, session=fence, offset=expected_seq, then=then)
            wanted = (run_id, incarnation, expected_seq, lines, fence, head, then, release)

            def read(state: State, number: int, seq: int, count: int) -> list[bytes]:
                return records_of(logs, log, state, number, seq, count)[1]

            def decide(state: State | None, now: int) -> decisions.Change:
                return decisions.append(state, now, *wanted, read)

        done: AppendOutcome = self._write(lambda: logs.change(log, decide))
        if fence is not None:
            due = head.due if head is not None and release else None
            if then == "closed" and isinstance(done, Committed):
                pack_later(logs, log, log.tail)
        return self._bell.due.told(done, due)

    # ---- reads

    def head(self, run_id: str) -> RunHead | None:
        """The run's head; see the port."""
        check_run_id(run_id)
        logs, log = self._log(run_id)
        state = logs.look(log)
        if state is None or state.deleted:
            decisions.refuse_away(state)
            return None
        now = self._opening.now()
        return logs.with_lease(log, state, now, exact=True).shown(now)

    def read(
        self, run_id: str, from_seq: int = 0, *, incarnation: int | None = None, limit: int | None = None
    ) -> Tail | None:
        """Records of a history; see the port."""
        check_run_id(run_id)
        logs, log = self._log(run_id)
        state = logs.look(log)
        if state is None or state.deleted:
            decisions.refuse_away(state)
            return None
        number = state.incarnation if incarnation is None else incarnation
        if not 0 <= number <= state.incarnation:
            return None
        try:
            start, lines, seq = records_of(logs, log, state, number, from_seq, limit)
        except CorruptHistoryError:
            log.tail = None
            now = logs.look(log)
            if now is None or (not now.deleted and now.born == state.born):
                raise
            return self.read(run_id, from_seq, incarnation=incarnation, limit=limit)  # it was removed meanwhile
        if log.loose >= MANY and state.held is not None and state.held.lock == self._owners.own() != "":
            pack_later(logs, log, state)
        closed = state.closed or number < state.incarnation
        return Tail(number, start, lines, closed, more=start + len(lines) < seq)

    def wait(self, run_id: str, seq: int, timeout: float) -> bool:
        """Block until the history may be longer; see the port. Asks for the next key every `poll` seconds."""
        check_run_id(run_id)

        def grown() -> bool:
            logs, log = self._log(run_id)
            state = logs.look(log)
            return state is not None and not state.deleted and state.seq > seq

        return self._bell.wait(grown, timeout)

    def on_due(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called when a run may have become due; see the port."""
        return self._bell.due.listen(wake)

    # ---- leases

    def claim(self, run_id: str, owner: str, ttl: float) -> Lease | RunHead | None:
        """Take the lease of a run; see the port."""
        check_run_id(run_id)
        request = LeaseRequest(owner, ttl)
        check_lease(request)
        logs, log = self._log(run_id, writing=True)
        asked = Asked(request, self._owners.own())

        def decide(state: State | None, now: int) -> decisions.Change:
            return decisions.claim(state, now, asked, None)

        got: Lease | RunHead | None = logs.change(log, decide)
        return got if not isinstance(got, RunHead) else self.head(run_id)

    def claim_due(
        self, owner: str, ttl: float, *, now: int, limit: int, fingerprints: Iterable[str] = ()
    ) -> list[Lease]:
        """Take the leases of runs that are due; see the port. Passes damaged ones by."""
        request = LeaseRequest(owner, ttl)
        check_lease(request)
        self._mend()
        bucket = self._opening.writing()
        logs, known, leases = self._logs(bucket), frozenset(fingerprints), list[Lease]()
        asked = Asked(request, self._owners.own())

        def wanted(state: State, when: int) -> bool:
            return state.held is not None or when <= now

        def still(state: State) -> bool:
            when = state.due(self._opening.now())
            return when is not None and wanted(state, when)

        def decide(state: State | None, at: int) -> decisions.Change:
            return decisions.claim(state, at, asked, still)

        until = max(now, self._opening.now())
        found = due_runs(bucket, logs, until=until, wanted=wanted, fingerprints=known)
        for _, _, name in found if limit > 0 else ():
            log = logs.get(name)
            got = logs.change(log, decide)
            if isinstance(got, Lease):
                leases.append(got)
            if len(leases) >= limit:
                break
        return leases

    def next_due(self) -> int | None:
        """The earliest due instant; see the port. Passes damaged runs by."""
        bucket = self._opening.reading()
        found = due_runs(bucket, self._logs(bucket), until=None, wanted=lambda *_: True, fingerprints=frozenset())
        return next((when for when, _, _ in found), None)

    def renew(self, lease: Lease, ttl: float) -> Lease | None:
        """Extend a lease; see the port."""
        check_lease(LeaseRequest(lease.owner, ttl))
        logs, log = self._log(lease.run_id, writing=True)
        state = logs.renew(log, lease.fence, self._opening.now() + micros(ttl), self._owners.own())
        return None if state is None else decisions.lease_of(state)

    def release(self, lease: Lease) -> None:
        """End a lease; see the port."""
        logs, log = self._log(lease.run_id, writing=True)
        logs.change(log, lambda state, now: decisions.release(state, now, lease.fence))
        self._bell.due.ring()

    def delete(self, run_id: str, incarnation: int, *, fence: int | None = None) -> bool:
        """Remove a closed run; see the port. Its objects stay, unseen, for `keep_deleted` seconds."""
        check_run_id(run_id)
        logs, log = self._log(run_id, writing=True)
        decide = partial(decisions.delete, incarnation=incarnation, fence=fence)
        gone: bool = logs.change(log, decide)
        return gone

    def close(self) -> None:
        """Close it; the user's own bucket stays open."""
        self._opening.close()
        self._owners.close()
        self._bell.ring()

    def after_fork_in_child(self) -> None:
        """Make new locks: the inherited ones may be held by threads that aren't here."""
        self._lock = threading.Lock()
        self._opening.after_fork_in_child()

    # ---- within

    def _logs(self, bucket: Bucket) -> Logs:
        bucket.check_open()
        with self._lock:
            if self._known is None:
                self._known = Logs(bucket, self._opening.now, self._opening.timer, self._keep, self._owners.alive)
            return self._known

    def _log(self, run_id: str, *, writing: bool = False) -> tuple[Logs, Log]:
        logs = self._logs(self._opening.writing() if writing else self._opening.reading())
        return logs, logs.get(name_of(run_id))

    def _asked(self, lease: LeaseRequest | None) -> Asked | None:
        return None if lease is None else Asked(lease, self._owners.own())

    def _write(self, change: Callable[[], Any]) -> Any:
        """The outcome of a write, as the port has it."""
        done = outcome_of(change)
        self._bell.ring()
        return done
