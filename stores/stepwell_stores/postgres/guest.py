"""The connection that a program's own code is lent for one transaction of the Postgres store.

It stands before the store's connection and is one for all that it is asked, but what would end the transaction or
outlive it. While it is lent, the statements of every cursor are looked at before they are sent: none may begin or end
a transaction, set what is not the transaction's own, or change a table of the store. What gets past that, such as a
function of the database, can change rows and not end the transaction: the server refuses that, and it is looked at
whether the transaction is still the one that was begun.

Savepoints are allowed: inside a transaction they end nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from psycopg import sql as composed
from psycopg.pq import TransactionStatus

from stepwell.errors import StepTimeoutError, TransactionError

from .address import psycopg
from .session import Session

__all__ = ["Guest", "Joined", "joined", "refusal_of"]

T = TypeVar("T")

_RETURN = "return to commit, raise an error to roll back"
_OWN = re.compile(
    r"\bstepwell_(runs|events|attempts|deleted|tags|waits|schema|key|tagged|waiting|fenced)\b", re.IGNORECASE
)
_READS = {"SELECT", "TABLE", "VALUES", "SHOW", "EXPLAIN"}
_CHANGES = {"INSERT", "UPDATE", "DELETE", "MERGE", "INTO"}
_ENDS = {"BEGIN", "START", "COMMIT", "END", "ABORT", "ROLLBACK"}
_OUTLIVES = {"LISTEN", "UNLISTEN", "DISCARD", "RESET", "LOAD", "DEALLOCATE"}
_KEPT = {"statement_timeout", "transaction_timeout", "lock_timeout", "synchronous_commit", "role"}
_STAYS = {"TEMP", "TEMPORARY", "HOLD"}

# Comments, texts, names in quotes, words and semicolons of SQL, as far as they have to be told apart.
_TOKEN = re.compile(
    r"""(?P<skip>--[^\n]*|/\*.*?\*/|\bE'(?:[^'\\]|''|\\.)*'|'(?:[^']|'')*'|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)
    |(?P<word>"(?:[^"]|"")*"|[A-Za-z_][\w$]*)|(?P<end>;)""",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_PLAIN = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE)\b[^;]*;?\s*\Z", re.IGNORECASE)


def refusal_of(text: str) -> str | None:
    """What a statement would do that a Transaction's function may not, in words; None: it may."""
    if _OWN.search(text) is None and _PLAIN.match(text) is not None:
        return None
    words: list[str] = []
    for match in (*_TOKEN.finditer(text), None):
        if match is not None and match["word"] is not None:
            words.append(match["word"].upper())
        elif match is None or match["end"] is not None:
            why = _refusal(words, text) if words else None
            if why is not None:
                return why
            words = []
    return None


def _refusal(words: list[str], text: str) -> str | None:
    first, second = words[0], words[1] if len(words) > 1 else ""
    ends = first in _ENDS or (first == "PREPARE" and second == "TRANSACTION")
    if ends and not (first == "ROLLBACK" and "TO" in words[1:3]):
        return f"{first}: the store commits its rows together with its record; {_RETURN}"
    if first in _OUTLIVES or (first == "SET" and second not in ("LOCAL", "CONSTRAINTS")):
        return f"{first} {second}: what it sets would outlive the transaction; SET LOCAL does not"
    if first == "SET" and second == "LOCAL" and words[2:] and words[2].lower() in _KEPT:
        return f"set {words[2].lower()}, which is the store's own"
    own = _OWN.search(text)
    if own is not None and not (first in (*_READS, "WITH") and _CHANGES.isdisjoint(words)):
        return f"change {own[0]}: it is the store's own"
    return None


_guests: dict[int, Guest] = {}  # by the id of the connection, while they are lent
_classes: dict[type, type] = {}


class Guest:
    """A connection as it is lent. What is not written here is the driver's own."""

    _deadline: float
    _ended: TransactionError | None

    def __init__(self, session: Session, seconds: float) -> None:
        fill = self.__dict__
        fill["_session"], fill["_raw"] = session, session.raw
        fill["_seconds"] = fill["_bound"] = seconds
        fill["_deadline"] = time.monotonic() + seconds
        fill["_ended"] = None
        fill["_spoiled"] = False

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What those who ask are told: it is a connection."""
        return psycopg.Connection

    # ---- for the store

    def lend(self, work: Callable[[Any], T]) -> T:
        """Call `work` with this connection, in the transaction that is open.

        Raises:
            Exception: what it raises.
            StepTimeoutError: it took longer than the seconds, whatever came of it.
            TransactionError: it tried to end the transaction, or lost it by an error, and hid that.
        """
        raw, session = self._raw, self._session
        begun = _transaction_of(session)
        before = (raw.cursor_factory, raw.server_cursor_factory, raw.row_factory)
        raw.cursor_factory, raw.server_cursor_factory = _guarded(before[0]), _guarded(before[1])
        _guests[id(raw)] = self
        try:
            result = work(self)
        except Exception as error:
            if self._over():
                raise _late() from error
            raise
        finally:
            del _guests[id(raw)]
            raw.cursor_factory, raw.server_cursor_factory, raw.row_factory = before
        if self._over():
            raise _late()
        if self._ended is not None:
            raise self._ended
        if raw.pgconn.transaction_status != TransactionStatus.INTRANS:
            raise TransactionError("after an error Postgres lets nothing be committed; let such an error pass")
        if _transaction_of(session) != begun:
            raise TransactionError("a Transaction's function ended the store's transaction")
        return result

    @property
    def spoiled(self) -> bool:
        """Whether the connection has something now that outlives the transaction."""
        return bool(self.__dict__["_spoiled"])

    # ---- while it is lent

    def _over(self) -> bool:
        return time.monotonic() > self._deadline

    def watched(self, query: Any, call: Callable[[], T]) -> T:
        """Send a statement, if it may be sent.

        Raises:
            psycopg.Error: as without.
            TransactionError: it may not be done here.
            StepTimeoutError: the time is over.
        """
        text = _text_of(query, self._raw)
        why = refusal_of(text)
        if why is not None:
            error = TransactionError(f"a Transaction's function can't {why}")
            if text.lstrip()[:8].upper().startswith(("COMMIT", "ROLLBACK", "END", "ABORT")):
                self.__dict__["_ended"] = error
            raise error
        words = text[:200].upper().split()
        if words and words[0] in ("CREATE", "DECLARE", "PREPARE") and not _STAYS.isdisjoint({*words, words[0]}):
            self.__dict__["_spoiled"] = True
        self._bind()
        try:
            return call()
        except psycopg.errors.QueryCanceled as error:
            if self._over():
                raise _late() from error
            raise

    def _bind(self) -> None:
        """Have the server interrupt the statement when the time is over, about."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise _late()
        if left < 0.8 * self.__dict__["_bound"]:
            if self._raw.pgconn.transaction_status != TransactionStatus.INTRANS:
                return
            self._session.run("SELECT set_config('statement_timeout', %s, true)", (str(max(1, int(left * 1000))),))
            self.__dict__["_bound"] = left

    # ---- what a connection can do

    def execute(self, query: Any, params: Any = None, **how: Any) -> Any:
        """Execute a statement on a new cursor."""
        return self._raw.execute(query, params, **how)

    def cursor(self, *what: Any, **how: Any) -> Any:
        """Make a cursor, whose statements are looked at."""
        return self._raw.cursor(*what, **how)

    @property
    def connection(self) -> Guest:
        """Itself, as for every connection."""
        return self

    @property
    def autocommit(self) -> bool:
        """False: it is in a transaction."""
        return False

    @property
    def adapters(self) -> Any:
        """How values are written and read. The connection is given up afterwards, with what was registered."""
        self.__dict__["_spoiled"] = True
        return self._raw.adapters

    def commit(self) -> None:
        """Refused."""
        self._refuse_end(f"commit(): the store commits its rows together with its record; {_RETURN}")

    def rollback(self) -> None:
        """Refused."""
        self._refuse_end(f"rollback(): the store decides that together with its record; {_RETURN}")

    def close(self) -> None:
        """Refused."""
        self._refuse_end("close() the store's connection; it is taken back when the function returns")

    def __enter__(self) -> NoReturn:
        self._refuse(f"use its connection in a with statement, which commits at its end; {_RETURN}")

    def __exit__(self, *_: object) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        if name in _REFUSED or name.startswith("tpc_"):
            self._refuse(f"use {name} of its connection")
        return getattr(self.__dict__["_raw"], name)

    def __setattr__(self, name: str, value: object) -> None:
        if name != "row_factory":
            self._refuse(f"set {name} of its connection; {_RETURN}")
        self._raw.row_factory = value

    def _refuse(self, what: str) -> NoReturn:
        raise TransactionError(f"a Transaction's function can't {what}")

    def _refuse_end(self, what: str) -> NoReturn:
        self.__dict__["_ended"] = error = TransactionError(f"a Transaction's function can't {what}")
        raise error


_REFUSED = {
    "cancel",
    "cancel_safe",
    "notifies",
    "pipeline",
    "set_autocommit",
    "set_deferrable",
    "set_isolation_level",
    "set_read_only",
}


class Joined:
    """A connection whose end is somebody else's, for what wants to end it: made by `joined`."""

    def __init__(self, connection: Any) -> None:
        self.__dict__["_guest"] = connection
        connection.execute("SAVEPOINT joined")

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What those who ask are told: it is a connection."""
        return psycopg.Connection

    def commit(self) -> None:
        """Keep what was done since the last `commit`, as far as the transaction itself is committed."""
        self._guest.execute("RELEASE SAVEPOINT joined")
        self._guest.execute("SAVEPOINT joined")

    def rollback(self) -> None:
        """Undo what was done since the last `commit`."""
        self._guest.execute("ROLLBACK TO SAVEPOINT joined")

    def close(self) -> None:
        """Undo what was not committed. The connection stays as it is."""
        self.rollback()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_guest"], name)

    def __setattr__(self, name: str, value: object) -> None:
        if name != "autocommit":
            setattr(self._guest, name, value)
        elif value:
            self._guest.autocommit = value


def joined(connection: Any) -> Any:
    """A connection for an ORM that commits and rolls back by itself, inside the transaction of a run's step.

    `commit()` keeps its rows for the transaction's own commit, which comes together with the record; `rollback()`
    undoes what it did since. Neither ends the transaction.

    Args:
        connection: what the function of a `Transaction` is given, on Postgres.

    Returns:
        A connection like it.
    """
    return Joined(connection)


class _Guarded:
    """What the cursors of a guest have before all else."""

    _conn: Any

    @property
    def connection(self) -> Any:
        return _guests.get(id(self._conn), self._conn)

    def _watched(self, query: Any, call: Callable[[], T]) -> T:
        guest = _guests.get(id(self._conn))
        if guest is None:
            raise TransactionError("the Transaction whose cursor this is has ended")
        return guest.watched(query, call)

    def execute(self, query: Any, params: Any = None, **how: Any) -> Any:
        cursor: Any = super()
        return self._watched(query, lambda: cursor.execute(query, params, **how))

    def executemany(self, query: Any, params: Any, **how: Any) -> Any:
        cursor: Any = super()
        return self._watched(query, lambda: cursor.executemany(query, params, **how))

    def stream(self, query: Any, params: Any = None, **how: Any) -> Any:
        cursor: Any = super()
        return self._watched(query, lambda: cursor.stream(query, params, **how))

    def copy(self, statement: Any, params: Any = None, **how: Any) -> Any:
        cursor: Any = super()
        return self._watched(statement, lambda: cursor.copy(statement, params, **how))


def _guarded(cls: Any) -> Any:
    """A class of cursors that are looked at."""
    if issubclass(cls, _Guarded):
        return cls
    made = _classes.get(cls)
    if made is None:
        made = _classes.setdefault(cls, type(cls.__name__, (_Guarded, cls), {}))
    return made


def _transaction_of(session: Session) -> str:
    found = session.one("SELECT pg_current_xact_id()::text")
    assert found is not None
    return str(found[0])


def _text_of(query: Any, raw: Any) -> str:
    """A statement as text; whatever else the driver takes it makes no text of before."""
    if isinstance(query, bytes):
        return query.decode(errors="replace")
    return query.as_string(raw) if isinstance(query, composed.Composable) else str(query)


def _late() -> StepTimeoutError:
    return StepTimeoutError("the transaction took too long: its run's row is locked meanwhile")
