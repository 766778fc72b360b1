"""One SQLite file under two connections, one that writes and one that reads, and what its errors mean."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable
from typing import TypeVar

from stepwell.errors import (
    ClosedError,
    CorruptHistoryError,
    StepwellError,
    StoreError,
    StoreMisconfiguredError,
    StoreUnavailableError,
)

from .liveness import watch_forks
from .sqlite_schema import connect, prepare_file, primary_code

__all__ = ["AmbiguousError", "Database", "NotWrittenError"]

T = TypeVar("T")

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_FORBIDDEN = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}

# Connections that a forked child inherited. Closing one there could end the parent's locks and remove its log, so they
# are kept for ever.
_inherited: list[sqlite3.Connection] = []


class NotWrittenError(StoreUnavailableError):
    """A transaction ended without a write, for certain."""


class AmbiguousError(StoreError):
    """COMMIT itself failed: it may be on disk all the same."""


class _Handle:
    """A connection that is opened at first use, under a lock."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.db: sqlite3.Connection | None = None

    def drop(self) -> None:
        """Close it, to be opened again. After an error of the disk nothing that it holds can be trusted."""
        db, self.db = self.db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()


class Database:
    """Runs functions in transactions of one file.

    Args:
        path: absolute; opened at first use.
        must_exist: whether a missing file is an error rather than made.
    """

    def __init__(self, path: str, *, must_exist: bool = False) -> None:
        self.path = path
        self._must_exist = must_exist
        self._writer, self._reader = _Handle(), _Handle()
        self._closed = False
        watch_forks(self)

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in a write transaction and commit it durably.

        Raises:
            NotWrittenError: busy, full or failed before COMMIT: nothing of it is there.
            AmbiguousError: COMMIT failed.
            StoreError, CorruptHistoryError: the file can't be used at all; nothing was written.
        """
        handle = self._writer
        with handle.lock:
            db = self._open(handle)
            try:
                db.execute("BEGIN IMMEDIATE")
                result = work(db)
            except (sqlite3.Error, UnicodeDecodeError) as e:
                _rollback(db)
                raise self._judge(handle, e, NotWrittenError) from e
            except BaseException:
                _rollback(db)
                raise
            try:
                db.execute("COMMIT")
            except sqlite3.Error as e:
                if primary_code(e) in _BUSY and _rollback(db):
                    raise NotWrittenError(f"{self.path}: {e}") from e
                handle.drop()
                raise AmbiguousError(f"{self.path}: COMMIT failed: {e}") from e
            return result

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` on one snapshot.

        Raises:
            StoreUnavailableError: busy; try again.
            StoreError, CorruptHistoryError: the file can't be used.
        """
        handle = self._reader
        with handle.lock:
            db = self._open(handle)
            try:
                db.execute("BEGIN")
                result = work(db)
                db.execute("COMMIT")
            except (sqlite3.Error, UnicodeDecodeError) as e:
                _rollback(db)
                raise self._judge(handle, e, StoreError) from e
            except BaseException:
                _rollback(db)
                raise
            return result

    def check_open(self) -> None:
        """Raise ClosedError after `close`."""
        if self._closed:
            raise ClosedError(f"the store {self.path} is closed")

    def close(self) -> None:
        """Close both connections, when what they do has ended."""
        self._closed = True
        for handle in (self._reader, self._writer):
            with handle.lock:
                handle.drop()

    def after_fork(self) -> None:
        """Leave the inherited connections alone and begin with new ones."""
        _inherited.extend(handle.db for handle in (self._writer, self._reader) if handle.db is not None)
        self._writer, self._reader = _Handle(), _Handle()

    def _open(self, handle: _Handle) -> sqlite3.Connection:
        self.check_open()
        if handle.db is None:
            prepare_file(self.path, self._must_exist)
            try:
                handle.db = connect(self.path, self._must_exist)
            except (sqlite3.Error, UnicodeDecodeError) as e:
                raise self._judge(handle, e, NotWrittenError) from e
            self._must_exist = True  # a file that vanishes under a store is no reason to begin an empty one
        return handle.db

    def _judge(self, handle: _Handle, error: Exception, otherwise: type[StoreError]) -> StepwellError:
        """Say what a driver error means, and drop the connection unless it was merely busy."""
        code = primary_code(error) if isinstance(error, sqlite3.Error) else 0
        if code in _BUSY:
            return NotWrittenError(f"{self.path} is busy: {error}; try again")
        handle.drop()
        if code == sqlite3.SQLITE_NOTADB:
            return StoreMisconfiguredError(
                f"{self.path} is no SQLite database: {error}; restore it, or name another file"
            )
        if code in _DAMAGED or isinstance(error, UnicodeDecodeError) or "decode to UTF-8" in str(error):
            return CorruptHistoryError(f"{self.path} is damaged: {error}; restore it from a backup", place=self.path)
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
        return found | {name: None if row is None else row[0] for name, row in rows.items()}


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
