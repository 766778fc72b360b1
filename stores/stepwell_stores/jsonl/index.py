"""Where all runs of a directory stand, with a look at those that changed: who asks often reads little."""

from __future__ import annotations

import os
import re
import time

from stepwell.errors import CorruptHistoryError, StoreError

from .access import Access
from .files import Directory
from .runs import Run, Runs, journal

__all__ = ["Index"]

_JOURNAL = re.compile(r"([a-z0-9_%~-]+)\.([0-9]+)\.jsonl")
_UNSURE = 100_000_000  # nanoseconds after a change in which another one may get the same time; clocks tick in 10 ms
_SECOND = 1_000_000_000
_COARSE = 2_100_000_000  # the same where times have whole seconds, or two

Signs = tuple[int, ...]


class Index:
    """The heads of a directory, as they were read last.

    A head is believed without being read as long as its file, the fence and the journal are those that they were, by
    inode, size and the time of their last change. That time is coarse, so a file that was changed a moment ago is read
    again. Whoever writes on the strength of a head looks at it under the run's lock; this says which to look at.
    """

    def __init__(self, files: Directory, runs: Runs, access: Access) -> None:
        self._files = files
        self._runs = runs
        self._access = access
        self._names: list[str] = []
        self._newest: dict[str, int] = {}
        self._known: dict[str, tuple[Signs, Run]] = {}

    def all(self, *, skip_damaged: bool) -> list[Run]:
        """Every run.

        Args:
            skip_damaged: pass by what can't be read: reading or listing it tells. When nothing can, that is raised.
        """
        failure, found = None, list[Run]()
        any_read = False
        known = dict[str, tuple[Signs, Run]]()
        for stem, signs in self._signs():
            before = self._known.get(stem)
            if before is not None and signs is not None and before[0] == signs:
                known[stem] = before
                found.append(before[1])
                continue
            try:
                with self._access.locked(stem):
                    run = self._runs.load(stem, writing=False)
            except CorruptHistoryError:
                if not skip_damaged:
                    raise
                continue
            except StoreError as error:
                if not skip_damaged:
                    raise
                failure = error
                continue
            any_read = True
            if run is not None:
                found.append(run)
                if signs is not None:
                    known[stem] = (signs, run)
        if failure is not None and not any_read and not found:
            raise failure
        self._known = known  # another thread may have been faster; each row is true as long as its signs are
        return found

    def _signs(self) -> list[tuple[str, Signs | None]]:
        """What tells a change of each run that has a journal; None where nothing can."""
        self._access.check_open()
        names = self._access.names()
        if names != self._names:
            newest = dict[str, int]()
            for name in names:
                match = _JOURNAL.fullmatch(name) if name.endswith(".jsonl") else None
                if match is not None:
                    newest[match[1]] = max(newest.get(match[1], 0), int(match[2]))
            self._names, self._newest = names, newest
        if not self._files.local:
            return [(stem, None) for stem in sorted(self._newest)]
        present, now = set(names), time.time_ns()
        return [(stem, self._sign(stem, number, present, now)) for stem, number in sorted(self._newest.items())]

    def _sign(self, stem: str, number: int, present: set[str], now: int) -> Signs | None:
        signs = list[int]()
        for name in (f"{stem}.fence", f"{stem}.head.json", journal(stem, number)):
            if name not in present:
                signs.append(0)
                continue
            try:
                found = os.stat(self._files.file(name), follow_symlinks=False)
            except OSError:
                return None
            changed = found.st_ctime_ns
            if not changed or changed > now - (_UNSURE if changed % _SECOND else _COARSE):
                return None
            signs += (found.st_ino, found.st_size, changed)
        return tuple(signs)
