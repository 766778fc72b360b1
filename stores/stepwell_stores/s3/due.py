"""Which runs are due, by the objects that tell of it.

`due/<instant>/<run>.<entry>` is made before the entry that needs it, so every open run that is due, or held, has one
whose instant is no later than when it wants to be driven. It is a hint: the run's log decides. One whose run goes by
another is removed by whoever finds it, unless the entry that it is named by may still come.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from itertools import islice

import msgspec

from stepwell.errors import CorruptHistoryError

from ..rules import may_try
from .bucket import Bucket
from .entries import State
from .log import Logs

__all__ = ["Hint", "due_runs", "hints"]

_BATCH = 16


class Hint(msgspec.Struct, frozen=True):
    """An object below `due/`."""

    key: str
    instant: int
    name: str
    entry: int
    written: int


def hints(bucket: Bucket) -> Iterator[Hint]:
    """All of them, the earliest first."""
    for found in bucket.listed("due"):
        _, _, rest = found.key.partition("/")
        instant, _, name = rest.partition("/")
        name, _, entry = name.rpartition(".")
        if name and instant.isdigit() and entry.isdigit():
            yield Hint(found.key, int(instant), name, int(entry), found.written)


def due_runs(
    bucket: Bucket,
    logs: Logs,
    *,
    until: int | None,
    wanted: Callable[[State, int], bool],
    fingerprints: frozenset[str],
) -> Iterator[tuple[int, str, str]]:
    """Runs that want to be driven, and that nobody holds, the earliest first: (when, run id, name).

    Args:
        until: hints of later instants are left alone; None: none are.
        wanted: whether a run with this state, which is due at that instant, is asked for.
        fingerprints: of the code that is there; runs that are blocked are looked at for its sake only.
    """
    waiting = list[tuple[int, str, str]]()
    place, useless = hints(bucket), list[str]()

    def look(hint: Hint) -> tuple[int, str, str] | None:
        when, state = _examine(logs, hint, fingerprints, useless)
        if when is None or state is None or not wanted(state, when):
            return None
        return when, state.run_id, hint.name

    try:
        while True:
            batch = [hint for hint in islice(place, _BATCH) if until is None or hint.instant <= until]
            for found in bucket.each(look, batch):
                if found is not None:
                    heapq.heappush(waiting, found)
            if len(batch) < _BATCH:
                break
            while waiting and waiting[0][0] < batch[-1].instant:
                yield heapq.heappop(waiting)  # whatever comes is due no earlier
        while waiting:
            yield heapq.heappop(waiting)
    finally:
        if useless:
            bucket.later(lambda: bucket.remove(useless))


def _examine(
    logs: Logs, hint: Hint, fingerprints: frozenset[str], useless: list[str]
) -> tuple[int | None, State | None]:
    """When the run that a hint speaks of is due; None when it isn't, or goes by another hint."""
    log, now = logs.get(hint.name), logs.now()
    try:
        state = logs.look(log)
    except CorruptHistoryError:
        return None, None
    if state is None or state.entry < hint.entry:
        return None, None  # its writer may be on the way
    if state.hint != (hint.instant, hint.entry):
        useless.append(hint.key)
        return None, None
    when = logs.with_lease(log, state, now).due(now)
    return (when, state) if when is not None and may_try(state.head.blocked, fingerprints) else (None, None)
