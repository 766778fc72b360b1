"""One SQLite file under two connections, one that writes and one that reads, and what its errors mean.

A third one is opened for each transaction that a program's own code takes part in, and is closed with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from attrs import evolve

from stepwell.errors import (
    ClosedError,
    CorruptHistoryError,
    StepwellError,
    StoreError,
    StoreMisconfiguredError,
    StoreUnavailableError,
)

from ..disk import translated
from ..filelock import FairLock, fcntl, make_private
from ..filesystems import kind_of
from ..group_commit import GroupCommit
from ..liveness import ForkAware, watch_forks
from ..outcomes import AmbiguousError, NotWrittenError
from .guest import Guest
from .reading import Reading, connect_reading, only_readable
from .schema import (
    BUSY_SECONDS,
    RESETS_SAFELY,
    Opening,
    check_version,
    connect,
    connect_guest,
    primary_code,
)

__all__ = ["Database"]

T = TypeVar("T")
C = TypeVar("C", bound=sqlite3.Connection)

_DRIVER = (sqlite3.Error, UnicodeDecodeError, MemoryError)
"""What the driver raises; MemoryError stands for SQLITE_NOMEM."""

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_FORBIDDEN = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}


class _Handle:
    """A connection that is opened at first use, under a lock."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.db: sqlite3.Connection | None = None
        self.busy = False
        self.inode = -1
        self.reading: Reading | None = None  # of a store that is never written

    def __enter__(self) -> None:
        """Hold the lock for a transaction."""
        self.lock.acquire()
        self.busy = True

    def __exit__(self, *_: object) -> None:
        self.busy = False
        self.lock.release()

    def drop(self) -> None:
        """Close it, to be opened again. After an error of the disk nothing that it holds can be trusted."""
        db, self.db, self.reading = self.db, None, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()


class Database(ForkAware):
    """Runs functions in transactions of one file.

    A write holds a file lock of ours from before BEGIN until after COMMIT. So writers come in turn, and no commit
    overlaps the checkpoint that another one ends with, which older versions of SQLite don't survive (`RESETS_SAFELY`).

    Args:
        path: absolute; opened at first use.
        locks: the directory of lock files beside it.
        must_exist: whether a missing file is an error rather than made.
        synchronous: SQLite's setting: 2 (FULL) or 1 (NORMAL).
        network: also on a network file system.
        read_only: no write is made, and none is needed to open the file.
    """

    def __init__(
        self,
        path: str,
        locks: str,
        *,
        must_exist: bool = False,
        synchronous: int = 2,
        network: bool = False,
        read_only: bool = False,
    ) -> None:
        self.path = path
        self.read_only = read_only
        self._opening = Opening(must_exist, synchronous, network, self._alone)
        self._writer, self._reader, self._guest = _Handle(), _Handle(), _Handle()
        self._lent_in = 0  # the thread that has a transaction of its own
        self._group = GroupCommit(self._write)
        self._locks = locks
        self._lock = FairLock(os.path.join(locks, "write"))
        self._ready = False
        self._closed = False
        watch_forks(self)

    def write(self, work: Callable[[sqlite3.Connection], T], *, guarded: bool = False) -> T:
        """Run `work` in a write transaction, with those of other threads that wait, and commit it durably.

        Args:
            guarded: `work` itself finds out whether a newer stepwell has changed the tables meanwhile.

        Raises:
            NotWrittenError: busy, full or failed before COMMIT: nothing of it is there.
            AmbiguousError: COMMIT failed.
            StoreError, CorruptHistoryError: the file can't be used at all; nothing was written.
        """
        if self.read_only or self._lent_in:
            self._refuse_write()
        return self._group.run(work if guarded else self._checked(work))

    def _checked(self, work: Callable[[C], T]) -> Callable[[C], T]:
        """The same, where nobody has changed the tables meanwhile."""

        def checked(db: C) -> T:
            check_version(db, self.path)
            return work(db)

        return checked

    def lend(self, work: Callable[[Guest], T]) -> T:
        """Run `work` in a write transaction that it shares with nobody, on a connection that is closed with it.

        Raises:
            sqlite3.IntegrityError: rows that `work` wrote broke a deferred constraint; nothing of it is there.
            NotWrittenError, AmbiguousError, StoreError, CorruptHistoryError: as `write`.
        """
        self._refuse_write()
        self._group.refuse_nested()
        with self._writer:
            self._open(self._writer)  # sees to the tables
            inode = self._writer.inode
        handle = self._guest
        with handle:
            locked = self._lock_out(BUSY_SECONDS)
            self._lent_in = threading.get_ident()
            try:
                if _inode(self.path) != inode:  # nobody would ever find the records
                    raise StoreError(f"{self.path} was removed or replaced while it was open; nothing was written")
                return self._transaction(handle, self._connect_guest(handle), self._checked(work))
            finally:
                self._lent_in = 0
                handle.drop()
                if locked:
                    self._lock.release()

    def _connect_guest(self, handle: _Handle) -> Guest:
        try:
            handle.db = db = connect_guest(self.path, self._opening)
        except (*_DRIVER, OSError) as e:
            raise self._judge(handle, e, NotWrittenError) from e
        return db

    def _refuse_write(self) -> None:
        self._refuse_reading_only()
        if self._lent_in == threading.get_ident():
            raise StoreError(
                "a Transaction's function can't write to the store by other ways than its connection; start runs and "
                "send signals after it, in a Step"
            )

    def _refuse_reading_only(self) -> None:
        if self.read_only:
            remedy = "to write, leave mode=ro out of its URL"
            raise StoreMisconfiguredError(f"{self.path} is open for reading only, so nothing was written; {remedy}")

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        handle = self._writer
        with handle:
            db = handle.db or self._open(handle)
            if _inode(self.path) != handle.inode:  # nobody would ever find the records
                handle.drop()
                raise StoreError(f"{self.path} was removed or replaced while it was open; nothing was written")
            locked = self._lock_out(BUSY_SECONDS)
            try:
                return self._transaction(handle, db, work)
            finally:
                if locked:
                    self._lock.release()

    def _transaction(self, handle: _Handle, db: C, work: Callable[[C], T]) -> T:
        try:
            db.execute("BEGIN IMMEDIATE")
            result = work(db)
        except _DRIVER as e:
            _rollback(db)
            raise self._judge(handle, e, NotWrittenError) from e
        except BaseException:
            _rollback(db)
            raise
        try:
            db.execute("COMMIT")
        except _DRIVER as e:
            if isinstance(e, sqlite3.Error) and primary_code(e) in _BUSY and _rollback(db):
                raise NotWrittenError(f"{self.path}: {e}") from e
            if isinstance(e, sqlite3.IntegrityError) and handle is self._guest and _rollback(db):
                raise
            handle.drop()
            raise AmbiguousError(f"{self.path}: COMMIT failed: {e}") from e
        return result

    def alone(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` outside of any transaction with all other writers kept out: for what makes its own.

        Raises:
            StoreUnavailableError: busy, or the disk is full; nothing changed.
            StoreError, CorruptHistoryError: the file can't be used.
        """
        self._refuse_reading_only()
        handle = self._writer
        with handle:
            db = self._open(handle)
            with self._alone():
                try:
                    return work(db)
                except _DRIVER as e:
                    raise self._judge(handle, e, NotWrittenError) from e

    @contextlib.contextmanager
    def _alone(self, seconds: float | None = None) -> Iterator[None]:
        """Keep the other writers out while this lasts; wait for them at most so long, `BUSY_SECONDS` when None."""
        locked = self._lock_out(BUSY_SECONDS if seconds is None else seconds)
        try:
            yield
        finally:
            if locked:
                self._lock.release()

    def _lock_out(self, seconds: float) -> bool:
        """Take the lock of writers; False when there is none to be had and none is needed."""
        try:
            if not self._ready:
                make_private(self._locks)
                self._ready = True
            if fcntl is None or self._lock.acquire(seconds):
                return fcntl is not None
        except OSError as e:
            if not RESETS_SAFELY:
                raise self._unlockable(e) from e
            return False  # fairness is all that is lost
        raise NotWrittenError(f"{self.path} is busy: another process is writing; try again")

    def _unlockable(self, error: OSError) -> StoreError:
        found = translated(self._locks, error)
        if not isinstance(found, StoreMisconfiguredError):
            return NotWrittenError(str(found))
        return StoreMisconfiguredError(
            f"{self._locks}: no lock file can be kept there ({error.strerror or error}), and SQLite "
            f"{sqlite3.sqlite_version} needs one between writers; check who owns it, or use 3.51.3 or newer"
        )

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` on one snapshot.

        Raises:
            StoreUnavailableError: busy; try again.
            StoreError, CorruptHistoryError: the file can't be used.
        """
        handle = self._reader
        with handle:
            if handle.reading is not None and handle.reading.changed:
                handle.drop()
            db = self._open(handle)
            try:
                db.execute("BEGIN")
                result = work(db)
                db.execute("COMMIT")
            except _DRIVER as e:
                _rollback(db)
                _check_unchanged(handle)
                raise self._judge(handle, e, StoreError) from e
            except BaseException:
                _rollback(db)
                _check_unchanged(handle)
                raise
            _check_unchanged(handle)
            return result

    def for_reading(self) -> Database | None:
        """A second one that reads the same file without writing, where this one can't open it; close it after use."""
        self.check_open()
        if self.read_only or not only_readable(self.path):
            return None
        return Database(self.path, self._locks, network=self._opening.network, read_only=True)

    def check_open(self) -> None:
        """Raise ClosedError after `close`."""
        if self._closed:
            raise ClosedError(f"the store {self.path} is closed")

    def close(self) -> None:
        """Close both connections, when what they do has ended."""
        self._closed = True
        for handle in (self._guest, self._reader, self._writer):
            with handle.lock:
                handle.drop()
        self._lock.close()

    def before_fork(self) -> None:
        """Close both connections, with nobody in the middle of a statement.

        SQLite keeps the locks of all connections of a process in one table, which the child inherits. A connection that
        is opened there would believe in locks that only the parent has.
        """
        for handle in (self._guest, self._reader, self._writer):  # the guest first: who has it may read by the others
            handle.lock.acquire()
            if not handle.busy:
                handle.drop()

    def after_fork_in_parent(self) -> None:
        """Let other threads go on; the next use opens again."""
        for handle in (self._writer, self._reader, self._guest):
            handle.lock.release()

    def after_fork_in_child(self) -> None:
        """Begin with new connections. One that forked inside its own transaction must never be used or closed here."""
        for handle in (self._writer, self._reader, self._guest):
            if handle.db is not None and sys.implementation.name == "cpython":
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(handle.db))
        self._writer, self._reader, self._guest = _Handle(), _Handle(), _Handle()
        self._lent_in = 0
        self._group.forget()
        self._lock.after_fork_in_child()

    def _open(self, handle: _Handle) -> sqlite3.Connection:
        self.check_open()
        if handle.db is None:
            try:
                if self.read_only:
                    handle.reading = connect_reading(self.path, self._opening.network)
                    handle.db = handle.reading.db
                else:
                    handle.db = connect(self.path, self._opening)
            except (*_DRIVER, OSError) as e:
                raise self._judge(handle, e, StoreError if self.read_only else NotWrittenError) from e
            handle.inode = _inode(self.path)
            # A file that vanishes under a store is no reason to begin an empty one.
            self._opening = evolve(self._opening, must_exist=True)
        return handle.db

    def _judge(self, handle: _Handle, error: Exception, otherwise: type[StoreError]) -> StepwellError:
        """Say what a driver error means, and drop the connection unless it was merely busy."""
        if isinstance(error, OSError):
            found = translated(self.path, error)
            return found if isinstance(found, StoreMisconfiguredError) else otherwise(str(found))
        code = primary_code(error) if isinstance(error, sqlite3.Error) else 0
        if code in _BUSY:
            return NotWrittenError(f"{self.path} is busy: {error}; try again")
        handle.drop()
        if isinstance(error, MemoryError):
            return otherwise(f"{self.path}: SQLite ran out of memory")
        if code == sqlite3.SQLITE_NOTADB:
            return StoreMisconfiguredError(
                f"{self.path} is no SQLite database: {error}; restore it, or name another file"
            )
        if code in _DAMAGED or isinstance(error, UnicodeDecodeError) or "decode to UTF-8" in str(error):
            return CorruptHistoryError(
                f"{self.path} is damaged, or its disk has failed: {error}; check the disk, run stepwell verify, and "
                "restore the file from a backup if that finds anything",
                place=self.path,
            )
        if code == sqlite3.SQLITE_CONSTRAINT:
            return CorruptHistoryError(
                f"{self.path} is damaged: its index and its records disagree ({error}); restore it from a backup",
                place=self.path,
            )
        if code in _FORBIDDEN:
            return StoreMisconfiguredError(f"{self.path} can't be written: {error}; check who owns it and where it is")
        return otherwise(f"{self.path}: {error}")

    def settings(self) -> dict[str, object]:
        """What the live settings of the writing connection are."""
        found: dict[str, object] = {"store": "sqlite", "sqlite": sqlite3.sqlite_version, "path": self.path}
        names = ("journal_mode", "synchronous", "busy_timeout", "foreign_keys", "trusted_schema", "mmap_size")
        with self._writer.lock:
            db = self._open(self._writer)
            try:
                rows = {name: db.execute(f"PRAGMA {name}").fetchone() for name in names}
            except sqlite3.Error as e:
                raise self._judge(self._writer, e, StoreError) from e
        found |= {name: None if row is None else row[0] for name, row in rows.items()}
        guard = "not needed" if RESETS_SAFELY else "none" if fcntl is None else "a file lock around each write"
        return found | {"wal_reset_guard": guard, "file_system": kind_of(self.path), "owners": self._locks}


def _check_unchanged(handle: _Handle) -> None:
    """Refuse what was read without locks while somebody wrote."""
    if handle.reading is not None and handle.reading.changed:
        path = handle.reading.path
        handle.drop()
        raise StoreUnavailableError(f"{path} was written to while it was read without locks; try again")


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0


def _rollback(db: sqlite3.Connection) -> bool:
    """Undo an open transaction; whether that went well. SQLite has already done it after some errors."""
    try:
        if db.in_transaction:
            db.execute("ROLLBACK")
    except sqlite3.Error:
        return False
    return True


def resolve(path: str | os.PathLike[str]) -> str:
    """The absolute path behind all links, so that two spellings of one file share its owners."""
    return os.path.realpath(os.fspath(path))
