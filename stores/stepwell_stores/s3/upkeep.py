"""What looks at the whole of a bucket: lists, sizes, retention, `verify`. Nothing that is found so decides a write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import msgspec

from stepwell.errors import CorruptHistoryError, NotFoundError, StoreError
from stepwell.store import ClosedKey, HeadFilter, RunHead, Status, StoreSize, Verified, verify_lines

from ..rules import check_run_id, closed_page, matches, shown_status
from .bucket import Bucket, Listed
from .due import hints
from .entries import STUB, Entry, State, name_of
from .log import YOUNG, Logs, due_key, entry_key, folder_of
from .opening import Opening

__all__ = ["S3Upkeep", "Scanned"]


class Scanned(msgspec.Struct):
    """The objects of one run.

    Attributes:
        entries: by number.
        leased: whether its lease was ever extended.
        others: that are not ours.
    """

    name: str
    entries: dict[int, Listed]
    leased: bool = False
    others: list[str] = []


class S3Upkeep:
    """Lists, sizes and space of a bucket."""

    if TYPE_CHECKING:  # what the store itself has
        _opening: Opening
        _keep: float
        _states: dict[str, State]
        _logs: Callable[[Bucket], Logs]

    def heads(self, where: HeadFilter, *, limit: int, after: str | None = None) -> list[RunHead]:
        """A page of heads, newest first; see the port. Lists every object below `runs/`."""
        start = None if after is None else (self._created(after), after)
        rows = [r for r in self._heads() if matches(r, where)]
        rows = [r for r in rows if start is None or (r.head.created, r.run_id) < start]
        rows.sort(key=lambda r: (r.head.created, r.run_id), reverse=True)
        return rows[:limit]

    def closed(
        self,
        *,
        after: ClosedKey | None = None,
        before: ClosedKey | None = None,
        newest_first: bool = False,
        limit: int,
    ) -> list[RunHead]:
        """A page of closed runs; see the port."""
        return closed_page(self._heads(skip_damaged=True), after, before, newest_first, limit)

    def size(self) -> StoreSize:
        """How large it is; see the port. `bytes` counts all objects of runs, `free` what `vacuum` removes now."""
        bucket = self._opening.reading()
        logs, now = self._logs(bucket), self._opening.now()
        statuses: Counter[Status] = Counter()
        events = taken = free = 0
        scans = list(_scan(bucket))
        states = dict(self._all_states(bucket, scans))
        for scan in scans:
            state = states.get(scan.name)
            taken += sum(found.size for found in scan.entries.values())
            if state is None:
                continue
            free += sum(scan.entries[number].size for number in self._removable(logs, scan, state))
            if not state.deleted:
                statuses[shown_status(self._shown(logs, scan, state, now))] += 1
                events += state.events
        return StoreSize(dict(statuses), events, taken, free)

    def vacuum(self) -> int:
        """Remove what removed runs left, and make hints again that are missing; how many bytes were given back.

        What was removed a moment ago stays for a while: see `keep_deleted` of the store.
        """
        bucket = self._opening.writing()
        scans = list(_scan(bucket))
        states = dict(self._all_states(bucket, scans, skip_damaged=True))
        freed = 0
        for scan in scans:
            state = states.get(scan.name)
            if state is not None:
                freed += self._clear(bucket, scan, state)
        self._mend_hints(bucket, states)
        return freed

    def _clear(self, bucket: Bucket, scan: Scanned, state: State) -> int:
        """Remove the entries of a run that was removed long enough ago."""
        numbers = self._removable(self._logs(bucket), scan, state)
        if not numbers:
            return 0
        freed = sum(scan.entries[number].size for number in numbers)
        if numbers[0] == 0:
            bucket.put(entry_key(scan.name, 0), STUB)  # first: its key is never free again
            freed -= len(STUB)
            numbers = numbers[1:]
        bucket.remove([entry_key(scan.name, number) for number in numbers])
        return max(freed, 0)

    def _removable(self, logs: Logs, scan: Scanned, state: State) -> list[int]:
        """The entries that a run which was removed long enough ago has left, ascending; none of a younger grave."""
        numbers = _left_over(scan, state)
        if not numbers:
            return []
        try:
            grave = state if state.deleted else logs.entry(scan.name, state.born - 1).state
        except CorruptHistoryError:
            return []
        return numbers if self._opening.now() - grave.at >= self._keep * 1_000_000 else []

    def _mend_hints(self, bucket: Bucket, states: dict[str, State]) -> None:
        """Make those that runs need and that are gone, and remove those that no run goes by."""
        there = {hint.key: hint for hint in hints(bucket)}
        needed = {due_key(name, state.hint): state for name, state in states.items() if state.hint is not None}
        now, useless = self._opening.now(), list[str]()
        for key in needed.keys() - there.keys():
            bucket.put(key, b"")
        for key, hint in there.items():
            state = states.get(hint.name)
            late = hint.written < now - YOUNG * 1_000_000  # and nobody has come to write its entry
            if key not in needed and (late or (state is not None and state.entry >= hint.entry)):
                useless.append(key)
        bucket.remove(useless)

    def verify(self) -> Iterator[Verified]:
        """Read every byte; see the port."""
        bucket = self._opening.reading()
        logs = self._logs(bucket)
        scans = list(_scan(bucket))
        for done, scan in enumerate(scans, 1):
            share = done / len(scans)
            for part in _verified(bucket, logs, scan):
                yield msgspec.structs.replace(part, share=share)

    def _created(self, run_id: str) -> int:
        check_run_id(run_id)
        logs = self._logs(self._opening.reading())
        state = logs.look(logs.get(name_of(run_id)))
        if state is None:
            raise NotFoundError(f"no page begins after run {run_id!r}: there never was one")
        return state.head.created

    def _heads(self, *, skip_damaged: bool = False) -> list[RunHead]:
        bucket = self._opening.reading()
        logs, now = self._logs(bucket), self._opening.now()
        scans = list(_scan(bucket))
        states = dict(self._all_states(bucket, scans, skip_damaged=skip_damaged))
        found = [(scan, states[scan.name]) for scan in scans if scan.name in states]
        return [self._shown(logs, scan, state, now) for scan, state in found if not state.deleted]

    def _shown(self, logs: Logs, scan: Scanned, state: State, now: int) -> RunHead:
        log = logs.get(scan.name, warm=False)
        return logs.with_lease(log, state, now, renewed=scan.leased).shown(now)

    def _all_states(
        self, bucket: Bucket, scans: list[Scanned], *, skip_damaged: bool = False
    ) -> list[tuple[str, State]]:
        """Where each run stands by its last entry. Those that are as they were aren't read again."""
        logs, known = self._logs(bucket), self._states

        def last(scan: Scanned) -> tuple[str, State] | None:
            number = max(scan.entries, default=-1)
            state = known.get(scan.name)
            if state is not None and state.entry == number:
                return scan.name, state
            try:
                entry = logs.fetch(scan.name, number) if number >= 0 else None
                state = entry.state if entry is not None else logs.look(logs.get(scan.name, warm=False))
            except CorruptHistoryError:
                if not skip_damaged:
                    raise
                return None
            return None if state is None else (scan.name, state)

        found = [one for one in bucket.each(last, scans) if one is not None]
        self._states = dict(found)
        return found


def _scan(bucket: Bucket) -> Iterator[Scanned]:
    """The objects of each run, run by run."""
    current: Scanned | None = None
    for found in bucket.listed("runs"):
        _, name, rest = (*found.key.split("/", 2), "", "")[:3]
        if current is None or name != current.name:
            if current is not None:
                yield current
            current = Scanned(name, {})
        if rest.isdigit():
            current.entries[int(rest)] = found
        elif rest == "lease":
            current.leased = True
        else:
            current.others.append(found.key)
    if current is not None:
        yield current


def _left_over(scan: Scanned, state: State) -> list[int]:
    """Numbers of the entries that belong to a run that was removed, ascending; its grave stays."""
    grave = state.entry if state.deleted else state.born - 1
    return [n for n, found in sorted(scan.entries.items()) if n < grave and not (n == 0 and found.size == len(STUB))]


def _verified(bucket: Bucket, logs: Logs, scan: Scanned) -> Iterator[Verified]:
    """Every entry of a run, by incarnation; the last one is read first, and tells where the run began."""
    place = f"{bucket.place}/{folder_of(scan.name)}"
    for other in scan.others:
        yield Verified(f"{bucket.place}/{other}", note="is no object of the store's")
    newest = max(scan.entries, default=-1)
    if newest < 0:
        return
    last, wrong = _read(logs, scan.name, newest)
    if last is None:
        unread = wrong is not None and not isinstance(wrong, CorruptHistoryError)
        yield Verified(logs.place(scan.name, newest), problem=wrong, unread=unread)
        return
    state = last.state
    if state.deleted:
        yield Verified(place, size=last.size, note="was removed; what is left is its fence")
        return
    number, incarnation = state.born, 0
    entries = _read_all(bucket, logs, scan.name, state)
    while incarnation <= state.incarnation:
        lines, size, seq, problem = list[bytes](), 0, 0, None
        while number <= state.entry and problem is None:
            entry, problem = next(entries)
            if entry is not None and entry.state.incarnation != incarnation:
                entries = _pushed(entry, entries)
                break
            if entry is not None:
                problem = _flaw(logs, scan.name, entry, seq)
                if problem is None:
                    lines += entry.lines
                    size, seq = size + entry.size, entry.state.seq
            number += 1
        unread = problem is not None and not isinstance(problem, CorruptHistoryError)
        yield Verified(f"{place}, incarnation {incarnation}", state.run_id, incarnation, lines, size, problem, unread)
        if problem is not None:
            return
        incarnation += 1


def _pushed(
    entry: Entry, rest: Iterator[tuple[Entry | None, StoreError | CorruptHistoryError | None]]
) -> Iterator[tuple[Entry | None, StoreError | CorruptHistoryError | None]]:
    yield entry, None
    yield from rest


def _read_all(
    bucket: Bucket, logs: Logs, name: str, state: State
) -> Iterator[tuple[Entry | None, StoreError | CorruptHistoryError | None]]:
    for start in range(state.born, state.entry + 1, 64):
        yield from bucket.each(lambda n: _read(logs, name, n), range(start, min(start + 64, state.entry + 1)))


def _read(logs: Logs, name: str, number: int) -> tuple[Entry | None, StoreError | CorruptHistoryError | None]:
    """An entry, or what is wrong with it."""
    place = logs.place(name, number)
    try:
        entry = logs.fetch(name, number)
    except (StoreError, CorruptHistoryError) as e:
        return None, e
    return (entry, None) if entry is not None else (None, _broken(place, "is gone"))


def _flaw(logs: Logs, name: str, entry: Entry, seq: int) -> CorruptHistoryError | None:
    """What is wrong with an entry that should go on at a seq."""
    state, place = entry.state, logs.place(name, entry.state.entry)
    if state.seq - state.count != seq:
        return _broken(place, f"goes on at record {state.seq - state.count}, and {seq} is the next one")
    try:
        verify_lines(entry.lines, seq, lambda number: f"{place}, record {number}")
    except CorruptHistoryError as e:
        return e
    return None


def _broken(place: str, what: str) -> CorruptHistoryError:
    return CorruptHistoryError(f"{place}: {what}; restore it from a backup", place=place)
