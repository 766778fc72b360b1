"""What a Postgres store is given: pools of all kinds, names of servers, and what it shows of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from tests.servers.postgres import Postgres

from stepwell import InvalidInputError, StoreMisconfiguredError, StoreUnavailableError
from stepwell_stores import open_store
from stepwell_stores.postgres import PostgresStore
from stepwell_stores.postgres.address import address_of
from stepwell_stores.postgres.errors import unreachable


@pytest.fixture
def pool(database: str) -> Iterator[Any]:
    with ConnectionPool(database, min_size=1, max_size=2, open=True) as made:
        yield made


@pytest.mark.parametrize("given", [AsyncConnectionPool(open=False), object(), "postgresql://h/d"])
def test_what_is_no_pool_is_refused_at_once(given: Any) -> None:
    with pytest.raises(InvalidInputError, match="pool must be a psycopg_pool"):
        PostgresStore(pool=given)


def test_a_pool_that_is_not_open_is_no_trouble_that_passes(pool: Any) -> None:
    with closing(PostgresStore(pool=pool, schema="s")) as store:
        assert store.head("r") is None
        pool.close()
        with pytest.raises(StoreMisconfiguredError, match="open the pool before its first use"):
            store.head("r")


def in_a_child(store: PostgresStore) -> str:
    """What a forked child meets that uses a store."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, str(store.head("r")).encode())
        except BaseException as error:
            os.write(write, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as said:
        text = said.read()
    os.waitpid(pid, 0)
    return text


def test_a_pool_that_was_open_before_a_fork_is_the_parents_also_when_nobody_used_it(pool: Any) -> None:
    pool.wait()
    with closing(PostgresStore(pool=pool, schema="s")) as store:
        assert in_a_child(store).startswith("StoreMisconfiguredError")
        assert store.head("r") is None


def test_a_pool_that_is_opened_after_the_fork_is_the_childs(database: str) -> None:
    pool = ConnectionPool(database, min_size=1, max_size=2, open=False)

    class Opens:
        closed = True

        def getconn(self, timeout: float | None = None) -> Any:
            pool.open()
            return pool.getconn(timeout)

        def putconn(self, conn: Any) -> None:
            pool.putconn(conn)

    with closing(PostgresStore(pool=Opens(), schema="s")) as store:
        assert in_a_child(store) == "None"
    pool.close()


def test_no_repr_has_the_password() -> None:
    url = "postgresql://u:hunter2@h/d?password=hunter2"
    assert "hunter2" not in repr(address_of(url))
    assert "hunter2" not in repr(vars(open_store(url)))


@pytest.mark.parametrize("host", ["certificate-service.local", "invalid.example"])
def test_the_name_of_a_host_says_nothing_of_why_it_is_away(host: str) -> None:
    error = psycopg.OperationalError(f'connection to server at "{host}", port 5432 failed: Connection refused')
    assert isinstance(unreachable("place", error), StoreUnavailableError)
    assert isinstance(
        unreachable("place", psycopg.OperationalError('role "x" does not exist')), StoreMisconfiguredError
    )


def test_an_encoding_that_holds_no_text_is_named(postgres_server: Postgres) -> None:
    with postgres_server.connect() as db:
        db.execute("CREATE DATABASE bytes_only TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'")
    with (
        closing(open_store(postgres_server.url("bytes_only"))) as store,
        pytest.raises(StoreMisconfiguredError, match="encoded in SQL_ASCII; make one"),
    ):
        store.head("r")
    postgres_server.drop("bytes_only")
