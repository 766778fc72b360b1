"""The memory store keeps the contract."""

import pytest

from stepwell.store import Store
from stepwell.testing.contract import ManualClock, Moving, StoreContract, StoreMachine
from stepwell_stores.memory import MemoryStore


class TestMemory(StoreContract, Moving):
    @pytest.fixture(autouse=True)
    def _place(self) -> None:
        self.clock = ManualClock()

    def make_store(self) -> Store:
        return MemoryStore(clock=self.clock)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)


class MemoryMachine(StoreMachine):
    def make_store(self) -> Store:
        self.clock = ManualClock()
        return MemoryStore(clock=self.clock)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)


TestMemoryMachine = MemoryMachine.TestCase
