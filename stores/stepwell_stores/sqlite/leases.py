"""Leases in the tables of the SQLite store: who holds one, whether he lives, and how one is granted."""

from __future__ import annotations

import sqlite3

from stepwell.store import Lease, LeaseRequest

from ..liveness import Owners
from ..rules import Clock, micros
from . import rows as sql
from .rows import Row, find, texts_of

__all__ = ["Leases"]


class Leases:
    """The leases of one file, each function inside a transaction of the caller's.

    Args:
        owners: the locks of those who hold leases.
        clock: gives microseconds since 1970.
        read_only: to look at owners removes what dead ones leave, so where nothing is written the ttl decides.
    """

    def __init__(self, owners: Owners, clock: Clock, *, read_only: bool) -> None:
        self._owners = owners
        self._clock = clock
        self._read_only = read_only

    def alive(self, lock: str | None) -> bool:
        """Whether an owner lives. To look removes what dead ones leave, so where nothing is written the ttl decides."""
        return self._read_only or self._owners.alive(lock)

    def live(self, row: Row) -> bool:
        """Whether somebody who lives holds the lease of a run."""
        until = row.lease_until
        return until is not None and until > self._clock() and self.alive(row.owner_lock)

    def values(self, request: LeaseRequest | None) -> tuple[str | None, int | None, str | None, str | None]:
        """A new lease as the values of its columns: owner, lease_until, owner_lock, lease_token."""
        if request is None:
            return None, None, None, None
        return request.owner, self._clock() + micros(request.ttl), self._owners.own(), request.token

    def lease(
        self, request: LeaseRequest | None, until: int | None, run_id: str, incarnation: int, fence: int, seq: int
    ) -> Lease | None:
        """What the one who asked is given."""
        if request is None or until is None:
            return None
        return Lease(run_id, incarnation, fence, seq, request.owner, until)

    def first(
        self, db: sqlite3.Connection, run_id: str, incarnation: int, fence: int, seq: int, request: LeaseRequest | None
    ) -> Lease | None:
        """Grant a lease together with a fence of its own."""
        values = self.values(request)
        if request is not None:
            db.execute(sql.GRANT, (fence, *values, run_id))
        return self.lease(request, values[1], run_id, incarnation, fence, seq)

    def grant_due(self, db: sqlite3.Connection, run_id: str, request: LeaseRequest) -> Lease | None:
        """Grant the lease of a run that is due: mostly nobody holds one, or else somebody who may live."""
        until = self._clock() + micros(request.ttl)
        free = db.execute(sql.GRANT_FREE, (request.owner, until, self._owners.own(), run_id)).fetchone()
        if free is not None:
            incarnation, fence, seq = free
            return Lease(run_id, incarnation, fence, seq, request.owner, until)
        row = find(db, run_id)
        return None if row is None else self.grant(db, row, request)[0]

    def grant(
        self,
        db: sqlite3.Connection,
        row: Row,
        request: LeaseRequest | None,
        added: int = 0,
    ) -> tuple[Lease | None, int | None]:
        """Grant a lease if the run is open and free, or find this request's own: (lease, busy until).

        Args:
            added: how many records the same transaction added after `row` was read.
        """
        if request is None or row.closed:
            return None, None
        seq = row.seq + added
        if self.live(row):
            if not request.token or row.lease_token != request.token:
                return None, row.lease_until
            assert row.lease_until is not None  # it is live
            return Lease(row.run_id, row.incarnation, row.fence, seq, request.owner, row.lease_until), None
        return self.first(db, row.run_id, row.incarnation, row.fence + 1, seq, request), None

    def due(self, db: sqlite3.Connection, now: int, limit: int, known: frozenset[str]) -> list[str]:
        """Ids of the runs that may be claimed, earliest due first; `known` is the code that is at hand."""
        found: list[tuple[int, str]] = db.execute(sql.DUE, (now, limit)).fetchall()
        if known:
            for (kind,) in db.execute(sql.KINDS).fetchall():
                if known.isdisjoint(texts_of(kind)):
                    found += db.execute(sql.DUE_BLOCKED, (kind, now, limit))
        for when, run_id, blocked_by in self.left(db):
            if blocked_by is None or (known and known.isdisjoint(texts_of(blocked_by))):
                found.append((when, run_id))
        return [run_id for _, run_id in sorted(found)[:limit]]

    def left(self, db: sqlite3.Connection) -> list[tuple[int, str, str | None]]:
        """Runs whose owner died or went silent: (since when they are due, run id, JSON list of what blocks them)."""
        clock = self._clock()
        rows = db.execute(sql.LEASED).fetchall()
        dead = {lock for lock in {row[1] for row in rows} if not self.alive(lock)}
        return [
            (min(until, clock) if due is None else min(until, clock, due), run_id, blocked_by)
            for until, lock, due, run_id, blocked_by in rows
            if until <= clock or lock in dead
        ]

    def dead(self, db: sqlite3.Connection, now: int) -> list[str]:
        """The locks of those who hold leases and don't live any more."""
        locks = {row[1] for row in db.execute(sql.LEASED) if row[0] > now and row[1] is not None}
        return [lock for lock in locks if not self.alive(lock)]
