"""Compressed, then encrypted, then taken out: together they keep the contract as well."""

from hypothesis import settings
from tests.contract.wrapped import KEYS, Kept, machine

from stepwell.store import Store
from stepwell.testing.contract import Moving
from stepwell_stores.wrapping import CompressedStore, DirectoryBlobs, EncryptedStore, OffloadingStore


class TestOnJsonl(Kept, Moving):
    kind = "file"

    def wrap(self, store: Store) -> Store:
        inner = OffloadingStore(store, DirectoryBlobs(self.folder / "blobs"), threshold=200)
        return CompressedStore(EncryptedStore(inner, KEYS, hide_tags=True), above=100)


TestMachine = machine(
    "sqlite",
    lambda store, folder: CompressedStore(
        EncryptedStore(OffloadingStore(store, DirectoryBlobs(folder / "blobs"), threshold=200), KEYS), above=100
    ),
).TestCase
TestMachine.settings = settings(max_examples=5, stateful_step_count=20, deadline=None)
