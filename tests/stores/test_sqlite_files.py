"""The SQLite store and its file: permissions, settings, damage, and errors of the driver."""

from __future__ import annotations

import os
import random
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from stepwell.errors import (
    CorruptHistoryError,
    NewerFormatError,
    StepwellError,
    StoreError,
    StoreMisconfiguredError,
    StoreUnavailableError,
)
from stepwell.store import AlreadyCommitted, Committed, HeadFilter, Lease, NotApplied, Unknown
from stepwell.testing.contract import a_head, a_record
from stepwell_stores.sqlite import SqliteStore
from stepwell_stores.sqlite import rows as sqlite_rows
from stepwell_stores.sqlite import schema as sqlite_schema


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path)
    yield store
    store.close()


def by_hand(path: Path, *statements: str) -> None:
    """Change a database that nobody has open."""
    db = sqlite3.connect(path)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


def test_files_are_private_under_any_umask(path: Path, create: Callable[..., Lease]) -> None:
    old = os.umask(0)
    try:
        store = SqliteStore(path)
        create(store)
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in path.parent.rglob("*") if p.is_file()}
        assert {"runs.db", "runs.db-wal", "runs.db-shm"} < set(modes)
        assert {0o600} == set(modes.values())
        assert stat.S_IMODE(Path(f"{path}-owners").stat().st_mode) == 0o700
        store.close()
    finally:
        os.umask(old)


def test_live_settings_are_read_back(store: SqliteStore) -> None:
    assert {
        "journal_mode": "wal",
        "synchronous": 2,
        "busy_timeout": 5000,
        "foreign_keys": 1,
        "trusted_schema": 0,
    }.items() <= store.durability.settings.items()
    assert (True, True, False) == (
        store.durability.process_crash,
        store.durability.power_loss,
        store.durability.failover,
    )


@pytest.mark.parametrize("text", ["hello\n", "x" * 10_000, "SQLite format 4\0" * 100])
def test_another_file_is_refused_and_left_alone(path: Path, text: str) -> None:
    path.write_text(text)
    store = SqliteStore(path)
    with pytest.raises(StoreMisconfiguredError, match="no SQLite database"):
        store.append("r", 0, 0, [a_record()], attempt_id="a", fence=1)
    with pytest.raises(StoreMisconfiguredError, match="another file"):
        store.head("r")
    store.close()
    assert text == path.read_text()
    assert [path] == list(path.parent.iterdir())


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreMisconfiguredError, match="directory"):
        SqliteStore(tmp_path).head("r")


def test_no_permission_is_told(path: Path, said: Callable[..., str]) -> None:
    SqliteStore(path).head("r")
    path.chmod(0o400)
    code = """
import os, sys
from stepwell.errors import StoreMisconfiguredError
from stepwell_stores.sqlite import SqliteStore
store = SqliteStore(sys.argv[1])
os.chmod(os.path.dirname(sys.argv[1]), 0o755)
if os.geteuid() == 0:
    os.setuid(65534)
try:
    store.head("r")
except StoreMisconfiguredError as e:
    print(e)
"""
    assert "ermission" in said(code, str(path))


def test_a_file_of_another_program_is_shared(path: Path, create: Callable[..., Lease]) -> None:
    """Their tables and their user_version stay as they are."""
    by_hand(path, "CREATE TABLE runs (x)", "INSERT INTO runs VALUES (7)", "PRAGMA user_version = 99")
    with pytest.raises(StoreMisconfiguredError, match="without stepwell's tables"):
        SqliteStore(path, must_exist=True).head("r")
    store = SqliteStore(path)
    create(store)
    store.close()
    db = sqlite3.connect(path)
    assert (7,) == db.execute("SELECT x FROM runs").fetchone()
    assert (99,) == db.execute("PRAGMA user_version").fetchone()
    db.close()


def test_tables_of_a_newer_version_are_refused(path: Path, store: SqliteStore, create: Callable[..., Lease]) -> None:
    create(store)
    store.close()
    by_hand(path, "UPDATE stepwell_schema SET version = 99")
    newer = SqliteStore(path)
    with pytest.raises(NewerFormatError, match="upgrade stepwell"):
        newer.head("r")
    newer.close()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("UPDATE stepwell_events SET body = replace(body, 'triage', 'tricky')", ["checksum", "seq 0", "'r'"]),
        ("UPDATE stepwell_events SET body = X'00' WHERE seq = 1", ["seq 1"]),
        ("DELETE FROM stepwell_events WHERE seq = 1", ["record 1 of 3 is missing"]),
        ("DELETE FROM stepwell_events WHERE seq = 2", ["record 2 of 3 is missing"]),
        (
            "UPDATE stepwell_events SET body = (SELECT body FROM stepwell_events WHERE seq = 2) WHERE seq = 1",
            ["seq 1", "another record"],
        ),
    ],
)
def test_damage_is_named(
    path: Path, store: SqliteStore, create: Callable[..., Lease], change: str, words: list[str]
) -> None:
    create(store)
    store.append("r", 0, 1, [a_record("one"), a_record("two")], attempt_id="a", fence=1, release=True)
    store.close()
    by_hand(
        path,
        change.replace("replace(body", "CAST(replace(CAST(body AS TEXT)").replace("'tricky')", "'tricky') AS BLOB)"),
    )
    damaged = SqliteStore(path)
    with pytest.raises(CorruptHistoryError) as caught:
        damaged.read("r")
    assert [] == [word for word in [str(path), "stepwell_events", *words] if word not in str(caught.value)]
    damaged.close()


def test_a_damaged_row_is_named(path: Path, store: SqliteStore, create: Callable[..., Lease]) -> None:
    create(store)
    store.close()
    by_hand(path, "UPDATE stepwell_runs SET status = 'odd'")
    damaged = SqliteStore(path)
    with pytest.raises(CorruptHistoryError, match="stepwell_runs, run 'r'"):
        damaged.head("r")
    damaged.close()


def test_flipped_bits_never_give_other_records(path: Path, store: SqliteStore, create: Callable[..., Lease]) -> None:
    """SQLite has no checksums of its own: whatever bit is wrong, the records are right or an error says so."""
    create(store)
    store.append("r", 0, 1, [a_record("x" * 50 + str(i)) for i in range(200)], attempt_id="a", fence=1)
    tail = store.read("r")
    assert tail is not None
    store.close()
    whole, dice, refused = path.read_bytes(), random.Random(7), 0
    for _ in range(150):
        data = bytearray(whole)
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        path.write_bytes(data)
        damaged = SqliteStore(path, must_exist=True)
        try:
            found = damaged.read("r")
            assert found is None or tail.records == found.records
        except StepwellError:
            refused += 1
        finally:
            damaged.close()
    assert refused > 20


def test_busy_is_not_applied(path: Path, monkeypatch: pytest.MonkeyPatch, create: Callable[..., Lease]) -> None:
    monkeypatch.setattr(sqlite_schema, "BUSY_SECONDS", 0.01)
    store = SqliteStore(path)
    lease = create(store)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert NotApplied() == store.append("r", 0, 1, [a_record()], attempt_id="a", fence=1)
    assert NotApplied() == store.create("s", [a_record()], head=a_head(), attempt_id="a")
    with pytest.raises(StoreUnavailableError):
        store.renew(lease, 30)
    tail = store.read("r")
    assert tail is not None, "readers go on"
    assert tail.seq == 1
    other.execute("ROLLBACK")
    assert Committed(1, 0) == store.append("r", 0, 1, [a_record()], attempt_id="a", fence=1)
    other.close()
    store.close()


def test_a_full_disk_is_not_applied(store: SqliteStore, create: Callable[..., Lease]) -> None:
    create(store)
    db = store._database._writer.db
    assert db is not None
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count = {pages}")
    outcome = store.append("r", 0, 1, [a_record("x" * 100_000)], attempt_id="a", fence=1)
    assert isinstance(outcome, NotApplied)
    assert "full" in str(outcome.cause)
    assert Committed(1, 0) == store.append("r", 0, 1, [a_record("x" * 100_000)], attempt_id="a", fence=1)


class Failing:
    """A connection whose COMMIT fails, after or before it was done."""

    def __init__(self, db: sqlite3.Connection, done: bool) -> None:
        self.db, self.done = db, done

    def execute(self, statement: str, *values: Any) -> Any:
        if statement == "COMMIT":
            self.db.execute("COMMIT" if self.done else "ROLLBACK")
            raise sqlite3.OperationalError("disk I/O error")
        return self.db.execute(statement, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.db, name)


@pytest.mark.parametrize("done", [True, False])
def test_a_failed_commit_is_unknown_and_settled_by_the_same_attempt(
    store: SqliteStore, create: Callable[..., Lease], done: bool
) -> None:
    create(store)
    handle = store._database._writer
    assert handle.db is not None
    handle.db = Failing(handle.db, done)  # type: ignore[assignment]
    assert Unknown() == store.append("r", 0, 1, [a_record()], attempt_id="a", fence=1)
    expected = AlreadyCommitted(1, 0) if done else Committed(1, 0)
    assert expected == store.append("r", 0, 1, [a_record()], attempt_id="a", fence=1)
    assert handle.db is not None
    handle.db = Failing(handle.db, done)  # type: ignore[assignment]
    with pytest.raises(StoreError):
        store.claim("r", "w", 30)


def test_a_file_that_vanishes_is_not_begun_anew(path: Path, store: SqliteStore, create: Callable[..., Lease]) -> None:
    create(store)
    for name in ("runs.db", "runs.db-wal", "runs.db-shm"):
        (path.parent / name).unlink()
    with pytest.raises(StoreError, match="removed"):
        store.append("r", 0, 1, [a_record()], attempt_id="a", fence=1)
    with pytest.raises(StoreMisconfiguredError, match="no store at"):
        store.append("r", 0, 1, [a_record()], attempt_id="a", fence=1)
    assert not path.exists()


def test_lists_and_claims_go_by_index(store: SqliteStore) -> None:
    store.head("r")
    db = store._database._reader.db
    assert db is not None
    wheres = [
        HeadFilter(),
        HeadFilter(status="suspended"),
        HeadFilter(status="running"),
        HeadFilter(workflow="w"),
        HeadFilter(tag=("a", "b")),
        HeadFilter(waiting_for="go"),
        HeadFilter(waiting_for="go", tag=("a", "b")),
        HeadFilter(waiting_for="go", status="suspended"),
    ]
    asked = [sqlite_rows.page(where, after, 10, 0, "[]") for where in wheres for after in (None, (5, "r"))]
    asked += [(sqlite_rows.DUE, [0, 1]), (sqlite_rows.LEASED, []), (sqlite_rows.DUE_BLOCKED, ["[]", 0, 1])]
    for statement, values in asked:
        plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
        assert [] == [step for step in plan if "TEMP B-TREE" in step], (statement, plan)
        assert [] == [step for step in plan if step.startswith("SCAN") and "INDEX" not in step and "json" not in step]
    plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sqlite_rows.KINDS}")]
    assert 2 == len([step for step in plan if "SEARCH stepwell_runs USING INDEX stepwell_runs_kinds" in step])
    assert [] == [step for step in plan if "SCAN stepwell_runs" in step]


def test_a_symbolic_link_and_its_target_are_one_store(path: Path, create: Callable[..., Lease]) -> None:
    link = path.parent / "link.db"
    link.symlink_to(path)
    store, linked = SqliteStore(path), SqliteStore(link)
    lease = create(store)
    head = linked.head("r")
    assert head is not None
    assert replace(head, lease_until=None) == replace(head, lease_until=None)
    assert lease.until == head.lease_until
    store.close()
    linked.close()


def test_a_second_store_in_one_process_keeps_the_locks_of_the_first(
    path: Path, create: Callable[..., Lease], said: Callable[..., str]
) -> None:
    """Were the file opened and closed besides, another process could take the log away as the last one to leave."""
    first, second = SqliteStore(path), SqliteStore(path)
    create(first)
    second.head("r")
    code = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("SELECT count(*) FROM stepwell_runs").fetchall()
db.close()
"""
    said(code, str(path))
    assert Path(f"{path}-wal").exists()
    first.close()
    second.close()
