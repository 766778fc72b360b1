"""Small file systems of a harness's own, to be filled up, made read-only, or cut off from their power.

They are mounted in a mount namespace of the process, so nobody else sees them, they can't collide with those of another
test, and the kernel takes them away when the process ends, however it ends. The images lie in a file system in memory
that goes the same way. All of it needs root; what is lacking is said as a `Lack`.

The power cut is the ioctl that the file systems' own test suite (xfstests) uses: at once nothing more gets to the
device, the journal's log included, and what was only in the page cache is gone after the next mount.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self, TypeAlias

from attrs import define, field, frozen

__all__ = [
    "FileSystem",
    "Image",
    "Lack",
    "LackError",
    "die_with_parent",
    "lack",
    "mount_tmpfs",
    "place",
    "remount",
    "umount",
]

FileSystem: TypeAlias = Literal["ext4", "xfs"]

_PACKAGES = {"mkfs.ext4": "e2fsprogs", "mkfs.xfs": "xfsprogs", "mount": "mount", "umount": "mount"}
_SIZES = {"ext4": 64 << 20, "xfs": 300 << 20}  # the least that mkfs.xfs takes
_MAKE = {"ext4": ("mkfs.ext4", "-q", "-F"), "xfs": ("mkfs.xfs", "-q", "-f")}

_TRIES = 50

_CLONE_NEWNS = 0x20000
_MS_REC, _MS_PRIVATE = 1 << 14, 1 << 18
_PR_SET_PDEATHSIG = 1
_SIGKILL = 9
_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = 2


@frozen
class Lack:
    """What is not to be had here.

    Attributes:
        reason: for people.
        package: the one that brings it, of Debian; None when no package does.
    """

    reason: str
    package: str | None = None


class LackError(Exception):
    """Something can't be had. `lack` says what."""

    def __init__(self, lack: Lack) -> None:
        super().__init__(lack.reason)
        self.lack = lack


def lack(*commands: str) -> Lack | None:
    """What mounting, and these commands, need and this machine has not; None when all is there."""
    if sys.platform != "linux":
        return Lack(f"mounts in a namespace of their own are Linux's, and this is {sys.platform}")
    if os.geteuid() != 0:
        return Lack("only root may mount file systems")
    for command in ("mount", "umount", *commands):
        if _which(command) is None:
            return Lack(f"there is no command {command}", _PACKAGES[command])
    return None


@contextlib.contextmanager
def place() -> Iterator[Path]:
    """A folder in memory, in a mount namespace that is this process's from now on.

    Raises:
        LackError: mounts are not to be had.
    """
    missing = lack()
    if missing is not None:
        raise LackError(missing)
    libc = ctypes.CDLL(None, use_errno=True)
    private = ctypes.c_ulong(_MS_REC | _MS_PRIVATE)
    if libc.unshare(_CLONE_NEWNS) or libc.mount(b"none", b"/", None, private, None):
        raise LackError(Lack(f"no mount namespace of its own: {os.strerror(ctypes.get_errno())}"))
    base = Path(tempfile.mkdtemp(prefix="stepwell-disk-")).resolve()
    try:
        mount_tmpfs(base, "size=1g")
        yield base
    finally:
        umount(base, lazily=True)
        with contextlib.suppress(OSError):
            base.rmdir()


def mount_tmpfs(where: Path, options: str) -> None:
    """Mount a file system in memory.

    Raises:
        LackError: it was refused.
    """
    _run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(where))


def remount(where: Path, options: str) -> None:
    """Change the options of a mount.

    Raises:
        LackError: it was refused.
    """
    _run("mount", "-o", f"remount,{options}", str(where))


def umount(where: Path, *, lazily: bool = False) -> None:
    """Unmount; lazily: whatever is open, and no matter whether anything is mounted.

    Raises:
        LackError: it was refused.
    """
    try:
        _run("umount", *(["-l"] if lazily else []), str(where))
    except LackError:
        if not lazily:
            raise


def die_with_parent() -> None:
    """In a child: be killed when the process that forked it ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGKILL)


@define
class Image:
    """A file system on a loop device, which can lose its power.

    Args:
        base: a folder as `place` gives it.
        kind: of the file system.
        options: for each mount of it.
        size: in bytes; None is little.

    Raises:
        LackError: it can't be made or mounted.
    """

    base: Path
    kind: FileSystem
    options: str = "noatime"
    size: int | None = None
    mount: Path = field(init=False)
    _file: Path = field(init=False)
    _mounted: bool = False

    def __attrs_post_init__(self) -> None:
        self.mount, self._file = self.base / "disk", self.base / "image"

    def __enter__(self) -> Self:
        missing = lack(_MAKE[self.kind][0])
        if missing is not None:
            raise LackError(missing)
        self.mount.mkdir(exist_ok=True)
        with self._file.open("wb") as file:
            file.truncate(self.size or _SIZES[self.kind])
        try:
            _run(*_MAKE[self.kind], str(self._file))
            self.attach()
        except BaseException:
            self._file.unlink()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._mounted:
            umount(self.mount, lazily=True)
        self._file.unlink()

    def attach(self) -> None:
        """Mount it, which replays its journal after a cut."""
        for tries_left in range(_TRIES, 0, -1):
            try:
                _run("mount", "-t", self.kind, "-o", f"loop,{self.options}", str(self._file), str(self.mount))
                break
            except LackError as e:  # others take loop devices too, and one is free again in a moment
                if "loop" not in e.lack.reason or tries_left == 1:
                    raise
        self._mounted = True

    def cut(self) -> None:
        """Cut the power: from now on nothing gets to the device any more."""
        fd = os.open(self.mount, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        except OSError as e:
            raise LackError(Lack(f"{self.kind} can't be shut down here: {e.strerror}")) from e
        finally:
            os.close(fd)

    def sync(self) -> None:
        """Have everything that is there now on the device."""
        fd = os.open(self.mount, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if ctypes.CDLL(None, use_errno=True).syncfs(fd):
                raise LackError(Lack(f"{self.kind} can't be synced: {os.strerror(ctypes.get_errno())}"))
        finally:
            os.close(fd)

    def detach(self) -> None:
        """Unmount it; nobody may have a file of it open."""
        umount(self.mount)
        self._mounted = False


def _which(command: str) -> str | None:
    return shutil.which(command, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))


def _run(command: str, *args: str) -> None:
    """Run a command of the system's.

    Raises:
        LackError: it failed; with what it said.
    """
    program = _which(command)
    if program is None:
        raise LackError(Lack(f"there is no command {command}", _PACKAGES.get(command)))
    done = subprocess.run([program, *args], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        raise LackError(Lack(f"{command} failed: {said}"))
