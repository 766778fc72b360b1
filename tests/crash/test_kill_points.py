"""Processes that are killed before, in the middle of and after every operation on a file."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.crash import sqlite_vfs
from tests.crash.faults import GO, Action, OsFaults

ROOT = Path(__file__).parents[2]
PATIENCE = 600
"""Seconds after which the harness itself is taken for hung."""

needs_vfs = pytest.mark.skipif(sqlite_vfs.missing() is not None, reason=str(sqlite_vfs.missing()))


def harness(*options: object) -> dict[str, Any]:
    """Run the harness in a process of its own, which forks: a test process may have threads."""
    path = [str(ROOT), *(entry for entry in sys.path if entry)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.kill_points", *map(str, options)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
    )
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if report["skipped"]:
        pytest.skip(report["skipped"])
    assert bool(report["violations"]) == bool(done.returncode)
    return report


def reached(report: dict[str, Any], *names: str) -> None:
    """See that the states for which the harness is there did come up."""
    assert [] == [name for name in names if not report["counts"].get(name)]


@pytest.mark.parametrize(("store", "parts", "part"), [("jsonl", 1, 0), *(("sqlite", 3, part) for part in range(3))])
def test_a_death_at_any_operation_loses_and_repeats_nothing(store: str, parts: int, part: int) -> None:
    """Shows S1 (P1)."""
    report = harness("--store", store, "--exhaustive", "--parts", parts, "--part", part)
    assert [] == report["violations"]
    file = {"jsonl": "jsonl", "sqlite": "db-wal"}[store]
    reached(report, *(f"killed {place} write {file}" for place in ("before", "in the middle of", "after")))
    reached(report, "recovered by a next process", "written and not acknowledged", "runs ended")
    assert report["counts"]["kills"] > report["counts"]["stories"] * 0.9, "nearly every first process was killed"


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("store", ["jsonl", "sqlite"])
def test_deaths_anywhere_lose_and_repeat_nothing(store: str, seed: int) -> None:
    """Shows S2 (P2)."""
    report = harness("--store", store, "--count", 500, "--seed", seed)
    assert [] == report["violations"]
    assert report["counts"]["kills"] >= 500
    reached(report, "recovered by a next process", "written and not acknowledged", "runs ended")
    reached(report, "reopen", "outsider came through", *(["torn tails seen"] if store == "jsonl" else []))


@pytest.mark.parametrize(
    ("store", "planted"),
    [
        ("jsonl", "ack before write"),
        ("jsonl", "dead owner keeps its lease"),
        ("jsonl", "no torn-tail cut"),
        ("jsonl", "recorded step runs again"),
        ("sqlite", "ack before write"),
        ("sqlite", "dead owner keeps its lease"),
        ("sqlite", "recorded step runs again"),
    ],
)
def test_a_planted_bug_is_found_by_kills(store: str, planted: str) -> None:
    report = harness("--store", store, "--count", 300, "--plant", planted)
    assert [] != report["violations"]


# ---- on servers


SERVERS = {"postgres": 80, "redis": 80, "s3": 30}
"""Kills; `tests.crash.soak --ci` makes 500, and 100 on s3."""


@pytest.mark.parametrize("store", list(SERVERS))
def test_workers_that_die_at_a_question_lose_and_repeat_nothing(server: str) -> None:
    """Shows S2 (P2)."""
    report = harness("--store", server, "--count", SERVERS[server])
    assert [] == report["violations"]
    assert report["counts"]["kills"] >= SERVERS[server]
    reached(report, "recovered by a next process", "written and not acknowledged", "runs ended")
    for place in ("before", "in the middle of", "after"):
        assert any(name.startswith(f"killed {place} ") for name in report["counts"])


@pytest.mark.parametrize("store", list(SERVERS))
@pytest.mark.parametrize("planted", ["ack before write", "recorded step runs again"])
def test_a_planted_bug_is_found_by_kills_of_workers(server: str, planted: str) -> None:
    report = harness("--store", server, "--count", 300, "--plant", planted)
    assert [] != report["violations"]


# ---- the tools themselves


@needs_vfs
def test_a_commit_in_full_mode_syncs_the_log_once(tmp_path: Path) -> None:
    with sqlite_vfs.install(lambda *_: GO) as vfs:
        db = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
        for setting in ("journal_mode = WAL", "synchronous = FULL"):
            db.execute(f"PRAGMA {setting}")
        db.execute("CREATE TABLE t (a)")
        vfs.counts.clear()
        for number in range(7):
            db.execute("INSERT INTO t VALUES (?)", (number,))
        assert {("sync", "-wal"): 7, ("write", "-wal"): 14} == dict(vfs.counts)
        db.execute("PRAGMA synchronous = NORMAL")
        vfs.counts.clear()
        db.execute("INSERT INTO t VALUES (7)")
        assert {("write", "-wal"): 2} == dict(vfs.counts)
        db.close()
        assert [] == vfs.trouble


@needs_vfs
@pytest.mark.parametrize(
    ("kind", "code", "error"),
    [
        ("write", sqlite3.SQLITE_FULL, "database or disk is full"),
        ("sync", sqlite3.SQLITE_IOERR_FSYNC, "disk I/O error"),
        ("shmlock", sqlite3.SQLITE_IOERR, "disk I/O error"),
    ],
)
def test_an_error_from_the_layer_below_comes_out_of_sqlite(tmp_path: Path, kind: str, code: int, error: str) -> None:
    fail = False
    answer = lambda what, *_: Action(made=False, code=code) if fail and what == kind else GO
    with sqlite_vfs.install(answer, sqlite_vfs.CHANGES | sqlite_vfs.LOOKS) as vfs:
        db = sqlite3.connect(tmp_path / "a.db", isolation_level=None, timeout=0)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("CREATE TABLE t (a)")
        fail = True
        with pytest.raises(sqlite3.OperationalError, match=error) as caught:
            db.execute("INSERT INTO t VALUES (1)")
        assert code & 0xFF == caught.value.sqlite_errorcode & 0xFF
        fail = False
        assert [] == db.execute("SELECT * FROM t").fetchall()
        db.close()
        assert [] == vfs.trouble


@needs_vfs
def test_a_sync_that_lies_is_not_made_and_sqlite_believes_it(tmp_path: Path) -> None:
    with sqlite_vfs.install(lambda kind, *_: Action(made=False, code=0) if kind == "sync" else GO) as vfs:
        db = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
        db.execute("PRAGMA synchronous = EXTRA")
        db.execute("CREATE TABLE t (a)")
        db.close()
        assert vfs.counts["sync", ""] > 0


@needs_vfs
def test_after_the_layer_is_taken_out_nobody_is_asked(tmp_path: Path) -> None:
    with sqlite_vfs.install(lambda *_: GO) as vfs:
        pass
    sqlite3.connect(tmp_path / "a.db").execute("CREATE TABLE t (a)").connection.close()
    assert not vfs.counts


def test_the_functions_of_os_are_observed_and_put_back(tmp_path: Path) -> None:
    seen, real = [], os.write

    def see(kind: str, path: str, _size: int) -> Action:
        seen.append((kind, Path(path).name))
        return GO

    with OsFaults(see):
        fd = os.open(tmp_path / "a", os.O_WRONLY | os.O_CREAT)
        os.write(fd, b"abc")
        os.fsync(fd)
        os.close(fd)
        (tmp_path / "a").replace(tmp_path / "b")
    assert [("create", "a"), ("write", "a"), ("fsync", "a"), ("replace", "a")] == seen
    assert real is os.write


def test_a_part_of_a_write_and_an_error_can_be_asked_for(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "a", os.O_WRONLY | os.O_CREAT)
    with (
        OsFaults(lambda kind, *_: Action(part=2, code=28) if kind == "write" else GO),
        pytest.raises(OSError, match="No space left on device"),
    ):
        os.write(fd, b"abc")
    os.close(fd)
    assert b"ab" == (tmp_path / "a").read_bytes()
