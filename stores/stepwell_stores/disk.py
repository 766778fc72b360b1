"""The disk, as both stores of files see it: whole writes, syncs, and what the system's errors mean.

Functions of `os` are looked up when they are called, so that a test can put faults in their place.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from stepwell.errors import StepwellError, StoreError, StoreMisconfiguredError, StoreUnavailableError

from .filelock import FLAGS, fcntl

__all__ = ["sync_directory", "sync_file", "translated", "write_all"]


def write_all(fd: int, data: bytes) -> None:
    """Write all bytes; the kernel may take fewer at a time."""
    done = os.write(fd, data)
    while done < len(data):
        done += os.write(fd, data[done:])


def sync_file(fd: int) -> None:
    """Make a file's bytes and size durable."""
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:  # pragma: no cover - macOS, where fsync leaves them in the drive's cache
        fcntl.fcntl(fd, full)
    else:
        os.fdatasync(fd)


def sync_directory(path: str) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | FLAGS)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP, errno.ENOTDIR, errno.EISDIR}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


_REMEDIES: dict[Callable[[str], StepwellError], str] = {
    StoreMisconfiguredError: "check who owns it, its permissions, and where it is",
    StoreUnavailableError: "make room and try again",
    StoreError: "check the disk",
}


def translated(path: str, cause: Exception) -> StepwellError:
    """The port's error for one of the system's."""
    number = cause.errno if isinstance(cause, OSError) else None
    make: Callable[[str], StepwellError] = StoreError
    if number in _FORBIDDEN:
        make = StoreMisconfiguredError
    elif number in _FULL:
        make = StoreUnavailableError
    where = getattr(cause, "filename", None) or path
    return make(f"{where}: {getattr(cause, 'strerror', None) or cause}; {_REMEDIES[make]}")
