"""Absurd on Postgres, with its own schema: the synchronous client, and its worker's own loop."""

# It is installed in an environment of its own, not where types are checked.
# pyright: reportMissingImports=false, reportMissingModuleSource=false

from __future__ import annotations

import os
import sys
import time
from typing import Any

import absurdctl
from absurd_sdk import Absurd
from tests.benchmarks.peers.counting import FEW, counting, sampled
from tests.benchmarks.probes import peak_memory
from tests.benchmarks.server_probes import connection_to, setting_of, stored

__all__ = ["answer", "drain", "first", "many", "one", "record", "resume", "sample", "submit"]

WARM = 10
CLAIM = 36_000
"""Seconds for which a task is taken, so that no long one is taken twice."""
CONCURRENCY = 16
finished: list[int] = []


def made(url: str) -> None:
    """Its schema and one queue, unless they are there."""
    with connection_to(url) as db:
        (found,) = db.execute("SELECT to_regnamespace('absurd') IS NOT NULL").fetchone()
        if not found:
            db.execute(absurdctl.BUNDLED_SCHEMA_SQL)
            db.execute("SELECT absurd.create_queue('default')")


def opened(url: str) -> Any:
    """A client that knows the tasks."""
    made(url)
    app = Absurd(url, queue_name="default")

    @app.register_task(name="steps")
    def steps(given: Any, context: Any) -> int:
        for number in range(given["count"]):
            context.step("same", lambda number=number: number)
        finished.append(1)
        if len(finished) == given.get("expected"):
            app.stop_worker()
        return int(given["count"])

    @app.register_task(name="recorded")
    def recorded(given: Any, context: Any) -> int:
        for number in range(given["count"]):
            context.step("same", lambda number=number: number)
        finished.append(1)
        context.await_event("go")
        return int(given["count"])

    @app.register_task(name="asking")
    def asking(given: Any, context: Any) -> None:
        for number in range(given["count"]):
            context.step("same", lambda number=number: number)
        asked = 0
        while True:
            context.await_event(f"{given['name']}-{asked}")
            asked += 1

    return app


def run(app: Any, count: int) -> None:
    """Spawn a task and work on it at once."""
    app.spawn("steps", {"count": count})
    app.work_batch(batch_size=1, claim_timeout=CLAIM)


def states(url: str) -> dict[str, int]:
    """How many tasks are in which state."""
    with connection_to(url) as db:
        return dict(db.execute("SELECT state, count(*) FROM absurd.t_default GROUP BY state").fetchall())


def one(directory: str, count: int) -> dict[str, Any]:
    """One task of `count` steps."""
    app = opened(directory)
    run(app, WARM)
    app.spawn("steps", {"count": count})
    before = stored(directory)
    began = time.perf_counter()
    app.work_batch(batch_size=1, claim_timeout=CLAIM)
    seconds = time.perf_counter() - began
    memory = peak_memory()
    assert states(directory) == {"completed": 2}
    return {
        "rate": count / seconds,
        "memory": memory,
        "bytes": (stored(directory) - before) / count,
        "durability": setting_of(directory),
    }


def many(directory: str, count: int, length: int) -> dict[str, Any]:
    """Tasks of `length` steps, each spawned, claimed and run before the next."""
    app = opened(directory)
    run(app, WARM)
    began = time.perf_counter()
    for _ in range(count):
        run(app, length)
    seconds = time.perf_counter() - began
    assert states(directory) == {"completed": count + 1}
    return {"rate": count / seconds, "durability": setting_of(directory)}


def submit(directory: str, count: int, length: int) -> dict[str, Any]:
    """Spawn tasks that nobody works on yet."""
    app = opened(directory)
    for _ in range(count):
        app.spawn("steps", {"count": length, "expected": count})
    return {}


def drain(directory: str, count: int, length: int) -> dict[str, Any]:
    """A worker of another process works them off, several at once."""
    app = opened(directory)
    began = time.perf_counter()
    app.start_worker(concurrency=CONCURRENCY, claim_timeout=CLAIM)
    seconds = time.perf_counter() - began
    assert states(directory) == {"completed": count}
    return {"rate": count / seconds, "durability": setting_of(directory)}


def record(directory: str, count: int) -> dict[str, Any]:
    """Record steps, and wait for an event."""
    app = opened(directory)
    app.spawn("recorded", {"count": count})
    app.work_batch(batch_size=1, claim_timeout=CLAIM)
    assert finished
    return {}


def resume(directory: str, count: int) -> dict[str, Any]:
    """Give it the event, and run the task again: from the client's making to its end."""
    began = time.perf_counter()
    app = opened(directory)
    app.emit_event("go", 1)
    app.work_batch(batch_size=1, claim_timeout=CLAIM)
    seconds = time.perf_counter() - began
    assert states(directory) == {"completed": 1}
    return {
        "rate": count / seconds,
        "seconds": seconds,
        "memory": peak_memory(),
        "durability": setting_of(directory),
    }


def answer(directory: str, runs: int, events: int, counted: bool = False) -> dict[str, Any]:
    """Bring tasks to a wait; then give each its event and work on it until it waits again, twice."""
    app = opened(directory)
    names = [f"run-{number}" for number in range(runs + FEW)]
    for name in names:
        app.spawn("asking", {"count": events - 2, "name": name})
        app.work_batch(batch_size=1, claim_timeout=CLAIM)
    assert states(directory) == {"sleeping": len(names)}, states(directory)
    app = opened(directory)  # which has run none of them

    def told(name: str, number: int) -> float:
        began = time.perf_counter()
        app.emit_event(f"{name}-{number}", 1)
        app.work_batch(batch_size=1, claim_timeout=CLAIM)
        return 1000 * (time.perf_counter() - began)

    found: dict[str, float] = {}
    if counted:
        with counting(directory, "", found, "commits"):
            for name in names[:FEW]:
                told(name, 0)
    first = [told(name, 0) for name in names[FEW:]]
    again = [told(name, 1) for name in names[FEW:]]
    return {
        "first ms": sum(first) / runs,
        "ms": sum(again) / runs,
        "durability": setting_of(directory),
        **{name: number / FEW for name, number in found.items()},
    }


def sample(directory: str) -> dict[str, Any]:
    """Commits of one more step, and of a task of three."""
    app = opened(directory)
    for _ in range(2):
        run(app, 3)
    return dict(sampled(directory, "", lambda count: run(app, count)))


def first() -> None:
    """A first task of three steps in a new database, its schema included, and when it was finished."""
    app = opened(sys.argv[1])
    run(app, 3)
    print(time.monotonic())
    print(setting_of(sys.argv[1]))
    sys.stdout.flush()
    os._exit(0)
