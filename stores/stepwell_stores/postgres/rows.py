"""The statements of the Postgres store, and its rows as heads."""

# ruff: noqa: S608 - statements are put together from constants and a checked schema name; every value is a parameter

from __future__ import annotations

import json
import re
from hashlib import sha256
from typing import Any

import msgspec

from stepwell.errors import CorruptHistoryError
from stepwell.store import Head, HeadFilter, RunHead

from ..rules import Position, blocked_from, blocked_json, status_from, waiting_from, waiting_json
from .schema import SCHEMA_VERSION
from .session import DURABLY, LOCK_SECONDS, Quick

__all__ = ["HEAD", "Row", "Statements", "head_values", "key_of", "sets_of_head"]

HEAD = ("status", "due", "waiting", "blocked", "blocked_by", "workflow", "version", "created", "tags", "updated")
"""The columns that a head fills."""

_TYPES = {"due": "bigint", "created": "bigint", "updated": "bigint"}
_SETS = ", ".join(f"{name} = %({name})s" for name in HEAD)
_FREE = "owner = NULL, lease_until = NULL, lease_token = NULL"
_COLUMNS = """r.run_id, r.incarnation, r.next_seq, r.fence, r.born, r.closed, r.status, r.workflow, r.version,
    r.created, r.updated, r.due, r.waiting, r.tags, r.blocked, r.owner, r.lease_until, r.lease_token"""
# What a statement that is a transaction of its own sets for itself; and when a newer stepwell has changed the tables
# meanwhile, it fails by a division by zero, of which there is no other.
_SETTINGS = f"""settings AS MATERIALIZED (SELECT {DURABLY},
    set_config('lock_timeout', '{LOCK_SECONDS}s', true), 1 / (v.version = {SCHEMA_VERSION})::integer
    FROM {{t}}schema v)"""
_APPENDS = """run text, incarnation integer, fence bigint, seq integer, n integer, sets boolean, frees boolean,
    closed boolean, status text, due bigint, waiting text, blocked text, blocked_by text, workflow text,
    version text, created bigint, tags text, updated bigint"""
_DUE = "NOT r.closed AND r.lease_until IS NULL AND r.blocked_by IS NULL AND r.due IS NOT NULL"
_BLOCKED = "NOT closed AND lease_until IS NULL AND blocked_by IS NOT NULL AND due IS NOT NULL"


class Row(msgspec.Struct, frozen=True):
    """A row of `stepwell_runs`, as it is read: the JSON columns still as text. `live`: somebody holds its lease."""

    run_id: str
    incarnation: int
    seq: int
    fence: int
    born: int
    closed: bool
    status: str
    workflow: str
    version: str
    created: int
    updated: int
    due: int | None
    waiting: str
    tags: str
    blocked: str | None
    owner: str | None
    lease_until: int | None
    lease_token: str | None
    live: bool

    @property
    def position(self) -> Position:
        """Where the run stands."""
        return Position(self.incarnation, self.seq, self.fence, self.closed)

    def run_head(self, place: str) -> RunHead:
        """The head that the port speaks of.

        Raises:
            CorruptHistoryError: a column doesn't hold what the store writes there.
        """
        try:
            head = Head(
                status_from(self.status),
                self.workflow,
                self.version,
                self.created,
                self.updated,
                self.due,
                () if self.waiting == "[]" else waiting_from(json.loads(_read(self.waiting))),
                {} if self.tags == "[]" else dict(json.loads(_read(self.tags))),
                None if self.blocked is None else blocked_from(json.loads(self.blocked)),
            )
        except (ValueError, KeyError, TypeError) as e:
            raise CorruptHistoryError(
                f"{place}, table stepwell_runs, run {self.run_id!r}: the row is damaged: {e}", place=place
            ) from e
        until = self.lease_until if self.live else None
        return RunHead(self.run_id, self.incarnation, self.seq, self.fence, self.closed, until, head)


def head_values(head: Head) -> dict[str, Any]:
    """A head as the values of its columns."""
    return {
        "status": head.status,
        "due": head.due,
        "waiting": _written(waiting_json(head.waiting)),
        "blocked": blocked_json(head.blocked),
        "blocked_by": None if head.blocked is None else json.dumps(head.blocked.fingerprints),
        "workflow": head.workflow,
        "version": head.version,
        "created": head.created,
        "tags": _written(json.dumps(list(head.tags.items()))) if head.tags else "[]",
        "updated": head.updated,
    }


def sets_of_head() -> str:
    """What an UPDATE sets of `head_values`."""
    return _SETS


# Postgres reads no JSON with a NUL in it. So one is written as \u001a0, and \u001a itself as \u001a1.
_ESCAPE = re.compile(r"\\(u0000|u001a[01]?|.)")
_WRITTEN = {"u0000": r"\u001a0", "u001a": r"\u001a1", "u001a0": r"\u001a10", "u001a1": r"\u001a11"}
_READ = {"u001a0": r"\u0000", "u001a1": r"\u001a"}


def _written(text: str) -> str:
    """JSON as the database takes it."""
    if r"\u00" not in text:
        return text
    return _ESCAPE.sub(lambda found: _WRITTEN.get(found[1], found[0]), text)


def _read(text: str) -> str:
    """What was given to `_written`."""
    if r"\u001a" not in text:
        return text
    return _ESCAPE.sub(lambda found: _READ.get(found[1], found[0]), text)


def key_of(text: str) -> str:
    """A tag's name or value, or a signal, as the side tables hold it; as `stepwell_key` does."""
    literal = _written(json.dumps(text))
    return literal if len(literal) <= 600 else literal[:500] + sha256(literal.encode()).hexdigest()


class Statements:
    """The statements for one schema.

    Args:
        clocked: instants come from the caller as `clock`, and not from the server.
    """

    def __init__(self, schema: str, *, clocked: bool) -> None:
        t = f'"{schema}".stepwell_'
        now = "%(clock)s::bigint" if clocked else "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
        settings = _SETTINGS.format(t=t)
        until = f"{now} + %(ttl)s::bigint"
        self.tables = [f"{t}{name}" for name in ("runs", "events", "attempts", "deleted", "tags", "waits", "schema")]
        self.table, self.now = t, now
        self.live = f"coalesce(NOT r.closed AND r.lease_until > {now}, false)"
        self.columns = f"{_COLUMNS}, {self.live}"
        self._appends(settings)
        self._runs(settings, until)
        self._leases(settings, until)
        self._ends(settings)
        self._reading()

    def _appends(self, settings: str) -> None:
        """Of owners."""
        t = self.table
        append_one = f"""WITH {settings}, moved AS (
            UPDATE {t}runs AS r SET next_seq = r.next_seq + 1 FROM settings
            WHERE r.run_id = $1 AND r.incarnation = $2 AND r.fence = $3 AND r.next_seq = $4 AND NOT r.closed
            RETURNING r.run_id, r.incarnation, r.next_seq - 1)
            INSERT INTO {t}events SELECT moved.*, $5::bytea FROM moved"""
        sets = ", ".join(f"{n} = CASE WHEN a.sets THEN a.{n} ELSE r.{n} END" for n in HEAD)
        frees = ", ".join(
            f"{n} = CASE WHEN NOT a.frees THEN r.{n} END" for n in ("owner", "lease_until", "lease_token")
        )
        append_many = f"""WITH {settings}, asked AS MATERIALIZED (
                SELECT a.* FROM ROWS FROM (json_to_recordset($1::json) AS ({_APPENDS}))
                WITH ORDINALITY AS a ({_names(_APPENDS)}, i)),
            moved AS (UPDATE {t}runs AS r SET next_seq = a.seq + a.n, closed = a.closed, {sets}, {frees}
                FROM asked AS a, settings
                WHERE r.run_id = a.run AND r.incarnation = a.incarnation AND r.fence = a.fence
                AND r.next_seq = a.seq AND NOT r.closed
                RETURNING a.i, a.run, a.incarnation, a.seq),
            put AS (INSERT INTO {t}events SELECT m.run, m.incarnation, m.seq + b.at, b.body
                FROM unnest($2::integer[], $3::integer[], $4::bytea[]) AS b (i, at, body) JOIN moved AS m ON m.i = b.i)
            SELECT i FROM moved"""
        self.append_one = Quick.of(append_one, "ttttb")
        self.append_many = Quick.of(append_many, "tttb")

    def _runs(self, settings: str, until: str) -> None:
        """That make and move runs, in a transaction."""
        t = self.table
        names = ", ".join(HEAD)
        values = ", ".join(f"%({name})s::{_TYPES.get(name, 'text')}" for name in HEAD)
        bodies = "unnest(%(bodies)b::bytea[]) WITH ORDINALITY AS b (body, i)"
        lease = f"%(owner)s::text, CASE WHEN %(owner)s::text IS NOT NULL THEN {until} END, %(token)s::text"
        self.create = f"""WITH {settings}, made AS (
                INSERT INTO {t}runs (run_id, incarnation, next_seq, fence, born, closed, owner, lease_until,
                    lease_token, {names})
                SELECT %(run)s::text, 0, %(n)s::integer, %(fence)s::bigint, %(fence)s::bigint, %(closed)s::boolean,
                    {lease}, {values} FROM settings
                ON CONFLICT (run_id) DO NOTHING RETURNING run_id, lease_until),
            put AS (INSERT INTO {t}events SELECT m.run_id, 0, b.i - 1, b.body FROM made AS m, {bodies})
            SELECT lease_until FROM made"""
        self.find = f"SELECT {self.columns} FROM {t}runs r WHERE r.run_id = %(run)s"
        self.lock = f"{self.find} FOR UPDATE"
        self.first = f"SELECT body FROM {t}events WHERE run_id = %s AND incarnation = %s AND seq = %s"
        self.absent = f"""SELECT EXISTS (SELECT FROM {t}runs WHERE run_id = %(run)s), d.departure, d.arrival, d.fence
            FROM (VALUES (1)) AS one LEFT JOIN {t}deleted d ON d.run_id = %(run)s"""
        self.attempt = f"SELECT incarnation, seq FROM {t}attempts WHERE run_id = %s AND attempt_id = %s"
        put = f"""put AS (INSERT INTO {t}events
                SELECT %(run)s::text, %(incarnation)s::integer, %(seq)s::integer + b.i - 1, b.body FROM {bodies}),
            kept AS (INSERT INTO {t}attempts
                VALUES (%(run)s::text, %(attempt)s::text, %(incarnation)s::integer, %(seq)s::integer))"""
        self.outside = f"""WITH {put} UPDATE {t}runs SET next_seq = %(seq)s::integer + %(n)s::integer,
            due = least(due, %(due)s::bigint) WHERE run_id = %(run)s"""
        self.sooner = f"UPDATE {t}runs SET due = least(due, %(due)s::bigint) WHERE run_id = %(run)s"
        self.reopen = f"""WITH {put} UPDATE {t}runs SET incarnation = %(incarnation)s, next_seq = %(n)s::integer,
            fence = %(fence)s, closed = false, {_FREE}, {_SETS} WHERE run_id = %(run)s"""

    def _leases(self, settings: str, until: str) -> None:
        """That take and give up leases."""
        t, now = self.table, self.now
        self.grant = f"""UPDATE {t}runs SET fence = %(fence)s, owner = %(owner)s, lease_until = {until},
            lease_token = %(token)s WHERE run_id = %(run)s RETURNING lease_until"""
        self.claim = f"""WITH {settings} UPDATE {t}runs r SET fence = r.fence + 1, owner = %(owner)s,
            lease_until = {until}, lease_token = '' FROM settings
            WHERE r.run_id = %(run)s AND NOT r.closed AND (r.lease_until IS NULL OR r.lease_until <= {now})
            RETURNING r.incarnation, r.fence, r.next_seq, r.lease_until"""
        self.renew = f"""WITH {settings} UPDATE {t}runs r SET lease_until = {until} FROM settings
            WHERE r.run_id = %(run)s AND r.fence = %(fence)s AND r.lease_until IS NOT NULL
            RETURNING r.incarnation, r.next_seq, r.lease_until"""
        self.release = f"""WITH {settings} UPDATE {t}runs r SET {_FREE} FROM settings
            WHERE r.run_id = %(run)s AND r.fence = %(fence)s AND r.lease_until IS NOT NULL"""
        self.claim_due = self._claim_due(t, settings, now, until)
        self.next_due = f"""SELECT least(
            (SELECT min(r.due) FROM {t}runs r WHERE {_DUE}),
            (SELECT min(least(lease_until, due)) FROM {t}runs WHERE lease_until <= {now} AND blocked_by IS NULL))"""

    def _ends(self, settings: str) -> None:
        """That remove runs, and what stays of them."""
        t = self.table
        self.delete = f"""WITH {settings}, gone AS (DELETE FROM {t}runs r USING settings
                WHERE r.run_id = %(run)s AND r.closed AND r.incarnation = %(incarnation)s
                AND (%(fence)s::bigint IS NULL OR r.fence = %(fence)s::bigint)
                RETURNING r.run_id, r.fence, r.created),
            freed AS (DELETE FROM {t}events x USING gone WHERE x.run_id = gone.run_id
                RETURNING octet_length(x.body) AS bytes),
            attempts AS (DELETE FROM {t}attempts x USING gone WHERE x.run_id = gone.run_id),
            kept AS (INSERT INTO {t}deleted (run_id, fence, created, freed, taken)
                    SELECT run_id, fence, created, (SELECT sum(bytes) FROM freed), pg_table_size('{t}events') FROM gone
                ON CONFLICT (run_id) DO UPDATE SET fence = excluded.fence, created = excluded.created,
                    freed = excluded.freed, taken = excluded.taken)
            SELECT 1 FROM gone"""
        self.created = f"""SELECT created FROM {t}runs WHERE run_id = %(run)s
            UNION ALL SELECT created FROM {t}deleted WHERE run_id = %(run)s LIMIT 1"""

    def _reading(self) -> None:
        """That read records."""
        t = self.table
        self.tail = f"SELECT next_seq FROM {t}runs WHERE run_id = %s"
        of = f"FROM {t}events WHERE run_id = %s AND incarnation = %s AND seq >= %s AND seq < %s ORDER BY seq"
        self.bodies, self.numbers = f"SELECT body {of}", f"SELECT seq {of}"
        self.read = Quick.of(self._read(t), "tttt")

    @staticmethod
    def _claim_due(t: str, settings: str, now: str, until: str) -> str:
        lock = "LIMIT %(limit)s FOR UPDATE SKIP LOCKED"
        # whether none of the fingerprints, each as its JSON literal, is among those that a run is blocked by
        fits = """cardinality(%(known)s::text[]) > 0
            AND NOT EXISTS (SELECT FROM unnest(%(known)s::text[]) AS k (text) WHERE strpos({}, k.text) > 0)"""
        return f"""WITH RECURSIVE {settings},
            -- the different values of blocked_by, each found by one step in the index from the one before
            kinds (kind) AS (
                (SELECT blocked_by FROM {t}runs WHERE {_BLOCKED} ORDER BY blocked_by LIMIT 1)
                UNION ALL
                SELECT (SELECT blocked_by FROM {t}runs WHERE {_BLOCKED} AND blocked_by > kind
                    ORDER BY blocked_by LIMIT 1) FROM kinds WHERE kind IS NOT NULL),
            free AS MATERIALIZED (
                SELECT r.run_id, r.due AS since FROM {t}runs r WHERE {_DUE} AND r.due <= %(now)s
                ORDER BY r.due, r.run_id {lock}),
            lapsed AS MATERIALIZED (
                SELECT run_id, least(lease_until, due) AS since FROM {t}runs
                WHERE lease_until <= {now} AND (blocked_by IS NULL OR ({fits.format("blocked_by")}))
                ORDER BY lease_until, run_id {lock}),
            blocked AS MATERIALIZED (
                SELECT b.run_id, b.since FROM kinds CROSS JOIN LATERAL (
                    SELECT run_id, due AS since FROM {t}runs WHERE {_BLOCKED} AND blocked_by = kinds.kind
                    AND due <= %(now)s ORDER BY due, run_id {lock}) AS b
                WHERE {fits.format("kinds.kind")}),
            chosen AS MATERIALIZED (SELECT * FROM (
                    SELECT * FROM free UNION ALL SELECT * FROM lapsed UNION ALL SELECT * FROM blocked) AS found
                ORDER BY since, run_id LIMIT %(limit)s)
            UPDATE {t}runs r SET fence = r.fence + 1, owner = %(owner)s, lease_until = {until}, lease_token = ''
            FROM chosen AS c, settings WHERE r.run_id = c.run_id
            RETURNING c.since, r.run_id, r.incarnation, r.fence, r.next_seq, r.lease_until"""

    @staticmethod
    def _read(t: str) -> str:
        """The run's position as text, then the records; all of one snapshot."""
        number = f"(SELECT coalesce($2::integer, incarnation) FROM {t}runs WHERE run_id = $1)"
        return f"""SELECT body FROM (
                (SELECT -1 AS seq, convert_to(concat_ws(' ', r.incarnation, r.next_seq, r.closed::integer,
                        CASE WHEN $2::integer < r.incarnation THEN (SELECT count(*) FROM {t}events e
                            WHERE e.run_id = r.run_id AND e.incarnation = $2::integer) END),
                    'UTF8') AS body FROM {t}runs r WHERE r.run_id = $1)
                UNION ALL
                (SELECT seq, body FROM {t}events WHERE run_id = $1 AND incarnation = {number}
                    AND seq >= $3::integer AND seq < $4::integer ORDER BY seq)
            ) AS records ORDER BY seq"""

    def page(self, where: HeadFilter, after: tuple[int, str] | None, limit: int) -> tuple[str, dict[str, Any]]:
        """The statement that lists a page of heads by index, and its values but the clock."""
        source, key = f"{self.table}runs r", "r"
        conditions: list[str] = []
        values: dict[str, Any] = {"limit": limit}
        if where.tag is not None:
            name, value = where.tag
            source, key = f"{self.table}tags t JOIN {source} ON r.run_id = t.run_id", "t"
            conditions.append("t.name = %(name)s")
            values["name"] = key_of(name)
            if value is not None:
                conditions.append("t.value = %(value)s")
                values["value"] = key_of(value)
        if where.waiting_for is not None:
            if key == "r":
                source, key = f"{self.table}waits w JOIN {source} ON r.run_id = w.run_id", "w"
                conditions.append("w.signal = %(signal)s")
            else:
                known = f"SELECT FROM {self.table}waits w WHERE w.run_id = r.run_id AND w.signal = %(signal)s"
                conditions.append(f"EXISTS ({known})")
            values["signal"] = key_of(where.waiting_for)
        if where.status == "running":
            conditions.append(f"r.lease_until IS NOT NULL AND {self.live}")
        elif where.status is not None:
            conditions.append("r.status = %(status)s")
            values["status"] = where.status
        if where.waiting_for is not None or where.status not in (None, "running"):
            conditions.append(f"NOT {self.live}")
        for column in ("workflow", "version"):
            if (wanted := getattr(where, column)) is not None:
                conditions.append(f"r.{column} = %({column})s")
                values[column] = wanted
        if where.closed is not None:
            conditions.append("r.closed" if where.closed else "NOT r.closed")
        if where.blocked is not None:
            conditions.append(f"r.blocked_by IS {'NOT ' if where.blocked else ''}NULL")
        if after is not None:
            conditions.append(f"({key}.created, {key}.run_id) < (%(created)s, %(after)s)")
            values["created"], values["after"] = after
        clause = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        order = f"ORDER BY {key}.created DESC, {key}.run_id DESC LIMIT %(limit)s"
        return f"SELECT {self.columns} FROM {source} {clause} {order}", values


def _names(columns: str) -> str:
    return ", ".join(column.split()[0] for column in columns.split(","))
