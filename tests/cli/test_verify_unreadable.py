"""`stepwell verify` of what can't be read: it is named, and all the rest is read."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stepwell import Engine, Flow, Step, Suspend, workflow
from stepwell_stores.filelock import FairLock
from stepwell_stores.jsonl import files as jsonl_files
from stepwell_stores.sqlite import database as sqlite_database
from stepwell_stores.sqlite import schema as sqlite_schema
from stepwell_stores.sqlite import verify as sqlite_verify

FILES, SQLITE = "file:runs", "sqlite:///runs.db"
PAGE = 4096
LONG = "z" * 200  # its files have a hash for a name, and only the fence has its id
NAMES = ("a", "b", "c", LONG)


@workflow
def ask(name: str) -> Flow[str]:
    yield Step(str.upper, name).options(name="shout", into=str)
    return (yield from Suspend("answer", into=str))


@pytest.fixture
def files(here: Path) -> Path:
    """A store of files with some runs of three records each."""
    with Engine(FILES, [ask]) as engine:
        for name in NAMES:
            engine.start(ask, name, run_id=name)
    return here / "runs"


@pytest.fixture
def verify(stepwell: Callable[..., Any]) -> Callable[[str], tuple[int, dict[str, Any]]]:
    """Verifies a store: exit code and JSON."""

    def call(url: str) -> tuple[int, dict[str, Any]]:
        done = stepwell("--store", url, "verify", "--json")
        assert "" == done.err
        return done.code, json.loads(done.out)

    return call


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, int], None]:
    """Has one function of `os` fail for files whose name ends so."""

    def plant(function: str, ending: str, code: int) -> None:
        opened: set[int] = set()
        real = {name: getattr(os, name) for name in ("open", "close", "read", "stat")}

        def call(name: str, what: Any, *more: Any, **options: Any) -> Any:
            wanted = what in opened if name == "read" else str(what).endswith(ending)
            if name == function and wanted:
                raise OSError(code, os.strerror(code))
            found = real[name](what, *more, **options)
            if name == "open" and wanted:
                opened.add(found)
            elif name == "close":
                opened.discard(what)
            return found

        for name in real:
            monkeypatch.setattr(os, name, lambda *values, name=name, **options: call(name, *values, **options))

    return plant


# ---- files


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES])
@pytest.mark.parametrize("function", ["open", "read"])
@pytest.mark.parametrize(
    ("name", "records"), [("b.0.jsonl", 9), ("b.head.json", 12), ("*~*.fence", 12)], ids=["journal", "head", "fence"]
)
def test_a_file_that_can_not_be_read_is_named_and_the_others_are_read(
    verify, files, failing, code, function, name, records
):
    ending = f"/{next(files.glob(name)).name}"
    failing(function, ending, code)
    found_code, found = verify(FILES)
    assert (4, False, records, 4) == (found_code, found["complete"], found["records"], found["incarnations"])
    (problem,) = found["problems"]
    assert problem["place"].endswith(ending)
    assert os.strerror(code) in problem["message"]


def test_a_size_that_can_not_be_told_is_a_problem_of_that_file(verify, files, failing):
    failing("stat", ".fence", errno.EIO)
    code, found = verify(FILES)
    assert (4, 12, 1) == (code, found["records"], len(found["problems"]))


def test_the_damage_that_comes_after_it_is_found_too(stepwell, files, failing):
    path = files / "c.0.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"C"', b'"X"'))
    failing("read", "/a.0.jsonl", errno.EIO)
    *problems, last = stepwell("--store", FILES, "verify").out.splitlines()
    assert [True, True] == [name in line for name, line in zip(("a.0", "c.0"), problems, strict=True)]
    assert "3 runs" not in last, "the run that could not be read is one of them all the same"
    assert last.endswith(" bytes read, but not all of the store: 2 problems")


@pytest.mark.parametrize("name", ["b.head.json", "b.0.jsonl", "b.fence"])
def test_what_is_no_file_is_named_and_the_others_are_read(verify, files, name):
    (files / name).unlink(missing_ok=True)
    (files / name).symlink_to(files / "c.0.jsonl")
    code, found = verify(FILES)
    assert (4, 4, False) == (code, found["runs"], found["complete"])
    assert {str(files.resolve() / name)} == {one["place"] for one in found["problems"]}


def test_a_directory_that_can_not_be_listed_is_a_store_that_can_not_be_read(stepwell, files, monkeypatch):
    def fail(self: Any) -> list[str]:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(jsonl_files.Directory, "names", fail)
    done = stepwell("--store", FILES, "verify", "--json")
    found = json.loads(done.out)
    assert (4, False, ["STORE"]) == (done.code, found["complete"], [one["code"] for one in found["problems"]])


@pytest.fixture
def held(files: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A run whose lock somebody keeps."""
    monkeypatch.setattr(jsonl_files, "_BUSY_SECONDS", 0.05)
    lock = FairLock(str(files / ".locks" / f"{zlib.crc32(b'b') % 64:02x}"))
    assert lock.acquire(1)
    yield "b"
    lock.release()
    lock.close()


def test_a_run_that_is_busy_does_not_stop_the_others(verify, held):
    """Nothing is damaged, as far as can be told: exit code 3, try again."""
    code, found = verify(FILES)
    assert (3, False, 9) == (code, found["complete"], found["records"])
    assert ["STORE_UNAVAILABLE"] == [one["code"] for one in found["problems"]]
    assert found["problems"][0]["place"].endswith("b.*")


def test_damage_counts_for_more_than_what_is_busy(verify, held, files):
    (files / "c.0.jsonl").write_bytes(b"no record\n")
    assert 4 == verify(FILES)[0]


def test_a_name_with_a_huge_number_keeps_nobody_busy(verify, files):
    (files / f"b.{10**12}.jsonl").write_bytes((files / "b.0.jsonl").read_bytes())
    code, found = verify(FILES)
    assert (4, True) == (code, len(found["problems"]) < 20)


# ---- pages of SQLite


@pytest.fixture
def pages(here: Path) -> dict[str, list[int]]:
    """A store of some pages: the numbers of each tree's, its root first."""
    with Engine(SQLITE, [ask]) as engine:
        for number in range(60):
            engine.start(ask, "ada" * 30, run_id=f"run-{number:02}-{'x' * 100}")
    db = sqlite3.connect("runs.db")
    roots = db.execute("SELECT name, rootpage FROM sqlite_master WHERE rootpage > 0").fetchall()
    db.close()
    data = Path("runs.db").read_bytes()

    def tree(number: int) -> list[int]:
        page = data[(number - 1) * PAGE : number * PAGE]
        if page[0] not in (2, 5):  # a leaf; see sqlite.org/fileformat2.html, "B-tree Pages"
            return [number]
        cells = [int.from_bytes(page[at : at + 2]) for at in range(12, 12 + 2 * int.from_bytes(page[3:5]), 2)]
        children = [int.from_bytes(page[at : at + 4]) for at in (*cells, 8)]
        return [number, *(one for child in children for one in tree(child))]

    return {name: tree(root) for name, root in roots}


def spoil(number: int, data: bytes = b"\xff" * PAGE) -> None:
    """Write over a page."""
    with Path("runs.db").open("r+b") as file:
        file.seek((number - 1) * PAGE)
        file.write(data)


INDEX = "sqlite_autoindex_stepwell_runs_1"


@pytest.mark.parametrize(
    ("tree", "at", "lost"),
    [
        ("stepwell_events", 1, 30),
        ("stepwell_events", -1, 12),
        ("stepwell_events", 0, 60),
        ("stepwell_runs", 0, 0),
        ("stepwell_runs", 2, 0),
        (INDEX, 0, 0),
        (INDEX, 1, 0),
        (INDEX, 2, 0),
        ("stepwell_runs_created", 1, 0),
        ("stepwell_attempts", 0, 0),
        ("stepwell_tags_run", 0, 0),
    ],
)
def test_a_bad_page_hides_no_more_than_what_is_on_it(verify, pages, tree, at, lost):
    spoil(pages[tree][at])
    code, found = verify(SQLITE)
    assert 4 == code
    assert 60 == found["runs"], "each of them is named, at least"
    assert found["records"] >= 3 * (60 - lost)
    assert "CORRUPT_HISTORY" == found["problems"][0]["code"]
    assert not found["complete"]
    assert not any("run stepwell verify" in one["message"] for one in found["problems"])


def test_runs_that_an_index_does_not_have_are_read(verify, pages):
    """The root of another tree in its place: a list that is short, and can be read."""
    data = Path("runs.db").read_bytes()
    other = pages["stepwell_waits_run"][1]
    spoil(pages[INDEX][0], data[(other - 1) * PAGE : other * PAGE])
    code, found = verify(SQLITE)
    assert (4, 180) == (code, found["records"])


def test_it_is_said_when_runs_may_be_left_out(verify, pages):
    spoil(pages[INDEX][1])
    spoil(pages["stepwell_runs"][2])
    code, found = verify(SQLITE)
    assert (4, 180) == (code, found["records"])
    assert any("runs may be left out" in one["message"] for one in found["problems"])


def test_a_value_of_another_type_is_a_problem_and_no_traceback(verify, pages, monkeypatch):
    def damaged(*_: Any) -> Any:
        raise TypeError("expected bytes, got int")

    monkeypatch.setattr(sqlite_verify, "lines_of", damaged)
    code, found = verify(SQLITE)
    assert (4, 60) == (code, len(found["problems"]))


def driver_error(code: int) -> sqlite3.OperationalError:
    """What the driver raises, with SQLite's code."""
    error = sqlite3.OperationalError("planted")
    error.sqlite_errorcode = code
    return error


@pytest.fixture
def io_error(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Has the reading of one history fail."""

    def plant(code: int) -> None:
        real = sqlite_verify._history

        def history(db: Any, path: str, run_id: str, *more: Any) -> Any:
            if run_id.startswith("run-30"):
                raise driver_error(code)
            return real(db, path, run_id, *more)

        monkeypatch.setattr(sqlite_verify, "_history", history)

    return plant


def test_an_error_of_the_disk_is_one_run_s_problem(verify, pages, io_error):
    io_error(sqlite3.SQLITE_IOERR)
    code, found = verify(SQLITE)
    assert (4, False, 60, 177) == (code, found["complete"], found["runs"], found["records"])
    (problem,) = found["problems"]
    assert ("STORE", True) == (problem["code"], "run-30" in problem["place"])
    assert problem["message"] == "can't be read: planted; check the disk"


def test_a_disk_that_fails_for_good_is_told_and_not_called_busy(verify, pages, io_error, monkeypatch):
    """After an error of the disk the file is opened again; that may fail too."""
    io_error(sqlite3.SQLITE_IOERR)
    first = sqlite_schema.connect
    opened: list[Any] = []

    def connect(*values: Any) -> Any:
        if opened:
            raise driver_error(sqlite3.SQLITE_IOERR)
        opened.append(first(*values))
        return opened[0]

    monkeypatch.setattr(sqlite_database, "connect", connect)
    code, found = verify(SQLITE)
    assert (4, False, 90) == (code, found["complete"], found["records"])
    assert {"STORE"} == {one["code"] for one in found["problems"]}


def test_a_store_that_is_busy_is_not_damaged(stepwell, pages, io_error):
    io_error(sqlite3.SQLITE_BUSY)
    done = stepwell("--store", SQLITE, "verify", "--json")
    assert (3, "") == (done.code, done.out)
    assert "is busy" in done.err


def test_what_was_found_before_it_became_busy_is_told(verify, pages, io_error):
    spoil(pages["stepwell_tags_run"][0])
    io_error(sqlite3.SQLITE_BUSY)
    code, found = verify(SQLITE)
    assert (4, False) == (code, found["complete"])
    assert ["CORRUPT_HISTORY", "STORE_UNAVAILABLE"] == [one["code"] for one in found["problems"]]
