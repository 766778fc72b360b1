"""What the contract's tests of wrappers share: the stores that they stand around."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from stepwell.store import Store
from stepwell.testing.contract import ManualClock, Persistence, StoreContract, StoreMachine
from stepwell_stores.jsonl import JsonlStore
from stepwell_stores.memory import MemoryStore
from stepwell_stores.sqlite import SqliteStore

KEYS = {"new": bytes(range(32)), "old": bytes(32)}
NOISE = "".join(random.Random(7).choices("".join(map(chr, range(35, 127))).replace("\\", ""), k=100_000))
"""Text of which zlib makes nothing less, once it is in base64."""


def base(kind: str, folder: Path, clock: ManualClock) -> Store:
    """A store that keeps bytes itself."""
    match kind:
        case "memory":
            return MemoryStore(clock=clock)
        case "sqlite":
            return SqliteStore(folder / "runs.db", clock=clock)
        case _:
            return JsonlStore(folder / "runs", clock=clock)


class Contract(StoreContract):
    """The contract of a wrapper around a store of some kind. Give `kind` and `wrap`."""

    kind = "memory"
    filler = NOISE

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.folder, self.clock = tmp_path, ManualClock()

    def wrap(self, store: Store) -> Store:
        """The wrapper around a store."""
        raise NotImplementedError

    def make_store(self) -> Store:
        return self.wrap(base(self.kind, self.folder, self.clock))

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def reopen(self, store: Store) -> Store:
        store.close()
        return self.make_store()


class Kept(Contract, Persistence):
    """The same, on a disk."""

    kind = "sqlite"


def machine(kind: str, wrap: Callable[[Store, Path], Store]) -> type[StoreMachine]:
    """The state machine for a wrapper."""

    class Machine(StoreMachine):
        def make_store(self) -> Store:
            if not hasattr(self, "folder"):
                self.folder, self.clock = Path(tempfile.mkdtemp()), ManualClock()
            return wrap(base(kind, self.folder, self.clock), self.folder)

        def advance(self, seconds: float) -> None:
            self.clock.advance(seconds)

        def reopen(self, store: Store) -> Store:
            if kind == "memory":
                return store
            store.close()
            return self.make_store()

        def teardown(self) -> None:
            super().teardown()
            if hasattr(self, "folder"):
                shutil.rmtree(self.folder)

    return Machine
