"""Whether the owner of a lease still lives, told by the kernel and not by process ids; and forks.

A process id says nothing: it is reused, another container has its own, and a killed child that nobody reaps still
answers. A file lock ends with the process that holds it, whatever killed it, and at no other time. So each store that
takes leases holds the flock of a small file of its own and writes that file's id beside its leases. A lease whose file
is gone or free is dead, before its ttl is over. A *stopped* process keeps its lock, and then only the ttl decides.

Where there is no `fcntl`, ids are None and only the ttl decides.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import weakref

from .filelock import FLAGS, fcntl, make_private


class ForkAware:
    """Something with locks or handles that must not be shared with a forked child."""

    def before_fork(self) -> None:
        """Called in the parent, by the thread that forks: come to rest."""

    def after_fork_in_parent(self) -> None:
        """Called in the parent: go on."""

    def after_fork_in_child(self) -> None:
        """Called in the child, where no other thread runs: drop what was inherited, make new locks."""


_watched: weakref.WeakSet[ForkAware] = weakref.WeakSet()
_resting: list[ForkAware] = []


def watch_forks(thing: ForkAware) -> None:
    """Have the methods of `thing` called at every fork from now on."""
    _watched.add(thing)


def _before_fork() -> None:
    _resting[:] = _watched
    for thing in _resting:
        thing.before_fork()


def _after_fork_in_parent() -> None:
    things = _resting[:]
    _resting.clear()
    for thing in reversed(things):
        thing.after_fork_in_parent()


def _after_fork_in_child() -> None:
    things = _resting[:]
    _resting.clear()
    for thing in things:
        thing.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


class Owners(ForkAware):
    """The directory of owner locks beside a store: this store's own lock, and a look at the others'.

    Args:
        directory: made, with mode 0700, when the first lease is taken; its parent must exist.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._beginning = threading.Lock()
        self._id: str | None = None
        self._fd = -1
        self._finalizer: weakref.finalize[[str, int, int], Owners] | None = None
        watch_forks(self)

    def own(self) -> str | None:
        """The id to be kept with a lease; takes the lock at the first call. None where it can't: the ttl decides."""
        if self._id is None and fcntl is not None:
            with self._beginning, contextlib.suppress(OSError):
                self._begin()
        return self._id

    def alive(self, owner: str | None) -> bool:
        """Whether the owner with this id still lives. True for None: nobody can tell, the ttl decides."""
        if owner is None or owner == self._id or fcntl is None:
            return True
        return not _gone(os.path.join(self._directory, f"{owner}.lock"))

    def close(self) -> None:
        """Give the own lock up: leases taken under it are dead at once."""
        if self._finalizer is not None:
            self._finalizer()
        self._forget()

    def after_fork_in_child(self) -> None:
        """Close the inherited descriptor: as long as one copy is open, the parent would seem alive."""
        if self._finalizer is not None:
            self._finalizer.detach()
            with contextlib.suppress(OSError):
                os.close(self._fd)
        self._beginning = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._id, self._fd, self._finalizer = None, -1, None

    def _begin(self) -> None:
        if self._id is not None:
            return  # another thread was faster
        make_private(self._directory)
        for name in os.listdir(self._directory):
            if name.endswith(".lock"):
                _gone(os.path.join(self._directory, name))
        for _ in range(3):
            if self._id is None:
                self._take()

    def _take(self) -> None:
        name = secrets.token_hex(8)
        path = os.path.join(self._directory, f"{name}.lock")
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | FLAGS, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A sweeper may have seen the file before its lock and removed it; then it proves nothing.
            os.stat(path)
        except OSError:
            os.close(fd)
            return
        self._id, self._fd = name, fd
        self._finalizer = weakref.finalize(self, _drop, path, fd, os.getpid())


def _gone(path: str) -> bool:
    """Whether nobody holds the lock at `path`; if so, the file is removed."""
    try:
        fd = os.open(path, os.O_RDONLY | FLAGS)
    except FileNotFoundError:
        return True
    except OSError:
        return False  # can't be told, so the ttl decides
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with contextlib.suppress(OSError):
            os.unlink(path)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _drop(path: str, fd: int, pid: int) -> None:
    if os.getpid() == pid:
        with contextlib.suppress(OSError):
            os.unlink(path)
        with contextlib.suppress(OSError):
            os.close(fd)
