"""What the tests of moves between servers share: open runs of every kind that matters, and a mover that is killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.moving.killing import Fuse, Fused, Killed, die
from tests.moving.zoo import buffering, counting, engine_on, parent, sleeping

from stepwell.store import Store

__all__ = ["killed_at", "open_runs"]


def open_runs(store: Store, log: Path) -> None:
    """One with signals that came early, one with a timer, one of three incarnations, and a parent with its child."""
    engine, text = engine_on(store), str(log)
    engine.start(buffering, text, "buffers", run_id="buffers", tags={"kind": "4"})
    engine.signal("buffers", "early", 1, id="a")
    engine.signal("buffers", "early", {"n": 2}, id="b")
    engine.start(sleeping, text, "sleeps", run_id="sleeps", tags={"kind": "5"})
    engine.start(counting, text, "counts", 0, run_id="counts", tags={"kind": "6"})
    engine.start(parent, text, "waits", run_id="waits", tags={"kind": "7"})


def killed_at(source: Any, target: Any, at: int) -> bool:
    """Move runs, and be killed at that call; whether it came so far."""
    fuse = Fuse(at, die)
    try:
        engine_on(Fused(source, fuse)).migrate(Fused(target, fuse))
    except Killed:
        assert fuse.burnt
    return fuse.burnt
