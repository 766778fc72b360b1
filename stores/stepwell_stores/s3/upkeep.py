"""What looks at the whole of a bucket: lists, sizes, retention, `verify`. Nothing that is found so decides a write."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from stepwell.errors import CorruptHistoryError, NotFoundError, StoreError
from stepwell.store import ClosedKey, HeadFilter, RunHead, Status, StoreSize, Verified, verify_lines

from ..rules import check_run_id, closed_page, matches, shown_status
from .bucket import Bucket, Listed
from .due import hints
from .entries import STUB, Entry, State, name_of
from .log import YOUNG, Logs, due_key, entry_key, folder_of
from .opening import Opening
from .packs import is_whole
from .parts import lengths

__all__ = ["S3Upkeep", "Scanned"]

Wrong: TypeAlias = StoreError | CorruptHistoryError | None
"""What is wrong with an entry."""


_MEND_EVERY = 600.0  # seconds between two looks for hints that are missing and for what removed runs left


class Scanned(msgspec.Struct):
    """The objects of one run.

    Attributes:
        entries: by number.
        leased: whether its lease was ever extended.
        pack: copies of many entries, if there are any.
        others: that are not ours.
    """

    name: str
    entries: dict[int, Listed]
    leased: bool = False
    pack: Listed | None = None
    others: list[str] = []


class S3Upkeep:
    """Lists, sizes and space of a bucket."""

    if TYPE_CHECKING:  # what the store itself has
        _opening: Opening
        _keep: float
        _mended: float
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
            taken += sum(found.size for found in scan.entries.values()) + (scan.pack.size if scan.pack else 0)
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

    def _mend(self) -> None:
        """Now and then, remove what removed runs left, and make missing hints again."""
        now = self._opening.timer()
        if now - self._mended < _MEND_EVERY:
            return
        self._mended = now
        with contextlib.suppress(StoreError):  # the next one may
            self.vacuum()

    def _clear(self, bucket: Bucket, scan: Scanned, state: State) -> int:
        """Remove the entries of a run that was removed long enough ago."""
        numbers = self._removable(self._logs(bucket), scan, state)
        freed = sum(scan.entries[number].size for number in numbers)
        if scan.pack is not None and (numbers or state.deleted):  # it may be of the run that was removed
            bucket.remove([scan.pack.key])
            freed += scan.pack.size
        if not numbers:
            return freed
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
            grave = state if state.buried == state.entry else logs.entry(scan.name, state.buried).state
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

    def _last_states(self, bucket: Bucket) -> dict[str, State]:
        return dict(self._all_states(bucket, list(_scan(bucket)), skip_damaged=True))

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
        elif rest == "pack":
            current.pack = found
        else:
            current.others.append(found.key)
    if current is not None:
        yield current


def _left_over(scan: Scanned, state: State) -> list[int]:
    """Numbers of the entries that belong to a run that was removed, ascending; its grave stays."""
    grave = state.buried
    return [n for n, found in sorted(scan.entries.items()) if n < grave and not (n == 0 and found.size == len(STUB))]


def _verified(bucket: Bucket, logs: Logs, scan: Scanned) -> Iterator[Verified]:
    """Every entry of a run, by incarnation; the last one is read first, and tells where the run began."""
    place = f"{bucket.place}/{folder_of(scan.name)}"
    yield from _verified_others(bucket, logs, scan)
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
        yield from _verified_absent(bucket, logs, scan.name, last)
        return
    begin = _Part(state.born, 0)
    if state.landed is not None:
        for begin in _arrived(logs, scan.name, state.landed):
            if begin.problem is not None or not begin.last:
                yield begin.verified(place, state.run_id)
            if begin.problem is not None:
                return
    entries = _read_all(bucket, logs, scan.name, begin.number, state.entry)
    while begin.incarnation <= state.incarnation:
        while begin.number <= state.entry and begin.problem is None:
            entry, begin.problem = next(entries)
            if entry is not None and entry.state.incarnation != begin.incarnation:
                entries = _pushed(entry, entries)
                break
            if entry is not None:
                begin.problem = _flaw(logs, scan.name, entry, len(begin.lines))
                if begin.problem is None:
                    begin.lines += entry.lines
                    begin.size += entry.size
            begin.number += 1
        yield begin.verified(place, state.run_id)
        if begin.problem is not None:
            return
        begin = _Part(begin.number, begin.incarnation + 1)


def _verified_others(bucket: Bucket, logs: Logs, scan: Scanned) -> Iterator[Verified]:
    """What a run has besides its entries."""
    for other in scan.others:
        yield Verified(f"{bucket.place}/{other}", note="is no object of the store's")
    if scan.pack is not None:
        whole = is_whole(logs, scan.name)
        note = None if whole else "is damaged, and not believed: each entry is read instead"
        yield Verified(f"{bucket.place}/{scan.pack.key}", size=scan.pack.size, note=note)


class _Part(msgspec.Struct):
    """What was read of an incarnation; it goes on with the entry of this number, unless it is not the `last`."""

    number: int
    incarnation: int
    lines: list[bytes] = []
    size: int = 0
    problem: Wrong = None
    last: bool = False

    def verified(self, place: str, run_id: str) -> Verified:
        problem = self.problem
        unread = problem is not None and not isinstance(problem, CorruptHistoryError)
        where = f"{place}, incarnation {self.incarnation}"
        return Verified(where, run_id, self.incarnation, self.lines, self.size, problem, unread)


def _arrived(logs: Logs, name: str, number: int) -> Iterator[_Part]:
    """What came from another store, by incarnation; `number` is that of the entry with which it landed."""
    landed, problem = _read(logs, name, number)
    if landed is None:
        yield _Part(number, 0, problem=problem)
        return
    for incarnation, _ in enumerate(lengths(landed.state.parts)):
        found = _Part(number + 1, incarnation, last=incarnation == landed.state.incarnation)
        for part in (part for part in landed.state.parts if part.incarnation == incarnation):
            entry, found.problem = _read(logs, name, part.entry)
            if entry is not None:
                lines, place = entry.lines[part.skip : part.skip + part.count], logs.place(name, part.entry)
                found.problem = _damage(lines, part.seq, place)
                if len(lines) != part.count:
                    found.problem = _broken(place, "lacks records")
                found.lines += lines
                found.size += sum(map(len, lines))
            if found.problem is not None:
                break
        yield found
        if found.problem is not None:
            return


def _verified_absent(bucket: Bucket, logs: Logs, name: str, last: Entry) -> Iterator[Verified]:
    """What there is under the id of a run that is not here: a grave, or records that are staged."""
    state, place = last.state, f"{bucket.place}/{folder_of(name)}"
    if state.arrival is None:
        gone = "was removed" if state.departure is None else f"was moved to {state.departure.to}"
        yield Verified(place, size=last.size, note=f"{gone}; what is left is its fence")
        return
    size = 0
    for number, (entry, problem) in enumerate(_read_all(bucket, logs, name, state.born, state.entry), state.born):
        if entry is None:
            unread = not isinstance(problem, CorruptHistoryError)
            yield Verified(logs.place(name, number), problem=problem, unread=unread)
        else:
            size += entry.size
    yield Verified(place, size=size, note=f"a run is being moved here from {state.arrival.origin}, and is not here yet")


def _pushed(entry: Entry, rest: Iterator[tuple[Entry | None, Wrong]]) -> Iterator[tuple[Entry | None, Wrong]]:
    yield entry, None
    yield from rest


def _read_all(bucket: Bucket, logs: Logs, name: str, first: int, last: int) -> Iterator[tuple[Entry | None, Wrong]]:
    for start in range(first, last + 1, 64):
        yield from bucket.each(lambda n: _read(logs, name, n), range(start, min(start + 64, last + 1)))


def _read(logs: Logs, name: str, number: int) -> tuple[Entry | None, Wrong]:
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
    return _damage(entry.lines, seq, place)


def _damage(lines: list[bytes], seq: int, place: str) -> CorruptHistoryError | None:
    try:
        verify_lines(lines, seq, lambda number: f"{place}, record {number}")
    except CorruptHistoryError as e:
        return e
    return None


def _broken(place: str, what: str) -> CorruptHistoryError:
    return CorruptHistoryError(f"{place}: {what}; restore it from a backup", place=place)
