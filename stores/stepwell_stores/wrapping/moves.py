"""Runs that come into a store with something around it and leave it: records and heads are changed as in all calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn, Protocol

from msgspec.structs import replace

from stepwell.errors import InvalidInputError, StoreMisconfiguredError
from stepwell.store import Arrival, Departure, Draft, Head, Movable, RunHead

from ..move_rules import check_staged
from .lines import body_of, matched, place, remade

__all__ = ["METHODS", "WrappedMoves"]

METHODS = ("arrive", "stage", "staged", "land", "turn_away", "arrivals", "depart")
"""What the wrapper gets of this, when the store inside can move runs."""


class _Changes(Protocol):
    """What is asked of the wrapper; see there."""

    def _wrap(self, run_id: str, incarnation: int, seq: int, draft: Draft) -> Draft: ...

    def _out(self, run_id: str, incarnation: int, seq: int, line: bytes) -> bytes: ...

    def _head_in(self, run_id: str, head: Head) -> Head: ...

    def _head_out(self, run: RunHead) -> RunHead: ...


class WrappedMoves:
    """Arrivals and departures of a wrapper.

    Args:
        wrapper: knows how records and heads are changed.
        mark: what it adds to the type of a record.
        inner: the store that it stands around.
    """

    def __init__(self, wrapper: _Changes, mark: str, inner: Movable) -> None:
        self._wrapper, self._mark, self._inner = wrapper, mark, inner

    def arrive(self, arrival: Arrival) -> Arrival | None:
        """Take a run's id for a run that is to come; see the port."""
        run = arrival.run
        inside = replace(run, head=self._wrapper._head_in(run.run_id, run.head))
        found = self._inner.arrive(replace(arrival, run=inside))
        return None if found is None else self._out(found)

    def stage(self, run_id: str, token: str, incarnation: int, seq: int, lines: Sequence[bytes]) -> None:
        """Keep records of a run that is to come; see the port."""
        check_staged(run_id, seq, lines)
        inside = [self._line_in(run_id, incarnation, number, line) for number, line in enumerate(lines, seq)]
        self._inner.stage(run_id, token, incarnation, seq, inside)

    def _line_in(self, run_id: str, incarnation: int, seq: int, line: bytes) -> bytes:
        found = matched(line)
        if found is None:
            raise InvalidInputError(f"{place(run_id, incarnation, seq)}: is not as records are: {line[:120]!r}")
        kind = found[1].decode()
        if kind.endswith(self._mark):
            self._refuse_wrapped(place(run_id, incarnation, seq))
        draft = self._wrapper._wrap(run_id, incarnation, seq, Draft(kind, body_of(found)))
        return line if draft.type == kind else remade(found, draft.type.encode(), draft.body)

    def _refuse_wrapped(self, where: str) -> NoReturn:
        name = type(self._wrapper).__name__
        raise StoreMisconfiguredError(
            f"{where}: was written through another {name}; name the store that it comes from with that, too"
        )

    def staged(self, run_id: str, incarnation: int, from_seq: int = 0, *, limit: int) -> list[bytes]:
        """Records of a run that is to come; see the port."""
        lines = self._inner.staged(run_id, incarnation, from_seq, limit=limit)
        return [self._wrapper._out(run_id, incarnation, seq, line) for seq, line in enumerate(lines, from_seq)]

    def land(self, run_id: str, token: str) -> bool:
        """Make a run of what was staged; see the port."""
        return self._inner.land(run_id, token)

    def turn_away(self, arrival: Arrival) -> bool:
        """Forget a run that is to come; see the port."""
        return self._inner.turn_away(arrival)

    def arrivals(self, *, after: str | None = None, limit: int) -> list[Arrival]:
        """A page of the runs that are to come; see the port."""
        return list(map(self._out, self._inner.arrivals(after=after, limit=limit)))

    def depart(self, seen: RunHead, departure: Departure) -> bool:
        """Remove a run that goes on elsewhere; see the port."""
        return self._inner.depart(seen, departure)

    def _out(self, arrival: Arrival) -> Arrival:
        return replace(arrival, run=self._wrapper._head_out(arrival.run))
