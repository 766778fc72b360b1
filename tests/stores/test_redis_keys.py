"""What the Redis store has in its keys: lists by index, damage, hints, and scripts that a server forgot."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.servers.proxy import proxy
from tests.servers.valkey import Valkey, valkey

from stepwell import Engine, Flow, Step, workflow
from stepwell.errors import CorruptHistoryError
from stepwell.events import Step as Recorded
from stepwell.store import AlreadyCommitted, Committed, Created, HeadFilter, Lease, LeaseRequest, Waiting, closed_key
from stepwell.testing.contract import a_head, a_record, a_start
from stepwell_stores.redis import RedisStore
from stepwell_stores.redis.rows import name_of

START = 1_700_000_000_000_000


@pytest.fixture
def prefix() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def store(valkey_server: Valkey, prefix: str) -> Iterator[RedisStore]:
    made = RedisStore(valkey_server.url(prefix=prefix))
    yield made
    made.close()


@pytest.fixture
def client(valkey_server: Valkey) -> Iterator[Any]:
    with valkey_server.connect() as made:
        yield made


def commands(client: Any) -> int:
    """How many commands the server has run, those of scripts too."""
    return sum(found["calls"] for found in client.info("commandstats").values())


def put(store: RedisStore, run_id: str = "r", **head: Any) -> Lease:
    made = store.create(run_id, [a_start()], head=a_head(**head), attempt_id="a", lease=LeaseRequest("me", 60))
    assert isinstance(made, Created)
    assert made.lease is not None
    return made.lease


# ---- lists


@pytest.fixture(scope="module")
def crowd(valkey_server: Valkey) -> Iterator[RedisStore]:
    """12,000 runs, most of them closed; 12 are of one workflow, 12 have a tag, 12 wait, 12 are due."""
    store = RedisStore(valkey_server.url(prefix=uuid.uuid4().hex))

    def fill(first: int) -> None:
        for n in range(first, 12_000, 6):
            rare = n % 1000 == 7
            head = a_head(
                created=START + n // 3,  # some of one age
                updated=START + n,
                workflow="rare" if rare else "common",
                tags={"customer": "ada"} if rare else {},
                waiting=(Waiting("go", "w", 1),) if rare else (),
                status="suspended" if rare else "completed",
                due=START + n if rare else None,
            )
            store.create(f"run {n:05}", [a_start()], head=head, attempt_id="a", then="open" if rare else "closed")

    threads = [threading.Thread(target=fill, args=(first,)) for first in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    yield store
    store.close()


@pytest.mark.parametrize(
    ("where", "found"),
    [
        (HeadFilter(), 20),
        (HeadFilter(workflow="rare"), 12),
        (HeadFilter(status="completed"), 20),
        (HeadFilter(status="suspended", workflow="rare"), 12),
        (HeadFilter(status="running"), 0),
        (HeadFilter(tag=("customer", "ada")), 12),
        (HeadFilter(tag=("customer", None)), 12),
        (HeadFilter(waiting_for="go"), 12),
        (HeadFilter(blocked=True), 0),
        (HeadFilter(closed=False), 12),
        (HeadFilter(closed=True, workflow="common"), 20),
    ],
    ids=repr,
)
def test_a_page_costs_what_it_holds_however_many_runs_there_are(
    crowd: RedisStore, client: Any, where: HeadFilter, found: int
) -> None:
    before = commands(client)
    heads = crowd.heads(where, limit=20)
    assert found == len(heads)
    assert commands(client) - before < 30 + 8 * 20
    if heads:
        before = commands(client)
        crowd.heads(where, limit=20, after=heads[-1].run_id)
        assert commands(client) - before < 60 + 8 * 20


def test_so_do_closed_runs_and_what_is_due(crowd: RedisStore, client: Any) -> None:
    before = commands(client)
    page = crowd.closed(limit=20)
    assert 20 == len(page)
    assert 20 == len(crowd.closed(limit=20, after=closed_key(page[-1])))
    assert 20 == len(crowd.closed(limit=20, newest_first=True))
    assert START + 7 == crowd.next_due()
    leases = crowd.claim_due("w", 0.001, now=START + 2007, limit=2)
    assert ["run 00007", "run 01007"] == [lease.run_id for lease in leases]
    for lease in leases:
        crowd.release(lease)
    assert commands(client) - before < 700


def test_pages_hold_every_run_once_and_in_order(crowd: RedisStore) -> None:
    seen: list[str] = []
    after = None
    while page := crowd.heads(HeadFilter(), limit=777, after=after):
        seen += [head.run_id for head in page]
        after = seen[-1]
    assert sorted((f"run {n:05}" for n in range(12_000)), reverse=True) == seen
    assert 12_000 == crowd.size().events


def test_a_long_history_is_read_in_pages(store: RedisStore, client: Any, prefix: str) -> None:
    """No script reads more than a few megabytes, and the end is found without the beginning."""
    put(store)
    for seq in range(1, 9001, 500):
        done = store.append("r", 0, seq, [a_record("x" * 500)] * 500, attempt_id="x", fence=1)
        assert Committed(seq, 0) == done
    client.config_resetstat()
    tail = store.read("r")
    assert tail is not None
    assert (9001, True) == (len(tail.records), tail.checked)
    assert client.info("commandstats")["cmdstat_evalsha"]["calls"] >= 4
    client.config_resetstat()
    tail = store.read("r", 8999)
    assert tail is not None
    assert 2 == len(tail.records)
    assert 1 == client.info("commandstats")["cmdstat_lrange"]["calls"]


def test_a_run_with_many_incarnations_is_removed_in_steps(store: RedisStore, client: Any, prefix: str) -> None:
    lease = put(store)
    for number in range(1, 1200):
        where: dict[str, Any] = {"expected_seq": 1, "fence": lease.fence, "lease": LeaseRequest("me", 60)}
        opened = store.open_incarnation("r", number, [a_start()], head=a_head(), attempt_id=f"n{number}", **where)
        assert isinstance(opened, Committed)
        assert opened.lease is not None
        lease = opened.lease
    assert 1200 == store.size().events
    end = [a_record(kind="complete")]
    done = a_head(status="completed")
    store.append("r", 1199, 1, end, attempt_id="x", head=done, fence=lease.fence, then="closed")
    assert store.delete("r", 1199)
    kept = {f"{{{prefix}}}:{name}".encode() for name in ("meta", "gone")}
    assert kept == set(client.keys(f"{{{prefix}}}*"))


# ---- what a process that died left, and damage


def test_what_is_left_of_a_removal_is_swept_later(
    store: RedisStore, client: Any, prefix: str, monkeypatch: Any
) -> None:
    lease = put(store)
    store.append(
        "r", 0, 1, [a_record()], attempt_id="x", head=a_head(status="failed"), fence=lease.fence, then="closed"
    )
    with monkeypatch.context() as here:
        here.setattr(RedisStore, "_sweep", lambda *_: None)  # the process ends here
        assert store.delete("r", 0)
    assert client.exists(f"{{{prefix}}}:log:1:0:r")
    assert [] == [part.problem for part in store.verify() if part.problem is not None]
    put(store)
    tail = store.read("r")
    assert tail is not None
    assert 1 == tail.seq
    store.vacuum()
    assert not client.exists(f"{{{prefix}}}:log:1:0:r")
    assert store.read("r") == tail


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda client, base: client.lset(f"{base}log:1:0:r", 1, b"{}"), "seq 1"),
        (lambda client, base: client.rpop(f"{base}log:1:0:r"), "record 2 of 3 is missing"),
        (lambda client, base: client.delete(f"{base}log:1:0:r"), "record 0 of 3 is missing"),
        (lambda client, base: client.hset(f"{base}run:r", "h", b'{"status":"nice"}'), "damaged"),
        (lambda client, base: client.hdel(f"{base}run:r", "f"), "field f is missing"),
        (lambda client, base: client.zrem(f"{base}ix:wf:triage", "r"), "missing in .*ix:wf:triage"),
        (lambda client, base: client.zrem(f"{base}ix:all", "r"), "no list has"),
        (lambda client, base: client.delete(f"{base}run:r"), "no row|no run"),
    ],
    ids=["a record", "the last record", "all records", "a head", "a field", "an index", "the list", "a row"],
)
def test_damage_is_found_and_named(
    store: RedisStore, client: Any, prefix: str, damage: Callable[[Any, str], Any], told: str
) -> None:
    lease = put(store)
    head = a_head(updated=START + 1)
    store.append("r", 0, 1, [a_record(), a_record()], attempt_id="x", head=head, fence=lease.fence, release=True)
    put(store, "whole")
    damage(client, f"{{{prefix}}}:")
    problems = [str(part.problem) for part in store.verify() if part.problem is not None]
    assert problems
    assert any(re.search(told, text) for text in problems), problems
    assert any(part.run_id == "whole" and part.problem is None for part in store.verify())
    if "record" in told or "seq" in told:
        with pytest.raises(CorruptHistoryError, match=told):
            store.read("r")


def test_names_of_keys_are_the_same_here_and_in_scripts(store: RedisStore, client: Any, prefix: str) -> None:
    chance = random.Random(1)
    letters = "aZ09-_.~ /:%{}é🙂\n*?[]\\\x00\x7f"
    for n in range(200):
        run_id = "".join(chance.choice(letters) for _ in range(1 + n % 9)) + str(n)
        put(store, run_id)
        assert client.exists(f"{{{prefix}}}:run:{name_of(run_id)}")


# ---- scripts and hints


def test_scripts_that_the_server_forgot_are_sent_again(store: RedisStore, client: Any) -> None:
    lease = put(store)
    for seq in range(1, 30):
        client.script_flush()
        assert Committed(seq, 0) == store.append("r", 0, seq, [a_record(seq)], attempt_id="x", fence=lease.fence)
    assert AlreadyCommitted(29, 0) == store.append("r", 0, 29, [a_record(29)], attempt_id="x", fence=lease.fence)


def test_a_wait_hears_of_another_process_at_once_and_without_hints_soon(
    valkey_server: Valkey, prefix: str, client: Any
) -> None:
    with proxy(valkey_server.port) as between:
        here = RedisStore(f"redis://127.0.0.1:{between.port}/0?prefix={prefix}")
        there = RedisStore(valkey_server.url(prefix=prefix))
        lease = put(there)
        for seq, deaf in ((1, False), (2, True)):
            if deaf:  # whoever listens is cut off, again and again, and what it would be told is lost
                client.client_kill_filter(_type="pubsub")
            told: list[bool] = []
            thread = threading.Thread(target=lambda seq=seq, told=told: told.append(here.wait("r", seq, 30)))
            thread.start()
            while not deaf and not client.pubsub_numsub(f"{{{prefix}}}:told:r")[0][1]:
                pass
            if deaf:
                client.client_kill_filter(_type="pubsub")
            there.append("r", 0, seq, [a_record()], attempt_id="x", fence=lease.fence)
            thread.join(10)
            assert [True] == told
        here.close()
        there.close()


def test_a_worker_elsewhere_is_told_that_a_run_is_due(valkey_server: Valkey, prefix: str, client: Any) -> None:
    here, there = (RedisStore(valkey_server.url(prefix=prefix)) for _ in "ab")
    told = threading.Event()
    unlisten = here.on_due(told.set)
    while not client.pubsub_numsub(f"{{{prefix}}}:told-due")[0][1]:
        pass
    there.create("r", [a_start()], head=a_head(due=START), attempt_id="a")
    assert told.wait(10)
    told.clear()
    there.append("r", None, None, [a_record()], attempt_id="b", due=START)
    assert told.wait(10)
    unlisten()
    here.close()
    there.close()


# ---- a worker, and the server that goes and comes

FLOW = """
import sys
from stepwell import Engine, Flow, Step, workflow
from stepwell.worker import Worker

def effect(name: str) -> str:
    with open("effects", "a") as file:
        file.write(name + "\\n")
    return name

@workflow
def chain(run: str) -> Flow[int]:
    done = 0
    for n in range(20):
        yield Step(effect, f"{run} {n}")
        done += 1
    return done

engine = Engine(sys.argv[1], [chain])
"""


def test_a_server_that_restarts_under_a_worker_loses_nothing(tmp_path: Path) -> None:
    """Its runs end, and no recorded step runs again; what was under way may."""
    with valkey(durable=True) as server:
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        code = FLOW + "Worker(engine, poll=0.05).run()\n"
        with Engine(server.url(), [chain]) as engine:
            for n in range(6):
                engine.submit(chain, f"r{n}", run_id=f"r{n}")
            process = subprocess.Popen([sys.executable, "-c", code, server.url()], env=env, cwd=tmp_path)
            try:
                for restart in range(3):
                    _until(lambda restart=restart: _lines(tmp_path) > 10 + 25 * restart)  # type: ignore[misc]
                    server.program.kill()
                    server.program.start()
                _until(lambda: all(run.status == "completed" for run in _runs(engine)))
            finally:
                process.kill()
                process.wait()
            for n in range(6):
                steps = [event.step_id for event in engine.history(f"r{n}") if isinstance(event, Recorded)]
                assert 20 == len(steps) == len(set(steps))
            assert 120 <= _lines(tmp_path) < 120 + 3 * 10


@workflow
def chain(run: str) -> Flow[int]:
    for n in range(20):
        yield Step(str, f"{run} {n}")
    return 20


def _runs(engine: Engine) -> Any:
    try:
        return engine.runs(limit=10)
    except Exception:
        return engine.runs(limit=10)


def _lines(folder: Path) -> int:
    file = folder / "effects"
    return len(file.read_text().splitlines()) if file.exists() else 0


def _until(holds: Callable[[], bool], seconds: float = 90) -> None:
    pause = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if holds():
            return
        pause.wait(0.02)
    raise AssertionError("it never came to that")
