"""`replay`: a workflow answered from a fake history, whatever it yields, and what a wrong answer says."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from attrs import frozen

from stepwell import (
    All,
    BudgetExceededError,
    Child,
    ChildFailed,
    ContinueAsNew,
    DivergenceError,
    Emit,
    Engine,
    Flow,
    InvalidInputError,
    Now,
    Patched,
    Race,
    Random,
    SetState,
    Signal,
    Sleep,
    Spend,
    Step,
    Suspend,
    TimedOut,
    Uuid,
    workflow,
)
from stepwell.testing import (
    REAL,
    WrongAnswerError,
    cancel,
    cancelled,
    fired,
    patched,
    pause,
    prefixes,
    raised,
    received,
    replay,
    returned,
    simulate,
    unpause,
)


@frozen
class Item:
    name: str
    price: int


paid = Signal("paid", str)


def look_up(name: str) -> Item:
    return Item(name, len(name))


def ship(name: str) -> str:
    return f"shipped {name}"


def undo(name: str) -> None: ...


@workflow
def delivery(name: str) -> Flow[str]:
    return (yield from Step(ship, name))


@workflow
def order(names: list[str]) -> Flow[list[str]]:
    """Looks things up in branches, spends, says where it is, waits for money, and has children deliver."""
    items = yield from All(*(Step(look_up, name) for name in names))
    for item in items:
        yield Spend(item.price, item.name)
    yield SetState(items=len(items))
    yield Emit("priced", topic="state")
    try:
        reference = yield from Suspend(paid, timeout=timedelta(days=3))
    except TimedOut:
        return ["never paid"]
    yield SetState(paid=reference)
    yield Emit("paid", topic="state")
    shipped = yield from All(*(Child(delivery, item.name) for item in items))
    return list(shipped)


NAMES = ["tea", "milk"]
PRICED = [returned(Item("tea", 3)), returned(Item("milk", 4))]


@pytest.fixture
def recorded() -> Iterator[list[Any]]:
    """What an engine has recorded of an order."""
    with Engine("memory:", workflows=[order, delivery]) as engine:
        engine.start(order, NAMES, run_id="o")
        engine.resume("o", paid, "bank 7").unwrap()
        yield engine.history("o")


# ---- answers and their addresses


def test_an_answer_is_for_the_oldest_command_that_takes_it() -> None:
    run = replay(order, NAMES, history=PRICED)
    assert Suspend(paid) == run.next


@pytest.mark.parametrize(
    "history",
    [
        [returned(Item("milk", 4), step="look_up#2"), returned(Item("tea", 3), step="look_up")],
        [returned(Item("milk", 4), at="0.1.0"), returned(Item("tea", 3), at="0.0.0")],
        [returned(Item("milk", 4), at="0.1.0"), returned(Item("tea", 3))],
    ],
)
def test_an_answer_is_addressed_by_step_id_or_path(history: list[Any]) -> None:
    run = replay(order, NAMES, history=[*history[:1]])
    assert [Step(look_up, "tea")] == run.pending
    run.feed(history[1])
    assert {"items": 2} == run.state


@pytest.mark.parametrize(
    ("answer", "where"),
    [(returned(1, step="look_up#3"), " of 'look_up#3'"), (raised(OSError(), at="7"), " at '7'"), (fired(), "")],
)
def test_an_address_that_nothing_waits_at_is_a_wrong_answer(answer: Any, where: str) -> None:
    with pytest.raises(WrongAnswerError, match=re.escape(f"nothing pending takes this answer{where}\n")):
        replay(order, NAMES, history=[answer])


def test_values_of_the_engine_are_answered() -> None:
    @workflow
    def draws() -> Flow[list[str]]:
        now = yield from Now()
        chance = yield from Random()
        name = yield from Uuid()
        yield Sleep(5)
        return [now.isoformat(), str(chance), str(name)]

    noon, name = datetime(2026, 5, 1, 12, tzinfo=UTC), UUID("12345678-1234-4234-8234-123456789012")
    run = replay(draws, history=[returned(noon), returned(0.5), returned(name), fired()])
    assert ["2026-05-01T12:00:00+00:00", "0.5", str(name)] == run.result


def test_a_run_can_be_paused_cancelled_and_patched() -> None:
    @workflow
    def patient() -> Flow[str]:
        new = yield from Patched("faster")
        yield from Suspend(paid)
        return "new" if new else "old"

    run = replay(patient, history=[patched(), pause()])
    assert run.machine.paused
    run.feed(unpause())
    assert not run.machine.paused
    run.feed(cancel("enough"))
    assert "cancelled" == run.status


# ---- branches, queries, emitted values, spent budget


def test_branches_are_answered_in_any_order() -> None:
    @workflow
    def race() -> Flow[str]:
        name, value = yield from Race(quick=Step(ship, "a"), slow=_slow())
        return f"{name}: {value}"

    def _slow() -> Flow[str]:
        yield Sleep(9)
        return (yield from Step(ship, "b"))

    run = replay(race)
    assert [Step(ship, "a"), Sleep(9)] == run.pending
    run.feed(fired())
    run.feed(returned("late", step="ship#2"))
    assert "open" == run.status, "the loser is in flight"
    run.feed(cancelled(step="ship"))
    assert "slow: late" == run.result


def test_state_emitted_values_and_what_was_spent_can_be_asked_at_any_time() -> None:
    run = replay(order, NAMES, history=PRICED, budget=10)
    assert ({"items": 2}, ["priced"], 7) == (run.state, run.emitted, run.spent)
    run.feed(received(paid, "bank 7"))
    assert ({"items": 2, "paid": "bank 7"}, ["priced", "paid"]) == (run.state, run.emitted)


def test_a_budget_that_is_passed_fails_the_run() -> None:
    run = replay(order, NAMES, history=PRICED, budget=5)
    assert isinstance(run.error, BudgetExceededError)
    assert 7 == run.spent


# ---- children


def test_children_are_answered_with_their_result() -> None:
    run = replay(order, NAMES, history=[*PRICED, received(paid, "x")])
    assert [Child(delivery, "tea"), Child(delivery, "milk")] == run.pending
    run.feed(returned("second", at="6.1.0"))
    run.feed(returned("first", step="delivery"))
    assert ["first", "second"] == run.result


def test_a_child_that_fails_is_thrown_into_its_parent() -> None:
    run = replay(order, NAMES, history=[*PRICED, received(paid, "x"), raised(OSError("no van")), returned("second")])
    assert isinstance(run.error, ChildFailed)
    assert run.failure.is_a(OSError)


def test_a_child_is_cancelled_with_its_parent() -> None:
    run = replay(order, NAMES, history=[*PRICED, received(paid, "x"), cancel(), cancelled(step="delivery")])
    assert "open" == run.status
    run.feed(returned("arrived all the same"))
    assert "cancelled" == run.status


def test_a_child_that_is_not_waited_for_gives_its_run_id() -> None:
    @workflow
    def starts() -> Flow[str]:
        return (yield from Child(delivery, "tea").options(detached=True, run_id="d-1"))

    assert "d-1" == replay(starts, history=[returned()]).result


def test_a_childs_result_has_to_fit_its_type() -> None:
    with pytest.raises(WrongAnswerError, match="the value could not be recorded"):
        replay(order, NAMES, history=[*PRICED, received(paid, "x"), returned(7)])


def test_a_run_that_goes_on_as_new_shows_its_next_arguments() -> None:
    @workflow
    def counts(n: int) -> Flow[int]:
        yield Sleep(1)
        yield ContinueAsNew(n + 1)
        return n

    run = replay(counts, 4, history=[fired()])
    assert ("continue", (5,)) == (run.status, run.continued)


# ---- recorded histories


def test_a_recorded_history_is_replayed_whole(recorded: list[Any]) -> None:
    run = replay(order, NAMES, history=recorded)
    assert ["shipped tea", "shipped milk"] == run.result
    assert (["priced", "paid"], 7) == (run.emitted, run.spent)
    assert recorded[1:] == run.events[1:]


def test_every_prefix_of_a_recorded_history_is_a_state_of_the_run(recorded: list[Any]) -> None:
    """Nothing that was said before is taken back, and only the whole has ended."""
    runs = [replay(order, NAMES, history=part) for part in prefixes(recorded)]
    assert len(recorded) == len(runs)
    for before, after in pairwise(runs):
        assert before.commands == after.commands[: len(before.commands)]
        assert before.emitted == after.emitted[: len(before.emitted)]
        assert before.spent <= after.spent
    assert ["open", "complete"] == sorted({run.status for run in runs}, reverse=True)
    for run in runs:
        run.close()


def test_a_recorded_prefix_goes_on_with_answers_of_the_tests(recorded: list[Any]) -> None:
    """What it had not recorded yet of emitted values and charges is answered by itself."""
    for part in prefixes(recorded):
        if len(part) < 3 or any(event.kind == "resume" for event in part):
            continue
        run = replay(order, NAMES, history=[*part, received(paid, "bank 9")])
        assert ("bank 9", 7) == (run.state["paid"], run.spent)
        run.feed(returned("one"))
        run.feed(returned("two"))
        assert ["one", "two"] == run.result


def test_a_recorded_history_of_other_code_diverges(recorded: list[Any]) -> None:
    @workflow(name="order")
    def changed(names: list[str]) -> Flow[None]:
        yield Step(undo, names[0])

    with pytest.raises(DivergenceError, match="recorded is step 'look_up'"):
        replay(changed, NAMES, history=recorded)


def test_a_simulated_history_is_a_recorded_one() -> None:
    run = simulate(delivery, "tea", fakes={ship: REAL})
    assert "shipped tea" == replay(delivery, "tea", history=run.history).result


# ---- wrong answers


def line_of_text(text: str) -> int:
    """The line of this file that holds a text of the workflow `order`."""
    lines, first = inspect.getsourcelines(order.fn)
    return first + next(n for n, line in enumerate(lines) if text in line)


def test_a_wrong_answer_says_what_was_given_and_what_was_expected_and_where() -> None:
    with pytest.raises(WrongAnswerError) as caught:
        replay(order, NAMES, history=[*PRICED, returned("x")])
    here = f"test_replay.py:{line_of_text('Suspend(paid')}, in order"
    assert [
        "answer 3, returned('x'): nothing pending takes this answer",
        "commands so far:",
        "  0        all",
        "  0.0.0    step 'look_up'",
        "  0.1.0    step 'look_up'",
        "  1        spend 'tea'",
        "  2        spend 'milk'",
        "  3        emit 'state'",
        "  4        suspend 'paid'",
        "now it waits for suspend 'paid' at 4",
        "expected next, any of",
        f"  suspend 'paid' at 4, {here}: received('paid', ...) or fired()",
    ] == str(caught.value).splitlines()


def test_a_branch_by_itself_stands_at_the_line_of_its_group() -> None:
    with pytest.raises(WrongAnswerError) as caught:
        replay(order, NAMES, history=[fired()])
    here = f"test_replay.py:{line_of_text('All(*(Step(')}, in order"
    assert f"  step 'look_up#2' at 0.1.0, {here}: returned(...) or raised(...)" in str(caught.value)


def test_an_answer_too_many_says_how_the_workflow_has_ended() -> None:
    with pytest.raises(WrongAnswerError, match=re.escape("now it has ended (complete)")) as caught:
        replay(delivery, "tea", history=[returned("x"), returned("y")])
    assert "expected next" not in str(caught.value)


def test_a_wrong_answer_to_a_patch_says_so() -> None:
    @workflow
    def asks() -> Flow[bool]:
        return (yield from Patched("faster"))

    with pytest.raises(WrongAnswerError, match=re.escape("Patched('faster'): patched(), or what an old run")):
        replay(asks, history=[fired()])


@pytest.mark.parametrize("asked", ["result", "failure"])
def test_a_run_that_is_not_over_says_what_it_waits_for(asked: str) -> None:
    with pytest.raises(AssertionError, match="it waits for step 'ship' at 0"):
        getattr(replay(delivery, "tea"), asked)


@workflow
def sleeps(seconds: int) -> Flow[None]:
    yield Sleep(seconds)


@pytest.mark.parametrize(
    ("wrong", "told"), [([5], "got 5"), (returned(5), "takes a list of answers"), (5, "takes a list of answers")]
)
def test_what_is_no_history_is_refused(wrong: Any, told: str) -> None:
    with pytest.raises(InvalidInputError, match=told):
        replay(sleeps, 5, history=wrong)
