"""Runs that come into Postgres and leave it: tables of older versions, and those who want the same id at once."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace
from tests.servers.postgres import Postgres
from tests.servers.proxy import Way, proxy

from stepwell.errors import (
    CorruptHistoryError,
    NewerFormatError,
    RunArrivingError,
    RunMovedError,
    StoreError,
    StoreUnavailableError,
)
from stepwell.store import Arrival, Created, Departure, Exists, HeadFilter, Lease, RunHead, seal
from stepwell.testing.contract import a_head, a_record, a_start
from stepwell_stores.postgres import PostgresStore
from stepwell_stores.postgres import schema as postgres_schema

LINES = [
    *seal([a_start()], session=3, offset=0, attempt_id="elsewhere"),
    *seal([a_record(1), a_record(2)], session=3, offset=1),
]


@pytest.fixture
def db(postgres_server: Postgres, database: str) -> Iterator[Any]:
    """The test's own connection to the database."""
    with postgres_server.connect(database.rsplit("/", 1)[1]) as made:
        yield made


def an_arrival(run_id: str = "r", token: str = "one") -> Arrival:
    run = RunHead(run_id, 0, len(LINES), 3, False, None, a_head(due=1))
    return Arrival(run, (len(LINES),), "over there", token)


def together(*calls: Callable[[], object]) -> list[object]:
    """What calls give or raise that are made at once."""
    start, found = threading.Barrier(len(calls)), list[object]([None] * len(calls))

    def go(number: int) -> None:
        start.wait()
        try:
            found[number] = calls[number]()
        except Exception as error:
            found[number] = error

    threads = [threading.Thread(target=go, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


# ---- tables of other versions


def make_version_1(db: Any, database: str) -> None:
    """The tables as the first version made them, with runs that were deleted, are due, and are under a lease."""
    with closing(PostgresStore(f"{database}?schema=fresh")) as store:
        store.create("gone", [a_start()], head=a_head(status="completed"), attempt_id="a", then="closed")
        assert store.delete("gone", 0)
        store.create("free", [a_start()], head=a_head(due=1, tags={"a": "b"}), attempt_id="a")
        store.create("r", [a_start()], head=a_head(), attempt_id="a")
        assert isinstance(store.claim("r", "me", 60), Lease)
    db.execute("DROP SCHEMA IF EXISTS stepwell CASCADE; CREATE SCHEMA stepwell")
    db.execute(postgres_schema._MIGRATIONS[0].format("stepwell"))
    db.execute("INSERT INTO stepwell.stepwell_schema VALUES (1)")
    for table in ("runs", "events", "attempts"):
        db.execute(f"INSERT INTO stepwell.stepwell_{table} SELECT * FROM fresh.stepwell_{table}")
    columns = "run_id, fence, created, freed, taken"
    db.execute(f"INSERT INTO stepwell.stepwell_deleted SELECT {columns} FROM fresh.stepwell_deleted")


def catalogue(db: Any, schema: str) -> list[Any]:
    """All that was made in a schema, but for its name."""
    queries = (
        (
            "SELECT table_name, column_name, data_type, collation_name, is_nullable FROM information_schema.columns"
            " WHERE table_schema = %s ORDER BY 1, 2"
        ),
        "SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = %s ORDER BY 2",
        "SELECT proname, prosrc FROM pg_proc WHERE pronamespace = %s::regnamespace ORDER BY 1",
        (
            "SELECT tgname, pg_get_triggerdef(t.oid) FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid"
            " WHERE relnamespace = %s::regnamespace ORDER BY 1"
        ),
    )
    found = [db.execute(query, (schema,)).fetchall() for query in queries]
    return [
        [tuple(str(value).replace(f'"{schema}"', schema).replace(f"{schema}.", "") for value in row) for row in rows]
        for rows in found
    ]


def test_older_tables_are_brought_forward_with_their_runs(db: Any, database: str) -> None:
    make_version_1(db, database)
    with closing(PostgresStore(database)) as store:
        assert {"free", "r"} == {run.run_id for run in store.heads(HeadFilter(), limit=9)}
        assert ["free"] == [run.run_id for run in store.heads(HeadFilter(tag=("a", "b")), limit=9)]
        assert Created() == store.create("gone", [a_start()], head=a_head(), attempt_id="b")
        gone = store.head("gone")
        assert gone is not None
        assert 2 == gone.fence
        assert [] == [part.problem for part in store.verify() if part.problem]
        assert isinstance(store.arrive(an_arrival("s")), Arrival)
    assert [(postgres_schema.SCHEMA_VERSION,)] == db.execute("SELECT version FROM stepwell.stepwell_schema").fetchall()
    assert catalogue(db, "fresh") == catalogue(db, "stepwell")


RACE = """
import sys
from stepwell_stores.postgres import PostgresStore
store = PostgresStore(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(type(store.claim("free", sys.argv[2], 60)).__name__, flush=True)
sys.stdin.read()
store.close()
"""


def test_processes_that_open_older_tables_at_once_all_find_them_brought_forward(
    db: Any, database: str, python: Any
) -> None:
    """One of them does it, and one of them gets the lease."""
    make_version_1(db, database)
    processes = [python(RACE, database, f"w{n}") for n in range(6)]
    assert ["ready\n"] * 6 == [process.stdout.readline() for process in processes]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert ["Lease\n", *["RunHead\n"] * 5] == sorted(process.stdout.readline() for process in processes)
    assert [(postgres_schema.SCHEMA_VERSION,)] == db.execute("SELECT version FROM stepwell.stepwell_schema").fetchall()


def test_who_is_of_an_older_version_writes_no_more(db: Any, database: str) -> None:
    """It was at work when the tables were brought forward, and knows nothing of runs that are elsewhere."""
    with closing(PostgresStore(database)) as store:
        store.create("r", [a_start()], head=a_head(), attempt_id="a")
        lease = store.claim("r", "me", 60)
        assert isinstance(lease, Lease)
        db.execute("UPDATE stepwell.stepwell_schema SET version = version + 1")
        for write in (
            lambda: store.append("r", 0, 1, [a_record()], attempt_id="own", fence=lease.fence),
            lambda: store.create("s", [a_start()], head=a_head(), attempt_id="a"),
            lambda: store.arrive(an_arrival("s")),
            lambda: store.depart(replace(an_arrival().run, run_id="r"), Departure("there", "t")),
            lambda: store.rewrite("r", 0, 0, [], []),
        ):
            with pytest.raises(NewerFormatError, match="upgrade stepwell"):
                write()


# ---- at once


def test_of_a_create_and_an_arrival_one_has_the_id(database: str) -> None:
    with closing(PostgresStore(database)) as store:
        won = set[str]()
        for number in range(30):
            run_id = f"r{number}"
            arrival = an_arrival(run_id)

            def create(run_id: str = run_id) -> object:
                return store.create(run_id, [a_start()], head=a_head(), attempt_id="new")

            made, there = together(create, lambda arrival=arrival: store.arrive(arrival))  # type: ignore[misc]
            if isinstance(made, Created):
                assert there is None
                assert store.head(run_id) is not None
                won.add("create")
            else:
                assert isinstance(made, RunArrivingError)
                assert arrival == there
                won.add("arrive")
        assert [] == [part.problem for part in store.verify() if part.problem]
        left = {one.run.run_id for one in store.arrivals(limit=99)}
        assert left.isdisjoint(run.run_id for run in store.heads(HeadFilter(), limit=99))
        assert 30 == len(left) + len(store.heads(HeadFilter(), limit=99))
        assert won


def test_an_arrival_waits_for_a_create_that_is_under_way(db: Any, database: str) -> None:
    """It can't see it before it is committed."""
    with closing(PostgresStore(database)) as store:
        assert store.head("r") is None
        found: list[object] = []
        with psycopg.connect(database) as other:
            assert other.execute(store._move_sql.hold.replace("-1", "0"), ("r",)).fetchall() == [(1,)]
            thread = threading.Thread(target=lambda: found.append(store.arrive(an_arrival())))
            thread.start()
            while db.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone() == (0,):
                threading.Event().wait(0.01)
            other.commit()
        thread.join(30)
        assert [None] == found


def test_records_are_staged_while_others_create_and_land(database: str) -> None:
    """Whatever comes when, the run lands once, whole, and is created by nobody."""
    with closing(PostgresStore(database)) as store:
        for number in range(12):
            run_id = f"r{number}"
            assert store.arrive(an_arrival(run_id)) is not None
            store.stage(run_id, "one", 0, 0, LINES[:2])

            def create(run_id: str = run_id) -> object:
                return store.create(run_id, [a_start()], head=a_head(), attempt_id="new")

            def stage(run_id: str = run_id) -> object:
                store.stage(run_id, "one", 0, 2, LINES[2:])
                return "staged"

            def land(run_id: str = run_id) -> object:
                while True:
                    try:
                        return store.land(run_id, "one")
                    except StoreUnavailableError:
                        raise
                    except StoreError:  # not all of it is there
                        continue

            made, staged, landed = together(create, stage, land)
            assert isinstance(made, (RunArrivingError, Exists))
            assert staged == "staged"
            assert landed is True
            tail = store.read(run_id)
            assert tail is not None
            assert LINES == tail.records


def test_who_looks_while_runs_land_never_hears_that_there_is_none(database: str) -> None:
    with closing(PostgresStore(database)) as store, closing(PostgresStore(database)) as others:
        said = list[object]()
        stop = threading.Event()

        def look() -> None:
            number = 0
            while not stop.is_set() and number < 40:
                try:
                    found = (others.head(f"r{number}"), others.read(f"r{number}"))
                    said.append(found)
                    assert None not in found
                    number += 1
                except RunArrivingError:
                    pass
                except Exception as error:
                    said.append(error)
                    return

        for number in range(40):
            assert store.arrive(an_arrival(f"r{number}")) is not None
            store.stage(f"r{number}", "one", 0, 0, LINES)
        looks = threading.Thread(target=look)
        looks.start()
        for number in range(40):
            assert store.land(f"r{number}", "one")
        looks.join(60)
        stop.set()
        assert 40 == len(said), said[-1]


# ---- one at a time


def test_an_append_whose_very_record_is_staged_is_refused_all_the_same(database: str) -> None:
    """It was written here before the run left, and comes back with it."""
    with closing(PostgresStore(database)) as store:
        made = store.create("r", [a_start()], head=a_head(), attempt_id="a")
        assert made == Created()
        lease = store.claim("r", "me", 60)
        assert isinstance(lease, Lease)
        store.append("r", 0, 1, [a_record(1)], attempt_id="own", fence=lease.fence)
        head, tail = store.head("r"), store.read("r")
        assert head is not None
        assert tail is not None
        assert store.depart(head, Departure("there", "t"))
        with pytest.raises(RunMovedError):
            store.append("r", 0, 1, [a_record(1)], attempt_id="own", fence=lease.fence)
        assert store.arrive(Arrival(replace(head, lease_until=None), (2,), "there", "back")) is not None
        store.stage("r", "back", 0, 0, tail.records)
        with pytest.raises(RunArrivingError):
            store.append("r", 0, 1, [a_record(1)], attempt_id="own", fence=lease.fence)
        assert store.land("r", "back")


def test_runs_are_not_moved_inside_of_a_transaction_of_a_program(database: str) -> None:
    with closing(PostgresStore(database)) as store:
        store.create("r", [a_start()], head=a_head(), attempt_id="a")
        lease = store.claim("r", "me", 60)
        assert isinstance(lease, Lease)
        arrival, seen = an_arrival("s"), replace(an_arrival().run, run_id="r")
        calls: list[Callable[[], object]] = [
            lambda: store.arrive(arrival),
            lambda: store.stage("s", "one", 0, 0, LINES),
            lambda: store.land("s", "one"),
            lambda: store.turn_away(arrival),
            lambda: store.depart(seen, Departure("there", "t")),
            lambda: store.rewrite("r", 0, 0, [], []),
        ]

        def work(connection: Any) -> list[Any]:
            for call in calls:
                with pytest.raises(StoreError, match="by other ways than its connection"):
                    call()
            with pytest.raises(Exception, match="the store's own"):
                connection.execute("UPDATE stepwell.stepwell_deleted SET arrival = NULL")
            return [a_record()]

        store.transact("r", 0, 1, work, attempt_id="t", fence=lease.fence, seconds=9)
        assert store.arrive(arrival) is not None

        def unaware(_: Any) -> list[Any]:
            raise AssertionError("it is not here")

        with pytest.raises(RunArrivingError):
            store.transact("s", 0, 3, unaware, attempt_id="t", fence=3, seconds=9)


def test_what_was_staged_under_another_state_leaves_no_attempts(database: str) -> None:
    """Else a signal whose id is that of an attempt which never came would be taken for sent."""
    with closing(PostgresStore(database)) as store:
        assert store.arrive(an_arrival()) is not None
        other = [LINES[0], *seal([a_record("x", "resume")], session=3, offset=1, attempt_id="sent")]
        store.stage("r", "one", 0, 0, other)
        store.stage("r", "one", 0, 0, LINES)
        assert store.land("r", "one")
        sent = store.append("r", None, None, [a_record("x", "resume")], attempt_id="sent")
        assert 3 == getattr(sent, "seq", None)


def test_damage_of_a_record_that_nobody_knows_of_is_still_told(db: Any, database: str) -> None:
    with closing(PostgresStore(database)) as store:
        assert store.head("r") is None
        db.execute("INSERT INTO stepwell.stepwell_events VALUES ('r', 0, 0, 'x')")
        with pytest.raises(CorruptHistoryError, match="disagree"):
            store.create("r", [a_start()], head=a_head(), attempt_id="a")
        assert 1 == len([part for part in store.verify() if part.problem])


def test_a_move_whose_connection_is_cut_anywhere_loses_and_doubles_nothing(
    postgres_server: Postgres, database: str
) -> None:
    """Each call of a move may be made again: whatever became of it, the run is in one store, whole."""
    chance, cuts = random.Random(11), 0
    url = database.replace(f":{postgres_server.port}/", ":{}/") + "?listen=off"
    with (
        closing(PostgresStore(url.format(postgres_server.port))) as direct,
        proxy(postgres_server.port) as between,
        closing(PostgresStore(url.format(between.port))) as store,
    ):
        for number in range(30):
            run_id = f"r{number}"
            arrival = an_arrival(run_id)
            calls: list[Callable[[], object]] = [
                lambda arrival=arrival: store.arrive(arrival),  # type: ignore[misc]
                lambda run_id=run_id: store.stage(run_id, "one", 0, 0, LINES),  # type: ignore[misc]
                lambda run_id=run_id: store.land(run_id, "one"),  # type: ignore[misc]
                lambda seen=arrival.run: store.depart(seen, Departure("back", "t")),  # type: ignore[misc]
            ]
            for call in calls:
                way: Way = chance.choice(("up", "down"))
                cut = between.cut_after(way, chance.randint(1, 1500))
                for _ in range(20):
                    try:
                        call()
                        break
                    except StoreError:
                        between.heal()
                else:
                    raise AssertionError("it never came to an end")
                cuts += cut.is_set()
                between.heal()
                if call is calls[2]:
                    tail = direct.read(run_id)
                    assert tail is not None
                    assert LINES == tail.records
            with pytest.raises(RunMovedError):
                direct.head(run_id)
        assert [] == direct.heads(HeadFilter(), limit=9)
        assert [] == direct.arrivals(limit=9)
        assert 0 == direct.size().events
        assert [] == [part.problem for part in direct.verify() if part.problem]
    assert cuts > 30
