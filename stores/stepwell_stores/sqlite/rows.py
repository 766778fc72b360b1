"""The statements of the SQLite store, and its rows as heads."""

# ruff: noqa: S608 - statements are put together from the constants of this file; every value is a parameter

from __future__ import annotations

import json
import sqlite3
from typing import Any

import msgspec

from stepwell.errors import CorruptHistoryError
from stepwell.store import Head, HeadFilter, RunHead

from ..rules import Position, blocked_from, blocked_json, status_from, waiting_from, waiting_json
from .schema import SCHEMA_VERSION

__all__ = ["COLUMNS", "Row", "find", "find_row", "head_values", "page", "texts_of"]

_FREE = "owner = NULL, lease_until = NULL, owner_lock = NULL, lease_token = NULL"
# How many records the current history has. A row of stepwell_runs holds how many there were when it was last written:
# should the records be fewer, some are lost.
_SEQ = """max(r.least_seq, coalesce((SELECT e.seq + 1 FROM stepwell_events e
    WHERE e.run_id = r.run_id AND e.incarnation = r.incarnation ORDER BY e.seq DESC LIMIT 1), 0))"""
AT_TAIL = f"""SELECT 1 FROM stepwell_runs r WHERE r.run_id = ? AND r.incarnation = ? AND r.fence = ? AND r.closed = 0
    AND {_SEQ} = ? AND (SELECT version FROM stepwell_schema) = {SCHEMA_VERSION}"""
_MOVING = ("status", "due", "waiting", "blocked", "blocked_by")
_LASTING = ("workflow", "version", "created", "tags")
_MOVES = ", ".join(f"{column} = ?" for column in _MOVING)
_HEAD = ", ".join(f"{column} = ?" for column in (*_MOVING, *_LASTING))
_LASTS = " ".join(f"AND {column} IS ?" for column in _LASTING)
_SAME = " ".join(f"AND {column} IS ?" for column in (*_MOVING, *_LASTING))

# What an owner's append changes of the row, where it changes any of it. What is not set leaves its indexes alone, and
# each index is a page of the commit: so a head that is as before sets nothing, and what hardly ever changes is set only
# when it does.
ADVANCE_SAME = f"UPDATE stepwell_runs SET least_seq = ?, updated = ? WHERE run_id = ? {_SAME}"
ADVANCE_MOST = f"UPDATE stepwell_runs SET least_seq = ?, updated = ?, {_MOVES} WHERE run_id = ? {_LASTS}"
ADVANCE = f"UPDATE stepwell_runs SET least_seq = ?, updated = ?, {_HEAD} WHERE run_id = ?"
_FREED = f"UPDATE stepwell_runs SET least_seq = ?, closed = ?, {_FREE}, updated = ?"
ADVANCE_MOST_FREE = f"{_FREED}, {_MOVES} WHERE run_id = ? {_LASTS}"
ADVANCE_FREE = f"{_FREED}, {_HEAD} WHERE run_id = ?"
ADVANCE_ONLY_FREE = f"UPDATE stepwell_runs SET least_seq = ?, closed = ?, {_FREE} WHERE run_id = ?"

OUTSIDE = """UPDATE stepwell_runs SET least_seq = ?1, due = CASE
    WHEN ?2 IS NULL THEN due WHEN due IS NULL THEN ?2 ELSE min(due, ?2) END WHERE run_id = ?3"""
INSERT_EVENT = "INSERT INTO stepwell_events (run_id, incarnation, seq, body) VALUES (?, ?, ?, ?)"
INSERT_ATTEMPT = "INSERT INTO stepwell_attempts (run_id, attempt_id, incarnation, seq) VALUES (?, ?, ?, ?)"
INSERT_RUN = """INSERT INTO stepwell_runs (run_id, incarnation, least_seq, fence, closed,
    owner, lease_until, owner_lock, lease_token,
    updated, status, due, waiting, blocked, blocked_by, workflow, version, created, tags)
    VALUES (?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
REOPEN = f"""UPDATE stepwell_runs
    SET incarnation = ?, least_seq = ?, fence = ?, closed = 0, {_FREE}, updated = ?, {_HEAD} WHERE run_id = ?"""
GRANT = """UPDATE stepwell_runs SET fence = ?, owner = ?, lease_until = ?, owner_lock = ?, lease_token = ?
    WHERE run_id = ?"""
_OWN_SEQ = _SEQ.replace("r.", "stepwell_runs.")
GRANT_FREE = f"""UPDATE stepwell_runs
    SET fence = fence + 1, owner = ?, lease_until = ?, owner_lock = ?, lease_token = ''
    WHERE run_id = ? AND closed = 0 AND lease_until IS NULL RETURNING incarnation, fence, {_OWN_SEQ}"""
RENEW = f"""UPDATE stepwell_runs SET lease_until = ?, owner_lock = ?, least_seq = {_OWN_SEQ}
    WHERE run_id = ? AND fence = ? AND lease_until IS NOT NULL RETURNING incarnation, least_seq"""
RELEASE = f"""UPDATE stepwell_runs SET {_FREE}, least_seq = {_OWN_SEQ}
    WHERE run_id = ? AND fence = ? AND lease_until IS NOT NULL"""
DELETED = "SELECT fence, departure, arrival FROM stepwell_deleted WHERE run_id = ?"
BURY = "INSERT OR REPLACE INTO stepwell_deleted (run_id, fence, created) VALUES (?, ?, ?)"
DELETE = [f"DELETE FROM stepwell_{table} WHERE run_id = ?" for table in ("events", "attempts", "runs")]
CREATED = """SELECT created FROM stepwell_runs WHERE run_id = ?1
    UNION ALL SELECT created FROM stepwell_deleted WHERE run_id = ?1"""
ATTEMPT = "SELECT incarnation, seq FROM stepwell_attempts WHERE run_id = ? AND attempt_id = ?"
EXTENT = f"SELECT r.incarnation, {_SEQ}, r.closed FROM stepwell_runs r WHERE r.run_id = ?"
TAIL = f"SELECT {_SEQ} FROM stepwell_runs r WHERE r.run_id = ?"
EVENTS = f"SELECT total({_SEQ}) FROM stepwell_runs r"
_OF = "FROM stepwell_events WHERE run_id = ? AND incarnation = ? AND seq >= ? AND seq < ? ORDER BY seq"
BODIES = f"SELECT body {_OF}"
NUMBERS = f"SELECT seq {_OF}"
COUNT = "SELECT count(*) FROM stepwell_events WHERE run_id = ? AND incarnation = ?"

DUE = """SELECT due, run_id FROM stepwell_runs WHERE closed = 0 AND lease_until IS NULL AND blocked_by IS NULL
    AND due IS NOT NULL AND due <= ? ORDER BY due, run_id LIMIT ?"""
_BLOCKED = "closed = 0 AND lease_until IS NULL AND blocked_by IS NOT NULL AND due IS NOT NULL"
# The different values of `blocked_by`, each found by one step in the index from the one before.
KINDS = f"""WITH RECURSIVE kinds (kind) AS (
        SELECT min(blocked_by) FROM stepwell_runs WHERE {_BLOCKED}
        UNION ALL
        SELECT (SELECT min(blocked_by) FROM stepwell_runs WHERE {_BLOCKED} AND blocked_by > kind)
        FROM kinds WHERE kind IS NOT NULL
    ) SELECT kind FROM kinds WHERE kind IS NOT NULL"""
DUE_BLOCKED = f"""SELECT due, run_id FROM stepwell_runs WHERE {_BLOCKED} AND blocked_by = ? AND due <= ?
    ORDER BY due, run_id LIMIT ?"""
FIRST_DUE = """SELECT min(due) FROM stepwell_runs WHERE closed = 0 AND lease_until IS NULL AND blocked_by IS NULL
    AND due IS NOT NULL"""
LEASED = """SELECT lease_until, owner_lock, due, run_id, blocked_by FROM stepwell_runs WHERE lease_until IS NOT NULL"""

_COLUMNS = """r.run_id, r.incarnation, {0}, r.fence, r.closed, r.status, r.workflow, r.version, r.created,
    r.updated, r.due, r.waiting, r.tags, r.blocked, r.owner, r.lease_until, r.owner_lock, r.lease_token"""
COLUMNS = _COLUMNS.format(_SEQ)
_FIND = f"SELECT {COLUMNS} FROM stepwell_runs r WHERE r.run_id = ?"
_FIND_ROW = f"SELECT {_COLUMNS.format('r.least_seq')} FROM stepwell_runs r WHERE r.run_id = ?"
_LIVE = "(r.lease_until > ? AND coalesce(r.owner_lock, '') NOT IN (SELECT value FROM json_each(?)))"


class Row(msgspec.Struct, frozen=True):
    """A row of `stepwell_runs`, as it is read: the JSON columns still as text."""

    run_id: str
    incarnation: int
    seq: int
    fence: int
    closed: int
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
    owner_lock: str | None
    lease_token: str | None

    @property
    def position(self) -> Position:
        """Where the run stands."""
        return Position(self.incarnation, self.seq, self.fence, bool(self.closed))

    def run_head(self, live: bool, place: str) -> RunHead:
        """The head that the port speaks of; `live` is whether the lease is.

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
                () if self.waiting == "[]" else waiting_from(json.loads(self.waiting)),
                {} if self.tags == "{}" else json.loads(self.tags),
                None if self.blocked is None else blocked_from(json.loads(self.blocked)),
            )
        except (ValueError, KeyError, TypeError) as e:
            raise CorruptHistoryError(
                f"{place}, table stepwell_runs, run {self.run_id!r}: the row is damaged: {e}", place=place
            ) from e
        until = self.lease_until if live else None
        return RunHead(self.run_id, self.incarnation, self.seq, self.fence, bool(self.closed), until, head)


def find(db: sqlite3.Connection, run_id: str) -> Row | None:
    """The row of a run."""
    found = db.execute(_FIND, (run_id,)).fetchone()
    return None if found is None else Row(*found)


MOVING = len(_MOVING)
"""How many of `head_values` are what changes with what a run does."""


def find_row(db: sqlite3.Connection, run_id: str) -> Row | None:
    """As `find`, without a look at the records: `seq` is how many there were at least."""
    found = db.execute(_FIND_ROW, (run_id,)).fetchone()
    return None if found is None else Row(*found)


def head_values(head: Head) -> tuple[Any, ...]:
    """A head as the values of its columns but `updated`, what hardly ever changes last."""
    blocked_by = None if head.blocked is None else json.dumps(head.blocked.fingerprints)
    tags = json.dumps(dict(head.tags)) if head.tags else "{}"
    first = (head.status, head.due, waiting_json(head.waiting), blocked_json(head.blocked), blocked_by)
    return (*first, head.workflow, head.version, head.created, tags)


def page(where: HeadFilter, after: tuple[int, str] | None, limit: int, now: int, dead: str) -> tuple[str, list[Any]]:
    """The statement that lists a page of heads by index, and its values.

    Args:
        dead: JSON list of the owner locks that are known to be dead.
    """
    source, key = "stepwell_runs r", "r"
    conditions: list[str] = []
    values: list[Any] = []
    if where.tag is not None:
        name, value = where.tag
        # CROSS JOIN is SQLite's word for "in this order".
        source, key = "stepwell_tags t CROSS JOIN stepwell_runs r ON r.run_id = t.run_id", "t"
        conditions.append("t.name = ?")
        values.append(name)
        if value is not None:
            conditions.append("t.value = ?")
            values.append(value)
    if where.waiting_for is not None:
        if key == "r":
            source, key = "stepwell_waits w CROSS JOIN stepwell_runs r ON r.run_id = w.run_id", "w"
            conditions.append("w.signal = ?")
        else:
            conditions.append("EXISTS (SELECT 1 FROM stepwell_waits w WHERE w.run_id = r.run_id AND w.signal = ?)")
        values.append(where.waiting_for)
    if where.status == "running":
        conditions.append(f"r.closed = 0 AND r.lease_until IS NOT NULL AND {_LIVE}")
        values += [now, dead]
    elif where.status is not None:
        conditions.append("r.status = ?")
        values.append(where.status)
    if where.waiting_for is not None or where.status not in (None, "running"):
        conditions.append(f"{_LIVE} IS NOT TRUE")
        values += [now, dead]
    if where.workflow is not None:
        conditions.append("r.workflow = ?")
        values.append(where.workflow)
    if where.version is not None:
        conditions.append("r.version = ?")
        values.append(where.version)
    if where.closed is not None:
        conditions.append(f"r.closed = {int(where.closed)}")
    if where.blocked is not None:
        conditions.append(f"r.blocked_by IS {'NOT ' if where.blocked else ''}NULL")
    if after is not None:
        conditions.append(f"({key}.created, {key}.run_id) < (?, ?)")
        values += after
    clause = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    order = f"ORDER BY {key}.created DESC, {key}.run_id DESC LIMIT ?"
    return f"SELECT {COLUMNS} FROM {source} {clause} {order}", [*values, limit]


def texts_of(column: str) -> set[str]:
    """The members of a JSON list; one damaged row must not stop the others, and reading its run tells."""
    try:
        return {text for text in json.loads(column) if isinstance(text, str)}
    except (ValueError, TypeError):
        return set()
