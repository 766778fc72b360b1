"""A program's own rows in a transaction of the SQLite store: all or nothing, and nothing but rows."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.engine.tools import PATIENCE, Task, eventually

from stepwell.errors import (
    CorruptHistoryError,
    InvalidInputError,
    NotFoundError,
    StepTimeoutError,
    StoreError,
    StoreMisconfiguredError,
    TransactionError,
)
from stepwell.store import AlreadyCommitted, Committed, Conflict, Fenced, Lease, NotApplied, Transactional, Unknown
from stepwell.testing.contract import a_head, a_record, a_start
from stepwell_stores.outcomes import AmbiguousError
from stepwell_stores.sqlite import SqliteStore
from stepwell_stores.sqlite import database as sqlite_database

TABLES = """
CREATE TABLE rows (n INTEGER PRIMARY KEY, word TEXT);
CREATE TABLE parents (id INTEGER PRIMARY KEY);
CREATE TABLE children (parent INTEGER REFERENCES parents DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE mirrored (n INTEGER);
CREATE TABLE blobs (b BLOB);
INSERT INTO blobs VALUES (zeroblob(4));
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "runs.db"
    with closing(sqlite3.connect(made)) as db:
        db.executescript(TABLES)
    return made


@pytest.fixture
def store(path: Path, create: Callable[..., Lease]) -> Iterator[SqliteStore]:
    made = SqliteStore(path)
    create(made)
    yield made
    made.close()


def transact(store: Any, work: Callable[[Any], Any], *, seq: int = 1, **how: Any) -> Any:
    """Call `work` in a transaction of run "r", and record one event."""
    options = {"incarnation": 0, "attempt_id": f"t-{seq}", "fence": 1, "seconds": 5.0} | how

    def recorded(db: Any) -> list[Any]:
        work(db)
        return [a_record("done")]

    return store.transact("r", options.pop("incarnation"), seq, recorded, **options)


def rows(path: Path, table: str = "rows") -> list[Any]:
    """What another connection finds."""
    with closing(sqlite3.connect(path)) as db:
        return db.execute(f"SELECT * FROM {table}").fetchall()


def seq_of(store: SqliteStore) -> int:
    head = store.head("r")
    assert head is not None
    return head.seq


def one(db: sqlite3.Connection) -> None:
    db.execute("INSERT INTO rows VALUES (1, 'one')")


def never(_db: object) -> Any:
    raise AssertionError("this must not be called")


# ---- all or nothing


def test_rows_and_records_are_committed_together(store: SqliteStore, path: Path) -> None:
    seen: list[Any] = []

    def work(db: sqlite3.Connection) -> None:
        one(db)
        seen.append((rows(path), seq_of(store)))  # by others

    assert Committed(1, 0) == transact(store, work)
    assert [([], 1)] == seen
    assert ([(1, "one")], 2) == (rows(path), seq_of(store))


def test_the_store_says_that_it_can(store: SqliteStore) -> None:
    assert isinstance(store, Transactional)


def test_the_connection_is_one_of_the_driver(store: SqliteStore) -> None:
    def work(db: sqlite3.Connection) -> None:
        assert isinstance(db, sqlite3.Connection)
        assert isinstance(db.cursor(), sqlite3.Cursor)
        assert db.in_transaction
        assert (1,) == db.execute("PRAGMA foreign_keys").fetchone()
        db.row_factory = sqlite3.Row
        assert "two" == db.execute("SELECT 'two' AS word").fetchone()["word"]

    assert Committed(1, 0) == transact(store, work)


@pytest.mark.parametrize(
    "error", [ValueError("no"), sqlite3.IntegrityError("mine"), KeyboardInterrupt(), MemoryError()]
)
def test_what_work_raises_comes_out_and_undoes_all(store: SqliteStore, path: Path, error: BaseException) -> None:
    def work(db: sqlite3.Connection) -> None:
        one(db)
        raise error

    with pytest.raises(type(error)) as caught:
        transact(store, work)
    assert caught.value is error
    assert ([], 1) == (rows(path), seq_of(store))
    assert Committed(1, 0) == transact(store, one)


def test_a_statement_that_fails_may_be_caught(store: SqliteStore, path: Path) -> None:
    def work(db: sqlite3.Connection) -> None:
        one(db)
        with pytest.raises(sqlite3.IntegrityError):
            one(db)
        db.execute("INSERT INTO rows VALUES (2, 'two')")

    assert Committed(1, 0) == transact(store, work)
    assert [(1, "one"), (2, "two")] == rows(path)


def test_a_deferred_constraint_is_told_as_the_driver_tells_it(store: SqliteStore, path: Path) -> None:
    def orphan(db: sqlite3.Connection) -> None:
        one(db)
        db.execute("INSERT INTO children VALUES (7)")

    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
        transact(store, orphan)
    assert ([], [], 1) == (rows(path), rows(path, "children"), seq_of(store))
    assert Committed(1, 0) == transact(store, one)


# ---- position


def test_where_the_run_stands_is_looked_at_before_work_is_called(store: SqliteStore) -> None:
    assert Conflict(1, 0) == transact(store, never, seq=0)
    assert Conflict(1, 0) == transact(store, never, seq=2)
    assert Conflict(1, 0) == transact(store, never, incarnation=1)
    assert Fenced(1) == transact(store, never, fence=0)
    store.append("r", 0, 1, [a_record()], attempt_id="end", fence=1, then="closed", head=a_head())
    assert Conflict(2, 0, closed=True) == transact(store, never, seq=2)


def test_wrong_arguments_are_refused(store: SqliteStore) -> None:
    with pytest.raises(NotFoundError, match="no run 'x'"):
        store.transact("x", 0, 1, never, attempt_id="a", fence=1, seconds=1)
    with pytest.raises(InvalidInputError, match="attempt_id"):
        transact(store, never, attempt_id="a b")


def test_a_repeat_of_the_same_attempt_finds_its_own(store: SqliteStore, path: Path) -> None:
    assert Committed(1, 0) == transact(store, one, attempt_id="a")
    assert AlreadyCommitted(1, 0) == transact(store, never, attempt_id="a")
    assert Conflict(2, 0) == transact(store, never, attempt_id="b")
    assert [(1, "one")] == rows(path)


def test_an_outcome_that_is_not_known_is_found_out_by_the_same_attempt(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """COMMIT fails, and has written all the same: or has not, and then the work is done once more."""
    real = sqlite_database.Database._transaction
    fails = [True, False]

    def broken(database: Any, handle: Any, db: Any, work: Any) -> Any:
        done = real(database, handle, db, work)
        if fails and fails.pop(0):
            raise AmbiguousError("COMMIT failed")
        return done

    monkeypatch.setattr(sqlite_database.Database, "_transaction", broken)
    assert Unknown() == transact(store, one)
    assert AlreadyCommitted(1, 0) == transact(store, never)
    assert ([(1, "one")], 2) == (rows(path), seq_of(store))


def test_a_commit_that_fails_is_unknown_and_undone_when_it_is_not_there(store: SqliteStore, path: Path) -> None:
    """The log can't grow: the disk is full, by this process's own limit."""
    resource = pytest.importorskip("resource")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    calls: list[int] = []

    def work(db: sqlite3.Connection) -> None:
        calls.append(1)
        db.execute("INSERT INTO rows VALUES (1, ?)", ("x" * 100_000,))

    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (Path(f"{path}-wal").stat().st_size + 8192, old[1]))
        done = transact(store, work)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, before)
    assert isinstance(done, (NotApplied, Unknown))
    assert ([], 1, [1]) == (rows(path), seq_of(store), calls)
    assert Committed(1, 0) == transact(store, work)
    assert 1 == len(rows(path))


# ---- what work can't do

ENDS = {
    "commit": lambda db: db.commit(),
    "rollback": lambda db: db.rollback(),
    "close": lambda db: db.close(),
    "COMMIT": lambda db: db.execute("COMMIT"),
    "end": lambda db: db.execute("end transaction"),
    "ROLLBACK": lambda db: db.cursor().execute("/* so */ ROLLBACK"),
    "BEGIN": lambda db: db.execute("BEGIN"),
}
OTHERS = {
    "executescript": lambda db: db.executescript("SELECT 1"),
    "cursor's executescript": lambda db: db.cursor().executescript("SELECT 1"),
    "with": lambda db: db.__enter__(),
    "ATTACH": lambda db: db.execute("ATTACH ':memory:' AS other"),
    "DETACH": lambda db: db.execute("DETACH main"),
    "VACUUM": lambda db: db.execute("VACUUM INTO 'copy.db'"),
    "PRAGMA journal_mode": lambda db: db.execute("PRAGMA journal_mode = DELETE"),
    "PRAGMA synchronous": lambda db: db.execute("PRAGMA synchronous = OFF"),
    "PRAGMA writable_schema": lambda db: db.execute("PRAGMA writable_schema = ON"),
    "PRAGMA wal_checkpoint": lambda db: db.execute("PRAGMA wal_checkpoint"),
    "delete": lambda db: db.execute("DELETE FROM stepwell_events"),
    "insert": lambda db: db.execute("INSERT INTO Stepwell_Deleted VALUES ('x', 1, 1)"),
    "insert many": lambda db: db.executemany("INSERT INTO stepwell_deleted VALUES (?, 1, 1)", [("x",)]),
    "update": lambda db: db.execute("UPDATE main.stepwell_runs SET fence = 9"),
    "with clause": lambda db: db.execute("WITH x AS (SELECT 1) UPDATE stepwell_runs SET fence = 9"),
    "drop": lambda db: db.execute("DROP TABLE stepwell_runs"),
    "alter": lambda db: db.execute("ALTER TABLE stepwell_runs ADD COLUMN x"),
    "index": lambda db: db.execute("CREATE INDEX mine ON stepwell_runs (fence)"),
    "drop index": lambda db: db.execute("DROP INDEX stepwell_runs_due"),
    "trigger": lambda db: db.execute("CREATE TRIGGER mine AFTER INSERT ON stepwell_events BEGIN SELECT 1; END"),
    "temporary trigger": lambda db: db.execute(
        "CREATE TEMP TRIGGER mine AFTER INSERT ON main.stepwell_events BEGIN SELECT 1; END"
    ),
    "shadow": lambda db: db.execute("CREATE TEMP TABLE stepwell_runs (x)"),
    "shadowing view": lambda db: db.execute("CREATE TEMP VIEW stepwell_schema AS SELECT 3 AS version"),
    "sqlite_master": lambda db: db.execute("DELETE FROM sqlite_master"),
    "blob": lambda db: db.blobopen("stepwell_runs", "run_id", 1),
    "authorizer": lambda db: db.set_authorizer(None),
    "progress handler": lambda db: db.set_progress_handler(None, 0),
    "extensions": lambda db: db.enable_load_extension(True),
    "extension": lambda db: db.load_extension("x"),
    "load_extension()": lambda db: db.execute("SELECT load_extension('x')"),
    "deserialize": lambda db: db.deserialize(b""),
    "isolation_level": lambda db: setattr(db, "isolation_level", None),
}


@pytest.mark.parametrize("what", [*ENDS, *OTHERS])
def test_what_is_not_a_matter_of_rows_is_refused(store: SqliteStore, path: Path, what: str) -> None:
    def work(db: sqlite3.Connection) -> None:
        one(db)
        (ENDS | OTHERS)[what](db)

    with pytest.raises((TransactionError, sqlite3.OperationalError)) as caught:
        transact(store, work)
    if what not in ("sqlite_master", "VACUUM"):  # SQLite itself refuses
        assert isinstance(caught.value, TransactionError)
        assert str(caught.value).startswith("a Transaction's function can't ")
    assert ([], 1) == (rows(path), seq_of(store))
    assert Committed(1, 0) == transact(store, one)


@pytest.mark.parametrize("what", ENDS)
def test_who_hides_that_it_wanted_to_end_the_transaction_is_told_again(
    store: SqliteStore, path: Path, what: str
) -> None:
    def work(db: sqlite3.Connection) -> None:
        one(db)
        with suppress(Exception):
            ENDS[what](db)

    with pytest.raises(TransactionError, match="can't"):
        transact(store, work)
    assert ([], 1) == (rows(path), seq_of(store))


@pytest.mark.parametrize("what", OTHERS)
def test_who_catches_another_refusal_goes_on(store: SqliteStore, path: Path, what: str) -> None:
    def work(db: sqlite3.Connection) -> None:
        one(db)
        with suppress(Exception):
            OTHERS[what](db)

    assert Committed(1, 0) == transact(store, work)
    assert [(1, "one")] == rows(path)
    assert 2 == seq_of(store)


@pytest.mark.parametrize(
    "around",
    [
        lambda db: sqlite3.Connection.commit(db),
        lambda db: sqlite3.Connection.rollback(db),
        lambda db: sqlite3.Connection.executescript(db, "SELECT 1"),
        lambda db: sqlite3.Cursor(db).execute("COMMIT"),
        lambda db: sqlite3.Cursor(db).executescript("DELETE FROM stepwell_runs"),
        lambda db: sqlite3.Connection.execute(db, "DELETE FROM stepwell_runs"),
    ],
)
def test_the_authorizer_refuses_whoever_goes_around_the_methods(
    store: SqliteStore, path: Path, around: Callable[[Any], Any]
) -> None:
    def work(db: sqlite3.Connection) -> None:
        one(db)
        around(db)

    with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
        transact(store, work)
    assert ([], 1) == (rows(path), seq_of(store))


def test_a_trigger_can_t_do_what_its_statement_may_not(store: SqliteStore, path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TRIGGER t AFTER INSERT ON rows BEGIN DELETE FROM stepwell_events; END")
    with pytest.raises(TransactionError, match="can't change stepwell_events"):
        transact(store, one)
    assert ([], 1) == (rows(path), seq_of(store))


@pytest.mark.parametrize("way", ["INSERT OR ROLLBACK INTO rows VALUES (1, 'two')", "trigger"])
def test_after_a_rollback_of_sqlite_itself_no_statement_runs(store: SqliteStore, path: Path, way: str) -> None:
    """It would be committed at once, on its own."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TRIGGER t BEFORE INSERT ON mirrored BEGIN SELECT RAISE(ROLLBACK, 'no'); END")
    statement = "INSERT INTO mirrored VALUES (1)" if way == "trigger" else way
    again: list[Callable[[Any], Any]] = [
        one,
        lambda db: db.executemany("INSERT INTO rows VALUES (?, 'x')", [(5,)]),
        lambda db: sqlite3.Connection.execute(db, "INSERT INTO rows VALUES (6, 'x')"),
        lambda db: db.execute("SAVEPOINT s"),
        lambda db: db.blobopen("blobs", "b", 1).write(b"abcd"),
    ]

    def work(db: sqlite3.Connection) -> None:
        one(db)
        with pytest.raises(sqlite3.IntegrityError):
            db.execute(statement)
        assert not db.in_transaction
        for act in again:
            with pytest.raises((TransactionError, sqlite3.DatabaseError)):
                act(db)

    with pytest.raises(TransactionError, match="SQLite rolled the transaction back"):
        transact(store, work)
    assert ([], [(b"\0\0\0\0",)], 1) == (rows(path), rows(path, "blobs"), seq_of(store))


# ---- what it can do


def test_savepoints_of_its_own_end_nothing(store: SqliteStore, path: Path) -> None:
    def work(db: sqlite3.Connection) -> None:
        db.execute("SAVEPOINT a")
        one(db)
        db.execute("SAVEPOINT b")
        db.execute("INSERT INTO rows VALUES (2, 'two')")
        db.execute("ROLLBACK TO b")
        db.execute("RELEASE a")
        assert [] == rows(path)
        db.execute("SAVEPOINT left_open")

    assert Committed(1, 0) == transact(store, work)
    assert [(1, "one")] == rows(path)


def test_it_may_make_tables_and_read_those_of_the_store(store: SqliteStore, path: Path) -> None:
    def work(db: sqlite3.Connection) -> None:
        db.execute("CREATE TABLE accounts (name TEXT PRIMARY KEY, cents INTEGER) STRICT")
        db.execute("CREATE INDEX rich ON accounts (cents)")
        db.execute("CREATE TRIGGER booked AFTER INSERT ON accounts BEGIN INSERT INTO mirrored VALUES (NEW.cents); END")
        db.execute("CREATE TEMP TABLE new AS SELECT 'ada' AS name, 5 AS cents")
        db.execute("INSERT INTO accounts SELECT * FROM new")
        db.execute("ALTER TABLE accounts ADD COLUMN note TEXT")
        db.execute("DROP INDEX rich")
        db.execute("PRAGMA user_version = 3")
        db.execute("PRAGMA defer_foreign_keys = ON")
        assert 3 == len(db.execute("PRAGMA table_info(accounts)").fetchall())
        assert ("wal",) == db.execute("PRAGMA journal_mode").fetchone()
        assert ("r", 1) == db.execute("SELECT run_id, least_seq FROM stepwell_runs").fetchone()
        with db.blobopen("blobs", "b", 1) as blob:
            blob.write(b"abcd")

    assert Committed(1, 0) == transact(store, work)
    assert ([("ada", 5, None)], [(5,)], [(b"abcd",)]) == tuple(
        rows(path, name) for name in ("accounts", "mirrored", "blobs")
    )


def test_nothing_that_it_leaves_behind_meets_the_next_one(store: SqliteStore, path: Path) -> None:
    left: list[Any] = []

    def work(db: sqlite3.Connection) -> None:
        one(db)
        db.row_factory = lambda *_: 1 / 0
        db.text_factory = lambda _: 1 / 0
        db.create_function("count", -1, lambda *_: 1 / 0)
        db.execute("CREATE TEMP TABLE rest (x)")
        cursor = db.execute("INSERT INTO rows VALUES (2, 'two'), (3, 'three') RETURNING n")
        left.extend([db, cursor, db.execute("SELECT 1 UNION SELECT 2"), db.cursor()])

    assert Committed(1, 0) == transact(store, work)
    for act in (
        lambda: left[0].execute("SELECT 1"),
        lambda: left[0].commit(),
        lambda: left[1].fetchone(),
        lambda: left[3].execute("SELECT 1"),
    ):
        with pytest.raises((sqlite3.ProgrammingError, TransactionError)):
            act()

    def look(db: sqlite3.Connection) -> None:
        assert (3,) == db.execute("SELECT count(*) FROM rows").fetchone()
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            db.execute("SELECT * FROM rest")

    assert Committed(2, 0) == transact(store, look, seq=2)
    assert Committed(3, 0) == store.append("r", 0, 3, [a_record()], attempt_id="a", fence=1)
    assert 3 == len(rows(path))


def test_the_connection_belongs_to_one_thread(store: SqliteStore) -> None:
    def work(db: sqlite3.Connection) -> None:
        with pytest.raises(sqlite3.ProgrammingError, match="thread"):
            Task(lambda: db.execute("SELECT 1")).result()

    assert Committed(1, 0) == transact(store, work)


# ---- time


def endless(db: sqlite3.Connection) -> None:
    db.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n").fetchone()


def ever_new(db: sqlite3.Connection) -> None:
    for n in range(10**9):
        db.execute("INSERT INTO rows VALUES (?, 'x')", (n,))


def ever_more(db: sqlite3.Connection) -> None:
    db.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) INSERT INTO mirrored SELECT i FROM n")


def hidden(db: sqlite3.Connection) -> None:
    with suppress(Exception):
        ever_more(db)
    with suppress(Exception):
        one(db)


def in_python(db: sqlite3.Connection) -> None:
    one(db)
    end = time.monotonic() + 0.1
    while time.monotonic() < end:
        pass


@pytest.mark.parametrize("work", [endless, ever_new, ever_more, hidden, in_python])
def test_what_takes_too_long_is_undone(store: SqliteStore, path: Path, work: Callable[[Any], None]) -> None:
    with pytest.raises(StepTimeoutError, match="too long"):
        transact(store, work, seconds=0.05)
    assert ([], [], 1) == (rows(path), rows(path, "mirrored"), seq_of(store))
    assert Committed(1, 0) == transact(store, one)


def test_the_time_ends_with_the_work(store: SqliteStore) -> None:
    """What the store does afterwards is not interrupted."""
    assert Committed(1, 0) == transact(store, lambda db: None, seconds=0.05)
    many = [a_record("x" * 100) for _ in range(2000)]
    assert Committed(2, 0) == store.append("r", 0, 2, many, attempt_id="many", fence=1)


# ---- others


def test_appends_of_others_wait_and_share_nothing_with_it(store: SqliteStore, path: Path) -> None:
    """Eight threads append to runs of their own while one transaction fails and the next one succeeds."""
    names = [f"r{n}" for n in range(8)]
    for name in names:
        store.create(name, [a_start()], head=a_head(), attempt_id="new")
    begun, go = threading.Event(), threading.Event()

    def work(db: sqlite3.Connection) -> None:
        one(db)
        begun.set()
        assert go.wait(PATIENCE)
        raise ValueError("no")

    failing = Task(lambda: transact(store, work))
    assert begun.wait(PATIENCE)
    appends = [
        Task(lambda name=name: store.append(name, 0, 1, [a_record()], attempt_id="a", fence=1))  # type: ignore[misc]
        for name in names
    ]
    eventually(lambda: len(store._database._group._waiting) == len(names) - 1)
    assert [1] * 8 == [seq_of_run.seq for name in names if (seq_of_run := store.head(name))]  # readers don't wait
    go.set()
    with pytest.raises(ValueError, match="no"):
        failing.result()
    assert [Committed(1, 0)] * 8 == [append.result() for append in appends]
    assert Committed(1, 0) == transact(store, one)
    assert [(1, "one")] == rows(path)


def test_work_can_t_write_to_the_store_by_another_way(store: SqliteStore, path: Path) -> None:
    def append(_db: object) -> None:
        store.append("r", 0, 1, [a_record()], attempt_id="a", fence=1)

    def nested(_db: object) -> None:
        transact(store, one)

    for work in (append, nested):
        with pytest.raises(StoreError, match="by other ways than its connection"):
            transact(store, work)
    assert ([], 1) == (rows(path), seq_of(store))

    def look(_db: object) -> None:
        assert 1 == seq_of(store)

    assert Committed(1, 0) == transact(store, look)


def test_many_threads_lose_no_row(store: SqliteStore, path: Path, create: Callable[..., Lease]) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("INSERT INTO mirrored VALUES (0)")
        db.commit()
    names = [f"r{n}" for n in range(4)]
    for name in names:
        create(store, name)

    def count(db: sqlite3.Connection) -> list[Any]:
        (n,) = db.execute("SELECT n FROM mirrored").fetchone()
        db.execute("UPDATE mirrored SET n = ?", (n + 1,))
        return [a_record()]

    def drive(name: str) -> None:
        for seq in range(1, 11):
            done = store.transact(name, 0, seq, count, attempt_id=f"t-{seq}", fence=1, seconds=5)
            assert Committed(seq, 0) == done

    for task in [Task(lambda name=name: drive(name)) for name in names]:  # type: ignore[misc]
        task.result()
    assert [(40,)] == rows(path, "mirrored")


def test_a_forked_child_has_nothing_of_it(store: SqliteStore, path: Path) -> None:
    def work(db: sqlite3.Connection) -> None:
        one(db)
        pid = os.fork()
        if not pid:
            os._exit(0)
        assert 0 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert Committed(1, 0) == transact(store, work)
    pid = os.fork()
    if not pid:
        done = transact(store, lambda db: db.execute("INSERT INTO rows VALUES (2, 'two')"), seq=2)
        os._exit(0 if done == Committed(2, 0) else 1)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert [(1, "one"), (2, "two")] == rows(path)


def test_a_store_that_is_only_read_refuses(store: SqliteStore, path: Path) -> None:
    reading = SqliteStore(path, read_only=True)
    with pytest.raises(StoreMisconfiguredError, match="reading only"):
        transact(reading, never)
    reading.close()


def test_a_file_that_was_replaced_is_not_written(store: SqliteStore, path: Path) -> None:
    assert Committed(1, 0) == transact(store, one)
    path.rename(path.with_name("moved.db"))
    with closing(sqlite3.connect(path)) as db:
        db.executescript(TABLES)
        db.commit()
    with pytest.raises(StoreError, match="removed or replaced"):
        transact(store, never, seq=2)


def test_trouble_of_the_file_is_no_fault_of_the_work(store: SqliteStore) -> None:
    """An error of the disk is not recorded as the outcome of a step: the work is done again when the disk is well."""

    def work(_db: object) -> None:
        full = sqlite3.OperationalError("database or disk is full")
        full.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise ValueError("my own words") from full

    assert NotApplied() == transact(store, work)

    def damaged(_db: object) -> None:
        corrupt = sqlite3.DatabaseError("database disk image is malformed")
        corrupt.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise corrupt

    with pytest.raises(CorruptHistoryError, match="damaged"):
        transact(store, damaged)
    assert Committed(1, 0) == transact(store, one)


def test_a_process_that_is_killed_in_the_midst_leaves_nothing(
    store: SqliteStore, path: Path, python: Callable[..., Any]
) -> None:
    code = """
import sys
from stepwell.testing.contract import a_record
from stepwell_stores.sqlite import SqliteStore
def work(db):
    db.execute("INSERT INTO rows VALUES (1, 'one')")
    print("in", flush=True)
    sys.stdin.read()
SqliteStore(sys.argv[1]).transact("r", 0, 1, work, attempt_id="a", fence=1, seconds=60)
"""
    process = python(code, str(path))
    assert "in\n" == process.stdout.readline()
    process.kill()
    process.wait()
    assert ([], 1) == (rows(path), seq_of(store))
    assert Committed(1, 0) == transact(store, one)
    assert [] == [part.problem for part in store.verify() if part.problem]
