"""The floors: what the same bytes cost with no library around them. Each is run in a process of its own.

A file of records holds those that a real run wrote, one on a line.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from .probes import asked, peak_memory, settled

__all__ = [
    "all_rows_decoded",
    "appends",
    "driven",
    "first_insert",
    "idle",
    "inserts",
    "lines_decoded",
    "page",
    "rows_decoded",
]

_TABLE = """CREATE TABLE floor (run_id TEXT NOT NULL, incarnation INTEGER NOT NULL, seq INTEGER NOT NULL,
    body BLOB NOT NULL, PRIMARY KEY (run_id, incarnation, seq)) WITHOUT ROWID"""
_INSERT = "INSERT INTO floor VALUES ('run', 0, ?, ?)"


def bodies(records: str, count: int) -> list[bytes]:
    """`count` records, from the beginning again when there are fewer."""
    lines = Path(records).read_bytes().splitlines()
    return [lines[number % len(lines)] for number in range(count)]


def opened(path: str, journal: str, synchronous: str) -> tuple[sqlite3.Connection, str]:
    """A connection with the settings that are compared, and those as they were read back."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"PRAGMA journal_mode = {journal}").fetchall()
    db.execute(f"PRAGMA synchronous = {synchronous}")
    db.execute(_TABLE)
    return db, asked(db)


def inserts(
    directory: str, records: str, count: int, journal: str = "WAL", synchronous: str = "FULL"
) -> dict[str, Any]:
    """INSERTs of `count` records, each in a transaction of its own."""
    rows = bodies(records, count)
    db, durability = opened(f"{directory}/floor.db", journal, synchronous)
    for seq in range(20):
        db.execute(_INSERT, (-1 - seq, rows[0]))
    began = time.perf_counter()
    for seq, body in enumerate(rows):
        db.execute(_INSERT, (seq, body))
    seconds = time.perf_counter() - began
    db.close()
    size = settled(directory)
    return _result(count, seconds, durability) | {"bytes": size / (count + 20)}


def appends(directory: str, records: str, count: int) -> dict[str, Any]:
    """Appends of `count` records to one file, each with its `fdatasync`."""
    rows = [line + b"\n" for line in bodies(records, count)]
    fd = os.open(f"{directory}/floor.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        for _ in range(20):
            os.write(fd, rows[0])
            os.fdatasync(fd)
        began = time.perf_counter()
        for line in rows:
            os.write(fd, line)
            os.fdatasync(fd)
        seconds = time.perf_counter() - began
    finally:
        os.close(fd)
    return _result(count, seconds, "fdatasync") | {"bytes": settled(directory) / (count + 20)}


def same(number: int) -> int:
    """The step of the floor."""
    return number


def wishes(count: int) -> Generator[tuple[Any, int], int, int]:
    """The workflow of the floor: it yields which function it wants called."""
    for number in range(count):
        yield same, number
    return count


def driven(count: int, runs: int) -> dict[str, Any]:
    """Generators of `count` steps, driven by the least loop that there is; each result kept as JSON in a list."""
    began = time.perf_counter()
    for _ in range(runs):
        generator = wishes(count)
        kept: list[str] = []
        function, argument = next(generator)
        try:
            while True:
                result = function(argument)
                kept.append(json.dumps(result))
                function, argument = generator.send(result)
        except StopIteration:
            pass
    return _result(count * runs, time.perf_counter() - began, "none")


def idle() -> dict[str, Any]:
    """The memory of an interpreter that has done nothing."""
    return {"memory": peak_memory(), "durability": "none"}


def _result(count: int, seconds: float, durability: str) -> dict[str, Any]:
    return {
        "rate": count / seconds,
        "ms": 1000 * seconds / count,
        "memory": peak_memory(),
        "durability": durability,
    }


def rows_decoded(database: str, run_id: str) -> dict[str, Any]:
    """A SELECT of a run's records, each decoded into plain objects."""
    import msgspec

    decode = msgspec.json.decode
    began = time.perf_counter()
    db = sqlite3.connect(database, isolation_level=None)
    query = "SELECT body FROM stepwell_events WHERE run_id = ? ORDER BY incarnation, seq"
    count = 0
    for (body,) in db.execute(query, (run_id,)):
        decode(body)
        count += 1
    seconds = time.perf_counter() - began
    db.close()
    return _result(count, seconds, "reading") | {"seconds": seconds}


def all_rows_decoded(database: str) -> dict[str, Any]:
    """A SELECT of all records of all runs, each decoded into plain objects: one process, one statement."""
    import msgspec

    decode = msgspec.json.decode
    began = time.perf_counter()
    db = sqlite3.connect(database, isolation_level=None)
    count = 0
    for (body,) in db.execute("SELECT body FROM stepwell_events ORDER BY run_id, incarnation, seq"):
        decode(body)
        count += 1
    seconds = time.perf_counter() - began
    db.close()
    return _result(count, seconds, "reading") | {"seconds": seconds}


def lines_decoded(directory: str) -> dict[str, Any]:
    """The lines of the one journal in a directory, each decoded into plain objects."""
    import msgspec

    decode = msgspec.json.decode
    (journal,) = Path(directory).rglob("*.jsonl")
    began = time.perf_counter()
    count = 0
    with journal.open("rb") as lines:
        for line in lines:
            decode(line)
            count += 1
    seconds = time.perf_counter() - began
    return _result(count, seconds, "reading") | {"seconds": seconds}


def first_insert() -> None:
    """A new database and one run's worth of rows in it, each committed: what a program does at its very least."""
    directory, count = sys.argv[1], int(sys.argv[2])
    db, durability = opened(f"{directory}/floor.db", "WAL", "FULL")
    for seq in range(count):
        db.execute(_INSERT, (seq, b"{}"))
    print(time.monotonic())
    print(durability)


def page(database: str, rows: int, times: int) -> dict[str, Any]:
    """The newest runs by a bare SELECT, nothing decoded: milliseconds for a page."""
    db = sqlite3.connect(database, isolation_level=None)
    query = "SELECT * FROM stepwell_runs ORDER BY created DESC, run_id DESC LIMIT ?"
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        found = db.execute(query, (rows,)).fetchall()
        spent.append(time.perf_counter() - began)
        assert len(found) == rows
    db.close()
    return {"ms": 1000 * sorted(spent)[len(spent) // 2], "durability": "reading"}
