"""The Redis store keeps the contract, on a real server."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import settings
from tests.servers.valkey import Valkey

from stepwell.store import Store
from stepwell.testing.contract import ManualClock, Moving, Persistence, StoreContract, StoreMachine
from stepwell_stores.redis import RedisStore


class TestRedis(StoreContract, Persistence, Moving):
    @pytest.fixture(autouse=True)
    def _place(self, valkey_server: Valkey) -> None:
        self.url, self.clock = valkey_server.url(prefix=uuid.uuid4().hex), ManualClock()

    def make_store(self) -> Store:
        return RedisStore(self.url, clock=self.clock)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def reopen(self, store: Store) -> Store:
        store.close()
        return self.make_store()


class RedisMachine(StoreMachine):
    server: Valkey

    def make_store(self) -> Store:
        if not hasattr(self, "url"):
            self.url, self.clock = self.server.url(prefix=uuid.uuid4().hex), ManualClock()
        return RedisStore(self.url, clock=self.clock)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def reopen(self, store: Store) -> Store:
        store.close()
        return self.make_store()


TestRedisMachine = RedisMachine.TestCase
TestRedisMachine.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


@pytest.fixture(scope="module", autouse=True)
def _server(valkey_server: Valkey) -> None:
    RedisMachine.server = valkey_server
