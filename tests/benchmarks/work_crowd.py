"""Children: a store with very many open runs, and what it is asked."""

from __future__ import annotations

import sqlite3
import statistics
import time
from collections.abc import Callable
from typing import Any

from stepwell import Engine, Flow, Signal, Sleep, Step, Suspend, workflow
from stepwell.outcomes import RunRecord
from stepwell.store import Lease

from .crowd_copies import copied_on_postgres, really_started
from .flows import durability_of, path_of, same, url_of
from .probes import peak_memory

__all__ = ["QUESTIONS", "ask", "claim", "claims", "crowd", "fill"]

PAGE = 100
CLAIMED = 10
HOUR = 3_600_000_000
review, payment = Signal("review", int), Signal("payment", int)


@workflow
def waits_for_review() -> Flow[int]:
    yield from Step(same, 1)
    return (yield from Suspend(review))


@workflow
def waits_for_payment() -> Flow[int]:
    yield from Step(same, 1)
    return (yield from Suspend(payment))


@workflow
def sleeps() -> Flow[int]:
    yield from Step(same, 1)
    yield from Sleep(3600)
    return 1


@workflow
def submitted() -> Flow[int]:
    return (yield from Step(same, 1))


def crowd(directory: str, store: str = "sqlite", *, sync: bool = True) -> Engine:
    """An engine on the store with very many runs."""
    workflows = [waits_for_review, waits_for_payment, sleeps, submitted]
    return Engine(url_of(store, directory, sync=sync), workflows=workflows)


def fill(directory: str, count: int, store: str = "sqlite") -> dict[str, Any]:
    """A few real runs of each kind, and copies of all their rows until there are `count`.

    Of a hundred runs 60 wait for a review, 20 for a payment, 19 sleep and one is due; three in a hundred have another
    tag than the rest. Where no statement copies rows, all of them are real.
    """
    real: dict[str, tuple[Any, dict[str, str]]] = {}
    wheel: list[str] = []
    with crowd(directory, store, sync=False) as engine:
        for kind, share in ((waits_for_review, 60), (waits_for_payment, 20), (sleeps, 19)):
            for tags, part in (({"shop": "north"}, 1), ({"shop": "south"}, share - 1)):
                run_id = f"real-{kind.name}-{tags['shop']}"
                assert engine.start(kind, run_id=run_id, tags=tags).status == "suspended"
                real[run_id] = (kind, tags)
                wheel += [run_id] * part
        engine.submit(submitted, run_id="real-submitted", tags={"shop": "south"})
        real["real-submitted"] = (submitted, {"shop": "south"})
        wheel.append("real-submitted")
        if store in ("redis", "s3"):
            really_started(engine, [real[run_id] for run_id in wheel], count - len(real))
            return {}
    if store == "postgres":
        copied_on_postgres(directory, wheel, count)
    else:
        copy(path_of("sqlite", directory), wheel, count)
    with crowd(directory, store) as engine:
        check(engine)
    return {}


def copy(database: str, wheel: list[str], count: int) -> None:
    """Copy the rows of real runs under other names, each created a millisecond after the one before."""
    db = sqlite3.connect(database, isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    db.execute("PRAGMA cache_size = -200000")
    db.execute("CREATE TEMP TABLE made (number INTEGER, run_id TEXT, source TEXT)")
    first = db.execute("SELECT max(created) FROM stepwell_runs").fetchone()[0]
    made = ((n, f"copy-{n:09}", wheel[n * 37 % len(wheel)]) for n in range(count - len(set(wheel))))
    db.executemany("INSERT INTO made VALUES (?, ?, ?)", made)
    db.execute("BEGIN")
    for table in ("stepwell_runs", "stepwell_events", "stepwell_attempts"):
        columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
        given = {"run_id": "m.run_id", "created": f"{first} + 1000 * m.number"}
        chosen = ", ".join(given.get(name, f"t.{name}") for name in columns)
        db.execute(
            f"INSERT INTO {table} ({', '.join(columns)}) SELECT {chosen} FROM made m "
            f"CROSS JOIN {table} t ON t.run_id = m.source ORDER BY m.number"
        )
    db.execute("COMMIT")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    db.close()


def check(engine: Engine) -> None:
    """See that copies are read as the runs that they are copies of."""
    page = engine.runs(limit=PAGE)
    assert {record.workflow for record in page} == {"waits_for_review", "waits_for_payment", "sleeps", "submitted"}
    for record in page[:10]:
        source = f"real-{record.workflow}" + ("" if record.workflow == "submitted" else "-south")
        real, copied = engine.get(source), engine.get(record.id)
        assert (copied.status, copied.waiting_for, copied.due) == (real.status, real.waiting_for, real.due)
        assert engine.history(record.id) == engine.history(source)


def listed(**filters: Any) -> Callable[[Engine], int]:
    """A page of runs."""

    def asked(engine: Engine) -> int:
        found: list[RunRecord] = engine.runs(limit=PAGE, **filters)
        return len(found)

    return asked


QUESTIONS: dict[str, Callable[[Engine], int]] = {
    "list": listed(),
    "status": listed(status="suspended"),
    "workflow": listed(workflow="waits_for_payment"),
    "tag": listed(tag=("shop", "north")),
    "waiting": listed(waiting_for=payment),
}
"""What a store is asked; each gives how many runs the answer has."""


def claim(engine: Engine) -> list[Lease]:
    """Take the leases of runs that are due, as a worker does."""
    now = int(time.time() * 1e6)
    return engine.store.claim_due("benchmark", 30.0, now=now, limit=CLAIMED, fingerprints=["benchmark"])


def ask(directory: str, times: int, store: str = "sqlite") -> dict[str, Any]:
    """Milliseconds for each question; the median of `times`."""
    found: dict[str, Any] = {"durability": "reading"}
    with crowd(directory, store) as engine:
        for name, question in QUESTIONS.items():
            question(engine)
            spent = []
            for _ in range(times):
                began = time.perf_counter()
                answers = question(engine)
                spent.append(time.perf_counter() - began)
                assert answers == PAGE, f"{name}: {answers}"
            found[name] = 1000 * statistics.median(spent)
    return found | {"memory": peak_memory()}


def claims(directory: str, times: int, store: str = "sqlite") -> dict[str, Any]:
    """Milliseconds for a claim of due runs, which are given back afterwards; the median of `times`."""
    with crowd(directory, store) as engine:
        spent, leases = [], claim(engine)
        for _ in range(times):
            began = time.perf_counter()
            taken = claim(engine)
            spent.append(time.perf_counter() - began)
            assert len(taken) == CLAIMED, len(taken)
            leases += taken
        for lease in leases:
            engine.store.release(lease)
        return {"claim": 1000 * statistics.median(spent), "durability": durability_of(engine, store, directory)}
