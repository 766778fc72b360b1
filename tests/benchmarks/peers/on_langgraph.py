"""LangGraph's functional API with SqliteSaver, durability="sync"."""

# It is installed in an environment of its own, not where types are checked.
# pyright: reportMissingImports=false, reportMissingModuleSource=false, reportAttributeAccessIssue=false

from __future__ import annotations

import itertools
import os
import sqlite3
import sys
import time
from typing import Any

os.environ["LANGSMITH_TRACING"] = os.environ["LANGCHAIN_TRACING_V2"] = "false"

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.func import entrypoint, task
from langgraph.types import Command, interrupt
from tests.benchmarks.peers.counting import FEW, counting, sampled
from tests.benchmarks.probes import asked, peak_memory, settled

__all__ = ["answer", "first", "many", "one", "record", "resume", "sample"]

WARM = 10


@task
def same(number: int) -> int:
    return number


def database(directory: str) -> str:
    return f"{directory}/langgraph.sqlite"


class Graphs:
    """The workflows on one file."""

    def __init__(self, directory: str) -> None:
        self.db = sqlite3.connect(database(directory), check_same_thread=False)
        saver = SqliteSaver(self.db)

        @entrypoint(checkpointer=saver)
        def steps(count: int) -> int:
            for number in range(count):
                same(number).result()
            return count

        @entrypoint(checkpointer=saver)
        def recorded(count: int) -> int:
            for number in range(count):
                same(number).result()
            interrupt("go?")
            return count

        @entrypoint(checkpointer=saver)
        def asking(count: int) -> int:
            for number in range(count):
                same(number).result()
            total = 0
            while True:
                total += interrupt("go?")

        self.steps, self.recorded, self.asking = steps, recorded, asking

    def run(self, graph: Any, given: Any, thread: str) -> Any:
        return graph.invoke(given, {"configurable": {"thread_id": thread}}, durability="sync")

    def durability(self) -> str:
        return asked(self.db)


def one(directory: str, count: int) -> dict[str, Any]:
    """One run of `count` tasks."""
    graphs = Graphs(directory)
    graphs.run(graphs.steps, WARM, "warm")
    before = settled(directory)
    began = time.perf_counter()
    assert graphs.run(graphs.steps, count, "run") == count
    seconds = time.perf_counter() - began
    memory = peak_memory()
    return {
        "rate": count / seconds,
        "memory": memory,
        "bytes": (settled(directory) - before) / count,
        "durability": graphs.durability(),
    }


def many(directory: str, count: int, length: int) -> dict[str, Any]:
    """Runs of `length` tasks, one after another."""
    graphs = Graphs(directory)
    graphs.run(graphs.steps, WARM, "warm")
    began = time.perf_counter()
    for number in range(count):
        assert graphs.run(graphs.steps, length, f"run-{number}") == length
    return {"rate": count / (time.perf_counter() - began), "durability": graphs.durability()}


def record(directory: str, count: int) -> dict[str, Any]:
    """Record tasks, and interrupt."""
    graphs = Graphs(directory)
    graphs.run(graphs.recorded, count, "recorded")
    graphs.db.close()
    return {}


def resume(directory: str, count: int) -> dict[str, Any]:
    """Go on with the interrupted run."""
    began = time.perf_counter()
    graphs = Graphs(directory)
    assert graphs.run(graphs.recorded, Command(resume=1), "recorded") == count
    seconds = time.perf_counter() - began
    return {"rate": count / seconds, "seconds": seconds, "memory": peak_memory(), "durability": graphs.durability()}


def sample(directory: str) -> dict[str, Any]:
    """Commits of one more task, and of a run of three."""
    graphs = Graphs(directory)
    for number in range(2):
        graphs.run(graphs.steps, 3, f"warm-{number}")
    count = itertools.count()
    return dict(sampled(directory, database(directory), lambda n: graphs.run(graphs.steps, n, f"run-{next(count)}")))


def answer(directory: str, runs: int, events: int, counted: bool = False) -> dict[str, Any]:
    """Bring runs to an interrupt; then go on with each to its next one, twice."""
    graphs = Graphs(directory)
    names = [f"asking-{number}" for number in range(runs + FEW + 1)]
    for name in names:
        graphs.run(graphs.asking, events - 2, name)
    graphs.db.close()
    graphs = Graphs(directory)  # which has run none of them

    def told(name: str) -> float:
        began = time.perf_counter()
        assert "__interrupt__" in graphs.run(graphs.asking, Command(resume=1), name)
        return 1000 * (time.perf_counter() - began)

    found: dict[str, float] = {}
    told(names.pop())  # a file is not opened before
    if counted:
        with counting(directory, database(directory), found, "commits"):
            for name in names[:FEW]:
                told(name)
    first = [told(name) for name in names[FEW:]]
    again = [told(name) for name in names[FEW:]]
    return {
        "first ms": sum(first) / runs,
        "ms": sum(again) / runs,
        "durability": graphs.durability(),
        **{name: number / FEW for name, number in found.items()},
    }


def first() -> None:
    """A first run of three tasks on a new file, and when it was finished."""
    graphs = Graphs(sys.argv[1])
    assert graphs.run(graphs.steps, 3, "first") == 3
    print(time.monotonic())
    print(graphs.durability())
