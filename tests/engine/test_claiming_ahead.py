"""A worker claims more runs than it has threads, as long as they end quickly; what has to wait is given back."""

from __future__ import annotations

from typing import Any

from stepwell import Flow, Step, workflow
from stepwell.store import Lease
from stepwell.worker import Worker

from .conftest import Bench
from .test_worker import Gate, Whole, at_work
from .tools import eventually

MANY = 120


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


def test_what_waits_behind_long_runs_is_given_back(bench: Bench) -> None:
    gate = Gate()

    @workflow
    def long() -> Flow[int]:
        return (yield from gate.step())

    engine, other = bench.engine(quick, long), bench.engine(quick, long)
    for _ in range(MANY):
        engine.submit(quick)
    late = [engine.submit(long).run_id for _ in range(10)]
    with at_work(Worker(engine, threads=2)):
        eventually(lambda: gate.calls == 2)
        eventually(lambda: len(engine.runs(status="running")) == 2)
        assert 8 == len(engine.runs(status="pending"))  # for another worker, at once
        assert "pending" == other.get(late[-1]).status
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
