"""The servers of the tests start, answer, end and come back with what they kept."""

from __future__ import annotations

import pytest
from tests.servers.postgres import postgres
from tests.servers.proxy import proxy
from tests.servers.valkey import valkey


def test_postgres_answers_and_keeps_what_was_committed_when_it_is_killed() -> None:
    with postgres(durable=True) as server:
        with server.connect() as db:
            assert db.execute("SHOW fsync").fetchone() == ("on",)
            db.execute("CREATE TABLE kept (n int)")
            db.execute("INSERT INTO kept VALUES (1)")
        server.kill()
        server.program.start()
        with server.connect() as db:
            assert db.execute("SELECT n FROM kept").fetchall() == [(1,)]


def test_valkey_answers_and_keeps_what_was_written_when_it_is_killed() -> None:
    with valkey(durable=True) as server:
        with server.connect() as client:
            assert client.config_get("appendfsync") == {"appendfsync": "always"}
            client.set("kept", 1)
        server.program.kill()
        server.program.start()
        with server.connect() as client:
            assert client.get("kept") == b"1"


def test_s3_refuses_to_make_what_is_there(s3_server) -> None:
    import obstore
    from obstore.exceptions import AlreadyExistsError

    bucket = s3_server.open("a-test")
    obstore.put(bucket, "once", b"first", mode="create")
    with pytest.raises(AlreadyExistsError):
        obstore.put(bucket, "once", b"second", mode="create")
    assert bytes(obstore.get(bucket, "once").bytes()) == b"first"


def test_a_proxy_cuts_after_so_many_bytes(valkey_server) -> None:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    with proxy(valkey_server.port) as between:
        client = redis.Redis(port=between.port, retry=Retry(NoBackoff(), 0), socket_timeout=5)
        client.set("through", "it")
        cut = between.cut_after("down", 3)
        with pytest.raises(redis.ConnectionError):
            client.get("through")
        assert cut.is_set()
        between.heal()
        assert client.get("through") == b"it"
        between.blackhole()
        with pytest.raises(redis.TimeoutError):
            redis.Redis(port=between.port, retry=Retry(NoBackoff(), 0), socket_timeout=0.1).get("through")
        client.close()
