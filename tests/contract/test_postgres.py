"""The Postgres store keeps the contract."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from tests.servers.postgres import Postgres

from stepwell.store import Store
from stepwell.testing.contract import ManualClock, Moving, Persistence, StoreContract, StoreMachine
from stepwell_stores.postgres import PostgresStore


@pytest.fixture(scope="module")
def contract_database(postgres_server: Postgres) -> Any:
    """One database; each test has a schema of its own in it."""
    name = postgres_server.database()
    yield postgres_server, name
    postgres_server.drop(name)


def schema() -> str:
    return f"s{uuid.uuid4().hex}"


class TestPostgres(StoreContract, Persistence, Moving):
    @pytest.fixture(autouse=True)
    def _place(self, contract_database: Any) -> None:
        server, name = contract_database
        self.url, self.clock = server.url(name, schema=schema()), ManualClock()

    def make_store(self) -> Store:
        return PostgresStore(self.url, clock=self.clock)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def reopen(self, store: Store) -> Store:
        store.close()
        return self.make_store()


class PostgresMachine(StoreMachine):
    place: ClassVar[Any] = None

    def make_store(self) -> Store:
        if not hasattr(self, "url"):
            server, name = self.place
            self.url, self.clock = server.url(name, schema=schema()), ManualClock()
        return PostgresStore(self.url, clock=self.clock)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def reopen(self, store: Store) -> Store:
        store.close()
        return self.make_store()


TestPostgresMachine = PostgresMachine.TestCase
TestPostgresMachine.settings = settings(max_examples=8, stateful_step_count=25, deadline=None)


@pytest.fixture(autouse=True, scope="module")
def _machine(contract_database: Any) -> None:
    PostgresMachine.place = contract_database
