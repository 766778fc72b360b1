"""What is measured of stepwell, and which figures come of it."""

from __future__ import annotations

from collections.abc import Iterator

from .bench import Sizes, Workload
from .measures import LENGTH, Answer, Check, Crowd, Replay, Runs, Start, Steps
from .rows import Figure
from .wrapped import wrappers

__all__ = ["NAMES", "TITLES", "workloads"]

NAMES = ("steps", "runs", "drain", "replay", "curve", "start", "signal", "crowd", "check", "wrapped")
STORES = ("sqlite", "jsonl", "memory")

BARE = {
    "sqlite": "the same records by bare INSERTs, one transaction each, in WAL with synchronous=FULL",
    "jsonl": "the same lines appended to one file, `fdatasync` after each",
    "memory": "a generator of as many steps driven by a loop of four lines, each result kept as JSON in a list",
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


def workloads(sizes: Sizes) -> Iterator[Workload]:
    """Everything that is measured of stepwell."""
    for store in STORES:
        yield steps_on(store, sizes.steps)
    for store in STORES:
        yield runs_on(store, sizes.runs)
    for count in sizes.drained:
        for store in STORES:
            yield drain_on(store, count)
    for store in STORES[:2]:
        for results in ("int", "dict", "attrs"):
            yield replay_on(store, sizes.replayed, results)
    for store in STORES[:2]:
        yield curve(store, sizes.curve)
    yield start()
    for store in STORES[:2]:
        yield signal_on(store, sizes.signals)
    for count in sizes.crowds:
        yield crowd_of(count)
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


def start() -> Workload:
    """(d)."""
    own = "a Python that does nothing, from its start to its end"
    least = "a Python that makes a database with WAL and synchronous=FULL and commits five rows"
    figures = (
        Figure(TITLES["import"], "ms", "import", "import", own),
        Figure(TITLES["first"], "ms", "first", "first", least),
    )
    return Start("start", "stepwell", "sqlite", figures)


def signal_on(store: str, count: int) -> Workload:
    """(f) on one store."""
    means = BARE[store] + ", as many as there are durable writes"
    title = TITLES["signal"].format(Answer.EVENTS)
    cases = {"ms": "by the process that parked it", "first ms": "by a process that has to replay it"}
    figures = [Figure(title, "ms", name, "ms", means, commits="commits", case=case) for name, case in cases.items()]
    return Answer("signal", "stepwell", store, tuple(figures), {"signals": count})


def crowd_of(count: int) -> Workload:
    """(g) with so many runs."""
    title = TITLES["crowd"].format(count)
    page = "the newest 100 rows of the same file by a bare SELECT, nothing decoded"
    cases = {
        "list": "a page of 100",
        "status": "a page of 100 by status",
        "workflow": "a page of 100 by workflow",
        "tag": "a page of 100 by tag",
        "waiting": "a page of 100 by the signal waited for",
    }
    figures = [Figure(title, "ms", name, "ms", page, case=case) for name, case in cases.items()]
    claimed = Figure(title, "ms", "claim", "commit", BARE["sqlite"], case="a claim of 10 due runs", commits="claims")
    return Crowd("crowd", "stepwell", "sqlite", (*figures, claimed), {"runs": count}, count=count)


def check_of(count: int) -> Workload:
    """(i) with so many runs."""
    title = TITLES["check"].format(count, Check.EVENTS)
    means = "the same records read in one go by one process, each decoded by msgspec into plain objects"
    note = "A process for each CPU, from the call of the command to its end; inputs of steps are compared."
    figure = Figure(title, "s", "seconds", "seconds", means, note)
    return Check("check", "stepwell", "sqlite", (figure,), {"runs": count, "events": Check.EVENTS}, count=count)
