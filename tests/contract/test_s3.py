"""The store in a bucket keeps the contract, on a real server; and on one in memory, which is asked far more."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from stepwell.store import Store
from stepwell.testing.contract import ManualClock, Moving, Persistence, StoreContract, StoreMachine
from stepwell_stores.s3 import S3Store


class Bucketed:
    """Makes stores in one bucket, below a prefix of the test's own."""

    bucket: Any
    prefix: str
    clock: ManualClock

    def make_store(self) -> Store:
        return S3Store(self.bucket, self.prefix, clock=self.clock, keep_deleted=30, poll=0.1)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def reopen(self, store: Store) -> Store:
        store.close()
        return self.make_store()


class TestS3(Bucketed, StoreContract, Persistence, Moving):
    @pytest.fixture(autouse=True)
    def _place(self, s3_server: Any) -> None:
        self.bucket, self.prefix, self.clock = s3_server.open(), uuid.uuid4().hex, ManualClock()


class TestInMemory(Bucketed, StoreContract, Persistence, Moving):
    @pytest.fixture(autouse=True)
    def _place(self) -> None:
        from obstore.store import MemoryStore

        self.bucket, self.prefix, self.clock = MemoryStore(), "", ManualClock()


class MemoryMachine(Bucketed, StoreMachine):
    def make_store(self) -> Store:
        from obstore.store import MemoryStore

        if not hasattr(self, "bucket"):
            self.bucket, self.prefix, self.clock = MemoryStore(), "", ManualClock()
        return super().make_store()


class S3Machine(Bucketed, StoreMachine):
    server: ClassVar[Any]

    def make_store(self) -> Store:
        if not hasattr(self, "prefix"):
            self.bucket, self.prefix, self.clock = self.server.open(), uuid.uuid4().hex, ManualClock()
        return super().make_store()


TestMemoryMachine = MemoryMachine.TestCase
TestMemoryMachine.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_no_order_of_calls_surprises_a_real_server(s3_server: Any) -> None:
    S3Machine.server = s3_server
    run_state_machine_as_test(S3Machine, settings=settings(max_examples=5, stateful_step_count=20, deadline=None))
