"""Records of a run's log, found by their numbers: an entry may hold none, one or many."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stepwell.errors import CorruptHistoryError

from .entries import Entry, Part, State
from .log import Log, Logs, folder_of
from .packs import MANY, packed
from .parts import Staged, lengths, within

__all__ = ["last_of", "lines_of", "records", "staged"]

_AT_ONCE = 64
_PAGES_AT_ONCE = 16  # entries with many records


def last_of(logs: Logs, log: Log, state: State, incarnation: int) -> State:
    """The state after the last entry of an incarnation, as `state` has it."""
    while state.incarnation > incarnation:
        state = logs.entry(log.name, state.first - 1).state
    return state


def records(
    logs: Logs, log: Log, state: State, incarnation: int, seq: int, limit: int | None
) -> tuple[int, list[bytes], int]:
    """Records of an incarnation from a seq on: (seq of the first, records, how many the incarnation has)."""
    landed = None if state.landed is None else logs.entry(log.name, state.landed).state
    total, parts = 0, list[Part]()
    if landed is None or incarnation >= landed.incarnation:
        state = last_of(logs, log, state, incarnation)
        total = state.seq
    else:
        total = lengths(landed.parts)[incarnation]
    start = min(max(seq, 0), total)
    count = total - start if limit is None else min(limit, total - start)
    if not count:
        return start, [], total
    if landed is not None:
        parts = within(landed.parts, incarnation, start, count)
    kept = lines_of(logs, log, parts, lambda number: logs.entry(log.name, number))
    if len(kept) < count:
        kept += _own(logs, log, state, incarnation, start + len(kept), count - len(kept))
    return start, kept, total


def lines_of(logs: Logs, log: Log, parts: Sequence[Part], entry: Callable[[int], Entry | None]) -> list[bytes]:
    """The records of these parts, of entries that `entry` gives."""
    kept = list[bytes]()
    for start in range(0, len(parts), _PAGES_AT_ONCE):
        some = parts[start : start + _PAGES_AT_ONCE]
        for part, found in zip(some, logs.bucket.each(entry, [part.entry for part in some]), strict=True):
            lines = [] if found is None else found.lines[part.skip : part.skip + part.count]
            if len(lines) != part.count:
                at = logs.place(log.name, part.entry)
                raise CorruptHistoryError(f"{at}: lacks records; restore it from a backup", place=at)
            kept += lines
    return kept


def staged(logs: Logs, log: Log, state: State) -> Staged:
    """What was staged of a run that is to come, at this state. What was looked at is remembered."""
    first, found = state.born, Staged()
    known = log.staged
    if known is not None and known[0].born == state.born and known[0].entry <= state.entry:
        first, found = known[0].entry + 1, known[1].copy()
    for start in range(first, state.entry + 1, _PAGES_AT_ONCE):
        numbers = range(start, min(start + _PAGES_AT_ONCE, state.entry + 1))
        for entry in logs.bucket.each(lambda n: logs.entry(log.name, n), numbers):
            found.add(entry.state)
    log.staged = (state, found)
    return found


def _own(logs: Logs, log: Log, state: State, incarnation: int, start: int, count: int) -> list[bytes]:
    """So many records of entries that were written here, by somebody who drove the run or told it something."""
    number, kept = _holding(logs, log, state, start), list[bytes]()
    unknown = [n for n in range(number, min(number + count, state.entry + 1)) if logs.known(log.name, n) is None]
    if len(unknown) >= MANY:
        there = packed(logs, log.name, range(number, state.entry + 1))
        log.loose += len([n for n in unknown if n not in there])
    skip: int | None = None
    each = max(state.seq // (state.entry - state.first + 1), 1)  # records of an entry, about
    while len(kept) < count and number <= state.entry:
        step = min(-(-(count - len(kept)) // each), _AT_ONCE)
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
    return kept[:count]


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
