"""The connection that a program's own code is lent for one transaction of the store.

It is a connection of its own, opened for the transaction and closed with it, so nothing that is done to it (settings,
functions, temporary tables, open cursors) outlives it or meets the store's statements. While it is lent,

* an authorizer of SQLite refuses what would end the transaction or begin another, attach files, set what is not the
  transaction's own, or change a table of the store: however the statement comes about, also in a trigger;
* the methods of Python's driver that do such things refuse by themselves, in clear words;
* after the time is over, statements are interrupted, and no further one begins.

Savepoints are allowed: inside a transaction they end nothing.
"""

from __future__ import annotations

import sqlite3
import time
import weakref
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from stepwell.errors import StepTimeoutError, TransactionError

__all__ = ["Guest"]

T = TypeVar("T")

_STEPS = 1000
"""Instructions of SQLite's machine after which the time is looked at: some ten microseconds."""

_OWN = "stepwell_"
_RETURN = "return to commit, raise an error to roll back"

_KINDS = ("TABLE", "INDEX", "TRIGGER", "VIEW", "TEMP_TABLE", "TEMP_INDEX", "TEMP_TRIGGER", "TEMP_VIEW", "VTABLE")
_VERBS = ("INSERT", "UPDATE", "DELETE", "ALTER_TABLE", "REINDEX", "ANALYZE")
_CHANGES: set[int] = {
    getattr(sqlite3, f"SQLITE_{name}") for name in (*_VERBS, *(f"{v}_{k}" for v in ("CREATE", "DROP") for k in _KINDS))
}
"""What changes rows or tables; the names of the tables are among the first two arguments."""

_PRAGMAS_READ = {
    "application_id",
    "busy_timeout",
    "collation_list",
    "compile_options",
    "data_version",
    "database_list",
    "encoding",
    "foreign_keys",
    "freelist_count",
    "function_list",
    "journal_mode",
    "page_count",
    "page_size",
    "recursive_triggers",
    "synchronous",
}
"""Settings that may be asked for and not be set."""

_PRAGMAS = {
    "defer_foreign_keys",  # ends with the transaction
    "foreign_key_check",
    "foreign_key_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "quick_check",
    "table_info",
    "table_list",
    "table_xinfo",
    "user_version",  # the program's own, and part of the transaction
}


class _Cursor(sqlite3.Cursor):
    """A cursor of a guest."""

    def execute(self, sql: str, parameters: Any = (), /) -> _Cursor:
        return _guest_of(self).watched(lambda: super(_Cursor, self).execute(sql, parameters))

    def executemany(self, sql: str, parameters: Any, /) -> _Cursor:
        return _guest_of(self).watched(lambda: super(_Cursor, self).executemany(sql, parameters))

    def executescript(self, _script: str, /) -> NoReturn:
        _guest_of(self).refuse_script()


def _guest_of(cursor: sqlite3.Cursor) -> Guest:
    guest = cursor.connection
    assert isinstance(guest, Guest)
    return guest


class Guest(sqlite3.Connection):
    """A connection that can be lent. While it is not, it is like any other."""

    _lent = False
    _deadline = 0.0
    _why: str | None = None  # why the last statement was refused
    _ended: TransactionError | None = None  # it was asked to end the transaction: what it meant can't be known
    _cursors: weakref.WeakSet[sqlite3.Cursor]

    # ---- for the store

    def lend(self, work: Callable[[Guest], T], seconds: float) -> T:
        """Call `work` with this connection, in the transaction that is open.

        Raises:
            Exception: what it raises.
            StepTimeoutError: it took longer than the seconds, whatever came of it.
            TransactionError: it tried to end the transaction, or lost it by an error, and hid that.
        """
        self._cursors = weakref.WeakSet()
        self._deadline = time.monotonic() + seconds
        super().set_progress_handler(self._over, _STEPS)
        super().set_authorizer(self._authorize)
        self._lent = True
        try:
            result = work(self)
        except Exception as error:
            if self._over():
                raise self._late() from error
            raise
        finally:
            self._take_back()
        if self._over():
            raise self._late()
        if self._ended is not None:
            raise self._ended
        if not self.in_transaction:
            raise TransactionError("after an error SQLite rolled the transaction back; let such an error pass")
        return result

    def _take_back(self) -> None:
        self._lent = False
        super().set_progress_handler(None, 0)
        super().set_authorizer(None)
        for cursor in list(self._cursors):
            cursor.close()  # an open one would keep what it reads, or the commit, waiting
        self.row_factory = None
        self.text_factory = str

    # ---- while it is lent

    def _over(self) -> bool:
        """Whether the time is over; SQLite interrupts a statement then."""
        return time.monotonic() > self._deadline

    def _late(self) -> StepTimeoutError:
        return StepTimeoutError("the transaction took too long: other writers wait meanwhile")

    def watched(self, call: Callable[[], T]) -> T:
        """Begin a statement, if it may begin, and say in clear words why it was refused.

        Raises:
            sqlite3.Error: as without.
            TransactionError: it may not be done here.
            StepTimeoutError: the time is over.
        """
        if not self._lent:
            return call()
        if self._over():
            raise self._late()
        if not self.in_transaction:
            raise TransactionError("after an error SQLite rolled the transaction back; let such an error pass")
        self._why = None
        try:
            return call()
        except sqlite3.Error as error:
            if self._why is not None:
                raise TransactionError(self._why) from error
            if self._over():
                raise self._late() from error
            raise

    def _authorize(
        self, action: int, one: str | None, two: str | None, _database: str | None, _inside: str | None
    ) -> int:
        why = self._refusal(action, one or "", two)
        if why is None:
            return sqlite3.SQLITE_OK
        self._why = f"a Transaction's function can't {why}"
        return sqlite3.SQLITE_DENY

    def _refusal(self, action: int, one: str, two: str | None) -> str | None:
        """What a statement would do that it may not, in words; None: it may."""
        if not self.in_transaction:
            return "go on after SQLite rolled the transaction back"
        if action == sqlite3.SQLITE_TRANSACTION:
            why = f"{one}: the store commits its rows together with its record; {_RETURN}"
            self._ended = TransactionError(f"a Transaction's function can't {why}")
            return why
        if action in (sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH):
            return "attach or detach databases: its rows go into the store's own file"
        if action == sqlite3.SQLITE_PRAGMA:
            name = one.lower()
            if name in _PRAGMAS or (name in _PRAGMAS_READ and two is None):
                return None
            return f"use PRAGMA {one}{'' if two is None else ' with a value'}: the store's settings are its own"
        if action == sqlite3.SQLITE_FUNCTION and two == "load_extension":
            return "load extensions"
        if action in _CHANGES and any(name is not None and name.lower().startswith(_OWN) for name in (one, two)):
            return f"change {two or one}: names that begin with {_OWN} are the store's"
        return None

    # ---- what a connection can do

    def cursor(self, factory: Any = None) -> Any:
        made = super().cursor(_Cursor if factory is None else factory)
        if self._lent:
            self._cursors.add(made)
        return made

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if not self._lent:
            return super().execute(sql, parameters)
        found: sqlite3.Cursor = self.cursor().execute(sql, parameters)
        return found

    def executemany(self, sql: str, parameters: Any, /) -> sqlite3.Cursor:
        if not self._lent:
            return super().executemany(sql, parameters)
        found: sqlite3.Cursor = self.cursor().executemany(sql, parameters)
        return found

    def executescript(self, _script: str, /) -> NoReturn:
        self.refuse_script()

    def refuse_script(self) -> NoReturn:
        """Refuse what would commit before it begins."""
        self._refuse("executescript(), which commits first; execute the statements one by one")

    def blobopen(self, table: str, *where: Any, **how: Any) -> Any:
        if table.lower().startswith(_OWN):  # SQLite asks no authorizer here
            self._refuse(f"blobopen {table}: names that begin with {_OWN} are the store's")
        return self.watched(lambda: super(Guest, self).blobopen(table, *where, **how))

    def commit(self) -> None:
        self._refuse_end(f"commit(): the store commits its rows together with its record; {_RETURN}")

    def rollback(self) -> None:
        self._refuse_end(f"rollback(): the store decides that together with its record; {_RETURN}")

    def close(self) -> None:
        if self._lent:
            self._refuse_end("close() the store's connection; it is taken back when the function returns")
        super().close()

    def __enter__(self) -> NoReturn:
        self._refuse(f"use its connection in a with statement, which commits at its end; {_RETURN}")

    def set_authorizer(self, *_what: Any, **_how: Any) -> NoReturn:
        self._refuse("set the authorizer of its connection")

    def set_progress_handler(self, *_what: Any, **_how: Any) -> NoReturn:
        self._refuse("set the progress handler of its connection; current_step() tells of a cancel")

    def enable_load_extension(self, *_what: Any, **_how: Any) -> NoReturn:
        self._refuse("load extensions")

    def load_extension(self, *_what: Any, **_how: Any) -> NoReturn:
        self._refuse("load extensions")

    def deserialize(self, *_what: Any, **_how: Any) -> NoReturn:
        self._refuse("deserialize a database over the store")

    def __setattr__(self, name: str, value: object) -> None:
        if self._lent and name in ("isolation_level", "autocommit"):
            self._refuse(f"set {name} of its connection, which may commit; {_RETURN}")
        super().__setattr__(name, value)

    def _refuse(self, what: str) -> NoReturn:
        raise TransactionError(f"a Transaction's function can't {what}")

    def _refuse_end(self, what: str) -> NoReturn:
        self._ended = TransactionError(f"a Transaction's function can't {what}")
        raise self._ended
