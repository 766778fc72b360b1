"""Other records and another head in place of those in a Postgres database, in one transaction."""

# ruff: noqa: S608 - statements are put together from constants and a checked schema name; every value is a parameter

from __future__ import annotations

from collections.abc import Sequence

from stepwell.store import Head

from .rows import Row, Statements, head_values, sets_of_head
from .session import Session

__all__ = ["rewrite"]


def rewrite(
    session: Session,
    sql: Statements,
    place: str,
    at: tuple[str, int, int],
    old: Sequence[bytes],
    new: Sequence[bytes],
    head: tuple[Head, Head] | None,
    clock: dict[str, int],
) -> bool:
    """Put records in place of others; see `Rewritable`. An owner's append waits meanwhile.

    Args:
        at: run, incarnation and seq of the first.
    """
    run_id, incarnation, seq = at
    found = session.one(sql.lock, {"run": run_id, **clock})
    if found is None or len(old) != len(new):
        return False
    if head is not None and Row(*found).run_head(place).head != head[0]:
        return False
    there = session.run(sql.bodies, (run_id, incarnation, seq, seq + len(old))).fetchall()
    if [body for (body,) in there] != list(old):
        return False
    t = sql.table
    if new:
        statement = f"""UPDATE {t}events e SET body = b.body
            FROM unnest(%(bodies)b::bytea[]) WITH ORDINALITY AS b (body, i)
            WHERE e.run_id = %(run)s AND e.incarnation = %(incarnation)s AND e.seq = %(seq)s::integer + b.i - 1"""
        session.run(statement, {"run": run_id, "incarnation": incarnation, "seq": seq, "bodies": list(new)})
    if head is not None:
        session.run(
            f"UPDATE {t}runs SET {sets_of_head()} WHERE run_id = %(run)s", {"run": run_id, **head_values(head[1])}
        )
    return True
