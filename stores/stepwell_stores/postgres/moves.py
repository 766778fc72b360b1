"""Runs that come into a Postgres database and leave it; see `stepwell.moves`.

The records of a run that is to come lie where they will stay. As long as it has no row in `stepwell_runs` nobody sees
them, so to land it is to write that row.

Who takes an id for a run that is to come, or lands it, inserts a row of that id first: so of him and of those who
create, delete or take the same one another waits for him, as the row's key is unique. Others lock what
`stepwell_deleted` says of the run, and no other row, so that nobody waits for each other.
"""

# ruff: noqa: S608 - statements are put together from constants and a checked schema name; every value is a parameter

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from stepwell.errors import InvalidInputError, NotFoundError
from stepwell.store import Arrival, Departure, RunHead

from ..bell import Bell
from ..move_rules import attempts_of, check_landing, check_staged, is_turned_away, read_arrival, same_run, standing
from ..rules import check_limit, check_run_id
from .connections import Connections
from .hints import Hints
from .rows import Row, Statements, head_values, sets_of_head
from .session import Session

__all__ = ["MoveStatements", "PostgresMoves"]


class MoveStatements:
    """The statements of moves for one schema."""

    def __init__(self, sql: Statements) -> None:
        t = sql.table
        self.hold = f"""INSERT INTO {t}runs (run_id, incarnation, next_seq, fence, born, closed, status, workflow,
                version, created, updated, waiting, tags)
            VALUES (%s, -1, 0, 0, 0, false, '', '', '', 0, 0, '[]', '[]') ON CONFLICT (run_id) DO NOTHING RETURNING 1"""
        self.leave = f"DELETE FROM {t}runs WHERE run_id = %s AND incarnation = -1"
        self.arrival = f"SELECT arrival FROM {t}deleted WHERE run_id = %s AND arrival IS NOT NULL FOR UPDATE"
        self.arrive = f"""INSERT INTO {t}deleted (run_id, fence, created, freed, taken, arrival)
            VALUES (%(run)s, 0, %(created)s, 0, 0, %(arrival)s)
            ON CONFLICT (run_id) DO UPDATE SET arrival = excluded.arrival"""
        self.arrivals = f"""SELECT arrival FROM {t}deleted WHERE arrival IS NOT NULL AND run_id > %s
            ORDER BY run_id LIMIT %s"""
        self.count = f"SELECT coalesce(max(seq) + 1, 0) FROM {t}events WHERE run_id = %s AND incarnation = %s"
        self.stage = f"""INSERT INTO {t}events
            SELECT %(run)s::text, %(incarnation)s::integer, %(seq)s::integer + b.i - 1, b.body
            FROM unnest(%(bodies)b::bytea[]) WITH ORDINALITY AS b (body, i)
            ON CONFLICT (run_id, incarnation, seq) DO UPDATE SET body = excluded.body"""
        self.forget = f"""DELETE FROM {t}attempts WHERE run_id = %(run)s AND incarnation = %(incarnation)s
            AND seq >= %(seq)s AND seq < %(end)s"""
        self.attempts = f"""INSERT INTO {t}attempts
            SELECT %(run)s::text, a.id, %(incarnation)s::integer, a.seq
            FROM unnest(%(ids)s::text[], %(seqs)s::integer[]) AS a (id, seq)
            ON CONFLICT (run_id, attempt_id) DO UPDATE SET incarnation = excluded.incarnation, seq = excluded.seq"""
        self.staged = f"""SELECT body FROM {t}events WHERE run_id = %(run)s AND incarnation = %(incarnation)s
            AND seq >= %(seq)s
            AND EXISTS (SELECT FROM {t}deleted d WHERE d.run_id = %(run)s AND d.arrival IS NOT NULL)
            AND NOT EXISTS (SELECT FROM {t}runs r WHERE r.run_id = %(run)s) ORDER BY seq LIMIT %(limit)s"""
        tables = ("events", "attempts")
        kept = "unnest(%(counts)s::integer[]) WITH ORDINALITY AS k (count, i)"
        self.beyond = [
            f"""DELETE FROM {t}{name} x WHERE x.run_id = %(run)s
                AND NOT EXISTS (SELECT FROM {kept} WHERE x.incarnation = k.i - 1 AND x.seq < k.count)"""
            for name in tables
        ]
        self.all = [f"DELETE FROM {t}{name} WHERE run_id = %s" for name in tables]
        self.fence = f"SELECT fence FROM {t}deleted WHERE run_id = %s"
        self.land = f"""UPDATE {t}runs SET incarnation = %(incarnation)s, next_seq = %(seq)s, fence = %(fence)s,
            born = %(fence)s, closed = %(closed)s, {sets_of_head()} WHERE run_id = %(run)s"""
        self.landed = f"UPDATE {t}deleted SET arrival = NULL, departure = NULL WHERE run_id = %s"
        self.turned = f"UPDATE {t}deleted SET arrival = NULL WHERE run_id = %s"
        self.empty = f"DELETE FROM {t}deleted WHERE run_id = %s AND fence = 0 AND departure IS NULL"
        self.departure = f"SELECT departure FROM {t}deleted WHERE run_id = %s"
        self.depart = f"UPDATE {t}deleted SET departure = %(departure)s WHERE run_id = %(run)s"
        self.closing = f"UPDATE {t}runs SET closed = true WHERE run_id = %s"


class PostgresMoves:
    """Arrivals and departures, each in a transaction."""

    if TYPE_CHECKING:  # what the store itself has
        place: str
        _connections: Connections
        _sql: Statements
        _move_sql: MoveStatements
        _bell: Bell
        _hints: Hints
        _now: Callable[[], dict[str, int]]

    def arrive(self, arrival: Arrival) -> Arrival | None:
        """Take a run's id for a run that is to come; see the port."""
        run_id, sql = arrival.run.run_id, self._move_sql
        check_run_id(run_id)

        def work(session: Session) -> Arrival | None:
            if session.one(sql.hold, (run_id,)) is None:
                return None
            stands = standing(self._arrival(session, run_id), arrival)
            text = msgspec.json.encode(stands).decode()
            session.run(sql.arrive, {"run": run_id, "created": arrival.run.head.created, "arrival": text})
            session.run(sql.leave, (run_id,))
            return stands

        return self._connections.transaction(work)

    def stage(self, run_id: str, token: str, incarnation: int, seq: int, lines: Sequence[bytes]) -> None:
        """Keep records of a run that is to come; see the port."""
        sql = self._move_sql

        def work(session: Session) -> None:
            if self._arrival(session, run_id, token) is None:
                raise NotFoundError(f"no run {run_id!r} is arriving under the token {token!r}")
            before = self._count(session, run_id, incarnation - 1) if incarnation else 1
            if not before or seq > self._count(session, run_id, incarnation):
                raise InvalidInputError(f"run {run_id!r}, incarnation {incarnation}: nothing is staged before {seq}")
            check_staged(run_id, seq, lines)
            where = {"run": run_id, "incarnation": incarnation, "seq": seq, "end": seq + len(lines)}
            session.run(sql.forget, where)
            session.run(sql.stage, {**where, "bodies": list(lines)})
            named = dict(attempts_of(lines))
            if named:
                session.run(sql.attempts, {**where, "ids": list(named), "seqs": list(named.values())})

        self._connections.transaction(work)

    def staged(self, run_id: str, incarnation: int, from_seq: int = 0, *, limit: int) -> list[bytes]:
        """Records of a run that is to come; see the port."""
        check_limit(limit)
        where = {"run": run_id, "incarnation": incarnation, "seq": from_seq, "limit": limit}
        return self._connections.read(
            lambda session: [body for (body,) in session.run(self._move_sql.staged, where).fetchall()]
        )

    def land(self, run_id: str, token: str) -> bool:
        """Make a run of what was staged; see the port."""
        sql = self._move_sql

        def work(session: Session) -> bool:
            if session.one(sql.hold, (run_id,)) is None:
                return False
            arrival = self._arrival(session, run_id, token)
            if arrival is None:
                session.run(sql.leave, (run_id,))
                return False
            run = arrival.run
            counts = [self._count(session, run_id, number) for number in range(run.incarnation + 1)]
            check_landing(arrival, counts)
            for statement in sql.beyond:
                session.run(statement, {"run": run_id, "counts": list(arrival.counts)})
            buried = session.one(sql.fence, (run_id,))
            assert buried is not None  # the arrival is in that row
            where = {"run": run_id, "incarnation": run.incarnation, "seq": run.seq, "closed": run.closed}
            session.run(sql.land, {**where, "fence": max(run.fence, buried[0] + 1), **head_values(run.head)})
            session.run(sql.landed, (run_id,))
            session.run(sql.empty, (run_id,))
            return True

        landed = self._connections.transaction(work)
        if landed:
            self._bell.ring()
            self._bell.due.ring()
            self._hints.send(self._connections.write, f"due {run_id}")
        return landed

    def turn_away(self, arrival: Arrival) -> bool:
        """Forget a run that is to come; see the port."""
        run_id, sql = arrival.run.run_id, self._move_sql

        def work(session: Session) -> bool:
            if not is_turned_away(self._arrival(session, run_id), arrival):
                return False
            for statement in (*sql.all, sql.turned, sql.empty):
                session.run(statement, (run_id,))
            return True

        return self._connections.transaction(work)

    def arrivals(self, *, after: str | None = None, limit: int) -> list[Arrival]:
        """A page of the runs that are to come; see the port."""
        check_limit(limit)
        found = self._connections.read(
            lambda session: session.run(self._move_sql.arrivals, (after or "", limit)).fetchall()
        )
        return [read_arrival(text) for (text,) in found]

    def depart(self, seen: RunHead, departure: Departure) -> bool:
        """Remove a run that goes on elsewhere; see the port."""
        run_id, mark, sql = seen.run_id, msgspec.json.encode(departure).decode(), self._move_sql
        check_run_id(run_id)

        def work(session: Session) -> bool:
            row = session.one(self._sql.lock, {"run": run_id, **self._now()})
            if row is None:
                gone = session.one(sql.departure, (run_id,))
                return gone is not None and bool(gone[0] == mark)
            there = Row(*row)
            if not same_run(there.run_head(self.place), seen):
                return False
            if not there.closed:
                session.run(sql.closing, (run_id,))
            session.one(self._sql.delete, {"run": run_id, "incarnation": there.incarnation, "fence": there.fence})
            session.run(sql.depart, {"run": run_id, "departure": mark})
            return True

        departed = self._connections.transaction(work)
        self._bell.ring()
        if departed:
            self._hints.send(self._connections.write, f"run {run_id}")
        return departed

    def _arrival(self, session: Session, run_id: str, token: str | None = None) -> Arrival | None:
        """What arrives under an id, locked for the transaction."""
        row = session.one(self._move_sql.arrival, (run_id,))
        if row is None:
            return None
        found = read_arrival(row[0])
        return found if token in (None, found.token) else None

    def _count(self, session: Session, run_id: str, incarnation: int) -> int:
        row = session.one(self._move_sql.count, (run_id, incarnation))
        return 0 if row is None else int(row[0])
