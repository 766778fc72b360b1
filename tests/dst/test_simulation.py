"""Days of workers and clients on one store, by seed: 200 of them, and proof that they can fail."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.dst.plants import PLANTS, planted
from tests.dst.simulation import HOURS, Result, simulate_seed

from stepwell_stores import open_store
from stepwell_stores.sqlite import SqliteStore

ROOT = Path(__file__).parents[2]
SEEDS = 200
CHUNK = 20
FILES = {"jsonl": "file:{}/runs", "sqlite": "sqlite:///{}/runs.db"}

SOMETIMES = (
    "another attempt",
    "cancel answered",
    "child begun",
    "chunk recorded",
    "client met StoreUnavailableError",
    "clock jumped",
    "delete answered",
    "killed after a call of the store",
    "killed before a call of the store",
    "killed from outside",
    "killed in a step",
    "lease renewed",
    "notification dropped",
    "notification heard",
    "owner's append: AlreadyCommitted",
    "owner's append: Conflict",
    "owner's append: Fenced",
    "renewal refused",
    "resume answered",
    "run ended: cancelled",
    "run ended: complete",
    "run ended: error",
    "run removed",
    "run was there already",
    "signal answered",
    "slow store",
    "step performed again after a fault",
    "stopped for longer than a lease",
    "stopped from outside",
    "stopped in a step",
    "store not there",
    "timer fired",
    "unknown, and not written",
    "unknown, and written",
    "worker stopped in order",
    "write not applied",
)
"""What twenty days meet, or they have shown nothing of it."""


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_whatever_happens_in_a_day_every_promise_is_kept(first: int) -> None:
    """Twenty seeds break no promise, last a day and more, and meet every kind of fault.

    Shows S1, S2, S3, S4, S5, S6, S7, S9, S11, S12, S14, S15, S16, S17, S18, S19 (P1, P2, P3, P4, P5, P6, P7).
    """
    met: Counter[str] = Counter()
    for seed in range(first, first + CHUNK):
        result = simulate_seed(seed)
        assert [] == result.findings
        assert result.hours >= HOURS
        met.update(result.sometimes)
    assert [] == [name for name in SOMETIMES if not met[name]]


@pytest.mark.parametrize("store", FILES)
@pytest.mark.parametrize("seed", range(SEEDS, SEEDS + 6))
def test_stores_in_files_keep_every_promise_too(store: str, seed: int, tmp_path: Path) -> None:
    """Shows S1 (P1)."""
    result = simulate_seed(seed, lambda clock: open_store(FILES[store].format(tmp_path), clock=clock))
    assert [] == result.findings


def test_rows_are_there_if_and_only_if_the_records_of_their_transactions_are(tmp_path: Path) -> None:
    met: Counter[str] = Counter()
    for seed in range(300, 306):
        result = day_of_transactions(seed, tmp_path)
        assert [] == result.findings
        met.update(result.sometimes)
    assert met["transaction performed"] > 5


def test_rows_that_are_committed_by_themselves_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def torn(self: SqliteStore, run_id: str, number: int, seq: int, work: Any, **how: Any) -> Any:
        with closing(sqlite3.connect(self.path)) as database:
            records = work(database)
            database.commit()
        return self.append(run_id, number, seq, records, attempt_id=how["attempt_id"], fence=how["fence"])

    monkeypatch.setattr(SqliteStore, "transact", torn)
    assert any(day_of_transactions(seed, tmp_path).wrong for seed in range(20))


def day_of_transactions(seed: int, folder: Path) -> Result:
    place = FILES["sqlite"].format(folder / str(seed))
    (folder / str(seed)).mkdir()
    return simulate_seed(seed, lambda clock: open_store(place, clock=clock), transactions=True)


@pytest.mark.parametrize("seed", [3, 11])
def test_two_stores_live_through_the_same_day(seed: int, tmp_path: Path) -> None:
    """Every call has the same answer at the same time, so nobody could tell which store it was."""
    in_rows = simulate_seed(seed, lambda clock: open_store(FILES["sqlite"].format(tmp_path), clock=clock))
    assert simulate_seed(seed).digest == in_rows.digest


def test_a_seed_gives_the_same_day_again_whatever_the_hashes_of_the_process() -> None:
    here = simulate_seed(7).digest
    assert here == simulate_seed(7).digest
    assert here != simulate_seed(8).digest
    for hashes in ("1", "77"):
        told = command("7", "--hash", PYTHONHASHSEED=hashes)
        assert f"7 {here}" in told.stdout


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_bug_is_found(name: str) -> None:
    seeds = PLANTS[name][1]
    with planted(name):
        assert any(simulate_seed(seed).wrong for seed in range(seeds)), f"not within {seeds} seeds"


def test_a_finding_is_shown_again_by_the_command_that_it_names() -> None:
    with planted("recorded step forgotten"):
        found = next(result for seed in range(20) if (result := simulate_seed(seed)).wrong)
    assert found.findings[0].endswith(f"python -m tests.dst {found.seed} --trace")
    told = command(str(found.seed), "--trace", "--plant", "recorded step forgotten")
    assert 1 == told.returncode
    assert f"seed {found.seed}: {found.wrong[0]}" in told.stdout
    assert "VIOLATION" in told.stdout


def command(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Call the command line of the simulation."""
    path = os.pathsep.join([str(ROOT), *(entry for entry in sys.path if entry)])
    return subprocess.run(
        [sys.executable, "-m", "tests.dst", *args],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
