"""Schedules in processes of their own, which are killed: each slot is started once, whoever is there."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from stepwell import Engine
from stepwell import events as e

PROGRAM = """
import os, sys
from datetime import datetime, timedelta
from stepwell import Engine, Flow, Step, workflow
from stepwell.schedules import Schedule, ensure
from stepwell.worker import Worker

def effect(slot: str) -> None:
    fd = os.open("effects", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{slot}\\n".encode())
    os.close(fd)

@workflow
def tick(slot: str) -> Flow[None]:
    yield Step(effect, slot)

every = Schedule("seconds", tick, every=1, args=lambda slot: (slot.isoformat(),), missed="all", at_most=1000)
with Engine(sys.argv[1], [tick, every], lease=0.5, park_after=0) as engine:
    if sys.argv[2] == "worker":
        ensure(engine)
        print("begun", flush=True)
        Worker(engine, threads=2, poll=0.02).run()
    else:
        engine.cancel(every.run_id)
        Worker(engine, threads=2, poll=0.02).run(drain=True)
"""

PATIENCE = 60.0


def slots(engine: Engine) -> list[str]:
    return sorted(run.id for run in engine.runs(workflow="tick", limit=10_000) if run.id.startswith("seconds@"))


def until(engine: Engine, many: int) -> None:
    """Look until there are so many slots."""
    pause = threading.Event()
    for _ in range(int(PATIENCE / 0.02)):
        if len(slots(engine)) >= many:
            return
        pause.wait(0.02)
    raise AssertionError(f"only {slots(engine)} were started")


def test_two_workers_that_are_killed_in_turn_start_each_slot_once(python: Any, tmp_path: Any) -> None:
    """Shows S13 (P6)."""
    url = f"sqlite:///{tmp_path}/runs.db"
    workers = [python(PROGRAM, url, "worker") for _ in range(2)]
    for worker in workers:
        assert "begun\n" == worker.stdout.readline()
    engine = Engine(url)
    for many in (2, 4):
        until(engine, many)
        worker = workers.pop(0)
        worker.send_signal(signal.SIGKILL)
        worker.wait(PATIENCE)
        workers.append(python(PROGRAM, url, "worker"))
        assert "begun\n" == workers[-1].stdout.readline()
    until(engine, 6)
    for worker in workers:
        worker.send_signal(signal.SIGKILL)
        worker.wait(PATIENCE)
    found = slots(engine)
    seen = len(found)
    workers = [python(PROGRAM, url, "worker")]  # what nobody was there for is made up for
    until(engine, seen + 2)
    workers[0].send_signal(signal.SIGTERM)
    assert 0 == workers[0].wait(PATIENCE)
    assert 0 == python(PROGRAM, url, "drain").wait(PATIENCE)
    instants = [datetime.fromisoformat(one.removeprefix("seconds@")) for one in slots(engine)]
    second = timedelta(seconds=1)
    assert [instants[0] + number * second for number in range(len(instants))] == instants  # none is left out
    runs = [engine.get(one) for one in slots(engine)]
    assert {("completed", 1)} == {(run.status, run.attempts) for run in runs}
    effects = Counter((tmp_path / "effects").read_text().split())
    assert {one.isoformat() for one in instants} == effects.keys()
    children: Counter[str] = Counter()  # of all incarnations of the schedule: each slot was recorded as a child
    for number in range(engine.get("schedule:seconds").attempts):
        history = engine.history("schedule:seconds", incarnation=number)
        children.update(event.child_id for event in history if isinstance(event, e.ChildResult))
    assert {1} == set(children.values())
    engine.close()
