"""Files of a directory: durable writes, and the short lock that makes them atomic between processes.

Only functions of `os` touch the disk, each looked up when it is called, so that a test can put faults in their place.
"""

from __future__ import annotations

import contextlib
import errno
import os
import zlib
from collections.abc import Callable, Iterator

from stepwell.errors import CorruptHistoryError, StoreMisconfiguredError, StoreUnavailableError

from ..disk import sync_directory, sync_file, translated, write_all
from ..filelock import FLAGS, FairLock, fcntl, make_private
from ..filesystems import is_network, kind_of, refuse_network
from ..liveness import ForkAware, watch_forks
from .open import OpenFiles

__all__ = ["Directory", "UnsyncedError", "WriteError"]

_STRIPES = 64
_BUSY_SECONDS = 5.0
_NO_MORE = {errno.EMFILE, errno.ENFILE}


class WriteError(Exception):
    """An append failed. `undone` is whether the file is, for certain, as long as it was before."""

    def __init__(self, cause: BaseException, *, undone: bool) -> None:
        super().__init__(str(cause))
        self.undone = undone


class UnsyncedError(Exception):
    """A new file may or may not be found under its name after a power cut."""


class _Locked:
    """The write lock of a run, held in a `with`; what is open of its files is kept at its end."""

    __slots__ = ("_files", "_lock", "_stem")

    def __init__(self, files: Directory, lock: FairLock, stem: str) -> None:
        self._files, self._lock, self._stem = files, lock, stem

    def __enter__(self) -> None:
        files = self._files
        files.prepare()
        try:
            got = self._lock.acquire(_BUSY_SECONDS)
        except OSError as e:
            if e.errno not in _NO_MORE or not files.kept.clear():
                raise
            got = self._lock.acquire(_BUSY_SECONDS)
        if not got:
            raise StoreUnavailableError(
                f"{files.path}: another process holds the write lock of {self._stem}; try again"
            )

    def __exit__(self, *_: object) -> None:
        try:
            self._files.kept.put_back(self._stem, self._files.local)
        finally:
            self._lock.release()


class Directory(ForkAware):
    """A directory that holds a store's files.

    Attributes:
        path: the directory's.
        kept: files that stay open between two writes.
        local: whether what `os.stat` tells of a file can be relied on, as on any file system of this machine.

    Args:
        path: absolute; made with mode 0700 at first use, its parent must exist.
        must_exist: refuse to make it.
        syncs: False leaves it to the system when bytes reach the disk.
        network: also on a network file system.
    """

    def __init__(self, path: str, *, must_exist: bool = False, syncs: bool = True, network: bool = False) -> None:
        self.path = path
        self._prefix = os.path.join(path, "")
        self._must_exist = must_exist
        self._syncs = syncs
        self._network = network
        self._ready = False
        self.local = False
        self.kept = OpenFiles(self._prefix, self._open)
        self._stripes = [FairLock(self.file(f".locks/{number:02x}")) for number in range(_STRIPES)]
        watch_forks(self)

    def file(self, name: str) -> str:
        """The path of a file."""
        return self._prefix + name

    def locked(self, stem: str) -> contextlib.AbstractContextManager[None]:
        """Hold the write lock of a run, against all threads and processes. Runs share 64 locks between them.

        Raises:
            StoreUnavailableError: somebody held it for five seconds.
        """
        return _Locked(self, self._stripes[zlib.crc32(stem.encode()) % _STRIPES], stem)

    def prepare(self) -> None:
        """See at first use that the directory can hold a store; make it when there is none.

        Raises:
            StoreMisconfiguredError: it can't; nothing was written.
        """
        if self._ready:
            return
        if fcntl is None:  # pragma: no cover - Windows
            raise StoreMisconfiguredError("a file: store needs flock, which this system lacks; use sqlite:///PATH")
        if not os.path.lexists(self.path):
            if self._must_exist:
                raise StoreMisconfiguredError(f"no store at {self.path}; check the path, or start a run to make one")
            if not self._network:
                refuse_network(os.path.dirname(self.path), "file:")
            self._make()
        elif not os.path.isdir(self.path):
            raise StoreMisconfiguredError(f"{self.path} is no directory; name one for the store's files")
        if not os.access(self.path, os.R_OK | os.W_OK | os.X_OK):
            raise StoreMisconfiguredError(f"no permission to write in {self.path}; run as its owner, or chmod it")
        if not self._network:
            refuse_network(self.path, "file:")
        if not os.path.isdir(self.file(".locks")):  # whoever made the directory may have died before its sync
            self.sync_names(os.path.dirname(self.path))
            make_private(self.file(".locks"))
        self.local = not (self._network and is_network(kind_of(self.path)))
        self._ready = True

    def prepare_reading(self) -> bool:
        """As `prepare`, for one who only reads; False where nothing can be written, and so nothing be locked."""
        reads = os.path.isdir(self.path) and os.access(self.path, os.R_OK | os.X_OK)
        if reads and not os.access(self.path, os.W_OK):
            return False
        self.prepare()
        return True

    def _make(self) -> None:
        parent = os.path.dirname(self.path)
        if not os.path.isdir(parent):
            raise StoreMisconfiguredError(f"there is no directory {parent} to make {self.path} in; mkdir -p {parent}")
        try:
            make_private(self.path)
        except OSError as e:
            raise translated(self.path, e) from e

    def close(self) -> None:
        """Close the lock files, when those who hold them are done."""
        for lock in self._stripes:
            lock.close()
        self.kept.close()

    def after_fork_in_child(self) -> None:
        """Open the lock files anew."""
        for lock in self._stripes:
            lock.after_fork_in_child()

    def read(self, name: str) -> bytes | None:
        """All bytes of a file, None when there is none."""
        try:
            return b"".join(self.parts(name))
        except FileNotFoundError:
            return None

    def parts(self, name: str) -> Iterator[bytes]:
        """The bytes of a file, in pieces.

        Raises:
            CorruptHistoryError: the file itself is the trouble.
            FileNotFoundError: there is none.
        """
        with self.reading(name) as fd:
            while part := os.read(fd, 1 << 18):
                yield part

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[int]:
        """Have a file open to be read.

        Raises:
            CorruptHistoryError: the file itself is the trouble.
            FileNotFoundError: there is none.
        """
        fd = self._open(name, os.O_RDONLY)
        try:
            yield fd
        except OSError as e:
            self._check_file(name, e)
            e.filename = self.file(name)
            raise
        finally:
            os.close(fd)

    def _open(self, name: str, flags: int) -> int:
        """Open a file, which is made with mode 0600.

        Raises:
            CorruptHistoryError: the file itself is the trouble.
            OSError: as the system says.
        """
        try:
            return os.open(self._prefix + name, flags | FLAGS, 0o600)
        except OSError as e:
            if e.errno in _NO_MORE and self.kept.clear():
                return self._open(name, flags)
            self._check_file(name, e)
            raise

    def _check_file(self, name: str, error: OSError) -> None:
        """See whether an error is about one file in a directory that is well: then one run is damaged, not the store.

        Raises:
            CorruptHistoryError: it is.
        """
        place = self.file(name)
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENOTDIR):
            what = "is no file but a link or a directory; restore it from a backup"
        elif error.errno in (errno.EACCES, errno.EPERM) and os.access(self.path, os.R_OK | os.W_OK | os.X_OK):
            what = f"can't be used: {error.strerror}; check who owns it, its permissions and attributes"
        else:
            return
        raise CorruptHistoryError(f"{place}: {what}", place=place) from error

    def names(self) -> list[str]:
        """The names of all files."""
        return os.listdir(self.path)

    def size(self, name: str) -> int | None:
        """Size in bytes, None when there is no such file."""
        try:
            return os.stat(self.file(name), follow_symlinks=False).st_size
        except FileNotFoundError:
            return None

    def overwrite(self, name: str, data: bytes, old: int = 0) -> None:
        """Write a small file over its old bytes, not durably and not at once: for what has a checksum and can be lost.

        A new file in place of the old one would take the next sync of a journal twice as long. The run's lock must be
        held, and the file stays open.

        Args:
            old: its size, when it is open already.
        """
        fd = self.kept.hold(name, os.O_RDWR | os.O_CREAT)
        if not old:
            old = os.fstat(fd).st_size
            if not old:
                os.fchmod(fd, 0o600)
        os.lseek(fd, 0, os.SEEK_SET)
        write_all(fd, data)
        if old > len(data):
            os.ftruncate(fd, len(data))

    def publish(self, name: str, data: bytes) -> None:
        """Put a whole file in place of the old one, at once and durably. The run's lock must be held.

        Raises:
            OSError: nothing changed.
            UnsyncedError: it is in place, but a power cut may undo that.
        """
        stem = name.partition(".")[0]
        self.kept.forget(stem)
        temporary = f"{stem}.tmp"
        self._unlink(temporary)
        fd = self._open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            os.fchmod(fd, 0o600)
            write_all(fd, data)
            self._sync(fd)
        finally:
            os.close(fd)
        try:
            os.replace(self.file(temporary), self.file(name))
            self.sync_names()
        except OSError as e:
            self._check_file(name, e)
            raise UnsyncedError(f"{self.file(name)}: {e}") from e

    def append(self, name: str, data: bytes, undo: Callable[[], bool]) -> None:
        """Add bytes to a file, durably. The run's lock must be held, and the file stays open.

        Args:
            undo: called when it failed; brings the file back, durably, and says whether that went well.

        Raises:
            WriteError: it failed; `undone` says whether nothing of it is there, for certain.
        """
        try:
            fd = self.kept.hold(name, os.O_WRONLY | os.O_APPEND)
        except OSError as e:
            raise WriteError(e, undone=True) from e
        written = False
        try:
            write_all(fd, data)
            written = True
            self._sync(fd)
        except OSError as e:
            # Never a second sync on a descriptor whose sync failed: the kernel would say yes and have lost the bytes.
            self.kept.forget(name.partition(".")[0])
            raise WriteError(e, undone=undo() and not written) from e

    def sync(self, name: str, written: bytes = b"", at: int = 0) -> None:
        """Make what is in a file durable before anybody acts on it: its writer may have died before its own sync.

        Args:
            written: bytes of it that may never have been synced. They are written again in their place: after a sync
                that failed the kernel takes them for clean, and would sync nothing.
            at: where they are.
        """
        fd = self._open(name, os.O_WRONLY)
        try:
            if written:
                os.lseek(fd, at, os.SEEK_SET)
                write_all(fd, written)
            self._sync(fd)
        finally:
            os.close(fd)
        self.sync_names()

    def keep_aside(self, name: str, torn: bytes) -> None:
        """Add torn bytes to the file beside that is for them, durably."""
        aside = self._open(f"{name}.torn", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            if not os.fstat(aside).st_size:
                os.fchmod(aside, 0o600)
            write_all(aside, torn)
            self._sync(aside)
        except OSError as e:
            self._check_file(f"{name}.torn", e)
            raise
        finally:
            os.close(aside)
        self.sync_names()

    def truncate(self, name: str, size: int) -> None:
        """Bring a file to `size`, durably."""
        fd = self._open(name, os.O_WRONLY)
        try:
            os.ftruncate(fd, size)
            self._sync(fd)
        finally:
            os.close(fd)

    def spoil(self, name: str) -> None:
        """Make a file's checksum wrong, in its place and without any room, so that nobody believes it."""
        with contextlib.suppress(FileNotFoundError):
            fd = self._open(name, os.O_WRONLY)
            try:
                write_all(fd, b"\0")
            finally:
                os.close(fd)

    def remove(self, names: list[str]) -> None:
        """Remove files, durably."""
        for name in names:
            self._unlink(name)
        self.sync_names()

    def _unlink(self, name: str) -> None:
        try:
            os.unlink(self.file(name))
        except FileNotFoundError:
            pass
        except OSError as e:
            self._check_file(name, e)
            raise

    def _sync(self, fd: int) -> None:
        if self._syncs:
            sync_file(fd)

    def sync_names(self, directory: str | None = None) -> None:
        """Make the names in a directory durable, the store's own when None."""
        if self._syncs:
            sync_directory(directory or self.path)
