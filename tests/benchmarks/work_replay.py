"""Children: a history is recorded, and another process replays it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from .flows import RECORDED, durability_of, engine_on, go
from .probes import peak_memory

__all__ = ["record", "resume"]


def record(store: str, directory: str, count: int, results: str, records: str = "") -> dict[str, Any]:
    """Record `count` steps, and suspend. Not synced: this is not what is measured.

    Args:
        records: a file that what was recorded is written into, too.
    """
    with engine_on(store, directory, sync=False, events=count + 2) as engine:
        assert engine.start(RECORDED[results], count, run_id="run").status == "suspended"
        if records:
            found = engine.store.read("run")
            assert found is not None
            Path(records).write_bytes(b"".join(line + b"\n" for line in found.records))
    return {}


def resume(store: str, directory: str, count: int) -> dict[str, Any]:
    """Go on with the recorded run in an engine that has just been made, from the call to the run's end."""
    with engine_on(store, directory, events=count + 4) as engine:
        began = time.perf_counter()
        assert engine.resume("run", go, count).unwrap() == count
        seconds = time.perf_counter() - began
        durability = durability_of(engine, store, directory)
    return {"rate": count / seconds, "seconds": seconds, "memory": peak_memory(), "durability": durability}
