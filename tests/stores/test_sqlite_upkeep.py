"""The upkeep of the SQLite store: by index, on damaged rows, and free pages given back beside those who write."""

from __future__ import annotations

import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stepwell.errors import CorruptHistoryError, StoreMisconfiguredError, StoreUnavailableError
from stepwell.store import Committed, Lease
from stepwell.testing.contract import a_head, a_record
from stepwell_stores.sqlite import SqliteStore
from stepwell_stores.sqlite import upkeep as sqlite_upkeep

INCREMENTAL = 2


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path)
    yield store
    store.close()


def fill(store: SqliteStore, create: Callable[..., Lease], runs: int = 20) -> None:
    """Closed runs of 100 kB each."""
    for number in range(runs):
        lease = create(store, f"r{number:02}")
        records = [a_record("x" * 10_000) for _ in range(10)]
        done = store.append(
            lease.run_id,
            0,
            1,
            records,
            attempt_id="a",
            head=a_head(status="completed"),
            fence=lease.fence,
            then="closed",
        )
        assert isinstance(done, Committed)


def delete_all(store: SqliteStore) -> None:
    while page := store.closed(limit=9):
        for head in page:
            assert store.delete(head.run_id, 0)


def mode(path: Path) -> Any:
    db = sqlite3.connect(path)
    (found,) = db.execute("PRAGMA auto_vacuum").fetchone()
    assert [("ok",)] == db.execute("PRAGMA integrity_check").fetchall()
    db.close()
    return found


def test_closed_runs_and_sizes_are_found_by_index(store: SqliteStore) -> None:
    store.head("r")
    db = store._database._reader.db
    assert db is not None
    keys = (None, ("w", 5, "r"))
    asked: list[tuple[str, list[Any]]] = [
        sqlite_upkeep.closed_statement(after, before, newest_first, 10)
        for after in keys
        for before in keys
        for newest_first in (False, True)
    ]
    for statement, values in [*asked, (sqlite_upkeep.LEASED, []), (sqlite_upkeep.STATUSES, [])]:
        plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
        end = ["CORRELATED SCALAR SUBQUERY 1", "SEARCH e USING PRIMARY KEY (run_id=? AND incarnation=?)"]
        assert plan[1:] in ([], end), plan
        assert "INDEX" in plan[0], (statement, plan)
        if "workflow, updated, run_id)" in statement:
            assert plan[0].startswith("SEARCH r USING INDEX stepwell_runs_closed"), plan
    plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sqlite_upkeep.EARLIER}")]
    assert "SEARCH e USING PRIMARY KEY (run_id=? AND incarnation<?)" in plan, plan


def test_a_damaged_row_is_passed_by_and_stays(path: Path, store: SqliteStore, create: Callable[..., Lease]) -> None:
    fill(store, create, 4)
    store.close()
    db = sqlite3.connect(path)
    db.execute("UPDATE stepwell_runs SET blocked = '[' WHERE run_id IN ('r00', 'r01', 'r03')")
    db.commit()
    db.close()
    store = SqliteStore(path)
    for limit in (1, 2, 9):
        assert ["r02"] == [head.run_id for head in store.closed(limit=limit)]
        assert ["r02"] == [head.run_id for head in store.closed(limit=limit, newest_first=True)]
    assert 4 == store.size().runs["completed"]
    store.close()


def test_a_status_that_nobody_wrote_is_told_as_damage(
    path: Path, store: SqliteStore, create: Callable[..., Lease]
) -> None:
    create(store)
    store.close()
    db = sqlite3.connect(path)
    db.execute("UPDATE stepwell_runs SET status = 'odd'")
    db.commit()
    db.close()
    store = SqliteStore(path)
    with pytest.raises(CorruptHistoryError, match="odd"):
        store.size()
    store.close()


# ---- vacuum


def test_the_first_vacuum_writes_the_file_anew_and_later_ones_give_pages_back(
    path: Path, store: SqliteStore, create: Callable[..., Lease]
) -> None:
    fill(store, create)
    full = store.size().bytes
    delete_all(store)
    free = store.size().free
    assert 1_500_000 < free <= full, "SQLite keeps the pages"
    assert 0 == mode(path), "a store that nobody vacuums pays nothing for it"
    assert 1_500_000 < store.vacuum()
    assert 0 == store.size().free
    assert path.stat().st_size < 200_000
    assert INCREMENTAL == mode(path)
    fill(store, create)
    delete_all(store)
    held = create(store, "driven")
    assert 1_500_000 < store.vacuum(), "from now on it is done beside those who drive"
    assert 0 == store.size().free
    assert path.stat().st_size < 200_000
    assert Committed(1, 0) == store.append("driven", 0, 1, [a_record()], attempt_id="a", fence=held.fence)
    assert INCREMENTAL == mode(path)


def test_the_first_vacuum_is_refused_while_a_run_is_driven(
    path: Path, store: SqliteStore, create: Callable[..., Lease]
) -> None:
    fill(store, create, 2)
    delete_all(store)
    lease = create(store, "driven")
    before = path.read_bytes()
    with pytest.raises(StoreUnavailableError, match="1 of its runs are being driven") as told:
        store.vacuum()
    assert told.value.retryable
    assert before == path.read_bytes()
    store.release(lease)
    assert 0 <= store.vacuum()
    assert INCREMENTAL == mode(path)


def test_nothing_is_vacuumed_through_a_connection_that_only_reads(path: Path, store: SqliteStore) -> None:
    store.head("r")
    store.close()
    reading = SqliteStore(path, read_only=True)
    assert 0 == reading.size().events
    with pytest.raises(StoreMisconfiguredError, match="reading only"):
        reading.vacuum()
    reading.close()


WRITER = """
import sys
from stepwell.store import Committed
from stepwell.testing.contract import a_record
from stepwell_stores.sqlite import SqliteStore
store = SqliteStore(sys.argv[1])
print(store.claim(sys.argv[2], "me", 3600).fence, flush=True)
seq = 1
while sys.stdin.readline() != "end\\n":
    for _ in range(50):
        done = store.append(sys.argv[2], 0, seq, [a_record(seq)], attempt_id="a", fence=2)
        assert done == Committed(seq, 0), done
        seq += 1
    print(seq, flush=True)
store.close()
"""


def test_pages_are_given_back_beside_a_process_that_writes(
    path: Path, store: SqliteStore, create: Callable[..., Lease], python: Callable[..., subprocess.Popen[str]]
) -> None:
    """It had the file open when the first vacuum changed how pages are kept, and finds out by itself."""
    store.release(create(store, "busy"))
    fill(store, create, 5)
    delete_all(store)
    elsewhere = SqliteStore(path)
    assert elsewhere.head("busy") is not None
    store.vacuum()
    writer = python(WRITER, str(path), "busy")
    assert writer.stdin is not None
    assert writer.stdout is not None
    assert "2\n" == writer.stdout.readline()
    for _ in range(5):
        fill(elsewhere, create, 10)
        delete_all(elsewhere)
        writer.stdin.write("go\n")
        writer.stdin.flush()
        thread = threading.Thread(target=store.vacuum)
        thread.start()
        assert writer.stdout.readline().strip().isdecimal(), "each append was committed"
        thread.join(60)
        assert not thread.is_alive()
    writer.stdin.write("end\n")
    writer.stdin.flush()
    assert 0 == writer.wait(60)
    elsewhere.close()
    assert 0 == store.size().free
    assert [] == [part.problem for part in store.verify() if part.problem is not None]
    tail = store.read("busy")
    assert tail is not None
    assert 251 == tail.seq
