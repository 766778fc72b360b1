"""The contract for a store class that is opened by a path and a clock; a subclass says which one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from stepwell.store import Store
from stepwell.testing.contract import ManualClock, Persistence, StoreContract, StoreMachine


class OnDisk:
    """What the contract and its machine both want to know.

    Attributes:
        opens: the store class.
        path: where the data are; nothing, in a directory that is there.
        clock: of the leases.
    """

    opens: Callable[..., Store]
    path: Path
    clock: ManualClock

    def make_store(self) -> Store:
        return self.opens(self.path, clock=self.clock)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def reopen(self, store: Store) -> Store:
        store.close()
        return self.make_store()


class DiskContract(OnDisk, StoreContract, Persistence):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.path, self.clock = tmp_path / "runs", ManualClock()


class DiskMachine(OnDisk, StoreMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.mkdtemp()
        self.path, self.clock = Path(self.directory) / "runs", ManualClock()

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(self.directory)
