"""examples/bulk_import: killed, stopped and cancelled, and complete in the end."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from stepwell import Engine

ROWS = 400
PATIENCE = 60.0


@pytest.fixture
def run(begin: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts an import of the file."""
    (tmp_path / "people.csv").write_text("".join(f"person {n},town {n % 7}\n" for n in range(ROWS)), "utf-8")

    def start(*options: str, source: str = "people.csv") -> subprocess.Popen[str]:
        return begin("run.py", source, "people.db", *options)

    return start


def wait_for_progress(folder: Path, process: subprocess.Popen[str]) -> int:
    """Until something is told and recorded; the rows that it tells of."""
    assert process.stdout is not None
    assert "attempt 1, from row 0" in process.stdout.readline()
    with Engine(f"sqlite:///{folder}/imports.db") as engine:
        for event in follow(engine):
            if event.kind == "heartbeat":
                return int(bytes(event.details))
    raise AssertionError("nothing was told")


def follow(engine: Engine) -> Iterator[Any]:
    """The events of the run as they come."""
    seen = 0
    while True:
        history = engine.history("people.csv")
        yield from history[seen:]
        seen = len(history)
        engine.store.wait("people.csv", seen, 1.0)


def rows(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "people.db")) as db:
        return int(db.execute("SELECT count(*) FROM people").fetchone()[0])


def test_an_import_runs_to_its_end(run: Any, tmp_path: Path) -> None:
    said, _ = run("--pause", "0").communicate(timeout=PATIENCE)
    assert f"people.csv: {ROWS} rows" in said
    assert ROWS == rows(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_it_goes_on_where_it_was(run: Any, tmp_path: Path, number: int) -> None:
    first = run("--pause", "0.7")
    told = wait_for_progress(tmp_path, first)
    first.send_signal(number)
    _, complaint = first.communicate(timeout=PATIENCE)
    assert ("stopped; the same command goes on" in complaint) == (number == signal.SIGINT)
    second = run("--pause", "0.7")
    assert second.stdout is not None
    begins = int(second.stdout.readline().rpartition(" ")[2])
    assert begins >= told > 0
    said, _ = second.communicate(timeout=PATIENCE)
    assert f"people.csv: {ROWS} rows" in said
    assert ROWS == rows(tmp_path)


def test_a_cancel_ends_it(run: Any, tmp_path: Path) -> None:
    process = run("--pause", "600")
    assert "attempt 1" in process.stdout.readline()
    with Engine(f"sqlite:///{tmp_path}/imports.db") as engine:
        engine.cancel("people.csv")
    said, _ = process.communicate(timeout=PATIENCE)
    assert ("people.csv: cancelled\n", 1) == (said, process.returncode)


def test_a_file_that_is_not_there_is_told(run: Any) -> None:
    process = run(source="none.csv")
    _, complaint = process.communicate(timeout=PATIENCE)
    assert ("none.csv: no such file\n", 2) == (complaint, process.returncode)
