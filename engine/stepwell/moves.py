"""How a run gets from one store into another: what a store can do for it besides. A part of the store port. Floor 2.

Two stores can't commit together, so a run is moved in steps, each atomic in its store:

1.  The target *arrives* it: its id is taken there, for everybody, and its records are *staged*, out of sight.
2.  When all of them are there, the source lets it *depart*: from then on every call that names it raises
    RunMovedError, and an owner's append that was under way is refused.
3.  The target *lands* it: what was staged is a run, all at once.

So it can never be driven in both. Whoever is killed between 2 and 3 has left it in neither, with all that it takes to
land it in the target; that is the price of never being in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import msgspec

from .heads import RunHead

__all__ = ["Arrival", "Departure", "Movable"]


class Departure(msgspec.Struct, frozen=True):
    """Where a run went.

    Attributes:
        to: the new place, as it may be shown.
        token: that of its arrival there.
    """

    to: str
    token: str


class Arrival(msgspec.Struct, frozen=True):
    """A run that is on its way into a store.

    Attributes:
        run: its head in the store that it comes from, with which it lands; nobody holds its lease.
        counts: how many records each of its incarnations has. Empty as long as that is not known.
        origin: the place that it comes from, as it may be shown.
        token: names this move; its departure has the same one.
    """

    run: RunHead
    counts: tuple[int, ...]
    origin: str
    token: str


@runtime_checkable
class Movable(Protocol):
    """What a store has besides when runs can be moved into it and out of it.

    An id under which a run is arriving is taken: `create`, and every other call that names it and raises NotFoundError
    or gives None for an unknown id, raises RunArrivingError, but for `renew`, `release` and `delete`. After `depart`
    the same calls raise RunMovedError, until a run of that id has landed. Lists, claims and sizes know of neither, and
    `verify` finds no harm in them.

    Methods that fail raise StoreError; nothing is lost then, and the same call may be made again.
    """

    def arrive(self, arrival: Arrival) -> Arrival | None:
        """Take the run's id, or say anew how it stands; what is staged stays. Gives the arrival as it is now.

        Several may move the same run at once. So an arrival that is there keeps its token, its counts if none are
        given for the same state, and all of itself if it knows a newer state: a higher fence, or with the same fence
        more records. None when a run of this id is here.
        """
        ...

    def stage(self, run_id: str, token: str, incarnation: int, seq: int, lines: Sequence[bytes]) -> None:
        """Keep sealed records of a run that is arriving, durably, in place of what was staged at these positions.

        Raises:
            NotFoundError: nothing arrives under this id and token.
            InvalidInputError: they leave a gap, or are not the records of this position.
        """
        ...

    def staged(self, run_id: str, incarnation: int, from_seq: int = 0, *, limit: int) -> list[bytes]:
        """Records that were staged, from `from_seq` on, at most `limit`; none when there are none."""
        ...

    def land(self, run_id: str, token: str) -> bool:
        """Make what was staged a run, atomically; False when nothing arrives under this id and token.

        Its records are those that `counts` tells of; what was staged beyond them is dropped. Its fence is that of its
        head, or one more than the newest that this id ever had here, if that is higher. Nobody has its lease.

        Raises:
            StoreError: not all of its records were staged; nothing changed.
        """
        ...

    def turn_away(self, arrival: Arrival) -> bool:
        """Forget a run that is arriving, and free its id; False when nothing arrives under its id, token and fence."""
        ...

    def arrivals(self, *, after: str | None = None, limit: int) -> list[Arrival]:
        """Runs that are arriving, by run id (by code points), after this one."""
        ...

    def depart(self, seen: RunHead, departure: Departure) -> bool:
        """Remove a run for good, open or closed, atomically, and leave a mark that says where it went.

        Only if it still is as `seen` tells: incarnation, seq, fence, closed and due; else False. True, too, when it has
        departed so before. Its fence is not given again, as after `delete`.
        """
        ...
