"""examples/own-store keeps the contract, in at most two hundred lines; the how-to shows this very file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

from stepwell.errors import CorruptHistoryError, StoreError
from stepwell.store import Created, Store
from stepwell.testing.contract import ManualClock, Persistence, StoreContract, StoreMachine, a_head, a_start

ROOT = Path(__file__).parents[2]
SOURCES = os.pathsep.join(str(ROOT / name) for name in ("engine", "stores", "examples/own-store"))
SIGNALS = """
import sys
from one_file import OneFileStore
from stepwell.testing.contract import a_record

store = OneFileStore(sys.argv[1])
for number in range(20):
    store.append("r", None, None, [a_record(number, "resume")], attempt_id=f"{sys.argv[2]}-{number}")
"""
SOURCE = ROOT / "examples" / "own-store" / "one_file.py"
sys.path.insert(0, str(SOURCE.parent))
try:
    from one_file import OneFileStore
finally:
    sys.path.remove(str(SOURCE.parent))


class TestOneFile(StoreContract, Persistence):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.path, self.clock = tmp_path / "runs", ManualClock()

    def make_store(self) -> Store:
        return OneFileStore(self.path, clock=self.clock)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def reopen(self, store: Store) -> Store:
        store.close()
        return self.make_store()


class OneFileMachine(StoreMachine):
    def make_store(self) -> Store:
        if not hasattr(self, "directory"):
            self.directory, self.clock = tempfile.mkdtemp(), ManualClock()
        return OneFileStore(f"{self.directory}/runs", clock=self.clock)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def reopen(self, store: Store) -> Store:
        store.close()
        return self.make_store()

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "directory"):
            shutil.rmtree(self.directory)


TestOneFileMachine = OneFileMachine.TestCase
TestOneFileMachine.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)


def test_it_has_at_most_two_hundred_lines() -> None:
    assert 200 >= len(SOURCE.read_text("utf-8").splitlines())


def test_processes_share_the_file(tmp_path: Path) -> None:
    store = OneFileStore(tmp_path / "runs")
    assert isinstance(store.create("r", [a_start()], head=a_head(), attempt_id="new"), Created)
    words = [sys.executable, "-W", "error", "-c", SIGNALS, str(tmp_path / "runs")]
    environment = os.environ | {"PYTHONPATH": SOURCES}
    writers = [subprocess.Popen([*words, name], env=environment) for name in "abc"]
    assert [0, 0, 0] == [writer.wait(60) for writer in writers]
    assert 1 + 3 * 20 == store.size().events
    assert [None] == [part.problem for part in store.verify()]


def test_what_is_no_store_of_its_own_is_told(tmp_path: Path) -> None:
    (tmp_path / "runs").write_bytes(b"something else")
    with pytest.raises(CorruptHistoryError, match="runs is damaged"):
        OneFileStore(tmp_path / "runs").size()
    with pytest.raises(StoreError, match="nowhere"):
        OneFileStore(tmp_path / "nowhere" / "runs").size()
