"""Files of a run that stay open between two writes to it, so that an owner's append opens none.

What is kept is believed only under the run's lock, and after a look: each name still leads to the file that is open,
which can't be another one of the same number as long as it is open.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from ..liveness import ForkAware, watch_forks

__all__ = ["OpenFiles", "Opened"]

_MOST = 32
"""Runs whose files stay open: as many as one process drives at a time, as a rule."""


class Opened:
    """The open files of one run.

    Attributes:
        fds: descriptor, device and inode, by name.
        sizes: in bytes, by name, when they were looked at last.
        known: what the store knows of the run as it left it. None: nothing, and then the files are closed.
        head: the bytes of its head file.
        fence: what tells its fence file from others, None when there was none.
        fence_fd: holds that file open, so that the next one can't have its number; -1 when there was none.
    """

    __slots__ = ("fds", "fence", "fence_fd", "head", "known", "sizes")

    def __init__(self) -> None:
        self.fds: dict[str, tuple[int, int, int]] = {}
        self.sizes: dict[str, int] = {}
        self.known: Any = None
        self.head = b""
        self.fence: tuple[int, ...] | None = None
        self.fence_fd = -1

    def add(self, name: str, fd: int) -> None:
        """Keep a file open.

        Raises:
            OSError: it can't be kept; it was closed.
        """
        try:
            found = os.fstat(fd)
        except OSError:
            os.close(fd)
            raise
        self.fds[name] = (fd, found.st_dev, found.st_ino)

    def close(self) -> None:
        """Close all of them. What was written was synced where that matters, so an error has nothing to tell."""
        self.known = None
        fds = [fd for fd, _, _ in self.fds.values()]
        self.fds.clear()
        if self.fence_fd >= 0:
            fds.append(self.fence_fd)
            self.fence_fd = -1
        for fd in fds:
            with contextlib.suppress(OSError):
                os.close(fd)


class OpenFiles(ForkAware):
    """The open files of runs, by stem: of those whose lock is held, and of those that were written to last.

    Every call that names a run or a file of it needs that run's lock.

    Args:
        prefix: what comes before a name in its path.
        open_file: opens a name with flags, as `os.open`.
    """

    def __init__(self, prefix: str, open_file: Callable[[str, int], int]) -> None:
        self._prefix = prefix
        self._open = open_file
        self._closed = False
        self._used: dict[str, Opened] = {}
        self._begin()
        watch_forks(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._rested: OrderedDict[str, Opened] = OrderedDict()
        self._finalizer = weakref.finalize(self, _drop, self._rested, os.getpid())

    def recall(self, stem: str) -> Opened | None:
        """What was left open of a run's files, if they still are its files."""
        with self._lock:
            opened = self._rested.pop(stem, None)
        if opened is None:
            return None
        try:
            for name, (_, device, inode) in opened.fds.items():
                found = os.stat(self._prefix + name, follow_symlinks=False)
                if found.st_ino != inode or found.st_dev != device:
                    break
                opened.sizes[name] = found.st_size
            else:
                if self._look(f"{stem}.fence") == opened.fence:
                    self._used[stem] = opened
                    return opened
        except OSError:
            pass  # without what was kept the call finds out, and says so
        opened.close()
        return None

    def hold(self, name: str, flags: int) -> int:
        """A descriptor of a file that stays open with the others of its run.

        Raises:
            CorruptHistoryError, OSError: as whoever opens it says.
        """
        stem = name.partition(".")[0]
        opened = self._used.get(stem)
        if opened is None:
            opened = self._used[stem] = Opened()
        elif name in opened.fds:
            return opened.fds[name][0]
        opened.add(name, self._open(name, flags))
        return opened.fds[name][0]

    def used(self, stem: str) -> Opened | None:
        """What is open of a run's files."""
        return self._used.get(stem)

    def settle(self, stem: str, known: object, head: bytes) -> None:
        """Say what is known of a run whose files are open now, so that they stay so.

        Raises:
            CorruptHistoryError, OSError: the fence can't be looked at.
        """
        opened = self._used[stem]
        if opened.known is None:
            name = f"{stem}.fence"
            opened.fence = self._look(name)
            if opened.fence is not None:
                opened.fence_fd = self._open(name, os.O_RDONLY)
        opened.known, opened.head = known, head

    def _look(self, name: str) -> tuple[int, ...] | None:
        try:
            found = os.stat(self._prefix + name, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    def put_back(self, stem: str, keep: bool) -> None:
        """The run's lock is about to be let go: keep its files, or close them when nothing is known of the run."""
        opened = self._used.pop(stem, None)
        if opened is None:
            return
        if not keep or opened.known is None:
            opened.close()
            return
        with self._lock:
            over = opened if self._closed else None
            if over is None:
                self._rested[stem] = opened
                if len(self._rested) > _MOST:
                    over = self._rested.popitem(last=False)[1]
        if over is not None:
            over.close()

    def forget(self, stem: str) -> None:
        """Close what is open of a run's files."""
        opened = self._used.pop(stem, None)
        if opened is not None:
            opened.close()

    def clear(self) -> bool:
        """Close the files of all runs that nobody uses at the moment; whether there were any. Needs no lock."""
        with self._lock:
            rows = list(self._rested.values())
            self._rested.clear()
        for opened in rows:
            opened.close()
        return bool(rows)

    def close(self) -> None:
        """Close all files, and keep none any more. Needs no lock."""
        self._closed = True
        self.clear()

    def after_fork_in_child(self) -> None:
        """Close what was inherited; the files are opened anew when they are needed."""
        self._finalizer.detach()
        for opened in (*self._rested.values(), *self._used.values()):
            opened.close()
        self._used.clear()
        self._begin()


def _drop(rows: dict[str, Opened], pid: int) -> None:
    """Close what a store left open that was never closed itself; in a forked child they are others'."""
    if os.getpid() == pid:
        for opened in rows.values():
            opened.close()
