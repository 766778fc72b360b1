"""DBOS Transact on SQLite, as it comes (journal DELETE) and with the file set to WAL before."""

# It is installed in an environment of its own, not where types are checked.
# pyright: reportMissingImports=false, reportMissingModuleSource=false

from __future__ import annotations

import os
import sqlite3
import sys
import threading
import time
from pathlib import Path
from typing import Any

from dbos import DBOS, DBOSClient, SetWorkflowID
from tests.benchmarks.probes import asked, commits, pause, peak_memory, settled

__all__ = ["drain", "first", "many", "one", "record", "resume", "sample", "submit"]

WARM = 10
marks: dict[str, float] = {}
finished: list[int] = []
all_finished = threading.Event()


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


def database(directory: str) -> str:
    return f"{directory}/dbos.sqlite"


def launched(directory: str, journal: str, queues: list[str] | None = None) -> str:
    """DBOS at work on a file of the given mode, which the file keeps; what the mode is."""
    path = database(directory)
    if not Path(path).exists() and journal != "DELETE":
        with sqlite3.connect(path) as db:
            db.execute(f"PRAGMA journal_mode = {journal}").fetchall()
        db.close()
    DBOS(config={"name": "benchmark", "system_database_url": f"sqlite:///{path}", "log_level": "ERROR"})
    if queues is not None:
        DBOS.listen_queues(queues)
    DBOS.launch()
    return durability(path)


def durability(path: str) -> str:
    """The settings; DBOS opens its connections with SQLite's own default for `synchronous`, as is done here."""
    db = sqlite3.connect(path)
    found = asked(db)
    db.close()
    return found


def one(directory: str, count: int, journal: str) -> dict[str, Any]:
    """One workflow of `count` steps."""
    setting = launched(directory, journal)
    steps(WARM)
    before = settled(directory)
    began = time.perf_counter()
    assert steps(count) == count
    seconds = time.perf_counter() - began
    memory = peak_memory()
    return {
        "rate": count / seconds,
        "memory": memory,
        "bytes": (settled(directory) - before) / count,
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
    client = DBOSClient(system_database_url=f"sqlite:///{database(directory)}")
    for _ in range(count):
        client.enqueue({"workflow_name": counted.__qualname__, "queue_name": "benchmark"}, length, count)
    return {}


def drain(directory: str, count: int, length: int, journal: str) -> dict[str, Any]:
    """Another process works the queue off, with the library's own polling."""
    began = time.perf_counter()
    setting = launched(directory, journal)
    assert all_finished.wait(3000)
    db = sqlite3.connect(database(directory))
    while db.execute("SELECT count(*) FROM workflow_status WHERE status = 'SUCCESS'").fetchone()[0] < count:
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
    return {"rate": count / seconds, "inside": count / inside, "memory": peak_memory(), "durability": setting}


def sample(directory: str, journal: str) -> dict[str, Any]:
    """Commits of one more step, and of a workflow of three."""
    launched(directory, journal)
    for _ in range(3):
        steps(3)
    few, found = 5, {}
    for name, action in (("none", [0]), ("step", [few]), ("run", [3] * few)):
        before = commits(database(directory))
        for count in action:
            steps(count)
        after = commits(database(directory))
        assert before[0] == after[0], "the log began anew meanwhile"
        found[name] = after[1] - before[1]
    return {"step": (found["step"] - found["none"]) / few, "run": found["run"] / few}


def first() -> None:
    """A first workflow of three steps on a new file, and when it was finished."""
    setting = launched(sys.argv[1], sys.argv[2])
    assert steps(3) == 3
    print(time.monotonic())
    print(setting)
    sys.stdout.flush()
    os._exit(0)
