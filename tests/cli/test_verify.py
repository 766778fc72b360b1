"""`stepwell verify`: what is whole, what is damaged and where, and that nothing is written."""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stepwell import Emit, Engine, Flow, Step, Suspend, workflow
from stepwell.cli.progress import Progress
from stepwell.store import Draft, Head
from stepwell_stores import open_store

SQLITE, FILES = "sqlite:///runs.db", "file:runs"
BUSY = """
import os
from stepwell import *

@workflow
def busy(number: int) -> Flow[int]:
    for turn in range(number % 5):
        yield Step(str, turn).options(into=str)
        yield Emit(turn)
    return number

engine = Engine(os.environ["STEPWELL_STORE"], workflows=[busy])
"""


@pytest.fixture(params=[SQLITE, FILES])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@workflow
def ask(name: str) -> Flow[str]:
    yield Step(str.upper, name).options(name="shout", into=str)
    return (yield from Suspend("answer", into=str))


@workflow
def fails(path: str) -> Flow[str]:
    yield Step(str.upper, path).options(name="shout", into=str)
    return (yield from Step(Path.read_text, Path(path)).options(name="read", into=str))


@pytest.fixture
def filled(here: Path, url: str) -> str:
    """A store with every way in which a history begins and ends; its URL."""
    with Engine(url, [ask, fails]) as engine:
        engine.start(ask, "ada", run_id="done")
        engine.resume("done", "answer", "yes")
        engine.start(ask, "bob", run_id="waits/é")
        engine.submit(ask, "eve", run_id="pending")
        engine.start(fails, "none", run_id="failed")
        engine.retry("failed")
        engine.start(ask, "x", run_id="reset")
        engine.reset("reset")
        engine.fork("done", before="shout", new_run_id="fork")
        engine.start(ask, "y", run_id="cancelled")
        engine.cancel("cancelled")
        engine.start(ask, "y", run_id="forced")
        engine.cancel("forced", force=True)
        engine.start(ask, "z", run_id="x" * 200)
        engine.start(ask, "z", run_id="gone")
        engine.cancel("gone", force=True)
        engine.delete("gone")
        engine.signal("pending", "answer", "early")
        engine.pause("waits/é")
    return url


@pytest.fixture
def verify(stepwell: Callable[..., Any]) -> Callable[[str], tuple[int, dict[str, Any]]]:
    """Verifies a store: exit code and JSON."""

    def call(url: str) -> tuple[int, dict[str, Any]]:
        done = stepwell("--store", url, "verify", "--json")
        assert "" == done.err
        found = json.loads(done.out)
        assert ["runs", "incarnations", "records", "bytes", "complete", "problems", "notes"] == list(found)
        return done.code, found

    return call


def content(url: str) -> Any:
    """What a store holds: all files, or all rows."""
    if url == FILES:
        return {
            str(path): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(Path("runs").rglob("*"))
            if path.is_file()
        }
    db = sqlite3.connect("runs.db")
    try:
        return list(db.iterdump())
    finally:
        db.close()


def change(url: str, run_id: str, old: bytes, new: bytes, incarnation: int = 0) -> None:
    """Change bytes of a history, of the same length."""
    assert len(old) == len(new)
    if url == FILES:
        (path,) = Path("runs").glob(f"{run_id}.{incarnation}.jsonl")
        data = path.read_bytes()
        assert 1 == data.count(old)
        path.write_bytes(data.replace(old, new))
        return
    db = sqlite3.connect("runs.db")
    where = (run_id, incarnation)
    rows = db.execute("SELECT seq, body FROM stepwell_events WHERE run_id = ? AND incarnation = ?", where).fetchall()
    ((seq, body),) = [(seq, body) for seq, body in rows if old in body]
    db.execute(
        "UPDATE stepwell_events SET body = ? WHERE run_id = ? AND seq = ? AND incarnation = ?",
        (body.replace(old, new), run_id, seq, incarnation),
    )
    db.commit()
    db.close()


# ---- what is whole


def test_a_whole_store_has_no_problem(verify, filled):
    before = content(filled)
    code, found = verify(filled)
    assert (0, True, [], []) == (code, found["complete"], found["problems"], found["notes"])
    assert (9, 11) == (found["runs"], found["incarnations"])
    with Engine(filled) as engine:
        events = sum(len(engine.history(run.id, incarnation=n)) for run in engine.runs() for n in range(run.attempts))
    assert events == found["records"]
    assert found["bytes"] > 100 * events
    assert before == content(filled)


def test_it_is_told_in_a_line_of_text(stepwell, filled):
    done = stepwell("--store", filled, "verify")
    assert (0, "", 1) == (done.code, done.err, done.out.count("\n"))
    assert done.out.startswith("9 runs, 11 incarnations, ")
    assert done.out.endswith(" bytes read: no problem\n")


def test_an_empty_store_is_whole(verify, url, here):
    with Engine(url) as engine:
        assert [] == engine.runs()
    code, found = verify(url)
    assert (0, 0, 0, 0, []) == (code, found["runs"], found["incarnations"], found["records"], found["problems"])


def test_the_store_of_an_app_is_read(stepwell, run, here):
    run("start", "hello", '"ada"', "--run-id", "r1")
    done = run("verify")
    assert (0, True) == (done.code, done.out.startswith("1 run, 1 incarnation, 3 records, "))


@pytest.mark.parametrize("store", [SQLITE, FILES, "memory:"])
def test_a_store_that_is_not_there_is_said_and_not_made(stepwell, here, store):
    done = stepwell("--store", store, "verify", "--json")
    assert (2, "", []) == (done.code, done.out, list(here.iterdir()))
    assert done.err.startswith("stepwell: STORE_MISCONFIGURED: no store at ")


# ---- what is damaged


def test_a_changed_byte_is_found_in_whichever_record_it_is(verify, filled):
    """Each record of a run in turn."""
    before = content(filled)
    store: Any = open_store(filled)
    records = store.read("done").records
    store.close()
    for seq, record in enumerate(records):
        old = record[-12:]
        change(filled, "done", old, b"0" * 8 + old[8:] if not old.startswith(b"0") else b"1" * 8 + old[8:])
        damaged = content(filled)
        code, found = verify(filled)
        assert (4, 9) == (code, found["runs"])
        (problem,) = found["problems"]
        assert ("CORRUPT_HISTORY", seq) == (problem["code"], problem["seq"])
        assert "runs" in problem["place"]
        assert not problem["message"].startswith(problem["place"])
        if filled == FILES:
            assert sum(len(one) + 1 for one in records[:seq]) == problem["byte"]
        assert damaged == content(filled), "nothing is mended"
        change(filled, "done", b"0" * 8 + old[8:] if not old.startswith(b"0") else b"1" * 8 + old[8:], old)
    assert before == content(filled)
    assert 0 == verify(filled)[0]


def test_every_damaged_run_is_told_in_one_line(stepwell, filled):
    change(filled, "done", b'"ADA"', b'"AXA"')
    change(filled, "failed", b'"NONE"', b'"NINE"', 1)
    done = stepwell("--store", filled, "verify")
    *problems, last = done.out.splitlines()
    assert (4, 2, "") == (done.code, len(problems), done.err)
    for line, run_id in zip(problems, ("done", "failed"), strict=True):
        assert line.startswith("problem  ")
        assert run_id in line
        assert ", seq 1" in line
        assert line.isprintable()
    assert last.endswith(" read: 2 problems")


def test_bytes_that_would_move_a_terminal_are_shown_as_escapes(stepwell, here):
    with Engine(FILES, [ask]) as engine:
        engine.start(ask, "ada", run_id="r")
    path = next(Path("runs").glob("r.0.jsonl"))
    path.write_bytes(b"\x1b[31m\x9b\xff no record" + path.read_bytes())
    done = stepwell("--store", FILES, "verify")
    assert 4 == done.code
    assert set() == {char for char in done.out if not char.isprintable() and char != "\n"}


def test_a_record_that_is_missing_is_found(verify, filled):
    if filled == FILES:
        path = next(Path("runs").glob("done.0.jsonl"))
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    else:
        db = sqlite3.connect("runs.db")
        db.execute("DELETE FROM stepwell_events WHERE run_id = 'done' AND seq = 1")
        db.commit()
        db.close()
    code, found = verify(filled)
    assert (4, 1) == (code, len(found["problems"]))


def test_a_history_that_is_missing_is_found(verify, filled):
    if filled == FILES:
        next(Path("runs").glob("done.0.jsonl")).unlink()
    else:
        db = sqlite3.connect("runs.db")
        db.execute("DELETE FROM stepwell_events WHERE run_id = 'done'")
        db.commit()
        db.close()
    code, found = verify(filled)
    assert (4, 1) == (code, len(found["problems"]))


def test_a_torn_end_is_noted_and_left(stepwell, verify, here):
    with Engine(FILES, [ask]) as engine:
        engine.start(ask, "ada", run_id="r")
    path = next(Path("runs").glob("r.0.jsonl"))
    with path.open("ab") as file:
        file.write(path.read_bytes().splitlines()[-1][:40])
    before = content(FILES)
    code, found = verify(FILES)
    assert (0, [], 3) == (code, found["problems"], found["records"])
    (note,) = found["notes"]
    assert (str(path.resolve()), "ends in 40 bytes that are torn and were never acknowledged") == (
        note["place"],
        note["note"],
    )
    text = stepwell("--store", FILES, "verify").out.splitlines()
    assert [True, False] == [line.startswith("note     /") for line in text]
    assert before == content(FILES)


def test_a_record_of_a_newer_format_is_told(verify, url, here):
    with Engine(url, [ask]) as engine:
        engine.start(ask, "ada", run_id="r")
    change(url, "r", b'{"v":1,"type":"step"', b'{"v":2,"type":"step"')
    code, found = verify(url)
    assert (4, ["NEWER_FORMAT"]) == (code, [one["code"] for one in found["problems"]])


def test_tables_of_a_newer_version_are_a_mistake_and_no_damage(stepwell, here):
    with Engine(SQLITE) as engine:
        engine.runs()
    db = sqlite3.connect("runs.db")
    db.execute("UPDATE stepwell_schema SET version = 99")
    db.commit()
    db.close()
    done = stepwell("--store", SQLITE, "verify", "--json")
    assert (2, "") == (done.code, done.out)
    assert done.err.startswith("stepwell: NEWER_FORMAT: ")


@pytest.mark.parametrize("at", [0.2, 0.5, 0.8])
def test_a_page_of_rubbish_is_a_problem_and_no_traceback(stepwell, here, at):
    with Engine(SQLITE, [ask]) as engine:
        for number in range(60):
            engine.start(ask, "ada" * 50, run_id=str(number))
    path = Path("runs.db")
    pages = path.stat().st_size // 4096
    with path.open("r+b") as file:
        file.seek(max(1, int(pages * at)) * 4096)
        file.write(bytes(range(256)) * 16)
    done = stepwell("--store", SQLITE, "verify", "--json")
    found = json.loads(done.out)
    assert (4, "") == (done.code, done.err)
    assert "CORRUPT_HISTORY" in {one["code"] for one in found["problems"]}


# ---- what is whole and yet no history

HEAD = Head("pending", "w", "1", 1, 1)
STAMP = b'"timestamp":"2026-01-01T00:00:00.000000Z"'
START = Draft("start", STAMP + b',"workflow":"w","version":"1","input":[]')
STEP = Draft("step", STAMP + b',"at":"0","stepId":"s","name":"s","attempts":1,"started":"","result":1')
COMPLETE = Draft("complete", STAMP + b',"result":{"then":"closed","x":1}')
DROPPED = Draft("cancelled", STAMP + b',"at":"0"')
STRANGE = Draft("strange", STAMP)

HISTORIES: dict[str, tuple[list[Draft], str, int | None, str]] = {
    "a history": ([START, DROPPED, STEP, COMPLETE], "closed", None, ""),
    "an open one": ([START, STEP], "open", None, ""),
    "no event": ([START, STRANGE], "open", 1, "not an event of this format"),
    "no start": ([STEP, STEP], "open", 0, "a history begins with a 'start' event, and this one with 'step'"),
    "two starts": ([START, START], "open", 1, "a 'start' event in the midst of a history"),
    "another incarnation's start": (
        [Draft("start", START.body + b',"incarnation":3')],
        "open",
        0,
        "it is the start of incarnation 3, and stands in incarnation 0",
    ),
    "an end in the midst": ([START, COMPLETE, STEP], "open", 1, "it closes the run, and 1 record follow"),
    "an end that is none": ([START, COMPLETE], "open", 1, "its envelope says that the run is open"),
    "closed without an end": ([START, STEP], "closed", 1, "its envelope says that the run is closed"),
}


@pytest.mark.parametrize(("drafts", "then", "seq", "words"), HISTORIES.values(), ids=HISTORIES)
def test_records_that_make_no_history_are_found(verify, url, here, drafts, then, seq, words):
    store = open_store(url)
    store.create("r", drafts, head=HEAD, attempt_id="a", then=then)
    store.create("other", [START], head=HEAD, attempt_id="b")
    store.close()
    code, found = verify(url)
    if seq is None:
        assert (0, []) == (code, found["problems"])
        return
    (problem,) = found["problems"]
    assert (4, seq, "CORRUPT_HISTORY") == (code, problem["seq"], problem["code"])
    assert words in problem["message"]


def test_every_record_that_is_no_event_is_told(verify, url, here):
    store = open_store(url)
    store.create("r", [START, STRANGE, STEP, STRANGE], head=HEAD, attempt_id="a")
    store.close()
    assert [1, 3] == [one["seq"] for one in verify(url)[1]["problems"]]


# ---- while others write


def test_a_store_that_a_worker_writes_to_raises_no_false_alarm(verify, worker, here, url, monkeypatch):
    (here / "busy.py").write_text(BUSY, "utf-8")
    process = worker("--store", url, "--app", "busy:engine", "--threads", "4", "--poll", "0.01")
    monkeypatch.setenv("STEPWELL_STORE", url)

    @workflow
    def busy(number: int) -> Flow[int]:
        for turn in range(number % 5):
            yield Step(str, turn).options(into=str)
            yield Emit(turn)
        return number

    rounds, number, until = 0, 0, time.monotonic() + 8.0
    process.line()
    with Engine(url) as engine:
        while rounds < 200 and (time.monotonic() < until or rounds < 10):
            for _ in range(3):
                number += 1
                engine.submit(busy, number, run_id=f"run-{number % 40}", if_open="restart", if_closed="restart")
            code, found = verify(url)
            assert (0, [], []) == (code, found["problems"], found["notes"])
            rounds += 1
        assert "completed" in {record.status for record in engine.runs()}, "the worker wrote as well"
    assert not process.ended


# ---- how far it has come


class Tty(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_a_terminal_is_shown_how_far_it_has_come(stepwell, filled, monkeypatch):
    tty = Tty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", tty)
    done = stepwell("--store", filled, "verify", "--json")
    assert [] == json.loads(done.out)["problems"]
    assert "reading the store" in tty.getvalue()


def test_without_rich_it_is_a_percentage_that_is_wiped_out_in_the_end(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.console", None)
    tty = Tty()
    with Progress(tty, "reading") as progress:
        for share in (0.0, 0.001, 0.5, 0.5, 2.0):
            progress.show(share)
        progress.show(1.0, "1 problem")
        progress.show(1.0)
    shown = [
        "reading:   0 %",
        "reading:  50 %",
        "reading: 100 %",
        "reading: 100 %, 1 problem",
        "reading: 100 %           ",
    ]
    assert "".join(f"\r{text}" for text in shown) + "\r" + " " * 14 + "\r" == tty.getvalue()


def test_what_is_no_terminal_is_shown_nothing():
    stream = io.StringIO()
    with Progress(stream, "reading") as progress:
        progress.show(0.5)
    assert "" == stream.getvalue()


@pytest.mark.parametrize("rich", [True, False])
def test_a_terminal_that_goes_away_is_no_error(monkeypatch, rich):
    class Gone(Tty):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    if not rich:
        monkeypatch.setitem(sys.modules, "rich.console", None)
    with Progress(Gone(), "reading") as progress:
        progress.show(0.5)
