"""What is measured of stepwell, and which figures come of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from attrs import evolve

from .bench import Sizes, Workload
from .measures import LENGTH, Answer, Check, Crowd, Replay, Runs, Start, Steps
from .probes import SCHEMES
from .rows import Figure
from .servers import not_built
from .wrapped import wrappers

__all__ = ["BARE", "LEAST", "NAMES", "STORES", "TITLES", "crowd_of", "workloads"]

NAMES = ("steps", "runs", "drain", "replay", "curve", "start", "signal", "crowd", "check", "wrapped")
STORES = ("sqlite", "jsonl", "memory", *SCHEMES)
DISK = tuple(store for store in STORES if store != "memory")
LOCAL = ("sqlite", "jsonl")
CROWDS = {"redis": 10_000, "s3": 4000}
"""At most so many open runs where all of them have to be started."""

BARE = {
    "sqlite": "the same records by bare INSERTs, one transaction each, in WAL with synchronous=FULL",
    "jsonl": "the same lines appended to one file, `fdatasync` after each",
    "postgres": "the same records by bare INSERTs with psycopg, one transaction each, on the same server",
    "redis": "the same records appended to a list by a bare EVALSHA each, on the same server",
    "s3": "the same records by bare PUTs with If-None-Match, an object each, to the same bucket",
    "memory": "a generator of as many steps driven by a loop of four lines, each result kept as JSON in a list",
}
LEAST = {
    "sqlite": "a Python that makes a database with WAL and synchronous=FULL and commits five rows",
    "postgres": "a Python that makes a table in a new database with psycopg and commits five rows",
    "redis": "a Python that appends five records to a list, each by an EVALSHA",
    "s3": "a Python that puts five objects",
}
READ = "the same records read in one go, each decoded by msgspec into plain objects"
DIVIDED = ", divided by the durable writes that a run needs"
TITLES = {
    "steps": "one run of {0:,} steps",
    "memory": "peak memory of a process with one run of {0:,} steps",
    "more memory": "memory over a bare interpreter, one run of {0:,} steps",
    "bytes": "bytes on disk for a step",
    "runs": "{0:,} runs of 3 steps, one after another",
    "drain": "{0:,} submitted runs of 3 steps, drained by a worker",
    "replay": "resume after {0:,} recorded steps",
    "curve": "resume, by the length of the history",
    "growth": "resume, time(2n) / time(n)",
    "curve memory": "peak memory of a resume, by the length of the history",
    "import": "import, over a bare interpreter",
    "first": "start of the process to the first finished run, new file",
    "signal": "a signal to a run of {0} events, and on to its next wait",
    "crowd": "questions to a store with {0:,} open runs",
    "check": "`stepwell check` of {0:,} open runs of {1} events",
}
"""What the tables call a workload; peers have the same."""


def workloads(sizes: Sizes, stores: Collection[str] = STORES) -> Iterator[Workload]:
    """Everything that is measured of stepwell on these stores; what can't be is said so."""
    for workload in _workloads(sizes):
        if workload.store in stores:
            reason = not_built(workload.store)
            yield workload if reason is None else evolve(workload, absent=reason)


def _workloads(sizes: Sizes) -> Iterator[Workload]:
    for store in STORES:
        yield steps_on(store, sizes.steps)
    for store in STORES:
        yield runs_on(store, sizes.runs)
    for count in sizes.drained:
        for store in STORES:
            yield drain_on(store, count)
    for store in DISK:
        for results in ("int", "dict", "attrs"):
            yield replay_on(store, sizes.replayed, results)
    for store in LOCAL:
        yield curve(store, sizes.curve)
    for store in ("sqlite", *SCHEMES):
        yield start(store)
    for store in DISK:
        yield signal_on(store, sizes.signals)
    for count in sizes.crowds:
        for store in ("sqlite", *SCHEMES):
            yield crowd_of(count, store)
    yield check_of(sizes.fleet)
    yield from wrappers(sizes)


def steps_on(store: str, count: int) -> Workload:
    """(a), (e) and (h) on one store."""
    floor = BARE[store]
    figures = [
        Figure(TITLES["steps"].format(count), "steps/s", "rate", "rate", floor, commits="step"),
        Figure(TITLES["memory"].format(count), "MB", "memory", "memory", f"the process of the floor: {floor}"),
        Figure(TITLES["more memory"].format(count), "MB", "more", "idle", "a Python that has done nothing"),
    ]
    if store != "memory":
        figures.append(Figure(TITLES["bytes"], "B", "bytes", "bytes", floor))
    return Steps("steps", "stepwell", store, tuple(figures), {"steps": count})


def runs_on(store: str, count: int) -> Workload:
    """(b) on one store."""
    means = BARE[store] + ("" if store == "memory" else DIVIDED)
    figure = Figure(TITLES["runs"].format(count), "runs/s", "rate", "rate", means, commits="run")
    return Runs("runs", "stepwell", store, (figure,), {"runs": count, "steps": LENGTH}, count=count)


def drain_on(store: str, count: int) -> Workload:
    """(b2) on one store."""
    means = BARE[store] + ("" if store == "memory" else DIVIDED)
    note = "One worker with its 16 threads; the starts were recorded before. One commit may serve several of them."
    figure = Figure(TITLES["drain"].format(count), "runs/s", "rate", "rate", means, note, "drained")
    counts = {"runs": count, "steps": LENGTH}
    return Runs("drain", "stepwell", store, (figure,), counts, function="drain", counted="drained", count=count)


def replay_on(store: str, count: int, results: str) -> Workload:
    """(c) on one store, with one kind of results."""
    kind = {"int": "integers", "dict": "small dicts", "attrs": "attrs objects of 3 fields"}[results]
    note = "In a fresh process with an engine that was just made, from the call to the end of the run."
    figure = Figure(TITLES["replay"].format(count), "events/s", f"rate {count}", f"rate {count}", READ, note, case=kind)
    counts = {"steps": count}
    return Replay("replay", "stepwell", store, (figure,), counts, lengths=(count,), results=results)


def curve(store: str, lengths: tuple[int, ...]) -> Workload:
    """(c) by the length of the history, on one store."""
    figures = [
        figure
        for n in lengths
        for figure in (
            Figure(TITLES["curve"], "s", f"seconds {n}", f"seconds {n}", READ, case=f"{n:,} steps"),
            Figure(TITLES["curve memory"], "MB", f"memory {n}", f"memory {n}", READ, case=f"{n:,} steps"),
        )
    ]
    figures += [
        Figure(TITLES["growth"], "times", f"growth {n}", f"growth {n}", READ, case=f"n = {n:,}")
        for n in lengths
        if 2 * n in lengths
    ]
    return Replay("curve", "stepwell", store, tuple(figures), {}, lengths=lengths)


def start(store: str) -> Workload:
    """(d); what is imported is the same for all stores but the driver, which the first run is the first to need."""
    own = "a Python that does nothing, from its start to its end"
    begun = Figure(TITLES["first"], "ms", "first", "first", LEAST[store])
    if store != "sqlite":
        return Start("start", "stepwell", store, (begun,))
    return Start("start", "stepwell", store, (Figure(TITLES["import"], "ms", "import", "import", own), begun))


def signal_on(store: str, count: int) -> Workload:
    """(f) on one store."""
    means = BARE[store] + ", as many as there are durable writes"
    title = TITLES["signal"].format(Answer.EVENTS)
    cases = {"ms": "by the process that parked it", "first ms": "by a process that has to replay it"}
    figures = [Figure(title, "ms", name, "ms", means, commits="commits", case=case) for name, case in cases.items()]
    return Answer("signal", "stepwell", store, tuple(figures), {"signals": count})


def crowd_of(count: int, store: str) -> Workload:
    """(g) with so many runs, or fewer where they can't be copied."""
    title = TITLES["crowd"].format(count)
    made = min(count, CROWDS.get(store, count))
    fewer = "" if made == count else f", {made:,} runs only"
    page = "the newest 100 rows of the same file by a bare SELECT, nothing decoded"
    if store != "sqlite":
        page = "the newest 100 of 1,000 records that were written without any library, nothing decoded"
    cases = {
        "list": "a page of 100",
        "status": "a page of 100 by status",
        "workflow": "a page of 100 by workflow",
        "tag": "a page of 100 by tag",
        "waiting": "a page of 100 by the signal waited for",
    }
    figures = [Figure(title, "ms", name, "ms", page, case=case + fewer) for name, case in cases.items()]
    options: dict[str, Any] = {
        "case": "a claim of 10 due runs" + fewer,
        "commits": "claims" if store == "sqlite" else "",
    }
    claimed = Figure(title, "ms", "claim", "commit", BARE[store], **options)
    return Crowd("crowd", "stepwell", store, (*figures, claimed), {"runs": made}, count=made)


def check_of(count: int) -> Workload:
    """(i) with so many runs."""
    title = TITLES["check"].format(count, Check.EVENTS)
    means = "the same records read in one go by one process, each decoded by msgspec into plain objects"
    note = "A process for each CPU, from the call of the command to its end; inputs of steps are compared."
    figure = Figure(title, "s", "seconds", "seconds", means, note)
    return Check("check", "stepwell", "sqlite", (figure,), {"runs": count, "events": Check.EVENTS}, count=count)
