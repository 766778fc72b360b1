"""The store in a Postgres database: for any number of processes on any number of machines.

An owner's append is one statement and one round trip: `UPDATE stepwell_runs` where run, incarnation, fence and position
are what the owner says, which must hit one row, and the records with it. Only if it hits none is the reason looked for.
What outside writers and new incarnations need is decided here, in a transaction that has locked the run's row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from stepwell.errors import InvalidInputError, NotFoundError
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
from ..outcomes import NotWrittenError, outcome_of
from ..rules import (
    Clock,
    check_append,
    check_first,
    check_lease,
    check_opening,
    check_run_id,
    micros,
)
from .address import SCHEMA, address_of, check_schema, psycopg
from .appends import Append, Appender, AppendGroup
from .connections import Connections, Pool, check_pool
from .guest import joined
from .hints import Hints
from .history import found, made_by, missing, read, row_of
from .leases import asked, first, grant
from .moves import MoveStatements, PostgresMoves
from .rows import Row, Statements, head_values
from .schema import check_version
from .session import Session
from .transact import transact
from .upkeep import PostgresUpkeep, durability_of
from .verify import verify

__all__ = ["PostgresStore", "joined"]

T = TypeVar("T")

_TRIES = 5  # of a create that meets others who create and delete the same run
_TAKEN = "SW001"  # raised by the database: this fence was given to a run that was deleted, or the run is elsewhere


class PostgresStore(PostgresMoves, PostgresUpkeep):
    """Keeps histories in a schema of a Postgres database; a commit survives what the server's settings say.

    Args:
        url: `postgresql://user:password@host:port/database`, with options of libpq and of the store after a `?`:
            `schema=NAME` (default `stepwell`), `prepare=off` for a pooler that gives each transaction another session,
            `listen=off`, `connections=10`. None with a pool.
        pool: a `psycopg_pool.ConnectionPool` that the program has, in place of a URL. The store borrows connections,
            and leaves pool and connections as they are; it has no connection to listen on. After a fork make both anew.
        schema: holds the tables, with a pool.
        must_exist: refuse to make the tables.
        clock: gives microseconds since 1970, for leases; None is the server's clock.
        prepare: with a pool: whether the server may keep statements.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        pool: Pool | None = None,
        schema: str | None = None,
        must_exist: bool = False,
        clock: Clock | None = None,
        prepare: bool = True,
    ) -> None:
        if (url is None) == (pool is None) or (url is not None and schema is not None):
            raise InvalidInputError("PostgresStore takes a url, or a pool and perhaps its schema")
        if pool is not None:
            check_pool(pool)
        address = None if url is None else address_of(url)
        self.schema = check_schema(schema or SCHEMA) if address is None else address.schema
        self.place = f"the pool's Postgres database, schema {self.schema}" if address is None else address.place
        self._clock = clock
        self._sql = Statements(self.schema, clocked=clock is not None)
        self._move_sql = MoveStatements(self._sql)
        self._connections = Connections(
            address,
            pool,
            place=self.place,
            schema=self.schema,
            prepare=prepare if address is None else address.prepare,
            must_exist=must_exist,
        )
        self._appender = Appender(self._sql, self.place)
        self._group = AppendGroup(self._appender, self._connections.write)
        self._bell = Bell()
        listens = address is not None and address.listen
        self._hints = Hints(self._connections.alone if listens else None, self.schema, self._heard)

    @property
    def durability(self) -> Durability:
        """What the server's live settings survive."""
        return self._connections.read(durability_of(self.place))

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
        given = lease if then == "open" else None
        tell = given is None and head.due is not None

        def make(session: Session, fence: int) -> Created | None:
            lines = seal(records, session=fence, offset=0, then=then, attempt_id=attempt_id)
            values = {"run": run_id, "n": len(lines), "fence": fence, "closed": then == "closed", "bodies": lines}
            row = session.one(self._sql.create, {**values, **asked(given), **head_values(head), **self._now()})
            if row is None:
                return None
            if tell:
                self._hints.tell(session, f"due {run_id}")
            return Created(None if given is None else Lease(run_id, 0, fence, len(lines), given.owner, row[0]))

        def work(session: Session) -> CreateOutcome:
            fence = 1
            for left in range(_TRIES, 0, -1):
                try:
                    made = make(session, fence)
                except psycopg.Error as e:  # it may meet records that are staged under this id
                    if e.sqlstate != _TAKEN and (left == 1 or not isinstance(e, psycopg.errors.UniqueViolation)):
                        raise
                else:
                    if made is not None:
                        return made
                    there = self._in_transaction(session, lambda: self._there(session, run_id, attempt_id, lease))
                    if there is not None:
                        return there
                fence = (missing(session, self._sql, run_id) or 0) + 1
            raise NotWrittenError(f"{self.place}: run {run_id!r} is created and deleted by others; try again")

        return self._bell.due.told(self._attempt(lambda: self._connections.write(work)), head.due)

    def _there(
        self, session: Session, run_id: str, attempt_id: str, lease: LeaseRequest | None
    ) -> Created | Exists | None:
        """The run that has taken the id."""
        row = row_of(session, self._sql, run_id, self._now(), lock=True)
        if row is None:
            return None
        if not made_by(session, self._sql, run_id, attempt_id):
            return Exists(row.run_head(self.place))
        return Created(grant(session, self._sql, row, lease, self._now())[0])

    def _in_transaction(self, session: Session, work: Callable[[], T]) -> T:
        """Run `work` in a transaction on a connection that is in hand."""
        check_version(session.begin(self.schema), self.place)
        try:
            result = work()
        except BaseException:
            session.rollback()
            raise
        session.commit()
        return result

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

        def work(session: Session) -> AppendOutcome:
            sql, clock = self._sql, self._now()
            row = found(session, sql, run_id, clock)
            if session.one(sql.attempt, (run_id, attempt_id)) == (incarnation, 0):
                granted: tuple[Lease | None, int | None] = (None, None)
                if row.incarnation == incarnation:
                    granted = grant(session, sql, row, lease, clock)
                return AlreadyCommitted(0, incarnation, *granted)
            if (refused := row.position.refuses_opening(incarnation, expected_seq, fence)) is not None:
                return refused
            new = row.fence + 1
            lines = seal(records, session=new, offset=0, attempt_id=attempt_id, left=expected_seq)
            values = {"run": run_id, "incarnation": incarnation, "seq": 0, "n": len(lines), "fence": new}
            session.run(sql.reopen, {**values, "attempt": attempt_id, "bodies": lines, **head_values(head)})
            return Committed(0, incarnation, first(session, sql, run_id, (incarnation, new, len(lines)), lease, clock))

        done = self._attempt(lambda: self._connections.transaction(work))
        self._told(done, run_id, None if lease is not None else head.due)
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
        if fence is None:

            def work(session: Session) -> AppendOutcome:
                return self._append_outside(session, run_id, incarnation, expected_seq, records, attempt_id, due, lease)

            done = self._attempt(lambda: self._connections.transaction(work))
            self._told(done, run_id, due)
            return self._bell.due.told(done, due)
        assert incarnation is not None  # check_append saw to it
        assert expected_seq is not None
        lines = seal(records, session=fence, offset=expected_seq, then=then)
        self._connections.refuse_nested()  # or another thread would write it
        one = Append(self._appender, (run_id, incarnation, fence, expected_seq), lines, head, then, release)
        done = self._attempt(lambda: self._group.run(one))
        ready = head.due if head is not None and release else None
        if ready is not None:
            self._told(done, run_id, ready)
        return self._bell.due.told(done, ready)

    def _append_outside(
        self,
        session: Session,
        run_id: str,
        incarnation: int | None,
        expected_seq: int | None,
        records: Sequence[Draft],
        attempt_id: str,
        due: int | None,
        lease: LeaseRequest | None,
    ) -> AppendOutcome:
        sql, clock = self._sql, self._now()
        row = found(session, sql, run_id, clock)
        known = session.one(sql.attempt, (run_id, attempt_id))
        if known is not None:
            return AlreadyCommitted(known[1], known[0], *grant(session, sql, row, lease, clock))
        if (refused := row.position.refuses_outside(incarnation, expected_seq)) is not None:
            return refused
        lines = seal(records, session=row.fence, offset=row.seq, attempt_id=attempt_id)
        if lines:
            values = {"run": run_id, "incarnation": row.incarnation, "seq": row.seq, "n": len(lines), "due": due}
            session.run(sql.outside, {**values, "attempt": attempt_id, "bodies": lines})
        elif due is not None:
            session.run(sql.sooner, {"run": run_id, "due": due})
        return Committed(row.seq, row.incarnation, *grant(session, sql, row, lease, clock, len(lines)))

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
        """Commit a program's own rows together with records; see the port. `work` is given a psycopg connection."""
        check_append(run_id, incarnation, expected_seq, (), attempt_id, None, "open", fence, False, None)
        at = (run_id, incarnation, fence, expected_seq)
        done = transact(self._connections, self._appender, at, work, attempt_id, seconds, self._now())
        self._bell.ring()
        return done

    def head(self, run_id: str) -> RunHead | None:
        """The run's head; see the port."""
        check_run_id(run_id)
        row = self._connections.read(lambda session: row_of(session, self._sql, run_id, self._now()))
        return None if row is None else row.run_head(self.place)

    def heads(self, where: HeadFilter, *, limit: int, after: str | None = None) -> list[RunHead]:
        """A page of heads, newest first; see the port."""

        def work(session: Session) -> list[tuple[Any, ...]]:
            start = None
            if after is not None:
                created = session.one(self._sql.created, {"run": after})
                if created is None:
                    raise NotFoundError(f"no page begins after run {after!r}: there never was one")
                start = (created[0], after)
            statement, values = self._sql.page(where, start, limit)
            # planned for these values: a kept plan would have to fit every filter's
            return session.run(statement, {**values, **self._now()}, prepare=False).fetchall()

        return [Row(*row).run_head(self.place) for row in self._connections.read(work)]

    def read(
        self, run_id: str, from_seq: int = 0, *, incarnation: int | None = None, limit: int | None = None
    ) -> Tail | None:
        """Records of a history; see the port."""
        check_run_id(run_id)
        return self._connections.read(
            lambda session: read(session, self._sql, self.place, run_id, from_seq, incarnation, limit)
        )

    def claim(self, run_id: str, owner: str, ttl: float) -> Lease | RunHead | None:
        """Take the lease of a run; see the port."""
        check_run_id(run_id)
        check_lease(LeaseRequest(owner, ttl))
        values = {"run": run_id, "owner": owner, "ttl": micros(ttl), **self._now()}
        row = self._connections.write(lambda session: session.one(self._sql.claim, values))
        return self.head(run_id) if row is None else Lease(run_id, row[0], row[1], row[2], owner, row[3])

    def claim_due(
        self, owner: str, ttl: float, *, now: int, limit: int, fingerprints: Iterable[str] = ()
    ) -> list[Lease]:
        """Take the leases of runs that are due; see the port."""
        check_lease(LeaseRequest(owner, ttl))
        known = [json.dumps(fingerprint) for fingerprint in fingerprints]
        if limit < 1:
            self._connections.check_open()
            return []

        def work(session: Session) -> list[tuple[Any, ...]]:
            values = {"now": now, "limit": limit, "known": known, "owner": owner, "ttl": micros(ttl), **self._now()}
            return session.run(self._sql.claim_due, values).fetchall()

        rows = sorted(self._connections.write(work))
        return [Lease(run_id, number, fence, seq, owner, until) for _, run_id, number, fence, seq, until in rows]

    def next_due(self) -> int | None:
        """The earliest due instant; see the port."""
        row = self._connections.read(lambda session: session.one(self._sql.next_due, self._now()))
        return None if row is None else row[0]

    def renew(self, lease: Lease, ttl: float) -> Lease | None:
        """Extend a lease; see the port."""
        check_lease(LeaseRequest(lease.owner, ttl))
        values = {"run": lease.run_id, "fence": lease.fence, "ttl": micros(ttl), **self._now()}
        row = self._connections.write(lambda session: session.one(self._sql.renew, values))
        return None if row is None else Lease(lease.run_id, row[0], lease.fence, row[1], lease.owner, row[2])

    def release(self, lease: Lease) -> None:
        """End a lease; see the port."""

        def work(session: Session) -> None:
            session.run(self._sql.release, {"run": lease.run_id, "fence": lease.fence})
            self._hints.tell(session, f"due {lease.run_id}")

        self._connections.write(work)
        self._bell.due.ring()

    def delete(self, run_id: str, incarnation: int, *, fence: int | None = None) -> bool:
        """Remove a closed run; see the port."""
        check_run_id(run_id)
        values = {"run": run_id, "incarnation": incarnation, "fence": fence}
        return self._connections.write(lambda session: session.one(self._sql.delete, values)) is not None

    def wait(self, run_id: str, seq: int, timeout: float) -> bool:
        """Block until the history may be longer; see the port."""
        check_run_id(run_id)
        self._connections.check_open()
        if timeout > 0:
            self._hints.listen()

        def grown() -> bool:
            row = self._connections.read(lambda session: session.one(self._sql.tail, (run_id,)))
            return row is not None and row[0] > seq

        return self._bell.wait(grown, timeout)

    def on_due(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called when a run may have become due; see the port."""
        self._hints.listen()
        return self._bell.due.listen(wake)

    def verify(self) -> Iterator[Verified]:
        """Read every byte; see the port."""
        return verify(self._connections, self._sql, self.place)

    def close(self) -> None:
        """Close the connections that were made here; a pool stays as it is."""
        self._connections.close()
        self._hints.close()
        self._bell.ring()

    # ---- shared

    def _now(self) -> dict[str, int]:
        """The instant for statements, when it is not the server's own."""
        return {} if self._clock is None else {"clock": self._clock()}

    def _attempt(self, write: Callable[[], T]) -> T | NotApplied | Unknown:
        """Make a write whose failure is an outcome, and tell those who wait."""
        done = outcome_of(write)
        self._bell.ring()
        return done

    def _told(self, done: object, run_id: str, due: int | None) -> None:
        """Tell other processes of a write, in which they may be interested."""
        if isinstance(done, Committed):
            text = f"{'run' if due is None or done.lease is not None else 'due'} {run_id}"
            self._hints.send(self._connections.write, text)

    def _heard(self, text: str) -> None:
        """Something was written, in this process or another."""
        self._bell.ring()
        if not text.startswith("run "):
            self._bell.due.ring()
