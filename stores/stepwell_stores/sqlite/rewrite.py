"""Other records and another head in place of those in a SQLite file, in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from stepwell.store import Head

from . import rows as sql
from .rows import find

__all__ = ["rewrite"]

_REWRITE = "UPDATE stepwell_events SET body = ? WHERE run_id = ? AND incarnation = ? AND seq = ?"


def rewrite(
    db: sqlite3.Connection,
    path: str,
    at: tuple[str, int, int],
    old: Sequence[bytes],
    new: Sequence[bytes],
    head: tuple[Head, Head] | None,
) -> bool:
    """Put records in place of others; see `Rewritable`.

    Args:
        at: run, incarnation and seq of the first.
    """
    run_id, incarnation, seq = at
    row = find(db, run_id)
    if row is None or len(old) != len(new):
        return False
    if head is not None and row.run_head(False, path).head != head[0]:
        return False
    there = db.execute(sql.BODIES, (run_id, incarnation, seq, seq + len(old))).fetchall()
    if [body for (body,) in there] != list(old):
        return False
    changed = [(line, run_id, incarnation, n) for n, line in enumerate(new, seq)]
    db.executemany(_REWRITE, changed)
    if head is not None:
        db.execute(sql.ADVANCE, (row.seq, head[1].updated, *sql.head_values(head[1]), run_id))
    return True
