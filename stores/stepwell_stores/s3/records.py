"""Records of a run's log, found by their numbers: an entry may hold none, one or many."""

from __future__ import annotations

from collections.abc import Sequence

from stepwell.errors import CorruptHistoryError

from .entries import Entry, State
from .log import Log, Logs, folder_of

__all__ = ["last_of", "records"]


def last_of(logs: Logs, log: Log, state: State, incarnation: int) -> State:
    """The state after the last entry of an incarnation, as `state` has it."""
    while state.incarnation > incarnation:
        state = logs.entry(log.name, state.first - 1).state
    return state


def records(
    logs: Logs, log: Log, state: State, incarnation: int, seq: int, limit: int | None
) -> tuple[int, list[bytes], int]:
    """Records of an incarnation from a seq on: (seq of the first, records, how many the incarnation has)."""
    state = last_of(logs, log, state, incarnation)
    start = min(max(seq, 0), state.seq)
    count = state.seq - start if limit is None else min(limit, state.seq - start)
    if not count:
        return start, [], state.seq
    number, kept = _holding(logs, log, state, start), list[bytes]()
    skip: int | None = None
    while len(kept) < count and number <= state.entry:
        step = min(count - len(kept), 64)
        part = logs.bucket.each(lambda n: logs.entry(log.name, n), range(number, min(number + step, state.entry + 1)))
        if skip is None:
            skip = start - (part[0].state.seq - part[0].state.count)
        kept += _joined(part, log.name, incarnation, logs)
        if skip:
            kept, skip = kept[skip:], 0
        number += step
    if len(kept) < count:
        place = f"{logs.bucket.place}/{folder_of(log.name)}"
        raise CorruptHistoryError(f"{place}: records are missing; restore it from a backup", place=place)
    return start, kept[:count], state.seq


def _holding(logs: Logs, log: Log, last: State, seq: int) -> int:
    """The number of the entry that holds a record; `last` is the state after the incarnation's last entry."""
    if seq == 0:
        return last.first
    low, high = last.first, last.entry  # the one that is looked for is among these
    guess = high - (last.seq - 1 - seq)  # right when each entry since holds one record
    while low < high:
        middle = guess if low <= guess < high else (low + high) // 2
        guess = -1
        if logs.entry(log.name, middle).state.seq > seq:
            high = middle
            if high > low and logs.entry(log.name, high - 1).state.seq <= seq:
                return high
        else:
            low = middle + 1
    return low


def _joined(entries: Sequence[Entry], name: str, incarnation: int, logs: Logs) -> list[bytes]:
    found = list[bytes]()
    for entry in entries:
        if entry.state.incarnation != incarnation:
            place = logs.place(name, entry.state.entry)
            raise CorruptHistoryError(f"{place}: belongs to incarnation {entry.state.incarnation}", place=place)
        found += entry.lines
    return found
