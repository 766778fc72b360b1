"""The Postgres store at its opening: addresses, servers that can't keep one, pools, and what settings mean."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from psycopg_pool import ConnectionPool
from tests.servers.launching import Program, free_port
from tests.servers.postgres import Postgres

from stepwell import (
    CorruptHistoryError,
    InvalidInputError,
    NewerFormatError,
    StoreMisconfiguredError,
    StoreUnavailableError,
)
from stepwell.store import AlreadyCommitted, Committed, Created, Exists, HeadFilter, Lease, NotApplied
from stepwell.testing.contract import a_head, a_record, a_start
from stepwell_stores import open_store
from stepwell_stores.postgres import PostgresStore
from stepwell_stores.postgres.connections import _inherited
from stepwell_stores.postgres.session import Quick

SECRET = "hunter2"


def name_of(url: str) -> str:
    return url.rsplit("/", 1)[1].partition("?")[0]


@pytest.fixture
def db(postgres_server: Postgres, database: str) -> Iterator[Any]:
    """The test's own connection to the database."""
    with postgres_server.connect(name_of(database)) as made:
        yield made


# ---- addresses


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql:runs", "needs two slashes"),
        ("postgresql://u:hunter2@h/d?schema=a-b", "'a-b' can't be the schema"),
        ("postgresql://u:hunter2@h/d?schema=pg_own", "can't be the schema"),
        ('postgresql://u:hunter2@h/d?schema=x";drop', "can't be the schema"),
        ("postgresql://u:hunter2@h/d?schema=a&schema=b", "schema is given twice"),
        ("postgresql://u:hunter2@h/d?prepare=no", "prepare=on or prepare=off"),
        ("postgresql://u:hunter2@h/d?connections=1", "number from 2 to 1000"),
        ("postgresql://u:hunter2@h/d?bogus=1", 'invalid URI query parameter: "bogus"'),
        ("postgresql://u:hunter2@[::1/d", "not the URL of a Postgres database"),
        ("postgresql://u:hunter2%ZZ@h/d", "not the URL of a Postgres database"),
    ],
)
def test_a_wrong_url_is_refused_at_once_without_its_password(url: str, words: str) -> None:
    with pytest.raises(StoreMisconfiguredError) as caught:
        open_store(url)
    assert words in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_url_or_a_pool_is_needed_and_not_both() -> None:
    for wrong in ({}, {"url": "postgresql://h/d", "pool": object()}, {"url": "postgresql://h/d", "schema": "s"}):
        with pytest.raises(InvalidInputError, match="a url, or a pool"):
            PostgresStore(**wrong)


def test_libpq_options_and_the_other_scheme_are_taken(database: str, create: Any) -> None:
    url = database.replace("postgresql:", "postgres:") + "?application_name=mine&schema=own&prepare=off&connections=2"
    with closing(open_store(url)) as store:
        create(store)
        assert isinstance(store, PostgresStore)
        assert store.place.endswith(f"/{name_of(database)}?schema=own")
        assert [("mine",)] == store._connections.read(
            lambda session: session.run("SELECT current_setting('application_name')").fetchall()
        )


def test_nothing_is_opened_before_its_first_use() -> None:
    open_store("postgresql://u@127.0.0.1:1/d").close()


@pytest.mark.parametrize("call", ["read", "write"])
def test_a_server_that_is_away_is_worth_another_try(call: str) -> None:
    with closing(open_store(f"postgresql://u:{SECRET}@127.0.0.1:{free_port()}/d")) as store:
        if call == "write":
            outcome = store.create("r", [a_start()], head=a_head(), attempt_id="a")
            assert isinstance(outcome, NotApplied)
            error: Any = outcome.cause
        else:
            with pytest.raises(StoreUnavailableError) as caught:
                store.head("r")
            error = caught.value
        assert error.retryable
        assert "is the server running?" in str(error)
        assert SECRET not in str(error)


def test_a_wrong_password_user_or_database_is_no_reason_to_try_again(postgres_server: Postgres, database: str) -> None:
    with postgres_server.connect() as db:
        db.execute("DROP ROLE IF EXISTS guarded")
        db.execute("CREATE ROLE guarded LOGIN PASSWORD 'right'")
    rules = postgres_server.data / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text(f"host all guarded all scram-sha-256\n{before}")
    try:
        with postgres_server.connect() as db:
            db.execute("SELECT pg_reload_conf()")
        for url in (
            database.replace("postgres@", f"guarded:{SECRET}@"),
            database.replace("postgres@", f"nobody-is:{SECRET}@"),
            database + "x",
        ):
            with closing(open_store(url)) as store, pytest.raises(StoreMisconfiguredError) as caught:
                store.head("r")
            assert "check user, password, host and database" in str(caught.value)
            assert SECRET not in str(caught.value)
        with (
            closing(open_store(database.replace("postgres@", "guarded:right@"))) as store,
            pytest.raises(StoreMisconfiguredError, match="no permission; grant it"),
        ):
            store.head("r")
    finally:
        rules.write_text(before)
        with postgres_server.connect() as db:
            db.execute("SELECT pg_reload_conf()")


# ---- tables


def test_a_store_that_must_exist_is_not_made(database: str, db: Any) -> None:
    with closing(open_store(database, must_exist=True)) as store:
        with pytest.raises(StoreMisconfiguredError, match=r"no store at postgresql://.*start a run"):
            store.head("r")
        assert (None,) == db.execute("SELECT to_regnamespace('stepwell')").fetchone()
    with closing(open_store(database)) as store:
        assert store.head("r") is None
    with closing(open_store(database, must_exist=True)) as store:
        assert store.head("r") is None


def test_tables_of_the_future_are_left_alone(database: str, db: Any, create: Any) -> None:
    with closing(open_store(database)) as old:
        lease = create(old)
        old.create("free", [a_start()], head=a_head(), attempt_id="a")
        db.execute("UPDATE stepwell.stepwell_schema SET version = 99")
        for write in (
            lambda: old.append("r", 0, 1, [a_record()], attempt_id="own", fence=lease.fence),
            lambda: old.append("r", None, None, [a_record()], attempt_id="out"),
            lambda: old.create("s", [a_start()], head=a_head(), attempt_id="a"),
            lambda: old.claim("free", "me", 1),
        ):
            with pytest.raises(NewerFormatError, match="upgrade stepwell"):
                write()
    with closing(open_store(database)) as store, pytest.raises(NewerFormatError, match=r"version 99.*knows 2"):
        store.head("r")
    assert (2,) == db.execute("SELECT count(*) FROM stepwell.stepwell_events").fetchone()


def test_engines_with_schemas_of_their_own_see_nothing_of_each_other(database: str, create: Any) -> None:
    with closing(open_store(f"{database}?schema=one")) as one, closing(open_store(f"{database}?schema=Two")) as two:
        create(one)
        create(two)
        assert isinstance(one.create("r", [a_start()], head=a_head(), attempt_id="b"), Exists)
        one.append("r", None, None, [a_record()], attempt_id="out")
        assert [2, 1] == [store.heads(HeadFilter(), limit=9)[0].seq for store in (one, two)]


def test_a_schema_that_somebody_else_made_is_used_without_the_right_to_make_one(
    postgres_server: Postgres, database: str, db: Any, create: Any
) -> None:
    db.execute("DROP ROLE IF EXISTS humble")
    db.execute("CREATE ROLE humble LOGIN")
    db.execute("CREATE SCHEMA given AUTHORIZATION humble")
    with closing(open_store(database.replace("postgres@", "humble@") + "?schema=given")) as store:
        create(store)
    db.execute("DROP OWNED BY humble CASCADE")
    db.execute("DROP ROLE humble")


# ---- servers and their settings


def test_the_settings_say_what_is_survived(postgres_server: Postgres, database: str) -> None:
    """The tests' quick server has fsync off."""
    with closing(open_store(database)) as store:
        told = store.durability
    assert (True, False, False) == (told.process_crash, told.power_loss, told.failover)
    assert ("off", "off, on for each write") == (told.settings["fsync"], told.settings["synchronous_commit"])
    assert "postgres" == told.settings["store"]


def test_each_write_commits_as_durably_as_the_server_can(database: str, db: Any, create: Any) -> None:
    """Whatever a role has for a default; a stronger promise of the server's stays."""
    db.execute("CREATE TABLE seen (run_id text, setting text)")
    db.execute(
        "CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO public.seen VALUES (NEW.run_id, current_setting('synchronous_commit')); RETURN NULL; END $$"
    )
    with closing(PostgresStore(database)) as store:
        assert store.head("r") is None
        # when the transaction commits
        db.execute(
            "CREATE CONSTRAINT TRIGGER look AFTER INSERT ON stepwell.stepwell_events DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION public.look()"
        )
        lease = create(store)
        store.append("r", 0, 1, [a_record()], attempt_id="own", fence=lease.fence)
        store.append("r", 0, 2, [a_record()], attempt_id="own", fence=lease.fence, head=a_head())
        store.append("r", None, None, [a_record()], attempt_id="out")

        def work(connection: Any) -> Any:
            connection.execute("SELECT set_config('synchronous_commit', 'off', true)")
            return [a_record()]

        store.transact("r", 0, 4, work, attempt_id="t", fence=lease.fence, seconds=5)
        assert [("on",)] * 5 == db.execute("SELECT setting FROM seen").fetchall()
    with closing(PostgresStore(f"{database}?options=-csynchronous_commit%3Dremote_apply")) as store:
        store.append("r", 0, 5, [a_record()], attempt_id="own", fence=lease.fence)
        assert ("remote_apply",) == db.execute("SELECT setting FROM seen OFFSET 5").fetchone()


def test_a_role_that_only_reads_is_refused(database: str, db: Any) -> None:
    with closing(open_store(database)) as store:
        assert store.head("r") is None
    db.execute("DROP ROLE IF EXISTS reader")
    db.execute("CREATE ROLE reader LOGIN SUPERUSER")
    db.execute("ALTER ROLE reader SET default_transaction_read_only = on")
    with (
        closing(open_store(database.replace("postgres@", "reader@"))) as store,
        pytest.raises(StoreMisconfiguredError, match=r"read-only \(transaction_read_only is on\)"),
    ):
        store.head("r")


def test_a_replica_is_refused(postgres_server: Postgres, database: str, tmp_path_factory: Any) -> None:
    data, port = postgres_server.data.parent / "replica", free_port()
    programs = postgres_server.program._command[0].rsplit("/", 1)[0]
    options = postgres_server.program._options
    primary = ["-h", "127.0.0.1", "-p", str(postgres_server.port), "-U", "postgres"]
    subprocess.run(
        [f"{programs}/pg_basebackup", "-D", data, *primary, "-R", "-c", "fast", "--no-sync", "-X", "stream"],
        check=True,
        **options,
    )
    with closing(open_store(database)) as store:
        assert store.head("r") is None
    command = [f"{programs}/postgres", "-D", data, "-p", port, "-h", "127.0.0.1", "-k", data, "-F"]
    log = data.parent / "replica-log"
    log.touch()
    url = f"postgresql://postgres@127.0.0.1:{port}/{name_of(database)}"
    replica = Program(command, log, lambda: psycopg.connect(url, connect_timeout=5).close(), **options)
    replica.start()
    try:
        with closing(open_store(url)) as store, pytest.raises(StoreMisconfiguredError, match="is a replica"):
            store.head("r")
        both = f"postgresql://postgres@127.0.0.1:{port},127.0.0.1:{postgres_server.port}/{name_of(database)}"
        with closing(open_store(f"{both}?target_session_attrs=read-write")) as store:
            assert store.head("r") is None
    finally:
        replica.stop()


def test_a_server_that_becomes_read_only_is_left_for_the_one_that_has_taken_over(
    postgres_server: Postgres, database: str, db: Any, create: Any
) -> None:
    with closing(PostgresStore(database)) as store:
        lease = create(store)
        before = store._connections.read(lambda session: session.raw.info.backend_pid)
        store._connections.read(lambda session: session.run("SET default_transaction_read_only = on").rowcount)
        outcome = store.append("r", 0, 1, [a_record()], attempt_id="own", fence=lease.fence)
        assert isinstance(outcome, NotApplied)
        assert "has become a replica, or read-only" in str(outcome.cause)
        assert Committed(1, 0) == store.append("r", 0, 1, [a_record()], attempt_id="own", fence=lease.fence)
        assert before != store._connections.read(lambda session: session.raw.info.backend_pid)


def test_another_encoding_is_refused(postgres_server: Postgres) -> None:
    with postgres_server.connect() as db:
        db.execute("DROP DATABASE IF EXISTS latin")
        db.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    with (
        closing(open_store(postgres_server.url("latin"))) as store,
        pytest.raises(StoreMisconfiguredError, match="encoded in LATIN1"),
    ):
        store.head("r")
    postgres_server.drop("latin")


@pytest.mark.parametrize(("state", "words"), [("53100", "disk is full"), ("58030", "try again")])
def test_a_full_or_failing_disk_of_the_server_loses_nothing(
    database: str, db: Any, create: Any, state: str, words: str
) -> None:
    """The server's own error, by its SQLSTATE."""
    with closing(open_store(database)) as store:
        lease = create(store)
        db.execute(
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" RAISE EXCEPTION 'could not extend file' USING ERRCODE = '{state}'; END $$"
        )
        db.execute("CREATE TRIGGER fail BEFORE INSERT ON stepwell.stepwell_events FOR EACH ROW EXECUTE FUNCTION fail()")
        for write in (
            lambda: store.append("r", 0, 1, [a_record()], attempt_id="own", fence=lease.fence),
            lambda: store.append("r", None, None, [a_record()], attempt_id="out"),
            lambda: store.create("s", [a_start()], head=a_head(), attempt_id="a"),
        ):
            outcome = write()
            assert isinstance(outcome, NotApplied)
            assert words in str(outcome.cause)
        db.execute("DROP TRIGGER fail ON stepwell.stepwell_events")
        assert Committed(1, 0) == store.append("r", 0, 1, [a_record()], attempt_id="own", fence=lease.fence)
        assert store.head("s") is None


def test_a_record_that_the_row_does_not_know_of_is_damage_or_this_very_attempt(
    database: str, db: Any, create: Any
) -> None:
    with closing(open_store(database)) as store:
        lease = create(store)
        assert Committed(1, 0) == store.append("r", 0, 1, [a_record()], attempt_id="own", fence=lease.fence)
        db.execute("UPDATE stepwell.stepwell_runs SET next_seq = 1")
        outcome = store.append("r", 0, 1, [a_record()], attempt_id="own", fence=lease.fence)
        assert AlreadyCommitted(1, 0) == outcome
        with pytest.raises(CorruptHistoryError, match="does not know of; restore it"):
            store.append("r", 0, 1, [a_record("other")], attempt_id="own", fence=lease.fence)


def test_text_that_postgres_can_not_keep_is_refused(database: str) -> None:
    with closing(open_store(database)) as store:
        for wrong in ("with\0nul",):
            with pytest.raises(InvalidInputError, match="can't keep this text"):
                store.create(wrong, [a_start()], head=a_head(), attempt_id="a")
        odd = {"na\0me": "va\0lue\x1a0\\u0000", "long": "x" * 20_000, "ü'\"\\": "🙂"}
        store.create("r", [a_start()], head=a_head(tags=odd), attempt_id="a")
        head = store.head("r")
        assert head is not None
        assert odd == head.head.tags
        for name, value in odd.items():
            assert ["r"] == [one.run_id for one in store.heads(HeadFilter(tag=(name, value)), limit=9)]
        assert [] == store.heads(HeadFilter(tag=("long", "x" * 19_999)), limit=9)


# ---- a pool that the program has


@pytest.fixture
def pool(database: str) -> Iterator[ConnectionPool[Any]]:
    with ConnectionPool(database, min_size=2, max_size=4, open=True) as made:
        yield made


def test_a_pool_is_borrowed_from_and_left_as_it_was(pool: ConnectionPool[Any], create: Any) -> None:
    store = PostgresStore(pool=pool, schema="pooled")
    lease = create(store)
    store.append("r", 0, 1, [a_record()], attempt_id="own", fence=lease.fence)
    store.append("r", None, None, [a_record()], attempt_id="out", due=1)
    assert isinstance(store.renew(lease, 30), Lease)
    assert [] == [part.problem for part in store.verify() if part.problem]
    store.close()
    for _ in range(4):
        with pool.connection() as connection:
            assert not connection.autocommit
            assert (3,) == connection.execute("SELECT count(*) FROM pooled.stepwell_events").fetchone()


def test_a_pool_of_one_is_enough(database: str, create: Any) -> None:
    with ConnectionPool(database, min_size=1, max_size=1, open=True) as pool:
        store = PostgresStore(pool=pool)
        create(store)
        told = [store.append("r", None, None, [a_record()], attempt_id=f"o{n}") for n in range(3)]
        assert [1, 2, 3] == [one.seq for one in told]  # type: ignore[union-attr]


def test_a_pool_that_has_its_connections_forget_is_no_trouble(database: str, create: Any) -> None:
    with ConnectionPool(database, min_size=1, max_size=1, open=True, kwargs={"autocommit": True}) as pool:
        store = PostgresStore(pool=pool)
        lease = create(store)
        for seq in range(1, 4):
            assert Committed(seq, 0) == store.append("r", 0, seq, [a_record()], attempt_id="own", fence=lease.fence)
            assert store.read("r") is not None
            with pool.connection() as connection:
                connection.execute("DISCARD ALL")
        outcomes = [
            store.transact("r", 0, 4, lambda _: [a_record()], attempt_id="t", fence=lease.fence, seconds=5)
            for _ in range(3)
        ]
        assert [NotApplied(), Committed(4, 0), AlreadyCommitted(4, 0)] == outcomes, "in a transaction it is tried anew"


def test_no_session_is_relied_on(database: str, db: Any, create: Any) -> None:
    """As behind a pooler that gives each transaction another session, and forgets what the last one set."""
    used: list[int] = []

    class Pooler:
        """Gives another connection each time, and wipes what it gets back."""

        def __init__(self) -> None:
            self.all = [psycopg.connect(database, prepare_threshold=None) for _ in range(3)]
            self.free = list(self.all)
            self.lock = threading.Lock()

        def getconn(self, timeout: float | None = None) -> Any:
            with self.lock:
                made = self.free.pop(0)
            used.append(made.info.backend_pid)
            return made

        def putconn(self, conn: Any) -> None:
            conn.autocommit = True
            conn.execute("DISCARD ALL")
            conn.autocommit = False
            with self.lock:
                self.free.append(conn)

    pooler = Pooler()
    store = PostgresStore(pool=pooler, prepare=False)
    lease = create(store)
    for seq in range(1, 20):
        assert Committed(seq, 0) == store.append("r", 0, seq, [a_record()], attempt_id="own", fence=lease.fence)
    assert isinstance(store.append("r", None, None, [a_record()], attempt_id="out"), Committed)
    outcome = store.transact("r", 0, 21, lambda _: [a_record()], attempt_id="t", fence=lease.fence, seconds=5)
    assert Committed(21, 0) == outcome
    assert 3 == len(set(used))
    for connection in pooler.all:
        assert [] == connection.execute("SELECT name FROM pg_prepared_statements").fetchall()
        connection.close()


def test_behind_a_pooler_no_session_is_born_with_settings(database: str, create: Any) -> None:
    with closing(PostgresStore(f"{database}?prepare=off")) as store:
        create(store)
        found = store._connections.read(
            lambda session: session.run("SELECT current_setting('statement_timeout')").fetchall()
        )
        assert [("0",)] == found
        assert store._hints._connect is None
    with closing(PostgresStore(database)) as store:
        found = store._connections.read(
            lambda session: session.run(
                "SELECT current_setting('statement_timeout'), current_setting('lock_timeout'),"
                " current_setting('idle_in_transaction_session_timeout'), current_setting('tcp_user_timeout')"
            ).fetchall()
        )
        assert ("30s", "10s", "1min") == found[0][:3]


def test_a_pool_that_was_made_before_a_fork_is_refused_in_the_child(pool: ConnectionPool[Any], create: Any) -> None:
    store = PostgresStore(pool=pool)
    create(store)
    out, into = os.pipe()
    if not os.fork():
        try:
            store.head("r")
            said = "no error"
        except StoreMisconfiguredError as error:
            said = str(error)
        os.write(into, said.encode())
        os._exit(0)
    os.wait()
    assert "make pool and store anew after the fork" in os.read(out, 1000).decode()
    assert store.head("r") is not None
    assert [] == _inherited


def test_a_program_that_is_locked_out_waits_no_longer_than_told(database: str, db: Any, create: Any) -> None:
    """A row that somebody else has locked."""
    with closing(PostgresStore(database)) as store:
        lease = create(store)
        with psycopg.connect(database) as other:
            other.execute("SELECT FROM stepwell.stepwell_runs FOR UPDATE")
            sql = store._sql.append_one
            assert b"'10s'" in sql.text
            store._sql.append_one = Quick(b"impatient", sql.text.replace(b"'10s'", b"'100ms'"), sql.formats)
            outcome = store.append("r", 0, 1, [a_record()], attempt_id="own", fence=lease.fence)
        assert isinstance(outcome, NotApplied)
        assert Committed(1, 0) == store.append("r", 0, 1, [a_record()], attempt_id="own", fence=lease.fence)


def test_a_create_that_meets_a_delete_never_gets_a_fence_twice(database: str, db: Any, create: Any) -> None:
    """It waits for the delete, and does not see in its own snapshot which fences were given."""
    with closing(PostgresStore(database)) as store:
        lease = create(store)
        done = a_head(status="completed")
        end = [a_record(kind="complete")]
        store.append("r", 0, 1, end, attempt_id="own", fence=lease.fence, head=done, then="closed")
        made: list[Any] = []
        with psycopg.connect(database) as other:
            statement = store._sql.delete
            assert other.execute(statement, {"run": "r", "incarnation": 0, "fence": None}).fetchall()
            thread = threading.Thread(
                target=lambda: made.append(store.create("r", [a_start()], head=a_head(), attempt_id="again"))
            )
            thread.start()
            waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            while db.execute(waits).fetchone() == (0,):
                threading.Event().wait(0.01)
            other.commit()
        thread.join(30)
        assert [Created()] == made
        head = store.head("r")
        assert head is not None
        assert 2 == head.fence


WITHOUT = """
import sys
import stepwell, stepwell_stores
assert not any(name.split(".")[0].startswith("psycopg") for name in sys.modules), "imported late"
sys.modules["psycopg"] = None
try:
    stepwell_stores.open_store("postgresql://u:hunter2@h/d")
except stepwell.StoreMisconfiguredError as error:
    print(error)
"""


def test_a_driver_that_is_missing_is_named_with_the_extra_that_brings_it(python: Any) -> None:
    said, _ = python(WITHOUT).communicate(timeout=60)
    assert "needs psycopg 3" in said
    assert "pip install 'stepwell[postgres]'" in said
    assert SECRET not in said
