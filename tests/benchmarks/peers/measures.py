"""How a peer is measured: the same workloads as stepwell's, by functions of its own module in its own environment."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import field, frozen

from .. import processes
from ..bench import Bench, Workload
from ..measures import LENGTH, Answer, bare, by_length, first, first_insert, growth, per, sampled, started
from ..probes import SCHEMES
from .environments import Environment

__all__ = ["Peer", "PeerAnswer", "PeerReplay", "PeerRuns", "PeerStart", "PeerSteps"]


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
        journal: the journal mode of the floor on SQLite.
        absent: what it can't do, and why: by workload, or by a figure of one.
        inside: its resume is also timed inside the workflow's function.
        runs, replays, signals: at most so many short runs, recorded steps or signals, where more would take for ever.
        curve: lengths of the histories whose resumes show how its cost grows.
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
    runs: int = 10**9
    replays: int = 10**9
    signals: int = 10**9
    curve: tuple[int, ...] = ()
    notes: dict[str, str] = field(factory=dict)

    @property
    def durable(self) -> bool:
        """Whether it keeps anything beyond its process."""
        return self.store != "memory"

    @property
    def on(self) -> str:
        """The kind of its places: those of a server, or directories."""
        return self.store if self.store in SCHEMES else ""

    def child(self, function: str, **options: Any) -> dict[str, Any]:
        """Call one of its functions in a process of its own."""
        name = f"peers.{self.module}.{function}"
        return processes.child(name, python=self.environment.python, **self.options, **options)

    def alone(self, bench: Bench, function: str, **options: Any) -> dict[str, Any]:
        """Call one of its functions in an empty place."""
        with bench.place(self.on) as directory:
            return self.child(function, directory=directory, **options)

    def sample(self, bench: Bench, length: int = LENGTH) -> dict[str, Any]:
        """Its commits, counted; and real records of stepwell's, so that all floors write the same bytes."""
        ready = sampled(bench, "sqlite", length)
        if not self.durable:
            return {"records": ready["records"]}
        key = Path(f"{self.module} {self.store} {self.journal}")
        if key not in bench.samples:
            bench.samples[key] = self.alone(bench, "sample")
        return {"records": ready["records"], **bench.samples[key]}

    def floor(self, bench: Bench, ready: dict[str, Any], count: int) -> dict[str, Any]:
        """What its writes are compared with."""
        if not self.journal:
            return bare(bench, self.store, ready, count)
        return bench.child("floors.inserts", records=ready["records"], journal=self.journal, count=count)


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
        found = self.peer.alone(bench, "one", count=bench.sizes.steps)
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
        count = bench.sizes.floor_rows if self.peer.durable else LENGTH
        return per(ready.get("run", LENGTH), self.peer.floor(bench, ready, count))

    def measure(self, bench: Bench, place: str, ready: dict[str, Any]) -> dict[str, Any]:
        with bench.place(self.peer.on) as directory:
            options: dict[str, Any] = {"directory": directory, "count": self.count, "length": LENGTH}
            if self.function == "drain" and self.peer.durable:
                self.peer.child("submit", **options)
            return self.peer.child(self.function, **options)


@frozen
class PeerReplay(Workload):
    """(c); one that can't outlive its process records and replays in one, and times its own function."""

    peer: Peer = field(kw_only=True)
    lengths: tuple[int, ...] = ()

    def prepare(self, bench: Bench, place: str) -> dict[str, Any]:
        """Its own histories, and those of stepwell as long for the floor."""
        for length in self.lengths:
            own, other = f"{place}/own/{length}", f"{place}/floor/{length}"
            for directory in (own, other):
                Path(directory).mkdir(parents=True)
            options: dict[str, Any] = {"store": "sqlite", "count": length, "results": "int"}
            processes.child("work_replay.record", directory=other, records=f"{other}/records", **options)
            if self.peer.durable and not self.peer.on:
                self.peer.child("record", directory=own, count=length)
        return {}

    def floor(self, bench: Bench, place: str, ready: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for length in self.lengths:
            other = f"{place}/floor/{length}"
            if self.peer.on:
                options: dict[str, Any] = {"records": f"{other}/records", "count": length}
                one = bench.child("server_floors.records_decoded", on=self.peer.on, **options)
            else:
                one = processes.child("floors.rows_decoded", database=f"{other}/runs.db", run_id="run")
            found |= by_length(one, length)
        return found | growth(found, self.lengths)

    def measure(self, bench: Bench, place: str, ready: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for length in self.lengths:
            with self.history(bench, place, length) as directory:
                found |= by_length(self.peer.child("resume", directory=directory, count=length), length)
        return found | growth(found, self.lengths)

    @contextlib.contextmanager
    def history(self, bench: Bench, place: str, length: int) -> Iterator[str]:
        """A place with its history, which nobody else uses."""
        if not self.peer.on:
            with bench.copy(f"{place}/own/{length}") as directory:
                yield directory
            return
        with bench.place(self.peer.on) as url:  # no place on a server is copied
            self.peer.child("record", directory=url, count=length)
            yield url


@frozen
class PeerStart(Workload):
    """(d)."""

    peer: Peer = field(kw_only=True)

    def floor(self, bench: Bench, place: str, ready: dict[str, Any]) -> dict[str, Any]:
        code, python = first_insert(self.peer.on), self.peer.environment.python
        least = first(bench, code, str(LENGTH + 2), python=python, store=self.peer.on)
        return {"import": started(bench, "pass", python), **least}

    def measure(self, bench: Bench, place: str, ready: dict[str, Any]) -> dict[str, Any]:
        python = self.peer.environment.python
        code = f"from tests.benchmarks.peers.{self.peer.module} import first; first()"
        plain = started(bench, "pass", python)
        whole = started(bench, self.peer.imports, python)
        options = [str(option) for option in self.peer.options.values()]
        begun = first(bench, code, *options, python=python, store=self.peer.on)
        return {"import": whole - plain, "durability import": "none", **begun}


@frozen
class PeerAnswer(Workload):
    """(f)."""

    peer: Peer = field(kw_only=True)
    count: int = 0

    def prepare(self, bench: Bench, place: str) -> dict[str, Any]:
        ready = sampled(bench, "sqlite", LENGTH)
        if not self.peer.durable:
            return {"records": ready["records"], "commits": 1}
        few = self.peer.alone(bench, "answer", runs=1, events=Answer.EVENTS, counted=True)
        return {"records": ready["records"], "commits": few["commits"]}

    def floor(self, bench: Bench, place: str, ready: dict[str, Any]) -> dict[str, Any]:
        count = bench.sizes.floor_rows if self.peer.durable else LENGTH
        found = self.peer.floor(bench, ready, count)
        return found | {"ms": found["ms"] * ready["commits"]}

    def measure(self, bench: Bench, place: str, ready: dict[str, Any]) -> dict[str, Any]:
        return self.peer.alone(bench, "answer", runs=self.count, events=Answer.EVENTS)
