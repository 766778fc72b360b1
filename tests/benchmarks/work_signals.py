"""Children: a signal to a run that waits for it, in the process that suspended it."""

from __future__ import annotations

import time
from typing import Any

from .flows import asking, durability_of, engine_on, go
from .probes import peak_memory
from .work_steps import countable, counting

__all__ = ["answer"]

FEW = 3


def answer(store: str, directory: str, runs: int, events: int, counted: bool = False) -> dict[str, Any]:
    """Bring runs to `events` events and a wait, then give each a signal and drive it to the next wait, twice.

    Args:
        counted: count the durable writes too, which makes it slower.

    Returns:
        first ms: of the first signal, for which this process has to replay the run; ms: of the second one.
    """
    names = [f"run-{number}" for number in range(runs + FEW + 2)]
    with engine_on(store, directory, sync=False) as engine:
        for name in names:
            assert engine.start(asking, events - 2, run_id=name).status == "suspended"
        assert len(engine.history(names[0])) == events
    with countable(store if counted else ""), engine_on(store, directory) as engine:
        for name in names[:2]:
            engine.resume(name, go, 1)
        found: dict[str, float] = {}
        if counted:
            with counting(store, directory, found, "commits"):
                for name in names[2 : FEW + 2]:
                    engine.resume(name, go, 1)
        again, first = 0.0, 0.0
        for name in names[FEW + 2 :]:
            began = time.perf_counter()
            assert engine.resume(name, go, 1).status == "suspended"
            parked = time.perf_counter()
            assert engine.resume(name, go, 1).status == "suspended"
            first, again = first + parked - began, again + time.perf_counter() - parked
        durability = durability_of(engine, store, directory)
    return {
        "first ms": 1000 * first / runs,
        "ms": 1000 * again / runs,
        "durability": durability,
        "memory": peak_memory(),
        **{name: number / FEW for name, number in found.items()},
    }
