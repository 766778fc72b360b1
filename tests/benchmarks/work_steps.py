"""Children: one long run, many short ones, and many that a worker drains."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stepwell import Engine
from stepwell.worker import Worker

from .flows import durability_of, engine_on, path_of, size_of, steps
from .probes import SCHEMES, Syncs, commits, peak_memory

__all__ = ["drain", "many", "one", "sample", "submit"]

WARM = 10
FEW = 5


def one(store: str, directory: str, count: int) -> dict[str, Any]:
    """One run of `count` steps."""
    with engine_on(store, directory) as engine:  # the tables and the first files are not what is measured
        engine.start(steps, WARM, run_id="first").unwrap()
    before = size_of(store, directory)
    with engine_on(store, directory) as engine:
        engine.start(steps, WARM, run_id="warm").unwrap()
        began = time.perf_counter()
        assert engine.start(steps, count, run_id="run").unwrap() == count
        seconds = time.perf_counter() - began
        durability = durability_of(engine, store, directory)
    return {
        "rate": count / seconds,
        "memory": peak_memory(),
        "bytes": (size_of(store, directory) - before) / (count + WARM),
        "durability": durability,
    }


def many(store: str, directory: str, count: int, length: int) -> dict[str, Any]:
    """`count` runs of `length` steps, one after another."""
    with engine_on(store, directory) as engine:
        engine.start(steps, WARM, run_id="warm").unwrap()
        began = time.perf_counter()
        for _ in range(count):
            assert engine.start(steps, length).unwrap() == length
        seconds = time.perf_counter() - began
        return {"rate": count / seconds, "durability": durability_of(engine, store, directory), "memory": peak_memory()}


def submit(store: str, directory: str, count: int, length: int) -> dict[str, Any]:
    """Record the starts of `count` runs."""
    with engine_on(store, directory, sync=False) as engine:
        for _ in range(count):
            engine.submit(steps, length)
    return {}


def drain(store: str, directory: str, count: int, length: int) -> dict[str, Any]:
    """Have one worker drive all that was submitted; in memory that has to be done here before."""
    with engine_on(store, directory) as engine:
        if store == "memory":
            for _ in range(count):
                engine.submit(steps, length)
        durability = durability_of(engine, store, directory)  # opens the store, too
        began = time.perf_counter()
        ended = Worker(engine).run(drain=True)
        seconds = time.perf_counter() - began
        assert ended["completed"] == count, ended
        return {"rate": count / seconds, "durability": durability, "memory": peak_memory()}


def sample(store: str, directory: str, records: str, length: int) -> dict[str, Any]:
    """Write what a run of `length` steps records into a file, and count the durable writes of several things.

    Returns:
        step: of one more step in a run. run: of a run of three steps. drained: of such a run by a worker.
    """
    counted: dict[str, float] = {}
    with countable(store), engine_on(store, directory) as engine:
        for _ in range(2):  # until all connections are open, and the log has begun anew for the last time
            engine.start(steps, 1).unwrap()
            worked(engine, 1)
        if store != "memory":
            counted = writes(engine, store, directory)
        engine.start(steps, length, run_id="sample").unwrap()
        found = engine.store.read("sample")
        assert found is not None
        Path(records).write_bytes(b"".join(line + b"\n" for line in found.records))
    return counted


def writes(engine: Engine, store: str, directory: str) -> dict[str, float]:
    """Durable writes of a step, a short run, and one that a worker drives."""
    counted: dict[str, float] = {}
    with counting(store, directory, counted, "none"):
        engine.start(steps, 0).unwrap()
    with counting(store, directory, counted, "step"):
        engine.start(steps, FEW).unwrap()
    with counting(store, directory, counted, "run"):
        for _ in range(FEW):
            engine.start(steps, 3).unwrap()
    for _ in range(FEW):
        engine.submit(steps, 3)
    with counting(store, directory, counted, "drained"):
        Worker(engine).run(drain=True)
    counted["step"] -= counted.pop("none")
    return {name: number / FEW for name, number in counted.items()}


def worked(engine: Engine, count: int) -> None:
    """Submit and drain."""
    for _ in range(count):
        engine.submit(steps, 1)
    Worker(engine).run(drain=True)


@contextmanager
def countable(store: str) -> Iterator[None]:
    """Make the durable writes of a block countable; those to a server need preparation."""
    if store in SCHEMES:
        from .server_probes import observed

        with observed(store):
            yield
    else:
        yield


@contextmanager
def counting(store: str, directory: str, into: dict[str, float], name: str) -> Iterator[None]:
    """Count the durable writes of a block: commits of SQLite, syncs of files, or what a server wrote."""
    if store in SCHEMES:
        from . import server_probes

        with server_probes.counting(directory, into, name):
            yield
        return
    if store == "jsonl":
        with Syncs() as syncs:
            yield
        into[name] = syncs.count
        return
    database = path_of(store, directory)
    before = commits(database)
    yield
    after = commits(database)
    assert before[0] == after[0], "the log began anew meanwhile: count fewer"
    into[name] = after[1] - before[1]
