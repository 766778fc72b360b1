"""examples/bank as its README says, and killed sixty times: the sums are right and each transfer is there once."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

DONE = ["ready", "15 bookings, 100,000 cents on 10 accounts"]


def test_the_same_transfers_a_second_time_move_nothing(call: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    for _ in range(2):
        done = call("drive.py")
        assert ("", DONE) == (done.stderr, done.stdout.splitlines())


def test_sixty_kills_cost_no_cent(begin: Callable[..., subprocess.Popen[str]]) -> None:
    players = [begin("kill.py", "--kills", "30", "--seed", str(seed), "--json") for seed in (1, 2)]
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
    begin: Callable[..., subprocess.Popen[str]], tmp_path: Path, damage: str
) -> None:
    """Or it would prove nothing."""
    begin("drive.py").communicate(timeout=60)
    with closing(sqlite3.connect(tmp_path / "bank.db")) as db:
        db.execute(damage)
        db.commit()
    audit = begin("-c", "import kill; engine = kill.make_engine('bank.db'); kill.audit(engine, 'bank.db')")
    _, complaint = audit.communicate(timeout=60)
    assert 1 == audit.returncode
    assert "WrongBooksError" in complaint
