"""DBOS Transact on SQLite, as it comes (journal DELETE) and with the file set to WAL before; and on Postgres."""

# It is installed in an environment of its own, not where types are checked.
# pyright: reportMissingImports=false, reportMissingModuleSource=false

from __future__ import annotations

import os
import queue
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dbos import DBOS, DBOSClient, SetWorkflowID
from tests.benchmarks.peers.counting import FEW, counting, sampled
from tests.benchmarks.probes import asked, pause, peak_memory, settled
from tests.benchmarks.server_probes import connection_to, setting_of, stored

__all__ = ["answer", "drain", "first", "many", "one", "record", "resume", "sample", "submit"]

WARM = 10
LATE = 0.5
"""Seconds after which what follows from a function's wait is recorded, too."""
marks: dict[str, float] = {}
finished: list[int] = []
all_finished = threading.Event()
parked: queue.SimpleQueue[Any] = queue.SimpleQueue()


@DBOS.step()
def same(number: int) -> int:
    return number


@DBOS.workflow()
def steps(count: int) -> int:
    for number in range(count):
        same(number)
    return count


@DBOS.workflow()
def counted(count: int, expected: int) -> int:
    for number in range(count):
        same(number)
    finished.append(1)
    if len(finished) == expected:
        all_finished.set()
    return count


@DBOS.workflow()
def recorded(count: int) -> int:
    """Steps, and then a crash; once recovered, steps and an end."""
    marks["begun"] = time.perf_counter()
    for number in range(count):
        same(number)
    marks["ended"] = time.perf_counter()
    if "crash" in marks:
        os._exit(0)
    return count


@DBOS.workflow()
def asking(count: int) -> None:
    """Steps, and then one question after another."""
    for number in range(count):
        same(number)
    while True:
        parked.put(DBOS.workflow_id)
        DBOS.recv("go", timeout_seconds=3600)


def database(directory: str) -> str:
    return f"{directory}/dbos.sqlite"


def url_of(directory: str) -> str:
    """A place on a server has a URL of its own."""
    return directory if "://" in directory else f"sqlite:///{database(directory)}"


def launched(directory: str, journal: str, queues: list[str] | None = None) -> str:
    """DBOS at work on a server, or on a file of the given mode, which the file keeps; how durable that is."""
    path = database(directory)
    if journal == "WAL" and not Path(path).exists():
        with sqlite3.connect(path) as db:
            db.execute(f"PRAGMA journal_mode = {journal}").fetchall()
        db.close()
    DBOS(config={"name": "benchmark", "system_database_url": url_of(directory), "log_level": "ERROR"})
    if queues is not None:
        DBOS.listen_queues(queues)
    DBOS.launch()
    return durability(directory)


def durability(directory: str) -> str:
    """The settings; DBOS opens its connections with SQLite's own default for `synchronous`, as is done here."""
    if "://" in directory:
        return setting_of(directory)
    db = sqlite3.connect(database(directory))
    found = asked(db)
    db.close()
    return found


def kept(directory: str) -> int:
    """Bytes of it."""
    return stored(directory) if "://" in directory else settled(directory)


def succeeded(directory: str) -> Callable[[], int]:
    """What counts the workflows that have ended."""
    if "://" in directory:
        db: Any = connection_to(directory)
        table = "dbos.workflow_status"
    else:
        db, table = sqlite3.connect(database(directory)), "workflow_status"
    return lambda: int(db.execute(f"SELECT count(*) FROM {table} WHERE status = 'SUCCESS'").fetchone()[0])


def one(directory: str, count: int, journal: str) -> dict[str, Any]:
    """One workflow of `count` steps."""
    setting = launched(directory, journal)
    steps(WARM)
    before = kept(directory)
    began = time.perf_counter()
    assert steps(count) == count
    seconds = time.perf_counter() - began
    memory = peak_memory()
    return {
        "rate": count / seconds,
        "memory": memory,
        "bytes": (kept(directory) - before) / count,
        "durability": setting,
    }


def many(directory: str, count: int, length: int, journal: str) -> dict[str, Any]:
    """Workflows of `length` steps, one after another."""
    setting = launched(directory, journal)
    steps(WARM)
    began = time.perf_counter()
    for _ in range(count):
        assert steps(length) == length
    return {"rate": count / (time.perf_counter() - began), "durability": setting}


def submit(directory: str, count: int, length: int, journal: str) -> dict[str, Any]:
    """Enqueue workflows; this process takes none of them."""
    launched(directory, journal, queues=[])
    DBOS.register_queue("benchmark")
    client = DBOSClient(system_database_url=url_of(directory))
    for _ in range(count):
        client.enqueue({"workflow_name": counted.__qualname__, "queue_name": "benchmark"}, length, count)
    return {}


def drain(directory: str, count: int, length: int, journal: str) -> dict[str, Any]:
    """Another process works the queue off, with the library's own polling."""
    began = time.perf_counter()
    setting = launched(directory, journal)
    assert all_finished.wait(3000)
    ended = succeeded(directory)
    while ended() < count:
        pause(0.005)
    return {"rate": count / (time.perf_counter() - began), "durability": setting}


def record(directory: str, count: int, journal: str) -> dict[str, Any]:
    """Record steps and crash; the child's result is never printed."""
    launched(directory, journal)
    marks["crash"] = 1
    print("\n{}")
    sys.stdout.flush()
    with SetWorkflowID("recorded"):
        recorded(count)
    return {}


def resume(directory: str, count: int, journal: str) -> dict[str, Any]:
    """Recover the crashed workflow, from the launch to the end of its function."""
    began = time.perf_counter()
    setting = launched(directory, journal)
    handle = DBOS.retrieve_workflow("recorded")
    while handle.get_status().status != "SUCCESS":
        pause(0.005)
    seconds = time.perf_counter() - began
    inside = marks["ended"] - marks["begun"]
    return {
        "rate": count / seconds,
        "inside": count / inside,
        "seconds": inside,
        "memory": peak_memory(),
        "durability": setting,
    }


def answer(directory: str, runs: int, events: int, journal: str, counted: bool = False) -> dict[str, Any]:
    """Bring workflows to a wait, which holds a thread each; then give each a message, and see it wait again."""
    setting = launched(directory, journal)
    names = []
    for _ in range(runs + FEW):
        names.append(DBOS.start_workflow(asking, events - 2).workflow_id)
        assert parked.get(timeout=300) == names[-1]

    def told(name: str) -> float:
        began = time.perf_counter()
        DBOS.send(name, 1, "go")
        assert parked.get(timeout=300) == name
        return 1000 * (time.perf_counter() - began)

    found: dict[str, float] = {}
    if counted:
        pause(LATE)
        with counting(directory, database(directory), found, "commits"):
            for name in names[:FEW]:
                told(name)
            pause(LATE)
    spent = sum(told(name) for name in names[FEW:])
    return {"ms": spent / runs, "durability": setting, **{name: number / FEW for name, number in found.items()}}


def sample(directory: str, journal: str) -> dict[str, Any]:
    """Commits of one more step, and of a workflow of three."""
    launched(directory, journal)
    for _ in range(3):
        steps(3)
    return dict(sampled(directory, database(directory), steps))


def first() -> None:
    """A first workflow of three steps on a new file, and when it was finished."""
    setting = launched(sys.argv[1], sys.argv[2])
    assert steps(3) == 3
    print(time.monotonic())
    print(setting)
    sys.stdout.flush()
    os._exit(0)
