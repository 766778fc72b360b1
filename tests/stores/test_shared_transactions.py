"""Runs whose owners append at the same time share a transaction of SQLite; when it fails, each is told the truth."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.engine.tools import eventually

from stepwell.errors import NotFoundError
from stepwell.store import AlreadyCommitted, Committed, NotApplied, Unknown
from stepwell.testing.contract import a_head, a_record, a_start
from stepwell_stores.outcomes import AmbiguousError, NotWrittenError
from stepwell_stores.sqlite import SqliteStore
from stepwell_stores.sqlite.database import Database

RUNS = [f"r{number}" for number in range(8)]


class Gate:
    """Holds the first transaction up until all others wait, and then lets the shared one end as it is told."""

    def __init__(self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.began = threading.Event()
        self.transactions = 0
        self.fails: Callable[[], Any] = lambda: None  # of the transactions but the first: after COMMIT
        self.before: Callable[[], Any] = lambda: None  # and before it
        self.store = store
        real = Database._transaction

        def gated(database: Database, handle: Any, db: Any, work: Callable[[Any], Any]) -> Any:
            self.transactions += 1
            if self.transactions == 1:
                self.began.set()
                assert self.open.wait(30)
                return real(database, handle, db, work)
            self.before()
            done = real(database, handle, db, work)
            self.fails()
            return done

        monkeypatch.setattr(Database, "_transaction", gated)

    def together(self, pool: ThreadPoolExecutor, calls: list[Callable[[], Any]]) -> list[Future[Any]]:
        """Make all calls so that all but the first share a transaction."""
        first = pool.submit(calls[0])
        assert self.began.wait(30)
        others = [pool.submit(call) for call in calls[1:]]
        waiting = self.store._database._group._waiting
        eventually(lambda: len(waiting) == len(others))
        self.open.set()
        return [first, *others]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    made = SqliteStore(tmp_path / "runs.db")
    for run_id in RUNS:
        made.create(run_id, [a_start()], head=a_head(), attempt_id="new")
    yield made
    made.close()


@pytest.fixture
def gate(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(store, monkeypatch)


def own(store: SqliteStore, run_id: str) -> Callable[[], Any]:
    return lambda: store.append(run_id, 0, 1, [a_record(run_id)], attempt_id="one", fence=1)


def seqs(store: SqliteStore) -> list[int]:
    heads = [store.head(run_id) for run_id in RUNS]
    return [head.seq for head in heads if head is not None]


def test_one_commit_serves_all_who_wait(store: SqliteStore, gate: Gate) -> None:
    with ThreadPoolExecutor(len(RUNS)) as pool:
        futures = gate.together(pool, [own(store, run_id) for run_id in RUNS])
        assert [Committed(1, 0)] * len(RUNS) == [future.result(30) for future in futures]
    assert gate.transactions == 2
    assert [2] * len(RUNS) == seqs(store)


def test_when_nobody_can_say_whether_it_was_committed_each_finds_out(store: SqliteStore, gate: Gate) -> None:
    def lost() -> None:
        raise AmbiguousError("COMMIT failed")

    gate.fails = lost
    with ThreadPoolExecutor(len(RUNS)) as pool:
        outcomes = [future.result(30) for future in gate.together(pool, [own(store, run_id) for run_id in RUNS])]
    assert Committed(1, 0) == outcomes[0]
    assert all(isinstance(outcome, Unknown) for outcome in outcomes[1:])
    gate.fails = lambda: None
    assert [AlreadyCommitted(1, 0)] * len(RUNS) == [own(store, run_id)() for run_id in RUNS]
    assert [2] * len(RUNS) == seqs(store)


def test_when_it_was_not_written_nothing_of_any_is_there(store: SqliteStore, gate: Gate) -> None:
    def full() -> None:
        raise NotWrittenError("the disk is full")

    gate.before = full
    with ThreadPoolExecutor(len(RUNS)) as pool:
        outcomes = [future.result(30) for future in gate.together(pool, [own(store, run_id) for run_id in RUNS])]
    assert all(isinstance(outcome, NotApplied) for outcome in outcomes[1:])
    assert [2] + [1] * (len(RUNS) - 1) == seqs(store)
    gate.before = lambda: None
    assert [Committed(1, 0)] * (len(RUNS) - 1) == [own(store, run_id)() for run_id in RUNS[1:]]


def test_a_run_that_is_not_there_is_nobody_elses_trouble(store: SqliteStore, gate: Gate) -> None:
    calls = [own(store, run_id) for run_id in RUNS]
    calls.insert(3, own(store, "missing"))
    with ThreadPoolExecutor(len(calls)) as pool:
        futures = gate.together(pool, calls)
        with pytest.raises(NotFoundError, match="missing"):
            futures.pop(3).result(30)
        assert [Committed(1, 0)] * len(RUNS) == [future.result(30) for future in futures]
    assert [2] * len(RUNS) == seqs(store)
