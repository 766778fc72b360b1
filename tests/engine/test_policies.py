"""What start and submit do with a run id that is taken: every if_open and if_closed."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from stepwell import (
    ConflictError,
    Flow,
    LeaseLostError,
    RunCancelled,
    RunCompleted,
    RunFailed,
    Running,
    RunSuspended,
    Step,
    Suspend,
    workflow,
)

from .tools import Tally, Task, kinds


class Shop:
    """A workflow that waits, fails or completes as it is told."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.broken = False
        tally = self.tally

        def deliver(how: str) -> str:
            tally.add("deliver")
            if self.broken:
                raise ConnectionError("no road")
            return how

        @workflow
        def order(how: str) -> Flow[str]:
            yield tally.step("charge")
            if how == "ask":
                how = yield from Suspend("how", into=str)

            return (yield from Step(deliver, how))

        self.order = order


@pytest.fixture
def shop() -> Shop:
    return Shop()


def test_an_open_run_is_joined(bench: Any, shop: Shop) -> None:
    engine = bench.engine()
    parked = engine.start(shop.order, "ask", run_id="r")
    assert parked == engine.start(shop.order, "ask", run_id="r", if_open="join", if_closed="error")
    assert parked == engine.submit(shop.order, "ask", run_id="r")
    assert 1 == shop.tally["charge"]


@pytest.mark.parametrize("call", ["start", "submit"])
def test_an_open_run_may_be_an_error(bench: Any, shop: Shop, call: str) -> None:
    engine = bench.engine()
    engine.start(shop.order, "ask", run_id="r")
    with pytest.raises(ConflictError, match="'r' is there already, open, and if_open='error' was asked for"):
        getattr(engine, call)(shop.order, "ask", run_id="r", if_open="error")
    assert "suspended" == engine.get("r").status


def test_an_open_run_may_be_restarted_with_other_input(bench: Any, shop: Shop) -> None:
    engine = bench.engine()
    engine.start(shop.order, "ask", run_id="r")
    assert RunCompleted("r", "by cart") == engine.start(shop.order, "by cart", run_id="r", if_open="restart")
    assert "cancelled" == kinds(engine, incarnation=0)[-1]
    assert (["start", "step", "step", "complete"], 2) == (kinds(engine), engine.get("r").attempts)
    assert 2 == shop.tally["charge"]


def test_submit_may_restart_an_open_run(bench: Any, shop: Shop) -> None:
    engine = bench.engine()
    engine.start(shop.order, "ask", run_id="r")
    assert Running("r") == engine.submit(shop.order, "by cart", run_id="r", if_open="restart")
    assert ["start"] == kinds(engine)
    assert [RunCompleted("r", "by cart")] == engine.run_due()


def test_a_closed_run_is_returned(bench: Any, shop: Shop) -> None:
    engine = bench.engine()
    done = engine.start(shop.order, "by cart", run_id="r")
    assert done == engine.start(shop.order, "by cart", run_id="r", if_closed="return", if_open="error")
    assert done == engine.start(shop.order, "by cart", run_id="r", if_closed="retry_failed")
    assert 1 == shop.tally["deliver"]


@pytest.mark.parametrize("call", ["start", "submit"])
def test_a_closed_run_may_be_an_error(bench: Any, shop: Shop, call: str) -> None:
    engine = bench.engine()
    engine.start(shop.order, "by cart", run_id="r")
    with pytest.raises(ConflictError, match="is there already, closed, and if_closed='error'"):
        getattr(engine, call)(shop.order, "by cart", run_id="r", if_closed="error")


def test_a_failed_run_may_be_retried(bench: Any, shop: Shop) -> None:
    engine = bench.engine()
    shop.broken = True
    failed = engine.start(shop.order, "by cart", run_id="r")
    assert isinstance(failed, RunFailed)
    assert failed == engine.start(shop.order, "by cart", run_id="r", if_closed="return")
    shop.broken = False
    assert RunCompleted("r", "by cart") == engine.start(shop.order, "by cart", run_id="r", if_closed="retry_failed")
    assert (1, 2) == (shop.tally["charge"], shop.tally["deliver"])


def test_submit_may_retry_a_failed_run(bench: Any, shop: Shop) -> None:
    engine = bench.engine()
    shop.broken = True
    engine.start(shop.order, "by cart", run_id="r")
    shop.broken = False
    assert Running("r") == engine.submit(shop.order, "by cart", run_id="r", if_closed="retry_failed")
    assert [RunCompleted("r", "by cart")] == engine.run_due()
    assert 1 == shop.tally["charge"]


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
def test_a_closed_run_may_be_restarted(bench: Any, shop: Shop, end: str) -> None:
    engine = bench.engine()
    shop.broken = end == "failed"
    engine.start(shop.order, "ask" if end == "cancelled" else "by cart", run_id="r")
    if end == "cancelled":
        engine.cancel("r")
    assert end == engine.get("r").status
    shop.broken = False
    assert RunCompleted("r", "by ship") == engine.start(shop.order, "by ship", run_id="r", if_closed="restart")
    assert 2 == shop.tally["charge"]


def test_a_cancelled_run_is_returned(bench: Any, shop: Shop) -> None:
    engine = bench.engine()
    engine.start(shop.order, "ask", run_id="r")
    engine.cancel("r", "sold out")
    for policy in ("return", "retry_failed"):
        assert RunCancelled("r", "sold out") == engine.start(shop.order, "ask", run_id="r", if_closed=policy)


@pytest.mark.parametrize("policy", ["join", "restart"])
def test_another_workflow_is_refused_whatever_the_policy(bench: Any, shop: Shop, policy: Any) -> None:
    @workflow
    def other(how: str) -> Flow[str]:
        return (yield from Suspend("how", into=str))

    engine = bench.engine()
    engine.start(shop.order, "ask", run_id="r")
    with pytest.raises(ConflictError, match="use another run id"):
        engine.start(other, "ask", run_id="r", if_open=policy)
    assert "suspended" == engine.get("r").status


def test_restarting_a_run_that_is_being_driven_takes_it_over(bench: Any) -> None:

    entered, leave = threading.Event(), threading.Event()
    tally = Tally()

    def hold() -> int:
        if tally.add("hold") == 1:
            entered.set()
            assert leave.wait(30)
        return tally["hold"]

    @workflow
    def held() -> Flow[int]:
        return (yield from Step(hold))

    engine = bench.engine()
    first = Task(lambda: engine.start(held, run_id="r"))
    assert entered.wait(30)
    assert RunCompleted("r", 2) == engine.start(held, run_id="r", if_open="restart")
    leave.set()
    with pytest.raises(LeaseLostError):
        first.result()
    assert (RunCompleted("r", 2), ["start", "step", "complete"]) == (engine.wait("r"), kinds(engine))


def test_a_run_that_somebody_else_starts_meanwhile_is_joined(bench: Any, shop: Shop) -> None:
    engine = bench.engine()
    engine.submit(shop.order, "ask", run_id="r")
    assert isinstance(engine.start(shop.order, "ask", run_id="r"), RunSuspended)
    assert isinstance(engine.submit(shop.order, "ask", run_id="r"), RunSuspended)
