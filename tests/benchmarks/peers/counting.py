"""Durable writes of a peer, counted where it keeps them. Runs in the environments of peers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.benchmarks import server_probes
from tests.benchmarks.probes import commits

__all__ = ["counting", "sampled"]

FEW = 5


@contextmanager
def counting(place: str, database: str, into: dict[str, float], name: str) -> Iterator[None]:
    """Count the durable writes of a block.

    Args:
        place: a directory, or the URL of a place on a server.
        database: the SQLite file in the directory.
    """
    if "://" in place:
        with server_probes.counting(place, into, name):
            yield
        return
    before = commits(database)
    yield
    after = commits(database)
    assert before[0] == after[0], "the log began anew meanwhile"
    into[name] = after[1] - before[1]


def sampled(place: str, database: str, run: Callable[[int], object]) -> dict[str, float]:
    """Commits of one more step, and of a run of three.

    Args:
        run: does a run of so many steps.
    """
    found: dict[str, float] = {}
    for name, lengths in (("none", [0]), ("step", [FEW]), ("run", [3] * FEW)):
        with counting(place, database, found, name):
            for length in lengths:
                run(length)
    return {"step": (found["step"] - found["none"]) / FEW, "run": found["run"] / FEW}
