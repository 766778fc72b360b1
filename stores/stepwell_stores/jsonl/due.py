"""Runs that are due, to be claimed one after the other: what one look found serves several claims."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable

from stepwell.errors import CorruptHistoryError, StoreError
from stepwell.store import Lease

from ..liveness import ForkAware, watch_forks

__all__ = ["Due"]

_SECONDS = 0.2
_SHARE = 5.0


class Due(ForkAware):
    """What was found due and not given to anybody yet, earliest first.

    It serves for a fifth of a second, or five times as long as the look took: so long a run that another process makes
    due may be passed by for one that was due later. When nothing is left, that is a reason to look again and no answer.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forget()
        watch_forks(self)

    def _forget(self) -> None:
        self._rows: list[tuple[int, str]] = []
        self._asked: tuple[int, frozenset[str]] = (0, frozenset())
        self._until = 0.0

    def claim(
        self,
        limit: int,
        asked: tuple[int, frozenset[str]],
        find: Callable[[], list[tuple[int, str]]],
        grant: Callable[[str], Lease | None],
    ) -> list[Lease]:
        """Lease up to `limit` runs, earliest due first. Damaged ones are passed by.

        Args:
            asked: the instant, and the fingerprints of the code, for which `find` finds what is due.
            find: gives due instants and run ids.
            grant: leases a run, if it still is due.

        Raises:
            StoreError: the last one met, when nothing was leased: what was must not be lost for it.
        """
        leases = list[Lease]()
        failure: StoreError | None = None
        looked = False
        while len(leases) < limit:
            run_id = self._take(*asked)
            try:
                if run_id is not None:
                    lease = grant(run_id)
                    if lease is not None:
                        leases.append(lease)
                elif looked:
                    break
                else:
                    looked = True
                    self._look(*asked, find)
            except CorruptHistoryError:
                continue
            except StoreError as error:
                failure = error
        if failure is not None and not leases:
            raise failure
        return leases

    def _look(self, now: int, fingerprints: frozenset[str], find: Callable[[], list[tuple[int, str]]]) -> None:
        began = time.monotonic()
        rows = find()
        heapq.heapify(rows)
        ended = time.monotonic()
        with self._lock:
            self._rows, self._asked = rows, (now, fingerprints)
            self._until = ended + max(_SECONDS, _SHARE * (ended - began))

    def _take(self, now: int, fingerprints: frozenset[str]) -> str | None:
        """The run that was due first, which no other thread is given; None: look again."""
        with self._lock:
            before, asked = self._asked
            if not self._rows or now < before or asked != fingerprints or time.monotonic() > self._until:
                return None
            return heapq.heappop(self._rows)[1]

    def add(self, due: int, run_id: str) -> None:
        """A write of this store made a run due that nobody holds: it has its place among those that were found."""
        with self._lock:
            if self._rows and due <= self._asked[0]:
                heapq.heappush(self._rows, (due, run_id))

    def after_fork_in_child(self) -> None:
        """Begin anew: the inherited lock may be held by a thread that isn't here."""
        self._lock = threading.Lock()
        self._forget()
