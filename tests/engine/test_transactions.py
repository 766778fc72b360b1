"""Transactions of runs: rows and record together, exactly once, whatever comes between."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from stepwell import (
    All,
    Cancelled,
    Engine,
    Flow,
    InvalidInputError,
    LeaseLostError,
    NotFoundError,
    Now,
    Race,
    RetryPolicy,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunPaused,
    RunSuspended,
    Sleep,
    Step,
    StepTimeoutError,
    StoreError,
    StoreUnavailableError,
    Suspend,
    Transaction,
    TransactionError,
    current_step,
    failed,
    step,
    workflow,
)
from stepwell import events as e
from stepwell import lifecycle as lc
from stepwell.store import NotApplied, Unknown
from stepwell.testing import REAL, SimulationError, simulate
from stepwell_stores.sqlite import SqliteStore

from .conftest import Bench, embedded
from .tools import PATIENCE, HandClock, Tally, Task, Wrapped, kinds, steps


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Bench]:
    """An engine's file with a table of the program's own."""
    with closing(sqlite3.connect(tmp_path / "runs.db")) as db:
        db.execute("CREATE TABLE booked (name TEXT, cents INTEGER)")
    made = Bench("sqlite", embedded("sqlite", tmp_path))
    yield made
    made.close()


@pytest.fixture
def booked(tmp_path: Path) -> Callable[[], list[Any]]:
    """What another connection finds."""

    def look() -> list[Any]:
        with closing(sqlite3.connect(tmp_path / "runs.db")) as db:
            return db.execute("SELECT name, cents FROM booked ORDER BY rowid").fetchall()

    return look


def book(db: sqlite3.Connection, name: str, cents: int = 1) -> int:
    db.execute("INSERT INTO booked VALUES (?, ?)", (name, cents))
    total: int = db.execute("SELECT sum(cents) FROM booked").fetchone()[0]
    return total


@workflow
def book_one(name: str) -> Flow[int]:
    return (yield from Transaction(book, name, cents=5))


class Lending(Wrapped):
    """A store around a SQLite store, in whose transactions a test meddles."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.calls = 0
        self.before: Callable[[], object] = lambda: None
        self.after: Callable[[Any], Any] = lambda done: done

    def transact(self, *where: Any, **how: Any) -> Any:
        self.calls += 1
        self.before()
        return self.after(self.inner.transact(*where, **how))


# ---- together


def test_rows_and_record_are_there_together(sqlite: Bench, booked: Any) -> None:
    engine = sqlite.engine()
    assert RunCompleted("r", 5) == engine.start(book_one, "ada", run_id="r")
    assert [("ada", 5)] == booked()
    assert ["start", "step", "complete"] == kinds(engine)
    event = engine.history("r")[1]
    assert isinstance(event, e.Step)
    assert ("0", "book", "book", 1) == (event.at, event.step_id, event.name, event.attempts)
    assert isinstance(event.result, Raw)
    assert (b"5", None) == (bytes(event.result), event.error)
    assert event.inputs is not None
    assert event.started <= event.timestamp


def test_the_rows_are_not_there_before_the_record(sqlite: Bench, booked: Any) -> None:
    other = sqlite.engine()
    seen: list[Any] = []

    def look(db: sqlite3.Connection) -> None:
        book(db, "ada")
        seen.append((booked(), len(other.history("r"))))

    @workflow
    def flow() -> Flow[None]:
        yield from Transaction(look)

    assert RunCompleted("r", None) == sqlite.engine().start(flow, run_id="r")
    assert [([], 1)] == seen


def test_what_was_recorded_is_not_done_again(sqlite: Bench, booked: Any) -> None:
    @workflow
    def flow() -> Flow[int]:
        total = yield from Transaction(book, "ada")
        yield from Suspend("go")
        return total + (yield from Transaction(book, "bob"))

    sqlite.engine().start(flow, run_id="r")
    assert RunCompleted("r", 3) == sqlite.engine(flow).resume("r", "go")
    assert RunCompleted("r", 3) == sqlite.engine().start(flow, run_id="r")
    assert [("ada", 1), ("bob", 1)] == booked()


def test_what_has_no_effect_is_on_disk_before(sqlite: Bench) -> None:
    @workflow
    def flow() -> Flow[None]:
        yield from Now()
        yield from Transaction(book, "ada")

    store = Lending(sqlite.store())
    other = sqlite.engine()
    seen: list[Any] = []
    store.before = lambda: seen.append(kinds(other))
    sqlite.engine(store=store).start(flow, run_id="r")
    assert [["start", "now"]] == seen
    assert ["start", "now", "step", "complete"] == kinds(other)


def test_the_function_knows_its_step_and_has_arguments_of_its_own(sqlite: Bench) -> None:
    contexts: list[Any] = []

    def grow(db: sqlite3.Connection, names: list[str]) -> list[str]:
        context = current_step()
        contexts.append((context.run_id, context.step_id, context.attempt, len(context.idempotency_key)))
        names.append("more")
        if context.attempt == 1:
            raise OSError("once")
        return names

    @workflow
    def flow() -> Flow[list[str]]:
        names = ["ada"]
        grown = yield from Transaction(grow, names).options(retry=RetryPolicy(2, initial=0))
        return names + grown

    assert RunCompleted("r", ["ada", "ada", "more"]) == sqlite.engine().start(flow, run_id="r")
    assert [("r", "grow", 1, 32), ("r", "grow", 2, 32)] == contexts


def test_a_table_may_be_made_in_one(sqlite: Bench) -> None:
    def make(db: sqlite3.Connection) -> None:
        db.execute("CREATE TABLE IF NOT EXISTS accounts (name TEXT PRIMARY KEY, cents INTEGER) STRICT")

    def count(db: sqlite3.Connection) -> int:
        found: int = db.execute("SELECT count(*) FROM accounts").fetchone()[0]
        return found

    @workflow
    def flow() -> Flow[int]:
        yield from Transaction(make)
        return (yield from Transaction(count))

    assert RunCompleted("r", 0) == sqlite.engine().start(flow, run_id="r")


def test_a_listener_hears_of_it_as_of_a_step(sqlite: Bench) -> None:
    heard: list[Any] = []
    engine = sqlite.engine(on_event=heard.append)
    engine.start(book_one, "ada", run_id="r")
    told = [event for event in heard if isinstance(event, (lc.StepStarted, lc.StepCompleted))]
    assert [lc.StepStarted, lc.StepCompleted] == [type(event) for event in told]
    assert [("book", "0")] * 2 == [(event.step_id, event.at) for event in told]


def test_the_store_s_file_is_sound_afterwards(sqlite: Bench) -> None:
    engine = sqlite.engine()
    engine.start(book_one, "ada", run_id="r")
    assert [] == [part.problem for part in sqlite.store().verify() if part.problem]


# ---- failures


class PoorError(Exception):
    """What a function raises."""


def fail(db: sqlite3.Connection, name: str) -> int:
    book(db, name)
    raise PoorError("not enough")


def test_one_that_fails_leaves_no_row_and_a_record(sqlite: Bench, booked: Any) -> None:
    @workflow
    def flow() -> Flow[str]:
        try:
            yield from Transaction(fail, "ada")
        except failed(PoorError) as error:
            yield from Transaction(book, "bob")
            return error.failure.message
        return ""

    engine = sqlite.engine()
    assert RunCompleted("r", "not enough") == engine.start(flow, run_id="r")
    assert [("bob", 1)] == booked()
    assert ["start", "step", "step", "complete"] == kinds(engine)


def test_each_attempt_is_a_transaction_of_its_own(sqlite: Bench, booked: Any) -> None:
    tally = Tally()

    def third_time(db: sqlite3.Connection) -> int:
        book(db, "ada")
        if tally.add("tries") < 3:
            raise PoorError("not yet")
        return tally["tries"]

    @workflow
    def flow() -> Flow[int]:
        return (yield from Transaction(third_time).options(retry=RetryPolicy(5, initial=0)))

    engine = sqlite.engine()
    assert RunCompleted("r", 3) == engine.start(flow, run_id="r")
    assert ["start", "attempt", "attempt", "step", "complete"] == kinds(engine)
    assert [("ada", 1)] == booked()


def test_a_wait_before_the_next_attempt_parks_the_run(sqlite: Bench, booked: Any) -> None:
    tally = Tally()

    def second_time(db: sqlite3.Connection) -> int:
        book(db, "ada")
        if tally.add("tries") < 2:
            raise PoorError("not yet")
        return tally["tries"]

    @workflow
    def flow() -> Flow[int]:
        return (yield from Transaction(second_time).options(retry=RetryPolicy(2, initial=60, jitter=0)))

    clock = HandClock()
    engine = sqlite.engine(flow, clock=clock)
    assert isinstance(engine.start(flow, run_id="r"), RunSuspended)
    assert [] == booked()
    clock.advance(60)
    assert [RunCompleted("r", 2)] == engine.run_due()
    assert [("ada", 1)] == booked()


@pytest.mark.parametrize(
    ("fn", "error", "words"),
    [
        (lambda db: book(db, "x") and db.commit(), TransactionError, "can't commit()"),
        (lambda db: book(db, "x") and db.execute("COMMIT"), TransactionError, "can't COMMIT"),
        (lambda db: book(db, "x") and db.execute("DELETE FROM stepwell_runs"), TransactionError, "stepwell_runs"),
        (
            lambda db: book(db, "x") and db.execute("INSERT INTO nowhere VALUES (1)"),
            sqlite3.OperationalError,
            "no such",
        ),
        (lambda db: book(db, "x") and {1}, "stepwell.errors.CodecError", "no JSON shape"),
        (lambda db: db.cursor(), "stepwell.errors.CodecError", "no JSON shape"),
        (lambda: 1, TypeError, "takes 0 positional arguments"),
    ],
)
def test_mistakes_are_failures_that_are_not_tried_again_for_nothing(
    sqlite: Bench, booked: Any, fn: Any, error: Any, words: str
) -> None:
    @workflow
    def flow() -> Flow[Any]:
        return (yield Transaction(fn).options(name="wrong"))

    outcome = sqlite.engine(retry=RetryPolicy(2, initial=0)).start(flow, run_id="r")
    assert isinstance(outcome, RunFailed)
    assert words in str(outcome.failure)
    assert [] == booked()
    recorded = sqlite.engine().history("r")[-2]
    assert isinstance(recorded, e.Step)
    assert recorded.error is not None
    assert recorded.error.is_a(error)
    assert (1 if error not in (TypeError, sqlite3.OperationalError) else 2) == recorded.attempts


def test_a_result_type_that_can_t_be_read_back_fails_before_the_call(sqlite: Bench) -> None:
    def odd(db: sqlite3.Connection) -> threading.Lock:
        raise AssertionError("this must not be called")

    @workflow
    def flow() -> Flow[Any]:
        return (yield Transaction(odd))

    outcome = sqlite.engine().start(flow, run_id="r")
    assert isinstance(outcome, RunFailed)
    assert "CodecError" in str(outcome.failure)


def test_what_ends_the_process_is_rolled_back_and_never_recorded(sqlite: Bench, booked: Any) -> None:
    tally = Tally()

    def stop_once(db: sqlite3.Connection) -> int:
        book(db, "ada")
        if tally.add("calls") == 1:
            raise KeyboardInterrupt
        return tally["calls"]

    @workflow
    def flow() -> Flow[int]:
        return (yield from Transaction(stop_once))

    engine = sqlite.engine()
    with pytest.raises(KeyboardInterrupt):
        engine.start(flow, run_id="r")
    assert ([], ["start"]) == (booked(), kinds(engine))
    assert RunCompleted("r", 2) == engine.advance("r")
    assert [("ada", 1)] == booked()


def test_a_run_that_failed_of_one_is_retried_from_there(sqlite: Bench, booked: Any) -> None:
    tally = Tally()

    def mended(db: sqlite3.Connection) -> int:
        if tally.add("calls") == 1:
            raise PoorError("no")
        return book(db, "bob")

    @workflow
    def flow() -> Flow[int]:
        yield from Transaction(book, "ada")
        return (yield from Transaction(mended))

    engine = sqlite.engine()
    assert isinstance(engine.start(flow, run_id="r"), RunFailed)
    assert RunCompleted("r", 2) == engine.retry("r")
    assert [("ada", 1), ("bob", 1)] == booked()


def test_a_fork_does_it_once_more_for_its_own(sqlite: Bench, booked: Any) -> None:
    engine = sqlite.engine()
    engine.start(book_one, "ada", run_id="r")
    assert RunCompleted("s", 10) == engine.fork("r", before="book", new_run_id="s")
    assert [("ada", 5), ("ada", 5)] == booked()


# ---- branches


def test_in_branches_they_take_their_turns(sqlite: Bench, booked: Any) -> None:
    threads: list[int] = []

    def noted(db: sqlite3.Connection, name: str) -> int:
        threads.append(threading.get_ident())
        return book(db, name)

    def elsewhere() -> int:
        return threading.get_ident()

    @workflow
    def flow() -> Flow[list[int]]:
        found = yield from All(Transaction(noted, "a"), Step(elsewhere), Transaction(noted, "b"))
        return list(found)

    outcome = sqlite.engine().start(flow, run_id="r")
    first, thread, second = outcome.unwrap()
    assert [1, 2] == [first, second]
    assert {threading.get_ident()} == set(threads)
    assert threading.get_ident() != thread
    assert [("a", 1), ("b", 1)] == booked()


def test_the_first_failure_stops_those_that_have_not_begun(sqlite: Bench, booked: Any) -> None:
    @workflow
    def flow() -> Flow[Any]:
        yield from All(Transaction(fail, "a"), Transaction(book, "b"))

    engine = sqlite.engine()
    assert isinstance(engine.start(flow, run_id="r"), RunFailed)
    assert [] == booked()
    assert ["start", "step", "cancelled", "error"] == kinds(engine)


def test_a_race_may_be_won_by_one(sqlite: Bench, booked: Any) -> None:
    @workflow
    def flow() -> Flow[str]:
        who, _ = yield from Race(booked=Transaction(book, "a"), other=Transaction(book, "b"), late=Sleep(60))
        return str(who)

    assert RunCompleted("r", "booked") == sqlite.engine().start(flow, run_id="r")
    assert [("a", 1)] == booked()


def test_a_branch_with_several_of_them(sqlite: Bench, booked: Any) -> None:
    def twice(name: str) -> Flow[int]:
        yield from Transaction(book, name)
        return (yield from Transaction(book, f"{name}2"))

    @workflow
    def flow() -> Flow[None]:
        yield from All(twice("a"), twice("b"))

    engine = sqlite.engine()
    engine.start(flow, run_id="r").unwrap()
    assert {"a", "a2", "b", "b2"} == {name for name, _ in booked()}
    assert ["book", "book#2", "book#3", "book#4"] == sorted(steps(engine))


# ---- from outside


def test_a_cancel_that_comes_before_has_it_not_done(sqlite: Bench, booked: Any) -> None:
    store = Lending(sqlite.store())
    other = sqlite.engine()
    store.before = lambda: other.cancel("r") if store.calls == 1 else None
    engine = sqlite.engine(store=store)
    assert RunCancelled("r") == engine.start(book_one, "ada", run_id="r")
    assert [] == booked()
    assert ["start", "cancel", "cancelled", "cancelled"] == kinds(engine)


def test_a_cancel_that_comes_while_it_runs_lets_it_end(sqlite: Bench, booked: Any) -> None:
    engine = sqlite.engine()
    tasks: list[Task] = []

    def asked(db: sqlite3.Connection) -> int:
        tasks.append(Task(lambda: sqlite.engine().cancel("r")))
        return book(db, "ada")

    @workflow
    def flow() -> Flow[Any]:
        kept = 0
        try:
            kept = yield from Transaction(asked)
            while True:
                yield from Sleep(0.01)
        except Cancelled:
            yield from Transaction(book, "undone", cents=-kept)
            raise

    outcome = engine.start(flow, run_id="r")
    tasks[0].result()
    assert RunCancelled("r") == (outcome if outcome == RunCancelled("r") else engine.wait("r", timeout=PATIENCE))
    assert [("ada", 1), ("undone", -1)] == booked()


def test_a_signal_that_comes_before_is_taken_in_and_it_is_done_once(sqlite: Bench, booked: Any) -> None:
    @workflow
    def flow() -> Flow[Any]:
        total = yield from Transaction(book, "ada")
        word = yield from Suspend("word", into=str)
        return [total, word]

    store = Lending(sqlite.store())
    other = sqlite.engine(flow)
    store.before = lambda: other.signal("r", "word", "hello") if store.calls == 1 else None
    engine = sqlite.engine(store=store)
    assert RunCompleted("r", [1, "hello"]) == engine.start(flow, run_id="r")
    assert ["start", "resume", "step", "complete"] == kinds(engine)
    assert ([("ada", 1)], 2) == (booked(), store.calls)


def test_a_paused_run_begins_none(sqlite: Bench, booked: Any) -> None:
    store = Lending(sqlite.store())
    other = sqlite.engine()
    store.before = lambda: other.pause("r") if store.calls == 1 else None
    engine = sqlite.engine(store=store)
    assert RunPaused("r") == engine.start(book_one, "ada", run_id="r")
    assert [] == booked()
    assert RunCompleted("r", 5) == sqlite.engine(book_one).unpause("r")


def test_an_owner_that_was_replaced_does_nothing(sqlite: Bench, booked: Any) -> None:
    """Its lease has lapsed, and another session has done the transaction."""
    moved = [0]
    slow = Lending(sqlite.store(clock=lambda: moved[0]))
    fast = sqlite.engine(book_one, store=SqliteStore(sqlite.url.removeprefix("sqlite:///"), clock=lambda: moved[0]))

    def take_over() -> None:
        if slow.calls == 1:
            moved[0] += 3600 * 1_000_000
            assert RunCompleted("r", 5) == fast.advance("r")

    slow.before = take_over
    with pytest.raises(LeaseLostError):
        sqlite.engine(store=slow).start(book_one, "ada", run_id="r")
    assert [("ada", 5)] == booked()


# ---- the store's outcomes


def test_an_outcome_that_is_not_known_is_asked_for_again_and_done_once(sqlite: Bench, booked: Any) -> None:
    store = Lending(sqlite.store())
    store.after = lambda done: Unknown(OSError("cut off")) if store.calls == 1 else done
    engine = sqlite.engine(store=store)
    assert RunCompleted("r", 5) == engine.start(book_one, "ada", run_id="r")
    assert ([("ada", 5)], 2) == (booked(), store.calls)
    assert ["start", "step", "complete"] == kinds(engine)


def test_one_that_was_not_applied_is_done_again(sqlite: Bench, booked: Any) -> None:
    store, tally = Lending(sqlite.store()), Tally()

    def counted(db: sqlite3.Connection, names: list[str]) -> int:
        tally.add("calls")
        names.append("x")
        book(db, "ada")
        if tally["calls"] == 1:
            full = sqlite3.OperationalError("database or disk is full")
            full.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise full
        return len(names)

    @workflow
    def flow() -> Flow[int]:
        return (yield from Transaction(counted, []))

    engine = sqlite.engine(store=store)
    assert RunCompleted("r", 1) == engine.start(flow, run_id="r")
    assert ([("ada", 1)], 2, 2) == (booked(), store.calls, tally["calls"])


@pytest.mark.parametrize("outcome", [NotApplied(OSError("full")), Unknown(OSError("cut off"))])
def test_a_store_that_stays_in_trouble_leaves_the_run_to_the_next_session(
    sqlite: Bench, booked: Any, outcome: Any
) -> None:
    store = Lending(sqlite.store())
    store.after = lambda done: outcome
    clock = HandClock()
    clock.wait = lambda wakeup, seconds: False  # type: ignore[method-assign]
    error = StoreUnavailableError if isinstance(outcome, NotApplied) else StoreError
    with pytest.raises(error):
        sqlite.engine(store=store, clock=clock).start(book_one, "ada", run_id="r")
    assert RunCompleted("r", 5) == sqlite.engine(book_one).advance("r")
    assert [("ada", 5)] == booked()


# ---- where it can't be


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_another_store_refuses_it_before_anything_is_written(kind: str, tmp_path: Path) -> None:
    bench = Bench(kind, embedded(kind, tmp_path))
    engine = bench.engine()
    name = {"memory": "MemoryStore", "file": "JsonlStore"}[kind]
    for start in (engine.start, engine.submit):
        with pytest.raises(InvalidInputError, match=rf"transaction 'book' at 0, and its store \({name}\).*sqlite:///"):
            start(book_one, "ada", run_id="r")
        with pytest.raises(NotFoundError):
            engine.get("r")
    bench.close()


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_another_store_refuses_a_later_one_at_its_yield(kind: str, tmp_path: Path) -> None:
    tally = Tally()

    @workflow
    def flow() -> Flow[Any]:
        yield tally.step("first")
        yield from Now()
        yield from All(tally.step("sibling"), Transaction(book, "ada"))

    bench = Bench(kind, embedded(kind, tmp_path))
    engine = bench.engine()
    with pytest.raises(InvalidInputError, match=r"run 'r' asks for transaction 'book' at 2\.1\.0"):
        engine.start(flow, run_id="r")
    assert ["start", "step"] == kinds(engine)
    assert (1, 0) == (tally["first"], tally["sibling"])
    blocked = engine.get("r").blocked
    assert blocked is not None
    assert "INVALID_INPUT" == blocked.code
    assert [] == engine.run_due()
    bench.close()


# ---- time


@step(timeout=60)
def patient(db: sqlite3.Connection) -> None: ...


def test_more_time_than_a_third_of_the_lease_is_refused(sqlite: Bench) -> None:
    @workflow
    def long(seconds: float) -> Flow[None]:
        yield from Transaction(book, "ada").options(timeout=seconds)

    @workflow
    def by_default() -> Flow[None]:
        yield from Transaction(patient)

    with pytest.raises(InvalidInputError, match=r"timeout=5.1 s, and 5 s is the most: a third of the lease \(30 s\)"):
        sqlite.engine().start(long, 5.1, run_id="r")
    with pytest.raises(InvalidInputError, match=r"transaction 'patient' at 0 with timeout=60 s"):
        sqlite.engine().start(by_default, run_id="r")
    with pytest.raises(InvalidInputError, match=r"timeout=2 s, and 1 s is the most"):
        sqlite.engine(lease=3).start(long, 2.0, run_id="r")
    with pytest.raises(NotFoundError):
        sqlite.engine().get("r")
    sqlite.engine(lease=6).start(long, 2.0, run_id="r").unwrap()


def endless(db: sqlite3.Connection) -> int:
    book(db, "ada")
    db.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n").fetchone()
    return 1


@pytest.mark.parametrize("how", ["timeout", "lease"])
def test_one_that_takes_too_long_is_interrupted_and_its_failure_recorded(sqlite: Bench, booked: Any, how: str) -> None:
    @workflow
    def flow() -> Flow[str]:
        command = Transaction(endless)
        if how == "timeout":
            command = command.options(timeout=timedelta(milliseconds=50))
        try:
            yield from command.options(retry=RetryPolicy(2, initial=0))
        except failed(StepTimeoutError) as error:
            return error.failure.message
        return ""

    engine = sqlite.engine(lease=0.6 if how == "lease" else 30)
    limit = "0.2" if how == "lease" else "0.05"
    assert f"transaction 'endless' took longer than {limit} s; it is undone" == engine.start(flow, run_id="r").unwrap()
    assert ["start", "attempt", "step", "complete"] == kinds(engine)
    assert [] == booked()


# ---- others


def test_the_engine_can_t_be_used_to_write_from_inside(sqlite: Bench) -> None:
    engine = sqlite.engine()

    def inside(db: sqlite3.Connection) -> str:
        assert 1 == len(engine.history("r"))
        engine.start(book_one, "ada", run_id="inner")
        return ""

    @workflow
    def flow() -> Flow[str]:
        return (yield from Transaction(inside))

    outcome = engine.start(flow, run_id="r")
    assert isinstance(outcome, RunFailed)
    assert "can't write to the store by other ways than its connection" in str(outcome.failure)
    with pytest.raises(NotFoundError):
        engine.get("inner")


def test_many_threads_with_many_runs_lose_nothing(sqlite: Bench, booked: Any) -> None:
    def add(db: sqlite3.Connection, name: str) -> int:
        (total,) = db.execute("SELECT coalesce(max(cents), 0) FROM booked").fetchone()
        db.execute("INSERT INTO booked VALUES (?, ?)", (name, total + 1))
        return int(total)

    @workflow
    def flow(name: str) -> Flow[None]:
        yield from Step(len, name).options(into=int)
        yield from Transaction(add, name)

    engine = sqlite.engine()

    def drive(thread: int) -> None:
        for n in range(6):
            engine.start(flow, f"{thread}-{n}", run_id=f"{thread}-{n}").unwrap()

    for task in [Task(lambda n=n: drive(n)) for n in range(4)]:  # type: ignore[misc]
        task.result()
    assert list(range(1, 25)) == [cents for _, cents in booked()]
    assert 24 == len({name for name, _ in booked()})


KILLED = """
import os, sqlite3, sys
from stepwell import Engine, Flow, Transaction, workflow

def book(db: sqlite3.Connection, name: str) -> int:
    db.execute("INSERT INTO booked VALUES (?, 5)", (name,))
    if sys.argv[2] == "inside":
        print("now", flush=True)
        sys.stdin.read()
    return 5

@workflow(name="book_one")
def flow(name: str) -> Flow[int]:
    return (yield from Transaction(book, name))

engine = Engine(f"sqlite:///{sys.argv[1]}/runs.db", [flow])
if sys.argv[2] == "after":
    store = engine._parts.store
    real = store.transact
    def transact(*where, **how):
        done = real(*where, **how)
        print("now", flush=True)
        sys.stdin.read()
        return done
    store.transact = transact
engine.start(flow, "ada", run_id="r")
"""


@pytest.mark.parametrize("when", ["inside", "after"])
def test_a_process_that_is_killed_around_the_commit(
    sqlite: Bench, booked: Any, python: Any, tmp_path: Path, when: str
) -> None:
    process = python(KILLED, str(tmp_path), when)
    assert "now\n" == process.stdout.readline()
    process.kill()
    process.wait()
    there = ([("ada", 5)], ["start", "step"]) if when == "after" else ([], ["start"])
    assert there == (booked(), kinds(sqlite.engine()))
    assert [RunCompleted("r", 5)] == sqlite.engine(book_one).run_due()
    assert [("ada", 5)] == booked()
    assert [] == [part.problem for part in sqlite.store().verify() if part.problem]


def test_a_simulation_never_opens_a_database() -> None:
    assert 7 == simulate(book_one, "ada", fakes={book: 7}).result
    with pytest.raises(SimulationError, match="can't be REAL"):
        simulate(book_one, "ada", fakes={book: REAL})


def test_an_engine_of_a_forked_child_does_transactions(sqlite: Bench, booked: Any) -> None:
    engine: Engine = sqlite.engine()
    engine.start(book_one, "ada", run_id="r")
    pid = os.fork()
    if not pid:
        os._exit(0 if engine.start(book_one, "bob", run_id="s") == RunCompleted("s", 10) else 1)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert [("ada", 5), ("bob", 5)] == booked()
