"""Runs that come into the store in memory and leave it; see `stepwell.moves`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from attrs import define, field

from stepwell.errors import InvalidInputError, NotFoundError
from stepwell.store import Arrival, Departure, RunHead

from ..bell import DueBell
from ..move_rules import attempts_of, check_landing, check_staged, is_turned_away, refuse_absent, same_run, standing
from ..rules import Clock, check_limit, check_run_id
from ..run_rows import RunRow

__all__ = ["MemoryMoves"]


@define
class _Move:
    """What is known of a run id that has no run."""

    departure: Departure | None = None
    arrival: Arrival | None = None
    histories: list[list[bytes]] = field(factory=list)


class MemoryMoves:
    """Arrivals and departures, under the store's one lock."""

    _moves: dict[str, _Move]

    if TYPE_CHECKING:  # what the store itself has
        _changed: threading.Condition
        _due_bell: DueBell
        _clock: Clock
        _runs: dict[str, RunRow]
        _deleted: dict[str, RunRow]
        _check_open: Callable[[], None]
        _tell: Callable[[], None]

    def arrive(self, arrival: Arrival) -> Arrival | None:
        """Take a run's id for a run that is to come; see the port."""
        run_id = arrival.run.run_id
        check_run_id(run_id)
        with self._changed:
            self._check_open()
            if run_id in self._runs:
                return None
            move = self._moves.setdefault(run_id, _Move())
            move.arrival = standing(move.arrival, arrival)
            return move.arrival

    def stage(self, run_id: str, token: str, incarnation: int, seq: int, lines: Sequence[bytes]) -> None:
        """Keep records of a run that is to come; see the port."""
        with self._changed:
            move = self._arriving(run_id, token)
            if move is None:
                raise NotFoundError(f"no run {run_id!r} is arriving under the token {token!r}")
            there = move.histories[incarnation : incarnation + 1] or [[]]
            if incarnation > len(move.histories) or seq > len(there[0]):
                raise InvalidInputError(f"run {run_id!r}, incarnation {incarnation}: nothing is staged before {seq}")
            check_staged(run_id, seq, lines)
            there[0][seq : seq + len(lines)] = lines
            move.histories[incarnation : incarnation + 1] = there

    def staged(self, run_id: str, incarnation: int, from_seq: int = 0, *, limit: int) -> list[bytes]:
        """Records of a run that is to come; see the port."""
        check_limit(limit)
        with self._changed:
            self._check_open()
            move = self._moves.get(run_id)
            lines = [] if move is None else [*move.histories[incarnation : incarnation + 1], []][0]
            return lines[from_seq : from_seq + limit]

    def land(self, run_id: str, token: str) -> bool:
        """Make a run of what was staged; see the port."""
        with self._changed:
            move = self._arriving(run_id, token)
            if move is None or move.arrival is None:
                return False
            arrival, there = move.arrival, move.arrival.run
            check_landing(arrival, list(map(len, move.histories)))
            del self._moves[run_id]
            fence = max(there.fence, self._deleted[run_id].fence + 1 if run_id in self._deleted else 1)
            lines = [history[:count] for history, count in zip(move.histories, arrival.counts, strict=False)]
            run = self._runs[run_id] = RunRow(run_id, fence, there.head, there.closed, lines)
            for number, history in enumerate(lines):
                run.attempts.update({attempt: (number, seq) for attempt, seq in attempts_of(history)})
            self._tell()
        self._due_bell.ring()
        return True

    def turn_away(self, arrival: Arrival) -> bool:
        """Forget a run that is to come; see the port."""
        run_id = arrival.run.run_id
        with self._changed:
            move = self._arriving(run_id, arrival.token)
            if move is None or not is_turned_away(move.arrival, arrival):
                return False
            move.arrival, move.histories = None, []
            if move.departure is None:
                del self._moves[run_id]
            return True

    def arrivals(self, *, after: str | None = None, limit: int) -> list[Arrival]:
        """A page of the runs that are to come; see the port."""
        check_limit(limit)
        with self._changed:
            self._check_open()
            found = {run_id: move.arrival for run_id, move in self._moves.items() if move.arrival is not None}
        return [found[run_id] for run_id in sorted(found) if after is None or run_id > after][:limit]

    def depart(self, seen: RunHead, departure: Departure) -> bool:
        """Remove a run that goes on elsewhere; see the port."""
        with self._changed:
            self._check_open()
            run, move = self._runs.get(seen.run_id), self._moves.get(seen.run_id)
            if run is None:
                return move is not None and move.departure == departure
            if not same_run(run.shown(self._clock()), seen):
                return False
            del self._runs[seen.run_id]
            self._deleted[seen.run_id] = run.remains()
            self._moves[seen.run_id] = _Move(departure)
            self._tell()
            return True

    def _arriving(self, run_id: str, token: str) -> _Move | None:
        self._check_open()
        move = self._moves.get(run_id)
        return None if move is None or move.arrival is None or move.arrival.token != token else move

    def _there(self, run_id: str) -> RunRow | None:
        """The run, unless there never was one."""
        run = self._runs.get(run_id)
        if run is None:
            self._refuse_absent(run_id)
        return run

    def _refuse_absent(self, run_id: str) -> None:
        """Say where a run is that isn't here, if that is known."""
        move = self._moves.get(run_id)
        if move is not None:
            refuse_absent(run_id, move.departure, move.arrival)
