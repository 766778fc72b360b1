"""A worker removes closed runs whose ttl is over, from time to time and beside its work."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from stepwell import Flow, InvalidInputError, Step, StoreUnavailableError, workflow
from stepwell import sweeping as sweeping_module
from stepwell.store import RunHead
from stepwell.testing.environments import VirtualClock
from stepwell.worker import Worker

from .test_worker import LONG, Gate, Whole, at_work, drained
from .tools import PATIENCE, eventually


def one() -> int:
    return 1


@workflow(ttl=timedelta(hours=1))
def short() -> Flow[int]:
    return (yield from Step(one))


@workflow
def kept() -> Flow[int]:
    return (yield from Step(one))


def closed(bench: Any, *run_ids: str) -> None:
    """Runs that were closed long ago."""
    engine = bench.engine(short, kept, clock=VirtualClock())
    for run_id in run_ids:
        engine.start(short, run_id=run_id)
    engine.start(kept, run_id="kept")


def ids(engine: Any) -> list[str]:
    return sorted(record.id for record in engine.runs())


class Upkept(Whole):
    """A store around a store that a worker prunes."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.asked = 0

    def closed(self, **how: Any) -> list[RunHead]:
        self.asked += 1
        found: list[RunHead] = self.inner.closed(**how)
        return found


def test_a_worker_begins_with_a_sweep_and_says_how_many_went(bench: Any, caplog: pytest.LogCaptureFixture) -> None:
    closed(bench, "a", "b", "c")
    engine = bench.engine(short, kept)
    engine.submit(short, run_id="new")
    with caplog.at_level(logging.INFO, "stepwell"):
        assert Counter(completed=1, pruned=3) == drained(engine)
    assert ["kept", "new"] == ids(engine)
    assert "3 closed runs were removed, as the ttl of their workflows says" in caplog.text


def test_a_worker_sweeps_again_and_again(memory: Any) -> None:
    closed(memory)
    engine = memory.engine(short, kept)
    with at_work(Worker(engine, threads=1, poll=0.001, prune_every=0.001)):
        for name in ("a", "b", "c"):
            closed(memory, name)
            eventually(lambda: ids(engine) == ["kept"])


def test_a_worker_that_is_told_not_to_leaves_them(memory: Any) -> None:
    closed(memory, "a")
    engine = memory.engine(short, kept)
    assert Counter() == drained(engine, prune_every=None)
    assert ["a", "kept"] == ids(engine)


def test_between_two_sweeps_nothing_is_asked_of_the_store(memory: Any) -> None:
    store = Upkept(memory.store())
    engine = memory.engine(short, kept, store=store)
    worker = Worker(engine, threads=1, poll=0.001, prune_every=timedelta(hours=1))
    with at_work(worker):
        eventually(lambda: store.asked)
        asked = store.asked
        engine.submit(short, run_id="r")
        eventually(lambda: engine.get("r").status == "completed")
        assert asked == store.asked


def test_without_a_ttl_no_thread_is_begun_and_nothing_is_asked(memory: Any) -> None:
    store = Upkept(memory.store())
    engine = memory.engine(kept, store=store)
    engine.submit(kept, run_id="r")
    assert Counter(completed=1) == drained(engine, prune_every=0.001)
    assert 0 == store.asked


def test_runs_are_driven_while_a_sweep_takes_its_time(memory: Any) -> None:
    closed(memory, "a", "b")
    stuck, go = threading.Event(), threading.Event()

    class Slow(Upkept):
        def delete(self, *run: Any, **how: Any) -> bool:
            stuck.set()
            assert go.wait(PATIENCE)
            done: bool = self.inner.delete(*run, **how)
            return done

    engine = memory.engine(short, kept, store=Slow(memory.store()))
    with at_work(Worker(engine, threads=1, poll=LONG)):
        assert stuck.wait(PATIENCE)
        for number in range(3):
            engine.submit(kept, run_id=f"r{number}")
        for number in range(3):
            eventually(lambda number=number: engine.get(f"r{number}").status == "completed")  # type: ignore[misc]
        assert ["a", "b"] == [run_id for run_id in ids(engine) if run_id < "kept"]
        go.set()
        eventually(lambda: "b" not in ids(engine))


def test_a_worker_that_stops_ends_its_sweep_after_one_more_run(memory: Any) -> None:
    closed(memory, *(f"r{number}" for number in range(9)))
    stuck, go = threading.Event(), threading.Event()

    class Slow(Upkept):
        def delete(self, *run: Any, **how: Any) -> bool:
            stuck.set()
            assert go.wait(PATIENCE)
            done: bool = self.inner.delete(*run, **how)
            return done

    engine = memory.engine(short, kept, store=Slow(memory.store()))
    worker = Worker(engine, threads=1)
    with at_work(worker) as task:
        assert stuck.wait(PATIENCE)
        worker.stop()
        go.set()
        assert Counter(pruned=1) == task.result()
    assert 9 == len(ids(engine))


def test_one_pass_looks_at_so_many_runs_and_the_next_goes_on(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping_module, "_AT_ONCE", 3)
    closed(memory, *(f"r{number}" for number in range(8)))
    engine = memory.engine(short, kept)
    assert Counter(pruned=3) == drained(engine), "a drain makes one pass"
    gate = Gate()

    @workflow
    def slow() -> Flow[int]:
        return (yield from gate.step())

    engine.submit(slow)
    with at_work(Worker(engine, threads=1, poll=0.001, prune_every=LONG)):
        assert gate.entered.wait(PATIENCE)
        eventually(lambda: "r7" not in ids(engine))
        gate.leave.set()


def test_a_sweep_that_fails_is_told_and_tried_again(memory: Any, caplog: pytest.LogCaptureFixture) -> None:
    closed(memory, "a")

    class Failing(Upkept):
        def closed(self, **how: Any) -> list[RunHead]:
            self.asked += 1
            if self.asked == 1:
                raise StoreUnavailableError("busy")
            return super().closed(**how)

    engine = memory.engine(short, kept, store=Failing(memory.store()))
    with at_work(Worker(engine, threads=1, poll=0.001, prune_every=0.001)):
        eventually(lambda: ids(engine) == ["kept"])
    assert "removing runs whose ttl is over failed; it is tried again later: busy" in caplog.text


def test_several_workers_remove_each_run_once(disk: Any) -> None:
    closed(disk, *(f"r{number}" for number in range(30)))
    counts = [Counter[str]() for _ in range(3)]

    def work(number: int) -> None:
        counts[number] = Worker(disk.engine(short, kept), threads=1).run(drain=True)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert 30 == sum(count["pruned"] for count in counts)
    assert ["kept"] == ids(disk.engine(short, kept))


@pytest.mark.parametrize("every", [0, -1, timedelta(0), float("nan"), "1h", True])
def test_an_interval_that_is_none_is_refused(memory: Any, every: Any) -> None:
    with pytest.raises(InvalidInputError, match="prune_every"):
        Worker(memory.engine(), prune_every=every)
