"""Redis servers that a store takes, declares or refuses; URLs and clients."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from tests.servers.launching import free_port
from tests.servers.valkey import Valkey, valkey

from stepwell import Engine, Flow, Step, Transaction, workflow
from stepwell.cli import main
from stepwell.errors import (
    CorruptHistoryError,
    InvalidInputError,
    NewerFormatError,
    StoreMisconfiguredError,
    StoreUnavailableError,
)
from stepwell.store import Committed, Created, HeadFilter, Lease, LeaseRequest, NotApplied, Unknown
from stepwell.testing.contract import a_head, a_record, a_start
from stepwell_stores import open_store
from stepwell_stores.redis import RedisStore


@workflow
def adds() -> Flow[int]:
    return (yield from Step(int, "4"))


@pytest.fixture
def url(valkey_server: Valkey) -> str:
    return valkey_server.url(prefix=uuid.uuid4().hex)


@pytest.fixture
def store(url: str) -> Iterator[RedisStore]:
    made = RedisStore(url)
    yield made
    made.close()


def put(store: Any, run_id: str = "r", **how: Any) -> Any:
    return store.create(run_id, [a_start()], head=a_head(), attempt_id="a", **how)


def contents(client: Any, prefix: str) -> dict[bytes, Any]:
    """All that a store has."""
    read = {
        b"hash": client.hgetall,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        b"string": client.get,
    }
    return {key: read[client.type(key)](key) for key in client.keys(f"{{{prefix}}}*")}


# ---- URLs


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("redis:", "needs a host"),
        ("redis:///0", "needs a host"),
        ("redis://h/nine", "number of a database"),
        ("redis://h:port/0", "is no port"),
        ("redis://:sec#ret@h/0", "host|#"),
        ("redis://h/0?prefix={a}", "prefix"),
        ("redis://h/0?prefix=", "prefix"),
        ("redis://h/0?perfect=a", "'perfect'"),
        ("redis://h/0?prefix=a&prefix=b", "twice"),
        ("redis://h/0?evicts=maybe", "evicts=allow"),
        ("redis://h/0?volatile=maybe", "volatile=allow"),
        ("redis://h/0?timeout=0", "timeout=10"),
        ("unix://", "path of a socket"),
    ],
)
def test_a_wrong_url_is_refused_before_anything_is_asked(wrong: str, told: str) -> None:
    with pytest.raises(StoreMisconfiguredError, match=told) as refused:
        open_store(wrong)
    assert "sec#" not in str(refused.value)


def test_a_password_with_odd_characters_is_taken_from_the_url() -> None:
    with valkey() as server:
        server.connect().config_set("requirepass", "p@s:s/#")
        store = open_store(f"redis://:p%40s%3As%2F%23@127.0.0.1:{server.port}/1")
        assert isinstance(put(store), Created)
        store.close()


def test_a_wrong_password_is_named_and_never_shown() -> None:
    with valkey() as server:
        server.connect().config_set("requirepass", "right")
        for user in ("", ":hunter2@", "ada:hunter2@"):
            store = open_store(f"redis://{user}127.0.0.1:{server.port}/0")
            with pytest.raises(StoreMisconfiguredError, match="password") as refused:
                put(store)
            assert "hunter2" not in f"{refused.value}{refused.value.__cause__}"
            store.close()


def test_a_database_that_is_not_there_is_refused(valkey_server: Valkey) -> None:
    store = open_store(valkey_server.url(99))
    with pytest.raises(StoreMisconfiguredError, match="no such database"):
        put(store)
    store.close()


def test_a_server_that_is_away_is_retryable_and_nothing_was_written(valkey_server: Valkey) -> None:
    store = open_store("redis://127.0.0.1:1/0")
    assert isinstance(put(store), NotApplied)
    with pytest.raises(StoreUnavailableError, match=r"127.0.0.1:1/0.*can't be reached.*check that it runs"):
        store.head("r")
    with Engine(store, [adds]) as engine, pytest.raises(StoreUnavailableError, match="can't be reached"):
        engine.start(adds)


def test_a_store_that_must_exist_is_not_begun(url: str, store: RedisStore) -> None:
    strict = open_store(url, must_exist=True)
    for _ in "ab":
        with pytest.raises(StoreMisconfiguredError, match=r"no store at redis://.*prefix"):
            put(strict)
    put(store)
    assert strict.head("r") is not None
    strict.close()


def test_a_socket_serves_as_well(tmp_path: Path) -> None:
    with valkey(unixsocket=str(tmp_path / "s")) as server:
        path = server.connect().config_get("unixsocket")["unixsocket"]
        store = open_store(f"unix://{path}?db=2&prefix=a")
        assert isinstance(put(store), Created)
        assert server.connect(2).exists("{a}:meta")
        store.close()


def test_without_the_driver_the_remedy_is_named(url: str) -> None:
    code = (
        "import sys; sys.modules['redis'] = None\n"
        "from stepwell_stores import open_store\n"
        f"store = open_store({url!r})\n"
        "try: store.head('r')\n"
        "except Exception as e: print(type(e).__name__, e)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    said = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert "StoreMisconfiguredError" in said
    assert "pip install 'stepwell[redis]'" in said


# ---- settings


@pytest.mark.parametrize(
    ("settings", "process", "power"),
    [
        ({"appendonly": "yes", "appendfsync": "always"}, True, True),
        ({"appendonly": "yes", "appendfsync": "always", "no_appendfsync_on_rewrite": "yes"}, True, False),
        ({"appendonly": "yes", "appendfsync": "everysec"}, False, False),
        ({"appendonly": "yes", "appendfsync": "no"}, True, False),
        ({"appendonly": "no"}, False, False),
    ],
    ids=str,
)
def test_what_is_survived_is_read_from_the_live_settings(settings: Any, process: bool, power: bool) -> None:
    with valkey(**settings) as server:
        store = open_store(server.url(volatile="allow"))
        found = store.durability
        assert (process, power, False) == (found.process_crash, found.power_loss, found.failover)
        assert ("advice" in found.settings) == (not power)
        with server.connect() as client:
            client.config_set("appendonly", "yes")
            client.config_set("appendfsync", "always")
            client.config_set("no-appendfsync-on-rewrite", "no")
        assert store.durability.power_loss is True
        store.close()
        server.program.kill()  # one that is writing its first file does not end when it is asked to


def test_settings_that_can_not_be_read_are_never_taken_for_good(valkey_server: Valkey) -> None:
    with valkey_server.connect() as client:
        client.acl_setuser(
            "plain", enabled=True, nopass=True, keys=["*"], channels=["*"], commands=["+@all", "-config"]
        )
    store = open_store(f"redis://plain:x@127.0.0.1:{valkey_server.port}/0?prefix={uuid.uuid4().hex}")
    assert isinstance(put(store), Created)
    found = store.durability
    assert (None, None) == (found.process_crash, found.power_loss)
    assert "CONFIG" in found.settings["advice"]
    store.close()


def test_a_server_that_keeps_no_file_is_refused_unless_that_is_allowed() -> None:
    with valkey(appendonly="no") as server:
        refused = open_store(server.url())
        with pytest.raises(StoreMisconfiguredError, match=r"appendonly no.*set appendonly to yes.*volatile=allow"):
            put(refused)
        with server.connect() as client:
            assert [] == client.keys("*")
            client.acl_setuser(
                "p", enabled=True, nopass=True, keys=["*"], channels=["*"], commands=["+@all", "-config"]
            )
        blind = open_store(server.url().replace("redis://", "redis://p:x@"))
        with pytest.raises(StoreMisconfiguredError, match="appendonly no"):
            put(blind)
        for willing in (
            open_store(server.url(volatile="allow")),
            RedisStore(client=server.connect(), prefix="other", volatile="allow"),
        ):
            assert isinstance(put(willing), Created)
            assert (False, False) == (willing.durability.process_crash, willing.durability.power_loss)


def test_a_server_that_evicts_is_refused_unless_that_is_allowed() -> None:
    with valkey(maxmemory="50mb", maxmemory_policy="allkeys-lru") as server:
        store = open_store(server.url())
        with pytest.raises(StoreMisconfiguredError, match=r"allkeys-lru.*noeviction.*evicts=allow"):
            put(store)
        store.close()
        with server.connect() as client:
            assert 0 == client.dbsize()
        willing = open_store(server.url(evicts="allow"))
        assert isinstance(put(willing), Created)
        assert (False, False) == (willing.durability.process_crash, willing.durability.power_loss)
        willing.close()


def test_a_replica_is_refused_and_its_primary_named(valkey_server: Valkey) -> None:
    with valkey(replicaof=f"127.0.0.1 {valkey_server.port}") as server:
        store = open_store(server.url())
        with pytest.raises(StoreMisconfiguredError, match=rf"replica.*127.0.0.1:{valkey_server.port}"):
            put(store)
        store.close()


def test_a_primary_that_becomes_a_replica_writes_nothing_and_is_found_out(valkey_server: Valkey) -> None:
    with valkey() as server:
        store = open_store(server.url())
        put(store)
        with server.connect() as client:
            client.replicaof("127.0.0.1", valkey_server.port)
        refused = store.append("r", None, None, [a_record()], attempt_id="x")
        assert isinstance(refused, NotApplied)
        assert "replica" in str(refused.cause)
        with pytest.raises(StoreMisconfiguredError, match="replica"):
            store.append("r", None, None, [a_record()], attempt_id="x")
        store.close()


def test_a_server_that_needs_more_replicas_takes_nothing() -> None:
    with valkey(min_replicas_to_write=1) as server:
        store = open_store(server.url())
        refused = put(store)
        assert isinstance(refused, NotApplied)
        assert "min-replicas-to-write" in str(refused.cause)
        store.close()


def test_what_is_no_redis_is_told_from_one_that_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(1000)
                client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        store = open_store(f"redis://127.0.0.1:{listener.getsockname()[1]}/0")
        with pytest.raises(StoreMisconfiguredError, match=r"no Redis.*check host and port"):
            store.head("r")
        thread.join()
        store.close()


def test_keys_of_a_newer_stepwell_are_left_alone(url: str, store: RedisStore, valkey_server: Valkey) -> None:
    put(store)
    meta = f"{{{url.partition('prefix=')[2]}}}:meta"
    with valkey_server.connect() as client:
        client.hset(meta, "format", "2")
        for one in (store, other := RedisStore(url)):
            with pytest.raises(NewerFormatError, match=r"layout 2.*upgrade"):
                one.append("r", None, None, [a_record()], attempt_id="x")
        other.close()
        client.hset(meta, "format", "1")
    tail = store.read("r")
    assert tail is not None
    assert 1 == tail.seq


def test_a_key_of_another_type_stops_a_write_before_it_begins(
    url: str, store: RedisStore, valkey_server: Valkey
) -> None:
    made = put(store, lease=LeaseRequest("me", 30))
    prefix = url.partition("prefix=")[2]
    with valkey_server.connect() as client:
        client.set(f"{{{prefix}}}:ix:status:suspended", "somebody else's")
        before = contents(client, prefix)
        with pytest.raises(CorruptHistoryError, match="another type"):
            store.append(
                "r", 0, 1, [a_record()], attempt_id="x", head=a_head(status="suspended"), fence=made.lease.fence
            )
        assert before == contents(client, prefix)


# ---- memory


def test_a_full_server_refuses_whole_writes_and_keeps_all_that_it_has() -> None:
    """Owners keep their leases and can let go, runs can be removed, and with more memory all goes on."""
    with valkey() as server:
        store = open_store(server.url())
        made = put(store, lease=LeaseRequest("me", 30))
        assert isinstance(made, Created)
        assert made.lease is not None
        done = store.create(
            "done", [a_start(), a_record()], head=a_head(status="completed"), attempt_id="a", then="closed"
        )
        assert isinstance(done, Created)
        seq, big = 30, [a_record("x" * 100_000)]
        for n in range(1, seq):
            store.append("r", 0, n, big, attempt_id="x", fence=1)
        with server.connect() as client:
            client.config_set("maxmemory", "1mb")
        refused = store.append("r", 0, seq, big, attempt_id="x", fence=1)
        assert isinstance(refused, NotApplied)
        assert "maxmemory" in str(refused.cause)
        head = a_head(status="suspended", tags={"a": "b"})
        assert isinstance(store.append("r", 0, seq, big, attempt_id="x", fence=1, head=head), NotApplied)
        assert isinstance(put(store, "another"), NotApplied)
        assert isinstance(store.append("r", None, None, [a_record()], attempt_id="y"), NotApplied)
        assert store.head("another") is None
        assert [] == store.heads(HeadFilter(tag=("a", "b")), limit=9)
        assert store.renew(made.lease, 60) is not None
        assert store.delete("done", 0)
        store.release(made.lease)
        tail = store.read("r")
        assert tail is not None
        assert seq == tail.seq
        assert [] == [part.problem for part in store.verify() if part.problem is not None]
        with server.connect() as client:
            client.config_set("maxmemory", "50mb")
        again = store.claim("r", "me", 30)
        assert isinstance(again, Lease)
        assert Committed(seq, 0) == store.append("r", 0, seq, big, attempt_id="x", fence=again.fence)
        store.close()


# ---- clients


@pytest.mark.parametrize("options", [{}, {"protocol": 2}, {"protocol": 3}, {"decode_responses": True}], ids=str)
def test_a_client_of_the_program_is_used_and_left_open(valkey_server: Valkey, options: Any) -> None:
    client = redis.Redis(port=valkey_server.port, **options)
    first, second = (RedisStore(client=client, prefix=f"{uuid.uuid4().hex}") for _ in "ab")
    with Engine(first, [adds]) as engine:
        assert 4 == engine.start(adds, run_id="é r").unwrap()
        assert first.durability.process_crash is True
        assert not first.wait("é r", 99, 0.15)
    assert second.head("é r") is None
    second.close()
    assert client.ping()
    client.close()


def test_a_client_is_not_taken_into_a_child(valkey_server: Valkey) -> None:
    client = redis.Redis(port=valkey_server.port)
    store = RedisStore(client=client, prefix=uuid.uuid4().hex)
    put(store)
    out, into = os.pipe()
    if not os.fork():
        try:
            store.head("r")
        except StoreMisconfiguredError as e:
            os.write(into, str(e).encode())
        finally:
            os._exit(0)
    os.close(into)
    with os.fdopen(out) as told:
        assert "make client and store in the child" in told.read()
    os.wait()
    assert store.head("r") is not None
    store.close()
    client.close()


def test_a_child_has_connections_of_its_own(store: RedisStore) -> None:
    put(store)
    out, into = os.pipe()
    if not os.fork():
        try:
            for n in range(50):
                store.append("r", None, None, [a_record(n)], attempt_id=f"child-{n}")
            os.write(into, b"done")
        finally:
            os._exit(0)
    os.close(into)
    for n in range(50):
        assert not isinstance(store.append("r", None, None, [a_record(n)], attempt_id=f"p-{n}"), (NotApplied, Unknown))
    with os.fdopen(out) as told:
        assert "done" == told.read()
    os.wait()
    tail = store.read("r")
    assert tail is not None
    assert 101 == tail.seq


def test_either_a_url_or_a_client() -> None:
    with pytest.raises(InvalidInputError, match="either a URL or a client"):
        RedisStore()
    with pytest.raises(StoreMisconfiguredError, match="prefix"):
        RedisStore(client=redis.Redis(), prefix="{a}")


def test_a_transaction_is_refused_with_the_stores_that_have_them(url: str) -> None:
    def work(connection: Any) -> None: ...

    @workflow
    def writes() -> Flow[None]:
        yield from Transaction(work)

    with Engine(url, [writes]) as engine, pytest.raises(InvalidInputError, match="SQLite"):
        engine.start(writes).unwrap()


@pytest.mark.parametrize("verb", ["list", "verify", "size", "prune --older-than 1d", "show r"])
def test_the_commands_take_its_url(url: str, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Engine(url, [adds]) as engine:
        engine.start(adds, run_id="r")
    assert 0 == main(["--store", url, *verb.split()]), capsys.readouterr()


def test_doctor_says_what_the_server_lacks(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Engine(url, [adds]) as engine:
        engine.start(adds, run_id="r")
    assert 1 == main(["--store", url, "doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert ("redis", False) == (found["store"], found["survives"]["powerLoss"])
    assert "appendfsync always" in found["advice"][0]["text"]
    with valkey(durable=True) as server:
        RedisStore(server.url()).close()
        with Engine(server.url(), [adds]) as engine:
            engine.start(adds, run_id="r")
        assert 0 == main(["--store", server.url(), "doctor"])
    assert "power cut: yes" in capsys.readouterr().out


# ---- a cluster


def test_all_keys_of_a_store_are_on_one_node_of_a_cluster() -> None:
    """A server in cluster mode refuses a script that touches keys of two slots."""
    with valkey(cluster_enabled="yes", cluster_port=free_port()) as server:
        with server.connect() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            for _ in range(1000):
                if re.search(r"cluster_state\W+ok", str(client.execute_command("CLUSTER INFO"))):
                    break
                threading.Event().wait(0.02)
        with Engine(server.url(), [adds]) as engine:
            assert 4 == engine.start(adds, run_id="x", tags={"a": "b"}).unwrap()
            assert ["x"] == [run.id for run in engine.runs(tag="a")]
        cluster = redis.RedisCluster(port=server.port, host="127.0.0.1")
        store = RedisStore(client=cluster, prefix="other")
        assert isinstance(put(store), Created)
        assert store.heads(HeadFilter(), limit=5)
        store.close()
        cluster.close()
