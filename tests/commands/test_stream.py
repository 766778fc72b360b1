"""Stream: the command that calls a generator and hands on what it yields."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from functools import partial, wraps
from typing import Any

import pytest
from attrs import frozen
from msgspec import Raw

from stepwell import (
    CodecError,
    DivergenceError,
    Flow,
    InvalidInputError,
    InvalidYieldError,
    RetryPolicy,
    StepFailed,
    Stream,
    step,
    workflow,
)
from stepwell import events as e
from stepwell.results import result_type
from stepwell.steps import Step
from stepwell.testing import cancel, cancelled, raised, replay, returned, simulate

from ..unit.tools import STAMP, begun, broke, check_replay, did, fold, tried


@frozen
class Point:
    """A typed chunk."""

    x: int


def count(most: int) -> Generator[int, None, str]:
    yield from range(most)
    return "counted"


def words(text: str) -> Iterator[str]:
    yield from text.split()


def points(most: int) -> Iterator[Point]:
    yield from map(Point, range(most))


async def tokens(text: str) -> AsyncIterator[str]:
    for word in text.split():
        yield word


async def numbers() -> AsyncGenerator[int, None]:
    yield 1


def bare(most: Any):
    yield from range(most)


class Model:
    """Streams by a method and by being called."""

    def ask(self, prompt: str) -> Iterator[str]:
        yield prompt

    async def __call__(self, prompt: str) -> AsyncIterator[str]:
        yield prompt


def given(at: str, name: str, attempt: int, index: int, value: str = '"x"') -> e.Chunk:
    """A recorded chunk."""
    return e.Chunk(at=at, step_id=name, attempt=attempt, index=index, value=Raw(value.encode()), timestamp=STAMP)


@pytest.mark.parametrize("form", ["yield", "yield from"])
def test_the_recorded_result_is_what_the_yield_gives(form: str) -> None:
    @workflow
    def w() -> Flow[str]:
        if form == "yield":
            return (yield Stream(count, 3))
        return (yield from Stream(count, 3))

    run = replay(w, history=[returned("done")])
    assert "done" == run.result
    assert [("0", Stream(count, 3))] == run.commands
    check_replay(run)


def test_streams_are_equal_when_they_ask_for_the_same_call() -> None:
    assert Stream(count, 3) == Stream(count, 3).options(name="n", into=str, collect=str, record_chunks=True)
    assert Stream(count, 3) != Stream(count, 4)
    assert hash(Stream(count, 3)) == hash(Stream(count, 3))
    assert Stream(count, 3) != Step(str.upper, "x")


@pytest.mark.parametrize(
    ("name", "fn"),
    [
        ("count", count),
        ("tokens", tokens),
        ("numbers", numbers),
        ("count", partial(count, 3)),
        ("ask", Model().ask),
        ("Model", Model()),
        ("Model", partial(Model(), "x")),
    ],
)
def test_generator_functions_of_every_kind_can_be_streamed(name: str, fn: Callable[..., Any]) -> None:
    assert name == Stream(fn).name


@pytest.mark.parametrize("name", ["tokens", "numbers", "Model"])
def test_an_async_generator_is_known_as_one(name: str) -> None:
    from stepwell.steps import callee_of

    known: dict[str, Callable[..., Any]] = {"tokens": tokens, "numbers": numbers, "Model": Model()}
    assert callee_of(known[name]).is_async


@wraps(count)
def wrapped(most: int) -> Any:
    return count(most)


def in_a_process() -> Iterator[int]:
    yield 1


@workflow
def other() -> Flow[None]:
    yield Stream(words, "a")


@pytest.mark.parametrize(
    ("told", "wrong"),
    [
        ("Stream needs a function and its arguments, got 3; write Stream(f, x), not Stream(f(x))", 3),
        ("Stream needs a function and its arguments, got <generator", count(3)),
        ("Stream needs a generator function, and 'upper' is none", str.upper),
        ("Stream needs a generator function, and 'count' is none", wrapped),
        ("Stream can't call 'other', a Workflow around a generator function: use `yield from`", other),
        ("a step's name must be printable text of 1 to 200 characters, got 'a\\nb'", "named"),
    ],
)
def test_what_can_not_be_streamed_is_refused_where_it_is_made(told: str, wrong: Any) -> None:
    def named() -> Iterator[int]:
        yield 1

    named.__name__ = "a\nb"
    with pytest.raises(InvalidInputError) as caught:
        Stream(named if wrong == "named" else wrong)
    assert told in caught.value.message


def test_a_step_that_is_given_a_generator_function_names_the_way_out() -> None:
    with pytest.raises(InvalidInputError, match=r"Step can't call the generator function 'count'.*Use Stream"):
        Step(count, 3)


@pytest.mark.parametrize(
    ("told", "options"),
    [
        ("collect must take the list of its chunks, got 3", {"collect": 3}),
        ("record_chunks must be True or False, got 'yes'", {"record_chunks": "yes"}),
        ("a step's timeout must be more than 0", {"timeout": 0}),
        ("a step's name can't hold '#'", {"name": "a#2"}),
    ],
)
def test_a_wrong_option_is_refused(told: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=told):
        Stream(count, 3).options(**options)


def test_options_keep_what_they_are_not_given() -> None:
    stream = Stream(count, 3).options(name="n", collect=sum).options(record_chunks=True).options(timeout=2, into=int)
    assert ("n", sum, True, 2.0, int) == (
        stream.name,
        stream.collect,
        stream.record_chunks,
        stream.given.timeout,
        stream.given.into,
    )
    assert stream.options(record_chunks=False).collect is sum
    copy = stream.replaced((4,), {}, stream.given)
    assert (sum, True, (4,)) == (copy.collect, copy.record_chunks, copy.args)


def test_the_decorator_sets_what_a_stream_begins_with() -> None:
    @step(name="told", retry=RetryPolicy(2))
    def tell() -> Iterator[int]:
        yield 1

    assert ("told", RetryPolicy(2)) == (Stream(tell).name, Stream(tell).given.retry)


def test_a_function_that_is_marked_for_a_process_can_not_be_streamed() -> None:
    marked = step(process=True)(in_a_process)
    with pytest.raises(InvalidInputError, match="process=True, and what a stream yields is read in the engine's own"):
        Stream(marked)


def test_only_the_stream_that_is_yielded_has_to_be_yielded() -> None:
    @workflow
    def w() -> Flow[None]:
        yield Stream(count, 3).options(collect=len).options(name="n")

    run = replay(w, history=[returned(3)])  # a warning that a command is never yielded would be an error
    assert "complete" == run.status


def test_a_lambda_needs_a_name() -> None:
    @workflow
    def w() -> Flow[None]:
        yield Stream(lambda: (yield 1))

    with pytest.raises(InvalidYieldError, match="a lambda has no name"):
        replay(w)


def how_many(chunks: list[int]) -> int:
    return len(chunks)


@pytest.mark.parametrize(
    ("into", "stream"),
    [
        (str, Stream(count, 3)),
        (list[int], Stream(count, 3).options(collect=list)),
        (tuple[Point, ...], Stream(points, 3).options(collect=tuple)),
        (set[str], Stream(tokens, "a").options(collect=set)),
        (int, Stream(count, 3).options(collect=how_many)),
        (float, Stream(count, 3).options(collect=how_many, into=float)),
        (list, Stream(bare, 3).options(collect=list)),
    ],
)
def test_the_type_of_the_result_follows_from_return_annotations(into: Any, stream: Stream[Any, Any]) -> None:
    assert into == result_type(stream)


def test_the_result_of_an_annotated_generator_is_typed() -> None:
    def find() -> Generator[str, None, Point]:
        yield "looking"
        return Point(1)

    @workflow
    def w() -> Flow[str]:
        return repr((yield from Stream(find)))

    assert "Point(x=1)" == replay(w, history=[returned(Point(1))]).result
    with pytest.raises(AssertionError, match="the value could not be recorded"):
        replay(w, history=[returned("here")])


def test_a_failure_is_thrown_at_the_yield() -> None:
    @workflow
    def w() -> Flow[str]:
        try:
            yield Stream(words, "a b")
        except StepFailed as error:
            return f"{error.step_id}: {error.failure.message}"
        return ""

    assert "words: no line" == replay(w, history=[raised(OSError("no line"))]).result


def test_a_stream_that_is_cancelled_is_answered_as_a_step_is() -> None:
    @workflow
    def w() -> Flow[None]:
        yield Stream(words, "a b")

    run = replay(w, history=[cancel("enough"), cancelled(step="words")])
    assert "cancelled" == run.status


# ---- recorded chunks


@workflow
def one() -> Flow[Any]:
    return (yield Stream(words, "a b").options(record_chunks=True))


def test_recorded_chunks_answer_nothing() -> None:
    held = fold(one, given("0", "words", 1, 0), given("0", "words", 1, 1))
    assert ["0"] == list(held.machine.pending)
    held.machine.feed(did("0", "words", "end"))
    assert "end" == held.machine.result


def test_an_attempt_of_which_chunks_are_recorded_counts() -> None:
    """After a crash in the midst of a stream the next attempt has a number of its own."""
    pending = fold(one, given("0", "words", 1, 0)).machine.pending["0"]
    assert (1, None) == (pending.attempts, pending.due)
    pending = fold(one, tried("0", "words"), given("0", "words", 2, 0)).machine.pending["0"]
    assert (2, None) == (pending.attempts, pending.due)


@pytest.mark.parametrize(
    "events",
    [
        [given("1", "words", 1, 0)],
        [given("0", "others", 1, 0)],
        [did("0", "words"), given("0", "words", 1, 0)],
    ],
)
def test_a_chunk_of_nothing_that_is_pending_diverges(events: list[e.EventBase]) -> None:
    with pytest.raises(DivergenceError):
        fold(one, *events)


def test_a_run_whose_code_makes_a_step_of_the_stream_goes_on() -> None:
    @workflow
    def later() -> Flow[Any]:
        return (yield Step(str.upper, "a").options(name="words"))

    held = fold(later, given("0", "words", 1, 0), did("0", "words", "A"))
    assert "A" == held.machine.result


def test_repeats_of_a_name_are_numbered_in_chunks_too() -> None:
    @workflow
    def twice() -> Flow[None]:
        yield Stream(words, "a")
        yield Stream(words, "a")

    held = fold(twice, given("0", "words", 1, 0), did("0", "words"), given("1", "words#2", 1, 0))
    assert "words#2" == held.machine.pending["1"].step_id


def test_at_most_once_counts_for_streams_too() -> None:
    held = fold(one, begun("0", "words"), given("0", "words", 1, 0))
    assert held.machine.pending["0"].begun
    held.machine.feed(broke("0", "words", OSError("gone")))
    assert "error" == held.machine.status


# ---- simulated


def test_a_simulation_takes_a_value_for_a_stream() -> None:
    @workflow
    def w() -> Flow[str]:
        return (yield from Stream(tokens, "hi").options(collect="".join))

    run = simulate(w, fakes={tokens: "hello"})
    assert "hello" == run.result
    assert "hello" == simulate(w, fakes={tokens: [raised(OSError("no line")), "hello"]}, retry=RetryPolicy(2)).result


@pytest.mark.parametrize("crash", [None, "every"])
def test_a_simulation_takes_a_generator_in_place_of_a_stream(crash: Any) -> None:
    def fake(text: str) -> Iterator[str]:
        yield from (text, "!")

    @workflow
    def w() -> Flow[str]:
        first = yield from Stream(tokens, "hi").options(collect="".join)
        return first + (yield from Stream(words, "hi").options(collect="".join, record_chunks=True))

    run = simulate(w, fakes={tokens: fake, words: fake}, crash_after=crash)
    assert "hi!hi!" == run.result
    chunks = [(event.attempt, event.index, bytes(event.value)) for event in run.history if isinstance(event, e.Chunk)]
    assert (1, 0, b'"hi"') in chunks
    assert (1, 1, b'"!"') in chunks


def test_a_simulation_may_run_the_real_generators() -> None:
    from stepwell.testing import REAL

    @workflow
    def w() -> Flow[list[Any]]:
        sync = yield from Stream(words, "a b").options(collect=list)
        return [sync, (yield from Stream(tokens, "c d").options(collect="".join, record_chunks=True))]

    assert [["a", "b"], "cd"] == simulate(w, fakes={words: REAL, tokens: REAL}).result


def test_a_chunk_that_can_not_be_recorded_fails_the_stream() -> None:
    def odd() -> Iterator[Any]:
        yield "fine"
        yield object()

    @workflow
    def w() -> Flow[None]:
        yield Stream(words, "a")

    failure = simulate(w, fakes={words: odd_of(odd)}).failure
    assert failure.is_a(CodecError)
    assert "chunk 1 of stream 'words' can't be handed on" in failure.message


def odd_of(fn: Callable[[], Iterator[Any]]) -> Callable[[str], Iterator[Any]]:
    def fake(_text: str) -> Iterator[Any]:
        return fn()

    return fake
