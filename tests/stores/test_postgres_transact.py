"""Transactions of a program's own rows in a Postgres database: together with the record, or not at all."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool
from tests.servers.postgres import Postgres

from stepwell import (
    All,
    Engine,
    Flow,
    RetryPolicy,
    RunCompleted,
    RunFailed,
    StepTimeoutError,
    StoreError,
    Suspend,
    Transaction,
    TransactionError,
    failed,
    workflow,
)
from stepwell.store import AlreadyCommitted, Committed, Conflict, Fenced, Lease, NotApplied
from stepwell.testing.contract import a_record
from stepwell_stores.postgres import PostgresStore
from stepwell_stores.postgres.guest import refusal_of

PATIENCE = 60


@pytest.fixture
def db(postgres_server: Postgres, database: str) -> Iterator[Any]:
    """The test's own connection, and a table of the program's."""
    with postgres_server.connect(database.rsplit("/", 1)[1]) as made:
        made.execute("CREATE TABLE booked (id serial, name text UNIQUE DEFERRABLE INITIALLY DEFERRED, cents int)")
        yield made


@pytest.fixture
def store(database: str, db: Any) -> Iterator[PostgresStore]:
    made = PostgresStore(database)
    yield made
    made.close()


@pytest.fixture
def booked(db: Any) -> Callable[[], list[Any]]:
    return lambda: db.execute("SELECT name, cents FROM booked ORDER BY id").fetchall()


@pytest.fixture
def engine(store: PostgresStore) -> Iterator[Engine]:
    with Engine(store, [book_one]) as made:
        yield made


def book(connection: psycopg.Connection[Any], name: str, cents: int = 1) -> int:
    connection.execute("INSERT INTO booked (name, cents) VALUES (%s, %s)", (name, cents))
    row = connection.execute("SELECT sum(cents) FROM booked").fetchone()
    assert row is not None
    return int(row[0])


@workflow
def book_one(name: str) -> Flow[int]:
    return (yield from Transaction(book, name, cents=5))


def transact(store: PostgresStore, lease: Lease, work: Callable[[Any], Any], seq: int = 1, **options: Any) -> Any:
    def recorded(connection: Any) -> Any:
        work(connection)
        return [a_record("t")]

    given = {"attempt_id": "t", "fence": lease.fence, "seconds": 5.0, **options}
    return store.transact("r", 0, seq, recorded, **given)


# ---- with an engine


def test_rows_and_record_are_there_together(engine: Engine, booked: Any) -> None:
    assert RunCompleted("r", 5) == engine.start(book_one, "ada", run_id="r")
    assert [("ada", 5)] == booked()
    assert ["start", "step", "complete"] == [event.kind for event in engine.history("r")]


def test_what_was_recorded_is_not_done_again(store: PostgresStore, booked: Any) -> None:
    @workflow
    def flow() -> Flow[int]:
        total = yield from Transaction(book, "ada")
        yield from Suspend("go")
        return total + (yield from Transaction(book, "bob"))

    with Engine(store, [flow]) as engine:
        engine.start(flow, run_id="r")
        assert RunCompleted("r", 3) == engine.resume("r", "go")
    assert [("ada", 1), ("bob", 1)] == booked()


class PoorError(Exception):
    """What a function raises."""


def test_one_that_fails_leaves_no_row_and_each_attempt_is_one_of_its_own(store: PostgresStore, booked: Any) -> None:
    tries: list[int] = []

    def third(connection: Any) -> int:
        book(connection, "ada")
        tries.append(1)
        if len(tries) < 3:
            raise PoorError("not yet")
        return len(tries)

    def never(connection: Any) -> int:
        book(connection, "eve")
        raise PoorError("no")

    @workflow
    def flow() -> Flow[str]:
        yield from Transaction(third).options(retry=RetryPolicy(5, initial=0))
        try:
            yield from Transaction(never)
        except failed(PoorError) as error:
            return error.failure.message
        return ""

    with Engine(store, [flow]) as engine:
        assert RunCompleted("r", "no") == engine.start(flow, run_id="r")
        kinds = [event.kind for event in engine.history("r")]
    assert ["start", "attempt", "attempt", "step", "step", "complete"] == kinds
    assert [("ada", 1)] == booked()


def test_what_the_database_says_of_the_rows_fails_the_step(store: PostgresStore, booked: Any) -> None:
    """At the statement, and at the commit: a constraint that was deferred."""

    @workflow
    def flow(statement: str) -> Flow[Any]:
        yield from Transaction(lambda db: book(db, "ada")).options(name="first")
        yield Transaction(lambda db: db.execute(statement) and None).options(name="second")

    with Engine(store, [flow]) as engine:
        for number, (statement, kind) in enumerate(
            [
                ("INSERT INTO nowhere VALUES (1)", psycopg.errors.UndefinedTable),
                ("INSERT INTO booked (name) VALUES ('ada')", psycopg.errors.UniqueViolation),
            ]
        ):
            outcome = engine.start(flow, statement, run_id=f"r{number}") if not number else None
            if outcome is None:
                outcome = engine.start(flow, statement.replace("'ada'", "'twin'), ('twin'"), run_id="r1")
            assert isinstance(outcome, RunFailed)
            assert f"psycopg.errors.{kind.__name__}" in outcome.failure.types or number
    assert ("ada", 1) in booked()
    assert "twin" not in {name for name, _ in booked()}


def endless(connection: Any) -> int:
    book(connection, "ada")
    connection.execute("SELECT pg_sleep(60)")
    return 1


def patient(connection: Any) -> int:
    book(connection, "ada")
    threading.Event().wait(0.3)
    return 1


@pytest.mark.parametrize("slow", [endless, patient])
def test_one_that_takes_too_long_is_undone(store: PostgresStore, booked: Any, slow: Any) -> None:
    @workflow
    def flow() -> Flow[str]:
        try:
            yield from Transaction(slow).options(timeout=0.2)
        except failed(StepTimeoutError) as error:
            return error.failure.message
        return ""

    with Engine(store, [flow]) as engine:
        said = engine.start(flow, run_id="r").unwrap()
    assert f"transaction {slow.__name__!r} took longer than 0.2 s; it is undone" == said
    assert [] == booked()


def test_the_engine_can_not_be_used_to_write_from_inside(engine: Engine) -> None:
    def inside(connection: Any) -> str:
        assert 1 == len(engine.history("r"))
        engine.start(book_one, "ada", run_id="inner")
        return ""

    @workflow
    def flow() -> Flow[str]:
        return (yield from Transaction(inside))

    outcome = engine.start(flow, run_id="r")
    assert isinstance(outcome, RunFailed)
    assert "can't write to the store by other ways than its connection" in str(outcome.failure)


def test_in_branches_and_threads_nothing_is_lost(store: PostgresStore, booked: Any) -> None:
    @workflow
    def flow(name: str) -> Flow[None]:
        yield from All(Transaction(book, f"{name}a"), Transaction(book, f"{name}b"))

    with Engine(store, [flow]) as engine:

        def drive(number: int) -> None:
            for n in range(3):
                engine.start(flow, f"{number}-{n}", run_id=f"{number}-{n}").unwrap()

        threads = [threading.Thread(target=drive, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    assert 18 == len({name for name, _ in booked()})


# ---- positions and outcomes


def test_the_position_is_looked_at_before(store: PostgresStore, create: Any, booked: Any) -> None:
    lease, calls = create(store), list[int]()

    def work(connection: Any) -> None:
        calls.append(book(connection, f"n{len(calls)}"))

    assert Conflict(1, 0) == transact(store, lease, work, seq=2)
    assert Fenced(lease.fence) == transact(store, lease, work, fence=lease.fence + 1)
    assert Committed(1, 0) == transact(store, lease, work)
    assert AlreadyCommitted(1, 0) == transact(store, lease, work)
    assert Conflict(2, 0) == transact(store, lease, work, attempt_id="other")
    assert ([1], [("n0", 1)]) == (calls, booked())


def test_a_connection_that_dies_inside_is_not_the_functions_failure(
    store: PostgresStore, create: Any, db: Any, booked: Any
) -> None:
    lease = create(store)

    def work(connection: Any) -> None:
        book(connection, "ada")
        db.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
        try:
            connection.execute("SELECT 1")
        except psycopg.Error as error:
            raise PoorError("wrapped, as an ORM does it") from error

    outcome = transact(store, lease, work)
    assert isinstance(outcome, NotApplied)
    assert Committed(1, 0) == transact(store, lease, lambda connection: book(connection, "bob"))
    assert [("bob", 1)] == booked()


def test_others_write_their_runs_meanwhile(store: PostgresStore, create: Any) -> None:
    lease, other = create(store), create(store, "s")
    begun, go = threading.Event(), threading.Event()
    done: list[Any] = []

    def work(connection: Any) -> None:
        begun.set()
        go.wait(PATIENCE)

    thread = threading.Thread(target=lambda: done.append(transact(store, lease, work)))
    thread.start()
    assert begun.wait(PATIENCE)
    assert Committed(1, 0) == store.append("s", 0, 1, [a_record()], attempt_id="own", fence=other.fence)
    assert store.head("r") is not None
    go.set()
    thread.join(PATIENCE)
    assert [Committed(1, 0)] == done


# ---- what it may not do


FORBIDDEN: list[Callable[[Any], object]] = [
    lambda db: db.commit(),
    lambda db: db.rollback(),
    lambda db: db.close(),
    lambda db: db.execute("COMMIT"),
    lambda db: db.execute("  -- a word\n commit "),
    lambda db: db.execute("SELECT 1; COMMIT"),
    lambda db: db.execute(b"ROLLBACK"),
    lambda db: db.execute(sql.SQL("ROLLBACK")),
    lambda db: db.cursor().execute("END"),
    lambda db: db.cursor().connection.commit(),
    lambda db: db.cursor(row_factory=dict_row).execute("ABORT"),
    lambda db: db.execute("BEGIN"),
    lambda db: db.execute("PREPARE TRANSACTION 'x'"),
    lambda db: db.execute("SET search_path TO other"),
    lambda db: db.execute("SET SESSION statement_timeout = 0"),
    lambda db: db.execute("SET LOCAL statement_timeout = 0"),
    lambda db: db.execute("RESET ALL"),
    lambda db: db.execute("LISTEN x"),
    lambda db: db.execute("DELETE FROM stepwell.stepwell_runs"),
    lambda db: db.execute('UPDATE "stepwell"."stepwell_events" SET body = body'),
    lambda db: db.execute("WITH x AS (DELETE FROM stepwell.stepwell_events RETURNING 1) SELECT * FROM x"),
    lambda db: db.execute("DO $$ BEGIN DELETE FROM stepwell.stepwell_runs; END $$"),
    lambda db: db.execute("DROP TABLE stepwell.stepwell_runs"),
    lambda db: db.execute("LOCK TABLE stepwell.stepwell_runs"),
    lambda db: db.cursor().executemany("DELETE FROM stepwell.stepwell_runs WHERE run_id = %s", [("r",)]),
    lambda db: db.cursor().copy("COPY stepwell.stepwell_deleted FROM STDIN").__enter__(),
    lambda db: db.__enter__(),
    lambda db: setattr(db, "autocommit", True),
    lambda db: db.set_autocommit(True),
    lambda db: db.pipeline(),
    lambda db: db.tpc_commit(),
]


@pytest.mark.parametrize("hidden", [False, True])
def test_a_function_can_not_end_the_transaction_or_touch_the_stores_tables(
    store: PostgresStore, create: Any, booked: Any, hidden: bool
) -> None:
    """Nor by hiding that it was refused, where nobody would know any more what it takes for committed."""
    for number, work in enumerate(FORBIDDEN):
        run_id, name, refused = f"r{number}", f"n{number}", list[TransactionError]()
        lease = create(store, run_id)

        def meddle(connection: Any, work: Any = work, name: str = name, refused: Any = refused) -> Any:
            book(connection, name)
            try:
                work(connection)
            except TransactionError as error:
                refused.append(error)
                if not hidden:
                    raise
            return [a_record()]

        outcome, said = None, "a Transaction's function can't"
        try:
            outcome = store.transact(run_id, 0, 1, meddle, attempt_id="t", fence=lease.fence, seconds=5)
        except TransactionError as error:
            said = str(error)
        assert "a Transaction's function can't" in said
        assert 1 == len(refused), number
        assert outcome in ((None, Committed(1, 0)) if hidden else (None,))
        assert (outcome is not None) == (name in {one for one, _ in booked()}), number
    assert [] == [part.problem for part in store.verify() if part.problem]


def test_a_transaction_that_was_ended_past_all_checks_is_found_out(store: PostgresStore, create: Any) -> None:
    lease = create(store)

    def work(connection: Any) -> None:
        connection.pgconn.exec_(b"COMMIT; BEGIN")

    with pytest.raises(TransactionError, match="ended the store's transaction"):
        transact(store, lease, work)
    head = store.head("r")
    assert head is not None
    assert 1 == head.seq


def test_an_error_that_is_hidden_lets_nothing_be_committed(store: PostgresStore, create: Any, booked: Any) -> None:
    lease = create(store)

    def work(connection: Any) -> None:
        book(connection, "ada")
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute("SELECT 1 / 0")

    with pytest.raises(TransactionError, match="let such an error pass"):
        transact(store, lease, work)
    assert [] == booked()


def test_what_it_may_do(store: PostgresStore, create: Any, booked: Any) -> None:
    """Savepoints, cursors of any kind, rows as it likes, and a look at the store's own tables."""
    lease = create(store)

    def work(connection: Any) -> None:
        connection.row_factory = dict_row
        assert {"n": 1} == connection.execute("SELECT 1 AS n").fetchone()
        with connection.transaction(force_rollback=True):
            book_plain(connection, "undone")
        connection.execute("SAVEPOINT mine")
        book_plain(connection, "undone too")
        connection.execute("ROLLBACK TO SAVEPOINT mine")
        with connection.cursor(name="server") as cursor:
            cursor.execute("SELECT generate_series(1, 5) AS n")
            assert 5 == len(cursor.fetchall())
        with connection.cursor() as cursor:
            cursor.executemany("INSERT INTO booked (name) VALUES (%s)", [("a",), ("b",)])
            assert cursor.connection is connection
            with cursor.copy("COPY booked (name) FROM STDIN") as copy:
                copy.write_row(("c; COMMIT",))
        connection.execute("SET LOCAL search_path TO public")
        connection.execute("CREATE TEMP TABLE scratch (n int)")
        assert {"count": 1} == connection.execute("SELECT count(*) FROM stepwell.stepwell_runs").fetchone()
        connection.execute("INSERT INTO booked (name) VALUES ('d; COMMIT')")

    def book_plain(connection: Any, name: str) -> None:
        connection.execute("INSERT INTO booked (name) VALUES (%s)", (name,))

    assert Committed(1, 0) == transact(store, lease, work)
    assert ["a", "b", "c; COMMIT", "d; COMMIT"] == [name for name, _ in booked()]
    plain: list[Any] = []

    def later(connection: Any) -> None:
        plain.append(connection.execute("SELECT to_regclass('scratch')").fetchone())

    assert Committed(2, 0) == transact(store, lease, later, seq=2, attempt_id="later")
    assert [(None,)] == plain, "what the one before left is not there"


def test_a_cursor_that_outlives_its_transaction_is_of_no_use(store: PostgresStore, create: Any) -> None:
    lease, kept = create(store), []
    assert Committed(1, 0) == transact(store, lease, lambda connection: kept.append(connection.cursor()))
    with pytest.raises(TransactionError, match="has ended"):
        kept[0].execute("SELECT 1")


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 'COMMIT; stepwell_own'",
        "select 1",
        "INSERT INTO notes VALUES ('it''s; COMMIT')",
        "INSERT INTO notes VALUES ($$; COMMIT; $$)",
        "SELECT E'\\'; COMMIT; --'",
        'SELECT ";COMMIT;" FROM x',
        "/* COMMIT; */ UPDATE x SET a = 1",
        "SAVEPOINT a; RELEASE SAVEPOINT a",
        "ROLLBACK TO SAVEPOINT a",
        "ROLLBACK TRANSACTION TO a",
        "SET CONSTRAINTS ALL IMMEDIATE",
        "EXPLAIN SELECT * FROM stepwell_runs",
    ],
)
def test_words_in_texts_are_no_statements(text: str) -> None:
    assert refusal_of(text) is None


def test_with_a_pool_the_programs_own_connections_are_lent(database: str, db: Any, create: Any, booked: Any) -> None:
    with ConnectionPool(database, min_size=1, max_size=2, open=True) as pool:
        store = PostgresStore(pool=pool)
        lease = create(store)
        assert Committed(1, 0) == transact(store, lease, lambda connection: book(connection, "ada"))
        with pool.connection() as connection:
            assert psycopg.Cursor is connection.cursor_factory
    assert [("ada", 1)] == booked()


KILLED = """
import sys
from stepwell import Engine, Flow, Transaction, workflow
from stepwell_stores.postgres import PostgresStore

def book(db, name: str) -> int:
    db.execute("INSERT INTO booked (name, cents) VALUES (%s, 5)", (name,))
    if sys.argv[2] == "inside":
        print("now", flush=True)
        sys.stdin.read()
    return 5

@workflow(name="book_one")
def flow(name: str) -> Flow[int]:
    return (yield from Transaction(book, name))

store = PostgresStore(sys.argv[1])
if sys.argv[2] == "after":
    real = store.transact
    def transact(*where, **how):
        done = real(*where, **how)
        print("now", flush=True)
        sys.stdin.read()
        return done
    store.transact = transact
Engine(store, [flow], lease=3).start(flow, "ada", run_id="r")
"""


@pytest.mark.parametrize("when", ["inside", "after"])
def test_a_process_that_is_killed_around_the_commit(
    engine: Engine, database: str, db: Any, booked: Any, python: Any, when: str
) -> None:
    process = python(KILLED, database, when)
    assert "now\n" == process.stdout.readline()
    process.kill()
    process.wait()
    there = ([("ada", 5)], ["start", "step"]) if when == "after" else ([], ["start"])
    assert there == (booked(), [event.kind for event in engine.history("r")])
    db.execute("UPDATE stepwell.stepwell_runs SET lease_until = 1")  # as after its three seconds
    assert [RunCompleted("r", 5)] == engine.run_due()
    assert [("ada", 5)] == booked()


def test_a_store_that_is_closed_meanwhile_is_told(database: str, create: Any) -> None:
    with closing(PostgresStore(database)) as store:
        lease = create(store)
        with pytest.raises(StoreError, match="by other ways"):
            transact(
                store,
                lease,
                lambda _: store.append("r", None, None, [a_record()], attempt_id="o"),
            )
    assert re.match(r"postgresql://postgres@127\.0\.0\.1:\d+/t_\w+\?schema=stepwell$", store.place)
