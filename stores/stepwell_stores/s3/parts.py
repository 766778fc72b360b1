"""Where the records are of a run that came from another store: plain decisions about `Part`s, which ask nothing."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterator, Sequence

import msgspec
from msgspec.structs import replace

from .entries import Part, State

__all__ = ["Staged", "clipped", "lengths", "place", "within"]


class Staged(msgspec.Struct):
    """What was staged of a run that is to come.

    Attributes:
        parts: where its records are, in order.
        named: the attempts that entries name, each with the (incarnation, seq, entry) of the newest that does.
    """

    parts: list[Part] = []
    named: dict[str, tuple[int, int, int]] = {}

    def copy(self) -> Staged:
        """The same, to be changed."""
        return Staged(list(self.parts), dict(self.named))

    def add(self, state: State) -> None:
        """Know one more entry."""
        if state.count:
            place(self.parts, Part(state.incarnation, state.seq - state.count, state.count, state.entry))
            self.named.update({attempt: (*at, state.entry) for attempt, at in state.attempts.items()})

    def attempts(self, parts: Sequence[Part]) -> dict[str, tuple[int, int]]:
        """Where the attempts are that these parts hold."""
        found = {}
        for attempt, (incarnation, seq, entry) in self.named.items():
            at = bisect_right(parts, (incarnation, seq), key=lambda part: (part.incarnation, part.seq)) - 1
            part = parts[max(at, 0)]
            if (part.incarnation, part.entry) == (incarnation, entry) and part.seq <= seq < part.stop:
                found[attempt] = (incarnation, seq)
        return found


def place(parts: list[Part], new: Part) -> None:
    """Put a part in place of what is at its positions; what is behind it stays. They are kept in order."""
    if parts and (parts[-1].incarnation, parts[-1].stop) > (new.incarnation, new.seq):
        there = list(parts)
        parts.clear()
        for part in there:
            parts += _without(part, new)
    insort(parts, new)


def _without(part: Part, new: Part) -> Iterator[Part]:
    """What a part has that a new one has not."""
    if part.incarnation != new.incarnation or part.stop <= new.seq or part.seq >= new.stop:
        yield part
        return
    if part.seq < new.seq:
        yield replace(part, count=new.seq - part.seq)
    if part.stop > new.stop:
        over = new.stop - part.seq
        yield replace(part, seq=new.stop, count=part.count - over, skip=part.skip + over)


def lengths(parts: Sequence[Part]) -> list[int]:
    """How many records each incarnation has. There are no gaps."""
    counts: list[int] = []
    for part in parts:
        counts[part.incarnation :] = [part.stop]
    return counts


def clipped(parts: Sequence[Part], counts: Sequence[int]) -> Iterator[Part]:
    """The parts of so many records of each incarnation."""
    for part in parts:
        most = counts[part.incarnation] if part.incarnation < len(counts) else 0
        if part.seq < most:
            yield replace(part, count=min(part.count, most - part.seq))


def within(parts: Sequence[Part], incarnation: int, seq: int, count: int) -> list[Part]:
    """What there is of these records."""
    wanted = Part(incarnation, seq, count, 0)
    found = []
    for part in parts:
        if part.incarnation == incarnation and part.seq < wanted.stop and part.stop > seq:
            over = max(seq - part.seq, 0)
            less = over + max(part.stop - wanted.stop, 0)
            found.append(replace(part, seq=part.seq + over, count=part.count - less, skip=part.skip + over))
    return found
