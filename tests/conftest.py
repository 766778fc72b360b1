"""Servers that a test session shares: started for the first test that asks, ended with the session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.servers.postgres import Postgres
    from tests.servers.s3 import S3
    from tests.servers.valkey import Valkey


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--stores",
        default="memory,sqlite,file",
        help="the stores on which the tests of the engine run, with commas: memory, sqlite, file, postgres, redis, s3, "
        "encrypted (on sqlite), wrapped (compressed, encrypted and offloaded, on sqlite)",
    )


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A quick server; what has to survive a crash starts one of its own, with `postgres(durable=True)`."""
    from tests.servers.postgres import postgres

    with postgres() as server:
        yield server


@pytest.fixture
def database(postgres_server: Postgres) -> Iterator[str]:
    """The URL of a new database; it ends with the test."""
    name = postgres_server.database()
    yield postgres_server.url(name)
    postgres_server.drop(name)


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[Valkey]:
    """A quick server; what has to survive a crash starts one of its own, with `valkey(durable=True)`."""
    from tests.servers.valkey import valkey

    with valkey() as server:
        yield server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3]:
    """A server with one bucket; each test has a prefix of its own in it."""
    from tests.servers.s3 import s3

    with s3() as server:
        yield server
