"""Streams as an engine performs them: where they run, what is recorded, how they end early."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any

import pytest

from stepwell import (
    All,
    Cancelled,
    CodecError,
    Engine,
    Flow,
    Race,
    RetryPolicy,
    RunCancelled,
    RunCompleted,
    RunFailed,
    Step,
    StepTimeoutError,
    StoreUnavailableError,
    Stream,
    current_step,
    failed,
    workflow,
)
from stepwell import events as e
from stepwell.chunks import BATCH

from .tools import PATIENCE, HandClock, Meddled, Tally, Task, Wrapped, eventually, kinds


def words(text: str) -> Generator[str, None, int]:
    found = text.split()
    yield from found
    return len(found)


async def tokens(text: str) -> AsyncIterator[str]:
    for word in text.split():
        await asyncio.sleep(0)
        yield word


def recorded(engine: Engine, run_id: str = "r") -> list[tuple[str, int, int, Any]]:
    """The chunks of a history."""
    codec = engine._parts.codec
    return [
        (event.step_id, event.attempt, event.index, codec.decode(event.value))
        for event in engine.history(run_id)
        if isinstance(event, e.Chunk)
    ]


def test_the_return_value_is_the_result(bench: Any) -> None:
    @workflow
    def w() -> Flow[list[Any]]:
        return [(yield from Stream(words, "a b c")), (yield Stream(tokens, "a b"))]

    engine = bench.engine()
    assert RunCompleted("r", [3, None]) == engine.start(w, run_id="r")
    assert ["start", "step", "step", "complete"] == kinds(engine)


def test_collect_makes_the_result_of_the_chunks(bench: Any) -> None:
    @workflow
    def w() -> Flow[list[Any]]:
        joined = yield from Stream(tokens, "a b c").options(collect="".join)
        listed = yield from Stream(words, "a b").options(collect=list)
        return [joined, listed, (yield from Stream(words, "a b").options(collect=len, into=int))]

    assert RunCompleted("r", ["abc", ["a", "b"], 2]) == bench.engine().start(w, run_id="r")


def test_a_second_start_calls_nothing(bench: Any) -> None:
    tally = Tally()

    def once() -> Iterator[int]:
        yield tally.add("once")

    @workflow
    def w() -> Flow[int]:
        return (yield from Stream(once).options(collect=sum, into=int))

    for engine in (bench.engine(), bench.engine()):
        assert RunCompleted("r", 1) == engine.start(w, run_id="r")


def test_a_lone_sync_stream_runs_in_the_callers_thread_and_context(memory: Any) -> None:
    seen: list[Any] = []

    def look() -> Iterator[int]:
        seen.append((threading.current_thread(), current_step().step_id, current_step().attempt))
        yield 1
        seen.append(threading.current_thread())

    @workflow
    def w() -> Flow[None]:
        yield Stream(look)

    memory.engine().start(w, run_id="r")
    assert [(threading.current_thread(), "look", 1), threading.current_thread()] == seen


def test_an_async_stream_runs_on_the_engines_loop(memory: Any) -> None:
    seen: list[str] = []

    async def look() -> AsyncIterator[str]:
        await asyncio.sleep(0)
        seen.append(f"{threading.current_thread().name} {current_step().step_id}")
        yield "a"

    @workflow
    def w() -> Flow[None]:
        yield Stream(look)
        yield All(Stream(look), Stream(look))

    memory.engine().start(w, run_id="r")
    assert ["stepwell-loop look", "stepwell-loop look#2", "stepwell-loop look#3"] == sorted(seen)


def test_streams_of_branches_run_at_the_same_time(bench: Any) -> None:
    meet = threading.Barrier(2)

    def meets(name: str) -> Iterator[str]:
        yield name
        meet.wait(PATIENCE)
        yield name

    @workflow
    def w() -> Flow[list[str]]:
        branches = [Stream(meets, name).options(collect="".join, record_chunks=True) for name in "ab"]
        return list((yield All(*branches)))

    engine = bench.engine()
    assert RunCompleted("r", ["aa", "bb"]) == engine.start(w, run_id="r")
    assert {("meets", 1, 0, "a"), ("meets", 1, 1, "a"), ("meets#2", 1, 0, "b"), ("meets#2", 1, 1, "b")} == set(
        recorded(engine)
    )


def test_a_stream_gets_copies_of_its_arguments(memory: Any) -> None:
    def spoil(items: list[int]) -> Iterator[int]:
        items.append(9)
        yield len(items)

    @workflow
    def w() -> Flow[list[int]]:
        mine = [1]
        yield Stream(spoil, mine)
        return mine

    assert RunCompleted("r", [1]) == memory.engine().start(w, run_id="r")


# ---- failures


@pytest.mark.parametrize("record", [False, True])
def test_a_stream_that_fails_is_tried_again_from_its_beginning(bench: Any, record: bool) -> None:
    tally = Tally()

    def flaky() -> Iterator[str]:
        number = tally.add("flaky")
        yield f"first of {number}"
        if number < 3:
            raise OSError("the line is gone")
        yield f"second of {number}"

    @workflow
    def w() -> Flow[list[str]]:
        stream = Stream(flaky).options(collect=list, record_chunks=record, retry=RetryPolicy(3, initial=0.0))
        return (yield from stream)

    engine = bench.engine()
    assert RunCompleted("r", ["first of 3", "second of 3"]) == engine.start(w, run_id="r")
    assert [1, 2] == [event.attempt for event in engine.history("r") if isinstance(event, e.Attempt)]
    found = [(1, 0, "first of 1"), (2, 0, "first of 2"), (3, 0, "first of 3"), (3, 1, "second of 3")]
    assert [("flaky", *one) for one in found if record] == recorded(engine)


def test_a_failure_closes_nothing_but_ends_the_stream(memory: Any) -> None:
    def breaks() -> Iterator[int]:
        yield 1
        raise LookupError("no such page")

    @workflow
    def w() -> Flow[str]:
        try:
            yield Stream(breaks)
        except failed(LookupError):
            return "caught"
        return ""

    assert RunCompleted("r", "caught") == memory.engine().start(w, run_id="r")


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_chunk_that_can_not_be_handed_on_fails_the_stream_whether_anybody_reads_or_not(
    memory: Any, kind: str
) -> None:
    closed: list[str] = []

    def odd() -> Iterator[int]:
        try:
            yield 1
            yield "two"  # type: ignore[misc]
        finally:
            closed.append("sync")

    async def odd_too() -> AsyncIterator[int]:
        try:
            yield 1
            yield "two"  # type: ignore[misc]
        finally:
            await asyncio.sleep(0)
            closed.append("async")

    @workflow
    def w() -> Flow[None]:
        yield Stream(odd) if kind == "sync" else Stream(odd_too)

    outcome = memory.engine(retry=RetryPolicy(3, initial=0.0)).start(w, run_id="r")
    assert isinstance(outcome, RunFailed)
    assert outcome.failure.is_a(CodecError)
    assert "chunk 1 of stream" in outcome.failure.message
    assert [kind] == closed  # and once: another attempt would yield the same


def test_a_collect_that_fails_fails_the_stream(memory: Any) -> None:
    @workflow
    def w() -> Flow[None]:
        yield Stream(words, "a b").options(collect=lambda chunks: chunks[7])

    outcome = memory.engine().start(w, run_id="r")
    assert isinstance(outcome, RunFailed)
    assert outcome.failure.is_a(IndexError)


def test_a_result_type_that_can_not_be_decoded_is_found_before_the_call(memory: Any) -> None:
    called: list[int] = []

    def never() -> Generator[int, None, threading.Thread]:
        called.append(1)
        yield 1
        return threading.current_thread()

    @workflow
    def w() -> Flow[None]:
        yield Stream(never)

    assert isinstance(memory.engine().start(w, run_id="r"), RunFailed)
    assert [] == called


# ---- recorded chunks


def test_recorded_chunks_lie_before_the_outcome_in_their_order(bench: Any) -> None:
    @workflow
    def w() -> Flow[int]:
        yield Stream(tokens, "x y").options(record_chunks=True)
        return (yield from Stream(words, "a b c").options(record_chunks=True))

    engine = bench.engine()
    assert RunCompleted("r", 3) == engine.start(w, run_id="r")
    assert ["start", *["chunk"] * 2, "step", *["chunk"] * 3, "step", "complete"] == kinds(engine)
    assert [("words", 1, n, word) for n, word in enumerate("abc")] == recorded(engine)[2:]


class Counted(Wrapped):
    """Counts an owner's appends, and how many events each has."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.sizes: list[int] = []

    def append(self, *where: Any, **how: Any) -> Any:
        if how.get("fence") is not None:
            self.sizes.append(len(where[3]))
        return self.inner.append(*where, **how)


@pytest.mark.parametrize("kind", ["sync", "async", "branch"])
def test_a_fast_stream_is_written_in_batches_that_have_a_bound(memory: Any, kind: str) -> None:
    async def counts() -> AsyncIterator[int]:
        for n in range(5_000):
            yield n

    def counts_too() -> Iterator[int]:
        yield from range(5_000)

    @workflow
    def w() -> Flow[None]:
        stream = (Stream(counts) if kind == "async" else Stream(counts_too)).options(record_chunks=True)
        yield All(stream, Step(str.upper, "a").options(into=str)) if kind == "branch" else stream

    store = Counted(memory.store())
    engine = memory.engine(store=store)
    assert "completed" == engine.start(w, run_id="r").status
    assert list(range(5_000)) == [value for *_, value in recorded(engine)]
    assert max(store.sizes) <= BATCH + 1
    assert len(store.sizes) < 200


def test_a_chunk_waits_for_others_a_moment_and_no_longer(memory: Any) -> None:
    clock, leave = HandClock(), threading.Event()

    def slow() -> Iterator[str]:
        yield "a"
        assert leave.wait(PATIENCE)
        yield "b"

    @workflow
    def w() -> Flow[None]:
        yield Stream(slow).options(record_chunks=True)

    engine = memory.engine(clock=clock)
    driver = Task(lambda: engine.start(w, run_id="r"))
    eventually(lambda: clock.waits and clock.waits[-1] <= 0.1)
    assert [] == recorded(engine)
    clock.advance(0.2)
    eventually(lambda: recorded(engine))
    leave.set()
    driver.result()
    assert ["a", "b"] == [value for *_, value in recorded(engine)]


def test_a_signal_that_comes_between_is_taken_in(bench: Any) -> None:
    leave = threading.Event()

    def slow() -> Iterator[int]:
        yield 1
        assert leave.wait(PATIENCE)
        yield 2

    @workflow
    def w() -> Flow[None]:
        yield Stream(slow).options(record_chunks=True)

    engine = bench.engine()
    driver = Task(lambda: engine.start(w, run_id="r"))
    eventually(lambda: engine.runs() and "chunk" in kinds(engine))
    engine.signal("r", "anything", 1)
    leave.set()
    driver.result()
    assert ["start", "chunk", "resume", "chunk", "step", "complete"] == kinds(engine)


class Broken(Wrapped):
    """Fails the `nth` append of an owner for good."""

    def __init__(self, inner: Any, nth: int) -> None:
        super().__init__(inner)
        self.nth, self.appends = nth, 0

    def append(self, *where: Any, **how: Any) -> Any:
        if how.get("fence") is not None:
            self.appends += 1
            if self.appends == self.nth:
                raise StoreUnavailableError("the disk is gone")
        return self.inner.append(*where, **how)


def test_a_store_that_fails_in_the_midst_fails_the_session_and_not_the_stream(memory: Any) -> None:
    tally, closed = Tally(), threading.Event()

    def counts() -> Iterator[int]:
        tally.add("counts")
        try:
            yield from range(1_000)
        finally:
            closed.set()

    @workflow
    def w() -> Flow[None]:
        yield Stream(counts).options(record_chunks=True)

    with pytest.raises(StoreUnavailableError, match="the disk is gone"):
        memory.engine(store=Broken(memory.store(), 3)).start(w, run_id="r")
    assert closed.wait(PATIENCE)
    engine = memory.engine(w)
    assert "completed" == engine.advance("r").status
    assert (2, 1_200) == (tally["counts"], len(recorded(engine)))
    assert {1, 2} == {attempt for _, attempt, _, _ in recorded(engine)}
    assert 2 == next(event.attempts for event in engine.history("r") if isinstance(event, e.Step))


# ---- cancel


class Held:
    """Streams that say when they have begun and whether they were closed, and go on when they are let."""

    def __init__(self) -> None:
        self.begun, self.leave, self.closed = threading.Event(), threading.Event(), threading.Event()

    def sync(self) -> Iterator[int]:
        try:
            for n in range(1_000_000):
                yield n
                self.begun.set()
                self.leave.wait(0.01)
        finally:
            self.closed.set()

    async def hangs(self) -> AsyncIterator[int]:
        try:
            yield 1
            self.begun.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            self.closed.set()

    async def stubborn(self) -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                self.begun.set()
                try:
                    await asyncio.sleep(0.01)
                except asyncio.CancelledError:
                    continue
        finally:
            self.closed.set()

    def stream(self, kind: str, *, record: bool = False) -> Stream[Any, Any]:
        fns: dict[str, Any] = {"sync": self.sync, "hangs": self.hangs, "stubborn": self.stubborn}
        fn = fns[kind]
        return Stream(fn).options(name="held", record_chunks=record)


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.mark.parametrize("record", [False, True])
@pytest.mark.parametrize("kind", ["sync", "hangs", "stubborn"])
@pytest.mark.parametrize("how", ["alone", "branch", "timeout"])
def test_a_cancel_closes_the_generator_and_the_step_is_cancelled(
    bench: Any, held: Held, kind: str, record: bool, how: str
) -> None:
    @workflow
    def w() -> Flow[None]:
        stream = held.stream(kind, record=record)
        if how == "branch":
            yield All(stream, Stream(words, "a"))
        else:
            yield stream.options(timeout=600) if how == "timeout" else stream

    engine = bench.engine(retry=RetryPolicy(5, initial=0.0))
    driver = Task(lambda: engine.start(w, run_id="r"))
    assert held.begun.wait(PATIENCE)
    engine.cancel("r", "enough")
    assert RunCancelled("r", "enough") == driver.result()
    assert held.closed.wait(PATIENCE)
    ends = [event for event in engine.history("r") if event.at == ("0.0.0" if how == "branch" else "0")]
    assert "cancelled" == ends[-1].kind
    assert {"chunk", "cancelled"} >= {event.kind for event in ends}


def test_clean_up_may_stream_too(bench: Any, held: Held) -> None:
    @workflow
    def w() -> Flow[None]:
        try:
            yield held.stream("sync")
        finally:
            yield Stream(words, "good bye").options(record_chunks=True)

    engine = bench.engine()
    driver = Task(lambda: engine.start(w, run_id="r"))
    assert held.begun.wait(PATIENCE)
    engine.cancel("r")
    assert isinstance(driver.result(), RunCancelled)
    assert ["good", "bye"] == [value for *_, value in recorded(engine)]


def test_a_forced_cancel_ends_a_stream(bench: Any, held: Held) -> None:
    @workflow
    def w() -> Flow[None]:
        yield held.stream("sync", record=True)

    engine = bench.engine()
    driver = Task(lambda: engine.start(w, run_id="r"))
    assert held.begun.wait(PATIENCE)
    assert isinstance(engine.cancel("r", force=True), RunCancelled)
    assert isinstance(driver.result(), RunCancelled)
    assert held.closed.wait(PATIENCE)


def test_a_cancel_from_another_engine_reaches_a_recorded_stream(disk: Any, held: Held) -> None:
    @workflow
    def w() -> Flow[None]:
        yield held.stream("sync", record=True)

    engine, other = disk.engine(), disk.engine()
    driver = Task(lambda: engine.start(w, run_id="r"))
    assert held.begun.wait(PATIENCE)
    other.cancel("r")
    assert isinstance(driver.result(), RunCancelled)
    assert held.closed.is_set()


@pytest.mark.parametrize("kind", ["sync", "hangs"])
def test_the_loser_of_a_race_is_closed(bench: Any, held: Held, kind: str) -> None:
    def wins() -> str:
        assert held.begun.wait(PATIENCE)
        return "won"

    @workflow
    def w() -> Flow[list[Any]]:
        return list((yield Race(slow=held.stream(kind, record=True), fast=Step(wins))))

    engine = bench.engine()
    assert ["fast", "won"] == engine.start(w, run_id="r").unwrap()
    assert held.closed.wait(PATIENCE)
    assert [] == [event for event in engine.history("r") if isinstance(event, e.Attempt)]


@pytest.mark.parametrize("kind", ["sync", "hangs"])
@pytest.mark.parametrize("record", [False, True])
def test_a_stream_that_takes_too_long_is_closed_and_fails(bench: Any, held: Held, kind: str, record: bool) -> None:
    @workflow
    def w() -> Flow[str]:
        try:
            yield held.stream(kind, record=record).options(timeout=0.05)
        except failed(StepTimeoutError):
            return "late"
        return ""

    engine = bench.engine()
    assert RunCompleted("r", "late") == engine.start(w, run_id="r")
    assert held.closed.wait(PATIENCE)
    history = engine.history("r")
    assert ["step", "complete"] == [event.kind for event in history[-2:]]
    assert record == any(isinstance(event, e.Chunk) for event in history)


@pytest.mark.parametrize("kind", ["sync", "hangs"])
@pytest.mark.parametrize("record", [False, True])
def test_a_stream_that_is_silent_for_too_long_is_closed_and_fails(
    bench: Any, held: Held, kind: str, record: bool
) -> None:
    @workflow
    def w() -> Flow[str]:
        try:
            yield held.stream(kind, record=record).options(heartbeat_timeout=0.05)
        except failed(StepTimeoutError) as error:
            return error.failure.message
        return ""

    done = bench.engine().start(w, run_id="r")
    assert RunCompleted("r", "step 'held' sent no heartbeat for 0.05 s") == done
    assert held.closed.wait(PATIENCE)


@pytest.mark.parametrize("options", [{}, {"timeout": 60}, {"heartbeat_timeout": 60}])
@pytest.mark.parametrize("record", [False, True])
def test_a_stream_goes_on_from_what_its_last_attempt_told(bench: Any, record: bool, options: Any) -> None:
    def pages() -> Generator[int, None, list[Any]]:
        context = current_step()
        first = context.last_details or 0
        for page in range(first, first + 2):
            yield page
            context.heartbeat(page + 1)
        if context.attempt == 1:
            raise OSError("down")
        return [first, context.last_details]

    @workflow
    def w() -> Flow[Any]:
        how: Any = {"retry": RetryPolicy(2, initial=0), "record_chunks": record, **options}
        return (yield from Stream(pages).options(**how))

    engine = bench.engine()
    assert RunCompleted("r", [2, 2]) == engine.start(w, run_id="r")
    assert ["attempt", "step", "complete"] == [one for one in kinds(engine) if one not in ("heartbeat", "chunk")][1:]
    chunks = [("pages", 1, 0, 0), ("pages", 1, 1, 1), ("pages", 2, 0, 2), ("pages", 2, 1, 3)]
    assert (chunks if record else []) == recorded(engine)


def test_what_a_recorded_stream_tells_is_recorded_while_it_runs(bench: Any) -> None:
    leave = threading.Event()

    def slow() -> Iterator[int]:
        yield 1
        current_step().heartbeat({"page": 1})
        assert leave.wait(PATIENCE)
        yield 2

    @workflow
    def w() -> Flow[None]:
        yield Stream(slow).options(record_chunks=True)

    engine = bench.engine()
    driver = Task(lambda: engine.start(w, run_id="r"))
    eventually(lambda: engine.runs() and {"chunk", "heartbeat"} <= set(kinds(engine)))
    leave.set()
    driver.result()
    assert ["chunk", "chunk", "heartbeat"] == sorted(kinds(engine)[1:-2])


@pytest.mark.parametrize("record", [False, True])
def test_a_heartbeat_ends_a_stream_that_nobody_wants_any_more(bench: Any, record: bool) -> None:
    begun, told = threading.Event(), threading.Event()

    def waits() -> Iterator[int]:
        yield 1
        begun.set()
        while True:
            try:
                current_step().heartbeat()
            except Cancelled:
                told.set()
                raise
            told.wait(0.01)

    @workflow
    def w() -> Flow[None]:
        yield Stream(waits).options(record_chunks=record)

    engine = bench.engine()
    driver = Task(lambda: engine.start(w, run_id="r"))
    assert begun.wait(PATIENCE)
    engine.cancel("r")
    assert isinstance(driver.result(), RunCancelled)
    assert told.wait(PATIENCE)
    assert ["cancelled", "cancelled"] == kinds(engine)[-2:]
    assert "step" not in kinds(engine)


def test_a_stream_that_is_told_of_a_cancel_that_never_was_begins_anew(memory: Any, held: Held) -> None:
    """A notice that reaches a later incarnation must not end what nobody has cancelled."""
    tally = Tally()

    def counts() -> Iterator[int]:
        number = tally.add("counts")
        yield number
        held.begun.set()
        if number == 1:
            assert held.leave.wait(PATIENCE)
        yield number

    @workflow
    def w() -> Flow[list[int]]:
        return (yield from Stream(counts).options(collect=list))

    engine = memory.engine()
    driver = Task(lambda: engine.start(w, run_id="r"))
    assert held.begun.wait(PATIENCE)
    engine._sessions.notify("r", cancel=True)
    held.leave.set()
    assert RunCompleted("r", [2, 2]) == driver.result()
    assert ["start", "attempt", "step", "complete"] == kinds(engine)


def test_closing_the_engine_closes_an_async_stream(memory: Any, held: Held) -> None:
    @workflow
    def w() -> Flow[None]:
        yield held.stream("hangs")

    engine = memory.engine()
    driver = Task(lambda: engine.start(w, run_id="r"))
    assert held.begun.wait(PATIENCE)
    engine.close()
    assert held.closed.wait(PATIENCE)
    with pytest.raises(Exception, match="closed"):
        driver.result()


# ---- incarnations


def test_a_retry_begins_a_failed_stream_anew_and_keeps_the_others_chunks(bench: Any) -> None:
    tally = Tally()

    def breaks() -> Iterator[int]:
        yield tally.add("breaks")
        if tally["breaks"] == 1:
            raise OSError("gone")

    @workflow
    def w() -> Flow[None]:
        yield Stream(words, "a b").options(record_chunks=True)
        yield Stream(breaks).options(record_chunks=True)

    engine = bench.engine()
    assert isinstance(engine.start(w, run_id="r"), RunFailed)
    assert "completed" == engine.retry("r").status
    assert [("words", 1, 0, "a"), ("words", 1, 1, "b"), ("breaks", 1, 0, 2)] == recorded(engine)
    fork = engine.fork("r", before="breaks", new_run_id="f")
    assert "completed" == fork.status
    assert [("words", 1, 0, "a"), ("words", 1, 1, "b"), ("breaks", 1, 0, 3)] == recorded(engine, "f")
    assert "completed" == engine.fork("r", before=2, new_run_id="g").status  # in the midst of a stream
    assert [("words", 1, 0, "a"), ("words", 1, 1, "b"), ("breaks", 1, 0, 4)] == recorded(engine, "g")


def test_a_conflict_in_the_midst_of_a_batch_loses_no_chunk(bench: Any) -> None:
    @workflow
    def w() -> Flow[int]:
        return (yield from Stream(words, "a b c").options(record_chunks=True))

    other = bench.engine()
    store = Meddled(bench.store(), 1, lambda: other.signal("r", "early", 1))
    engine = bench.engine(store=store)
    assert RunCompleted("r", 3) == engine.start(w, run_id="r")
    assert ["start", "resume", *["chunk"] * 3, "step", "complete"] == kinds(engine)
