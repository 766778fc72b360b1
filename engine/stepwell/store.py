"""The store port: what the engine asks of a place that keeps histories. Floor 2.

A store sees bytes, positions, fences and due times, never event classes. Everything is *compare-and-append on one
history*: a signal from another process and a step result from the owner meet in one total order.

The contract, which `stepwell.testing.contract` checks (a store that can't keep it is no store):

1.  A *run* has an id and a current *incarnation* (0, 1, ...). An incarnation's *history* is a gapless list of records
    at seq 0, 1, ...; bytes come back as they went in.
2.  `append` is atomic: all of its records or none, together with the head, the lease and `then`. It returns
    `Committed` only when they are as durable as `durability` declares.
3.  *Owners* pass `incarnation`, `expected_seq` and `fence`; all three are compared in the same atomic operation as the
    write. Order of the checks: an attempt that is there already is `AlreadyCommitted`; an older fence is
    `Fenced`; a closed or other incarnation, or a tail that is not `expected_seq`, is `Conflict`.
4.  *Outside* writers pass no fence. Without `expected_seq` the records land at the tail, if the incarnation is open;
    the store sets `due` in the head and nothing else. Closed: `Conflict(closed=True)`.
5.  After `Unknown`, the caller repeats the same attempt (same `attempt_id`, same records) until it is told. An owner's
    attempt is known by its fence, position and bytes, an outside writer's by its `attempt_id`, which is kept in the
    sealed record.
6.  A *fence* is the session number: it rises with every lease that is granted and every incarnation that is opened, and
    never repeats for a run id, also not after `delete` in the same store.
7.  A *lease* is granted by `claim`, or together with a write that asks for one (`lease=`); it lapses after its ttl on
    the store's own clock, or as soon as the store can see that the owner is dead; it ends with `release` or with an
    append that says so or closes the run. A write that is repeated with the same `LeaseRequest.token` gets the lease
    that it was granted. Leases are for liveness; fences are for safety.
8.  Reads see a prefix of what was committed, never a torn record.
9.  Driver exceptions never leave a store: it raises `StoreError` and its kinds, or `CorruptHistoryError`.
10. A store is thread-safe. Used in a forked child it opens its own handles.
11. `delete` is atomic: whoever is killed in the midst of it leaves the whole run, or none of it. A run that takes the
    id afterwards has none of its records, attempts, leases or fences.
12. For its *upkeep* (`closed`, `size`, `vacuum`) a store says which runs are closed since when, what it takes, and
    gives back what holds nothing; their contract is with `Upkeep`, in `stepwell.upkeep`.
13. A store may besides take a program's own rows into its transactions (`Transactional`, below), and have runs moved
    into it and out of it (`Movable`, in `stepwell.moves`).

The engine seals records through `seal`: a store calls it when it knows the position, in its transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import msgspec
from attrs import field, frozen

from .errors import CorruptHistoryError, StoreError
from .heads import Blocked, Head, HeadFilter, RunHead, Status, Waiting
from .leases import Lease, LeaseRequest
from .moves import Arrival, Departure, Movable
from .sealing import FORMAT_VERSION, Draft, Envelope, Then, envelope, first_broken, open_body, seal, verify_lines
from .store_outcomes import (
    AlreadyCommitted,
    AppendOutcome,
    Committed,
    Conflict,
    Created,
    CreateOutcome,
    Exists,
    Fenced,
    NotApplied,
    Unknown,
)
from .upkeep import ClosedKey, Rewritable, StoreSize, Upkeep, closed_key
from .wrapped import SEALED

__all__ = [
    "FORMAT_VERSION",
    "SEALED",
    "AlreadyCommitted",
    "AppendOutcome",
    "Arrival",
    "Blocked",
    "ClosedKey",
    "Committed",
    "Conflict",
    "CreateOutcome",
    "Created",
    "Departure",
    "Draft",
    "Durability",
    "Envelope",
    "Exists",
    "Fenced",
    "Head",
    "HeadFilter",
    "Lease",
    "LeaseRequest",
    "Movable",
    "NotApplied",
    "Rewritable",
    "RunHead",
    "Status",
    "Store",
    "StoreSize",
    "Tail",
    "Then",
    "Transactional",
    "Unknown",
    "Verified",
    "Waiting",
    "closed_key",
    "envelope",
    "first_broken",
    "open_body",
    "seal",
    "verify_lines",
]


@frozen
class Tail:
    """Records of one incarnation from `from_seq` on, as sealed bytes.

    Attributes:
        seq: the seq after the last of `records`.
        closed: whether the incarnation is closed.
        more: True when `limit` cut the answer short.
        checked: whether the store has checked version, checksum and position of each record itself, and can name the
            place of one that is wrong; otherwise it is done by whoever reads them.
    """

    incarnation: int
    from_seq: int
    records: list[bytes]
    closed: bool
    more: bool = False
    checked: bool = field(default=False, eq=False)

    @property
    def seq(self) -> int:
        return self.from_seq + len(self.records)


class Durability(msgspec.Struct, frozen=True):
    """What the store's live settings survive. None means that it can't be told.

    Attributes:
        process_crash: acknowledged records survive SIGKILL of the process.
        power_loss: they survive a power cut.
        failover: they survive the loss of the server.
        settings: what was read back, for people.
    """

    process_crash: bool | None
    power_loss: bool | None
    failover: bool | None
    settings: Mapping[str, Any] = {}


class Verified(msgspec.Struct, frozen=True):
    """A part of a store that was read from its first byte to its last, unless `unread` says otherwise.

    Attributes:
        place: a file, or a table and the run in it.
        run_id, incarnation: whose history it holds; None when it holds something else.
        records: the history, as far as it is whole.
        size: bytes that were read.
        problem: what is wrong with it, or None: a CorruptHistoryError, or a StoreError when it could not be read.
        unread: it could not be read, or not to its end; `problem` says why.
        note: what is unusual about it and does no harm, such as a torn record that was never acknowledged; or None.
        share: how much of the store has been read after this part, 0 to 1.
    """

    place: str
    run_id: str | None = None
    incarnation: int | None = None
    records: Sequence[bytes] = ()
    size: int = 0
    problem: CorruptHistoryError | StoreError | None = None
    unread: bool = False
    note: str | None = None
    share: float = 1.0


@runtime_checkable
class Store(Upkeep, Protocol):
    """A place that keeps histories; the contract is in this module's docstring. Instants: microseconds since 1970."""

    @property
    def durability(self) -> Durability:
        """What the live settings survive, read back from them."""
        ...

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
        """Create the run with incarnation 0 and its first records, sealed with session 1 (after a delete: the next).

        A lease that comes with it has that same number as its fence. Raises InvalidInputError for wrong arguments.
        """
        ...

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
        """Open incarnation number `incarnation` (the current one plus 1) with its first records.

        Only if the current one is closed; or, with `expected_seq` and `fence`, by the owner of the open one, which ends
        there: its history stays as it is. The fence rises by one and the records are sealed with it. A lease that comes
        with it has that fence; the owner's old one is void. Conflict when the run is open (closed, for an owner), the
        tail elsewhere, or the number another; `Fenced` as for `append`. `AlreadyCommitted` when this very attempt
        opened it. Raises NotFoundError.
        """
        ...

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
        """Append records to a history; see the contract above.

        Args:
            incarnation: None for outside writers without a position: the current one.
            expected_seq: None for outside writers: at the tail.
            records: may be empty for an owner that only writes its head.
            head: the new index row, owners only.
            due: outside writers: the run wants to be driven at this instant.
            then: "closed" closes the incarnation and ends the lease.
            fence: the owner's session number.
            release: end the lease with this append.
            lease: outside writers: ask for the lease with the same write; the answer has it when it was free.

        Raises:
            NotFoundError: no such run.
        """
        ...

    def head(self, run_id: str) -> RunHead | None:
        """The run's head, None when there is no such run."""
        ...

    def heads(self, where: HeadFilter, *, limit: int, after: str | None = None) -> list[RunHead]:
        """Heads newest first (by created, then run id, both descending), those after run id `after` only.

        `after` may have been deleted since; NotFoundError when there never was such a run.
        """
        ...

    def read(
        self, run_id: str, from_seq: int = 0, *, incarnation: int | None = None, limit: int | None = None
    ) -> Tail | None:
        """Records from `from_seq` on, of the current incarnation when None.

        None when there is no such run or incarnation. A `from_seq` past the end gives no records, and the end as the
        answer's `from_seq`.
        """
        ...

    def claim(self, run_id: str, owner: str, ttl: float) -> Lease | RunHead | None:
        """Take the lease of an open run: the Lease; the head when it is busy or closed; None when there is no run."""
        ...

    def claim_due(
        self, owner: str, ttl: float, *, now: int, limit: int, fingerprints: Iterable[str] = ()
    ) -> list[Lease]:
        """Take leases of open runs that are due at `now`, earliest due first.

        A run that is left by a dead owner is due. A blocked run is skipped, unless `fingerprints` is given and
        holds none of those that it was blocked with.
        """
        ...

    def next_due(self) -> int | None:
        """The earliest due instant of open, unblocked runs that nobody holds; None when there is none."""
        ...

    def renew(self, lease: Lease, ttl: float) -> Lease | None:
        """Extend the lease; None when it is lost (a newer session, closed, or deleted)."""
        ...

    def release(self, lease: Lease) -> None:
        """End the lease, if it is still this one; nothing else changes."""
        ...

    def delete(self, run_id: str, incarnation: int, *, fence: int | None = None) -> bool:
        """Remove a closed run and all its incarnations; False when it is gone, open, or at another incarnation.

        Also False when its fence is another than `fence`, unless that is None: then it was removed and begun anew.
        """
        ...

    def wait(self, run_id: str, seq: int, timeout: float) -> bool:
        """Block until the history may be longer than `seq`, at most `timeout` seconds; a hint: False says nothing."""
        ...

    def on_due(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called, from any thread, when a run may have become due; gives the function that ends this.

        A hint: it may be called for nothing, and need not be called for what other processes write. Who waits for
        due runs looks from time to time. `wake` must be quick, and does not raise.
        """
        ...

    def verify(self) -> Iterator[Verified]:
        """Read every byte, part by part, at least one part for each incarnation of each run. Writes nothing.

        Other processes may go on meanwhile; each part is as it was when it was read. A part that can't be read is
        given as a problem, and the next one is read. A store that can't be written is read all the same.

        Raises:
            StoreError, CorruptHistoryError: the store can't be read at all.
            StoreUnavailableError: all of it is busy; that is no damage.
        """
        ...

    def close(self) -> None:
        """Close all handles; further use raises ClosedError."""
        ...


@runtime_checkable
class Transactional(Protocol):
    """What a store has besides when it can take a program's own rows into its transactions: for `Transaction`.

    It is looked for by its method, so that a wrapper may hand it on.
    """

    def transact(
        self,
        run_id: str,
        incarnation: int,
        expected_seq: int,
        work: Callable[[Any], Sequence[Draft]],
        *,
        attempt_id: str,
        fence: int,
        seconds: float,
    ) -> AppendOutcome:
        """Call `work` with the store's connection, and append the records that it gives: one transaction.

        The position is checked before, as an owner's append is: for `AlreadyCommitted`, `Fenced` and `Conflict` work is
        not called. `attempt_id` is kept in the first record, by which a repeat finds its own. After `NotApplied`
        nothing of it is there; after `Unknown` the same attempt is repeated, and calls work only if nothing was
        committed.
        No write of others shares the transaction. Work can neither end it nor change the store's own tables.

        Args:
            seconds: how long work may take. Statements are interrupted then, and what took longer is not committed.

        Raises:
            Exception: what `work` raises, and what the database says of its rows at the commit; all is undone.
            StepTimeoutError: the seconds were over; all is undone.
            TransactionError: work did what it may not, and hid that; all is undone.
            NotFoundError: no such run.
        """
        ...
