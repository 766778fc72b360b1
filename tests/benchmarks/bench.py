"""How a workload is measured: something before, then the floor, the measurement, the floor, and so on."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from . import processes
from .probes import SCHEMES
from .processes import ChildError
from .rows import Figure, Row, row_of
from .servers import ServerMissing, Servers

__all__ = ["FULL", "QUICK", "SOAK", "Bench", "Sizes", "Workload", "measured"]


@frozen
class Sizes:
    """How much is done."""

    steps: int
    runs: int
    drained: tuple[int, ...]
    replayed: int
    curve: tuple[int, ...]
    starts: int
    signals: int
    crowds: tuple[int, ...]
    asks: int
    fleet: int
    floor_rows: int


FULL = Sizes(
    steps=1000,
    runs=1000,
    drained=(1000,),
    replayed=10_000,
    curve=(10_000, 20_000, 40_000, 80_000, 160_000),
    starts=20,
    signals=200,
    crowds=(100_000,),
    asks=50,
    fleet=10_000,
    floor_rows=3000,
)
QUICK = Sizes(
    steps=20,
    runs=5,
    drained=(5,),
    replayed=100,
    curve=(100, 200),
    starts=1,
    signals=3,
    crowds=(4000,),
    asks=2,
    fleet=20,
    floor_rows=30,
)
SOAK = Sizes(
    steps=1000,
    runs=1000,
    drained=(1000, 10_000),
    replayed=10_000,
    curve=(*FULL.curve, 500_000, 1_000_000),
    starts=20,
    signals=200,
    crowds=(100_000, 1_000_000),
    asks=50,
    fleet=10_000,
    floor_rows=3000,
)


@define
class Bench:
    """One run of the command.

    Attributes:
        sizes: how much is done.
        repeat: how often each measurement is made.
        top: directory for the stores, on a file system of a disk.
        samples: files of real records, and what was counted when they were written.
        servers: those of stores that need one.
    """

    sizes: Sizes
    repeat: int
    top: Path
    samples: dict[Path, dict[str, Any]] = field(factory=dict)
    servers: Servers = field(factory=Servers)
    _kept: contextlib.ExitStack = field(factory=contextlib.ExitStack)

    @contextlib.contextmanager
    def place(self, store: str = "") -> Iterator[str]:
        """An empty place for such a store, removed afterwards: a directory, or a URL on a server."""
        if store in SCHEMES:
            with self.servers.place(store) as url:
                yield url
            return
        with tempfile.TemporaryDirectory(dir=self.top, ignore_cleanup_errors=True) as directory:
            yield directory

    def kept(self, store: str) -> str:
        """An empty place for such a store, which stays until the workload has been measured."""
        return self._kept.enter_context(self.place(store))

    @contextlib.contextmanager
    def workload(self) -> Iterator[str]:
        """A directory for one workload; what was `kept` ends with it."""
        with self.place() as directory, self._kept:
            yield directory

    @contextlib.contextmanager
    def copy(self, template: str) -> Iterator[str]:
        """A copy of a directory, removed afterwards."""
        with self.place() as directory:
            shutil.copytree(template, directory, dirs_exist_ok=True)
            yield directory

    def child(self, function: str, *, on: str = "", **options: Any) -> dict[str, Any]:
        """Call a function in a fresh process, on an empty place of a store."""
        with self.place(on) as directory:
            return processes.child(function, directory=directory, **options)


@frozen
class Workload:
    """Something that is measured, beside its floor.

    Attributes:
        name: as `--only` knows it.
        system, store: whose figure it is, and where histories are kept.
        figures: the numbers that it gives.
        counts: how much is done.
        absent: why the system can't do this at all, or None.
    """

    name: str
    system: str
    store: str
    figures: tuple[Figure, ...]
    counts: dict[str, int] = field(factory=dict)
    absent: str | None = None

    def prepare(self, bench: Bench, place: str) -> dict[str, Any]:
        """Make what is needed in `place`, before anything is measured; what was counted meanwhile."""
        return {}

    def floor(self, bench: Bench, place: str, ready: dict[str, Any]) -> dict[str, Any]:
        """Measure the floor."""
        return {}

    def measure(self, bench: Bench, place: str, ready: dict[str, Any]) -> dict[str, Any]:
        """Measure what the workload is about."""
        raise NotImplementedError


def measured(workload: Workload, bench: Bench) -> list[Row]:
    """Measure a workload: its rows, or one that says what went wrong."""
    figures = workload.figures
    who = (workload.system, workload.store)
    if workload.absent is not None:
        return [Row(one.workload, *who, unit=one.unit, case=one.case, missing=workload.absent) for one in figures]
    try:
        with bench.workload() as place:
            ready = workload.prepare(bench, place)
            floors, values = [workload.floor(bench, place, ready)], []
            for _ in range(bench.repeat):
                values.append(workload.measure(bench, place, ready))
                floors.append(workload.floor(bench, place, ready))
    except Exception as failure:
        said = isinstance(failure, ChildError | ServerMissing)
        if not said:
            traceback.print_exc()
        error = str(failure) if said else repr(failure)
        return [Row(one.workload, *who, unit=one.unit, case=one.case, error=error) for one in figures]
    return [
        row_of(
            figure,
            values,
            floors,
            system=workload.system,
            store=workload.store,
            counted={**ready, **values[-1]},
            counts=workload.counts,
        )
        for figure in figures
    ]
