"""An exclusive lock between processes that lasts for moments: the flock of a file, which ends with its holder."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["FLAGS", "FairLock", "FileLock", "fcntl", "make_private"]

FLAGS: int = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
"""With which every file is opened: not inherited by programs that are started, and no link."""

_BUSY = {errno.EAGAIN, errno.EACCES}
_PATIENCE = 30.0  # seconds
_EXCLUSIVE, _UNLOCK = (0, 0) if fcntl is None else (fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_UN)


def make_private(directory: str) -> None:
    """Make a directory that only its owner may enter, whatever the umask says, if there is none.

    Raises:
        OSError: it can't be made.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, 0o700)
        os.chmod(directory, 0o700)


class FileLock:
    """The flock of one file, which is made when it is first taken. The caller keeps its own threads apart.

    Args:
        path: its directory must exist then.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1

    def acquire(self, seconds: float) -> bool:
        """Take the lock; False when somebody else held it for so long.

        Raises:
            OSError: the file can't be opened or locked.
        """
        assert fcntl is not None  # the caller looked
        if self._fd < 0:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | FLAGS, 0o600)
        pause, deadline = 0.0001, 0.0
        while True:
            try:
                fcntl.flock(self._fd, _EXCLUSIVE)
                return True
            except OSError as e:
                if e.errno not in _BUSY:
                    raise
            now = time.monotonic()
            deadline = deadline or now + seconds
            if now > deadline:
                return False
            time.sleep(pause)
            pause = min(pause * 2, 0.002)

    def release(self) -> None:
        """Let go. Not by closing: a child that is just being made may have a copy of the descriptor."""
        assert fcntl is not None
        fcntl.flock(self._fd, _UNLOCK)

    def close(self) -> None:
        """Close the file. In a forked child this leaves the parent's lock alone."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1


class FairLock:
    """A lock between threads and processes in which nobody is passed by for ever: `PATH.turn` and `PATH.lock`.

    Who waits for the lock holds the turn, so a busy process that comes back at once has to queue behind it.

    Args:
        path: of the two files, without their endings; the directory must exist when the lock is first taken.
    """

    def __init__(self, path: str) -> None:
        self._threads = threading.Lock()
        self._turn, self._lock = FileLock(f"{path}.turn"), FileLock(f"{path}.lock")

    def acquire(self, seconds: float) -> bool:
        """Take it; False when another process held it, or the turn, for so long, or another thread did.

        Raises:
            OSError: a file can't be opened or locked.
        """
        if not self._threads.acquire(timeout=seconds):
            return False  # a thread that was interrupted while it took it or let go may hold it for ever
        got = False
        try:
            if self._turn.acquire(seconds):
                try:
                    got = self._lock.acquire(seconds)
                finally:
                    self._turn.release()
        finally:
            if not got:
                self._threads.release()
        return got

    def release(self) -> None:
        """Let go."""
        try:
            self._lock.release()
        finally:
            self._threads.release()

    def close(self) -> None:
        """Close the files, when the thread that holds the lock is done, or will never be."""
        held = self._threads.acquire(timeout=_PATIENCE)
        self._turn.close()
        self._lock.close()
        if held:
            self._threads.release()

    def after_fork_in_child(self) -> None:
        """Begin anew: an inherited descriptor shares its lock with the parent, whose threads aren't here."""
        self._turn.close()
        self._lock.close()
        self._threads = threading.Lock()
