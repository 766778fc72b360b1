"""Tables of older and newer versions, and the lock that keeps commits apart from checkpoints."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stepwell.errors import NewerFormatError, StoreMisconfiguredError
from stepwell.store import Blocked, Committed, Created, Lease, NotApplied
from stepwell.testing.contract import a_head, a_record, a_start
from stepwell_stores.filelock import FairLock
from stepwell_stores.sqlite import SqliteStore
from stepwell_stores.sqlite import database as sqlite_database
from stepwell_stores.sqlite import schema as sqlite_schema

ROOT = Path(__file__).parents[2]


def make_version_1(path: Path) -> None:
    """A file as the first version wrote it, with a run that is blocked and one that is not."""
    store = SqliteStore(path)
    blocked = Blocked("DIVERGENCE", 'it says "no"', ("abc",))
    assert isinstance(store.create("stuck", [a_start()], head=a_head(due=1, blocked=blocked), attempt_id="a"), Created)
    assert isinstance(store.create("free", [a_start()], head=a_head(due=1), attempt_id="a"), Created)
    store.close()
    old = json.dumps({"code": blocked.code, "message": blocked.message, "fingerprint": "abc"})
    db = sqlite3.connect(path)
    db.execute("UPDATE stepwell_runs SET blocked = ?, blocked_by = 'abc' WHERE blocked IS NOT NULL", (old,))
    db.execute("ALTER TABLE stepwell_runs RENAME COLUMN lease_token TO lease_attempt")
    db.execute("ALTER TABLE stepwell_runs RENAME COLUMN least_seq TO next_seq")
    db.execute("DROP INDEX stepwell_runs_kinds")
    db.execute("DROP INDEX stepwell_runs_closed")
    db.execute("DROP INDEX stepwell_deleted_arriving")
    for column in ("departure", "arrival"):
        db.execute(f"ALTER TABLE stepwell_deleted DROP COLUMN {column}")
    db.execute("UPDATE stepwell_schema SET version = 1")
    db.commit()
    db.close()


def test_the_first_version_s_script_still_makes_what_is_migrated(tmp_path: Path) -> None:
    """Each script brings the tables one version on, from nothing to the newest."""
    made, direct = tmp_path / "made.db", tmp_path / "direct.db"
    db = sqlite3.connect(made, isolation_level=None)
    for statement in sqlite_schema._statements(sqlite_schema._MIGRATIONS[0]):
        db.execute(statement)
    db.execute("INSERT INTO stepwell_schema VALUES (1)")
    db.close()
    for path in (made, direct):
        store = SqliteStore(path)
        assert store.head("r") is None
        store.close()
    assert tables(made) == tables(direct)


def tables(path: Path) -> Any:
    db = sqlite3.connect(path)
    found = db.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
    version = db.execute("SELECT version FROM stepwell_schema").fetchall()
    db.close()
    return found, version


def test_an_older_file_is_brought_forward_with_its_runs(tmp_path: Path) -> None:
    make_version_1(tmp_path / "runs.db")
    store = SqliteStore(tmp_path / "runs.db")
    stuck, free = store.head("stuck"), store.head("free")
    assert stuck is not None
    assert free is not None
    assert Blocked("DIVERGENCE", 'it says "no"', ("abc",)) == stuck.head.blocked
    assert free.head.blocked is None
    assert ["free"] == [lease.run_id for lease in store.claim_due("w", 30, now=9, limit=9, fingerprints=["abc"])]
    assert ["stuck"] == [lease.run_id for lease in store.claim_due("w", 30, now=9, limit=9, fingerprints=["new"])]
    store.close()
    assert [(sqlite_schema.SCHEMA_VERSION,)] == tables(tmp_path / "runs.db")[1]


RACE = """
import sys
from stepwell_stores.sqlite import SqliteStore
store = SqliteStore(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
head = store.head("stuck")
print(head and head.head.blocked.fingerprints, flush=True)
made = store.claim("free", sys.argv[2], 30)
print(type(made).__name__, flush=True)
sys.stdin.read()
store.close()
"""


def start(code: str, *args: str) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'engine'}{os.pathsep}{ROOT / 'stores'}"}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code, *args], stdin=pipe, stdout=pipe, text=True, env=env)


def told(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


@pytest.mark.parametrize("attempt", range(3))
def test_eight_processes_that_open_an_older_file_at_once_all_find_it_migrated(tmp_path: Path, attempt: int) -> None:
    """One of them does it, and one of them gets the lease."""
    path = tmp_path / "runs.db"
    make_version_1(path)
    processes = [start(RACE, str(path), f"w{n}") for n in range(8)]
    try:
        assert ["ready"] * 8 == [told(process) for process in processes]
        for process in processes:
            tell(process)
        assert ["('abc',)"] * 8 == [told(process) for process in processes]
        assert ["Lease", *["RunHead"] * 7] == sorted(told(process) for process in processes)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    db = sqlite3.connect(path)
    assert [("ok",)] == db.execute("PRAGMA integrity_check").fetchall()
    db.close()


KILLED = """
import os, signal, sys
from stepwell_stores.sqlite import schema as sqlite_schema
from stepwell_stores.sqlite import SqliteStore
check, calls = sqlite_schema.check_version, []
def die(db, path):
    os.kill(os.getpid(), signal.SIGKILL)
sqlite_schema.check_version = die
SqliteStore(sys.argv[1]).head("stuck")
"""


def test_a_process_that_dies_while_it_migrates_leaves_the_older_file(tmp_path: Path) -> None:
    """All of it is one transaction, so the next one does it."""
    path = tmp_path / "runs.db"
    make_version_1(path)
    process = start(KILLED, str(path))
    process.communicate(timeout=60)
    assert -signal.SIGKILL == process.returncode
    assert [(1,)] == tables(path)[1]
    store = SqliteStore(path)
    head = store.head("stuck")
    assert head is not None
    assert head.head.blocked is not None
    assert ("abc",) == head.head.blocked.fingerprints
    store.close()


def test_a_newer_release_that_migrates_meanwhile_stops_the_older_one(
    tmp_path: Path, create: Callable[..., Lease]
) -> None:
    """Its next write is refused, and nothing of it is there."""
    store = SqliteStore(tmp_path / "runs.db")
    lease = create(store)
    db = sqlite3.connect(tmp_path / "runs.db")
    db.execute("UPDATE stepwell_schema SET version = 99")
    db.commit()
    with pytest.raises(NewerFormatError, match="version 99"):
        store.append("r", 0, 1, [a_record()], attempt_id="b", fence=lease.fence)
    assert (1,) == db.execute("SELECT count(*) FROM stepwell_events").fetchone()
    db.close()
    store.close()


def test_normal_sync_is_declared(tmp_path: Path, create: Callable[..., Lease]) -> None:
    """It is what the connection says of itself."""
    full, normal = SqliteStore(tmp_path / "full.db"), SqliteStore(tmp_path / "normal.db", sync="normal")
    assert (2, True) == (full.durability.settings["synchronous"], full.durability.power_loss)
    assert (1, False) == (normal.durability.settings["synchronous"], normal.durability.power_loss)
    assert normal.durability.process_crash
    create(normal)
    full.close()
    normal.close()


def test_no_write_overlaps_another_one_s_commit_and_checkpoint(
    tmp_path: Path, create: Callable[..., Lease], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the lock file is held nobody writes, whatever SQLite's own locks would allow; reading goes on."""
    store = SqliteStore(tmp_path / "runs.db")
    lease = create(store)
    other = FairLock(str(tmp_path / "runs.db-owners" / "write"))
    monkeypatch.setattr(sqlite_database, "BUSY_SECONDS", 0.01)
    assert other.acquire(1)
    refused = store.append("r", 0, 1, [a_record()], attempt_id="b", fence=lease.fence)
    assert isinstance(refused, NotApplied)
    assert "busy" in str(refused.cause)
    assert store.head("r") is not None
    other.release()
    assert Committed(1, 0) == store.append("r", 0, 1, [a_record()], attempt_id="b", fence=lease.fence)
    other.close()
    store.close()


def test_a_commit_is_made_under_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From before BEGIN until after COMMIT, whose end may be a checkpoint."""
    store = SqliteStore(tmp_path / "runs.db")
    store.create("r", [a_start()], head=a_head(), attempt_id="a")
    held: list[tuple[str, bool]] = []
    look = FairLock(str(tmp_path / "runs.db-owners" / "write"))

    def traced(statement: str) -> None:
        word = statement.split(maxsplit=1)[0]
        if word in ("BEGIN", "COMMIT"):
            free = look.acquire(0)
            if free:
                look.release()
            held.append((word, not free))

    db = store._database._writer.db
    assert db is not None
    db.set_trace_callback(traced)
    store.append("r", None, None, [a_record()], attempt_id="b")
    db.set_trace_callback(None)
    assert [("BEGIN", True), ("COMMIT", True)] == held
    assert look.acquire(0)
    look.release()
    look.close()
    store.close()


def test_where_no_lock_can_be_kept_an_older_sqlite_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, create: Callable[..., Lease]
) -> None:
    """A newer one does without: then the lock is for fairness only."""
    (tmp_path / "runs.db-owners").write_text("in the way")
    monkeypatch.setattr(sqlite_database, "RESETS_SAFELY", False)
    store = SqliteStore(tmp_path / "runs.db")
    with pytest.raises(StoreMisconfiguredError, match=r"no lock file.*3\.51\.3"):
        store.head("r")
    store.close()
    monkeypatch.setattr(sqlite_database, "RESETS_SAFELY", True)
    store = SqliteStore(tmp_path / "runs.db")
    create(store)
    assert "not needed" == store.durability.settings["wal_reset_guard"]
    store.close()


def test_a_fair_lock_keeps_threads_apart_too(tmp_path: Path) -> None:
    """One descriptor would be locked twice without a word."""
    lock, inside, most = FairLock(str(tmp_path / "x")), [0], [0]

    def work() -> None:
        for _ in range(200):
            assert lock.acquire(10)
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            inside[0] -= 1
            lock.release()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [1] == most
    lock.close()


def test_a_damaged_row_of_a_blocked_run_does_not_stop_the_others(tmp_path: Path) -> None:
    """It is claimed, whoever asks, so that it is marked anew; `verify` names it."""
    store = SqliteStore(tmp_path / "runs.db")
    blocked = Blocked("DIVERGENCE", "m", ("abc",))
    for name in ("bad", "good"):
        store.create(name, [a_start()], head=a_head(due=1, blocked=blocked), attempt_id="a")
    db = sqlite3.connect(tmp_path / "runs.db")
    db.execute("UPDATE stepwell_runs SET blocked_by = '[nonsense' WHERE run_id = 'bad'")
    db.commit()
    db.close()
    problems = [str(part.problem) for part in store.verify() if part.problem is not None]
    assert 1 == len(problems)
    assert "'bad': blocked and blocked_by disagree" in problems[0]
    assert ["bad"] == [lease.run_id for lease in store.claim_due("w", 30, now=9, limit=9, fingerprints=["abc"])]
    store.close()
