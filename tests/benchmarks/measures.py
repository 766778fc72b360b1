"""How each workload is prepared and measured, and what its floor is. Children are named by module and function."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from attrs import frozen

from . import processes
from .bench import Bench, Workload
from .probes import SCHEMES

__all__ = [
    "LENGTH",
    "Answer",
    "Check",
    "Crowd",
    "Replay",
    "Runs",
    "Start",
    "Steps",
    "bare",
    "by_length",
    "first",
    "first_insert",
    "growth",
    "per",
    "sampled",
    "started",
]

LENGTH = 3
"""Steps of a short run."""


def bare(bench: Bench, store: str, ready: dict[str, Any], count: int) -> dict[str, Any]:
    """The floor of a store's writes; in memory, where there are none, the least loop that drives a generator."""
    if store == "memory":
        return processes.child("floors.driven", count=count, runs=20)
    function = {"sqlite": "floors.inserts", "jsonl": "floors.appends"}.get(store, "server_floors.writes")
    return bench.child(function, on=store, records=ready["records"], count=count)


def sampled(bench: Bench, store: str, length: int) -> dict[str, Any]:
    """The records of a real run, for the floor, and what was counted of durable writes; once for each length."""
    records = bench.top / f"{store}-{length}.records"
    if records not in bench.samples:
        found = bench.child("work_steps.sample", on=store, store=store, records=str(records), length=length)
        bench.samples[records] = found | {"records": str(records)}
    return bench.samples[records]


def per(commits: float, floor: dict[str, Any]) -> dict[str, Any]:
    """A floor in runs per second, where each needs so many commits."""
    return floor | {"rate": floor["rate"] / commits}


@frozen
class Steps(Workload):
    """(a) one long run; (e) its memory; (h) its bytes on disk."""

    def prepare(self, bench: Bench, place: str) -> dict[str, Any]:
        return sampled(bench, self.store, bench.sizes.steps)

    def floor(self, bench: Bench, place: str, ready: dict[str, Any]) -> dict[str, Any]:
        idle = processes.child("floors.idle")["memory"]
        return bare(bench, self.store, ready, bench.sizes.steps) | {"idle": idle}

    def measure(self, bench: Bench, place: str, ready: dict[str, Any]) -> dict[str, Any]:
        found = bench.child("work_steps.one", on=self.store, store=self.store, count=bench.sizes.steps)
        return found | {"more": found["memory"] - processes.child("floors.idle")["memory"]}


@frozen
class Runs(Workload):
    """(b) many short runs, one after another."""

    function: str = "many"
    counted: str = "run"
    count: int = 0

    def prepare(self, bench: Bench, place: str) -> dict[str, Any]:
        ready = sampled(bench, self.store, LENGTH)
        # In memory, nothing is committed and the floor's unit is a step.
        return ready | {"per": ready.get(self.counted, LENGTH)}

    def floor(self, bench: Bench, place: str, ready: dict[str, Any]) -> dict[str, Any]:
        count = LENGTH if self.store == "memory" else bench.sizes.floor_rows
        return per(ready["per"], bare(bench, self.store, ready, count))

    def measure(self, bench: Bench, place: str, ready: dict[str, Any]) -> dict[str, Any]:
        options: dict[str, Any] = {"store": self.store, "count": self.count, "length": LENGTH}
        if self.function == "many":
            return bench.child("work_steps.many", on=self.store, **options)
        with bench.place(self.store) as directory:
            if self.store != "memory":
                processes.child("work_steps.submit", directory=directory, **options)
            return processes.child("work_steps.drain", directory=directory, **options)


@frozen
class Replay(Workload):
    """(c) a fresh process goes on with a run of many recorded steps."""

    lengths: tuple[int, ...] = ()
    results: str = "int"

    def recorded(self, directory: str, length: int, records: str = "") -> None:
        """Record a history that will be resumed."""
        options: dict[str, Any] = {"store": self.store, "count": length, "results": self.results, "records": records}
        processes.child("work_replay.record", directory=directory, **options)

    def prepare(self, bench: Bench, place: str) -> dict[str, Any]:
        for length in self.lengths:
            directory = f"{place}/{length}"
            Path(directory).mkdir()
            if self.store in SCHEMES:  # no place on a server is copied: each is filled when it is needed
                with bench.place(self.store) as url:
                    self.recorded(url, length, f"{directory}/records")
            else:
                self.recorded(directory, length)
        return {}

    @contextlib.contextmanager
    def history(self, bench: Bench, place: str, length: int) -> Iterator[str]:
        """A place with a history of this length, which nobody else uses."""
        if self.store not in SCHEMES:
            with bench.copy(f"{place}/{length}") as directory:
                yield directory
            return
        with bench.place(self.store) as url:
            self.recorded(url, length)
            yield url

    def floor(self, bench: Bench, place: str, ready: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for length in self.lengths:
            if self.store in SCHEMES:
                options = {"records": f"{place}/{length}/records", "count": length}
                one = bench.child("server_floors.records_decoded", on=self.store, **options)
            elif self.store == "sqlite":
                one = processes.child("floors.rows_decoded", database=f"{place}/{length}/runs.db", run_id="run")
            else:
                one = processes.child("floors.lines_decoded", directory=f"{place}/{length}")
            found |= by_length(one, length)
        return found | growth(found, self.lengths)

    def measure(self, bench: Bench, place: str, ready: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for length in self.lengths:
            with self.history(bench, place, length) as directory:
                one = processes.child("work_replay.resume", directory=directory, store=self.store, count=length)
            found |= by_length(one, length)
        return found | growth(found, self.lengths)


def by_length(found: dict[str, Any], length: int) -> dict[str, Any]:
    """The results for one length, under names of their own."""
    return {f"{name} {length}": value for name, value in found.items()} | {"durability": found["durability"]}


def growth(found: dict[str, Any], lengths: tuple[int, ...]) -> dict[str, Any]:
    """time(2n) / time(n), for each n whose double is there."""
    doubled = [length for length in lengths if 2 * length in lengths]
    return {f"growth {n}": found[f"seconds {2 * n}"] / found[f"seconds {n}"] for n in doubled}


@frozen
class Start(Workload):
    """(d) what it costs to import the library, and to have a first run finished."""

    def floor(self, bench: Bench, place: str, ready: dict[str, Any]) -> dict[str, Any]:
        least = first(bench, first_insert(self.store), str(LENGTH + 2), store=self.store)
        return {"import": started(bench, "pass"), **least}

    def measure(self, bench: Bench, place: str, ready: dict[str, Any]) -> dict[str, Any]:
        code = "from tests.benchmarks.work_start import first_run; first_run()"
        begun = first(bench, code, self.store, store=self.store)
        if self.store in SCHEMES:
            return begun
        plain = started(bench, "pass")
        whole = started(bench, "import stepwell")
        return {"import": whole - plain, "durability import": "none", **begun}


def first_insert(store: str) -> str:
    """The code of a floor that writes a run's worth of rows in a new place."""
    module = "server_floors" if store in SCHEMES else "floors"
    return f"from tests.benchmarks.{module} import first_insert; first_insert()"


def started(bench: Bench, code: str, python: str | None = None) -> float:
    """Milliseconds of an interpreter with this code; the median."""
    spent = sorted(processes.wall(code, python=python) for _ in range(bench.sizes.starts))
    return spent[len(spent) // 2]


def first(bench: Bench, code: str, *arguments: str, python: str | None = None, store: str = "") -> dict[str, Any]:
    """Milliseconds from the start of a process to the end of its first run, in a new place; the median."""
    found = []
    for _ in range(bench.sizes.starts):
        with bench.place(store) as directory:
            found.append(processes.until_finished(code, directory, *arguments, python=python))
    spent = sorted(milliseconds for milliseconds, _ in found)
    return {"first": spent[len(spent) // 2], "durability": found[0][1]}


@frozen
class Answer(Workload):
    """(f) a signal to a suspended run."""

    EVENTS: ClassVar = 100

    def prepare(self, bench: Bench, place: str) -> dict[str, Any]:
        ready = sampled(bench, self.store, LENGTH)
        few = bench.child(
            "work_signals.answer", on=self.store, store=self.store, runs=1, events=self.EVENTS, counted=True
        )
        return ready | {"commits": few["commits"]}

    def floor(self, bench: Bench, place: str, ready: dict[str, Any]) -> dict[str, Any]:
        found = bare(bench, self.store, ready, bench.sizes.floor_rows)
        return found | {"ms": found["ms"] * ready["commits"]}

    def measure(self, bench: Bench, place: str, ready: dict[str, Any]) -> dict[str, Any]:
        options: dict[str, Any] = {"store": self.store, "runs": bench.sizes.signals, "events": self.EVENTS}
        return bench.child("work_signals.answer", on=self.store, **options)


@frozen
class Crowd(Workload):
    """(g) questions to a store with very many open runs."""

    count: int = 0

    def prepare(self, bench: Bench, place: str) -> dict[str, Any]:
        options: dict[str, Any] = {"store": self.store, "count": self.count}
        ready = sampled(bench, self.store, LENGTH) | {"claims": 1}
        if self.store not in SCHEMES:
            processes.child("work_crowd.fill", directory=place, **options)
            return ready | {"place": place}
        url = bench.kept(self.store)
        processes.child("work_crowd.fill", directory=url, **options)
        return ready | {"place": url}

    def floor(self, bench: Bench, place: str, ready: dict[str, Any]) -> dict[str, Any]:
        options: dict[str, Any] = {"rows": 100, "times": bench.sizes.asks}
        if self.store in SCHEMES:
            page = bench.child("server_floors.page", on=self.store, records=ready["records"], **options)
        else:
            page = processes.child("floors.page", database=f"{place}/runs.db", **options)
        return page | {"commit": bare(bench, self.store, ready, bench.sizes.floor_rows)["ms"]}

    def measure(self, bench: Bench, place: str, ready: dict[str, Any]) -> dict[str, Any]:
        options: dict[str, Any] = {"directory": ready["place"], "store": self.store}
        asked = processes.child("work_crowd.ask", times=bench.sizes.asks, **options)
        # One run in a hundred is due, and a claim takes ten of them.
        times = min(bench.sizes.asks, self.count // 1000 - 1)
        return asked | processes.child("work_crowd.claims", times=times, **options)


@frozen
class Check(Workload):
    """(i) all open runs of a store replayed against the code at hand."""

    count: int = 0
    EVENTS: ClassVar = 100

    def prepare(self, bench: Bench, place: str) -> dict[str, Any]:
        processes.child("work_fleet.fill", directory=place, count=self.count, events=self.EVENTS)
        return {}

    def floor(self, bench: Bench, place: str, ready: dict[str, Any]) -> dict[str, Any]:
        return processes.child("floors.all_rows_decoded", database=f"{place}/runs.db")

    def measure(self, bench: Bench, place: str, ready: dict[str, Any]) -> dict[str, Any]:
        return processes.child("work_fleet.check", directory=place, count=self.count)
