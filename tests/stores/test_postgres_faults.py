"""The Postgres store under faults: cut connections, zombie commits, dead backends, restarts, stopped workers."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.servers.postgres import Postgres, postgres
from tests.servers.proxy import Link, Proxy, Way, proxy

from stepwell import Engine, Flow, Step, workflow
from stepwell.store import (
    AlreadyCommitted,
    Committed,
    Conflict,
    Created,
    Fenced,
    Lease,
    LeaseRequest,
    NotApplied,
    Unknown,
)
from stepwell.testing.contract import a_head, a_record, a_start
from stepwell.worker import Worker
from stepwell_stores.postgres import PostgresStore
from stepwell_stores.postgres.schema import SCHEMA_VERSION

PATIENCE = 60.0


@pytest.fixture
def store(database: str) -> Iterator[PostgresStore]:
    made = PostgresStore(database)
    yield made
    made.close()


@pytest.fixture
def between(postgres_server: Postgres) -> Iterator[Proxy]:
    with proxy(postgres_server.port) as made:
        yield made


@pytest.fixture
def through(between: Proxy, database: str) -> Iterator[PostgresStore]:
    """The same database through a proxy."""
    made = PostgresStore(re.sub(r":\d+/", f":{between.port}/", database) + "?listen=off")
    yield made
    made.close()


def eventually(what: Callable[[], bool]) -> None:
    deadline, pause = time.monotonic() + PATIENCE, threading.Event()
    while not what():
        assert time.monotonic() < deadline, "it never came"
        pause.wait(0.01)


def lines(store: PostgresStore, run_id: str = "r") -> list[bytes]:
    tail = store.read(run_id)
    assert tail is not None
    return tail.records


def settled(attempt: Callable[[], Any]) -> Any:
    """Repeat the same attempt until the store can say how it ended, as the engine does."""
    outcome = None
    for _ in range(100):
        outcome = attempt()
        if not isinstance(outcome, (NotApplied, Unknown)):
            return outcome
        threading.Event().wait(0.05)
    raise AssertionError(f"never settled: {outcome}")


# ---- zombies


class Zombie:
    """Cuts the client off when it sends `what`, and hands that on a while later: the server commits for nobody."""

    def __init__(self, between: Proxy, what: bytes) -> None:
        self.landed = threading.Event()
        self.met = False
        self._what = what
        between.on_bytes = self._decide

    def _decide(self, link: Link, way: Way, data: bytes) -> None:
        if way == "up" and self._what in data and not self.met:
            self.met = True
            link.cut(server=False)
            threading.Timer(0.4, self._land, (link, data)).start()
        elif link.open:
            link.send(way, data)

    def _land(self, link: Link, data: bytes) -> None:
        link.send("up", data)
        # until the server has answered: the answer finds nobody
        with contextlib.suppress(OSError):
            link.side("down").settimeout(5)
            link.side("down").recv(65536)
        link.cut()
        self.landed.set()


@pytest.mark.parametrize("how", ["own", "tell", "transact", "create"])
def test_a_commit_that_comes_later_than_its_client_is_told_is_no_second_one(
    store: PostgresStore, through: PostgresStore, between: Proxy, create: Any, postgres_server: Any, how: str
) -> None:
    lease = create(store)
    assert through.head("r") is not None  # its connection is open
    with postgres_server.connect(re.sub(r".*/", "", store.place.split("?")[0])) as db:
        db.execute("CREATE TABLE rows (n int)")

        def work(connection: Any) -> Any:
            connection.execute("INSERT INTO rows VALUES (1)")
            return [a_record("zombie")]

        attempts: dict[str, Callable[[], Any]] = {
            "own": lambda: through.append("r", 0, 1, [a_record("zombie")], attempt_id="z", fence=lease.fence),
            "tell": lambda: through.append("r", None, None, [a_record("zombie")], attempt_id="z"),
            "transact": lambda: through.transact("r", 0, 1, work, attempt_id="z", fence=lease.fence, seconds=5),
            "create": lambda: through.create("s", [a_start("zombie")], head=a_head(), attempt_id="z"),
        }
        zombie = Zombie(between, b"COMMIT\0" if how in ("tell", "transact") else b"zombie")
        outcomes = [attempts[how]()]
        assert isinstance(outcomes[0], Unknown)
        done = settled(attempts[how])
        assert zombie.landed.wait(PATIENCE)
        assert isinstance(done, (Committed, AlreadyCommitted, Created))
        run_id = "s" if how == "create" else "r"
        eventually(lambda: [] == _busy(db))
        assert 1 == sum(b"zombie" in line for line in lines(store, run_id))
        assert (1 if how == "transact" else 0) == db.execute("SELECT count(*) FROM rows").fetchone()[0]
        assert [] == [part.problem for part in store.verify() if part.problem]


def _busy(db: Any) -> list[Any]:
    """Others who are in a transaction."""
    return db.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND state <> 'idle' AND backend_type = 'client backend'"
    ).fetchall()


# ---- backends and servers that die


@pytest.fixture(scope="module")
def durable() -> Iterator[Postgres]:
    """A server that keeps what it acknowledged, whose writer of the log hardly ever comes by itself."""
    with postgres(durable=True, wal_writer_delay="10s", wal_writer_flush_after="1GB") as server:
        yield server


@workflow
def three() -> Flow[int]:
    total = 0
    for n in range(3):
        total += yield from Step(abs, n).options(into=int)
    return total


class Pen(threading.Thread):
    """Appends records one after the other, each repeated until it is settled, and keeps what was acknowledged."""

    def __init__(self, store: PostgresStore, lease: Lease) -> None:
        super().__init__(daemon=True)
        self.store, self.lease = store, lease
        self.acked = 0
        self.unknown = 0
        self.stopped = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.stopped.is_set():
                seq = self.acked + 1
                settled(lambda: self._append(seq))  # noqa: B023
                self.acked = seq
        except BaseException as error:
            self.error = error

    def _append(self, seq: int) -> Any:
        outcome = self.store.append(
            self.lease.run_id, 0, seq, [a_record(seq)], attempt_id="own", fence=self.lease.fence
        )
        self.unknown += isinstance(outcome, Unknown)
        return outcome

    def more(self, count: int) -> None:
        wanted = self.acked + count
        eventually(lambda: self.acked >= wanted or self.error is not None)
        assert self.error is None

    def end(self) -> None:
        self.stopped.set()
        self.join(PATIENCE)
        assert self.error is None


def test_what_was_acknowledged_survives_the_death_of_a_backend(durable: Postgres, create: Any) -> None:
    """SIGKILL of one has the server start anew. The role has synchronous_commit off, which each write puts right."""
    name = durable.database()
    with durable.connect() as db:
        db.execute("DROP ROLE IF EXISTS hasty")
        db.execute("CREATE ROLE hasty SUPERUSER LOGIN")
        db.execute("ALTER ROLE hasty SET synchronous_commit = off")
    url = durable.url(name).replace("postgres@", "hasty@")
    store = PostgresStore(url)
    assert "off, on for each write" == store.durability.settings["synchronous_commit"]
    pen = Pen(store, create(store))
    pen.start()
    for _ in range(2):
        pen.more(10)
        with contextlib.closing(_connected(durable, name)) as db:
            (pid,) = db.execute(
                "SELECT pid FROM pg_stat_activity WHERE datname = %s AND usename = 'hasty' LIMIT 1", (name,)
            ).fetchone()
        _kill_backend(pid)
        acked = pen.acked
        pen.more(5)
        assert acked <= len(lines(store)) - 1
    pen.end()
    assert pen.acked == len(lines(store)) - 1
    store.close()


def test_without_synchronous_commit_the_death_of_a_backend_loses_what_was_acknowledged(durable: Postgres) -> None:
    name = durable.database()
    with contextlib.closing(_connected(durable, name)) as db:
        db.execute("CREATE TABLE bare (n int)")
        db.execute("SET synchronous_commit = off")
        for n in range(50):
            db.execute("INSERT INTO bare VALUES (%s)", (n,))
        (pid,) = db.execute("SELECT pg_backend_pid()").fetchone()
        _kill_backend(pid)
    with contextlib.closing(_connected(durable, name)) as db:
        assert 50 > db.execute("SELECT count(*) FROM bare").fetchone()[0]


def _kill_backend(pid: int) -> None:
    """Kill a backend, and wait until the postmaster has reaped it, which lets nobody in before its recovery then."""
    os.kill(pid, signal.SIGKILL)

    def reaped() -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False

    eventually(reaped)


def _connected(server: Postgres, name: str) -> Any:
    """A connection, as soon as the server has one."""
    import psycopg

    found: list[Any] = []

    def connects() -> bool:
        try:
            found.append(server.connect(name))
        except psycopg.OperationalError:
            return False
        return True

    eventually(connects)
    return found[0]


def test_a_server_that_starts_anew_in_the_midst_of_it_loses_no_run(durable: Postgres) -> None:
    name = durable.database()
    calls: list[str] = []

    def step_of(run: str, n: int) -> int:
        calls.append(f"{run}-{n}")
        return n

    @workflow
    def flow(run: str) -> Flow[int]:
        total = 0
        for n in range(3):
            total += yield from Step(step_of, run, n)
        return total

    with Engine(PostgresStore(durable.url(name)), [flow], lease=2) as engine:
        for n in range(40):
            engine.submit(flow, f"r{n}", run_id=f"r{n}")
        worker = Worker(engine, threads=4)
        thread = threading.Thread(target=worker.run, daemon=True)
        thread.start()
        eventually(lambda: len(calls) > 20)
        durable.program.stop(signal.SIGQUIT)
        durable.program.start()
        eventually(lambda: 40 == sum(run.status == "completed" for run in _runs(engine)))
        worker.stop()
        thread.join(PATIENCE)
        for n in range(40):
            kinds = [event.kind for event in engine.history(f"r{n}")]
            assert ["start", "step", "step", "step", "complete"] == kinds
    assert 120 <= len(calls) <= 120 + 4 * 2, "a step is repeated only when its record was cut off"


def _runs(engine: Engine) -> list[Any]:
    from stepwell import StoreError

    try:
        return list(engine.runs(limit=100))
    except StoreError:  # on its way
        return []


# ---- stopped workers

STOPPED = """
import sys
from stepwell.store import LeaseRequest
from stepwell.testing.contract import a_record
from stepwell_stores.postgres import PostgresStore
from stepwell_stores.postgres.session import Quick

store = PostgresStore(sys.argv[1])
if sys.argv[2] == "unfenced":
    sql = store._sql.append_one
    assert b"r.fence = $3" in sql.text
    text = sql.text.replace(b"r.fence = $3", b"$3::bigint IS NOT NULL")
    store._sql.append_one = Quick(b"unfenced", text, sql.formats)
lease = store.claim("r", "slow", 0.3)
print("claimed", flush=True)
sys.stdin.readline()
print(type(store.append("r", 0, 1, [a_record("stale")], attempt_id="own", fence=lease.fence)).__name__, flush=True)
"""


@pytest.mark.parametrize("how", ["fenced", "unfenced"])
def test_a_worker_that_was_stopped_past_its_lease_writes_nothing(
    store: PostgresStore, database: str, python: Any, how: str
) -> None:
    """The control without a fence does."""
    store.create("r", [a_start()], head=a_head(), attempt_id="a")
    process = python(STOPPED, database, how)
    assert "claimed\n" == process.stdout.readline()
    os.kill(process.pid, signal.SIGSTOP)
    eventually(lambda: isinstance(store.claim("r", "quick", 3600), Lease))
    os.kill(process.pid, signal.SIGCONT)
    process.stdin.write("\n")
    process.stdin.flush()
    said = process.stdout.readline().strip()
    stale = [line for line in lines(store) if b"stale" in line]
    assert ("Fenced", 0) == (said, len(stale)) if how == "fenced" else ("Committed", 1) == (said, len(stale))


# ---- many processes


def forked(count: int, work: Callable[[int], str]) -> list[str]:
    """Call `work` in so many child processes at once; what each gave."""
    gate_out, gate = os.pipe()
    pipes = []
    for number in range(count):
        out, into = os.pipe()
        if not os.fork():
            try:
                os.close(gate)
                os.read(gate_out, 1)
                said = work(number)
            except BaseException as error:
                said = f"{type(error).__name__}: {error}"
            os.write(into, said.encode()[:4000])
            os._exit(0)
        os.close(into)
        pipes.append(out)
    os.close(gate)  # all begin now
    os.close(gate_out)
    found = []
    for out in pipes:
        with os.fdopen(out, "rb") as pipe:
            found.append(pipe.read().decode())
    for _ in pipes:
        os.wait()
    return found


def test_one_of_eight_processes_makes_the_run_and_one_drives_it(postgres_server: Any, database: str) -> None:
    """On a database without tables, which they make as well."""

    def work(number: int) -> str:
        store = PostgresStore(f"{database}?schema=raced&listen=off")
        ask = LeaseRequest(f"p{number}", 60, uuid.uuid4().hex)
        made = settled(lambda: store.create("r", [a_start()], head=a_head(), attempt_id=f"a{number}", lease=ask))
        if isinstance(made, Created) and made.lease is not None:
            outcome = store.append("r", 0, 1, [a_record(number)], attempt_id="own", fence=made.lease.fence)
            return f"made {type(outcome).__name__}"
        return f"found {type(store.claim('r', 'x', 60)).__name__}"

    said = forked(8, work)
    assert ["found RunHead"] * 7 + ["made Committed"] == sorted(said)
    with postgres_server.connect(database.rsplit("/", 1)[1]) as db:
        assert [(SCHEMA_VERSION,)] == db.execute("SELECT version FROM raced.stepwell_schema").fetchall()


def test_a_store_that_was_open_goes_on_in_a_forked_child_and_in_its_parent(store: PostgresStore, create: Any) -> None:
    lease = create(store)
    assert Committed(1, 0) == store.append("r", 0, 1, [a_record()], attempt_id="own", fence=lease.fence)

    def work(number: int) -> str:
        outcome = store.append("r", 0, 2, [a_record("child")], attempt_id="own", fence=lease.fence)
        told = store.append("r", None, None, [a_record("told")], attempt_id="told")
        store.close()
        return f"{type(outcome).__name__} {type(told).__name__}"

    assert ["Committed Committed"] == forked(1, work)
    assert Conflict(4, 0) == store.append("r", 0, 2, [a_record()], attempt_id="own", fence=lease.fence)
    assert 4 == len(lines(store))


# ---- hints


def test_a_wait_hears_of_another_process_s_write_when_its_listener_has_died(
    store: PostgresStore, database: str, postgres_server: Any, create: Any
) -> None:
    lease = create(store)
    other = PostgresStore(database)
    told: list[bool] = []
    thread = threading.Thread(target=lambda: told.append(store.wait("r", 1, PATIENCE)))
    thread.start()
    with postgres_server.connect(database.rsplit("/", 1)[1]) as db:
        listening = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        eventually(lambda: bool(db.execute(listening).fetchall()))
        db.execute(f"SELECT pg_terminate_backend(pid) FROM ({listening}) AS l (pid)")
        other.append("r", 0, 1, [a_record()], attempt_id="own", fence=lease.fence)
        thread.join(PATIENCE)
        assert [True] == told
        eventually(lambda: bool(db.execute(listening).fetchall()))  # and it listens again
    other.close()


def test_a_worker_is_woken_by_what_another_process_submits(store: PostgresStore, database: str, create: Any) -> None:
    woken = threading.Event()
    store.on_due(woken.set)
    other = PostgresStore(database)
    number = 0

    def heard() -> bool:  # the listener may not be there yet
        nonlocal number
        number += 1
        other.create(f"r{number}", [a_start()], head=a_head(due=1), attempt_id="a")
        return woken.wait(0.5)

    eventually(heard)
    other.close()


def test_without_listening_nothing_is_missed(database: str, create: Any) -> None:
    one, two = (PostgresStore(f"{database}?listen=off") for _ in range(2))
    lease = create(one)
    told: list[bool] = []
    thread = threading.Thread(target=lambda: told.append(one.wait("r", 1, PATIENCE)))
    thread.start()
    two.append("r", 0, 1, [a_record()], attempt_id="own", fence=lease.fence)
    thread.join(PATIENCE)
    assert [True] == told
    one.close()
    two.close()


def test_a_stale_owner_is_fenced_by_a_claim_in_another_process(
    store: PostgresStore, database: str, create: Any
) -> None:
    lease = create(store, ttl=0.05)
    other = PostgresStore(database)
    eventually(lambda: isinstance(other.claim("r", "you", 60), Lease))
    assert Fenced(lease.fence + 1) == store.append("r", 0, 1, [a_record()], attempt_id="own", fence=lease.fence)
    other.close()
