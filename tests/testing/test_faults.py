"""FaultStore: a store that fails at the calls that it is told of, as it is told."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from stepwell import Engine, Flow, InvalidInputError, LeaseLostError, Step, StoreError, StoreUnavailableError, workflow
from stepwell.environment import Environment
from stepwell.store import Committed, Created, Fenced, HeadFilter, Lease, LeaseRequest, NotApplied, Store, Unknown
from stepwell.testing import Fault, FaultStore, StoreCall, VirtualClock
from stepwell.testing.contract import ManualClock, StoreContract, a_head, a_record, a_start
from stepwell_stores import open_store
from stepwell_stores.memory import MemoryStore
from stepwell_stores.sqlite import SqliteStore


class TestAFaultStoreWithoutFaults(StoreContract):
    """It keeps the port as the store in it does."""

    @pytest.fixture(autouse=True)
    def _place(self) -> None:
        self.clock = ManualClock()

    def make_store(self) -> Store:
        return FaultStore(MemoryStore(clock=self.clock))

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)


def begun(*faults: Fault, **how: Any) -> tuple[FaultStore, Lease]:
    """A store with an owned run "r" of one record, and faults that count from here."""
    store = FaultStore(MemoryStore(), *faults, **how)
    made = store.inner.create("r", [a_start()], head=a_head(), attempt_id="new", lease=LeaseRequest("me", 30))
    assert isinstance(made, Created)
    assert made.lease is not None
    return store, made.lease


def own(store: Store, lease: Lease, seq: int, kind: str = "step") -> Any:
    return store.append("r", 0, seq, [a_record(kind=kind)], attempt_id="own", fence=lease.fence)


def size(store: FaultStore) -> int:
    head = store.inner.head("r")
    assert head is not None
    return head.seq


# ---- how a call fails


@pytest.mark.parametrize(
    ("kind", "answer", "written"),
    [("not_applied", NotApplied(), False), ("unknown", Unknown(), False), ("lost", Unknown(), True)],
)
def test_a_write_is_answered_otherwise(kind: Any, answer: Any, written: bool) -> None:
    store, lease = begun(Fault(kind, on="append", nth=1))
    done = own(store, lease, 1)
    assert answer == done
    assert isinstance(done.cause, ConnectionError)
    assert 1 + written == size(store)


@pytest.mark.parametrize(("kind", "error", "written"), [("before", StoreUnavailableError, 0), ("after", StoreError, 1)])
def test_a_write_raises(kind: Any, error: type[StoreError], written: int) -> None:
    store, lease = begun(Fault(kind, on="append"))
    with pytest.raises(error, match="append 1 of run 'r'") as caught:
        own(store, lease, 1)
    assert type(caught.value) is error
    assert 1 + written == size(store)


def test_what_is_raised_can_be_chosen() -> None:
    store = FaultStore(MemoryStore(), Fault("before", on="head", error=StoreError))
    with pytest.raises(StoreError) as caught:
        store.head("r")
    assert type(caught.value) is StoreError


def test_a_repeat_after_a_lost_acknowledgement_is_known() -> None:
    store, lease = begun(Fault("lost", on="append", nth=1))
    own(store, lease, 1)
    assert own(store, lease, 1).seq == 1
    assert 2 == size(store)


def test_latency_moves_the_clock_and_nothing_else() -> None:
    clock = VirtualClock()
    store, lease = begun(Fault("latency", on="append", seconds=90), clock=clock)
    before = clock.now()
    assert Committed(1, 0) == own(store, lease, 1)
    assert timedelta(seconds=90) == clock.now() - before


def test_latency_comes_on_top_of_a_failure() -> None:
    clock = VirtualClock()
    store, lease = begun(Fault("latency", seconds=5), Fault("unknown"), Fault("lost"), clock=clock)
    before = clock.now()
    assert Unknown() == own(store, lease, 1)
    assert timedelta(seconds=5) == clock.now() - before
    assert ["latency", "unknown"] == [one.fault.kind for one in store.injected]
    assert 1 == size(store)


def test_another_session_takes_the_run_over_and_goes_silent() -> None:
    clock = ManualClock()
    store = FaultStore(MemoryStore(clock=clock), Fault("fenced", nth=2, seconds=7))
    made = store.create("r", [a_start()], head=a_head(), attempt_id="new", lease=LeaseRequest("me", 30))
    assert isinstance(made, Created)
    assert made.lease is not None
    assert Committed(1, 0) == own(store, made.lease, 1)
    assert Fenced(2) == own(store, made.lease, 2)
    assert [] == store.claim_due("worker", 30, now=clock(), limit=9)
    clock.advance(7)
    assert [3] == [lease.fence for lease in store.claim_due("worker", 30, now=clock(), limit=9)]


def test_nobody_outside_is_fenced() -> None:
    store, _lease = begun(Fault("fenced"))
    store.append("r", None, None, [a_record(kind="resume")], attempt_id="out")
    assert [] == store.injected


# ---- which call fails


def test_the_nth_call_is_counted_among_those_that_fit() -> None:
    store, lease = begun(Fault("unknown", on="append", nth=(2, 4)))
    store.head("r")
    answers = [own(store, lease, size(store)) for _ in range(5)]
    assert [Committed(1, 0), Unknown(), Committed(2, 0), Unknown(), Committed(3, 0)] == answers


def test_a_predicate_sees_the_call() -> None:
    def steps(call: StoreCall) -> bool:
        return "step" in call.types and call.run_id == "r" and call.owned

    store, lease = begun(Fault("not_applied", when=steps, times=1))
    assert Committed(1, 0) == own(store, lease, 1, "emit")
    assert NotApplied() == own(store, lease, 2)
    assert Committed(2, 0) == own(store, lease, 2)


def chances(seed: int) -> list[bool]:
    store = FaultStore(MemoryStore(), Fault("before", on="head", rate=0.5), seed=seed)
    return [failed(store) for _ in range(50)]


def failed(store: Store) -> bool:
    try:
        store.head("r")
    except StoreUnavailableError:
        return True
    return False


def test_chance_is_the_same_for_the_same_seed() -> None:
    assert chances(1) == chances(1)
    assert chances(1) != chances(2)
    assert 10 < sum(chances(1)) < 40


def test_a_rate_of_nothing_never_fails_and_of_one_always() -> None:
    never, always = (FaultStore(MemoryStore(), Fault("before", on="head", rate=rate)) for rate in (0, 1))
    assert {False} == {failed(never) for _ in range(20)}
    assert {True} == {failed(always) for _ in range(20)}


def test_renewals_waits_and_upkeep_fail_only_when_they_are_named() -> None:
    store, lease = begun(Fault("before"))
    assert store.renew(lease, 30) is not None
    assert 1 == store.size().events
    named, lease = begun(Fault("before", on=("renew", "size")))
    for call in (lambda: named.renew(lease, 30), named.size):
        with pytest.raises(StoreUnavailableError):
            call()
    assert named.heads(HeadFilter(), limit=1)


def test_while_it_is_not_armed_nothing_fails_nor_counts() -> None:
    store = FaultStore(MemoryStore(), Fault("before", on="head", nth=1))
    store.armed = False
    assert not failed(store)
    store.armed = True
    assert failed(store)


# ---- what is known afterwards


def test_what_was_met_is_a_plan_that_meets_the_same_calls_again() -> None:
    def write(store: FaultStore) -> list[Any]:
        made = store.inner.create("r", [a_start()], head=a_head(), attempt_id="a", lease=LeaseRequest("me", 30))
        assert isinstance(made, Created)
        assert made.lease is not None
        return [own(store, made.lease, size(store)) for _ in range(30)]

    by_chance = FaultStore(MemoryStore(), Fault("lost", rate=0.3), Fault("unknown", rate=0.3), seed=5)
    answers = write(by_chance)
    assert {"lost", "unknown"} == {fault.kind for fault in by_chance.plan}
    again = FaultStore(MemoryStore(), *by_chance.plan)
    assert answers == write(again)
    assert by_chance.plan == again.plan


def test_its_repr_says_how_to_reproduce() -> None:
    store, lease = begun(Fault("lost", rate=1.0, times=1), seed=7)
    assert "FaultStore(MemoryStore, Fault('lost', rate=1.0, times=1), seed=7), which met: nothing yet" == repr(store)
    own(store, lease, 1)
    assert repr(store).endswith("which met: lost at append 1 of run 'r'")
    assert "(Fault('lost', on='append', nth=1),)" == repr(store.plan)


def test_a_fault_is_shown_as_it_is_written() -> None:
    fault = Fault("before", on=("read", "head"), nth=[3, 1], when=failed, seconds=2, error=StoreError)  # type: ignore[arg-type]
    assert "Fault('before', on=('read', 'head'), nth=[1, 3], when=failed, seconds=2, error=StoreError)" == repr(fault)


@pytest.mark.parametrize(
    ("told", "how"),
    [
        ("a fault is one of before, ", {"kind": "never"}),
        ("can meet create, append, .* got 'read'", {"kind": "lost", "on": "read"}),
        ("got 'heads'", {"kind": "after", "on": ("append", "heads")}),
        ("nth counts calls from 1", {"kind": "lost", "nth": 0}),
        ("nth counts calls from 1", {"kind": "lost", "nth": ()}),
        ("rate must be 0 to 1", {"kind": "lost", "rate": 1.5}),
        ("times must be 1 or more", {"kind": "lost", "times": 0}),
        ("seconds must be more than 0", {"kind": "latency", "seconds": 0}),
        ("rate must be", {"kind": "lost", "rate": "often"}),
        ("times must be", {"kind": "lost", "times": "once"}),
        ("seconds must be", {"kind": "latency", "seconds": timedelta(0)}),
        ("on takes names", {"kind": "lost", "on": 3}),
        ("when takes a function", {"kind": "lost", "when": "late"}),
        ("error takes a function", {"kind": "before", "error": "away"}),
    ],
)
def test_a_plan_that_can_not_be_is_refused(told: str, how: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=told):
        Fault(**how)


def wrong(value: Any) -> Any:
    return value


def test_a_plan_is_made_of_faults() -> None:
    with pytest.raises(InvalidInputError, match="made of Faults, got 'lost'"):
        FaultStore(MemoryStore(), wrong("lost"))
    with pytest.raises(InvalidInputError, match=r"one by one: FaultStore\(store, \*plan\)"):
        FaultStore(MemoryStore(), wrong([Fault("lost")]))
    with pytest.raises(InvalidInputError, match=r"open_store\('memory:'\)"):
        FaultStore(wrong("memory:"), Fault("lost"))


def test_seconds_may_be_a_duration() -> None:
    assert Fault("latency", seconds=timedelta(minutes=1)) == Fault("latency", seconds=60)


def test_of_many_threads_the_nth_call_fails_for_one() -> None:
    store = FaultStore(MemoryStore(), Fault("before", on="head", nth=50))
    seen: list[bool] = []
    threads = [threading.Thread(target=lambda: seen.extend([failed(store) for _ in range(25)])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert {True: 1, False: 99} == dict(Counter(seen))


# ---- below an engine


def reserve() -> str:
    return "reserved"


@workflow
def order() -> Flow[str]:
    return (yield from Step(reserve))


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


def engine_on(store: Store, clock: VirtualClock) -> Engine:
    return Engine(store, [order], environment=Environment(clock=clock))


def test_a_program_is_told_that_the_store_is_away() -> None:
    with Engine(FaultStore(MemoryStore(), Fault("before", on="create")), [order]) as engine:
        with pytest.raises(StoreUnavailableError) as caught:
            engine.start(order)
        assert caught.value.retryable


def test_an_engine_repeats_what_nobody_knows_of(clock: VirtualClock) -> None:
    store = FaultStore(MemoryStore(clock=clock.micros), Fault("lost", times=3), clock=clock)
    with engine_on(store, clock) as engine:
        assert "reserved" == engine.start(order).unwrap()
    assert 3 == len(store.injected)


def test_an_owner_that_was_taken_over_is_told(clock: VirtualClock) -> None:
    store = FaultStore(MemoryStore(clock=clock.micros), Fault("fenced", times=1))
    with engine_on(store, clock) as engine:
        with pytest.raises(LeaseLostError):
            engine.start(order, run_id="r")
        clock.advance(60)
        assert "reserved" == engine.run_due()[0].unwrap()


def test_transactions_are_handed_on_if_there_are_any(tmp_path: Path) -> None:
    assert not hasattr(FaultStore(MemoryStore()), "transact")
    with_rows = FaultStore(SqliteStore(tmp_path / "runs.db"), Fault("lost", on="transact"))
    assert callable(with_rows.transact)
    with_rows.close()


def test_it_wraps_what_a_url_opens(tmp_path: Path) -> None:
    store = FaultStore(open_store(f"file:{tmp_path}/runs"))
    with Engine(store, [order]) as engine:
        assert "reserved" == engine.start(order).unwrap()
