"""A bulk import that goes on where it was: after a kill, a crash of the step, or a night without power."""

from __future__ import annotations

import csv
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from stepwell import Engine, Flow, RetryPolicy, SetState, Step, current_step, step, workflow

BATCH = 50


# In a process of its own: a parser that hangs, or eats the memory, is ended and tried again, and nothing else is.
@step(process=True, heartbeat_timeout=30, retry=RetryPolicy(5))
def import_rows(source: str, database: str, pause: float) -> int:
    """Copy the rows of a CSV file into a table; the number of rows."""
    context = current_step()
    done: int = context.last_details or 0  # rows that an earlier attempt has written
    print(f"  [{os.getpid()}] attempt {context.attempt}, from row {done}", flush=True)
    with closing(sqlite3.connect(database)) as db, Path(source).open(newline="", encoding="utf-8") as file:
        db.execute("CREATE TABLE IF NOT EXISTS people (number INTEGER PRIMARY KEY, name TEXT, town TEXT)")
        batch: list[tuple[int | str, ...]] = []
        for number, row in enumerate(csv.reader(file)):
            if number < done:
                continue
            batch.append((number, *row))
            if len(batch) == BATCH:
                done = _write(db, batch, pause)
                context.heartbeat(done)  # raises Cancelled when nobody wants the rest any more
                batch = []
        return _write(db, batch, 0) if batch else done


def _write(db: sqlite3.Connection, batch: list[tuple[int | str, ...]], pause: float) -> int:
    """Write rows; by their number, so that what is written twice is there once."""
    with db:
        db.executemany("INSERT OR REPLACE INTO people VALUES (?, ?, ?)", batch)
    time.sleep(pause)  # stands for work
    return int(batch[-1][0]) + 1


@workflow
def bulk_import(source: str, database: str, pause: float = 0.2) -> Flow[str]:
    yield SetState(phase="importing")
    rows = yield from Step(import_rows, source, database, pause)
    yield SetState(phase="done")
    return f"{rows} rows"


engine = Engine(os.environ.get("STEPWELL_STORE", "sqlite:///imports.db"), workflows=[bulk_import])
