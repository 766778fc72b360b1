"""Transaction: the command whose rows and record are committed together."""

from __future__ import annotations

import sqlite3
import warnings
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from stepwell import (
    All,
    DivergenceError,
    Flow,
    InvalidInputError,
    Race,
    RetryPolicy,
    Step,
    StepFailed,
    StepwellWarning,
    Suspend,
    Transaction,
    failed,
    step,
    workflow,
)
from stepwell.command import Command
from stepwell.commands import StepOptions
from stepwell.testing import REAL, SimulationError, cancel, cancelled, raised, received, replay, returned, simulate

from ..unit.tools import check_replay, did, fold, task


def book(db: sqlite3.Connection, account: str, cents: int = 1) -> tuple[str, int]:
    raise AssertionError("a fake history performs nothing")


@step(name="audit", retry=RetryPolicy(3), timeout=2, at_most_once=True, heartbeat_timeout=1, process=True)
def note(db: sqlite3.Connection, text: str) -> None: ...


async def later(db: sqlite3.Connection) -> None: ...


def stream(db: sqlite3.Connection) -> Any:
    yield 1


AnyTransaction: Any = Transaction
AnyStep: Any = Step
"""For what a type checker would find."""


@workflow
def booking() -> Flow[Any]:
    return (yield Transaction(book, "ada"))


@workflow
def one() -> Flow[tuple[str, int]]:
    return (yield from Transaction(book, "ada", cents=5))


def test_the_recorded_result_is_what_the_yield_gives() -> None:
    run = replay(one, history=[returned(("ada", 5))])
    assert ("ada", 5) == run.result
    assert [("0", Transaction(book, "ada", cents=5))] == run.commands
    check_replay(run)


@pytest.mark.parametrize("form", ["yield", "yield from"])
def test_both_forms_of_yield_give_the_same(form: str) -> None:
    @workflow
    def flow() -> Flow[tuple[str, int]]:
        command = Transaction(book, "ada")
        if form == "yield":
            gave: tuple[str, int] = yield command
            return gave
        return (yield from command)

    assert ("ada", 1) == replay(flow, history=[returned(("ada", 1))]).result


def test_it_is_compared_by_what_it_asks_for() -> None:
    command = Transaction(book, "ada", cents=5)
    assert command == Transaction(book, "ada", cents=5)
    assert command == Transaction(book, "ada", cents=5).options(name="other", timeout=1)
    assert command != Transaction(book, "bob", cents=5)
    assert command != AnyStep(book, "ada", cents=5)
    assert hash(command) == hash(Transaction(book, "ada", cents=5))
    assert repr(command).startswith("Transaction(fn=<function book")
    assert ("transaction", "book") == (command.kind, command.label)


def test_a_failure_is_thrown_as_a_step_s() -> None:
    class PoorError(Exception):
        pass

    @workflow
    def flow() -> Flow[str]:
        try:
            yield Transaction(book, "ada")
        except failed(PoorError) as error:
            return f"{error.step_id}: {error.failure.message}"
        return "paid"

    assert "book: 3 short" == replay(flow, history=[raised(PoorError("3 short"))]).result


def test_it_is_recorded_as_a_step_and_shares_its_names() -> None:
    @workflow
    def flow() -> Flow[None]:
        yield Transaction(book, "ada")
        yield Transaction(book, "bob")
        yield task("book")

    events = [did(str(n), "book", ["a", 1], step_id=f"book#{n + 1}" if n else "book") for n in range(3)]
    run = fold(flow, *events)
    assert ["0 book", "1 book", "2 book"] == run.asked
    assert "complete" == run.machine.status


def test_another_name_diverges_and_says_transaction() -> None:
    with pytest.raises(DivergenceError, match=r"recorded is step 'charge'.* yielded transaction 'book' there"):
        fold(booking, did("0", "charge"))


def test_options_replace_what_the_function_s_own_say() -> None:
    assert StepOptions(name="audit", retry=RetryPolicy(3), timeout=2.0) == Transaction(note, "x").given
    command = Transaction(note, "x").options(name="n", retry=RetryPolicy(1), timeout=timedelta(seconds=1), into=str)
    assert StepOptions("n", RetryPolicy(1), 1.0, None, str) == command.given
    assert "n" == command.name
    assert isinstance(command, Transaction)
    with pytest.raises(TypeError, match="at_most_once"):
        AnyTransaction(note, "x").options(at_most_once=True)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: AnyTransaction(3),
            r"Transaction needs a function.*, got 3; write Transaction\(f, x\)",
        ),
        (lambda: AnyTransaction(later), "Transaction can't await the async function 'later'"),
        (lambda: AnyTransaction(partial(later)), "Transaction can't await the async function 'later'"),
        (lambda: AnyTransaction(stream), "Transaction can't call the generator function 'stream'"),
        (lambda: AnyTransaction(one), "Transaction can't call the generator function 'one'"),
        (lambda: AnyTransaction(book).options(timeout=0), "timeout must be more than 0"),
        (lambda: AnyTransaction(book).options(timeout="1"), "timeout must be a timedelta or a number"),
        (lambda: AnyTransaction(book).options(retry=3), "must be a RetryPolicy"),
        (lambda: AnyTransaction(book).options(name="a#2"), "can't hold '#'"),
    ],
)
def test_what_can_t_be_one_is_refused(make: Any, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        make()


def test_a_lambda_needs_a_name() -> None:
    @workflow
    def flow() -> Flow[Any]:
        return (yield Transaction(lambda db: 1))

    with pytest.raises(InvalidInputError, match="a lambda has no name"):
        replay(flow)


def test_one_that_is_never_yielded_warns() -> None:
    @workflow
    def flow() -> Flow[int]:
        Transaction(book, "ada").options(name="b")
        return 1
        yield  # pragma: no cover

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert 1 == replay(flow).result
    assert [StepwellWarning] == [w.category for w in caught]
    assert "Transaction(b)" in str(caught[0].message)


def test_branches_answer_in_any_order() -> None:
    @workflow
    def flow() -> Flow[list[str]]:
        both = yield from All(Transaction(book, "ada"), Transaction(book, "bob"))
        return [f"{name} {cents}" for name, cents in both]

    answers = [returned(("b", 2), step="book#2"), returned(("a", 1), at="0.0.0")]
    assert ["a 1", "b 2"] == replay(flow, history=answers).result


def test_one_that_is_cancelled_before_it_ran_is_answered_so() -> None:
    @workflow
    def flow() -> Flow[str]:
        who, _ = yield from Race(asked=Suspend("stop"), booked=Transaction(book, "ada"))
        return str(who)

    run = replay(flow, history=[received("stop"), cancelled(step="book")])
    assert "asked" == run.result
    assert "cancelled" == replay(one, history=[cancel(), cancelled()]).status


# ---- simulate


def test_a_simulation_answers_with_a_fake_and_takes_no_connection() -> None:
    for fakes in (
        {book: ("ada", 5)},
        {"book": ("ada", 5)},
        {book: lambda account, cents: (account, cents)},
        {book: [OSError("once"), ("ada", 5)]},
    ):
        run = simulate(one, fakes=fakes, retry=RetryPolicy(2), crash_after="every")
        assert ("ada", 5) == run.result
        assert (("ada",), {"cents": 5}) == (run.calls[0].args, run.calls[0].kwargs)


def test_a_simulation_without_a_fake_says_what_to_do() -> None:
    with pytest.raises(SimulationError, match=r"no fake for transaction 'book'.*give fakes="):
        simulate(one)
    with pytest.raises(SimulationError, match=r"transaction 'book' can't be REAL.*lambda \*args: book"):
        simulate(one, fakes={book: REAL})


def test_a_simulation_may_use_a_database_of_the_test() -> None:
    def pay_in(db: sqlite3.Connection, cents: int) -> int:
        db.execute("INSERT INTO booked VALUES (?)", (cents,))
        total: int = db.execute("SELECT sum(cents) FROM booked").fetchone()[0]
        return total

    @workflow
    def flow() -> Flow[int]:
        yield from Transaction(pay_in, 5)
        return (yield from Transaction(pay_in, 7))

    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE booked (cents)")
    assert 12 == simulate(flow, fakes={pay_in: lambda *args: pay_in(db, *args)}).result
    db.close()


def test_a_failure_that_nobody_catches_fails_the_run() -> None:
    run = simulate(one, fakes={book: raised(ValueError("no"))})
    assert run.failure.is_a(StepFailed)


def test_it_is_a_command_and_a_step() -> None:
    """So whatever takes a step takes it: answers by step id, retries of runs, forks."""
    assert issubclass(Transaction, Step)
    assert issubclass(Transaction, Command)
