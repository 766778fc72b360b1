"""What `Engine.migrate` does: from an engine and the name of a store to a `Mover` and what came of it. Floor 4."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, cast

import msgspec

from .environment import new_token
from .errors import InvalidInputError, StoreMisconfiguredError
from .loading import Parts
from .moving import Fate, MovableStore, Mover
from .opening import open_store, shown_url
from .sessions import Sessions
from .store import HeadFilter, RunHead, Store
from .swapping import BothStores
from .upkeep import Moved

__all__ = ["Swap", "as_movable", "moving", "place_of", "same_place", "tally", "told"]

MOST_IDS = 10_000
"""Run ids that `Moved` holds."""


def moving(
    parts: Parts,
    target: str | Store,
    where: HeadFilter,
    wait: float = 0.0,
    *,
    dry_run: bool = False,
    on_run: Callable[[str, str], None] | None = None,
    names: tuple[str | None, str | None] = (None, None),
) -> Iterator[tuple[RunHead, Fate]]:
    """Move runs of an engine's store to another one, as `Engine.migrate` says; gives each, and what became of it.

    Args:
        names: the URLs of the two stores, where they are known.
    """
    opened = open_store(target)
    try:
        url = target if isinstance(target, str) else names[1]
        origin = place_of(parts.store) if names[0] is None else shown_url(names[0])
        to = place_of(opened) if url is None else shown_url(url)
        source = as_movable(parts.store, origin)
        if same_place(source, opened) or (names[0] is not None and names[0] == url):
            raise InvalidInputError(f"both stores are {to}: name another one to move to")
        owner = f"move-{new_token()}"
        mover = Mover(source, as_movable(opened, to), origin=origin, to=to, owner=owner, where=where, wait=wait)
        yield from told(mover.look() if dry_run else mover.go(), on_run)
    finally:
        if isinstance(target, str):
            opened.close()


def told(
    going: Iterator[tuple[RunHead, Fate]], on_run: Callable[[str, str], None] | None
) -> Iterator[tuple[RunHead, Fate]]:
    """The same, with the caller told of each."""
    for run, fate in going:
        if on_run is not None:
            on_run(run.run_id, fate)
        yield run, fate


class Swap:
    """The change of an engine's store; see `Engine.swap_store`.

    Args:
        parts: the engine's, which all of its parts share.
        sessions: the leases that it holds.
    """

    def __init__(self, parts: Parts, sessions: Sessions) -> None:
        self._parts, self._sessions = parts, sessions

    def begin(self, target: str | Store) -> BothStores:
        """From now on the engine works with both stores.

        Raises:
            InvalidInputError: it has begun to move to another store, or they are one.
            StoreMisconfiguredError: a store can't be used for it.
        """
        there, opened = self._parts.store, open_store(target)
        if isinstance(there, BothStores):
            if same_place(there.target, opened):
                if opened is not there.target:
                    opened.close()
                return there
            raise InvalidInputError(f"this engine moves to {place_of(there.target)} already: end that first")
        if same_place(there, opened):
            raise InvalidInputError(f"the engine's store is {place_of(opened)} already: name another one")
        both = BothStores(as_movable(there, place_of(there)), as_movable(opened, place_of(opened)))
        both.target.arrivals(limit=1)  # that it can be used
        self._use(both)
        return both

    def go(self, both: BothStores, url: str | None, wait: float) -> Iterator[tuple[RunHead, Fate]]:
        """Move all runs."""
        to = place_of(both.target) if url is None else shown_url(url)
        names = {"origin": place_of(both.source), "to": to, "owner": f"move-{new_token()}"}
        return Mover(both.source, both.target, **names, where=HeadFilter(), wait=wait, guard=both.moving).go()

    def end(self, both: BothStores) -> Store:
        """From now on the engine works with the new store alone; gives the old one."""
        self._use(both.target)
        return both.source

    def _use(self, store: Any) -> None:
        msgspec.structs.force_setattr(self._parts, "store", store)
        self._sessions.use(store)


def same_place(one: Store, other: Store) -> bool:
    """Whether two stores are one, as far as can be told."""
    path = getattr(one, "path", None)
    return one is other or (type(one) is type(other) and path is not None and path == getattr(other, "path", None))


def tally(going: Iterator[tuple[RunHead, Fate]], *, dry_run: bool = False) -> Moved:
    """Go through a move, and tell what came of it."""
    moved = events = 0
    run_ids, kept = list[str](), dict[str, str]()
    for run, fate in going:
        if fate in ("moved", "landed"):
            moved, events = moved + 1, events + run.seq
            kept.pop(run.run_id, None)
            if moved <= MOST_IDS:
                run_ids.append(run.run_id)
        else:
            kept[run.run_id] = fate
    first = dict(islice(kept.items(), MOST_IDS))
    return Moved(moved, tuple(run_ids), events, dict(Counter(kept.values())), first, dry_run)


def as_movable(store: Store, place: str) -> MovableStore:
    """The same store.

    Raises:
        StoreMisconfiguredError: its runs can't be moved.
    """
    missing = [name for name in ("arrive", "stage", "staged", "land", "depart") if not hasattr(store, name)]
    if missing:
        raise StoreMisconfiguredError(
            f"{place}: no run can be moved into a {type(store).__name__} or out of it, since it has no "
            f"{missing[0]}(); see stepwell.moves"
        )
    return cast("MovableStore", store)


def place_of(store: Store) -> str:
    """What a store is called when nobody has given its URL."""
    path = getattr(store, "path", None) or getattr(store, "place", None)
    return type(store).__name__ if path is None else f"{type(store).__name__} at {path}"
