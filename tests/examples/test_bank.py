"""examples/bank as its README says, and killed sixty times: the sums are right and each transfer is there once."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BANK = ROOT / "examples" / "bank"
SOURCES = os.pathsep.join(str(ROOT / name) for name in ("engine", "stores"))
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "BANK"} | {"PYTHONPATH": SOURCES}
DONE = ["ready", "15 bookings, 100,000 cents on 10 accounts"]


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    def popen(script: str, *arguments: str) -> subprocess.Popen[str]:
        words = [sys.executable, "-W", "error", str(BANK / script), *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(words, cwd=tmp_path, env=ENVIRONMENT, stdout=pipe, stderr=pipe, encoding="utf-8")

    return popen


def test_the_same_transfers_a_second_time_move_nothing(start: Callable[..., subprocess.Popen[str]]) -> None:
    for _ in range(2):
        process = start("drive.py")
        said, complaint = process.communicate(timeout=60)
        assert (0, "", DONE) == (process.returncode, complaint, said.splitlines())


def test_sixty_kills_cost_no_cent(start: Callable[..., subprocess.Popen[str]]) -> None:
    players = [start("kill.py", "--kills", "30", "--seed", str(seed), "--json") for seed in (1, 2)]
    for player in players:
        said, complaint = player.communicate(timeout=240)
        assert (0, "") == (player.returncode, complaint)
        figures = json.loads(said)
        assert 30 == figures["kills"]
        assert figures["bookings"] <= figures["transfers"]
        assert any(point.startswith("a run was open") for point in figures["at_the_kill"])


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE accounts SET cents = cents + 1 WHERE name = 'account-0'",
        "INSERT INTO bookings SELECT * FROM bookings LIMIT 1",
        "DELETE FROM bookings WHERE rowid = 1",
        "UPDATE bookings SET transfer = 'transfer-99' WHERE rowid = 1",
    ],
)
def test_the_audit_finds_what_is_wrong(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path, damage: str
) -> None:
    """Or it would prove nothing."""
    start("drive.py").communicate(timeout=60)
    with closing(sqlite3.connect(tmp_path / "bank.db")) as db:
        db.execute(damage)
        db.commit()
    code = (
        f"import sys; sys.path.insert(0, {str(BANK)!r}); import kill; "
        "engine = kill.make_engine('bank.db'); kill.audit(engine, 'bank.db')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, check=False)
    assert 1 == done.returncode
    assert b"WrongBooksError" in done.stderr
