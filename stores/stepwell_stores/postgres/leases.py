"""Leases in the tables of the Postgres store, each function in a transaction that has locked the run's row."""

from __future__ import annotations

from typing import Any

from stepwell.store import Lease, LeaseRequest

from ..rules import micros
from .rows import Row, Statements
from .session import Session

__all__ = ["asked", "first", "grant"]


def asked(request: LeaseRequest | None) -> dict[str, Any]:
    """A request as the values of its columns; nobody's when None."""
    if request is None:
        return {"owner": None, "token": None, "ttl": 0}
    return {"owner": request.owner, "token": request.token, "ttl": micros(request.ttl)}


def first(
    session: Session,
    sql: Statements,
    run_id: str,
    at: tuple[int, int, int],
    request: LeaseRequest | None,
    clock: dict[str, int],
) -> Lease | None:
    """Grant a lease with a fence of its own; `at` is the run's incarnation, that fence, and its seq."""
    if request is None:
        return None
    incarnation, fence, seq = at
    row = session.one(sql.grant, {"run": run_id, "fence": fence, **asked(request), **clock})
    assert row is not None  # it is locked
    return Lease(run_id, incarnation, fence, seq, request.owner, row[0])


def grant(
    session: Session,
    sql: Statements,
    row: Row,
    request: LeaseRequest | None,
    clock: dict[str, int],
    added: int = 0,
) -> tuple[Lease | None, int | None]:
    """Grant a lease if the run is open and free, or find this request's own: (lease, busy until).

    Args:
        added: how many records the same transaction added after `row` was read.
    """
    if request is None or row.closed:
        return None, None
    seq = row.seq + added
    if row.live:
        if not request.token or row.lease_token != request.token:
            return None, row.lease_until
        assert row.lease_until is not None  # it is live
        return Lease(row.run_id, row.incarnation, row.fence, seq, request.owner, row.lease_until), None
    return first(session, sql, row.run_id, (row.incarnation, row.fence + 1, seq), request, clock), None
