"""The connections of the Redis store: none is used again that an answer may still come on, or that leads elsewhere."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import redis
import redis.asyncio
from tests.engine.tools import eventually
from tests.servers.valkey import Valkey, valkey

from stepwell.errors import InvalidInputError, StoreMisconfiguredError, StoreUnavailableError
from stepwell.store import Created, NotApplied
from stepwell.testing.contract import a_head, a_start
from stepwell_stores.redis import RedisStore, server


def put(store: RedisStore, run_id: str) -> Any:
    return store.create(run_id, [a_start()], head=a_head(), attempt_id="a")


@pytest.fixture(params=["url", "client"])
def store(request: pytest.FixtureRequest, valkey_server: Valkey) -> Iterator[RedisStore]:
    prefix = uuid.uuid4().hex
    with valkey_server.connect() as client:
        given = {"client": client, "prefix": prefix} if request.param == "client" else {}
        with closing(RedisStore(**given) if given else RedisStore(valkey_server.url(prefix=prefix))) as made:
            yield made


def interrupt_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have Ctrl-C come between a command and its answer."""
    real = redis.connection.AbstractConnection.read_response

    def stopped(*_: Any, **__: Any) -> None:
        monkeypatch.setattr(redis.connection.AbstractConnection, "read_response", real)
        raise KeyboardInterrupt

    monkeypatch.setattr(redis.connection.AbstractConnection, "read_response", stopped)


def test_after_an_interrupt_nobody_is_given_the_answer_of_another(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for run_id in ("one", "two"):
        put(store, run_id)
        assert store.head(run_id) is not None
    interrupt_once(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        store.head("one")
    for run_id in ("two", "one"):
        head = store.head(run_id)
        assert head is not None
        assert head.run_id == run_id


@pytest.fixture
def own() -> Iterator[tuple[RedisStore, Any]]:
    """A store on a server of its own, and a client of that."""
    with valkey() as made, closing(RedisStore(made.url())) as store, made.connect() as client:
        yield store, client


def test_a_server_that_became_a_replica_is_left_for_whoever_has_its_name_now(own: tuple[RedisStore, Any]) -> None:
    store, client = own
    put(store, "one")
    client.replicaof("127.0.0.1", "1")
    assert put(store, "two") == NotApplied()
    with pytest.raises(StoreMisconfiguredError, match="is a replica"):
        put(store, "two")
    assert store._server._free == []
    client.replicaof("NO", "ONE")
    assert put(store, "two") == Created()


def test_a_server_is_looked_at_anew_when_it_was_away(own: tuple[RedisStore, Any]) -> None:
    store, client = own
    put(store, "one")
    client.config_set("maxmemory-policy", "allkeys-lru")
    client.client_kill_filter(_type="normal", skipme=True)
    with pytest.raises(StoreMisconfiguredError, match="throws keys away"):
        store.head("one")  # which is asked again on a new connection


def test_connections_that_were_lost_together_are_dropped_together(
    own: tuple[RedisStore, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, client = own
    monkeypatch.setattr(server, "_STALE", 3600)
    put(store, "one")
    with contextlib.ExitStack() as several:
        for _ in range(8):
            several.enter_context(store._server._connection())
    assert 8 == len(store._server._free)
    client.client_kill_filter(_type="normal", skipme=True)
    assert store.head("one") is not None


def test_a_connection_that_ended_while_nobody_used_it_is_found_out(
    own: tuple[RedisStore, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, client = own
    put(store, "one")
    monkeypatch.setattr(server, "_STALE", 0)
    client.client_kill_filter(_type="normal", skipme=True)
    assert put(store, "two") == Created()


@pytest.mark.parametrize("client", [redis.asyncio.Redis(), redis.ConnectionPool(), "redis://localhost"])
def test_what_is_no_client_is_refused_at_once(client: Any) -> None:
    with pytest.raises(InvalidInputError, match="client must be a redis"):
        RedisStore(client=client)


def test_a_word_for_evictions_that_is_none_is_refused() -> None:
    wrong: Any = "yes"
    with pytest.raises(InvalidInputError, match="'refuse' or 'allow', got 'yes'"):
        RedisStore(client=redis.Redis(), evicts=wrong)


def test_a_server_that_can_not_write_its_files_takes_nothing_and_goes_on_when_it_can() -> None:
    with valkey(save="3600 1") as made, closing(RedisStore(made.url())) as store, made.connect() as client:
        put(store, "one")
        snapshot = made.data / "dump.rdb"
        snapshot.unlink(missing_ok=True)
        snapshot.mkdir()  # which no file can take the place of
        client.bgsave()
        eventually(lambda: client.info("persistence")["rdb_last_bgsave_status"] != "ok")
        refused = put(store, "two")
        assert refused == NotApplied()
        assert "can't write its files, so it takes no writes; see its log" in str(refused.cause)
        assert store.head("one") is not None
        snapshot.rmdir()
        client.bgsave()
        eventually(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "ok")
        assert put(store, "two") == Created()


def test_connections_that_are_lost_again_and_again_are_made_anew(store: RedisStore, valkey_server: Valkey) -> None:
    """The driver's pool counts what it has made, and gives no more than a hundred."""
    with valkey_server.connect() as other:
        for _ in range(120):
            assert store.head("nobody") is None
            other.client_kill_filter(_type="normal", skipme=True)
            with contextlib.suppress(StoreUnavailableError):
                store.head("nobody")
        assert store.head("nobody") is None
