"""Children: a store with many open runs of many events, and all of them replayed by `stepwell check`."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from stepwell.cli import main

from .flows import RECORDED, engine_on, path_of
from .probes import peak_memory
from .work_crowd import copy

__all__ = ["check", "fill"]

APP = """
import os
from stepwell import Engine
from tests.benchmarks.flows import WORKFLOWS
engine = Engine(os.environ["STEPWELL_STORE"], workflows=WORKFLOWS)
"""
START_AND_WAIT = 2  # events of a run beside its steps


def fill(directory: str, count: int, events: int) -> dict[str, Any]:
    """One real run that waits, and copies of its rows."""
    with engine_on("sqlite", directory, sync=False) as engine:
        steps = events - START_AND_WAIT
        assert engine.start(RECORDED["int"], steps, run_id="real").status == "suspended"
        assert len(engine.history("real")) == events
    copy(path_of("sqlite", directory), ["real"], count)
    Path(directory, "fleet_app.py").write_text(APP, "utf-8")
    return {}


def check(directory: str, count: int) -> dict[str, Any]:
    """Replay all of them, with a process for each CPU: from the call of the command to its end."""
    sys.path.insert(0, directory)
    url = f"sqlite:///{path_of('sqlite', directory)}"
    processes = str(len(os.sched_getaffinity(0)))
    arguments = ["--app", "fleet_app:engine", "--store", url, "check", "--json", "--processes", processes]
    printed = io.StringIO()
    began = time.perf_counter()
    with redirect_stdout(printed):
        assert main(arguments) == 0, printed.getvalue()
    seconds = time.perf_counter() - began
    assert json.loads(printed.getvalue())["fits"] == count
    return {"seconds": seconds, "memory": peak_memory(), "durability": "reading"}
