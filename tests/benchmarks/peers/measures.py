"""How a peer is measured: the same workloads as stepwell's, by functions of its own module in its own environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attrs import field, frozen

from .. import processes
from ..bench import Bench, Workload
from ..measures import LENGTH, bare, first, per, sampled, started
from .environments import Environment

__all__ = ["Peer", "PeerReplay", "PeerRuns", "PeerStart", "PeerSteps"]


@frozen
class Peer:
    """Another system, with one setting.

    Attributes:
        name: as `--peer` knows it.
        title: what the tables call it.
        environment: where it is installed.
        module: its module in this package.
        imports: what a program imports of it.
        store: where it keeps histories.
        options: of all its functions.
        journal: the journal mode of the floor; "" when it keeps nothing on disk.
        absent: what it can't do, and why.
        inside: its resume is also timed inside the workflow's function.
        replays: at most so many recorded steps, where more would take for ever.
        notes: what a reader has to know, by workload.
    """

    name: str
    title: str
    environment: Environment
    module: str
    imports: str
    store: str
    options: dict[str, Any] = field(factory=dict)
    journal: str = ""
    absent: dict[str, str] = field(factory=dict)
    inside: bool = False
    replays: int = 10**9
    notes: dict[str, str] = field(factory=dict)

    def child(self, function: str, **options: Any) -> dict[str, Any]:
        """Call one of its functions in a process of its own."""
        name = f"peers.{self.module}.{function}"
        return processes.child(name, python=self.environment.python, **self.options, **options)

    def sample(self, bench: Bench, length: int = LENGTH) -> dict[str, Any]:
        """Its commits, counted; and real records of stepwell's, so that all floors write the same bytes."""
        ready = sampled(bench, "sqlite", length)
        if not self.journal:
            return {"records": ready["records"]}
        key = Path(f"{self.module} {self.journal}")
        if key not in bench.samples:
            with bench.place() as directory:
                bench.samples[key] = self.child("sample", directory=directory)
        return {"records": ready["records"], **bench.samples[key]}

    def floor(self, bench: Bench, ready: dict[str, Any], count: int) -> dict[str, Any]:
        """What its writes are compared with."""
        if not self.journal:
            return bare(bench, "memory", ready, count)
        options: dict[str, Any] = {"records": ready["records"], "journal": self.journal}
        return bench.child("floors.inserts", count=count, **options)


@frozen
class PeerSteps(Workload):
    """(a), (e) and (h)."""

    peer: Peer = field(kw_only=True)

    def prepare(self, bench: Bench, place: str) -> dict[str, Any]:
        return self.peer.sample(bench, bench.sizes.steps)

    def floor(self, bench: Bench, place: str, ready: dict[str, Any]) -> dict[str, Any]:
        idle = processes.child("floors.idle", python=self.peer.environment.python)["memory"]
        return self.peer.floor(bench, ready, bench.sizes.steps) | {"idle": idle}

    def measure(self, bench: Bench, place: str, ready: dict[str, Any]) -> dict[str, Any]:
        with bench.place() as directory:
            found = self.peer.child("one", directory=directory, count=bench.sizes.steps)
        idle = processes.child("floors.idle", python=self.peer.environment.python)["memory"]
        return found | {"more": found["memory"] - idle}


@frozen
class PeerRuns(Workload):
    """(b) and (b2)."""

    peer: Peer = field(kw_only=True)
    function: str = "many"
    count: int = 0

    def prepare(self, bench: Bench, place: str) -> dict[str, Any]:
        return self.peer.sample(bench)

    def floor(self, bench: Bench, place: str, ready: dict[str, Any]) -> dict[str, Any]:
        count = bench.sizes.floor_rows if self.peer.journal else LENGTH
        return per(ready.get("run", LENGTH), self.peer.floor(bench, ready, count))

    def measure(self, bench: Bench, place: str, ready: dict[str, Any]) -> dict[str, Any]:
        with bench.place() as directory:
            options: dict[str, Any] = {"directory": directory, "count": self.count, "length": LENGTH}
            if self.function == "drain" and self.peer.journal:
                self.peer.child("submit", **options)
            return self.peer.child(self.function, **options)


@frozen
class PeerReplay(Workload):
    """(c); one that can't outlive its process records and replays in one, and times its own function."""

    peer: Peer = field(kw_only=True)
    count: int = 0

    def prepare(self, bench: Bench, place: str) -> dict[str, Any]:
        """Its own history, and one of stepwell's as long for the floor."""
        own, other = f"{place}/own", f"{place}/floor"
        for directory in (own, other):
            Path(directory).mkdir()
        processes.child("work_replay.record", directory=other, store="sqlite", count=self.count, results="int")
        if self.peer.journal:
            self.peer.child("record", directory=own, count=self.count)
        return {}

    def floor(self, bench: Bench, place: str, ready: dict[str, Any]) -> dict[str, Any]:
        return processes.child("floors.rows_decoded", database=f"{place}/floor/runs.db", run_id="run")

    def measure(self, bench: Bench, place: str, ready: dict[str, Any]) -> dict[str, Any]:
        with bench.copy(f"{place}/own") as directory:
            return self.peer.child("resume", directory=directory, count=self.count)


@frozen
class PeerStart(Workload):
    """(d)."""

    peer: Peer = field(kw_only=True)

    def floor(self, bench: Bench, place: str, ready: dict[str, Any]) -> dict[str, Any]:
        code = "from tests.benchmarks.floors import first_insert; first_insert()"
        python = self.peer.environment.python
        return {"import": started(bench, "pass", python), **first(bench, code, str(LENGTH + 2), python=python)}

    def measure(self, bench: Bench, place: str, ready: dict[str, Any]) -> dict[str, Any]:
        python = self.peer.environment.python
        code = f"from tests.benchmarks.peers.{self.peer.module} import first; first()"
        plain = started(bench, "pass", python)
        whole = started(bench, self.peer.imports, python)
        options = [str(option) for option in self.peer.options.values()]
        return {"import": whole - plain, "durability import": "none", **first(bench, code, *options, python=python)}
