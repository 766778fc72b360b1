"""The store with its large payloads beside it keeps the contract, when every payload is large."""

from hypothesis import settings
from tests.contract.wrapped import Contract, Kept, machine

from stepwell.store import Store
from stepwell.testing.contract import Moving
from stepwell_stores.wrapping import DirectoryBlobs, MemoryBlobs, OffloadingStore


class TestInMemory(Contract, Moving):
    def wrap(self, store: Store) -> Store:
        return OffloadingStore(store, MemoryBlobs(), threshold=1)


class TestOnSqlite(Kept):
    def wrap(self, store: Store) -> Store:
        return OffloadingStore(store, DirectoryBlobs(self.folder / "blobs"), threshold=500)


TestMachine = machine("memory", lambda store, _: OffloadingStore(store, MemoryBlobs(), threshold=1)).TestCase
TestMachine.settings = settings(max_examples=15, stateful_step_count=30, deadline=None)
