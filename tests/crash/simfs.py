"""A file system in memory that knows what is durable, put in place of the calls of `os` that the JSONL store makes.

A `Computer` has a disk (`simdisk`) and processes with open files and locks. Calls that change something are its
*steps*. Before each step it tells `watch`, so that a harness can keep a photo of the disk and cut the power there
later; and it can make a step fail, or be the last one of its process.

Only paths below `/simfs` and descriptors from a million on are the model's. Everything else goes where it always went.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import secrets
import stat
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeAlias

from attrs import define, field, frozen
from tests.crash.simdisk import ROOT, ROOT_NODE, Disk, File, Folder

__all__ = ["Computer", "Fault", "Killed", "Watch", "Write"]

FIRST_FD = 1_000_000
_DIRECTORY, _REGULAR = stat.S_IFDIR | 0o700, stat.S_IFREG | 0o600
_PIDS = itertools.count(1_000_000)
"""Never the same twice, so that a store of an older computer can't take itself for one of this."""

Write: TypeAlias = tuple[int, int, bytes]
"""A write to come: node, offset, bytes."""

Watch: TypeAlias = Callable[[str, str, Write | None], None]
"""Told before each step: the call, the file's name, what is to be written."""


class Killed(BaseException):
    """The process is gone. Nothing of it runs any more but what unwinds its stack here."""


@frozen
class Fault:
    """What happens at a step.

    Attributes:
        kind: an error that the call ends with; `short`: a write takes fewer bytes; `kill`: the process dies.
        part: how much of a write is done before that.
    """

    kind: Literal["EIO", "ENOSPC", "short", "kill"]
    part: float = 0.0


@define
class Handle:
    """An open file."""

    node: int
    name: str
    pid: int
    append: bool
    at: int = 0


@define
class Computer:
    """Runs simulated processes on a disk.

    Attributes:
        disk: what is on it and in the page cache.
        pid: the process that runs now.
        counts: how many steps of each call there were.
        watch: told before each step.
        faults: by call and by how many such steps come before, such as `("write", 3)`.
        met: the faults that came about, such as `EIO at write`.
    """

    disk: Disk = field(factory=Disk)
    pid: int = 1
    counts: dict[str, int] = field(factory=dict)
    watch: Watch | None = None
    faults: dict[tuple[str, int], Fault] = field(factory=dict)
    met: list[str] = field(factory=list)
    _open: dict[int, Handle] = field(factory=dict)
    _locks: dict[int, int] = field(factory=dict)
    _folders: dict[str, int] = field(factory=dict)
    _newest_fd: int = FIRST_FD
    _dead: set[int] = field(factory=set)
    _tokens: int = 0

    def boot(self, disk: Disk, *, watch: Watch | None = None) -> None:
        """Begin anew with this disk, which is ours from now on: no process lives, nothing is open."""
        self.disk = disk
        self._open, self._locks, self._folders = {}, {}, {}
        self.counts, self.watch, self.faults = {}, watch, {}
        self.begin_process()

    def begin_process(self) -> int:
        """Start a process, and let it run."""
        self.pid = next(_PIDS)
        return self.pid

    def kill(self, pid: int) -> None:
        """End a process: its files are closed and its locks are free."""
        self._dead.add(pid)
        for fd in [fd for fd, handle in self._open.items() if handle.pid == pid]:
            self.close(fd)

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Put the model in place of the real calls."""
        places = [(os, name) for name in (*_BY_PATH, *_BY_FD)] + [(fcntl, "flock"), (fcntl, "fcntl")]
        kept = [(where, name, getattr(where, name)) for where, name in places]
        kept += [(os, "getpid", os.getpid), (secrets, "token_hex", secrets.token_hex)]
        try:
            for name in _BY_PATH:
                setattr(os, name, _by_path(getattr(os, name), getattr(self, name)))
            for name in _BY_FD:
                setattr(os, name, _by_fd(getattr(os, name), getattr(self, name)))
            fcntl.flock = _by_fd(fcntl.flock, self.flock)
            fcntl.fcntl = _by_fd(fcntl.fcntl, self.fcntl)
            os.getpid = lambda: self.pid
            secrets.token_hex = self._token
            yield
        finally:
            for where, name, real in kept:
                setattr(where, name, real)

    def _token(self, nbytes: int | None = None) -> str:
        """No two alike, and the same in every run."""
        self._tokens += 1
        return f"{self._tokens:0{2 * (nbytes or 8)}x}"

    # ---- steps

    def _step(self, call: str, name: str, write: Write | None = None) -> Fault | None:
        if self.pid in self._dead:
            raise Killed
        if self.watch is not None:
            self.watch(call, name, write)
        if not self.faults:
            return None
        count = self.counts[call] = self.counts.get(call, -1) + 1
        fault = self.faults.get((call, count))
        if fault is None or (fault.kind == "short" and call != "write"):
            return None
        self.met.append(f"{fault.kind} at {call}")
        if call not in ("write", "fsync"):
            self._fail(fault, name)
        return fault

    def _fail(self, fault: Fault, name: str) -> None:
        if fault.kind == "kill":
            self.kill(self.pid)
            raise Killed
        number = errno.EIO if fault.kind == "EIO" else errno.ENOSPC
        raise OSError(number, os.strerror(number), name)

    def _file(self, node: int) -> File:
        found = self.disk.nodes[node]
        if isinstance(found, Folder):
            raise IsADirectoryError(errno.EISDIR, "Is a directory")
        return found

    def _find(self, path: str) -> int | None:
        """The node at a path, None when there is none."""
        above, _, name = path.rpartition("/")
        folder = self.disk.nodes.get(self._folders.get(above, 0))
        if folder is None:
            if path == ROOT:
                return ROOT_NODE
            number = self._find(above)
            if number is None:
                return None
            self._folders[above] = number  # there is no rmdir
            folder = self.disk.nodes[number]
        return folder.names.get(name) if type(folder) is Folder else None

    def _parent(self, path: str) -> tuple[int, Folder, str]:
        """Where a name lies: its directory's node, the directory, the name."""
        above, _, name = path.rpartition("/")
        number = self._node(above)
        folder = self.disk.nodes[number]
        if isinstance(folder, File):
            raise NotADirectoryError(errno.ENOTDIR, "Not a directory", path)
        return number, folder, name

    def _node(self, path: str) -> int:
        number = self._find(path)
        if number is None:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        return number

    # ---- calls that take a path

    def open(self, path: str, flags: int, mode: int = 0o777, **_: Any) -> int:
        number = self._find(path) if flags & os.O_CREAT else self._node(path)
        if number is None:
            above, _folder, name = self._parent(path)
            self._step("create", path)
            number = self.disk.add(File())
            self._change(above, (name, number))
        elif flags & os.O_EXCL and flags & os.O_CREAT:
            raise FileExistsError(errno.EEXIST, "File exists", path)
        elif flags & os.O_TRUNC:
            self._step("truncate", path)
            self.disk.nodes[number] = self._file(number).truncated(0)
        self._newest_fd += 1
        self._open[self._newest_fd] = Handle(number, path, self.pid, bool(flags & os.O_APPEND))
        return self._newest_fd

    def _change(self, folder: int, *change: tuple[str, int | None]) -> None:
        node = self.disk.nodes[folder]
        assert isinstance(node, Folder)
        self.disk.nodes[folder] = node.changed(*change)

    def mkdir(self, path: str, mode: int = 0o777, **_: Any) -> None:
        above, folder, name = self._parent(path)
        if name in folder.names:
            raise FileExistsError(errno.EEXIST, "File exists", path)
        self._step("mkdir", path)
        self._change(above, (name, self.disk.add(Folder())))

    def unlink(self, path: str, **_: Any) -> None:
        above, folder, name = self._parent(path)
        if name not in folder.names:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        self._step("unlink", path)
        self._change(above, (name, None))

    def replace(self, src: str, dst: str, **_: Any) -> None:
        above, _folder, old = self._parent(src)
        beside, _folder, new = self._parent(dst)
        assert above == beside, "the model renames within a directory only"
        number = self._node(src)
        self._step("rename", dst)
        self._change(above, (old, None), (new, number))

    def listdir(self, path: str) -> list[str]:
        folder = self.disk.nodes[self._node(path)]
        if isinstance(folder, File):
            raise NotADirectoryError(errno.ENOTDIR, "Not a directory", path)
        return list(folder.names)

    def stat(self, path: str, **_: Any) -> os.stat_result:
        return self._stat(self._node(path))

    def _stat(self, number: int) -> os.stat_result:
        node = self.disk.nodes[number]
        if isinstance(node, Folder):
            return os.stat_result((_DIRECTORY, number, 1, 2, 0, 0, 0, 0, 0, 0))
        data = node.versions[-1]
        changed = {"st_ctime_ns": zlib.crc32(data) + 1}  # long ago, and another time for other bytes
        return os.stat_result((_REGULAR, number, 1, 1, 0, 0, len(data), 0, 0, 0), changed)

    def access(self, path: str, mode: int, **_: Any) -> bool:
        return self._find(path) is not None

    def chmod(self, path: str, mode: int, **_: Any) -> None:
        self._node(path)

    lstat, rename, remove = stat, replace, unlink

    # ---- calls that take a descriptor

    def _handle(self, fd: int) -> Handle:
        handle = self._open.get(fd)
        if handle is None:
            if self.pid in self._dead:
                raise Killed
            raise OSError(errno.EBADF, "Bad file descriptor")
        return handle

    def close(self, fd: int) -> None:
        handle = self._handle(fd)
        del self._open[fd]
        if self._locks.get(handle.node) == fd:
            del self._locks[handle.node]

    def read(self, fd: int, length: int) -> bytes:
        handle = self._handle(fd)
        data = self._file(handle.node).versions[-1][handle.at : handle.at + length]
        handle.at += len(data)
        return data

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        return self._file(self._handle(fd).node).versions[-1][offset : offset + length]

    def write(self, fd: int, data: bytes) -> int:
        handle = self._handle(fd)
        handle.at, done = self._write(handle, self._place(handle, handle.at), bytes(data))
        return done

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        handle = self._handle(fd)
        return self._write(handle, self._place(handle, offset), bytes(data))[1]

    def _place(self, handle: Handle, at: int) -> int:
        """Where a write goes. On Linux also `pwrite` appends to a file that was opened with O_APPEND."""
        return len(self._file(handle.node).versions[-1]) if handle.append else at

    def _write(self, handle: Handle, at: int, data: bytes) -> tuple[int, int]:
        fault = self._step("write", handle.name, (handle.node, at, data))
        if fault is not None:
            data = data[: max(int(fault.part * len(data)), fault.kind == "short")]
        if data:
            self.disk.nodes[handle.node] = self._file(handle.node).written(at, data)
        if fault is not None and fault.kind != "short":
            self._fail(fault, handle.name)
        return at + len(data), len(data)

    def ftruncate(self, fd: int, length: int) -> None:
        handle = self._handle(fd)
        self._step("truncate", handle.name)
        self.disk.nodes[handle.node] = self._file(handle.node).truncated(length)

    def lseek(self, fd: int, position: int, whence: int) -> int:
        handle = self._handle(fd)
        base = {os.SEEK_SET: 0, os.SEEK_CUR: handle.at, os.SEEK_END: len(self._file(handle.node).data)}[whence]
        handle.at = base + position
        return handle.at

    def fsync(self, fd: int) -> None:
        handle = self._handle(fd)
        fault = self._step("fsync", handle.name)
        node = self.disk.nodes[handle.node]
        if fault is None:
            self.disk.nodes[handle.node] = node.synced()
            return
        if fault.kind != "kill" and isinstance(node, File):
            self.disk.nodes[handle.node] = node.failed()
        self._fail(fault, handle.name)

    def fstat(self, fd: int) -> os.stat_result:
        return self._stat(self._handle(fd).node)

    def fchmod(self, fd: int, mode: int) -> None:
        self._handle(fd)

    fdatasync = fsync

    def flock(self, fd: int, operation: int) -> None:
        node = self._handle(fd).node
        holder = self._locks.get(node)
        if operation & fcntl.LOCK_UN:
            if holder == fd:
                del self._locks[node]
        elif holder in (None, fd):
            self._locks[node] = fd
        else:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    def fcntl(self, fd: int, command: int, *_: Any) -> int:
        """Only macOS asks for more than `flock`: for a sync that empties the drive's cache."""
        assert command == getattr(fcntl, "F_FULLFSYNC", None)
        self.fsync(fd)
        return 0


_BY_PATH = ["access", "chmod", "listdir", "lstat", "mkdir", "open", "remove", "rename", "replace", "stat", "unlink"]
_BY_FD = ["close", "fchmod", "fdatasync", "fstat", "fsync", "ftruncate", "lseek", "pread", "pwrite", "read", "write"]


def _by_path(real: Callable[..., Any], model: Callable[..., Any]) -> Callable[..., Any]:
    def call(path: Any, *args: Any, **how: Any) -> Any:
        if type(path) is str and path.startswith(ROOT):
            return model(path, *args, **how)
        return real(path, *args, **how)

    return call


def _by_fd(real: Callable[..., Any], model: Callable[..., Any]) -> Callable[..., Any]:
    def call(fd: Any, *args: Any) -> Any:
        if type(fd) is int and fd >= FIRST_FD:
            return model(fd, *args)
        return real(fd, *args)

    return call
