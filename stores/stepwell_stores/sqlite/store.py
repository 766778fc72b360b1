"""The store in one SQLite file: for one machine, any number of processes and threads.

Every append is one transaction: `UPDATE stepwell_runs` where run, incarnation, fence and position are what the owner
says, which must hit one row, then the records. Only if it hits none is the reason looked for.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, TypeVar

from stepwell.errors import NotFoundError
from stepwell.store import (
    AlreadyCommitted,
    AppendOutcome,
    Committed,
    Created,
    CreateOutcome,
    Draft,
    Durability,
    Exists,
    Head,
    HeadFilter,
    Lease,
    LeaseRequest,
    NotApplied,
    RunHead,
    Tail,
    Then,
    Unknown,
    Verified,
    seal,
)

from ..bell import Bell
from ..filesystems import is_network, kind_of
from ..liveness import Owners
from ..outcomes import outcome_of
from ..rules import (
    Clock,
    check_append,
    check_first,
    check_lease,
    check_opening,
    check_run_id,
    earlier,
    micros,
    system_clock,
)
from . import rows as sql
from .database import Database, resolve
from .history import advance, buried, found, insert, lines_of, made_by, refusal
from .leases import Leases
from .moves import SqliteMoves
from .rows import Row, find
from .transact import transact
from .upkeep import SqliteUpkeep
from .verify import verify

__all__ = ["SqliteStore"]

T = TypeVar("T")


class SqliteStore(SqliteMoves, SqliteUpkeep):
    """Keeps histories in a SQLite file, durable against power cuts.

    Args:
        path: the file; made with mode 0600 at first use. Its directory must exist.
        must_exist: refuse to make it.
        clock: gives microseconds since 1970, for leases; None is this machine's clock.
        sync: SQLite's `synchronous`. With "normal" a power cut loses what was acknowledged since the last checkpoint.
        network: also on a network file system, whose locks and syncs can't be trusted as a rule.
        read_only: nothing is written, not even to open the file, and every write is refused: for a backup.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        must_exist: bool = False,
        clock: Clock | None = None,
        sync: Literal["full", "normal"] = "full",
        network: bool = False,
        read_only: bool = False,
    ) -> None:
        self.path = resolve(path)
        self._clock = clock or system_clock
        locks = f"{self.path}-owners"
        synchronous = 2 if sync == "full" else 1
        self._database = Database(
            self.path, locks, must_exist=must_exist, synchronous=synchronous, network=network, read_only=read_only
        )
        self._owners = Owners(locks)
        self._leases = Leases(self._owners, self._clock, read_only=read_only)
        self._bell = Bell()

    @property
    def durability(self) -> Durability:
        """What SQLite's live settings survive."""
        settings = self._database.settings()
        synced = settings["synchronous"] in (2, 3)
        survives = None if synced and is_network(kind_of(self.path)) else synced  # a network may promise what it likes
        return Durability(process_crash=True, power_loss=survives, failover=False, settings=settings)

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

        def work(db: sqlite3.Connection) -> CreateOutcome:
            row = find(db, run_id)
            if row is not None:
                if not made_by(db, run_id, attempt_id):
                    return Exists(self._run_head(row))
                return Created(self._leases.grant(db, row, lease)[0])
            fence = buried(db, run_id) + 1
            lines = seal(records, session=fence, offset=0, then=then, attempt_id=attempt_id)
            given = lease if then == "open" else None
            values = (*self._leases.values(given), head.updated, *sql.head_values(head))
            db.execute(sql.INSERT_RUN, (run_id, len(lines), fence, then == "closed", *values))
            insert(db, run_id, 0, 0, lines)
            return Created(self._leases.lease(given, values[1], run_id, 0, fence, len(lines)))

        return self._bell.due.told(self._attempt(work), head.due)

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

        def work(db: sqlite3.Connection) -> AppendOutcome:
            row = found(db, run_id)
            if db.execute(sql.ATTEMPT, (run_id, attempt_id)).fetchone() == (incarnation, 0):
                granted: tuple[Lease | None, int | None] = (None, None)
                if row.incarnation == incarnation:
                    granted = self._leases.grant(db, row, lease)
                return AlreadyCommitted(0, incarnation, *granted)
            if (refused := row.position.refuses_opening(incarnation, expected_seq, fence)) is not None:
                return refused
            new = row.fence + 1
            lines = seal(records, session=new, offset=0, attempt_id=attempt_id, left=expected_seq)
            values = (head.updated, *sql.head_values(head))
            db.execute(sql.REOPEN, (incarnation, len(lines), new, *values, run_id))
            insert(db, run_id, incarnation, 0, lines)
            db.execute(sql.INSERT_ATTEMPT, (run_id, attempt_id, incarnation, 0))
            first = self._leases.first(db, run_id, incarnation, new, len(lines), lease)
            return Committed(0, incarnation, first)

        return self._bell.due.told(self._attempt(work), head.due)

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
        if fence is None:
            done = self._attempt(
                lambda db: self._append_outside(db, run_id, incarnation, expected_seq, records, attempt_id, due, lease)
            )
            return self._bell.due.told(done, due)
        assert incarnation is not None  # check_append saw to it
        assert expected_seq is not None
        number, seq = incarnation, expected_seq
        lines = seal(records, session=fence, offset=seq, then=then)
        at = (run_id, number, fence, seq)

        def work(db: sqlite3.Connection) -> AppendOutcome:
            if advance(db, at, lines, head, then, release):
                return Committed(seq, number)
            return refusal(db, self.path, at, lines)

        done = self._attempt(work, guarded=True)  # by its look at the tail
        return self._bell.due.told(done, head.due if head is not None and release else None)

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
        """Commit a program's own rows together with records; see the port. `work` is given a `sqlite3.Connection`."""
        check_append(run_id, incarnation, expected_seq, (), attempt_id, None, "open", fence, False, None)
        done = transact(self._database, (run_id, incarnation, fence, expected_seq), work, attempt_id, seconds)
        self._bell.ring()
        return done

    def _append_outside(
        self,
        db: sqlite3.Connection,
        run_id: str,
        incarnation: int | None,
        expected_seq: int | None,
        records: Sequence[Draft],
        attempt_id: str,
        due: int | None,
        lease: LeaseRequest | None,
    ) -> AppendOutcome:
        row = found(db, run_id)
        known = db.execute(sql.ATTEMPT, (run_id, attempt_id)).fetchone()
        if known is not None:
            return AlreadyCommitted(known[1], known[0], *self._leases.grant(db, row, lease))
        refusal = row.position.refuses_outside(incarnation, expected_seq)
        if refusal is not None:
            return refusal
        lines = seal(records, session=row.fence, offset=row.seq, attempt_id=attempt_id)
        if lines:
            insert(db, run_id, row.incarnation, row.seq, lines)
            db.execute(sql.INSERT_ATTEMPT, (run_id, attempt_id, row.incarnation, row.seq))
        # first, so that a run that is leased at once does not enter the index of those that are due
        granted = self._leases.grant(db, row, lease, len(lines))
        if lines or due is not None:
            db.execute(sql.OUTSIDE, (row.seq + len(lines), due, run_id))
        return Committed(row.seq, row.incarnation, *granted)

    def head(self, run_id: str) -> RunHead | None:
        """The run's head; see the port."""
        check_run_id(run_id)

        def work(db: sqlite3.Connection) -> RunHead | None:
            row = find(db, run_id)
            if row is None:
                buried(db, run_id)
                return None
            return self._run_head(row)

        return self._database.read(work)

    def heads(self, where: HeadFilter, *, limit: int, after: str | None = None) -> list[RunHead]:
        """A page of heads, newest first; see the port."""

        def work(db: sqlite3.Connection) -> list[RunHead]:
            start = None
            if after is not None:
                found = db.execute(sql.CREATED, (after,)).fetchone()
                if found is None:
                    raise NotFoundError(f"no page begins after run {after!r}: there never was one")
                start = (found[0], after)
            now = self._clock()
            by_lease = where.status is not None or where.waiting_for is not None
            dead = json.dumps(self._leases.dead(db, now)) if by_lease else "[]"
            statement, values = sql.page(where, start, limit, now, dead)
            return [self._run_head(Row(*found)) for found in db.execute(statement, values)]

        return self._database.read(work)

    def read(
        self, run_id: str, from_seq: int = 0, *, incarnation: int | None = None, limit: int | None = None
    ) -> Tail | None:
        """Records of a history; see the port."""
        check_run_id(run_id)

        def work(db: sqlite3.Connection) -> Tail | None:
            row = db.execute(sql.EXTENT, (run_id,)).fetchone()
            if row is None:
                buried(db, run_id)
                return None
            newest, end, closed = row
            number = newest if incarnation is None else incarnation
            if not 0 <= number <= newest:
                return None
            current = number == newest
            if not current:
                end = db.execute(sql.COUNT, (run_id, number)).fetchone()[0]
            start = min(max(from_seq, 0), end)
            stop = end if limit is None else min(end, start + limit)
            lines = lines_of(db, self.path, run_id, number, start, stop)
            return Tail(number, start, lines, bool(closed) or not current, stop < end, checked=True)

        return self._database.read(work)

    def claim(self, run_id: str, owner: str, ttl: float) -> Lease | RunHead | None:
        """Take the lease of a run; see the port."""
        check_run_id(run_id)
        request = LeaseRequest(owner, ttl)
        check_lease(request)

        def work(db: sqlite3.Connection) -> Lease | RunHead | None:
            row = find(db, run_id)
            if row is None:
                buried(db, run_id)
                return None
            return self._leases.grant(db, row, request)[0] or self._run_head(row)

        return self._database.write(work)

    def claim_due(
        self, owner: str, ttl: float, *, now: int, limit: int, fingerprints: Iterable[str] = ()
    ) -> list[Lease]:
        """Take the leases of runs that are due; see the port."""
        request = LeaseRequest(owner, ttl)
        check_lease(request)
        known = frozenset(fingerprints)

        def work(db: sqlite3.Connection) -> list[Lease]:
            leases = (self._leases.grant_due(db, run_id, request) for run_id in self._leases.due(db, now, limit, known))
            return [lease for lease in leases if lease is not None]

        # An idle worker asks again and again, and must not take the write lock for nothing.
        if limit < 1 or not self._database.read(lambda db: self._leases.due(db, now, 1, known)):
            return []
        return self._database.write(work)

    def next_due(self) -> int | None:
        """The earliest due instant; see the port."""

        def work(db: sqlite3.Connection) -> int | None:
            first = db.execute(sql.FIRST_DUE).fetchone()[0]
            left = min((when for when, _, blocked_by in self._leases.left(db) if blocked_by is None), default=None)
            return earlier(first, left)

        return self._database.read(work)

    def renew(self, lease: Lease, ttl: float) -> Lease | None:
        """Extend a lease; see the port."""
        check_lease(LeaseRequest(lease.owner, ttl))

        def work(db: sqlite3.Connection) -> Lease | None:
            until = self._clock() + micros(ttl)
            found = db.execute(sql.RENEW, (until, self._owners.own(), lease.run_id, lease.fence)).fetchone()
            return None if found is None else Lease(lease.run_id, found[0], lease.fence, found[1], lease.owner, until)

        return self._database.write(work)

    def release(self, lease: Lease) -> None:
        """End a lease; see the port."""
        self._database.write(lambda db: db.execute(sql.RELEASE, (lease.run_id, lease.fence)))
        self._bell.due.ring()

    def delete(self, run_id: str, incarnation: int, *, fence: int | None = None) -> bool:
        """Remove a closed run; see the port."""
        check_run_id(run_id)

        def work(db: sqlite3.Connection) -> bool:
            row = find(db, run_id)
            if row is None or not row.closed or row.incarnation != incarnation or fence not in (None, row.fence):
                return False
            db.execute(sql.BURY, (run_id, row.fence, row.created))
            for statement in sql.DELETE:
                db.execute(statement, (run_id,))
            return True

        return self._database.write(work)

    def wait(self, run_id: str, seq: int, timeout: float) -> bool:
        """Block until the history may be longer; see the port."""
        check_run_id(run_id)

        def grown() -> bool:
            found = self._database.read(lambda db: db.execute(sql.TAIL, (run_id,)).fetchone())
            return found is not None and found[0] > seq

        return self._bell.wait(grown, timeout)

    def on_due(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called when a run may have become due; see the port."""
        return self._bell.due.listen(wake)

    def verify(self) -> Iterator[Verified]:
        """Read every byte; see the port."""
        return verify(self._database, self.path)

    def close(self) -> None:
        """Close the connections and give up the leases that this store holds."""
        self._database.close()
        self._owners.close()
        self._bell.ring()

    def _attempt(self, work: Callable[[sqlite3.Connection], T], *, guarded: bool = False) -> T | NotApplied | Unknown:
        """Run a write whose failure is an outcome, and tell those who wait."""
        done = outcome_of(lambda: self._database.write(work, guarded=guarded))
        self._bell.ring()
        return done

    def _run_head(self, row: Row) -> RunHead:
        return row.run_head(self._leases.live(row), self.path)
