"""Writes of those who own no lease: a new run, and events from outside. Floor 4."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import events as e
from . import lifecycle as lc
from .environment import new_token
from .loading import Parts, make_head
from .recorder import settle
from .store import AlreadyCommitted, Committed, Conflict, Created, Exists, LeaseRequest
from .wire import to_draft

__all__ = ["append_outside", "create_run"]


def create_run(parts: Parts, run_id: str, events: list[e.EventBase], *, drive: bool) -> Created | Exists:
    """Create a run with its first events, the lease included when it is to be driven."""
    start = events[0]
    assert isinstance(start, e.Start)
    head = make_head(parts, start, "pending", due=parts.now())
    lease = parts.lease_request() if drive else None
    records = [to_draft(event) for event in events]
    attempt_id = new_token()
    create: Callable[[], Any] = lambda: parts.store.create(  # noqa: E731 - one attempt, repeated as it is
        run_id, records, head=head, attempt_id=attempt_id, lease=lease
    )
    made: Any = settle(create, parts.environment.clock, f"the start of run {run_id!r}")
    assert isinstance(made, (Created, Exists))
    if isinstance(made, Created):
        parts.tell(lc.RunOpened(run_id, start.workflow, start.incarnation))
    return made


def append_outside(
    parts: Parts,
    run_id: str,
    event: e.EventBase,
    *,
    number: int,
    at: int | None = None,
    lease: LeaseRequest | None = None,
    attempt_id: str | None = None,
) -> Committed | AlreadyCommitted | Conflict:
    """Append an event from outside, at the tail.

    Args:
        number: the incarnation that the writer knows.
        at: only at this seq of that incarnation.
        attempt_id: known to all who write the same event, of which one counts; None: this is the only one.
    """
    if attempt_id is None:
        attempt_id = new_token()
        if isinstance(event, e.Resume):  # an id counts once in a history: a reset begins another one
            attempt_id = f"signal-{number}-{parts.codec.digest(event.id)}"
    draft, due = to_draft(event), e.micros(parts.now())
    append: Callable[[], Any] = lambda: parts.store.append(  # noqa: E731 - one attempt, repeated as it is
        run_id, None if at is None else number, at, [draft], attempt_id=attempt_id, due=due, lease=lease
    )
    done = settle(append, parts.environment.clock)
    assert isinstance(done, (Committed, AlreadyCommitted, Conflict))
    return done
