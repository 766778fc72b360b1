"""The tables of the SQLite store, and how a connection to them is opened and checked."""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NoReturn

from attrs import frozen

from stepwell.errors import NewerFormatError, StoreMisconfiguredError, StoreUnavailableError

from ..disk import sync_directory, sync_file
from ..filelock import FLAGS
from ..filesystems import refuse_network
from .guest import Guest

__all__ = [
    "BUSY_SECONDS",
    "RESETS_SAFELY",
    "SCHEMA_VERSION",
    "Opening",
    "check_version",
    "connect",
    "connect_guest",
    "primary_code",
]

BUSY_SECONDS = 5.0

RESETS_SAFELY = sqlite3.sqlite_version_info >= (3, 51, 3)
"""Whether this SQLite is free of the WAL-reset bug: before 3.51.3, a commit of one connection that overlaps a
checkpoint of another could corrupt the file. Source: sqlite.org/wal.html, "The WAL-reset bug"."""

_OLDEST = (3, 38, 0)  # STRICT tables, RETURNING and json_each built in

# Whoever closes a descriptor of a file ends all locks that its process has on it, SQLite's among them. So this module
# never opens a database file by itself, but to make one, and then no connection of this process is opened meanwhile.
_opening = threading.Lock()

# Every name has the prefix, so that a program may keep its own tables in the same file.
_VERSION_1 = """
CREATE TABLE stepwell_schema (version INTEGER NOT NULL) STRICT;

CREATE TABLE stepwell_runs (
    run_id TEXT PRIMARY KEY NOT NULL,
    incarnation INTEGER NOT NULL,
    next_seq INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    closed INTEGER NOT NULL,
    status TEXT NOT NULL,
    workflow TEXT NOT NULL,
    version TEXT NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    due INTEGER,
    waiting TEXT NOT NULL,
    tags TEXT NOT NULL,
    blocked TEXT,
    blocked_by TEXT,
    owner TEXT,
    lease_until INTEGER,
    owner_lock TEXT,
    lease_attempt TEXT
) STRICT;
CREATE INDEX stepwell_runs_created ON stepwell_runs (created, run_id);
CREATE INDEX stepwell_runs_status ON stepwell_runs (status, created, run_id);
CREATE INDEX stepwell_runs_workflow ON stepwell_runs (workflow, created, run_id);
CREATE INDEX stepwell_runs_due ON stepwell_runs (due, run_id)
    WHERE closed = 0 AND lease_until IS NULL AND blocked_by IS NULL AND due IS NOT NULL;
CREATE INDEX stepwell_runs_blocked ON stepwell_runs (created, run_id) WHERE blocked_by IS NOT NULL;
CREATE INDEX stepwell_runs_leased ON stepwell_runs (created, run_id) WHERE lease_until IS NOT NULL;

CREATE TABLE stepwell_events (
    run_id TEXT NOT NULL,
    incarnation INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (run_id, incarnation, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE stepwell_attempts (
    run_id TEXT NOT NULL,
    attempt_id TEXT NOT NULL,
    incarnation INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (run_id, attempt_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE stepwell_deleted (
    run_id TEXT PRIMARY KEY NOT NULL,
    fence INTEGER NOT NULL,
    created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Two indexes of what the JSON columns of stepwell_runs hold, kept by triggers. (json_tree, because some builds take
-- json_extract for unsafe in a trigger.)
CREATE TABLE stepwell_tags (
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    created INTEGER NOT NULL,
    run_id TEXT NOT NULL,
    PRIMARY KEY (name, value, created, run_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX stepwell_tags_run ON stepwell_tags (run_id);
CREATE TABLE stepwell_waits (
    signal TEXT NOT NULL,
    created INTEGER NOT NULL,
    run_id TEXT NOT NULL,
    PRIMARY KEY (signal, created, run_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX stepwell_waits_run ON stepwell_waits (run_id);

CREATE TRIGGER stepwell_runs_inserted AFTER INSERT ON stepwell_runs BEGIN
    INSERT INTO stepwell_tags SELECT key, value, NEW.created, NEW.run_id FROM json_each(NEW.tags);
    INSERT OR IGNORE INTO stepwell_waits
        SELECT atom, NEW.created, NEW.run_id FROM json_tree(NEW.waiting) WHERE key = 'signal';
END;
CREATE TRIGGER stepwell_runs_tagged AFTER UPDATE OF tags, created ON stepwell_runs
WHEN OLD.tags <> NEW.tags OR OLD.created <> NEW.created BEGIN
    DELETE FROM stepwell_tags WHERE run_id = OLD.run_id;
    INSERT INTO stepwell_tags SELECT key, value, NEW.created, NEW.run_id FROM json_each(NEW.tags);
END;
CREATE TRIGGER stepwell_runs_waiting AFTER UPDATE OF waiting, created ON stepwell_runs
WHEN OLD.waiting <> NEW.waiting OR OLD.created <> NEW.created BEGIN
    DELETE FROM stepwell_waits WHERE run_id = OLD.run_id;
    INSERT OR IGNORE INTO stepwell_waits
        SELECT atom, NEW.created, NEW.run_id FROM json_tree(NEW.waiting) WHERE key = 'signal';
END;
CREATE TRIGGER stepwell_runs_deleted AFTER DELETE ON stepwell_runs BEGIN
    DELETE FROM stepwell_tags WHERE run_id = OLD.run_id;
    DELETE FROM stepwell_waits WHERE run_id = OLD.run_id;
END;
"""

# A blocked run names every code that it did not fit, so that workers of different code don't pass it to and fro; and a
# lease is known by the request that it was granted to, since several callers may repeat one write.
_VERSION_2 = """
ALTER TABLE stepwell_runs RENAME COLUMN lease_attempt TO lease_token;
UPDATE stepwell_runs SET
    blocked = json_remove(
        json_set(blocked, '$.fingerprints', json_array(json_extract(blocked, '$.fingerprint'))), '$.fingerprint'
    ),
    blocked_by = json_array(blocked_by)
WHERE blocked IS NOT NULL;
"""

# Blocked runs by the codes that they did not fit: a claim passes all of one kind by, however many there are.
_VERSION_3 = """
CREATE INDEX stepwell_runs_kinds ON stepwell_runs (blocked_by, due, run_id)
    WHERE closed = 0 AND lease_until IS NULL AND blocked_by IS NOT NULL AND due IS NOT NULL;
"""

# Closed runs of a workflow by when they were closed, for retention. An open run has no place in it.
_VERSION_4 = """
CREATE INDEX stepwell_runs_closed ON stepwell_runs (workflow, updated, run_id) WHERE closed = 1;
"""

# How long a history is, its records tell; the run's row tells how long it was when that row was last written. So the
# record of a step is one row in one page.
_VERSION_5 = """
ALTER TABLE stepwell_runs RENAME COLUMN next_seq TO least_seq;
"""

# Runs that went to another store, and those that come from one: their records are there already, but no row of theirs.
_VERSION_6 = """
ALTER TABLE stepwell_deleted ADD COLUMN departure TEXT;
ALTER TABLE stepwell_deleted ADD COLUMN arrival TEXT;
CREATE INDEX stepwell_deleted_arriving ON stepwell_deleted (run_id) WHERE arrival IS NOT NULL;
"""

_MIGRATIONS = (_VERSION_1, _VERSION_2, _VERSION_3, _VERSION_4, _VERSION_5, _VERSION_6)
"""What brings the tables from version 0, 1, ... to the next. Never changed once released, only added to."""

SCHEMA_VERSION = len(_MIGRATIONS)


@frozen
class Opening:
    """How a file is opened.

    Attributes:
        must_exist: a missing file, or one without tables, is an error.
        synchronous: 2 (FULL) or 1 (NORMAL).
        network: also on a network file system.
        writing: held while tables are made or changed, and the journal's mode is; is given the seconds that it may
            wait, and raises StoreUnavailableError after them.
    """

    must_exist: bool
    synchronous: int
    network: bool
    writing: Callable[[float], AbstractContextManager[None]]


def primary_code(error: sqlite3.Error) -> int:
    """The primary result code of a driver error, 0 when SQLite itself gave none."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _prepare(path: str, must_exist: bool, network: bool) -> None:
    """See that `path` can be a database before SQLite touches it; make it, with mode 0600, when there is none.

    Raises:
        StoreMisconfiguredError: it can't; the text says why and what to do. Nothing was written.
    """
    if sqlite3.sqlite_version_info < _OLDEST:
        _refuse(path, f"SQLite {sqlite3.sqlite_version} is too old", "use a Python that is built with 3.38 or newer")
    if not network and os.path.isdir(os.path.dirname(path)):
        refuse_network(path, "sqlite:///")
    try:
        info = os.stat(path)
    except FileNotFoundError:
        if must_exist:
            raise StoreMisconfiguredError(f"no store at {path}; check the path, or start a run to make one") from None
        _create(path)
        info = os.stat(path)
    except OSError as e:
        _refuse(path, e.strerror or str(e), "check the path and its permissions", e)
    if stat.S_ISDIR(info.st_mode):
        _refuse(path, "it is a directory", f"name a file in it, such as 'sqlite:///{path}/runs.db'")
    if not os.access(path, os.R_OK | os.W_OK) or not os.access(os.path.dirname(path), os.W_OK | os.X_OK):
        _refuse(path, "no permission to read and write it and its directory", "run as its owner, or chmod it")
    if must_exist and not info.st_size:
        raise StoreMisconfiguredError(f"no store at {path}: the file is empty; start a run to make one")
    if not info.st_size and os.name == "posix":  # whoever made it may have died before it was durable under its name
        sync_directory(os.path.dirname(path))


def _create(path: str) -> None:
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        _refuse(path, f"there is no directory {parent}", f"make it first: mkdir -p {parent}")
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | FLAGS, 0o600)
    except FileExistsError:
        return  # another process was faster
    try:
        os.chmod(path, 0o600)  # whatever the umask says
        os.fsync(fd)
    finally:
        os.close(fd)


def connect(path: str, how: Opening) -> sqlite3.Connection:
    """Open a connection, set what durability needs, read it back, and see to the tables.

    Raises:
        StoreMisconfiguredError: the file can't be a store, or a setting did not take.
        NewerFormatError: the tables are of a newer stepwell.
        sqlite3.Error: busy, damaged, or no database.
    """
    with _opening:
        _prepare(path, how.must_exist, how.network)
        db = sqlite3.connect(
            path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256
        )
    try:
        if how.must_exist and _version(db) is None:  # before a setting is written into another program's file
            _refuse_foreign(path)
        _settings(db, path, how)
        if _version(db) != SCHEMA_VERSION:
            with how.writing(BUSY_SECONDS):
                _migrate(db, path, how.must_exist)
        _sync_log(db, path, how)
    except BaseException:
        db.close()
        raise
    return db


def connect_guest(path: str, how: Opening) -> Guest:
    """Open one more connection to a file that this process has open, as it is to be lent, in this thread only.

    Raises:
        StoreMisconfiguredError, sqlite3.Error: as `connect`.
    """
    with _opening:
        db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, factory=Guest)
    try:
        _settings(db, path, how)
    except BaseException:
        db.close()
        raise
    return db


def _sync_log(db: sqlite3.Connection, path: str, how: Opening) -> None:
    """Make durable what is in the log before anybody acts on it.

    Its writer may have died before its sync: then it is only in the system's cache, and SQLite shows it all the same. A
    checkpoint syncs the log and writes it into the database; that also helps after a sync that failed, when another
    sync would say yes and do nothing.
    """
    try:
        empty = not os.stat(f"{path}-wal").st_size
    except FileNotFoundError:
        empty = True
    if empty:
        return
    try:
        with how.writing(0):
            busy, frames, done = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    except StoreUnavailableError:  # somebody writes, or is stopped in the midst of it: reading need not wait for that
        busy, frames, done = 1, 0, 0
    if busy or done < frames:
        fd = os.open(f"{path}-wal", os.O_RDWR | FLAGS)  # SQLite has no locks on this file that closing it could end
        try:
            sync_file(fd)
        finally:
            os.close(fd)


def _settings(db: sqlite3.Connection, path: str, how: Opening) -> None:
    if db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        with how.writing(BUSY_SECONDS):
            _use_wal(db, path)
    wanted = {"synchronous": how.synchronous, "foreign_keys": 1, "trusted_schema": 0}
    wanted |= {"mmap_size": 0, "cell_size_check": 1, "busy_timeout": int(BUSY_SECONDS * 1000)}
    if sys.platform == "darwin":  # pragma: no cover - there only this flushes the drive's own cache
        wanted |= {"fullfsync": 1, "checkpoint_fullfsync": 1}
    for name, value in wanted.items():
        db.execute(f"PRAGMA {name} = {value}").fetchall()
        row = db.execute(f"PRAGMA {name}").fetchone()
        if row is not None and row[0] != value:
            _refuse(path, f"SQLite did not take {name}={value}, it says {row[0]!r}", "use another build of SQLite")


def _use_wal(db: sqlite3.Connection, path: str) -> None:
    """Switch to WAL. SQLite asks no busy handler while another connection switches, so the waiting is done here."""
    deadline = time.monotonic() + BUSY_SECONDS
    mode = ""
    while not mode:
        try:
            mode = db.execute("PRAGMA journal_mode").fetchone()[0]
            if mode != "wal":
                mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError as e:
            if primary_code(e) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
    if mode != "wal":
        _refuse(path, f"SQLite can't use a write-ahead log there (journal_mode={mode})", "use a local file system")


def _migrate(db: sqlite3.Connection, path: str, must_exist: bool) -> None:
    """Make the tables, or bring them to this version, in one transaction; whoever comes second finds it done."""
    db.execute("BEGIN IMMEDIATE")
    try:
        version = _version(db)
        if version is None and must_exist:
            _refuse_foreign(path)
        for script in _MIGRATIONS[version or 0 :]:
            for statement in _statements(script):
                db.execute(statement)
        if version is None:
            db.execute("INSERT INTO stepwell_schema VALUES (?)", (SCHEMA_VERSION,))
        elif version < SCHEMA_VERSION:
            db.execute("UPDATE stepwell_schema SET version = ?", (SCHEMA_VERSION,))
        check_version(db, path)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def check_version(db: sqlite3.Connection, path: str) -> None:
    """See that the tables are of this library's version, as a transaction finds them.

    Raises:
        NewerFormatError: a newer stepwell made them, or has changed them meanwhile.
    """
    row = db.execute("SELECT version FROM stepwell_schema").fetchone()
    if row is None or row[0] != SCHEMA_VERSION:
        raise NewerFormatError(
            f"{path}: has tables of version {row and row[0]}, and this stepwell knows {SCHEMA_VERSION}; upgrade "
            "stepwell",
            place=path,
        )


def _refuse_foreign(path: str) -> NoReturn:
    raise StoreMisconfiguredError(f"no store at {path}: a SQLite database without stepwell's tables")


def _version(db: sqlite3.Connection) -> int | None:
    if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'stepwell_schema'").fetchone() is None:
        return None
    row = db.execute("SELECT max(version) FROM stepwell_schema").fetchone()
    return None if row[0] is None else int(row[0])


def _statements(script: str) -> list[str]:
    """Split a script; `executescript` would commit, and a trigger has semicolons inside."""
    found, text = [], ""
    for line in script.splitlines(keepends=True):
        text += line
        if sqlite3.complete_statement(text):
            found.append(text)
            text = ""
    return found


def _refuse(path: str, problem: str, remedy: str, cause: BaseException | None = None) -> NoReturn:
    raise StoreMisconfiguredError(f"can't keep a store at {path}: {problem}; {remedy}") from cause
