"""The SQLite store that is read and never written: a backup, or a file of somebody else's."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stepwell.errors import ClosedError, NewerFormatError, StoreMisconfiguredError, StoreUnavailableError
from stepwell.store import HeadFilter, Lease
from stepwell.testing.contract import a_head, a_record, a_start
from stepwell_stores import open_store
from stepwell_stores.jsonl import JsonlStore
from stepwell_stores.sqlite import SqliteStore
from stepwell_stores.sqlite import reading as sqlite_reading
from stepwell_stores.sqlite.database import Database

AS_NOBODY = """
import gettext, locale, logging, stepwell.pools, os, pathlib, shutil, sys  # nobody may read these
import stepwell.cli.verifying, stepwell_stores.jsonl, stepwell_stores.sqlite
if os.geteuid() == 0:  # for whom no permission counts
    os.setgid(65534)
    os.setuid(65534)
if not os.access(sys.argv[1], os.R_OK | os.X_OK):
    sys.exit(99)
sys.exit(stepwell.cli.main(["--store", sys.argv[2], "verify"]))
"""


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A directory that everybody can reach."""
    path = Path(os.path.realpath(tempfile.mkdtemp()))
    path.chmod(0o755)
    yield path
    for directory, _, _ in os.walk(path):
        Path(directory).chmod(0o755)
    shutil.rmtree(path)


def seal(path: Path) -> dict[str, tuple[int, int]]:
    """Take all rights to write away; what is there."""
    for directory, _, names in os.walk(path):
        for name in names:
            (Path(directory) / name).chmod(0o444)
        Path(directory).chmod(0o555)
    return listed(path)


def listed(path: Path) -> dict[str, tuple[int, int]]:
    """All files, with what shows that one was written to."""
    return {str(one): (one.stat().st_size, one.stat().st_mtime_ns) for one in path.rglob("*")}


def verify_as_nobody(path: Path, url: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(path), url],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(one for one in sys.path if one)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode == 99:
        pytest.skip("the directory of temporary files is closed to others")
    return done


@pytest.fixture
def store(tmp_path: Path, create: Callable[..., Lease]) -> Iterator[SqliteStore]:
    """An open store with a run, whose log is not empty."""
    store = SqliteStore(tmp_path / "runs.db")
    create(store)
    yield store
    store.close()


def vacuum(source: Path, target: Path) -> None:
    """A backup without a log, in a file of the older kind."""
    db = sqlite3.connect(source)
    db.execute("VACUUM INTO ?", (str(target),))
    assert ("delete",) == sqlite3.connect(target).execute("PRAGMA journal_mode").fetchone()
    db.close()


def copied(*suffixes: str) -> Callable[[Path, Path], None]:
    """A backup by copying files."""

    def copy(source: Path, target: Path) -> None:
        for suffix in suffixes:
            shutil.copyfile(f"{source}{suffix}", f"{target}{suffix}")

    return copy


def closed(source: Path, target: Path) -> None:
    """A backup of a store that nobody had open."""
    copied("", "-wal")(source, target)
    store = SqliteStore(target)
    store.head("r")
    store.close()
    assert not Path(f"{target}-wal").exists()
    db = sqlite3.connect(target)
    assert ("wal",) == db.execute("PRAGMA journal_mode").fetchone()
    db.close()


def emptied(source: Path, target: Path) -> None:
    """A backup with a log that is empty."""
    closed(source, target)
    Path(f"{target}-wal").touch()


@pytest.mark.parametrize("option", ["", "?mode=ro"])
@pytest.mark.parametrize("backup", [vacuum, closed, emptied, copied("", "-wal", "-shm")])
def test_a_backup_that_can_not_be_written_is_verified(
    store: SqliteStore, open_to_all: Path, backup: Callable[[Path, Path], None], option: str
) -> None:
    backup(Path(store.path), open_to_all / "b@ck up.db")
    before = seal(open_to_all)
    done = verify_as_nobody(open_to_all, f"sqlite:///{open_to_all}/b@ck up.db{option}")
    assert (0, "") == (done.returncode, done.stderr)
    assert "1 run, 1 incarnation, 1 record, " in done.stdout
    assert ("was opened for reading only" in done.stdout) is not bool(option)
    assert before == listed(open_to_all)


def test_what_its_owner_has_open_can_be_verified_by_others(open_to_all: Path, create: Callable[..., Lease]) -> None:
    store = SqliteStore(open_to_all / "runs.db")
    create(store)
    for path in open_to_all.glob("runs.db*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    done = verify_as_nobody(open_to_all, f"sqlite:///{open_to_all}/runs.db")
    assert (0, "") == (done.returncode, done.stderr)
    assert "1 run, 1 incarnation, 1 record, " in done.stdout
    create(store, "another")
    store.close()


@pytest.mark.parametrize(
    ("suffixes", "words"), [(("", "-wal"), "can't be read without"), (("", "-journal"), "has to be rolled back")]
)
def test_a_log_that_only_a_writer_can_read_is_told_with_the_remedy(
    store: SqliteStore, tmp_path: Path, suffixes: tuple[str, ...], words: str
) -> None:
    Path(f"{store.path}-journal").write_bytes(b"x")
    backup = tmp_path / "backup.db"
    copied(*suffixes)(Path(store.path), backup)
    before = listed(tmp_path)
    with pytest.raises(StoreMisconfiguredError, match=words) as caught:
        SqliteStore(backup, read_only=True).head("r")
    assert "copy it, together with every file whose name begins with its own" in str(caught.value)
    assert before == listed(tmp_path)


@pytest.fixture
def backup(store: SqliteStore, tmp_path: Path) -> Path:
    path = tmp_path / "backup" / "runs.db"
    path.parent.mkdir()
    closed(Path(store.path), path)
    shutil.rmtree(f"{path}-owners", ignore_errors=True)
    return path


def test_reading_works_and_every_write_is_refused(backup: Path) -> None:
    before = listed(backup.parent)
    store: Any = open_store(f"sqlite:///{backup}?mode=ro")
    assert ["r"] == [head.run_id for head in store.heads(HeadFilter(), limit=9)]
    assert 1 == len(store.read("r").records)
    assert [] == store.claim_due("me", 30, now=0, limit=9)
    lease = Lease("r", 0, 1, 1, "me", 0)
    writes: list[Callable[[], Any]] = [
        lambda: store.create("new", [a_start()], head=a_head(), attempt_id="a"),
        lambda: store.append("r", 0, 1, [a_record()], attempt_id="a", head=a_head(), fence=1),
        lambda: store.append("r", None, None, [a_record()], attempt_id="a"),
        lambda: store.open_incarnation("r", 1, [a_start()], head=a_head(), attempt_id="a"),
        lambda: store.claim("r", "me", 30),
        lambda: store.renew(lease, 30),
        lambda: store.release(lease),
        lambda: store.delete("r", 0),
    ]
    for write in writes:
        with pytest.raises(StoreMisconfiguredError, match=r"for reading only, so nothing was written.*mode=ro"):
            write()
    assert store.durability.settings["path"] == str(backup)
    store.close()
    assert before == listed(backup.parent)
    with pytest.raises(ClosedError):
        store.head("r")


def test_a_dead_owner_s_lock_is_left_where_it_is(backup: Path) -> None:
    """To ask whether one lives removes it; here the lease only ends with its ttl."""
    owners = Path(f"{backup}-owners")
    owners.mkdir()
    db = sqlite3.connect(backup)
    db.execute("UPDATE stepwell_runs SET owner_lock = 'abc', lease_until = 9000000000000000")
    db.commit()
    db.close()
    (owners / "abc.lock").touch()
    store = SqliteStore(backup, read_only=True)
    found = store.head("r")
    assert found is not None
    assert 9000000000000000 == found.lease_until
    store.close()
    assert (owners / "abc.lock").exists()


def test_nothing_is_made_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(StoreMisconfiguredError, match="no store at"):
        SqliteStore(tmp_path / "none.db", read_only=True).head("r")
    (tmp_path / "empty.db").touch()
    with pytest.raises(StoreMisconfiguredError, match="without stepwell's tables"):
        SqliteStore(tmp_path / "empty.db", read_only=True).head("r")
    assert [tmp_path / "empty.db"] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("version", "error", "words"),
    [(1, StoreMisconfiguredError, "tables are of version 1.*and open the copy"), (99, NewerFormatError, "upgrade")],
)
def test_tables_of_another_version_are_refused(backup: Path, version: int, error: type[Exception], words: str) -> None:
    db = sqlite3.connect(backup)
    db.execute("UPDATE stepwell_schema SET version = ?", (version,))
    db.commit()
    db.close()
    with pytest.raises(error, match=words):
        SqliteStore(backup, read_only=True).head("r")


def test_no_other_error_than_the_port_s_for_what_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreMisconfiguredError, match="no SQLite database"):
        SqliteStore(path, read_only=True).head("r")


def test_a_write_meanwhile_is_noticed(backup: Path, create: Callable[..., Lease]) -> None:
    """It is read without locks, so a checkpoint of another process may change what is being read."""
    reader = Database(str(backup), f"{backup}-owners", read_only=True)
    count = "SELECT count(*) FROM stepwell_runs"

    def work(db: sqlite3.Connection) -> Any:
        other = SqliteStore(backup)
        create(other, "another")
        other.close()
        return db.execute(count).fetchone()

    with pytest.raises(StoreUnavailableError, match="written to while it was read"):
        reader.read(work)
    assert (2,) == reader.read(lambda db: db.execute(count).fetchone())
    other = SqliteStore(backup)
    create(other, "third")
    assert (3,) == reader.read(lambda db: db.execute(count).fetchone()), "from its log, with locks"
    create(other, "fourth")
    assert (4,) == reader.read(lambda db: db.execute(count).fetchone())
    other.close()
    reader.close()


def test_a_log_that_goes_while_the_file_is_opened_is_not_missed(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner closes its store between a look at the log and its opening."""
    monkeypatch.setattr(sqlite_reading, "refuse_network", lambda *_: store.close())
    reader = SqliteStore(store.path, read_only=True)
    assert reader.head("r") is not None
    reader.close()


def test_a_directory_of_journals_that_can_not_be_written_is_verified(
    open_to_all: Path, create: Callable[..., Lease]
) -> None:
    path = open_to_all / "runs"
    store = JsonlStore(path)
    create(store)
    store.close()
    shutil.rmtree(path / ".locks")
    before = seal(open_to_all)
    done = verify_as_nobody(open_to_all, f"file:{path}")
    assert (0, "") == (done.returncode, done.stderr)
    note, summary = done.stdout.splitlines()
    assert note.endswith("nothing was locked; a run that somebody writes to meanwhile may look damaged")
    assert summary.startswith("1 run, 1 incarnation, 1 record, ")
    assert before == listed(open_to_all)


def test_a_damaged_directory_that_can_not_be_written_is_found(open_to_all: Path, create: Callable[..., Lease]) -> None:
    path = open_to_all / "runs"
    store = JsonlStore(path)
    create(store)
    create(store, "other")
    store.close()
    journal = path / "r.0.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b"triage", b"tricky"))
    seal(open_to_all)
    (path / "other.0.jsonl").chmod(0)
    done = verify_as_nobody(open_to_all, f"file:{path}")
    assert 4 == done.returncode
    assert ["r.0.jsonl", "other.0.jsonl"] == [name for name in ("r.0.jsonl", "other.0.jsonl") if name in done.stdout]
    assert "1 record" not in done.stdout
    assert done.stdout.endswith("read, but not all of the store: 2 problems\n")
