"""What the orchestration tests of durabletask go through, as fake histories here.

The first paragraph of each docstring is a row of docs/reference/scenarios.md; "Here:" tells what is otherwise.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from attrs import frozen

from stepwell import (
    All,
    Flow,
    Race,
    RetryPolicy,
    Sleep,
    Step,
    Suspend,
    failed,
    workflow,
)
from stepwell.testing import (
    WrongAnswerError,
    cancelled,
    fired,
    raised,
    received,
    replay,
    returned,
    simulate,
)

from .shop import add_one, charge, fetch, hello, save, ship


@frozen
class Order:
    item: str
    cents: int


@workflow
def count_up(start: int) -> Flow[int]:
    one = yield from Step(add_one, start)
    return (yield from Step(add_one, one))


@workflow
def fan(numbers: list[int]) -> Flow[int]:
    parts = yield All(*(Step(fetch, number) for number in numbers))
    return sum(parts)


# ---- begin and end


def test_input() -> None:
    """durabletask: Input. The orchestrator gets the value that it was started with.

    Here: input has the type that the workflow declares, and is checked when the run is started.
    """

    @workflow
    def buy(order: Order) -> Flow[str]:
        return (yield from Step(ship, order.item))

    assert Step(ship, "lamp") == replay(buy, Order("lamp", 900)).next


def test_empty() -> None:
    """durabletask: Empty orchestration. One that schedules nothing is completed with its return value."""

    @workflow
    def nothing() -> Flow[str]:
        return "done"
        yield

    run = replay(nothing)
    assert ("done", []) == (run.result, run.commands)
    assert "done" == simulate(nothing).result


def test_sequence() -> None:
    """durabletask: Activity sequence. The output of an activity is the input of the next one."""
    run = replay(count_up, 1, history=[returned(2)])
    assert Step(add_one, 2) == run.next
    run.feed(returned(3))
    assert 3 == run.result
    assert 11 == simulate(count_up, 9, fakes={add_one: lambda number: number + 1}, crash_after="every").result


def test_activity_result_type() -> None:
    """durabletask: Return type of an activity. The result is made into the type that its annotation names."""

    def find(name: str) -> Order: ...  # type: ignore[empty-body]

    @workflow
    def priced(name: str) -> Flow[int]:
        return (yield from Step(find, name)).cents

    assert 900 == replay(priced, "lamp", history=[returned(Order("lamp", 900))]).result
    with pytest.raises(WrongAnswerError, match="could not be recorded"):
        replay(priced, "lamp", history=[returned("no order")])


# ---- failures and retries


def test_activity_failed() -> None:
    """durabletask: Activity failed. A failure that nobody catches fails the orchestration, and names type and text."""
    run = replay(count_up, 1, history=[raised(ValueError("too much"))])
    assert run.failure.is_a(ValueError)
    assert "too much" in run.failure.message


def test_activity_error_handled() -> None:
    """durabletask: Activity error handling. The orchestrator catches a failure, and compensates.

    Here: a failure is caught by the type that was recorded: `except failed(ConnectionError)`.
    """

    @workflow
    def buy(cents: int) -> Flow[str]:
        try:
            return (yield from Step(charge, cents))
        except failed(ConnectionError):
            yield Step(save, "not charged")
            return "later"

    run = replay(buy, 5, history=[raised(ConnectionResetError("away"))])
    assert Step(save, "not charged") == run.next
    run.feed(returned())
    assert "later" == run.result


def test_retry_back_off() -> None:
    """durabletask: Retry policies. A failing activity is tried again, with growing delays, until attempts are used up.

    Here: attempts are the step's own and take no timer of the history; a fake history has the last outcome only.
    """

    @workflow
    def buy(cents: int) -> Flow[str]:
        policy = RetryPolicy(4, initial=1, factor=2, cap=3, jitter=0)
        return (yield from Step(charge, cents).options(retry=policy))

    assert replay(buy, 5, history=[raised(ConnectionError("away"))]).failure.is_a(ConnectionError)
    run = simulate(buy, 5, fakes={charge: [ConnectionError("away")] * 3 + ["paid"]}, crash_after="every")
    assert "paid" == run.result
    assert [0, 1, 3, 6] == [call.time.total_seconds() for call in run.calls]


def test_retry_gives_up_early() -> None:
    """durabletask: Errors that are not retried. Some failures are final, whatever the policy says."""

    @workflow
    def buy(cents: int) -> Flow[str]:
        return (yield from Step(charge, cents).options(retry=RetryPolicy(4, on=ConnectionError, jitter=0)))

    run = simulate(buy, 5, fakes={charge: [ConnectionError("away"), ValueError("no such card")]})
    assert run.failure.is_a(ValueError)
    assert 2 == len(run.calls)


# ---- timers


@workflow
def wait_a_day() -> Flow[str]:
    yield Sleep(timedelta(days=1))
    return "rested"


def test_timer() -> None:
    """durabletask: Timer. An orchestration that created a timer waits, and goes on when it fired."""
    run = replay(wait_a_day)
    assert Sleep(timedelta(days=1)) == run.next
    run.feed(fired())
    assert "rested" == run.result
    assert timedelta(days=1) == simulate(wait_a_day, crash_after="every").elapsed


def test_long_timer() -> None:
    """durabletask: Long timer. One longer than the back end allows is cut in chunks, and fires after the last.

    Here: there is no longest timer and nothing to cut: one event, one instant.
    """

    @workflow
    def patient() -> Flow[None]:
        yield Sleep(timedelta(days=3650))

    run = simulate(patient)
    assert timedelta(days=3650) == run.elapsed
    assert ["start", "sleep", "wake", "complete"] == [event.kind for event in run.history]


# ---- fan-out, fan-in


def test_fan_out() -> None:
    """durabletask: Fan-out. Ten activities are scheduled at once, before any of them is awaited."""
    assert [Step(fetch, number) for number in range(10)] == replay(fan, list(range(10))).pending


def test_fan_in() -> None:
    """durabletask: Fan-in. It goes on when all have ended, with the results in the order of their scheduling."""
    run = replay(fan, [1, 2, 3], history=[returned(30, step="fetch#3"), returned(10, step="fetch")])
    assert [Step(fetch, 2)] == run.pending
    run.feed(returned(20))
    assert 60 == run.result


def test_fan_in_failure() -> None:
    """durabletask: Fan-in with a single failure. It fails the orchestration when the others have ended.

    Here: the first failure cancels what has not started; what is under way ends first, as `when_all` has it too.
    """
    run = replay(fan, [1, 2, 3], history=[returned(10), raised(ValueError("two"), step="fetch#2")])
    assert "open" == run.status
    run.feed(returned(30))
    assert run.failure.is_a(ValueError)


def test_fan_in_settled() -> None:
    """durabletask: Failure is deferred. All children end, then each failure can be looked at.

    Here: `All(..., settle=True)` gives values and failures side by side, and cancels nobody.
    """

    @workflow
    def all_of(numbers: list[int]) -> Flow[list[str]]:
        parts = yield All(*(Step(fetch, number) for number in numbers), settle=True)
        return [type(part).__name__ for part in parts]

    run = replay(all_of, [1, 2, 3], history=[raised(ValueError("one")), returned(20), returned(30)])
    assert "int" == run.result[1] == run.result[2] != run.result[0]


def test_when_all_of_nothing() -> None:
    """durabletask: Children that are complete already. `when_all` of them is complete at once."""
    assert 0 == replay(fan, []).result


def test_when_all_with_retry() -> None:
    """durabletask: when_all with retry. Each child is tried again by its own policy while the others go on."""

    @workflow
    def steady(numbers: list[int]) -> Flow[int]:
        policy = RetryPolicy(3, initial=5, jitter=0)
        return sum((yield All(*(Step(fetch, number).options(retry=policy) for number in numbers))))

    run = simulate(steady, [1, 2], fakes={"fetch": [ConnectionError("away"), 10], "fetch#2": 20})
    assert 30 == run.result
    assert 5 == run.elapsed.total_seconds()


def test_when_any() -> None:
    """durabletask: when_any. The first to end decides, by its value or by its failure.

    Here: `Race` also cancels the losers, and is over when they have ended.
    """

    @workflow
    def quickest() -> Flow[list[Any]]:
        return list((yield Race(Step(hello, "Tokyo"), Step(hello, "Seattle"))))

    run = replay(quickest, history=[returned("Hello Seattle", step="hello#2"), cancelled(step="hello")])
    assert [1, "Hello Seattle"] == run.result
    failing = replay(quickest, history=[raised(ValueError("no"), step="hello"), cancelled(step="hello#2")])
    assert failing.failure.is_a(ValueError)


def test_when_any_with_retry() -> None:
    """durabletask: when_any with retry. One that is tried again can lose against one that is slow and sure."""

    @workflow
    def quickest() -> Flow[list[Any]]:
        often = RetryPolicy(3, initial=10, jitter=0)
        return list((yield Race(Step(hello, "Tokyo").options(retry=often), Sleep(5))))

    run = simulate(quickest, fakes={hello: [ConnectionError("away"), "late"]})
    assert [1, None] == run.result


def test_timer_loses() -> None:
    """durabletask: when_any cancels the timer. The event wins, and the timer holds nothing up.

    Here: the timer is over with the race; nobody has to remember to cancel it.
    """

    @workflow
    def approval() -> Flow[str]:
        winner, value = yield Race(approved=Suspend("approval", into=str), late=Sleep(timedelta(hours=72)))
        return f"{winner}: {value}"

    assert "approved: yes" == replay(approval, history=[received("approval", "yes")]).result
    assert "late: None" == replay(approval, history=[fired()]).result
    run = simulate(approval, signals={"approval": (timedelta(hours=1), "yes")})
    assert timedelta(hours=1) == run.elapsed
