"""One connection to a Postgres server, and the few things that a store does with it."""

# ruff: noqa: S608 - statements are put together from constants and a checked schema name; every value is a parameter

from __future__ import annotations

import contextlib
import select
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from attrs import frozen
from psycopg.pq import DiagnosticField, ExecStatus, Format, TransactionStatus
from psycopg.pq.abc import PGresult
from psycopg.rows import tuple_row

from .address import psycopg

__all__ = ["DURABLY", "Cursor", "Quick", "Session"]

Cursor: TypeAlias = psycopg.Cursor[tuple[Any, ...]]

LOCK_SECONDS = 10
"""How long a statement waits for a lock: a row is locked for as long as one transaction takes, no longer."""

# A role or a database may have it off, and a server whose standbys have to apply what is committed keeps its word.
DURABLY = """set_config('synchronous_commit',
    CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true)"""

_BEGIN = f"""BEGIN ISOLATION LEVEL {{1}}; SELECT {DURABLY},
    set_config('lock_timeout', '{LOCK_SECONDS}s', true), set_config('statement_timeout', '30s', true),
    set_config('idle_in_transaction_session_timeout', '60s', true),
    (SELECT version FROM "{{0}}".stepwell_schema)"""


_DONE = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)
_kept: WeakKeyDictionary[Any, set[bytes]] = WeakKeyDictionary()


def _known_of(raw: Any) -> set[bytes]:
    """The statements that a pool's connection knows already."""
    return _kept.setdefault(raw, set())


@frozen
class Quick:
    """A statement for `Session.quick`: the name under which the server keeps it, its text, and how values come."""

    name: bytes
    text: bytes
    formats: tuple[Format, ...]

    @classmethod
    def of(cls, text: str, formats: str) -> Quick:
        """Make one; `formats` has a letter for each value, b for those in binary."""
        name = f"stepwell_{sha256(text.encode()).hexdigest()[:32]}"
        return cls(name.encode(), text.encode(), tuple(Format(letter == "b") for letter in formats))


class Session:
    """A connection that one thread uses at a time. Each statement is a transaction, unless one was begun.

    Args:
        prepare: as the driver's: None keeps statements on the server that come often; False never does.
        borrowed: it belongs to a pool of the program's, which gets it back as it was.
    """

    __slots__ = ("_autocommit", "_known", "_poll", "prepare", "raw", "spoiled")

    def __init__(self, raw: psycopg.Connection[Any], *, prepare: bool | None, borrowed: bool = False) -> None:
        self.raw, self.prepare = raw, prepare
        self._autocommit = True
        self._poll: Any = None
        self._known: set[bytes] = _known_of(raw) if borrowed else set()
        self.spoiled = False  # it has something that must not meet the next who uses it
        if borrowed:
            if not self.at_rest:
                raw.rollback()
            self._autocommit = raw.autocommit
            if not self._autocommit:
                raw.autocommit = True

    def run(
        self, statement: Any, values: Sequence[Any] | Mapping[str, Any] = (), *, prepare: bool | None = None
    ) -> Cursor:
        """Execute a statement; results come in binary."""
        cursor = psycopg.Cursor(self.raw, row_factory=tuple_row)
        cursor.format = Format.BINARY
        return cursor.execute(statement, values, prepare=self.prepare if prepare is None else prepare)

    def quick(self, statement: Quick, values: Sequence[bytes | None]) -> PGresult:
        """Execute a statement with values that are encoded already, in one call of libpq.

        The driver's own way waits for the socket in several steps, and under many threads each of them waits for the
        interpreter as well. Here Ctrl-C has to wait for the server.
        """
        line = self.raw.pgconn
        if self.prepare is False:
            result = line.exec_params(statement.text, values, None, statement.formats, Format.BINARY)
        else:
            if statement.name not in self._known:
                made = line.prepare(statement.name, statement.text)
                if made.status != ExecStatus.COMMAND_OK and made.error_field(DiagnosticField.SQLSTATE) != b"42P05":
                    raise psycopg.errors.error_from_result(made)
                self._known.add(statement.name)
            given: Any = values  # the driver's own annotation has forgotten NULL
            result = line.exec_prepared(statement.name, given, statement.formats, Format.BINARY)
        if result.status not in _DONE:
            error = psycopg.errors.error_from_result(result)
            if error.sqlstate == "26000" and statement.name in self._known:  # its pool has had it forget
                self._known.clear()
                if self.at_rest:
                    return self.quick(statement, values)
            raise error
        return result

    def one(self, statement: Any, values: Sequence[Any] | Mapping[str, Any] = ()) -> tuple[Any, ...] | None:
        """The first row of a statement's answer."""
        return self.run(statement, values).fetchone()

    def begin(self, schema: str, *, snapshot: bool = False) -> int:
        """Begin a transaction whose commit is durable; gives the version of the tables.

        Args:
            snapshot: all statements see what was committed before it.
        """
        cursor = psycopg.Cursor(self.raw, row_factory=tuple_row)
        level = "REPEATABLE READ" if snapshot else "READ COMMITTED"
        cursor.execute(_BEGIN.format(schema, level).encode())  # no values: both statements go in one message
        cursor.nextset()
        row = cursor.fetchone()
        return 0 if row is None or row[-1] is None else int(row[-1])

    def commit(self) -> bool:
        """Commit; False when the server rolled back, because a statement had failed."""
        return self.raw.execute("COMMIT").statusmessage == "COMMIT"

    def rollback(self) -> None:
        """End the transaction without a trace, or the connection when that can't be done."""
        if not self.lost and not self.at_rest:
            try:
                self.raw.execute("ROLLBACK")
            except psycopg.Error:
                self.close()

    @property
    def lost(self) -> bool:
        """Whether the connection is gone."""
        return bool(self.raw.closed)

    @property
    def at_rest(self) -> bool:
        """Whether no transaction is open and no statement under way."""
        return self.raw.pgconn.transaction_status == TransactionStatus.IDLE

    def alive(self) -> bool:
        """Whether the other side has not ended the connection, as far as its socket shows."""
        try:
            if self._poll is None:
                self._poll = _Readable(self.raw.pgconn.socket)
            if self._poll():
                self.raw.pgconn.consume_input()  # a notice, perhaps
                return not self._poll() and not self.lost
        except (psycopg.Error, OSError, ValueError):
            return False
        return not self.lost

    def hand_back(self) -> None:
        """Leave it as it was borrowed."""
        with contextlib.suppress(psycopg.Error):
            self.rollback()
            if not self.lost and self.raw.autocommit != self._autocommit:
                self.raw.autocommit = self._autocommit

    def close(self) -> None:
        """End the connection."""
        with contextlib.suppress(psycopg.Error):
            self.raw.close()


class _Readable:
    """Whether there is something to read on an idle socket: its end, mostly."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._poll = None
        if hasattr(select, "poll"):
            self._poll = select.poll()
            self._poll.register(fd, select.POLLIN)

    def __call__(self) -> bool:
        if self._poll is not None:
            return bool(self._poll.poll(0))
        return bool(select.select([self._fd], [], [], 0)[0])
