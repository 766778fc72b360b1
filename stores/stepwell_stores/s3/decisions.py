"""What the port's writes do to a run, as functions of where it stands. They ask nothing of the bucket.

Each gives a Change: the outcome, and the state after the entry that is to be written; None when nothing is. Whoever
writes the entry creates it at the very next key, so the outcome holds only if nobody else was faster; then the
decision is taken again on the state that is there now.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from stepwell.errors import NotFoundError
from stepwell.store import (
    AlreadyCommitted,
    Committed,
    Created,
    Draft,
    Exists,
    Head,
    Lease,
    LeaseRequest,
    Then,
    seal,
)

from ..move_rules import refuse_absent
from ..rules import earlier, micros
from .entries import Held, State, new_nonce

__all__ = [
    "Asked",
    "Change",
    "Find",
    "append",
    "claim",
    "create",
    "delete",
    "next_incarnation",
    "refuse_away",
    "release",
    "tell",
]

Find = Callable[[State, str], "tuple[int, int] | None"]
"""Finds where an attempt was written; looks at older entries when it has to."""


class Asked(msgspec.Struct, frozen=True):
    """A lease that is asked for, and the lock by which its owner is known to live."""

    lease: LeaseRequest
    lock: str


class Change(msgspec.Struct, frozen=True):
    """What comes of a decision."""

    outcome: Any
    state: State | None = None
    lines: Sequence[bytes] = ()


def create(
    there: State | None,
    now: int,
    run_id: str,
    records: Sequence[Draft],
    head: Head,
    attempt_id: str,
    then: Then,
    lease: Asked | None,
    find: Find,
) -> Change:
    """Create a run, unless it is there; what a deleted one left is its fence and the number of its last entry."""
    if there is not None and not there.deleted:
        if find(there, attempt_id) != (0, 0):
            return Change(Exists(there.shown(now)))
        return _with_lease(there, lease, now, lambda got, _: Created(got))
    refuse_away(there)
    fence, number = (1, 0) if there is None else (there.fence + 1, there.entry + 1)
    lines = seal(records, session=fence, offset=0, then=then, attempt_id=attempt_id)
    closed, count = then == "closed", len(lines)
    held = None if lease is None or closed else _held(lease, now)
    state = State(
        run_id, number, now, new_nonce(), fence, 0, count, closed, head, number, number, count, count, held,
        attempts={attempt_id: (0, 0)},
    )  # fmt: skip
    return Change(Created(None if held is None else lease_of(state)), state, lines)


def next_incarnation(
    state: State | None,
    now: int,
    run_id: str,
    incarnation: int,
    records: Sequence[Draft],
    head: Head,
    attempt_id: str,
    lease: Asked | None,
    expected_seq: int | None,
    fence: int | None,
    find: Find,
) -> Change:
    """Open the next incarnation, if the current one is closed, or as its owner."""
    state = _there(state, run_id)
    if find(state, attempt_id) == (incarnation, 0):
        wanted = lease if incarnation == state.incarnation else None
        return _with_lease(state, wanted, now, lambda *got: AlreadyCommitted(0, incarnation, *got))
    refused = state.position.refuses_opening(incarnation, expected_seq, fence)
    if refused is not None:
        return Change(refused)
    number = state.fence + 1
    lines = seal(records, session=number, offset=0, attempt_id=attempt_id, left=expected_seq)
    after = state.after(
        now,
        len(lines),
        fence=number,
        incarnation=incarnation,
        seq=len(lines),
        first=state.entry + 1,
        closed=False,
        head=head,
        held=None if lease is None else _held(lease, now),
    )
    after = after.noted(attempt_id, incarnation, 0, after.entry)
    return Change(Committed(0, incarnation, None if lease is None else lease_of(after)), after, lines)


def append(
    state: State | None,
    now: int,
    run_id: str,
    incarnation: int,
    expected_seq: int,
    lines: list[bytes],
    fence: int,
    head: Head | None,
    then: Then,
    release: bool,
    read: Callable[[State, int, int, int], list[bytes]],
) -> Change:
    """Append as the owner. `lines` are sealed; `read` gives so many lines from a seq of an incarnation on."""
    state = _there(state, run_id)
    refused = state.position.refuses_owner(incarnation, expected_seq, fence)
    if refused is not None:
        if lines and incarnation <= state.incarnation and read(state, incarnation, expected_seq, len(lines)) == lines:
            return Change(AlreadyCommitted(expected_seq, incarnation))
        return Change(refused)
    done = Committed(expected_seq, incarnation)
    ends = release or then == "closed"
    if not lines and head in (None, state.head) and not (ends and state.held is not None):
        return Change(done)
    after = state.after(
        now,
        len(lines),
        seq=expected_seq + len(lines),
        closed=then == "closed",
        head=head or state.head,
        held=None if ends else state.held,
    )
    return Change(done, after, lines)


def tell(
    state: State | None,
    now: int,
    run_id: str,
    incarnation: int | None,
    expected_seq: int | None,
    records: Sequence[Draft],
    attempt_id: str,
    due: int | None,
    lease: Asked | None,
    find: Find,
) -> Change:
    """Append from outside."""
    state = _there(state, run_id)
    if (known := find(state, attempt_id)) is not None:
        return _with_lease(state, lease, now, lambda *got: AlreadyCommitted(known[1], known[0], *got))
    refused = state.position.refuses_outside(incarnation, expected_seq)
    if refused is not None:
        return Change(refused)
    seq = state.seq
    lines = seal(records, session=state.fence, offset=seq, attempt_id=attempt_id) if records else []
    head = replace(state.head, due=earlier(state.head.due, due))
    after = state.after(now, len(lines), seq=seq + len(lines), head=head)
    if lines:
        after = after.noted(attempt_id, state.incarnation, seq, after.entry)
    granted, busy = _ask(after, lease, now)
    outcome = Committed(seq, state.incarnation, None if granted is None else lease_of(granted), busy)
    if granted is None and not lines and head == state.head:
        return Change(outcome)
    return Change(outcome, granted or after, lines)


def claim(state: State | None, now: int, request: Asked, due_at: Callable[[State], bool] | None) -> Change:
    """Take the lease; None when there is no run, its head when it is busy or closed, or not `due_at` this instant."""
    if state is None or state.deleted:
        if due_at is None:
            refuse_away(state)
        return Change(None)
    if due_at is not None and not due_at(state):
        return Change(state.shown(now))
    granted, _ = _ask(state.after(now), request, now)
    return Change(state.shown(now)) if granted is None else Change(lease_of(granted), granted)


def release(state: State | None, now: int, fence: int) -> Change:
    """End a lease, if it is still this one."""
    if state is None or state.deleted or state.held is None or state.fence != fence:
        return Change(None)
    return Change(None, state.after(now, held=None))


def delete(state: State | None, now: int, incarnation: int, fence: int | None) -> Change:
    """Remove a closed run: what stays is an entry with its fence."""
    if state is None or state.deleted or not state.closed or state.incarnation != incarnation:
        return Change(False)
    if fence not in (None, state.fence):
        return Change(False)
    return Change(True, state.grave(now))


def lease_of(state: State) -> Lease:
    """The lease that a state holds."""
    assert state.held is not None
    return Lease(state.run_id, state.incarnation, state.fence, state.seq, state.held.owner, state.held.until)


def _there(state: State | None, run_id: str) -> State:
    if state is None or state.deleted:
        refuse_away(state)
        raise NotFoundError(f"no run {run_id!r}")
    return state


def refuse_away(state: State | None) -> None:
    """Say of a run that is not here where it is, when that is known."""
    if state is not None:
        refuse_absent(state.run_id, state.departure, state.arrival)


def _held(asked: Asked, now: int) -> Held:
    return Held(asked.lease.owner, now + micros(asked.lease.ttl), asked.lease.token, asked.lock)


def _with_lease(
    state: State,
    request: Asked | None,
    now: int,
    outcome: Callable[[Lease | None, int | None], Any],
) -> Change:
    """The answer to a write that is there already: its own lease, or a free one."""
    if request is None or state.closed:
        return Change(outcome(None, None))
    live = state.live(now)
    if live is not None and request.lease.token and live.token == request.lease.token:
        return Change(outcome(lease_of(state), None))
    granted, busy = _ask(state.after(now), request, now)
    return Change(outcome(None if granted is None else lease_of(granted), busy), granted)


def _ask(after: State, request: Asked | None, now: int) -> tuple[State | None, int | None]:
    """Grant a lease with the entry whose state this is, if it is free: (the state with it, busy until)."""
    if request is None or after.closed:
        return None, None
    live = after.live(now)
    if live is not None:
        return None, live.until
    return replace(after, fence=after.fence + 1, held=_held(request, now)), None
