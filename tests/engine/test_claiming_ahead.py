"""A worker claims more runs than it has threads, as long as they end quickly; what has to wait is given back."""

from __future__ import annotations

from typing import Any

import pytest

from stepwell import Flow, Step, workflow
from stepwell.store import Lease, Status
from stepwell.worker import Worker

from .conftest import Bench
from .test_worker import Gate, Whole, at_work
from .tools import PATIENCE, eventually

MANY = 120
STATUSES: tuple[Status, ...] = ("running", "pending")


def nothing() -> int:
    return 0


class Counted(Whole):
    """Keeps how many leases each claim gave."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.given: list[int] = []

    def claim_due(self, *where: Any, **how: Any) -> list[Lease]:
        leases: list[Lease] = self.inner.claim_due(*where, **how)
        if leases:
            self.given.append(len(leases))
        return leases


@workflow
def quick() -> Flow[int]:
    return (yield from Step(nothing))


def test_quick_runs_are_claimed_several_at_a_time(bench: Bench) -> None:
    store = Counted(bench.store())
    engine = bench.engine(quick, store=store)
    for _ in range(MANY):
        engine.submit(quick)
    assert {"completed": MANY} == Worker(engine, threads=8).run(drain=True)
    assert MANY == sum(store.given)
    assert max(store.given) <= 16  # what the threads drive, and as much again
    assert len(store.given) < MANY / 2


@pytest.mark.parametrize(("threads", "left"), [(2, 8), (16, 7)])
def test_what_waits_behind_long_runs_is_given_back(bench: Bench, threads: int, left: int) -> None:
    gate = Gate()

    @workflow
    def long() -> Flow[int]:
        return (yield from gate.step())

    engine, other = bench.engine(quick, long), bench.engine(quick, long)
    for _ in range(MANY):
        engine.submit(quick)
    late = [engine.submit(long).run_id for _ in range(threads + left)]
    with at_work(Worker(engine, threads=threads)):
        assert gate.entered.wait(PATIENCE)
        eventually(lambda: not engine.runs(workflow="quick", status="pending"))
        # for another worker, at once
        eventually(lambda: [len(other.runs(status=one)) for one in STATUSES] == [threads, left])
        gate.leave.set()
        eventually(lambda: not engine.runs(status="pending") and not engine.runs(status="running"))
    assert {"completed"} == {engine.get(run_id).status for run_id in late}


def test_nothing_is_claimed_ahead_under_short_leases(bench: Bench) -> None:
    store = Counted(bench.store())
    engine = bench.engine(quick, store=store, lease=1.0)
    for _ in range(40):
        engine.submit(quick)
    assert {"completed": 40} == Worker(engine, threads=2).run(drain=True)
    assert max(store.given) <= 2
