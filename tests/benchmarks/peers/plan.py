"""Which peers there are, what they can do, and which figures come of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from attrs import evolve

from ..bench import Sizes, Workload
from ..measures import Answer, Check
from ..plan import BARE, LEAST, STORES, TITLES, crowd_of
from ..rows import Figure, Row
from .environments import Environment, EnvironmentFailed
from .measures import Peer, PeerAnswer, PeerReplay, PeerRuns, PeerStart, PeerSteps

__all__ = ["NAMES", "kept_on", "prepare", "workloads"]

NAMES = ("dbos", "langgraph", "durabletask", "aws", "absurd")
INSERTED = "INSERTs of stepwell's records with no library, one transaction each, in {} with synchronous=FULL"
READ = "stepwell's records of as many steps read in one go, each decoded by msgspec into plain objects"
NO_DISK = "nothing of it is kept on disk"
INSIDE = "in one process, and timed inside the function alone: the history can't outlive its process."
ALWAYS = "its function runs again from the top at each signal, whoever drives it."
TO_THE_WAIT = "until its function waits again; what is recorded of that may come a little later."
NO_CHECK = "it has no command that replays its open runs against changed code"
ONLY_MEMORY = "no run outlives its process, so there is no store with so many"
DIES = "no other process can go on with a run of it"


def peers(work: Path) -> dict[str, list[Peer]]:
    """All peers with their settings."""
    return {
        "dbos": list(dbos(Environment("dbos", work))),
        "langgraph": [langgraph(Environment("langgraph", work))],
        "durabletask": [durabletask(Environment("durabletask", work))],
        "aws": [aws(Environment("aws", work))],
        "absurd": [absurd(Environment("absurd", work))],
    }


def dbos(environment: Environment) -> Iterator[Peer]:
    """On SQLite as it comes, with its file set to WAL, and on Postgres."""
    title = f"DBOS {environment.version('dbos')}"
    polled = {
        "drain": "the queue is looked at once a second, which is its default.",
        "curve": "inside the function alone: a second of its launch is polling.",
        "signal": f"{TO_THE_WAIT} On SQLite messages are looked for once a second, which is its default.",
    }
    absent = {
        "replayed signal": "what another process recovers are all open workflows, at its launch: see the resume",
        "crowd": "not measured: each of its open workflows holds a thread, so it can't run a hundred thousand",
        "check": NO_CHECK,
    }
    for store, journal in (("sqlite", "DELETE"), ("sqlite", "WAL"), ("postgres", "")):
        yield Peer(
            "dbos",
            title,
            environment,
            "on_dbos",
            "from dbos import DBOS",
            store,
            {"journal": journal},
            journal,
            absent,
            inside=True,
            signals=200 if store == "postgres" else 10,
            curve=(2000, 4000),
            notes=polled,
        )


def langgraph(environment: Environment) -> Peer:
    """Its functional API."""
    graphs = "from langgraph.func import entrypoint; from langgraph.checkpoint.sqlite import SqliteSaver"
    absent = {
        "drain": "it has no queue and no worker: callers drive their own runs",
        "claim": "it has no worker, so nobody claims runs",
        "crowd": "its checkpoints are listed by thread; there is no list of runs by status, workflow or signal",
        "check": NO_CHECK,
    }
    late = "a task's result is written by another thread, after the code has seen it."
    return Peer(
        "langgraph",
        f"LangGraph {environment.version('langgraph')}",
        environment,
        "on_langgraph",
        graphs,
        "sqlite",
        journal="WAL",
        absent=absent,
        signals=50,
        curve=(1000, 2000),
        notes={"steps": late, "signal": ALWAYS},
    )


def durabletask(environment: Environment) -> Peer:
    """With the backend in memory that its own tests have."""
    return Peer(
        "durabletask",
        f"durabletask {environment.version('durabletask')}",
        environment,
        "on_durabletask",
        "from durabletask import client, worker",
        "memory",
        absent={"bytes": NO_DISK, "replayed signal": DIES, "crowd": ONLY_MEMORY, "check": NO_CHECK},
        replays=500,
        signals=50,
        curve=(250, 500),
        notes={"replay": INSIDE, "curve": INSIDE, "signal": f"{ALWAYS} Timed {TO_THE_WAIT}"},
    )


def aws(environment: Environment) -> Peer:
    """On the local runner of its tests."""
    absent = {
        "bytes": NO_DISK,
        "drain": "the local runner has no queue that a worker drains",
        "replayed signal": DIES,
        "crowd": ONLY_MEMORY,
        "check": NO_CHECK,
    }
    return Peer(
        "aws",
        f"AWS SDK {environment.version('aws-durable-execution-sdk-python')}, local runner",
        environment,
        "on_aws",
        "from aws_durable_execution_sdk_python_testing import DurableFunctionTestRunner",
        "memory",
        absent=absent,
        runs=200,
        replays=1000,
        signals=50,
        curve=(500, 1000),
        notes={"replay": INSIDE, "curve": INSIDE, "signal": f"{ALWAYS} Timed {TO_THE_WAIT}"},
    )


def absurd(environment: Environment) -> Peer:
    """Its schema is in the package of its command."""
    return Peer(
        "absurd",
        f"Absurd {environment.version('absurd-sdk')}",
        environment,
        "on_absurd",
        "from absurd_sdk import Absurd",
        "postgres",
        absent={
            "crowd": "the library has no list of runs: its command and its users ask its tables in SQL",
            "claim": "not measured: a hundred thousand tasks can't be made but by spawning and running them",
            "check": NO_CHECK,
        },
        curve=(10_000, 20_000),
        notes={
            "drain": "one worker with concurrency 16, whose tasks share a connection; it looks four times a second.",
            "signal": ALWAYS,
            "start": "its schema is made by the same process.",
        },
    )


def kept_on(name: str, stores: Collection[str], work: Path) -> bool:
    """Whether a peer keeps histories on one of these stores."""
    return any(peer.store in stores for peer in peers(work)[name])


def prepare(name: str, work: Path) -> list[Row]:
    """Install a peer; a row when that fails."""
    environment = Environment(name, work)
    try:
        environment.make()
    except EnvironmentFailed as error:
        return [Row("installation", name, "", error=str(error))]
    return []


def workloads(sizes: Sizes, names: Iterable[str], work: Path, stores: Collection[str] = STORES) -> Iterator[Workload]:
    """Everything that is measured of these peers on these stores."""
    known = peers(work)
    for name in names:
        for peer in known[name]:
            if peer.store in stores:
                for part in (steps_of, runs_of, replays_of, start_of, signal_of, rest_of):
                    yield from part(peer, sizes)


def floor_of(peer: Peer) -> str:
    """What its writes are compared with."""
    return INSERTED.format(peer.journal) if peer.journal else BARE[peer.store]


def steps_of(peer: Peer, sizes: Sizes) -> Iterator[Workload]:
    """(a), (e) and (h)."""
    who, floor, count = (peer.title, peer.store), floor_of(peer), sizes.steps
    figures = [
        Figure(TITLES["steps"].format(count), "steps/s", "rate", "rate", floor, note(peer, "steps"), "step"),
        Figure(TITLES["memory"].format(count), "MB", "memory", "memory", f"the process of the floor: {floor}"),
        Figure(TITLES["more memory"].format(count), "MB", "more", "idle", "a Python that has done nothing"),
    ]
    if peer.durable:
        figures.append(Figure(TITLES["bytes"], "B", "bytes", "bytes", floor))
    yield PeerSteps("steps", *who, tuple(figures), {"steps": count}, peer=peer)
    if not peer.durable:
        yield PeerSteps("steps", *who, (Figure(TITLES["bytes"], "B", ""),), absent=peer.absent["bytes"], peer=peer)


def runs_of(peer: Peer, sizes: Sizes) -> Iterator[Workload]:
    """(b) and (b2)."""
    who = (peer.title, peer.store)
    each = floor_of(peer) + (", divided by the commits of a run" if peer.durable else "")
    jobs = [("runs", "many", sizes.runs, "run"), *(("drain", "drain", count, "") for count in sizes.drained[:1])]
    for name, function, wanted, commits in jobs:
        count = min(wanted, peer.runs)
        case = "" if count == wanted else f"{count:,} runs only"
        figure = Figure(TITLES[name].format(wanted), "runs/s", "rate", "rate", each, note(peer, name), commits, case)
        options: dict[str, Any] = {"peer": peer, "function": function, "count": count}
        counts = {"runs": count, "steps": 3}
        yield PeerRuns(name, *who, (figure,), counts, peer.absent.get(name), **options)


def replays_of(peer: Peer, sizes: Sizes) -> Iterator[Workload]:
    """(c), at one length and by the length."""
    who = (peer.title, peer.store)
    n = min(sizes.replayed, peer.replays)
    case = "integers" if n == sizes.replayed else f"integers, {n:,} steps only"
    figure = Figure(
        TITLES["replay"].format(sizes.replayed),
        "events/s",
        f"rate {n}",
        f"rate {n}",
        READ,
        note(peer, "replay"),
        case=case,
    )
    figures = [figure]
    if peer.inside:
        figures.append(evolve(figure, value=f"inside {n}", case=f"{case}, inside the function alone"))
    yield PeerReplay("replay", *who, tuple(figures), {"steps": n}, peer=peer, lengths=(n,))
    lengths = peer.curve if sizes.curve[0] >= peer.curve[0] else sizes.curve
    said = note(peer, "curve")
    curve = [
        figure
        for n in lengths
        for figure in (
            Figure(TITLES["curve"], "s", f"seconds {n}", f"seconds {n}", READ, said, case=f"{n:,} steps"),
            Figure(TITLES["curve memory"], "MB", f"memory {n}", f"memory {n}", READ, case=f"{n:,} steps"),
        )
    ]
    curve += [
        Figure(TITLES["growth"], "times", f"growth {n}", f"growth {n}", READ, said, case=f"n = {n:,}")
        for n in lengths
        if 2 * n in lengths
    ]
    yield PeerReplay("curve", *who, tuple(curve), {}, peer=peer, lengths=lengths)


def start_of(peer: Peer, sizes: Sizes) -> Iterator[Workload]:
    """(d)."""
    least = LEAST[peer.on or "sqlite"]
    figures = (
        Figure(TITLES["import"], "ms", "import", "import", "a Python that does nothing, from its start to its end"),
        Figure(TITLES["first"], "ms", "first", "first", least, note(peer, "start")),
    )
    yield PeerStart("start", peer.title, peer.store, figures, {"starts": sizes.starts}, peer=peer)


def signal_of(peer: Peer, sizes: Sizes) -> Iterator[Workload]:
    """(f)."""
    who, title = (peer.title, peer.store), TITLES["signal"].format(Answer.EVENTS)
    means = floor_of(peer) + (", as many as there are durable writes" if peer.durable else ", for one step")
    commits = "commits" if peer.durable else ""
    parked, replayed = (
        Figure(title, "ms", name, "ms", means, note(peer, "signal"), commits, case)
        for name, case in (("ms", "by the process that parked it"), ("first ms", "by a process that has to replay it"))
    )
    missing = peer.absent.get("replayed signal")
    figures = (parked,) if missing else (parked, replayed)
    count = min(sizes.signals, peer.signals)
    yield PeerAnswer("signal", *who, figures, {"signals": count}, peer=peer, count=count)
    if missing:
        yield PeerAnswer("signal", *who, (replayed,), absent=missing, peer=peer)


def rest_of(peer: Peer, sizes: Sizes) -> Iterator[Workload]:
    """(g) and (i), which no peer has."""
    who = (peer.title, peer.store)
    for count in sizes.crowds:
        *lists, claim = crowd_of(count, "sqlite").figures
        yield Workload("crowd", *who, tuple(lists), absent=peer.absent["crowd"])
        yield Workload("crowd", *who, (claim,), absent=peer.absent.get("claim", peer.absent["crowd"]))
    figure = Figure(TITLES["check"].format(sizes.fleet, Check.EVENTS), "s", "")
    yield Workload("check", *who, (figure,), absent=peer.absent["check"])


def note(peer: Peer, workload: str) -> str:
    """What a reader has to know of a figure."""
    return f"{peer.title}: {peer.notes[workload]}" if workload in peer.notes else ""
