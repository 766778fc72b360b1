"""What is told of a run while somebody drives it: that it runs, and nothing that may be over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stepwell import Engine, Flow, Suspend, workflow
from stepwell.store import Lease, Store
from stepwell_stores.urls import open_store


@workflow
def asking() -> Flow[Any]:
    return (yield Suspend("go", reason="may it?"))


@pytest.fixture(params=["memory:", "file:{}/runs", "sqlite:///{}/runs.db"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    store = open_store(request.param.format(tmp_path))
    yield store
    store.close()


def told(engine: Engine) -> dict[str, Any]:
    """All that lists and records say of the runs."""
    return {
        "statuses": [run.status for run in engine.runs()],
        "found": [(s, r.id) for s in ("suspended", "paused", "pending", "running") for r in engine.runs(status=s)],
        "waiting_for": [run.waiting_for for run in engine.runs()],
        "by signal": [run.id for run in engine.runs(waiting_for="go")],
        "waits": [wait.run_id for wait in engine.waiting()] + [wait.run_id for wait in engine.waiting("go")],
    }


@pytest.mark.parametrize("status", ["suspended", "paused"])
def test_a_parked_run_that_is_driven_again_is_running_and_waits_for_nothing(store: Store, status: str) -> None:
    engine = Engine(store, [asking])
    engine.start(asking, run_id="r")
    if status == "paused":
        engine.pause("r")
    parked = {
        "statuses": [status],
        "found": [(status, "r")],
        "waiting_for": [("go",)],
        "by signal": ["r"],
        "waits": ["r", "r"],
    }
    assert parked == told(engine)
    lease = store.claim("r", "somebody", 30)
    assert isinstance(lease, Lease)
    driven = {
        "statuses": ["running"],
        "found": [("running", "r")],
        "waiting_for": [()],
        "by signal": [],
        "waits": [],
    }
    assert driven == told(engine)
    assert ("running", ()) == (engine.get("r").status, engine.get("r").waiting_for)
    store.release(lease)
    assert parked == told(engine)
