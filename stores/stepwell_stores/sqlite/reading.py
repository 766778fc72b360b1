"""How a SQLite file is opened to be read and never written: a backup, or a file that somebody else owns.

SQLite itself writes when it reads a file with a write-ahead log: it makes the log and its index beside it. So here

* a file whose log is gone or empty is opened as one that nobody writes (`immutable`), without locks; whether that was
  true is checked after each transaction;
* a file with a log is opened with the log's index as it is (`readonly_shm`), so that index must be there;
* a file with a journal that a crash has left is refused: only a writer can roll it back.
"""

from __future__ import annotations

import os
import sqlite3
from typing import NoReturn, TypeAlias
from urllib.parse import quote

from attrs import frozen

from stepwell.errors import NewerFormatError, StoreMisconfiguredError

from ..filesystems import refuse_network
from .schema import BUSY_SECONDS, SCHEMA_VERSION, primary_code

__all__ = ["Reading", "connect_reading", "only_readable"]

_COPY = "copy it, together with every file whose name begins with its own, to a place that can be written"
_NEEDS_WRITING = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}

_Stamp: TypeAlias = tuple[int, int, int]


@frozen
class Reading:
    """A connection that can't write, and how the files were that it believes nobody writes; None when it has locks."""

    db: sqlite3.Connection
    path: str
    stamps: tuple[_Stamp, ...] | None = None

    @property
    def changed(self) -> bool:
        """Whether somebody wrote to a file that is read without locks: half of what is read may be old, half new."""
        return self.stamps is not None and self.stamps != _stamps(self.path)


def only_readable(path: str) -> bool:
    """Whether a file is there that this process may read, and not write as SQLite does."""
    if not os.path.isfile(path) or not os.access(path, os.R_OK):
        return False
    return not (os.access(path, os.W_OK) and os.access(os.path.dirname(path), os.W_OK | os.X_OK))


def connect_reading(path: str, network: bool) -> Reading:
    """Open a file for reading; no byte is written and no file is made.

    Raises:
        StoreMisconfiguredError: it is no store, or can't be read without writing; the text says what to do.
        NewerFormatError: the tables are of a newer stepwell.
        sqlite3.Error: busy, damaged, or no database.
    """
    before = _stamps(path)
    try:
        return _connect(path, network)
    except (StoreMisconfiguredError, sqlite3.Error):
        if before == _stamps(path):
            raise
    return _connect(path, network)  # its owner has just opened or closed it, and the log came or went


def _connect(path: str, network: bool) -> Reading:
    if not os.path.isfile(path):
        raise StoreMisconfiguredError(f"no store at {path}; check the path")
    if not os.access(path, os.R_OK):
        raise StoreMisconfiguredError(f"{path}: no permission to read it; run as its owner, or chmod it")
    if _size(f"{path}-journal"):
        _needs_writing(path, f"{path}-journal was left by a write that was cut short, and has to be rolled back")
    stamps, mode = None, "immutable=1"
    if not _size(f"{path}-wal"):
        stamps = _stamps(path)
    else:
        mode = "readonly_shm=1"
        if not network:
            refuse_network(path, "sqlite:///")
        if not os.path.exists(f"{path}-shm"):
            _needs_writing(path, f"its log {path}-wal can't be read without {path}-shm, which would have to be made")
    address = f"file://{quote(os.fsencode(path))}?mode=ro&{mode}"
    db = sqlite3.connect(
        address, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    try:
        for setting in ("query_only = 1", "trusted_schema = 0", "mmap_size = 0", "cell_size_check = 1"):
            db.execute(f"PRAGMA {setting}").fetchall()
        _check_tables(db, path)
    except sqlite3.Error as e:
        db.close()
        if stamps is None and primary_code(e) in _NEEDS_WRITING:
            _needs_writing(path, f"its log {path}-wal can't be read without writing ({e})")
        raise
    except BaseException:
        db.close()
        raise
    return Reading(db, path, stamps)


def _check_tables(db: sqlite3.Connection, path: str) -> None:
    version = None
    if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'stepwell_schema'").fetchone() is not None:
        version = db.execute("SELECT max(version) FROM stepwell_schema").fetchone()[0]
    if version is None:
        raise StoreMisconfiguredError(f"no store at {path}: a SQLite database without stepwell's tables")
    if version > SCHEMA_VERSION:
        raise NewerFormatError(
            f"{path}: has tables of version {version}, and this stepwell knows {SCHEMA_VERSION}; upgrade stepwell",
            place=path,
        )
    if version < SCHEMA_VERSION:
        _needs_writing(path, f"its tables are of version {version}, and opening brings them to {SCHEMA_VERSION}")


def _needs_writing(path: str, why: str) -> NoReturn:
    raise StoreMisconfiguredError(f"{path} can't be read without writing: {why}; {_COPY}, and open the copy")


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _stamps(path: str) -> tuple[_Stamp, ...]:
    """What shows that a file or its log was written to. Never by reading them: closing would end SQLite's locks."""
    return tuple(_stamp(f"{path}{suffix}") for suffix in ("", "-wal"))


def _stamp(path: str) -> _Stamp:
    try:
        info = os.stat(path)
    except OSError:
        return 0, 0, 0
    # An empty log that is made or removed changes nothing.
    return (info.st_ino, info.st_size, info.st_mtime_ns) if info.st_size else (0, 0, 0)
