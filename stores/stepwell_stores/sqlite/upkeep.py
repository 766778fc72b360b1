"""The upkeep of the SQLite store: closed runs by index, sizes, and pages given back to the file system.

SQLite keeps the pages of what was deleted, and fills them again. Giving them back goes in two ways:

* A file that was made for it (`auto_vacuum` is incremental) gives them back some at a time, each time in a transaction
  as short as an append's. Nobody notices.
* Any other file has to be written anew as a whole, once, and is made for it by that. Writers would wait for as long as
  it takes, and an owner that waits too long performs a step again, so this is done only while nobody drives a run: the
  leases are looked at under the lock that every writer takes, and nobody gets one meanwhile.
"""

# ruff: noqa: S608 - statements are put together from the constants of this file; every value is a parameter

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from stepwell.errors import CorruptHistoryError, StoreUnavailableError
from stepwell.store import ClosedKey, Head, RunHead, Status, StoreSize, closed_key

from ..rules import Clock, check_limit, status_from
from .database import Database
from .leases import Leases
from .rewrite import rewrite
from .rows import COLUMNS, EVENTS, Row
from .schema import check_version

__all__ = ["SqliteUpkeep", "closed_statement"]

_INCREMENTAL = 2
_AT_ONCE = 256  # pages that one transaction gives back

_KEY = "workflow, updated, run_id"
STATUSES = "SELECT status, count(*) FROM stepwell_runs GROUP BY status"
LEASED = """SELECT status, lease_until, owner_lock FROM stepwell_runs
    WHERE lease_until IS NOT NULL AND closed = 0"""
EARLIER = """SELECT count(*) FROM stepwell_runs r CROSS JOIN stepwell_events e
    ON e.run_id = r.run_id AND e.incarnation < r.incarnation WHERE r.incarnation > 0"""


def closed_statement(
    after: ClosedKey | None, before: ClosedKey | None, newest_first: bool, limit: int
) -> tuple[str, list[Any]]:
    """The statement that lists a page of closed runs by index, and its values."""
    conditions, values = ["closed = 1"], list[Any]()
    for key, than in ((after, ">"), (before, "<")):
        if key is not None:
            conditions.append(f"({_KEY}) {than} (?, ?, ?)")
            values += key
    order = ", ".join(f"{column} DESC" for column in _KEY.split(", ")) if newest_first else _KEY
    where = " AND ".join(conditions)
    return f"SELECT {COLUMNS} FROM stepwell_runs r WHERE {where} ORDER BY {order} LIMIT ?", [*values, limit]


class SqliteUpkeep:
    """Which runs are closed, and what the file takes."""

    if TYPE_CHECKING:  # what the store itself has
        path: str
        _database: Database
        _leases: Leases
        _clock: Clock
        _run_head: Callable[[Row], RunHead]

    def closed(
        self,
        *,
        after: ClosedKey | None = None,
        before: ClosedKey | None = None,
        newest_first: bool = False,
        limit: int,
    ) -> list[RunHead]:
        """A page of closed runs; see the port."""
        check_limit(limit)

        def work(db: sqlite3.Connection) -> list[RunHead]:
            first, last = after, before
            while True:
                statement, values = closed_statement(first, last, newest_first, limit)
                rows = [Row(*found) for found in db.execute(statement, values)]
                heads = [head for row in rows if (head := self._whole(row)) is not None]
                if heads or len(rows) < limit:
                    return heads
                end = (rows[-1].workflow, rows[-1].updated, rows[-1].run_id)  # all of them are damaged
                first, last = (first, end) if newest_first else (end, last)

        return self._database.read(work)

    def _whole(self, row: Row) -> RunHead | None:
        try:
            head = self._run_head(row)
        except (CorruptHistoryError, TypeError):  # a damaged page may have a value of any type in any column
            return None
        workflow, updated, _ = closed_key(head)
        return head if isinstance(workflow, str) and isinstance(updated, int) else None

    def rewrite(
        self,
        run_id: str,
        incarnation: int,
        from_seq: int,
        old: Sequence[bytes],
        new: Sequence[bytes],
        *,
        head: tuple[Head, Head] | None = None,
    ) -> bool:
        """Put other records in place of these; see `Rewritable`."""
        at = (run_id, incarnation, from_seq)
        return self._database.write(lambda db: rewrite(db, self.path, at, old, new, head))

    def size(self) -> StoreSize:
        """How large it is; see the port."""
        runs: Counter[Status] = Counter()

        def work(db: sqlite3.Connection) -> tuple[int, int]:
            runs.clear()
            try:
                runs.update({status_from(status): count for status, count in db.execute(STATUSES)})
            except ValueError as e:
                raise CorruptHistoryError(f"{self.path}, table stepwell_runs: {e}", place=self.path) from e
            now = self._clock()
            for status, until, lock in db.execute(LEASED).fetchall():
                if until > now and self._leases.alive(lock):
                    runs.update({status_from(status): -1, "running": 1})
            events = int(db.execute(EVENTS).fetchone()[0]) + db.execute(EARLIER).fetchone()[0]
            return events, _pragma(db, "freelist_count") * _pragma(db, "page_size")

        events, free = self._database.read(work)
        return StoreSize(dict(+runs), events, self._bytes(), free)

    def _bytes(self) -> int:
        """Of the file and its log. Never by opening them: closing would end SQLite's locks."""
        return sum(os.stat(name).st_size for name in (self.path, f"{self.path}-wal") if os.path.exists(name))

    def vacuum(self) -> int:
        """Give free pages back; see the port.

        Raises:
            StoreUnavailableError: the file has to be written anew for it, and runs are being driven.
        """
        before = self._bytes()
        if self._database.read(self._kept_how) == _INCREMENTAL:
            while self._database.write(_give_back):
                pass
        else:
            self._database.alone(self._write_anew)
        self._database.alone(_shrink)
        return max(0, before - self._bytes())

    def _kept_how(self, db: sqlite3.Connection) -> int:
        """How the file's pages are kept; SQLite says what it saw last, so it has to look first."""
        check_version(db, self.path)
        return _pragma(db, "auto_vacuum")

    def _write_anew(self, db: sqlite3.Connection) -> None:
        check_version(db, self.path)
        now = self._clock()
        driven = sum(until > now and self._leases.alive(lock) for _, until, lock in db.execute(LEASED).fetchall())
        if driven:
            raise StoreUnavailableError(
                f"{self.path} has to be written anew to give space back, this first time, and {driven} of its runs "
                "are being driven; try again when nobody drives one"
            )
        db.execute(f"PRAGMA auto_vacuum = {_INCREMENTAL}")
        db.execute("VACUUM")


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])


def _give_back(db: sqlite3.Connection) -> int:
    """Give some pages back; how many are left."""
    db.execute(f"PRAGMA incremental_vacuum({_AT_ONCE})").fetchall()
    return _pragma(db, "freelist_count")


def _shrink(db: sqlite3.Connection) -> None:
    """Bring the log into the file and cut both, as far as nobody reads them now: it waits for nobody."""
    waits = _pragma(db, "busy_timeout")
    db.execute("PRAGMA busy_timeout = 0").fetchall()
    try:
        for mode in ("PASSIVE", "TRUNCATE"):
            db.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
    finally:
        db.execute(f"PRAGMA busy_timeout = {waits}").fetchall()
