"""Which peers there are, what they can do, and which figures come of it.

Systems that need a server have their place here as soon as the tests can start one: a `Peer`, a module with the same
functions, and a requirements file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from attrs import evolve

from ..bench import Sizes, Workload
from ..plan import TITLES
from ..rows import Figure, Row
from .environments import Environment, EnvironmentFailed
from .measures import Peer, PeerReplay, PeerRuns, PeerStart, PeerSteps

__all__ = ["NAMES", "prepare", "workloads"]

NAMES = ("dbos", "langgraph", "durabletask", "aws")
INSERTED = "INSERTs of stepwell's records with no library, one transaction each, in {} with synchronous=FULL"
DRIVEN = "a generator of as many steps driven by a loop of four lines, each result kept as JSON in a list"
READ = "stepwell's records of as many steps read in one go, each decoded by msgspec into plain objects"
NO_DISK = "nothing of it is kept on disk"
INSIDE = "in one process, and timed inside the function alone: the history can't outlive its process."


def peers(work: Path) -> dict[str, list[Peer]]:
    """All peers with their settings."""
    dbos, langgraph, durabletask, aws = (Environment(name, work) for name in NAMES)
    title = f"DBOS {dbos.version('dbos')}"
    load = "from dbos import DBOS"
    polled = {"drain": "the queue is looked at once a second, which is its default."}
    graphs = "from langgraph.func import entrypoint; from langgraph.checkpoint.sqlite import SqliteSaver"
    runner = "from aws_durable_execution_sdk_python_testing import DurableFunctionTestRunner"
    return {
        "dbos": [
            Peer("dbos", title, dbos, "on_dbos", load, "sqlite", {"journal": mode}, mode, inside=True, notes=polled)
            for mode in ("DELETE", "WAL")
        ],
        "langgraph": [
            Peer(
                "langgraph",
                f"LangGraph {langgraph.version('langgraph')}",
                langgraph,
                "on_langgraph",
                graphs,
                "sqlite",
                journal="WAL",
                absent={"drain": "it has no queue and no worker: callers drive their own runs"},
                notes={"steps": "a task's result is written by another thread, after the code has seen it."},
            )
        ],
        "durabletask": [
            Peer(
                "durabletask",
                f"durabletask {durabletask.version('durabletask')}",
                durabletask,
                "on_durabletask",
                "from durabletask import client, worker",
                "memory",
                absent={"bytes": NO_DISK},
                replays=500,
                notes={"replay": INSIDE},
            )
        ],
        "aws": [
            Peer(
                "aws",
                f"AWS SDK {aws.version('aws-durable-execution-sdk-python')}, local runner",
                aws,
                "on_aws",
                runner,
                "memory",
                absent={"bytes": NO_DISK, "drain": "the local runner has no queue that a worker drains"},
                replays=1000,
                notes={
                    "replay": INSIDE,
                    "runs": "it is asked every millisecond whether a run has ended; its default is a second.",
                },
            )
        ],
    }


def prepare(name: str, work: Path) -> list[Row]:
    """Install a peer; a row when that fails."""
    environment = Environment(name, work)
    try:
        environment.make()
    except EnvironmentFailed as error:
        return [Row("installation", name, "", error=str(error))]
    return []


def workloads(sizes: Sizes, names: Iterable[str], work: Path) -> Iterator[Workload]:
    """Everything that is measured of these peers."""
    known = peers(work)
    for name in names:
        for peer in known[name]:
            yield from of(peer, sizes)


def of(peer: Peer, sizes: Sizes) -> Iterator[Workload]:
    """Everything that is measured of one peer with one setting."""
    who = (peer.title, peer.store)
    floor = INSERTED.format(peer.journal) if peer.journal else DRIVEN
    each = floor + (", divided by the commits of a run" if peer.journal else "")
    absent = {name: reason for name, reason in peer.absent.items() if name != "bytes"}
    count = sizes.steps
    figures = [
        Figure(TITLES["steps"].format(count), "steps/s", "rate", "rate", floor, note(peer, "steps"), "step"),
        Figure(TITLES["memory"].format(count), "MB", "memory", "memory", f"the process of the floor: {floor}"),
        Figure(TITLES["more memory"].format(count), "MB", "more", "idle", "a Python that has done nothing"),
    ]
    if peer.journal:
        figures.append(Figure(TITLES["bytes"], "B", "bytes", "bytes", floor))
    yield PeerSteps("steps", *who, tuple(figures), {"steps": count}, peer=peer)
    if not peer.journal:
        yield PeerSteps("steps", *who, (Figure(TITLES["bytes"], "B", ""),), absent=peer.absent["bytes"], peer=peer)
    runs = Figure(TITLES["runs"].format(sizes.runs), "runs/s", "rate", "rate", each, note(peer, "runs"), "run")
    counts = {"runs": sizes.runs, "steps": 3}
    yield PeerRuns("runs", *who, (runs,), counts, peer=peer, count=sizes.runs)
    for drained in sizes.drained[:1]:
        title = TITLES["drain"].format(drained)
        figure = Figure(title, "runs/s", "rate", "rate", each, note(peer, "drain"))
        counts = {"runs": drained, "steps": 3}
        yield PeerRuns(
            "drain", *who, (figure,), counts, absent.get("drain"), peer=peer, function="drain", count=drained
        )
    recorded = min(sizes.replayed, peer.replays)
    replay = Figure(
        TITLES["replay"].format(sizes.replayed),
        "events/s",
        "rate",
        "rate",
        READ,
        note(peer, "replay"),
        case="integers" if recorded == sizes.replayed else f"integers, {recorded:,} steps only",
    )
    replays = [replay]
    if peer.inside:
        replays.append(evolve(replay, value="inside", case="integers, inside the function alone"))
    yield PeerReplay("replay", *who, tuple(replays), {"steps": recorded}, peer=peer, count=recorded)
    least = "a Python that makes a database with WAL and synchronous=FULL and commits five rows"
    started = (
        Figure(TITLES["import"], "ms", "import", "import", "a Python that does nothing, from its start to its end"),
        Figure(TITLES["first"], "ms", "first", "first", least),
    )
    yield PeerStart("start", *who, started, peer=peer)


def note(peer: Peer, workload: str) -> str:
    """What a reader has to know of a figure."""
    return f"{peer.title}: {peer.notes[workload]}" if workload in peer.notes else ""
