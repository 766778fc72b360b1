"""Moves that were begun and that nobody will end: their ids are freed, what was copied is dropped. Floor 4.

A copy may only go as long as its run is in the store that it comes from. So each one is looked for there, and the lease
of an open one is held meanwhile: whoever moves it at this moment can't let it depart. A closed run has no lease, so
nobody may be moving runs when such a copy is dropped; who asks for it says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

from .errors import RunArrivingError, RunMovedError
from .moves import Arrival
from .moving import MovableStore
from .store import Lease, RunHead

__all__ = ["Abandoned", "abandon"]

Abandoned: TypeAlias = Literal["abandoned", "departed", "busy", "elsewhere"]
"""What became of a run that was on its way: all but "abandoned" stay as they are."""

_PAGE = 500
_TTL = 60.0


def abandon(
    source: MovableStore, target: MovableStore, *, origin: str, owner: str, dry_run: bool = False
) -> Iterator[tuple[Arrival, Abandoned]]:
    """Turn away what is on its way into a store; gives each run, and what became of it.

    Args:
        source: the store that they come from.
        target: the store that they would have gone to.
        origin: what the source is called, as arrivals name it.
        owner: who holds the leases meanwhile.
        dry_run: turn nothing away, and tell what would be.

    Raises:
        StoreError: a store failed; what was given so far is done, and the same again goes on.
    """
    after = None
    while page := target.arrivals(after=after, limit=_PAGE):
        for arrival in page:
            after = arrival.run.run_id
            yield arrival, _abandon(source, target, arrival, origin, owner, dry_run)


def _abandon(
    source: MovableStore, target: MovableStore, arrival: Arrival, origin: str, owner: str, dry_run: bool
) -> Abandoned:
    run_id = arrival.run.run_id
    lease: Lease | None = None
    try:
        there = source.head(run_id)
        if there is None and arrival.origin != origin:
            return "elsewhere"
        if there is not None and there.lease_until is not None:
            return "busy"
        if there is not None and not there.closed and not dry_run:
            claimed = source.claim(run_id, owner, _TTL)
            if isinstance(claimed, RunHead) and not claimed.closed:
                return "busy"
            lease = claimed if isinstance(claimed, Lease) else None
    except RunMovedError as error:
        if error.token == arrival.token:
            return "departed"  # what was copied is all that there is of it
    except RunArrivingError:
        return "busy"
    try:
        return "abandoned" if dry_run or target.turn_away(arrival) else "busy"
    finally:
        if lease is not None:
            source.release(lease)
