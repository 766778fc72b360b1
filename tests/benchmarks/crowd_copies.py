"""Very many runs on a server: rows of real ones copied where a statement can do it, else all are started."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from stepwell import Engine

from .server_probes import connection_to

__all__ = ["copied_on_postgres", "really_started"]

THREADS = 16
_COLUMNS = """SELECT column_name FROM information_schema.columns
    WHERE table_schema = %s AND table_name = %s AND is_generated = 'NEVER' ORDER BY ordinal_position"""


def copied_on_postgres(url: str, wheel: Sequence[str], count: int) -> None:
    """Copy the rows of real runs under other names, each created a millisecond after the one before."""
    with connection_to(url) as db:
        found = db.execute("SELECT table_schema FROM information_schema.tables WHERE table_name = 'stepwell_runs'")
        (schema,) = found.fetchone()
        db.execute("SET synchronous_commit = off")
        db.execute(f'SET search_path = "{schema}"')
        db.execute("CREATE TEMP TABLE made (number bigint, run_id text, source text)")
        (first,) = db.execute("SELECT max(created) FROM stepwell_runs").fetchone()
        with db.cursor().copy("COPY made FROM STDIN") as copy:
            for number in range(count - len(set(wheel))):
                copy.write_row((number, f"copy-{number:09}", wheel[number * 37 % len(wheel)]))
        for table in ("stepwell_runs", "stepwell_events", "stepwell_attempts"):
            columns = [name for (name,) in db.execute(_COLUMNS, (schema, table))]
            given = {"run_id": "m.run_id", "created": f"{first} + 1000 * m.number"}
            chosen = ", ".join(given.get(name, f"t.{name}") for name in columns)
            db.execute(
                f"INSERT INTO {table} ({', '.join(columns)}) SELECT {chosen} FROM made m "
                f"JOIN {table} t ON t.run_id = m.source ORDER BY m.number"
            )
        db.execute("VACUUM ANALYZE")


def really_started(engine: Engine, kinds: Sequence[tuple[Any, dict[str, str]]], count: int) -> None:
    """Start runs, several at once; what has no other end than a worker's is only submitted.

    Args:
        kinds: workflow and tags, as often as it is to occur among as many.
    """

    def start(number: int) -> None:
        kind, tags = kinds[number * 37 % len(kinds)]
        run_id = f"copy-{number:09}"
        if kind.name == "submitted":
            engine.submit(kind, run_id=run_id, tags=tags)
        else:
            engine.start(kind, run_id=run_id, tags=tags)

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(start, range(count)):
            pass
