"""Group commit: writes of several threads in one transaction, each acknowledged after it.

Who comes while nobody writes leads: it writes what waits, its own and that of the others, and hands the lead to the
first who came meanwhile. So a lone thread pays nothing, and many share the cost of one sync. Nobody waits for others to
come. Source: D. DeWitt et al., "Implementation Techniques for Main Memory Database Systems" (SIGMOD 1984), section 5.2.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

from stepwell.errors import StoreError

__all__ = ["GroupCommit"]

D = TypeVar("D")
T = TypeVar("T")

_LARGEST = 128
"""Writes in one transaction, at most: who came first is not to wait for ever."""


class _Write(Generic[D]):
    """A write of one thread, and what came of it."""

    turn: threading.Lock | None = None  # held until it is done or to lead; None when it led from the start
    leads = False  # whether it is its thread's turn to lead
    group: list[_Write[D]] = []  # noqa: RUF012 - what it leads, replaced and never changed
    abandoned = False  # its thread was interrupted while it waited
    done = False
    result: Any = None
    error: BaseException | None = None

    def __init__(self, work: Callable[[D], Any]) -> None:
        self.work = work

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
        self.refuse_nested()
        write: _Write[D] = _Write(work)
        try:
            with self._lock:
                if self._led:
                    write.turn = threading.Lock()
                    write.turn.acquire()
                    self._waiting.append(write)
                else:
                    self._led = write.leads = True
            if write.turn is None:  # and nobody waits, or the lead would have been passed on
                self._leader = threading.get_ident()
                return self._transact(work)  # type: ignore[no-any-return]
            write.turn.acquire()
            if not write.done:
                self._lead(write)
        finally:
            if write.leads or not write.done:
                try:
                    self._leave(write)
                except BaseException:  # Ctrl-C, before it had begun
                    self._leave(write)
                    raise
        if write.error is not None:
            raise write.error
        return write.result  # type: ignore[no-any-return]

    def refuse_nested(self) -> None:
        """Raise StoreError when this thread is in the midst of a write already."""
        if self._leader == threading.get_ident():
            raise StoreError("a write was begun in the midst of another one, by a signal handler perhaps; do it later")

    def _lead(self, own: _Write[D]) -> None:
        """Write what waits; the first of it is this thread's own."""
        with self._lock:
            own.group, self._waiting = self._waiting[:_LARGEST], self._waiting[_LARGEST:]
        self._leader = threading.get_ident()
        self._write(own.group)
        self._leave(own)

    def _leave(self, own: _Write[D]) -> None:
        """A thread goes: those whose writes it did are told, and the lead must not stay with it or come to it.

        When it was interrupted, those whose writes it did not do go on without it. It may be interrupted itself, and is
        called again then: what is done stays done.
        """
        with self._lock:
            own.abandoned = not own.done
            while own.group:
                write = own.group[-1]
                if write.done and write is not own:
                    _release(write)
                elif write is not own and write not in self._waiting:
                    self._waiting.insert(0, write)
                own.group.pop()
            if own.leads:
                self._pass_on(own)
            elif own in self._waiting:
                self._waiting.remove(own)

    def _pass_on(self, own: _Write[D]) -> None:
        """Have the first who still waits lead after `own`. The lock is held."""
        self._leader = 0
        if self._waiting:
            self._waiting = [write for write in self._waiting if not write.abandoned]
        if not self._waiting:
            self._led = own.leads = False
            return
        follower = self._waiting[0]
        turn = follower.turn
        assert turn is not None  # or it would lead
        follower.leads, own.leads = True, False
        turn.release()  # no call comes between: a signal that is handled there would leave nobody in the lead

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


def _release(write: _Write[Any]) -> None:
    """Wake the thread of a write, which waits for nothing else; twice is once."""
    if write.turn is not None:
        with suppress(RuntimeError):
            write.turn.release()


def _copied(error: StoreError) -> StoreError:
    """An error of its own for each thread, or they would share a traceback that grows."""
    again = copy.copy(error)
    again.__cause__ = error.__cause__
    return again
