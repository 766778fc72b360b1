"""The SQLite store keeps the contract."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

from stepwell.store import Store
from stepwell.testing.contract import ManualClock, Persistence, StoreContract, StoreMachine
from stepwell_stores.sqlite import SqliteStore


class TestSqlite(StoreContract, Persistence):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.path, self.clock = tmp_path / "runs.db", ManualClock()

    def make_store(self) -> Store:
        return SqliteStore(self.path, clock=self.clock)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def reopen(self, store: Store) -> Store:
        store.close()
        return self.make_store()


class SqliteMachine(StoreMachine):
    def make_store(self) -> Store:
        if not hasattr(self, "directory"):
            self.directory, self.clock = tempfile.mkdtemp(), ManualClock()
        return SqliteStore(f"{self.directory}/runs.db", clock=self.clock)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def reopen(self, store: Store) -> Store:
        store.close()
        return self.make_store()

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "directory"):
            shutil.rmtree(self.directory)


TestSqliteMachine = SqliteMachine.TestCase
TestSqliteMachine.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
