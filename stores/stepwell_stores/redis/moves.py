"""Runs that come into a Redis store and leave it; see `stepwell.moves`.

The records of a run that is to come are in lists with names of their own, which no other run of that id ever has. As
long as it has no row nobody sees them, so to land it is to write that row: one script. What the arrivals of one id have
to do with each other is decided here, on what is there; a script changes it only if that is there still.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from stepwell.errors import InvalidInputError, NotFoundError
from stepwell.store import Arrival, Departure, Head, RunHead

from ..move_rules import attempts_of, check_landing, check_staged, is_turned_away, read_arrival, standing
from ..rules import check_limit, check_run_id
from . import move_scripts as scripts
from .hints import Hints
from .reads import HEAD
from .rows import head_values, run_head
from .server import Server

__all__ = ["RedisMoves"]


class RedisMoves:
    """Arrivals and departures, each a script; and records in place of others."""

    if TYPE_CHECKING:  # what the store itself has
        _server: Server
        _hints: Hints
        _now: Callable[[], int | str]
        _sweep: Callable[[bytes], None]

    def arrive(self, arrival: Arrival) -> Arrival | None:
        """Take a run's id for a run that is to come; see the port."""
        run = arrival.run
        check_run_id(run.run_id)
        head_values(run.head)  # that it can be written
        birth = f"m{secrets.token_hex(8)}"
        there, stands = b"", arrival
        while True:
            text = msgspec.json.encode(stands)
            values = (text, stands.token, stands.run.incarnation, stands.run.head.created, birth)
            answer = self._server.again(scripts.ARRIVE, "", run.run_id, there, *values)
            if answer[0] != b"other":
                return None if answer[0] == b"here" else stands
            there = answer[1]
            stands = standing(_arrival(there) if there else None, arrival)

    def stage(self, run_id: str, token: str, incarnation: int, seq: int, lines: Sequence[bytes]) -> None:
        """Keep records of a run that is to come; see the port."""
        check_staged(run_id, seq, lines)
        named = list(attempts_of(lines))
        flat = [value for pair in named for value in pair]
        answer = self._server.again(scripts.STAGE, "", run_id, token, incarnation, seq, len(named), *flat, *lines)
        if answer[0] == b"none":
            raise NotFoundError(f"no run {run_id!r} is arriving under the token {token!r}")
        if answer[0] == b"gap":
            raise InvalidInputError(f"run {run_id!r}, incarnation {incarnation}: nothing is staged before {seq}")

    def staged(self, run_id: str, incarnation: int, from_seq: int = 0, *, limit: int) -> list[bytes]:
        """Records of a run that is to come; see the port."""
        check_limit(limit)
        lines: list[bytes] = self._server.again(scripts.STAGED, "", run_id, incarnation, from_seq, limit)[1]
        return lines

    def land(self, run_id: str, token: str) -> bool:
        """Make a run of what was staged; see the port."""
        mark = secrets.token_hex(8)  # by which it is known when it is asked again
        while True:
            found = self._arriving(run_id)
            if found is None or found[1].token != token:
                return False
            text, arrival, birth, counts = found
            check_landing(arrival, counts)
            run = arrival.run
            values = (mark, run.fence, int(run.closed), json.dumps(arrival.counts), *head_values(run.head))
            answer = self._server.again(scripts.LAND, self._now(), run_id, text, birth, *values)
            if answer[0] == b"done":
                self._hints.ring()
                self._hints.due.ring()
                return True

    def turn_away(self, arrival: Arrival) -> bool:
        """Forget a run that is to come; see the port."""
        run_id = arrival.run.run_id
        while True:
            found = self._arriving(run_id)
            if found is None or not is_turned_away(found[1], arrival):
                return False
            text, _, birth, _ = found
            answer = self._server.again(scripts.TURN_AWAY, "", run_id, text, birth)
            if answer[0] == b"done":
                self._sweep(answer[1])
                return True

    def arrivals(self, *, after: str | None = None, limit: int) -> list[Arrival]:
        """A page of the runs that are to come; see the port."""
        check_limit(limit)
        return [_arrival(text) for text in self._server.again(scripts.ARRIVALS, "", after or "", limit)[1]]

    def depart(self, seen: RunHead, departure: Departure) -> bool:
        """Remove a run that goes on elsewhere; see the port."""
        check_run_id(seen.run_id)
        due = "" if seen.head.due is None else seen.head.due
        values = (msgspec.json.encode(departure), seen.incarnation, seen.seq, seen.fence, int(seen.closed), due)
        answer = self._server.again(scripts.DEPART, "", seen.run_id, *values)
        if answer[0] == b"done":
            self._sweep(answer[1])
            self._hints.ring()
        return bool(answer[0] != b"kept")

    def rewrite(
        self,
        run_id: str,
        incarnation: int,
        from_seq: int,
        old: Sequence[bytes],
        new: Sequence[bytes],
        *,
        head: tuple[Head, Head] | None = None,
    ) -> bool:
        """Put other records in place of these; see `Rewritable`."""
        check_run_id(run_id)
        if len(old) != len(new):
            return False
        heads: tuple[Any, ...] = ("", "")
        if head is not None:
            answer = self._server.again(HEAD, self._now(), run_id)
            if answer[0] == b"none" or run_head(answer[1], self._server.where.name).head != head[0]:
                return False
            heads = (answer[1][7], answer[1][6], *head_values(head[1]))
        values = (incarnation, from_seq, len(old), *heads, *old, *new)
        changed: bool = self._server.run(scripts.REWRITE, "", run_id, *values)[0] == b"done"
        return changed

    def _arriving(self, run_id: str) -> tuple[bytes, Arrival, bytes, list[int]] | None:
        """The arrival as it is kept, and read; the birth of its logs; how many records were staged."""
        answer = self._server.again(scripts.ARRIVING, "", run_id)
        if answer[0] == b"none":
            return None
        return answer[1], _arrival(answer[1]), answer[2], [int(count) for count in answer[3]]


def _arrival(text: bytes) -> Arrival:
    return read_arrival(text)
