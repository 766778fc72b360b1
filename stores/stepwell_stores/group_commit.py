"""Group commit: writes of several threads in one transaction, each acknowledged after it.

Who comes while nobody writes leads: it writes what waits, its own and that of the others, and hands the lead to the
first who came meanwhile. So a lone thread pays nothing, and many share the cost of one sync. Nobody waits for others to
come. Source: D. DeWitt et al., "Implementation Techniques for Main Memory Database Systems" (SIGMOD 1984), section 5.2.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from stepwell.errors import StoreError

__all__ = ["GroupCommit"]

D = TypeVar("D")
T = TypeVar("T")

_LARGEST = 128
"""Writes in one transaction, at most: who came first is not to wait for ever."""


class _Write(Generic[D]):
    """A write of one thread, and what came of it."""

    __slots__ = ("abandoned", "done", "error", "leads", "result", "turn", "work")

    def __init__(self, work: Callable[[D], Any]) -> None:
        self.work = work
        self.turn: threading.Lock | None = None  # held until it is done or to lead
        self.leads = False  # whether it is its thread's turn to lead
        self.abandoned = False  # its thread was interrupted while it waited
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None

    def ended(self, result: Any, error: BaseException | None = None) -> None:
        """Take down what came of it."""
        self.result, self.error, self.done = result, error, True


class GroupCommit(Generic[D]):
    """Runs writes in transactions, those of waiting threads together.

    Args:
        transact: runs a function in a transaction and commits it; raises StoreError when it did not or may not have
            written, whatever the function was. Any other error is taken for the function's own.
    """

    def __init__(self, transact: Callable[[Callable[[D], Any]], Any]) -> None:
        self._transact = transact
        self.forget()

    def forget(self) -> None:
        """In a forked child: the threads that wait are the parent's."""
        self._lock = threading.Lock()
        self._waiting: list[_Write[D]] = []
        self._led = False
        self._leader = 0

    def run(self, work: Callable[[D], T]) -> T:
        """Run `work` in a transaction, perhaps with others, and give its result when that is committed.

        It is run once more when another one that shared its transaction failed.

        Raises:
            Exception: what `work` raises, and what `transact` does.
            StoreError: this thread is in the midst of a write already; nothing was written.
        """
        if self._leader == threading.get_ident():
            raise StoreError("a write was begun in the midst of another one, by a signal handler perhaps; do it later")
        write: _Write[D] = _Write(work)
        try:
            with self._lock:
                self._waiting.append(write)
                if self._led:
                    write.turn = threading.Lock()
                    write.turn.acquire()
                else:
                    self._led = write.leads = True
            if write.turn is not None:
                write.turn.acquire()
            if not write.done:
                self._lead(write)
        except BaseException:
            self._abandon(write)
            raise
        if write.error is not None:
            raise write.error
        result: T = write.result
        return result

    def _lead(self, own: _Write[D]) -> None:
        with self._lock:
            group, self._waiting = self._waiting[:_LARGEST], self._waiting[_LARGEST:]
            own.leads = True
        try:
            self._leader = threading.get_ident()
            self._write(group)
        finally:
            self._leader = 0
            others = [write for write in group if write is not own]
            with self._lock:
                # When this thread was interrupted, the others go on without it.
                self._waiting[:0] = [write for write in others if not write.done]
                own.leads = False
                self._pass_on()
            for write in others:
                if write.done and write.turn is not None:
                    write.turn.release()

    def _pass_on(self) -> None:
        """Have the first who still waits lead. The lock is held."""
        self._waiting = [write for write in self._waiting if not write.abandoned]
        self._led = bool(self._waiting)
        if self._waiting:
            follower = self._waiting[0]
            follower.leads = True
            if follower.turn is not None:
                follower.turn.release()

    def _abandon(self, write: _Write[D]) -> None:
        """The thread of a write was interrupted, and nobody waits for it any more: the lead must not come to it."""
        with self._lock:
            write.abandoned = True
            if write.leads:
                write.leads = False
                self._pass_on()
            elif write in self._waiting:
                self._waiting.remove(write)

    def _write(self, group: list[_Write[D]]) -> None:
        if len(group) > 1 and self._together(group):
            return
        for write in group:
            try:
                write.ended(self._transact(write.work))
            except Exception as error:  # noqa: BLE001 - it is raised in its own thread
                write.ended(None, error)

    def _together(self, group: list[_Write[D]]) -> bool:
        """Write all in one transaction; False when one of them was at fault, which tells when each is alone."""
        try:
            results = self._transact(lambda db: [write.work(db) for write in group])
        except StoreError as error:
            for write in group:
                write.ended(None, _copied(error))
        except Exception:  # noqa: BLE001 - it is met again
            return False
        else:
            for write, result in zip(group, results, strict=True):
                write.ended(result)
        return True


def _copied(error: StoreError) -> StoreError:
    """An error of its own for each thread, or they would share a traceback that grows."""
    again = copy.copy(error)
    again.__cause__ = error.__cause__
    return again
