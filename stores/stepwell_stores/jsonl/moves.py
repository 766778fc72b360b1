"""Runs that come into a directory of journals and leave it; see `stepwell.moves`.

The journals of a run that is to come have their own names already. Its fence file says that nobody is to see them, so
to land it is to put another fence file in place of that one.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from msgspec.structs import replace

from stepwell.errors import CorruptHistoryError, InvalidInputError, NotFoundError
from stepwell.store import Arrival, Departure, RunHead, envelope, first_broken

from ..bell import Bell
from ..file_names import decode
from ..move_rules import check_landing, check_staged, is_turned_away, same_run, standing
from ..rules import check_limit, check_run_id
from .access import Access
from .files import Directory
from .heads import Fence, Run
from .index import Index
from .journal import mark
from .runs import Runs, journal

__all__ = ["JsonlMoves"]

_CHUNK = 1 << 18
_PLACES = 256


class JsonlMoves:
    """Arrivals and departures, each under the run's lock."""

    if TYPE_CHECKING:  # what the store itself has
        _files: Directory
        _runs: Runs
        _access: Access
        _index: Index
        _bell: Bell

        def _run_head(self, run: Run) -> RunHead: ...

    @cached_property
    def _places(self) -> OrderedDict[tuple[str, int], int]:
        """Where records of staged journals begin, by name and seq: the next page begins where the last one ended."""
        return OrderedDict()

    def arrive(self, arrival: Arrival) -> Arrival | None:
        """Take a run's id for a run that is to come; see the port."""
        run_id = arrival.run.run_id
        check_run_id(run_id)
        with self._access.opened(run_id) as (stem, run):
            if run is not None:
                return None
            there = self._runs.fence(stem)
            if there is None:
                there = Fence(run_id, 0, True, arrival.run.head.created)
            if there.arrival is None:
                self._runs.clear(stem)
            stands = standing(there.arrival, arrival)
            self._runs.raise_fence(stem, replace(there, deleted=True, arrival=stands))
            return stands

    def stage(self, run_id: str, token: str, incarnation: int, seq: int, lines: Sequence[bytes]) -> None:
        """Keep records of a run that is to come; see the port."""
        with self._access.opened(run_id) as (stem, _):
            if self._arriving(stem, token) is None:
                raise NotFoundError(f"no run {run_id!r} is arriving under the token {token!r}")
            name = journal(stem, incarnation)
            byte = self._place(name, seq)
            if byte is None or (incarnation and not self._files.size(journal(stem, incarnation - 1))):
                raise InvalidInputError(f"run {run_id!r}, incarnation {incarnation}: nothing is staged before {seq}")
            check_staged(run_id, seq, lines)
            data = b"\n".join([*lines, b""])
            rest = self._after(name, seq, byte, len(lines))
            if not byte and not rest:
                self._files.publish(name, data)
            else:
                if byte < (self._files.size(name) or 0):
                    self._files.truncate(name, byte)
                    data += rest
                self._files.append(name, data, lambda: False)

    def _after(self, name: str, seq: int, byte: int, count: int) -> bytes:
        """What was staged behind the records that are about to be replaced."""
        if byte >= (self._files.size(name) or 0):
            return b""
        self._places.clear()
        begins = self._place(name, seq + count)
        return b"" if begins is None else b"".join(self._parts(name, begins))

    def staged(self, run_id: str, incarnation: int, from_seq: int = 0, *, limit: int) -> list[bytes]:
        """Records of a run that is to come; see the port."""
        check_limit(limit)
        with self._access.opened(run_id, writing=False) as (stem, _):
            fence = self._runs.fence(stem)
            if fence is None or fence.arrival is None:
                return []
            return self._lines(journal(stem, incarnation), from_seq, limit)

    def land(self, run_id: str, token: str) -> bool:
        """Make a run of what was staged; see the port."""
        with self._access.opened(run_id) as (stem, _):
            arrival, fence = self._arriving(stem, token), self._runs.fence(stem)
            if arrival is None or fence is None:
                return False
            there = arrival.run
            names = [journal(stem, number) for number in range(there.incarnation + 1)]
            check_landing(arrival, [self._runs.count(name) for name in names])
            later = [name for name in self._files.names() if name.startswith(f"{stem}.") and name.endswith(".jsonl")]
            if gone := [name for name in later if name not in names]:
                self._files.remove(gone)
            size = 0
            for name, count in zip(names, arrival.counts, strict=True):
                size = self._place(name, count) or 0
                if size < (self._files.size(name) or 0):
                    self._files.truncate(name, size)
            last = self._lines(names[-1], there.seq - 1, 1)[0]
            newest = max(there.fence, fence.fence + 1)
            session = envelope(last).session
            at = (run_id, there.incarnation, there.seq, size, session, newest, there.closed)
            self._runs.save(Run(*at, mark(last), there.head, None))
            self._runs.raise_fence(stem, Fence(run_id, newest))
        self._bell.ring()
        self._bell.due.ring()
        return True

    def turn_away(self, arrival: Arrival) -> bool:
        """Forget a run that is to come; see the port."""
        with self._access.opened(arrival.run.run_id) as (stem, _):
            fence = self._runs.fence(stem)
            if fence is None or not is_turned_away(fence.arrival, arrival):
                return False
            self._runs.raise_fence(stem, replace(fence, arrival=None))
            self._runs.clear(stem)
            return True

    def arrivals(self, *, after: str | None = None, limit: int) -> list[Arrival]:
        """A page of the runs that are to come; see the port. Looks at every fence of a run that isn't here."""
        check_limit(limit)
        found = dict[str, Arrival]()
        for name in self._access.names():
            stem, _, ending = name.partition(".")
            if ending != "fence" or ("~" not in stem and (decode(stem) or "") <= (after or "")):
                continue
            try:
                with self._access.locked(stem):
                    fence = self._runs.fence(stem)
            except CorruptHistoryError:
                continue  # whoever asks for that run is told
            if fence is not None and fence.arrival is not None and fence.run_id > (after or ""):
                found[fence.run_id] = fence.arrival
        return [found[run_id] for run_id in sorted(found)[:limit]]

    def depart(self, seen: RunHead, departure: Departure) -> bool:
        """Remove a run that goes on elsewhere; see the port."""
        check_run_id(seen.run_id)
        with self._access.opened(seen.run_id) as (stem, run):
            if run is None:
                fence = self._runs.fence(stem)
                return fence is not None and fence.departure == departure
            if not same_run(self._run_head(run), seen):
                return False
            self._runs.raise_fence(stem, Fence(run.run_id, run.fence, True, run.head.created, departure))
            self._runs.clear(stem, run.incarnation)
        self._bell.ring()
        return True

    def _arriving(self, stem: str, token: str) -> Arrival | None:
        fence = self._runs.fence(stem)
        found = None if fence is None else fence.arrival
        return found if found is not None and found.token == token else None

    # ---- staged journals, which may be shorter than anybody thinks

    def _place(self, name: str, seq: int) -> int | None:
        """The byte at which a record begins, or will; None when those before it are not there."""
        known = self._places.get((name, seq))
        size = self._files.size(name) or 0
        if known is not None and (known == size or (known < size and self._is_there(name, known, seq))):
            return known
        byte, number = 0, 0
        for part in self._parts(name, 0) if seq else ():
            at = -1
            while number < seq and (at := part.find(b"\n", at + 1)) >= 0:
                number += 1
            if number == seq:
                byte += at + 1
                break
            byte += len(part)
        if number < seq:
            return None
        self._remember(name, seq, byte)
        return byte

    def _is_there(self, name: str, byte: int, seq: int) -> bool:
        line = next(iter(self._parts(name, byte)), b"").partition(b"\n")[0]
        return first_broken([line], seq) is None

    def _lines(self, name: str, seq: int, limit: int) -> list[bytes]:
        """Whole lines of a staged journal."""
        byte = self._place(name, seq)
        if byte is None:
            return []
        lines, rest = list[bytes](), b""
        for part in self._parts(name, byte):
            *whole, rest = (rest + part).split(b"\n") if b"\n" in part else [rest + part]
            lines += whole
            if len(lines) >= limit:
                break
        lines = lines[:limit]
        self._remember(name, seq + len(lines), byte + sum(len(line) + 1 for line in lines))
        return lines

    def _remember(self, name: str, seq: int, byte: int) -> None:
        self._places[name, seq] = byte
        if len(self._places) > _PLACES:
            self._places.popitem(last=False)

    def _parts(self, name: str, byte: int) -> Iterator[bytes]:
        if not self._files.size(name):
            return
        with self._files.reading(name) as fd:
            os.lseek(fd, byte, os.SEEK_SET)
            while part := os.read(fd, _CHUNK):
                yield part
