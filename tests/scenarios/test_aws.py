"""What AWS's tests of durable executions go through, operation by operation, as fake histories here.

The first paragraph of each docstring is a row of docs/reference/scenarios.md; "Here:" tells what is otherwise.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from stepwell import (
    All,
    Child,
    ChildFailed,
    Failure,
    Flow,
    InvalidInputError,
    Race,
    RetryPolicy,
    Sleep,
    Step,
    StepFailed,
    StepInterrupted,
    Suspend,
    TimedOut,
    failed,
    workflow,
)
from stepwell import events as e
from stepwell.errors import type_names
from stepwell.testing import fired, raised, received, replay, returned, simulate
from stepwell.testing.environments import EPOCH

from .shop import charge, check, fetch, hello, save, ship

# ---- step


def test_step_without_a_result() -> None:
    """AWS: Step that returns nothing. Its empty result is recorded as well, and it is not run again."""

    @workflow
    def quiet() -> Flow[str]:
        return repr((yield Step(save, "one")))

    assert "None" == replay(quiet, history=[returned()]).result
    run = simulate(quiet, fakes={save: None}, crash_after="every")
    assert ("None", 1) == (run.result, len(run.calls))


def test_replay_skips_what_succeeded() -> None:
    """AWS: Replay skips a succeeded step. After a wait the invocation begins anew, and the step is answered."""

    @workflow
    def two_days() -> Flow[str]:
        text = yield from Step(hello, "ada")
        yield Sleep(timedelta(days=2))
        return text

    run = simulate(two_days, fakes={hello: ["Hello"]}, crash_after="every")
    assert ("Hello", 1) == (run.result, len(run.calls))


def test_replay_throws_again() -> None:
    """AWS: Replay throws a failed step again. The failure that was caught before a wait is caught again after it."""

    @workflow
    def forgiving() -> Flow[str]:
        try:
            yield Step(ship, "lamp")
        except failed(ValueError) as error:
            yield Sleep(60)
            return error.failure.message
        return "shipped"

    assert "no address" == replay(forgiving, history=[raised(ValueError("no address")), fired()]).result
    run = simulate(forgiving, fakes={ship: [ValueError("no address")]}, crash_after="every")
    assert ("no address", 1) == (run.result, len(run.calls))


def test_retry_exhausted() -> None:
    """AWS: Retry exhaustion. When all attempts are used up, the last failure fails the execution."""

    @workflow
    def buy() -> Flow[str]:
        return (yield from Step(charge, 5).options(retry=RetryPolicy(3, initial=1, jitter=0)))

    run = simulate(buy, fakes={charge: ConnectionError("away")}, crash_after="every")
    assert run.failure.is_a(ConnectionError)
    assert [1, 2, 3] == [call.attempt for call in run.calls]


def test_at_most_once() -> None:
    """AWS: At-most-once step that was interrupted. It is not run again: it fails, and the workflow decides.

    Here: never again, also not by a retry policy; `StepInterrupted` is what the workflow can catch.
    """

    @workflow
    def pay_once() -> Flow[str]:
        try:
            return (yield from Step(charge, 5).options(at_most_once=True))
        except StepInterrupted:
            return "ask the bank"

    unknown = Failure(type_names(StepInterrupted), "it was begun, and nobody knows how it ended", attempts=1)
    stamp = e.instant(EPOCH)
    interrupted = e.Step(at="0", step_id="charge", name="charge", attempts=1, started=stamp, error=unknown)
    assert "ask the bank" == replay(pay_once, history=[interrupted]).result
    assert "paid" == simulate(pay_once, fakes={charge: "paid"}, crash_after="every").result


# ---- wait


def test_waits_in_a_row() -> None:
    """AWS: Sequential waits. Each suspends the invocation; time is skipped in tests."""

    @workflow
    def slow() -> Flow[None]:
        for hours in (1, 2, 3):
            yield Sleep(timedelta(hours=hours))

    assert "complete" == replay(slow, history=[fired(), fired(), fired()]).status
    assert timedelta(hours=6) == simulate(slow, crash_after="every").elapsed


# ---- wait for callback


@workflow
def approval(patience: int) -> Flow[str]:
    yield Step(save, "asked")
    try:
        return (yield from Suspend("approval", into=str, timeout=patience))
    except TimedOut:
        return "nobody answered"


def test_callback() -> None:
    """AWS: Wait for callback. A submitter hands out a callback id; the payload that comes with it is the value.

    Here: a signal by name, to the run id; the wait has an id as well, which an approval names.
    """
    assert "granted" == replay(approval, 60, history=[returned(), received("approval", "granted")]).result
    run = simulate(approval, 60, fakes={save: None}, signals={"approval": (5, "granted")}, crash_after="every")
    assert "granted" == run.result


def test_callback_times_out() -> None:
    """AWS: Callback time-out. Nobody calls back in time; the handler catches that and recovers."""
    assert "nobody answered" == replay(approval, 60, history=[returned(), fired()]).result
    run = simulate(approval, 60, fakes={save: None}, signals={"approval": (61, "late")})
    assert "nobody answered" == run.result


def test_callback_fails() -> None:
    """AWS: Callback failure. The external system reports a failure, which is raised where it is waited for.

    Here: a signal has one kind of payload; a failure is one of its values, and raising it is the workflow's.
    """

    @workflow
    def asked() -> Flow[str]:
        answer = yield from Suspend("answer", into=dict[str, str])
        if "error" in answer:
            raise ConnectionError(answer["error"])
        return answer["text"]

    run = replay(asked, history=[received("answer", {"error": "unreachable"})])
    assert run.failure.is_a(ConnectionError)


def test_callback_comes_early() -> None:
    """AWS: Callback before it is awaited. It resolves during a step or a wait, and its value is there afterwards."""

    @workflow
    def late() -> Flow[str]:
        yield Sleep(60)
        return (yield from Suspend("answer", into=str))

    assert "42" == replay(late, history=[received("answer", "42"), fired()]).result
    assert 60 == simulate(late, signals={"answer": (5, "42")}).elapsed.total_seconds()


def test_callback_heartbeats() -> None:
    """AWS: Callback heartbeat. Without a sign of life in an interval the wait ends before its time-out.

    Here: heartbeats belong to steps; of who is waited for, a signal of its own is the sign of life.
    """

    @workflow
    def watched() -> Flow[str]:
        while True:
            try:
                sign = yield from Suspend("sign", into=str, timeout=30)
            except TimedOut:
                return "silent"
            if sign != "alive":
                return sign

    assert "done" == simulate(watched, signals={"sign": [(20, "alive"), (40, "alive"), (65, "done")]}).result
    run = simulate(watched, signals={"sign": [(20, "alive")]})
    assert ("silent", 50) == (run.result, run.elapsed.total_seconds())


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_two_callbacks(order: tuple[str, str]) -> None:
    """AWS: Two callbacks, in either order. Both are open at once, and each gets its own answer."""

    @workflow
    def both() -> Flow[list[str]]:
        return list((yield All(Suspend("a", into=str), Suspend("b", into=str))))

    assert ["a!", "b!"] == replay(both, history=[received(name, f"{name}!") for name in order]).result


# ---- wait for condition


def test_condition() -> None:
    """AWS: Wait for condition. A check is made until its state is as wanted, with a wait between.

    Here: a step and a sleep in a loop; the step's results are the state.
    """

    @workflow
    def poll(wanted: int) -> Flow[int]:
        state, pause = 0, 1
        for _ in range(5):
            state = yield from Step(check, state)
            if state >= wanted:
                return state
            yield Sleep(pause)
            pause *= 2
        raise TimeoutError("never")

    assert 3 == replay(poll, 3, history=[returned(1), fired(), returned(3)]).result
    run = simulate(poll, 3, fakes={check: lambda state: state + 1}, crash_after="every")
    assert (3, 3) == (run.result, run.elapsed.total_seconds())
    assert simulate(poll, 9, fakes={check: 0}).failure.is_a(TimeoutError)


# ---- child context


def test_child_context() -> None:
    """AWS: Child context. Operations are grouped, nested, and fail together, within one execution.

    Here: a generator of its own, by `yield from`; it is no operation, and its steps are recorded one by one.
    """

    def inner(name: str) -> Flow[str]:
        text = yield from Step(hello, name)
        yield Sleep(5)
        return text

    @workflow
    def outer() -> Flow[str]:
        return (yield from inner("ada")) + (yield from inner("bob"))

    assert "AB" == replay(outer, history=[returned("A"), fired(), returned("B"), fired()]).result


# ---- parallel, and map


def test_results_by_index() -> None:
    """AWS: Parallel. Results come in the order of the branches, whatever the order in which they end."""

    @workflow
    def mixed() -> Flow[list[Any]]:
        return list((yield All(Step(hello, "ada"), Step(fetch, 1), Suspend("go"))))

    assert ["A", 1, None] == replay(mixed, history=[received("go"), returned(1, step="fetch"), returned("A")]).result


def test_no_branches() -> None:
    """AWS: Empty parallel and empty map. They are complete at once."""

    @workflow
    def none() -> Flow[list[Any]]:
        return list((yield All()))

    assert [] == replay(none).result


def test_map_with_index() -> None:
    """AWS: Map. A function is called for each item, with its index, at most so many at a time."""

    def one(item: str, index: int) -> Flow[str]:
        return f"{index}: {(yield from Step(hello, item))}"

    @workflow
    def each(items: list[str]) -> Flow[list[str]]:
        return list((yield All(*(one(item, i) for i, item in enumerate(items)), limit=2)))

    run = replay(each, ["a", "b", "c"])
    assert [Step(hello, "a"), Step(hello, "b")] == run.pending
    run.feed(returned("B", step="hello#2"))
    assert [Step(hello, "a"), Step(hello, "c")] == run.pending
    run.feed(returned("A"))
    run.feed(returned("C"))
    assert ["0: A", "1: B", "2: C"] == run.result


def test_fail_fast() -> None:
    """AWS: Fail-fast completion. The first failure ends it, and what has not started never does.

    Here: the default of `All`.
    """

    @workflow
    def strict() -> Flow[list[int]]:
        return list((yield All(*(Step(fetch, number) for number in range(3)), limit=1)))

    run = replay(strict, history=[raised(ValueError("no"))])
    assert "error" == run.status
    assert [Step(fetch, 0)] == [command for _, command in run.commands if isinstance(command, Step)]


def test_tolerated_failures() -> None:
    """AWS: Tolerated failures. Up to a count or a share of them may fail; the others go on.

    Here: `settle=True`, and the workflow counts; to stop early, branches share a count, as in the next row.
    """

    @workflow
    def tolerant(numbers: list[int]) -> Flow[list[int]]:
        parts = yield All(*(Step(fetch, number) for number in numbers), settle=True)
        bad = [part for part in parts if isinstance(part, Exception)]
        if len(bad) > 1:
            raise bad[0]
        return [part for part in parts if isinstance(part, int)]

    assert [1, 3] == replay(tolerant, [1, 2, 3], history=[returned(1), raised(ValueError("2")), returned(3)]).result
    worse = [returned(1), raised(ValueError("2")), raised(ValueError("3"))]
    assert replay(tolerant, [1, 2, 3], history=worse).failure.is_a(ValueError)


def test_min_successful() -> None:
    """AWS: Enough successes. It is complete as soon as so many branches have succeeded.

    Here: branches share a list, and a race ends them: what they share is deterministic.
    """

    @workflow
    def two_of(names: list[str]) -> Flow[list[str]]:
        found: list[str] = []

        def one(name: str) -> Flow[None]:
            found.append((yield from Step(hello, name)))
            if len(found) < 2:
                yield Suspend("never")  # the race ends it

        yield Race(*(one(name) for name in names))
        return found

    run = simulate(two_of, ["a", "b", "c"], fakes={hello: lambda name: name.upper()})
    assert 2 == len(run.result)


def test_one_branch_waits() -> None:
    """AWS: A branch that suspends. The others are not run again when it goes on."""

    @workflow
    def half() -> Flow[list[Any]]:
        return list((yield All(Step(hello, "ada"), Sleep(timedelta(days=1)))))

    run = simulate(half, fakes={hello: ["Hello"]}, crash_after="every")
    assert (["Hello", None], 1) == (run.result, len(run.calls))


def test_nested_parallel() -> None:
    """AWS: Nested parallel. A branch is itself a parallel, and its results are one result."""

    @workflow
    def nested() -> Flow[tuple[tuple[int, int], int]]:
        return (yield All(All(Step(fetch, 1), Step(fetch, 2)), Step(fetch, 3)))

    assert Step(fetch, 3) in replay(nested).pending
    assert ((1, 2), 3) == simulate(nested, fakes={fetch: lambda number: number}, crash_after="every").result


def test_bad_limit() -> None:
    """AWS: Invalid concurrency. A limit of nought is refused before anything starts."""

    @workflow
    def wrong() -> Flow[Any]:
        return (yield All(Step(fetch, 1), limit=0))

    with pytest.raises(InvalidInputError, match="1 or more"):
        replay(wrong)


# ---- invoke


@workflow
def echo(text: str) -> Flow[str]:
    return (yield from Step(hello, text))


def test_invoke() -> None:
    """AWS: Invoke. Another durable function is called, and its result is the value; a failure is raised and caught.

    Here: a child, in the same store; to call what is elsewhere is a step.
    """

    @workflow
    def caller() -> Flow[str]:
        try:
            return (yield from Child(echo, "ada"))
        except ChildFailed:
            return "unheard"

    assert "Hello" == replay(caller, history=[returned("Hello")]).result
    assert "unheard" == replay(caller, history=[raised(ValueError("no"))]).result
    assert "Hello" == simulate(caller, fakes={hello: ["Hello"]}, crash_after="every").result


def test_invokes_in_a_row() -> None:
    """AWS: Sequential invokes. Each suspends the caller until the other has ended."""

    @workflow
    def caller() -> Flow[str]:
        return (yield from Child(echo, "a")) + (yield from Child(echo, "b"))

    run = replay(caller, history=[returned("A")])
    assert Child(echo, "b") == run.next
    run.feed(returned("B"))
    assert "AB" == run.result


def test_a_failure_that_is_not_caught() -> None:
    """AWS: Step that fails for good. The execution fails with the step's error."""

    @workflow
    def plain() -> Flow[str]:
        return (yield from Step(ship, "lamp"))

    run = replay(plain, history=[raised(ValueError("no address"))])
    assert run.failure.is_a(ValueError)
    assert isinstance(run.error, StepFailed)
