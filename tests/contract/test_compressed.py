"""The compressed store keeps the contract."""

from hypothesis import settings
from tests.contract.wrapped import Contract, machine

from stepwell.store import Store
from stepwell.testing.contract import Moving
from stepwell_stores.wrapping import CompressedStore


class TestInMemory(Contract, Moving):
    def wrap(self, store: Store) -> Store:
        return CompressedStore(store, above=0)


TestMachine = machine("memory", lambda store, _: CompressedStore(store, above=0)).TestCase
TestMachine.settings = settings(max_examples=15, stateful_step_count=30, deadline=None)
