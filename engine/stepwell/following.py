"""Watching a run's history grow, incarnation after incarnation. Floor 4."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from . import events as e
from .control import RESTARTED
from .errors import NotFoundError
from .loading import PAGE
from .reading import newest_event
from .session import POLL
from .store import Store, Tail

__all__ = ["Page", "follow"]


RESTARTS = 3
"""Looks at a run that was closed to begin anew: who does it takes two writes, and may die between them."""


class Page(msgspec.Struct, frozen=True, eq=False):
    """Records that came since the page before, of one incarnation; `tail` is never without any."""

    incarnation: int
    tail: Tail


def follow(store: Store, run_id: str, *, incarnation: int | None = None) -> Iterator[Page]:
    """Give a run's records, those that are there at once, and the others as they come, until the run is closed.

    What a retry or reset opens meanwhile follows, from its start. Between two pages it blocks in `store.wait`, a second
    at most, since a hint may be missed; nothing is held open meanwhile.

    Args:
        store: any.
        run_id: the run.
        incarnation: where to begin; the current one when None.

    Raises:
        NotFoundError: no such run or incarnation, or it was deleted meanwhile.
    """
    number, seq = incarnation, 0
    restarts = RESTARTS
    while True:
        head = store.head(run_id)  # first: what it says is closed is then read to its end
        if head is None:
            raise NotFoundError(f"no run {run_id!r}" + (": it was deleted meanwhile" if seq else ""), run_id=run_id)
        number = head.incarnation if number is None else number
        tail = store.read(run_id, seq, incarnation=number, limit=PAGE)
        if tail is None:
            raise NotFoundError(f"run {run_id!r} has no incarnation {number}", run_id=run_id)
        if tail.records:
            seq = tail.seq
            yield Page(number, tail)
        elif head.incarnation > number:
            number, seq, restarts = number + 1, 0, RESTARTS
        elif head.closed and not (restarts and _restarts(newest_event(store, head))):
            return
        else:
            restarts -= head.closed
            store.wait(run_id, seq, POLL)


def _restarts(last: e.EventBase) -> bool:
    """Whether a run was closed to begin anew, in the next write."""
    return isinstance(last, e.Cancelled) and last.forced and last.reason == RESTARTED
