"""What goes wrong with a disk while a process uses it, each with a beginning and an end, in that very process."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import itertools
import os
import random
import resource
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from attrs import define, field, frozen

from stepwell.store import Created

__all__ = ["KINDS", "AppendOnly", "Trouble", "make_append_only", "make_trouble"]

_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MNT_DETACH = 1, 32, 4096, 2
_GETFLAGS, _SETFLAGS, _APPEND_FL = 0x80086601, 0x40086602, 0x20


class Trouble(Protocol):
    """Something that a disk, or the system before it, does to a process."""

    def begin(self) -> None:
        """From now on."""
        ...

    def end(self) -> None:
        """No more; harmless when it has not begun."""
        ...


@frozen
class Full:
    """Only so many pages are left."""

    folder: Path
    pages: int

    def begin(self) -> None:
        left = os.statvfs(self.folder)
        size = (left.f_bfree - self.pages) * left.f_bsize
        if size > 0:
            with (self.folder / "ballast").open("wb") as ballast:
                os.posix_fallocate(ballast.fileno(), 0, size)

    def end(self) -> None:
        (self.folder / "ballast").unlink(missing_ok=True)


@frozen
class NoInodes:
    """Only so many files can be made."""

    folder: Path
    files: int

    def begin(self) -> None:
        ballast = self.folder / "ballast"
        ballast.mkdir()
        for number in range(os.statvfs(self.folder).f_ffree - self.files):
            (ballast / str(number)).touch()

    def end(self) -> None:
        shutil.rmtree(self.folder / "ballast", ignore_errors=True)


@frozen
class Limit:
    """A limit of the process's: the size of each file (what goes beyond it is written in part), or open files.

    Attributes:
        what: RLIMIT_FSIZE or RLIMIT_NOFILE.
        value: in bytes, or in files that can be opened besides those that are open when it begins.
    """

    what: int
    value: int

    def begin(self) -> None:
        value = self.value
        if self.what == resource.RLIMIT_NOFILE:
            taken = {int(path.name) for path in Path("/proc/self/fd").iterdir()}
            free = (number for number in itertools.count() if number not in taken)
            value = next(itertools.islice(free, value, None))  # none from here on are given
        resource.setrlimit(self.what, (value, resource.getrlimit(self.what)[1]))

    def end(self) -> None:
        most = resource.getrlimit(self.what)[1]
        resource.setrlimit(self.what, (most, most))


@define
class ReadOnly:
    """Nothing can be opened for writing any more: the folder is mounted once more over itself, read-only."""

    folder: Path
    _begun: bool = False

    def begin(self) -> None:
        self._begun = True
        here = os.fsencode(self.folder)
        _mount(here, here, _MS_BIND)
        _mount(None, here, _MS_BIND | _MS_REMOUNT | _MS_RDONLY)

    def end(self) -> None:
        if self._begun:
            ctypes.CDLL(None).umount2(os.fsencode(self.folder), _MNT_DETACH)


@define
class Short:
    """The kernel takes fewer bytes than it is given.

    Attributes:
        chance: how many.
        tell: is called for each such write.
    """

    chance: random.Random
    tell: Callable[[], None] = lambda: None
    _real: Callable[[int, Any], int] = field(factory=lambda: os.write)

    def begin(self) -> None:
        def write(fd: int, data: Any) -> int:
            size = self.chance.randint(1, max(1, len(data)))
            if size < len(data):
                self.tell()
            return self._real(fd, bytes(data)[:size])

        os.write = write

    def end(self) -> None:
        os.write = self._real


def _mount(source: bytes | None, target: bytes, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source, target, None, ctypes.c_ulong(flags), None):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fsdecode(target))


_Maker: TypeAlias = Callable[[str, Path, random.Random], Trouble]


def _full(store: str, folder: Path, chance: random.Random) -> Trouble:
    most = chance.choice((4, 16, 40) if store == "jsonl" else (8, 60, 200))
    return Full(folder, chance.randint(0, most))


def _file_size(store: str, _folder: Path, chance: random.Random) -> Trouble:
    most = chance.choice((200, 2000, 8000) if store == "jsonl" else (5000, 100_000, 400_000))
    return Limit(resource.RLIMIT_FSIZE, chance.randint(0, most))


KINDS: dict[str, _Maker] = {
    "full": _full,
    "inodes": lambda store, folder, chance: NoInodes(folder, chance.randint(0, 16 if store == "jsonl" else 8)),
    "file size": _file_size,
    "open files": lambda _store, _folder, chance: Limit(resource.RLIMIT_NOFILE, chance.randint(0, 10)),
    "read-only": lambda _store, folder, _chance: ReadOnly(folder),
    "short writes": lambda _store, _folder, chance: Short(chance),
}
"""Makers of troubles, by name: for a store, in a folder, how bad it is by chance."""


def make_trouble(kind: str, store: str, folder: Path, chance: random.Random) -> Trouble:
    """A trouble of a kind, more or less bad."""
    return KINDS[kind](store, folder, chance)


# ---- files that can only be appended to


def make_append_only(path: Path, *, undo: bool = False) -> None:
    """Set the attribute (as `chattr +a`) by which the kernel refuses all but appends.

    Raises:
        OSError: the file system has no such attribute.
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        flags = struct.unpack("l", fcntl.ioctl(fd, _GETFLAGS, struct.pack("l", 0)))[0]
        fcntl.ioctl(fd, _SETFLAGS, struct.pack("l", flags & ~_APPEND_FL if undo else flags | _APPEND_FL))
    finally:
        os.close(fd)


@define
class AppendOnly:
    """A store of files that makes every journal append-only as soon as it is there.

    Attributes:
        inner: the store.
        folder: where its journals are.
        tell: is called for each of them that refuses to be overwritten.
    """

    inner: Any
    folder: Path
    tell: Callable[[], None]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def create(self, run_id: str, *args: Any, **how: Any) -> Any:
        made = self.inner.create(run_id, *args, **how)
        if isinstance(made, Created):
            for path in self.folder.glob(f"{run_id}.*.jsonl"):
                make_append_only(path)
                with contextlib.suppress(PermissionError):
                    os.close(os.open(path, os.O_WRONLY))
                    continue
                self.tell()
        return made
