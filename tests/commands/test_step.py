"""Step: the command that calls user code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, partial, wraps
from typing import Any
from unittest.mock import Mock

import pytest
from attrs import frozen

from stepwell import (
    CodecError,
    Engine,
    Flow,
    InvalidInputError,
    InvalidYieldError,
    RetryPolicy,
    Step,
    StepFailed,
    failed,
    step,
    workflow,
)
from stepwell.commands import UNSET, StepOptions
from stepwell.testing import raised, replay, returned

from ..unit.tools import ask, begun, broke, check_replay, did, fold, picture, task, tried


@frozen
class Point:
    """A typed result."""

    x: int
    y: int


@dataclass
class Box:
    """A typed result that can be changed."""

    items: list[int]


def pair(x: int) -> tuple[int, int]:
    return x, x


def locate(name: str) -> Point:
    return Point(1, 2)


def unpack() -> Box:
    return Box([])


async def fetch(url: str) -> str:
    return url


class Service:
    """A callable without a name of its own."""

    def __call__(self, x: int) -> int:
        return x

    def method(self, x: int) -> int:
        return x


def test_the_recorded_result_is_what_the_yield_gives() -> None:
    @workflow
    def run_one() -> Flow[Any]:
        return (yield task("one"))

    assert {"x": [1]} == replay(run_one, history=[returned({"x": [1]})]).result


@pytest.mark.parametrize("form", ["yield", "yield from"])
def test_both_forms_of_yield_give_the_same(form: str) -> None:
    @workflow
    def run_one() -> Flow[str]:
        command = Step(fetch, "u")
        if form == "yield":
            return (yield command)
        return (yield from command)

    run = replay(run_one, history=[returned("page")])
    assert "page" == run.result
    assert [("0", Step(fetch, "u"))] == run.commands


def test_a_command_yields_itself_once() -> None:
    command = Step(fetch, "u")
    assert [command] == list(command)


def test_the_decoded_value_enters_live_too() -> None:
    """A tuple that is recorded as a JSON list comes back as the annotation says, however it was given."""

    @workflow
    def run_all() -> Flow[list[str]]:
        values = [(yield Step(pair, 1)), (yield Step(locate, "x")), (yield Step(unpack)), (yield Step(fetch, "u"))]
        return [repr(value) for value in values]

    run = replay(run_all, history=[returned((1, 1)), returned(Point(1, 2)), returned(Box([3])), returned("page")])
    assert ["(1, 1)", "Point(x=1, y=2)", "Box(items=[3])", "'page'"] == run.result
    check_replay(run)


def test_a_value_that_the_annotation_does_not_allow_is_no_answer() -> None:
    @workflow
    def run_one() -> Flow[Any]:
        return (yield Step(locate, "x"))

    with pytest.raises(AssertionError, match=r"returned\('here'\): the value could not be recorded"):
        replay(run_one, history=[returned("here")])


def test_each_feed_decodes_a_copy_of_its_own() -> None:
    """What one machine's workflow does to a result is not seen by another machine that takes in the same event."""
    seen: list[list[int]] = []

    @workflow
    def run_one() -> Flow[None]:
        box = yield Step(unpack)
        box.items.append(9)
        seen.append(box.items)

    event = did("0", "unpack", {"items": [1]})
    fold(run_one, event)
    fold(run_one, event)
    assert [[1, 9], [1, 9]] == seen
    assert seen[0] is not seen[1]


def test_a_failure_is_thrown_at_the_yield_with_its_record() -> None:
    @workflow
    def run_one() -> Flow[list[Any]]:
        yield task("fine")
        try:
            return [(yield task("charge"))]
        except StepFailed as error:
            return [error.step_id, error.at, error.seq, error.failure.message, error.failure.is_a(LookupError)]

    run = replay(run_one, history=[returned(), raised(KeyError("card"))])
    assert ["charge", "1", 2, "'card'", True] == run.result
    check_replay(run)


def test_failed_catches_by_the_recorded_type() -> None:
    @workflow
    def run_one() -> Flow[str]:
        try:
            yield task("charge")
        except failed(ValueError):
            return "value"
        except failed(LookupError):
            return "lookup"
        return "none"

    assert "lookup" == replay(run_one, history=[raised(KeyError("x"))]).result
    assert "value" == replay(run_one, history=[raised(UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"))]).result
    assert StepFailed is not type(replay(run_one, history=[raised(OSError("x"))]).error)
    assert "step 'charge' failed: OSError: x" == str(replay(run_one, history=[raised(OSError("x"))]).error)


def test_repeats_of_a_name_are_numbered() -> None:
    @workflow
    def run_many() -> Flow[None]:
        yield task("a")
        yield task("b")
        yield task("a")
        yield task("a")

    run = replay(run_many, history=[returned(), returned(), returned()])
    assert ["a#3"] == [p.step_id for p in run.machine.pending.values()]
    assert ["a", "b", "a#2"] == [ev.step_id for ev in run.events[1:]]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "fn"),
    [
        ("pair", pair),
        ("fetch", fetch),
        ("pair", partial(pair, 1)),
        ("pair", partial(partial(pair))),
        ("Service", Service()),
        ("method", Service().method),
        ("upper", str.upper),
        ("Point", Point),
    ],
)
def test_the_name_is_the_functions_own(name: str, fn: Callable[..., Any]) -> None:
    assert name == Step(fn).name


def test_a_name_that_is_given_is_stronger() -> None:
    @step(name="declared")
    def work() -> None: ...

    assert "declared" == Step(work).name
    assert "given" == Step(work).options(name="given").name
    assert "given" == Step(work).options(name="given").label


@pytest.mark.parametrize(
    ("told", "wrong"),
    [
        ("got 3; write Step(f, x), not Step(f(x))", 3),
        ("got None", None),
        ("can't call the generator function 'numbers'", "generator"),
        ("can't call the generator function 'numbers'", "async generator"),
    ],
)
def test_what_can_not_be_called_is_refused_where_it_is_made(told: str, wrong: Any) -> None:
    def numbers() -> Iterator[int]:
        yield 1

    plain = numbers

    async def numbers() -> Any:  # type: ignore[no-redef]
        yield 1

    fn = {"generator": plain, "async generator": numbers}.get(wrong, wrong)
    with pytest.raises(InvalidInputError) as caught:
        Step(fn)
    assert told in str(caught.value)


def test_steps_are_equal_when_they_ask_for_the_same_call() -> None:
    assert Step(pair, 1) == Step(pair, 1)
    assert Step(pair, 1) != Step(pair, 2)
    assert Step(ask, 1) != Step(str, 1)
    assert Step(pair, x=1) == Step(pair, x=1)
    assert Step(pair, x=1) != Step(pair, 1)


def test_options_do_not_count_when_steps_are_compared() -> None:
    plain = Step(pair, 1)
    full: Step[Any] = plain.options(name="other", retry=RetryPolicy(9), timeout=3, at_most_once=True, into=list[int])
    assert plain == full


def test_steps_with_arguments_that_have_no_hash_can_be_in_a_set() -> None:
    assert 1 == len({Step(ask, [1], {}), Step(ask, [1], {})})


def test_steps_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Step(pair, 1).fn = pair  # type: ignore[misc]


def test_a_function_sets_the_defaults_of_its_steps() -> None:
    policy = RetryPolicy(5)

    @step(name="work", retry=policy, timeout=timedelta(minutes=1), at_most_once=True, into=list[int])
    def fn() -> Any: ...

    assert StepOptions("work", policy, 60.0, True, list[int]) == Step(fn).given


def test_options_keep_what_they_do_not_name() -> None:
    policy, other = RetryPolicy(5), RetryPolicy(2)

    @step(retry=policy, timeout=60, at_most_once=True)
    def fn() -> int: ...  # type: ignore[empty-body]

    given = Step(fn).options(retry=other).options(timeout=5, into=str).given
    assert StepOptions(None, other, 5.0, True, str) == given
    assert at_most_once_off(fn) is False
    assert StepOptions(None, policy, 60.0, True, UNSET) == Step(fn).given


def at_most_once_off(fn: Callable[[], int]) -> bool | None:
    """An option that a function sets can be taken back."""
    return Step(fn).options(at_most_once=False).given.at_most_once


def test_the_decorator_gives_the_function_back() -> None:
    def fn() -> int:
        return 3

    assert fn is step(retry=RetryPolicy(2))(fn)
    assert 3 == fn()


@pytest.mark.parametrize(
    ("told", "options"),
    [
        ("a step's name must be printable text of 1 to 200 characters, got ''", {"name": ""}),
        ("got 'a\\nb'", {"name": "a\nb"}),
        ("1 to 200 characters", {"name": "x" * 201}),
        ("can't hold '#', which numbers repeats; got 'a#2'", {"name": "a#2"}),
        ("must be a RetryPolicy, got 3", {"retry": 3}),
        ("must be a timedelta or a number of seconds, got 'soon'", {"timeout": "soon"}),
        ("must be more than 0 seconds", {"timeout": 0}),
        ("between 0 seconds and 10,000 years, got -1", {"timeout": -1}),
        ("at_most_once must be True or False, got 1", {"at_most_once": 1}),
    ],
)
def test_wrong_options_are_refused_at_once(told: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError) as decorated:
        step(**options)
    with pytest.raises(InvalidInputError) as given:
        Step(pair, 1).options(**options)
    assert told in str(decorated.value)
    assert told in str(given.value)


def test_the_decorator_needs_its_brackets() -> None:
    bare: Any = step
    with pytest.raises(TypeError):
        bare(pair)
    with pytest.raises(InvalidInputError, match="decorates a function, got 3"):
        step()(3)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="can't mark"):
        step()(str.upper)


def test_the_type_that_is_asked_for_is_stronger_than_the_annotation() -> None:
    @workflow
    def run_one() -> Flow[str]:
        return repr([(yield Step(ask).options(into=tuple[int, ...])), (yield Step(pair, 1).options(into=list[int]))])

    assert "[(1, 2), [1, 2]]" == replay(run_one, history=[returned((1, 2)), returned([1, 2])]).result


@pytest.mark.parametrize("fn", [lambda: 3, partial(lambda x: x, 3)])
def test_a_lambda_needs_a_name(fn: Callable[[], int]) -> None:
    """Every lambda is called the same, so a change of the code would not be noticed."""

    @workflow
    def nameless() -> Flow[int]:
        return (yield from Step(fn))

    @workflow
    def named() -> Flow[int]:
        return (yield from Step(fn).options(name="three", into=int))

    with pytest.raises(
        InvalidYieldError, match=r"test_step.py:\d+, in .*nameless: a lambda has no name .*options\(name="
    ):
        replay(nameless)
    assert 3 == replay(named, history=[returned(3)]).result


def test_a_result_that_fits_no_more_names_run_event_and_path() -> None:
    """The machine is as it was, so that the run goes on once the code is mended."""

    @workflow
    def run_one() -> Flow[int]:
        return (yield Step(locate, "x")).x

    run = fold(run_one)
    before = picture(run.machine)
    with pytest.raises(CodecError) as caught:
        run.machine.feed(did("0", "locate", {"x": "one", "y": 2}))
    assert "$.x" == caught.value.path
    assert "run 'r', event 1: the recorded result of step 'locate' does not fit" in str(caught.value)
    assert before == picture(run.machine)
    run.machine.feed(did("0", "locate", {"x": 1, "y": 2}))
    assert 1 == run.machine.result


def test_attempts_are_counted_by_the_history() -> None:
    """Count and next try are in the events, so that they survive a crash; the step stays pending."""

    @workflow
    def run_one() -> Flow[Any]:
        return (yield task("flaky"))

    run = fold(run_one, tried("0", "flaky"), tried("0", "flaky", 2))
    [pending] = run.machine.pending.values()
    assert (2, "2026-01-01T00:00:00.000000Z") == (pending.attempts, pending.due)
    run.machine.feed(did("0", "flaky", 7))
    assert 7 == run.machine.result


def test_a_step_that_began_is_marked_until_its_outcome_is_known() -> None:
    @workflow
    def run_one() -> Flow[Any]:
        return (yield task("once").options(at_most_once=True))

    run = fold(run_one, begun("0", "once"))
    assert [True] == [p.begun for p in run.machine.pending.values()]
    run.machine.feed(did("0", "once", 7))
    assert 7 == run.machine.result


def test_a_failed_step_that_is_not_caught_fails_the_run() -> None:
    @workflow
    def run_one() -> Flow[None]:
        yield task("boom")

    run = replay(run_one, history=[raised(ValueError("no"))])
    assert "error" == run.status
    assert run.failure.is_a(StepFailed, ValueError)
    assert fold(run_one, broke("0", "boom", ValueError("no"))).machine.status == "error"


def test_wrong_arguments_are_found_when_they_are_bound_by_the_function() -> None:
    """A command is data: what the function makes of its arguments is the outcome of the step."""
    assert (1, 2, 3) == Step(pair, 1, 2, 3).args  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("1 to 200 characters, got 'a\\nb'", "a\nb"),
        ("1 to 200 characters, got 'a\\ud800'", "a\ud800"),
        ("1 to 200 characters, got", "x" * 201),
        ("can't hold '#'", "a#2"),
    ],
)
def test_a_function_whose_own_name_can_not_be_recorded_needs_another(told: str, name: str) -> None:
    def work() -> None: ...

    work.__name__ = name
    with pytest.raises(InvalidInputError) as caught:
        Step(work)
    assert told in str(caught.value)
    assert "say another with @step(name=...)" in str(caught.value)
    assert "work" == Step(step(name="work")(work)).name


@workflow
def inner(x: int) -> Flow[int]:
    yield task("inner")
    return x


class Streams:
    """A callable whose body is a generator's."""

    def __call__(self) -> Iterator[int]:
        yield 1

    def method(self) -> Iterator[int]:
        yield 1


@pytest.mark.parametrize(
    ("name", "fn"),
    [
        ("inner", inner),
        ("inner", partial(inner, 1)),
        ("inner", cache(inner.fn)),
        ("method", Streams().method),
        ("method", partial(partial(Streams.method), Streams())),
        ("Streams", Streams()),
        ("Streams", partial(Streams())),
    ],
)
def test_what_gives_a_generator_is_refused_where_it_is_made(name: str, fn: Callable[..., Any]) -> None:
    """Its body would never run: a workflow in a workflow is called with `yield from`."""
    with pytest.raises(InvalidInputError, match=f"can't call the generator function '{name}'.*`yield from`"):
        Step(fn)


def test_a_plain_function_that_collects_what_a_generator_gives_is_a_step() -> None:
    """A decorator leaves the generator function behind it in `__wrapped__`."""

    def listed(fn: Callable[..., Iterator[int]]) -> Callable[..., list[int]]:
        @wraps(fn)
        def collect(*args: Any) -> list[int]:
            return list(fn(*args))

        return collect

    @listed
    def numbers(n: int) -> Iterator[int]:
        yield from range(n)

    found = Step(numbers, 2)
    assert ("numbers", [0, 1]) == (found.name, found.fn(*found.args))


def test_an_object_that_has_every_attribute_is_told_by_its_class() -> None:
    class Proxy:
        def __getattr__(self, name: str) -> Any:
            if name in ("__name__", "__stepwell_step__"):
                raise AttributeError(name)
            return Proxy()

        def __call__(self) -> int:
            return 1

    assert "Proxy" == Step(Proxy()).name


@pytest.mark.parametrize("name", ["self", "fn", "args", "kwargs", "given"])
def test_an_argument_may_have_any_name(name: str) -> None:
    def work(**named: int) -> None: ...

    assert {name: 1} == Step(work, **{name: 1}).kwargs
    assert {name: 1} == Step(work, **{name: 1}).options(name="other").kwargs


def test_a_mock_can_be_a_step() -> None:
    """It has every attribute that it is asked for, `func` and `__wrapped__` among them."""
    mock = Mock(return_value=3)

    @workflow
    def calls() -> Flow[int]:
        return (yield from Step(mock, 1).options(name="mock", into=int))

    with Engine("memory:", [calls]) as engine:
        assert engine.start(calls).unwrap() == 3
    mock.assert_called_once_with(1)
