"""A forced cancel: the run is closed at once, and nobody is asked."""

from __future__ import annotations

import threading
from typing import Any

from stepwell import Flow, RunCancelled, Sleep, Step, Suspend, workflow

from .tools import PATIENCE, Tally, Task, kinds


def test_a_forced_cancel_asks_nobody(bench: Any) -> None:
    tally = Tally()

    @workflow
    def w() -> Flow[None]:
        try:
            yield Suspend("go")
        finally:
            yield tally.step("release")

    engine = bench.engine()
    engine.start(w, run_id="r")
    assert RunCancelled("r", "now") == bench.engine().cancel("r", "now", force=True)
    record = engine.get("r")
    assert ("cancelled", (), None, 0) == (record.status, record.waiting_for, record.due, tally["release"])
    assert RunCancelled("r", "now") == engine.advance("r")
    assert RunCancelled("r", "now") == engine.wait("r")


def test_a_forced_cancel_closes_a_blocked_run(bench: Any) -> None:
    @workflow(name="w")
    def old() -> Flow[None]:
        yield Suspend("go")

    @workflow(name="w")
    def new() -> Flow[None]:
        yield Sleep(86400)

    bench.engine().start(old, run_id="r")
    engine = bench.engine(new)
    assert [] == engine.run_due()
    assert RunCancelled("r") == engine.cancel("r", force=True)
    assert None is engine.get("r").blocked


def test_a_forced_cancel_reaches_a_run_that_another_thread_drives(bench: Any) -> None:
    entered, leave, tally = threading.Event(), threading.Event(), Tally()

    def hold() -> None:
        entered.set()
        assert leave.wait(PATIENCE)

    @workflow
    def w() -> Flow[None]:
        yield Step(hold)
        yield tally.step("never")

    engine = bench.engine()
    driver = Task(lambda: engine.start(w, run_id="r"))
    assert entered.wait(PATIENCE)
    assert RunCancelled("r", "now") == engine.cancel("r", "now", force=True)
    leave.set()
    assert RunCancelled("r", "now") == driver.result()
    assert (["start", "cancelled"], 0) == (kinds(engine), tally["never"])
