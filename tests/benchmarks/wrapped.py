"""What a store around a store costs: the same run with it and without, in turns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from attrs import frozen

from .bench import Bench, Sizes, Workload
from .rows import Figure

__all__ = ["TITLES", "wrappers"]

TITLES = {
    "us": "a step on SQLite, with {0} around it",
    "read": "an event read back, with {0} around the store",
    "bytes": "bytes on disk for a step, with {0} around the store",
}
SMALL, LARGE, HUGE = 20, 10_000, 100_000
CASES = (("encrypted", SMALL), ("encrypted", LARGE), ("compressed", LARGE), ("offloaded", HUGE))


@frozen
class Wrapped(Workload):
    """A run on a store with a wrapper; the floor is the one without."""

    wrapper: str = ""
    count: int = 0
    size: int = 0

    def floor(self, bench: Bench, place: str, ready: dict[str, Any]) -> dict[str, Any]:
        return bench.child("work_wrapped.run", wrapper="", count=self.count, size=self.size)

    def measure(self, bench: Bench, place: str, ready: dict[str, Any]) -> dict[str, Any]:
        return bench.child("work_wrapped.run", wrapper=self.wrapper, count=self.count, size=self.size)


def wrappers(sizes: Sizes) -> Iterator[Workload]:
    """Each wrapper, with results of the sizes that it is for."""
    for wrapper, size in CASES:
        count = max(sizes.steps // (1 if size == SMALL else 10), 10)
        units = {"us": "µs", "read": "µs", "bytes": "B"}
        means = "the same run on the same store with nothing around it"
        case = f"results of {size:,} characters"
        figures = tuple(
            Figure(title.format(f"`{wrapper}+`"), units[name], name, name, means, case=case)
            for name, title in TITLES.items()
        )
        counts = {"steps": count}
        yield Wrapped("wrapped", "stepwell", "sqlite", figures, counts, wrapper=wrapper, count=count, size=size)
