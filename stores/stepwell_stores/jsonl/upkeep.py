"""The upkeep of the store of plain files; see the port. Looks at every run, as lists do."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from stepwell.store import ClosedKey, Head, RunHead, Status, StoreSize

from ..rules import closed_page, shown_status
from .access import Access
from .files import Directory
from .heads import Run
from .index import Index
from .rewrite import rewrite
from .runs import Runs, journal

__all__ = ["JsonlUpkeep"]


class JsonlUpkeep:
    """Which runs are closed, and how large their files are."""

    if TYPE_CHECKING:  # what the store itself has
        _files: Directory
        _runs: Runs
        _access: Access
        _index: Index
        _run_head: Callable[[Run], RunHead]

    def closed(
        self,
        *,
        after: ClosedKey | None = None,
        before: ClosedKey | None = None,
        newest_first: bool = False,
        limit: int,
    ) -> list[RunHead]:
        """A page of closed runs; see the port."""
        runs = (run for run in self._index.all(skip_damaged=True) if run.closed)
        return closed_page(map(self._run_head, runs), after, before, newest_first, limit)

    def size(self) -> StoreSize:
        """How large it is; see the port. `bytes` is the sum of all files, those of leases and locks left out."""
        runs = self._index.all(skip_damaged=False)
        statuses: Counter[Status] = Counter(shown_status(self._run_head(run)) for run in runs)
        events = sum(run.seq for run in runs) + sum(self._earlier(run) for run in runs if run.incarnation)
        size = 0
        for name in self._access.names():
            if not name.startswith("."):
                with contextlib.suppress(OSError):  # it has just been removed
                    size += self._files.size(name) or 0
        return StoreSize(dict(statuses), events, size)

    def _earlier(self, run: Run) -> int:
        """How many records a run has in incarnations before the current one."""
        with self._access.opened(run.run_id, writing=False) as (stem, now):
            newest = 0 if now is None else now.incarnation
            return sum(self._runs.count(journal(stem, number)) for number in range(newest))

    def vacuum(self) -> int:
        """A file that is removed takes no space."""
        self._access.check_open()
        return 0

    def rewrite(
        self,
        run_id: str,
        incarnation: int,
        from_seq: int,
        old: Sequence[bytes],
        new: Sequence[bytes],
        *,
        head: tuple[Head, Head] | None = None,
    ) -> bool:
        """Put other records in place of these; see `Rewritable`. Writes the whole journal anew."""
        with self._access.opened(run_id) as (_, run):
            return run is not None and rewrite(self._files, self._runs, run, incarnation, from_seq, old, new, head)
