"""The encrypted store keeps the contract, whatever it stands around."""

from hypothesis import settings
from tests.contract.wrapped import KEYS, Contract, Kept, machine

from stepwell.store import Store
from stepwell.testing.contract import Moving
from stepwell_stores.wrapping import EncryptedStore


class TestInMemory(Contract, Moving):
    def wrap(self, store: Store) -> Store:
        return EncryptedStore(store, KEYS)


class TestOnSqlite(Kept):
    def wrap(self, store: Store) -> Store:
        return EncryptedStore(store, KEYS, hide_tags=True)


class TestOnJsonl(Kept):
    kind = "file"

    def wrap(self, store: Store) -> Store:
        return EncryptedStore(store, KEYS)


TestMachine = machine("memory", lambda store, _: EncryptedStore(store, KEYS)).TestCase
TestMachine.settings = settings(max_examples=15, stateful_step_count=30, deadline=None)
