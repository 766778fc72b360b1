"""examples/own-store keeps the contract, in at most two hundred lines; the how-to shows this very file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from stepwell.errors import CorruptHistoryError, StoreError
from stepwell.store import Created
from stepwell.testing.contract import a_head, a_start

from ..contract.on_disk import DiskContract, DiskMachine

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


class TestOneFile(DiskContract):
    opens = OneFileStore


class OneFileMachine(DiskMachine):
    opens = OneFileStore


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
