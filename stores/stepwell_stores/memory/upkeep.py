"""The upkeep of the store in memory; see the port."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from stepwell.store import ClosedKey, Head, RunHead, Status, StoreSize

from ..rules import closed_page, shown_status
from ..run_rows import RunRow

__all__ = ["MemoryUpkeep"]


class MemoryUpkeep:
    """Which runs are closed, and how large they are, under the store's one lock."""

    if TYPE_CHECKING:  # what the store itself has
        _changed: threading.Condition
        _check_open: Callable[[], None]
        _run_heads: Callable[[], Iterable[RunHead]]
        _histories: Callable[[], Iterable[list[bytes]]]
        _runs: dict[str, RunRow]

    def closed(
        self,
        *,
        after: ClosedKey | None = None,
        before: ClosedKey | None = None,
        newest_first: bool = False,
        limit: int,
    ) -> list[RunHead]:
        """A page of closed runs; see the port."""
        with self._changed:
            self._check_open()
            return closed_page(self._run_heads(), after, before, newest_first, limit)

    def size(self) -> StoreSize:
        """How large it is; see the port."""
        with self._changed:
            self._check_open()
            runs: Counter[Status] = Counter()
            for head in self._run_heads():
                runs[shown_status(head)] += 1
            histories = list(self._histories())
            events, size = sum(map(len, histories)), sum(len(line) for lines in histories for line in lines)
        return StoreSize(dict(runs), events, size)

    def vacuum(self) -> int:
        """What was removed takes no space."""
        with self._changed:
            self._check_open()
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
        """Put other records in place of these; see `Rewritable`."""
        with self._changed:
            self._check_open()
            run = self._runs.get(run_id)
            if run is None or not 0 <= incarnation < len(run.histories) or (head is not None and head[0] != run.head):
                return False
            lines, stop = run.histories[incarnation], from_seq + len(old)
            if lines[from_seq:stop] != list(old) or len(old) != len(new):
                return False
            lines[from_seq:stop] = new
            if head is not None:
                run.head = head[1]
            return True
