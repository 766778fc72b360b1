"""An owner's append on Postgres: one statement, which moves the run on if it is where the owner says.

The appends of threads that wait for each other share a statement, a round trip and a commit. Each is compared and
written by itself, so that one that is refused keeps none of the others from being written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any

import msgspec

from stepwell.errors import CorruptHistoryError, NotFoundError, StoreError
from stepwell.store import AlreadyCommitted, AppendOutcome, Committed, Head, Then

from ..group_commit import GroupCommit, _copied, _Write
from ..liveness import ForkAware, watch_forks
from ..outcomes import NotWrittenError
from .address import psycopg
from .history import row_of
from .rows import Statements, head_values
from .session import Session

__all__ = ["Append", "AppendGroup", "Appender"]

_BYTEA = 17  # the number of the type
_ARRAY, _PAIR, _LENGTH = Struct("!iiI"), Struct("!ii"), Struct("!i")
_NOTHING = dict.fromkeys(head_values(Head("pending", "", "", 0, 0)))


class Append:
    """One append: where, under which fence, and what.

    Args:
        at: run, incarnation, fence and seq, as the owner says.
    """

    __slots__ = ("appender", "at", "head", "lines", "release", "then")

    def __init__(
        self,
        appender: Appender,
        at: tuple[str, int, int, int],
        lines: list[bytes],
        head: Head | None = None,
        then: Then = "open",
        release: bool = False,
    ) -> None:
        self.appender, self.at, self.lines, self.head = appender, at, lines, head
        self.then, self.release = then, release

    def __call__(self, session: Session) -> AppendOutcome:
        return self.appender.append(session, self)

    @property
    def done(self) -> Committed:
        """What it comes to when it is written."""
        return Committed(self.at[3], self.at[1])

    def asked(self) -> dict[str, Any]:
        """It as a row."""
        run_id, incarnation, fence, seq = self.at
        closed = self.then == "closed"
        values = _NOTHING if self.head is None else head_values(self.head)
        return {
            "run": run_id,
            "incarnation": incarnation,
            "fence": fence,
            "seq": seq,
            "n": len(self.lines),
            "sets": self.head is not None,
            "frees": self.release or closed,
            "closed": closed,
            **values,
        }


class Appender:
    """Writes appends in the tables of one schema."""

    def __init__(self, statements: Statements, place: str) -> None:
        self.sql, self.place = statements, place

    def append(self, session: Session, one: Append) -> AppendOutcome:
        """Write one append, or say why it can't be."""
        try:
            if self.moved(session, one):
                return one.done
        except psycopg.errors.UniqueViolation as e:
            if self._there(session, one):
                return AlreadyCommitted(one.at[3], one.at[1])
            raise CorruptHistoryError(
                f"{self.place}, table stepwell_events, run {one.at[0]!r}, incarnation {one.at[1]}: has a record "
                f"{one.at[3]} that its row does not know of; restore it from a backup",
                place=self.place,
            ) from e
        return self.refusal(session, one)

    def moved(self, session: Session, one: Append) -> bool:
        """Move a run on, if it is where its owner says."""
        if len(one.lines) == 1 and one.head is None and one.then == "open" and not one.release:
            run_id, incarnation, fence, seq = one.at
            values = (run_id.encode(), b"%d" % incarnation, b"%d" % fence, b"%d" % seq, one.lines[0])
            return session.quick(self.sql.append_one, values).command_tuples == 1
        return bool(self.many(session, [one]))

    def many(self, session: Session, appends: Sequence[Append]) -> set[int]:
        """Write those that are where their owners say; which they are."""
        numbers: list[int] = []
        places: list[int] = []
        bodies: list[bytes] = []
        for i, one in enumerate(appends, 1):
            numbers += [i] * len(one.lines)
            places += range(len(one.lines))
            bodies += one.lines
        asked = msgspec.json.encode([one.asked() for one in appends])
        arrays = (_integers(numbers), _integers(places), _bodies(bodies))
        found = session.quick(self.sql.append_many, (asked, *arrays))
        return {int.from_bytes(found.get_value(row, 0) or b"") - 1 for row in range(found.ntuples)}

    def refusal(self, session: Session, one: Append) -> AppendOutcome:
        """Say why an append hit no row."""
        run_id, incarnation, fence, seq = one.at
        # the records first: they stay as they are, and the row may move on meanwhile
        there = bool(one.lines) and self._there(session, one)
        row = row_of(session, self.sql, run_id, {"clock": 0})
        if row is None:
            raise NotFoundError(f"no run {run_id!r}")
        if there:
            return AlreadyCommitted(seq, incarnation)
        reason = row.position.refuses_owner(incarnation, seq, fence)
        if reason is None:
            raise NotWrittenError(f"{self.place}: run {run_id!r} was written to meanwhile; try again")
        return reason

    def _there(self, session: Session, one: Append) -> bool:
        run_id, incarnation, _, seq = one.at
        there = session.run(self.sql.bodies, (run_id, incarnation, seq, seq + len(one.lines)))
        return [body for (body,) in there] == one.lines


def _integers(numbers: Sequence[int]) -> bytes:
    """An array of integers, as text."""
    return b"{%b}" % ",".join(map(str, numbers)).encode()


def _bodies(bodies: Sequence[bytes]) -> bytes:
    """An array of bytea, in binary: dimensions, whether there are NULLs, the type, length and lower bound."""
    if not bodies:
        return _ARRAY.pack(0, 0, _BYTEA)
    parts = [_ARRAY.pack(1, 0, _BYTEA), _PAIR.pack(len(bodies), 1)]
    for body in bodies:
        parts += (_LENGTH.pack(len(body)), body)
    return b"".join(parts)


class AppendGroup(GroupCommit[Session], ForkAware):
    """Appends of several threads in one statement.

    Args:
        write: runs a function with a session, each of whose statements is a transaction of its own.
    """

    def __init__(self, appender: Appender, write: Callable[[Callable[[Session], Any]], Any]) -> None:
        super().__init__(write)
        self._appender = appender
        watch_forks(self)

    def after_fork_in_child(self) -> None:
        """The threads that wait are the parent's."""
        self.forget()

    def _together(self, group: list[_Write[Session]]) -> bool:
        """Write all in one transaction; False when each has to be tried alone."""
        appends = [write.work for write in group if isinstance(write.work, Append)]
        assert len(appends) == len(group)
        # in one order, or two groups of two processes could wait for each other
        appends.sort(key=lambda one: one.at)
        try:
            hit = self._transact(lambda session: self._appender.many(session, appends))
        except StoreError as error:
            for write in group:
                write.ended(None, _copied(error))
            return True
        except Exception:  # noqa: BLE001 - it is met again
            return False
        done = {id(appends[i]) for i in hit}
        for write in group:
            if isinstance(write.work, Append) and id(write.work) in done:
                write.ended(write.work.done)
            else:
                self._write([write])
        return True
