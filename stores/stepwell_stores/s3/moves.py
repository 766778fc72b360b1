"""Runs that come into a bucket and leave it; see `stepwell.moves`, and `store` for what a run's log is.

Theory of operation. A move is entries of the log, like all that happens to a run:

    runs/<run>/000000000000     a run arrives under this id: its head, its token; nobody sees it yet
    runs/<run>/000000000001     records 0 to 499 of its incarnation 0 were staged
    runs/<run>/000000000002     records 0 to 120 of its incarnation 1
    runs/<run>/000000000003     it landed; here is where its records are: the run, with all of them
    runs/<run>/000000000004     a lease was granted ...
    ...
    runs/<run>/000000000042     it departed: a grave that says where to

An id is taken since its next key is: who creates a run decides on the arrival, which refuses it, or finds the key taken
and then decides on it. Entries of an arrival are `deleted`, as a grave is, so no list, claim or size has them; but they
are not before a grave, so nobody removes them. Staging other records for a position takes none away: which entry has
which record is told by their order, and at last by the entry with which the run lands. To turn a run away is a grave,
and `vacuum` removes what was staged as it removes all that lies before one.

Why a run can never be driven in both places. It lands by one entry, created at the next key of the target's log after
its mover has seen the source's `depart` acknowledged, or its mark. It departs by one entry, a grave, created at the key
that comes next after the entry by which the run stood as the mover had seen and copied it. So of an owner's append, a
lease, a signal and the departure, which all want that key, one gets it. If it is the departure, the others read the
grave, and are refused; whoever was asleep, or whose request was, finds the key taken, as ever. If it is one of them,
nothing departs, and what came is copied first. And the grave's key is free again never: a grave that is the last entry
is not removed, and after it the log goes on only when a run lands there again, with a fence above all that were given.

The mark is the grave itself. So it costs nothing to look for: whoever looks where a run stands reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from stepwell.errors import InvalidInputError, StoreError
from stepwell.store import Arrival, Departure, RunHead

from ..bell import Bell
from ..move_rules import check_staged
from ..rules import check_limit, check_run_id
from . import move_decisions as decisions
from .bucket import Bucket
from .decisions import Change
from .entries import State
from .log import Log, Logs
from .opening import Opening
from .parts import Staged, within
from .records import lines_of, staged

__all__ = ["S3Moves"]

_ENTRY = 2_000_000  # bytes of records in one entry, unless one of them is larger


class S3Moves:
    """Arrivals and departures, each an entry of the run's log."""

    if TYPE_CHECKING:  # what the store itself has
        _bell: Bell
        _opening: Opening

        def _log(self, run_id: str, *, writing: bool = False) -> tuple[Logs, Log]: ...
        def _last_states(self, bucket: Bucket) -> dict[str, State]: ...

    def arrive(self, arrival: Arrival) -> Arrival | None:
        """Take a run's id for a run that is to come; see the port."""
        run_id = arrival.run.run_id
        check_run_id(run_id)
        logs, log = self._log(run_id, writing=True)
        decide = partial(decisions.arrive, arrival=arrival)
        stands: Arrival | None = logs.change(log, decide, new=True)
        return stands

    def stage(self, run_id: str, token: str, incarnation: int, seq: int, lines: Sequence[bytes]) -> None:
        """Keep records of a run that is to come, so many in an entry; see the port."""
        check_run_id(run_id)
        check_staged(run_id, seq, lines)
        logs, log = self._log(run_id, writing=True)
        for some in _pages(lines):
            where = (run_id, token, incarnation, seq, some, _look(logs, log))

            def decide(state: State | None, now: int, where: Any = where) -> Change:
                return decisions.stage(state, now, *where)

            if not logs.change(log, decide):
                raise InvalidInputError(f"run {run_id!r}, incarnation {incarnation}: nothing is staged before {seq}")
            seq += len(some)

    def staged(self, run_id: str, incarnation: int, from_seq: int = 0, *, limit: int) -> list[bytes]:
        """Records of a run that is to come, as the bucket has them now; see the port."""
        check_run_id(run_id)
        check_limit(limit)
        logs, log = self._log(run_id)
        with log.lock:
            state = logs.look(log)
            if state is None or state.arrival is None:
                return []
            parts = within(staged(logs, log, state).parts, incarnation, from_seq, limit)
        return lines_of(logs, log, parts, lambda number: logs.fetch(log.name, number))

    def land(self, run_id: str, token: str) -> bool:
        """Make a run of what was staged; see the port."""
        check_run_id(run_id)
        logs, log = self._log(run_id, writing=True)
        decide = partial(decisions.land, token=token, look=_look(logs, log))
        landed = None
        while landed is None:
            landed = logs.change(log, decide)
        if isinstance(landed, StoreError):
            raise landed
        if landed:
            log.staged = None
            self._bell.ring()
            self._bell.due.ring()
        return bool(landed)

    def turn_away(self, arrival: Arrival) -> bool:
        """Forget a run that is to come; see the port. `vacuum` removes what was staged, after `keep_deleted`."""
        run_id = arrival.run.run_id
        check_run_id(run_id)
        logs, log = self._log(run_id, writing=True)
        decide = partial(decisions.turn_away, arrival=arrival)
        return bool(logs.change(log, decide))

    def arrivals(self, *, after: str | None = None, limit: int) -> list[Arrival]:
        """A page of the runs that are to come; see the port. Lists every object below `runs/`."""
        check_limit(limit)
        states = self._last_states(self._opening.reading()).values()
        found = {state.run_id: state.arrival for state in states if state.arrival is not None}
        return [found[run_id] for run_id in sorted(found) if after is None or run_id > after][:limit]

    def depart(self, seen: RunHead, departure: Departure) -> bool:
        """Remove a run that goes on elsewhere; see the port. Its objects stay, unseen, for `keep_deleted` seconds."""
        run_id = seen.run_id
        check_run_id(run_id)
        logs, log = self._log(run_id, writing=True)
        decide = partial(decisions.depart, seen=seen, departure=departure)
        departed = bool(logs.change(log, decide))
        self._bell.ring()
        return departed


def _look(logs: Logs, log: Log) -> Callable[[State], Staged]:
    return partial(staged, logs, log)


def _pages(lines: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Records for one entry each; at least one page."""
    start = size = 0
    for number, line in enumerate(lines):
        if size and size + len(line) > _ENTRY:
            yield lines[start:number]
            start, size = number, 0
        size += len(line)
    yield lines[start:]
