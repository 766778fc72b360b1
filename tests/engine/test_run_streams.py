"""engine.stream: runs read as they go, live and from the store."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from stepwell import (
    All,
    Emit,
    Engine,
    Flow,
    InvalidInputError,
    NotFoundError,
    Now,
    RetryPolicy,
    RunCancelled,
    RunCompleted,
    RunFailed,
    Sleep,
    Step,
    Stream,
    Suspend,
    workflow,
)
from stepwell.hub import MAX_LIVE
from stepwell.streaming import Chunk, Done, Emitted, Lagged, StatusChanged, StepChanged, StreamEvent

from .tools import PATIENCE, Tally, Task, eventually


def words(text: str) -> Iterator[str]:
    yield from text.split()


def upper(text: str) -> str:
    return text.upper()


def picture(events: list[Any]) -> list[Any]:
    """Events in short; how the run stands between is left out, since who looks late does not see it."""
    found: list[Any] = []
    for event in events:
        match event:
            case StatusChanged(seq=None):
                pass
            case StatusChanged():
                found.append(event.status)
            case StepChanged():
                found.append(f"{event.step_id} {event.status} {event.attempt}")
            case Chunk():
                found.append((event.step_id, event.attempt, event.index, event.value))
            case Emitted():
                found.append(("emitted", event.value, event.topic))
            case Lagged():
                found.append(("lagged", event.count))
            case Done():
                found.append(event.outcome)
    return found


def recorded(events: list[StreamEvent]) -> list[int]:
    """The seqs of what is recorded."""
    return [event.seq for event in events if event.seq is not None]


def read(engine: Engine, run_id: str = "r", **how: Any) -> list[StreamEvent]:
    with engine.stream(run_id, timeout=PATIENCE, **how) as events:
        return list(events)


class Reader(Task):
    """Reads a run in a thread of its own, to the end."""

    def __init__(self, engine: Engine, run_id: str = "r", **how: Any) -> None:
        self.events: list[StreamEvent] = []
        self.stream = engine.stream(run_id, timeout=PATIENCE, **how)
        super().__init__(self._read)

    def _read(self) -> list[StreamEvent]:
        for event in self.stream:
            self.events.append(event)
        return self.events

    def until(self, holds: Any) -> None:
        eventually(lambda: any(map(holds, list(self.events))))


@workflow
def story(text: str) -> Flow[str]:
    yield Emit("hello", topic="greeting")
    yield Stream(words, text)
    yield Stream(words, text).options(record_chunks=True)
    return (yield from Step(upper, text))


LIVE = [
    "pending",
    ("emitted", "hello", "greeting"),
    "words started 1",
    ("words", 1, 0, "a"),
    ("words", 1, 1, "b"),
    "words completed 1",
    "words#2 started 1",
    ("words#2", 1, 0, "a"),
    ("words#2", 1, 1, "b"),
    "words#2 completed 1",
    "upper started 1",
    "upper completed 1",
    RunCompleted("r", "A B"),
]


def lasting(found: list[Any]) -> list[Any]:
    """A picture without what is told live only."""
    return [one for one in found if not (isinstance(one, str) and "started" in one)]


RECORDED = [one for one in lasting(LIVE) if not (isinstance(one, tuple) and one[0] == "words")]


def test_a_run_is_read_as_it_goes(bench: Any) -> None:
    engine = bench.engine(story)
    engine.submit(story, "a b", run_id="r")
    readers = [Reader(engine) for _ in range(3)]
    engine.run_due()
    for reader in readers:
        assert picture(reader.result()) == LIVE
        assert sorted(set(recorded(reader.events))) == recorded(reader.events)


def test_who_comes_late_gets_what_is_recorded(bench: Any) -> None:
    engine = bench.engine()
    engine.start(story, "a b", run_id="r")
    for reader in (engine, bench.engine(story)):
        events = read(reader)
        assert picture(events) == RECORDED
        assert list(range(8)) == recorded(events)


def test_an_engine_that_does_not_know_the_workflow_reads_plain_json(disk: Any) -> None:
    disk.engine().start(story, "a b", run_id="r")
    assert picture(read(disk.engine())) == RECORDED


@pytest.mark.parametrize("after", range(8))
def test_a_reader_goes_on_where_it_was(memory: Any, after: int) -> None:
    engine = memory.engine()
    engine.start(story, "a b", run_id="r")
    whole = read(engine)
    assert whole[after + 1 :] == [event for event in read(engine, after=after) if event.seq is not None] or after == 7
    assert read(engine, after=after) == read(engine, after=whole[after].position)
    assert isinstance(read(engine, after=after)[-1], Done)  # also who has seen it


def test_the_position_of_an_iterator_is_that_of_what_it_gave(memory: Any) -> None:
    engine = memory.engine()
    engine.start(story, "a b", run_id="r")
    with engine.stream("r") as events:
        assert None is events.after
        next(events)
        next(events)
        assert (0, 1) == events.after
    assert [] == list(events)
    assert 6 == len(read(engine, after=events.after))


@pytest.mark.parametrize("after", [-1, 8, True, "3", (0,), (1, 0), (0, "1"), (0, 8)])
def test_a_position_that_is_none_is_refused(memory: Any, after: Any) -> None:
    engine = memory.engine()
    engine.start(story, "a b", run_id="r")
    with pytest.raises(InvalidInputError, match=r"after must be|none at seq 8"):
        engine.stream("r", after=after)


def test_a_wrong_argument_is_refused(memory: Any) -> None:
    engine = memory.engine()
    with pytest.raises(NotFoundError):
        engine.stream("r")
    with pytest.raises(InvalidInputError, match="until must be one of done, parked"):
        engine.stream("r", until="never")
    with pytest.raises(InvalidInputError, match="timeout"):
        engine.stream("r", timeout=-1)
    with pytest.raises(InvalidInputError, match="a run id"):
        engine.stream("")


def test_what_became_of_steps_is_told(bench: Any) -> None:
    tally = Tally()

    def flaky() -> str:
        if tally.add("flaky") == 1:
            raise OSError("gone")
        return "there"

    @workflow
    def w() -> Flow[None]:
        yield Step(flaky).options(retry=RetryPolicy(2, initial=0.0))
        yield Step(upper, "x").options(at_most_once=True)
        yield Step(int, "x").options(into=int)

    engine = bench.engine(w)
    engine.submit(w, run_id="r")
    reader = Reader(engine)
    engine.run_due()
    events = [event for event in reader.result() if isinstance(event, StepChanged)]
    assert [
        "flaky started 1",
        "flaky attempt_failed 1",
        "flaky started 2",
        "flaky completed 2",
        "upper started 1",
        "upper completed 1",
        "int started 1",
        "int failed 1",
    ] == picture(list(events))
    assert "gone" == events[1].failure.message  # type: ignore[union-attr]
    assert None is not events[1].due
    assert ("there", "X", None) == (events[3].result, events[5].result, events[7].result)
    assert None is not events[4].seq  # the `begin` of an at_most_once step is recorded


def test_an_attempt_that_begins_anew_is_told(bench: Any) -> None:
    tally = Tally()

    def flaky() -> Iterator[str]:
        yield f"a{tally.add('flaky')}"
        if tally["flaky"] == 1:
            raise OSError("gone")
        yield "b"

    @workflow
    def w() -> Flow[None]:
        yield Stream(flaky).options(retry=RetryPolicy(2, initial=0.0))

    engine = bench.engine(w)
    engine.submit(w, run_id="r")
    reader = Reader(engine)
    engine.run_due()
    assert [
        "flaky started 1",
        ("flaky", 1, 0, "a1"),
        "flaky attempt_failed 1",
        "flaky started 2",
        ("flaky", 2, 0, "a2"),
        ("flaky", 2, 1, "b"),
        "flaky completed 2",
    ] == picture(reader.result())[1:-1]


def test_async_streams_of_branches_are_told_each_in_its_order(bench: Any) -> None:
    async def numbers(name: str) -> AsyncIterator[str]:
        for n in range(50):
            yield f"{name}{n}"

    @workflow
    def w() -> Flow[None]:
        yield All(*(Stream(numbers, name).options(record_chunks=name == "c") for name in "abc"))

    engine = bench.engine(w)
    engine.submit(w, run_id="r")
    reader = Reader(engine)
    engine.run_due()
    events = reader.result()
    for at, name in (("0.0.0", "a"), ("0.1.0", "b"), ("0.2.0", "c")):
        own = [event for event in events if isinstance(event, (Chunk, StepChanged)) and event.at == at]
        assert ["started", *[f"{name}{n}" for n in range(50)], "completed"] == [
            event.value if isinstance(event, Chunk) else event.status for event in own
        ]


# ---- how the run stands


def test_a_parked_run_is_told_and_waited_for(bench: Any) -> None:
    @workflow
    def w() -> Flow[str]:
        return (yield from Suspend("go", into=str))

    engine = bench.engine(w)
    engine.start(w, run_id="r")
    reader = Reader(engine)
    reader.until(lambda event: isinstance(event, StatusChanged) and event.waiting_for == ("go",))
    engine.resume("r", "go", "went")
    events = reader.result()
    assert ["pending", "suspended"] == [event.status for event in events[:2] if isinstance(event, StatusChanged)]
    assert picture(events) == ["pending", RunCompleted("r", "went")]


def test_a_reader_may_end_when_the_run_is_parked(bench: Any) -> None:
    @workflow
    def w() -> Flow[None]:
        yield Step(upper, "a")
        yield Sleep(3600)

    engine = bench.engine(w)
    engine.submit(w, run_id="r")
    reader = Reader(engine, until="parked")
    engine.run_due()
    last = reader.result()[-1]
    assert isinstance(last, StatusChanged)
    assert ("suspended", ()) == (last.status, last.waiting_for)
    assert engine.get("r").due == last.due
    engine.pause("r")
    paused = read(engine, until="parked")[-1]
    assert isinstance(paused, StatusChanged)
    assert "paused" == paused.status
    engine.cancel("r", "enough")
    assert RunCancelled("r", "enough") == picture(read(engine, until="parked"))[-1]


def test_a_blocked_run_is_told(bench: Any) -> None:
    @workflow(name="w")
    def before() -> Flow[None]:
        yield Step(upper, "a")
        yield Suspend("go")

    @workflow(name="w")
    def later() -> Flow[None]:
        yield Now()

    bench.engine().start(before, run_id="r")
    engine = bench.engine(later)
    with pytest.raises(Exception, match="diverges"):
        engine.advance("r")
    last = read(engine, until="parked")[-1]
    assert isinstance(last, StatusChanged)
    assert "DIVERGENCE" == last.blocked


def test_a_cancelled_step_is_told(bench: Any) -> None:
    begun, never = threading.Event(), threading.Event()

    def endless() -> Iterator[int]:
        for n in range(10**9):
            yield n
            begun.set()
            never.wait(0.01)

    @workflow
    def w() -> Flow[None]:
        yield Stream(endless)

    engine = bench.engine(w)
    engine.submit(w, run_id="r")
    reader = Reader(engine)
    driver = Task(engine.run_due)
    assert begun.wait(PATIENCE)
    engine.cancel("r", "enough")
    driver.result()
    found = [one for one in picture(reader.result()) if not isinstance(one, tuple)]
    assert ["pending", "endless started 1", "endless cancelled 0", RunCancelled("r", "enough")] == found


def test_nothing_comes_in_time(bench: Any) -> None:
    @workflow
    def w() -> Flow[None]:
        yield Suspend("go")

    engine = bench.engine(w)
    engine.start(w, run_id="r")
    events = list(engine.stream("r", timeout=0.05))
    assert ["pending", "suspended"] == [event.status for event in events if isinstance(event, StatusChanged)]
    assert [] == list(engine.stream("r", after=1, timeout=0))[1:]


# ---- incarnations


@workflow
def fails() -> Flow[str]:
    yield All(Step(upper, "kept"), Stream(words, "x y").options(record_chunks=True))
    yield Emit(1)
    return (yield from Step(TALLY.fail_once))


class Failing(Tally):
    """Fails once in a test."""

    failed = False

    def fail_once(self) -> str:
        self.failed, before = True, self.failed
        if not before:
            raise OSError("gone")
        return "done"


TALLY = Failing()


@pytest.fixture(autouse=True)
def anew() -> None:
    TALLY.failed = False


def test_a_retry_while_a_reader_reads_is_told_and_repeats_nothing(bench: Any) -> None:
    engine = bench.engine(fails)
    engine.submit(fails, run_id="r")
    stream = engine.stream("r", timeout=PATIENCE)
    assert "pending" == next(stream).status
    assert isinstance(engine.run_due()[0], RunFailed)
    assert RunCompleted("r", "done") == engine.retry("r")
    events = list(stream)
    found = lasting(picture(events))
    assert {"upper completed 1", ("words", 1, 0, "x"), ("words", 1, 1, "y"), "words completed 1"} == set(found[:4])
    assert [
        ("emitted", 1, None),
        "fail_once failed 1",
        "failed",
        "pending",
        "fail_once completed 1",
        RunCompleted("r", "done"),
    ] == found[4:]
    again = [event for event in events if event.incarnation == 1 and event.seq is not None]
    for event in again[:-1]:  # from each of them a reader can go on
        rest = [one for one in read(engine, after=event.position) if one.seq is not None]
        assert again[again.index(event) + 1 :] == rest


def test_a_reset_while_a_reader_reads_is_told(bench: Any) -> None:
    @workflow
    def w() -> Flow[str]:
        yield Step(upper, "a")
        return (yield from Suspend("go", into=str))

    engine = bench.engine(w)
    engine.start(w, run_id="r")
    reader = Reader(engine)
    reader.until(lambda event: isinstance(event, StatusChanged) and event.status == "suspended")
    engine.reset("r")
    engine.resume("r", "go", "went")
    found = lasting(picture(reader.result()))
    assert ["pending", "upper completed 1", "cancelled", "pending", "upper completed 1", RunCompleted("r", "went")] == (
        found
    )


def test_a_reader_of_a_retried_run_begins_with_its_whole_history(bench: Any) -> None:
    engine = bench.engine(fails)
    engine.start(fails, run_id="r")
    engine.retry("r")
    events = read(engine)
    assert {1} == {event.incarnation for event in events}
    assert "words completed 1" in picture(events)
    assert RunCompleted("r", "done") == picture(events)[-1]


def test_a_reader_of_an_older_incarnation_goes_on_to_the_next(bench: Any) -> None:
    engine = bench.engine(fails)
    engine.start(fails, run_id="r")
    engine.retry("r")
    seqs = [event.seq for event in engine.stream("r", after=(0, 0)) if event.incarnation == 0]
    assert sorted(seq for seq in seqs if seq is not None) == seqs
    assert picture(read(engine, after=(0, 0)))[-3:] == ["pending", "fail_once completed 1", RunCompleted("r", "done")]


def test_a_run_that_is_deleted_ends_its_readers(bench: Any) -> None:
    @workflow
    def w() -> Flow[None]:
        yield Suspend("go")

    engine = bench.engine(w)
    engine.start(w, run_id="r")
    streams = [engine.stream("r", timeout=PATIENCE) for _ in range(2)]
    for stream in streams:
        assert ["pending", "suspended"] == [next(stream).status, next(stream).status]
    engine.cancel("r", force=True)
    engine.delete("r")
    with pytest.raises(NotFoundError):
        list(streams[0])
    engine.submit(w, run_id="r")
    with pytest.raises(NotFoundError, match=r"its id is used again|deleted meanwhile"):
        list(streams[1])


# ---- readers that are slow, dead or gone


def test_a_slow_reader_loses_live_chunks_and_nothing_that_is_recorded(bench: Any) -> None:
    def many() -> Iterator[int]:
        yield from range(MAX_LIVE + 500)

    @workflow
    def w() -> Flow[None]:
        yield Stream(many)
        yield Stream(words, "x y").options(record_chunks=True)

    engine = bench.engine(w)
    engine.submit(w, run_id="r")
    stream = engine.stream("r", timeout=PATIENCE)
    engine.run_due()  # is not kept waiting, though nobody reads
    events = list(stream)
    lagged = [event for event in events if isinstance(event, Lagged)]
    chunks = [event.index for event in events if isinstance(event, Chunk) and event.step_id == "many"]
    assert [events[1]] == lagged or [events[0]] == lagged
    started = [event for event in events if isinstance(event, StepChanged) and event.status == "started"]
    assert MAX_LIVE == len(chunks) + len(started)
    assert list(range(chunks[0], MAX_LIVE + 500)) == chunks
    assert MAX_LIVE + 500 + 2 == lagged[0].count + len(chunks) + len(started)
    assert list(range(6)) == recorded(events)


def test_a_reader_that_nobody_holds_is_forgotten(memory: Any) -> None:
    @workflow
    def w() -> Flow[None]:
        yield Suspend("go")

    engine = memory.engine(w)
    engine.start(w, run_id="r")
    hub = engine._parts.hub
    stream, other = engine.stream("r"), engine.stream("r")
    next(stream)
    assert 2 == len(hub.readers["r"])
    del stream
    gc.collect()
    assert 1 == len(hub.readers["r"])
    other.close()
    assert {} == hub.readers


def test_a_stream_is_closed_from_another_thread(bench: Any) -> None:
    @workflow
    def w() -> Flow[None]:
        yield Suspend("go")

    engine = bench.engine(w)
    engine.start(w, run_id="r")
    reader = Reader(engine)
    reader.until(lambda event: isinstance(event, StatusChanged) and event.status == "suspended")
    reader.stream.close()
    assert 2 == len(reader.result())


def test_closing_the_engine_ends_its_readers(bench: Any) -> None:
    @workflow
    def w() -> Flow[None]:
        yield Suspend("go")

    engine = bench.engine(w, store=None)
    engine.start(w, run_id="r")
    reader = Reader(engine)
    reader.until(lambda event: isinstance(event, StatusChanged) and event.status == "suspended")
    engine.close()
    assert 2 == len(reader.result())


def test_readers_that_fail_or_stand_still_hurt_no_run(bench: Any) -> None:
    engine = bench.engine(story)
    engine.submit(story, "a b", run_id="r")
    idle, broken = engine.stream("r"), engine.stream("r")

    def breaks() -> None:
        for _ in broken:
            raise LookupError("a reader's own mistake")

    with pytest.raises(LookupError):
        breaks()
    assert [RunCompleted("r", "A B")] == engine.run_due()
    assert picture(list(idle)) == LIVE


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_reads_with_handles_of_its_own(disk: Any) -> None:
    engine = disk.engine(story)
    engine.start(story, "a b", run_id="r")
    stream = engine.stream("r", timeout=PATIENCE)
    assert "pending" == next(stream).status
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if picture(list(stream)) == RECORDED[1:] and picture(read(engine)) == RECORDED else 2
        finally:
            os._exit(code)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert picture(list(stream)) == RECORDED[1:]


def test_a_long_history_is_read_in_pages(memory: Any) -> None:
    @workflow
    def w() -> Flow[None]:
        for _ in range(2_500):
            yield Now()
        yield Emit("end")

    engine = memory.engine()
    engine.start(w, run_id="r")
    assert ["pending", ("emitted", "end", None), RunCompleted("r", None)] == picture(read(engine))


def test_a_hub_is_idle_while_nobody_reads(memory: Any) -> None:
    engine = memory.engine()
    assert {} == engine._parts.hub.readers
    engine.start(story, "a", run_id="r")
    read(engine)
    assert {} == engine._parts.hub.readers
