"""Retention: what is removed when, what stays and why, sizes, and ids that are used again."""

from __future__ import annotations

import inspect
import tracemalloc
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from stepwell import (
    CorruptHistoryError,
    Engine,
    Flow,
    InvalidInputError,
    Pruned,
    Step,
    StoreUnavailableError,
    Suspend,
    Workflow,
    workflow,
)
from stepwell import events as e
from stepwell.needs import needed_by
from stepwell.store import Committed, Created, RunHead, Tail, closed_key, seal
from stepwell.testing.contract import a_head
from stepwell.testing.environments import EPOCH, VirtualClock
from stepwell.wire import to_draft
from stepwell_stores.memory import MemoryStore

from .tools import Wrapped, kinds, steps

HOUR = 3600.0


def one() -> int:
    return 1


@workflow(ttl=timedelta(hours=1))
def short() -> Flow[int]:
    return (yield from Step(one))


@workflow(ttl=10 * HOUR)
def long() -> Flow[int]:
    return (yield from Step(one))


@workflow
def kept() -> Flow[int]:
    return (yield from Step(one))


@workflow
def waits() -> Flow[int]:
    yield from Step(one)
    yield Suspend("go")
    return (yield from Step(one))


@workflow
def fails() -> Flow[int]:
    raise ValueError("no")
    yield


def ids(engine: Engine) -> list[str]:
    return sorted(record.id for record in engine.runs(limit=10_000))


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def engine(bench: Any, clock: VirtualClock) -> Engine:
    made: Engine = bench.engine(short, long, kept, waits, fails, clock=clock)
    return made


# ---- ttl


def test_a_closed_run_goes_when_its_workflow_s_ttl_is_over(engine: Engine, clock: VirtualClock) -> None:
    for wf in (short, long, kept):
        engine.start(wf, run_id=wf.name)
    assert Pruned() == engine.prune()
    clock.advance(HOUR - 1)
    assert 0 == engine.prune().removed
    clock.advance(1)
    assert Pruned(1, ("short",), 3) == engine.prune()
    assert ["kept", "long"] == ids(engine)
    clock.advance(9 * HOUR)
    assert ("long",) == engine.prune().run_ids
    clock.advance(1e9)
    assert 0 == engine.prune().removed
    assert ["kept"] == ids(engine)


def test_the_ttl_counts_from_the_end_of_a_run_and_of_its_last_incarnation(engine: Engine, clock: VirtualClock) -> None:
    engine.start(short, run_id="r")
    clock.advance(HOUR - 1)
    engine.reset("r")
    clock.advance(HOUR - 1)
    assert 0 == engine.prune().removed
    clock.advance(1)
    assert ("r",) == engine.prune().run_ids


def test_an_open_run_stays_however_old_it_is(engine: Engine, clock: VirtualClock) -> None:
    engine.start(waits, run_id="w")
    engine.submit(short, run_id="s")
    clock.advance(1e9)
    assert Pruned() == engine.prune()
    assert Pruned() == engine.prune(older_than=0)
    assert Pruned() == engine.prune(keep_last=0)
    assert ["s", "w"] == ids(engine)


def test_a_version_that_is_not_known_any_more_goes_by_the_newest(bench: Any, clock: VirtualClock) -> None:
    def body() -> Flow[int]:
        return (yield from Step(one))

    first, second, third = (
        workflow(name="w", version=version, ttl=ttl)(body)
        for version, ttl in (("1", HOUR), ("2", 9 * HOUR), ("3", None))
    )
    old = bench.engine(first, second, third, clock=clock)
    for wf in (first, second, third):
        old.start(wf, run_id=f"v{wf.version}")
    clock.advance(HOUR)
    assert 0 == bench.engine(third, clock=clock).prune().removed, "it has no ttl"
    assert 0 == bench.engine(second, clock=clock).prune().removed
    assert ("v1",) == bench.engine(first, second, third, clock=clock).prune().run_ids
    clock.advance(8 * HOUR)
    assert ("v2",) == bench.engine(second, third, clock=clock).prune().run_ids
    assert ("v3",) == bench.engine(second, clock=clock).prune().run_ids


@pytest.mark.parametrize("ttl", [-1, timedelta(seconds=-1), float("nan"), float("inf"), "1h", True])
def test_a_ttl_that_is_no_duration_is_refused_where_it_is_written(ttl: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"a workflow's ttl .*got"):
        workflow(ttl=ttl)(one_step)


def one_step() -> Flow[int]:
    return (yield from Step(one))


def test_a_workflow_says_its_ttl_in_seconds() -> None:
    assert (HOUR, 10 * HOUR, None) == (short.ttl, long.ttl, kept.ttl)


# ---- by age, number, status and workflow


def aged(engine: Engine, clock: VirtualClock, wf: Workflow[..., Any], *run_ids: str) -> None:
    """Runs that are closed a minute after each other."""
    for run_id in run_ids:
        engine.start(wf, run_id=run_id)
        clock.advance(60)


def test_what_is_older_goes_and_what_is_younger_stays(engine: Engine, clock: VirtualClock) -> None:
    aged(engine, clock, kept, "a", "b", "c")
    assert ("a",) == engine.prune(older_than=timedelta(minutes=3)).run_ids
    assert ("b",) == engine.prune(older_than=61).run_ids
    assert ("c",) == engine.prune(older_than=0).run_ids
    assert [] == ids(engine)


def test_the_newest_of_each_workflow_stay(engine: Engine, clock: VirtualClock) -> None:
    aged(engine, clock, kept, "a", "b", "c")
    aged(engine, clock, short, "x", "y")
    done = engine.prune(keep_last=2)
    assert (("a",), {"newest": 4}) == (done.run_ids, done.kept)
    done = engine.prune(keep_last=1)
    assert (("b", "x"), {"newest": 2}) == (done.run_ids, done.kept)
    assert ("c", "y") == engine.prune(keep_last=0).run_ids


def test_age_and_number_have_to_agree(engine: Engine, clock: VirtualClock) -> None:
    """Kept is what either of them keeps; only what is old enough is counted as kept for being among the newest."""
    aged(engine, clock, kept, "a", "b", "c", "d")
    done = engine.prune(older_than=150, keep_last=3)
    assert (("a",), {"newest": 1}) == (done.run_ids, done.kept)
    done = engine.prune(older_than=150, keep_last=0)
    assert (("b",), {}) == (done.run_ids, done.kept)


def test_runs_of_one_status_are_removed_and_counted_by_themselves(engine: Engine, clock: VirtualClock) -> None:
    aged(engine, clock, fails, "f1", "f2", "f3")
    for run_id in ("w1", "w2"):
        engine.start(waits, run_id=run_id)
        engine.cancel(run_id)
    aged(engine, clock, kept, "k1")
    assert ("f1",) == engine.prune(keep_last=2, status="failed").run_ids
    assert ("w1", "w2") == engine.prune(older_than=0, status=["cancelled"]).run_ids
    assert ("f2",) == engine.prune(keep_last=1, status={"failed", "cancelled"}).run_ids
    assert ["f3", "k1"] == ids(engine)


def test_runs_of_one_workflow_are_removed(engine: Engine, clock: VirtualClock) -> None:
    aged(engine, clock, kept, "a")
    aged(engine, clock, short, "x")
    aged(engine, clock, long, "l")
    clock.advance(100 * HOUR)
    assert ("a",) == engine.prune(older_than=0, workflow="kept").run_ids
    assert ("x",) == engine.prune(workflow=short).run_ids
    assert () == engine.prune(older_than=0, workflow="nobody").run_ids
    assert ["l"] == ids(engine)


def test_status_alone_leaves_it_to_the_ttl(engine: Engine, clock: VirtualClock) -> None:
    aged(engine, clock, kept, "k")
    aged(engine, clock, short, "s")
    clock.advance(HOUR)
    assert 0 == engine.prune(status="failed").removed
    assert ("s",) == engine.prune(status="completed").run_ids


def test_a_dry_run_tells_and_removes_nothing(engine: Engine, clock: VirtualClock) -> None:
    aged(engine, clock, kept, "a", "b")
    told = engine.prune(keep_last=1, dry_run=True)
    assert ["a", "b"] == ids(engine)
    assert told == msgspec.structs.replace(engine.prune(keep_last=1), dry_run=True)
    assert ["b"] == ids(engine)


def test_a_limit_ends_it_and_the_oldest_go_first(engine: Engine, clock: VirtualClock) -> None:
    aged(engine, clock, kept, "c", "b", "a")
    first = engine.prune(older_than=0, limit=2)
    assert (("c", "b"), True) == (first.run_ids, first.more)
    second = engine.prune(older_than=0, limit=2)
    assert (("a",), False) == (second.run_ids, second.more)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"older_than": -1}, r"older_than .*got -1"),
        ({"older_than": timedelta(seconds=-5)}, "older_than"),
        ({"older_than": float("nan")}, "older_than"),
        ({"older_than": "30d"}, "older_than must be a timedelta or a number of seconds, got '30d'"),
        ({"keep_last": -1}, "keep_last must be a whole number, 0 or more, or None, got -1"),
        ({"keep_last": 1.5}, "keep_last"),
        ({"keep_last": True}, "keep_last"),
        ({"older_than": 0, "status": "running"}, "only closed runs are removed; cancel an open one first"),
        ({"older_than": 0, "status": ["completed", "pending"]}, "status must be one or several of completed, failed"),
        ({"older_than": 0, "status": []}, "status"),
        ({"older_than": 0, "status": 7}, "status"),
        ({"older_than": 0, "status": [["failed"]]}, "status"),
        ({"older_than": 0, "workflow": 7}, "workflow"),
        ({"older_than": 0, "limit": 0}, "limit"),
        ({"older_than": 0, "limit": True}, "limit"),
        ({"older_than": 0, "dry_run": "no"}, "dry_run must be True or False, got 'no'"),
        ({"workflow": "kept"}, "workflow 'kept' has no ttl in this engine"),
        ({"workflow": "nobody"}, "give older_than= or keep_last="),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_and_nothing_is_removed(
    memory: Any, clock: VirtualClock, arguments: Any, words: str
) -> None:
    engine = memory.engine(short, kept, clock=clock)
    engine.start(kept, run_id="a")
    engine.start(short, run_id="s")
    clock.advance(100 * HOUR)
    with pytest.raises(InvalidInputError, match=words):
        engine.prune(**arguments)
    assert ["a", "s"] == ids(engine)


def test_an_option_is_always_named() -> None:
    """`prune(30)` could be seconds, days or runs."""
    own = [one for name, one in inspect.signature(Engine.prune).parameters.items() if name != "self"]
    assert {inspect.Parameter.KEYWORD_ONLY} == {one.kind for one in own}


# ---- ids that are used again


def test_an_id_that_is_used_again_sees_nothing_of_what_was_removed(bench: Any, clock: VirtualClock) -> None:
    engine = bench.engine(waits, clock=clock)
    engine.start(waits, run_id="r", tags={"old": "yes"})
    engine.resume("r", "go", id="once")
    engine.reset("r")
    engine.cancel("r")
    sessions = engine.get("r").sessions
    assert ("r",) == engine.prune(older_than=0).run_ids
    assert "suspended" == engine.start(waits, run_id="r").status
    record = engine.get("r")
    assert (1, {}, True) == (record.attempts, dict(record.tags), record.sessions > sessions)
    assert ["start", "step", "suspend"] == kinds(engine)
    assert {event.session for event in engine.history("r")} == {sessions + 1}
    assert "completed" == engine.resume("r", "go", id="once").status, "the id of a signal counts anew too"


def test_another_engine_that_had_the_run_in_mind_sees_the_new_one(disk: Any, clock: VirtualClock) -> None:
    """It parked the old one, and has its files open."""
    mine, other = (disk.engine(waits, clock=clock) for _ in range(2))
    mine.start(waits, run_id="r")
    other.cancel("r")
    assert ("r",) == other.prune(older_than=0).run_ids
    other.submit(waits, run_id="r")
    assert "suspended" == mine.advance("r").status
    assert ["start", "step", "suspend"] == kinds(mine)
    assert ["one"] == steps(other)
    assert "completed" == mine.resume("r", "go").status


class Meddling(Wrapped):
    """Something happens to a run after it was looked at."""

    def __init__(self, inner: Any, act: Any) -> None:
        super().__init__(inner)
        self.closed, self.size, self.act = inner.closed, inner.size, act

    def delete(self, run_id: str, incarnation: int, *, fence: int | None = None) -> bool:
        self.act()
        done: bool = self.inner.delete(run_id, incarnation, fence=fence)
        return done


@pytest.mark.parametrize("what", ["reset", "removed", "removed and begun anew"])
def test_a_run_that_changes_after_it_was_looked_at_stays_as_it_is(bench: Any, clock: VirtualClock, what: str) -> None:
    other = bench.engine(kept, clock=clock)
    other.start(kept, run_id="r")

    def meddle() -> None:
        if what == "reset":
            other.reset("r")
            return
        other.delete("r")
        if what != "removed":
            other.start(kept, run_id="r")

    engine = bench.engine(kept, store=Meddling(bench.store(), meddle), clock=clock)
    done = engine.prune(older_than=0)
    assert (0, {"changed": 1}) == (done.removed, done.kept)
    assert ([] if what == "removed" else ["r"]) == ids(other)


# ---- what is still needed


def test_a_fork_needs_nothing_of_its_source(bench: Any, clock: VirtualClock) -> None:
    """It has a copy of what it took over: it is driven, replayed, retried and forked without it."""
    engine = bench.engine(waits, clock=clock)
    engine.start(waits, run_id="source")
    engine.fork("source", before=2, new_run_id="fork")
    engine.cancel("source")
    assert ("source",) == engine.prune(older_than=0).run_ids
    fresh = bench.engine(waits, clock=clock)
    assert ["start", "step", "suspend"] == kinds(fresh, "fork")
    assert "completed" == fresh.resume("fork", "go").status
    assert "suspended" == fresh.fork("fork", before=2, new_run_id="again").status
    assert 1 == len([step for step in steps(fresh, "again") if step == "one"])
    assert "source" == fresh.history("fork")[0].source["runId"]
    assert fresh.start(waits, run_id="source").status == "suspended", "and its id may be used again"
    assert ["start", "step", "suspend"] == kinds(fresh, "source")


def child(engine: Engine, run_id: str, parent: dict[str, Any] | None, wf: str = "kept") -> RunHead:
    """A closed run whose first event names a parent, as one is recorded."""
    start = e.Start(workflow=wf, version="1", input=msgspec.Raw(b"[]"), timestamp=e.instant(EPOCH))
    draft = to_draft(start)
    if parent is not None:
        draft = msgspec.structs.replace(draft, body=draft.body + b',"parent":' + msgspec.json.encode(parent))
    done = to_draft(e.Complete(result=msgspec.Raw(b"1"), timestamp=e.instant(EPOCH)))
    at = e.micros(EPOCH)
    head = a_head(status="completed", workflow=wf, created=at, updated=at)
    made = engine.store.create(run_id, [draft, done], head=head, attempt_id="new", then="closed")
    assert isinstance(made, Created)
    found = engine.store.head(run_id)
    assert found is not None
    return found


def start_of(engine: Engine, run_id: str) -> e.Start:
    first = engine.history(run_id)[0]
    assert isinstance(first, e.Start)
    return first


def test_a_closed_child_stays_while_its_parent_is_open(engine: Engine, clock: VirtualClock) -> None:
    engine.start(waits, run_id="parent")
    child(engine, "child", {"runId": "parent", "incarnation": 0, "at": "1"})
    child(engine, "stranger", None)
    reason = needed_by(engine.store, start_of(engine, "child"))
    assert reason is not None
    assert "'parent', which is open" in reason
    assert needed_by(engine.store, start_of(engine, "stranger")) is None
    done = engine.prune(older_than=0)
    assert (("stranger",), {"needed": 1}) == (done.run_ids, done.kept)
    engine.cancel("parent")
    assert needed_by(engine.store, start_of(engine, "child")) is None
    assert ("child", "parent") == engine.prune(older_than=0).run_ids


@pytest.mark.parametrize("parent", ["another incarnation", "gone", "closed"])
def test_a_closed_child_goes_when_nobody_can_take_its_result(engine: Engine, clock: VirtualClock, parent: str) -> None:
    engine.start(waits, run_id="parent")
    child(engine, "child", {"runId": "parent", "incarnation": 0, "at": "1"})
    engine.cancel("parent")
    if parent == "gone":
        engine.delete("parent")
    elif parent == "another incarnation":
        engine.reset("parent")
    assert "child" in engine.prune(older_than=0).run_ids


def test_a_child_of_a_workflow_with_a_ttl_stays_too(engine: Engine, clock: VirtualClock) -> None:
    engine.start(waits, run_id="parent")
    child(engine, "child", {"runId": "parent", "incarnation": 0, "at": "1"}, wf="short")
    clock.advance(100 * HOUR)
    assert {"needed": 1} == engine.prune().kept
    engine.resume("parent", "go")
    assert ("child",) == engine.prune().run_ids


def test_a_run_that_can_not_be_read_stays_and_is_counted(disk: Any, clock: VirtualClock) -> None:
    """Whoever mends it from a backup wants to find it."""
    engine = disk.engine(kept, clock=clock)
    aged(engine, clock, kept, "a", "b", "c")

    class Damaged(Wrapped):
        closed = engine.store.closed

        def read(self, run_id: str, *where: Any, **how: Any) -> Any:
            if run_id == "b":
                raise CorruptHistoryError("b.0.jsonl: damaged", place="b.0.jsonl")
            return self.inner.read(run_id, *where, **how)

    done = disk.engine(kept, store=Damaged(engine.store), clock=clock).prune(older_than=0)
    assert (("a", "c"), {"unreadable": 1}) == (done.run_ids, done.kept)
    assert ["b"] == ids(engine)


def test_a_store_that_fails_ends_it_and_the_same_call_goes_on(bench: Any, clock: VirtualClock) -> None:
    engine = bench.engine(kept, clock=clock)
    aged(engine, clock, kept, "a", "b", "c")
    calls: list[None] = []

    def busy() -> None:
        calls.append(None)
        if len(calls) == 2:
            raise StoreUnavailableError("busy")

    meddled = bench.engine(kept, store=Meddling(bench.store(), busy), clock=clock)
    with pytest.raises(StoreUnavailableError):
        meddled.prune(older_than=0)
    assert ["b", "c"] == ids(engine)
    assert ("b", "c") == meddled.prune(older_than=0).run_ids


# ---- many runs, and sizes


class Countless(Wrapped):
    """A store of very many closed runs that are made as they are asked for, and go when they are removed."""

    def __init__(self, count: int) -> None:
        super().__init__(MemoryStore())
        self.left, self.count = 0, count
        self.seen: list[int] = []
        start = e.Start(workflow="kept", version="1", input=msgspec.Raw(b"[]"), timestamp=e.instant(EPOCH))
        self.first = Tail(0, 0, seal([to_draft(start)], session=1, offset=0, attempt_id="a"), closed=True, more=True)

    def closed(self, *, after: Any = None, before: Any = None, newest_first: bool = False, limit: int) -> list[RunHead]:
        self.seen.append(limit)
        first = self.left if after is None or after[0] != "kept" else max(self.left, after[1] + 1)
        found = [self._head(n) for n in range(max(first, 0), min(first + limit, self.count))]
        return [head for head in found if before is None or closed_key(head) < before]

    def _head(self, n: int) -> RunHead:
        head = a_head(status="completed", workflow="kept", updated=n)
        return RunHead(f"run-{n:032}", 0, 3, 1, closed=True, lease_until=None, head=head)

    def read(self, run_id: str, *where: Any, **how: Any) -> Any:
        return self.first

    def delete(self, run_id: str, incarnation: int, *, fence: int | None = None) -> bool:
        self.left = max(self.left, int(run_id.removeprefix("run-")) + 1)
        return True


def test_very_many_runs_go_in_little_memory() -> None:
    store: Any = Countless(25_000)
    engine = Engine(store, [kept])
    engine.prune(older_than=0, limit=1)
    tracemalloc.start()
    done = engine.prune(older_than=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (24_999, 10_000, 74_997) == (done.removed, len(done.run_ids), done.events)
    assert peak < 4_000_000
    assert max(store.seen) <= 1000
    engine.close()


def test_the_size_is_told(engine: Engine, clock: VirtualClock) -> None:
    aged(engine, clock, kept, "a", "b")
    engine.start(waits, run_id="w")
    engine.start(fails, run_id="f")
    size = engine.size()
    assert {"completed": 2, "suspended": 1, "failed": 1} == size.runs
    assert 2 * 3 + 3 + 2 == size.events
    assert size.bytes > 500
    engine.prune(older_than=0)
    size = engine.size()
    assert ({"suspended": 1}, 3) == (size.runs, size.events)
    assert 0 <= engine.vacuum()
    assert 0 == engine.size().free
    assert "completed" == engine.resume("w", "go").status


def test_a_closed_engine_removes_nothing(memory: Any) -> None:
    engine = memory.engine(kept)
    engine.close()
    for call in (engine.prune, engine.size, engine.vacuum):
        with pytest.raises(Exception, match="closed"):
            call()


def test_appends_of_a_stale_owner_never_reach_the_run_that_has_the_id_now(bench: Any, clock: VirtualClock) -> None:
    engine = bench.engine(waits, clock=clock)
    engine.submit(waits, run_id="r")
    stale = engine.store.claim("r", "stale", 1)
    engine.cancel("r", force=True)
    assert ("r",) == engine.prune(older_than=0).run_ids
    engine.submit(waits, run_id="r")
    late = to_draft(e.Cancel(timestamp=e.instant(EPOCH)))
    done = engine.store.append("r", 0, 1, [late], attempt_id="late", fence=stale.fence)
    assert not isinstance(done, Committed)
    assert ["start"] == kinds(engine)
