"""`stepwell import`: what `show --raw` prints, and directories of journals, read back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from stepwell import Engine
from stepwell.cli.opening import load_app, registry_of
from stepwell.store import seal
from stepwell.testing.contract import a_start

from .conftest import Result

NEW = "sqlite:///new.db"


@pytest.fixture
def journals(app: str, here: Path) -> Path:
    """A directory of journals: a run that is over, one that has failed and was retried, two that wait."""
    hello, read, ask = (registry_of(load_app(app)).named(name) for name in ("hello", "read", "ask"))
    with Engine("file:runs", [hello, read, ask]) as engine:
        engine.start(hello, "ada", run_id="orders/1")
        engine.start(read, "nowhere", run_id="r1", tags={"n": "1"})
        engine.retry("r1")
        engine.start(ask, "why", run_id="r2")
        engine.start(ask, "why", run_id="é" * 90)
    return here / "runs"


def bytes_of(url: str) -> dict[str, list[list[bytes]]]:
    with Engine(url) as engine:
        found = {}
        for record in engine.runs():
            tails = [engine.store.read(record.id, incarnation=number) for number in range(record.attempts)]
            found[record.id] = [tail.records for tail in tails if tail is not None]
        return found


def test_a_directory_of_journals_is_read_back(
    journals: Path, stepwell: Callable[..., Result], run: Callable[..., Result]
) -> None:
    done = run("--store", NEW, "import", "runs")
    assert 0 == done.code, done.err
    assert "4 runs imported, with 18 events\n" in done.out
    assert "4 runs replayed against the app's code\n" in done.out
    assert bytes_of("file:runs") == bytes_of(NEW)
    with Engine(NEW) as engine:
        assert {"n": "1"} == engine.get("r1").tags
        assert "failed" == engine.get("r1").status
    assert 0 == run("--store", NEW, "worker", "--drain").code
    assert 2 == stepwell("--store", NEW, "list", "--waiting", "review").out.count("ask")
    assert 0 == run("--store", NEW, "resume", "r2", "review", '{"approved": true, "reviewer": "bob"}').code
    again = stepwell("--json", "--store", NEW, "import", "runs/r1.0.jsonl", "runs/r1.1.jsonl")
    assert {"runIds": [], "events": 0, "there": 1, "replayed": 0} == json.loads(again.out)


def test_what_show_raw_prints_is_read_back(journals: Path, stepwell: Callable[..., Result], here: Path) -> None:
    for name, more in (("r2.history.jsonl", ()), ("r1.jsonl", ("--incarnation", "0"))):
        raw = stepwell("--store", "file:runs", "show", name.partition(".")[0], "--raw", *more)
        (here / name).write_text(raw.out, "utf-8")
    done = stepwell("--json", "--store", NEW, "import", "r2.history.jsonl", "r1.jsonl")
    assert {"runIds": ["r2", "r1"], "events": 7, "there": 0, "replayed": 0} == json.loads(done.out)
    assert bytes_of("file:runs")["r2"] == bytes_of(NEW)["r2"]
    done = stepwell("--json", "--store", NEW, "import", "r2.history.jsonl", "--run-id", "another")
    assert ["another"] == json.loads(done.out)["runIds"]


def change(path: Path, number: int, what: Callable[[bytes], bytes]) -> None:
    """Change a line of a file."""
    lines = path.read_bytes().splitlines(keepends=True)
    lines[number - 1] = what(lines[number - 1])
    path.write_bytes(b"".join(lines))


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (
            lambda d: change(d / "r2.0.jsonl", 2, lambda line: line.replace(b"step", b"stop")),
            "r2.0.jsonl, line 2, byte",
        ),
        (lambda d: change(d / "r2.0.jsonl", 2, lambda _: b""), "line 2, byte 280: holds record 2 where 1 belongs"),
        (lambda d: change(d / "r2.0.jsonl", 1, lambda _: b""), "holds record 1 where 0 belongs"),
        (lambda d: change(d / "r2.0.jsonl", 3, lambda line: line[:30]), "r2.0.jsonl, line 3, byte"),
        (lambda d: change(d / "r2.0.jsonl", 1, lambda line: line.replace(b'"v":1', b'"v":2')), "upgrade stepwell"),
        (lambda d: (d / "r2.0.jsonl").write_bytes(b""), "r2.0.jsonl has no records"),
        (lambda d: (d / "r1.0.jsonl").unlink(), "incarnation 0 is in no file"),
        (lambda d: change(d / "r1.0.jsonl", 4, lambda _: b""), "is not closed, though"),
        (lambda d: (d / "r2.history.jsonl").write_bytes((d / "r2.0.jsonl").read_bytes()), "name one of them"),
        (lambda d: next(d.glob("*~*.fence")).unlink(), "which has the run's id"),
        (
            lambda d: (d / "x.jsonl").write_bytes(b"\n".join([*seal([a_start(), a_start()], session=1, offset=0)][:1])),
            "was cut short",
        ),
    ],
)
def test_nothing_is_imported_when_one_file_is_wrong(
    journals: Path, stepwell: Callable[..., Result], spoil: Callable[[Path], object], text: str
) -> None:
    spoil(journals)
    done = stepwell("--store", NEW, "import", "runs")
    assert done.code in (2, 4)
    assert (1, "") == (done.err.count("\n"), done.out)
    if "byte 280" in text:
        text = text.partition(" 280")[2]
    assert text in done.err
    with Engine(NEW) as engine:
        assert [] == engine.runs()
        assert [] == engine.store.arrivals(limit=9)  # type: ignore[attr-defined]


def test_a_history_that_the_code_does_not_fit_is_refused(
    journals: Path, stepwell: Callable[..., Result], write_app: Callable[[str], str]
) -> None:
    app = write_app(
        "from stepwell import Engine, Flow, Now, workflow\n\n"
        "@workflow\ndef ask(name: str) -> Flow[str]:\n    yield Now()\n    return ''\n\n"
        "engine = Engine('sqlite:///new.db', workflows=[ask])\n"
    )
    done = stepwell("--app", f"{app}:engine", "import", "runs/r2.0.jsonl")
    assert 4 == done.code
    assert "DIVERGENCE: runs/r2.0.jsonl, record 1" in done.err
    done = stepwell("--app", f"{app}:engine", "import", "runs/r1.0.jsonl", "runs/r1.1.jsonl")
    assert "knows no workflow 'read'" in done.err
    with Engine(NEW) as engine:
        assert [] == engine.runs()


def test_another_run_of_that_id_stays(
    journals: Path, stepwell: Callable[..., Result], run: Callable[..., Result]
) -> None:
    assert 0 == run("--store", NEW, "start", "hello", '"bob"', "--run-id", "r2").code
    done = stepwell("--store", NEW, "import", "runs")
    assert 2 == done.code
    assert "CONFLICT: runs/r2.0.jsonl: the store has another run 'r2'" in done.err
    assert ["r2"] == list(bytes_of(NEW))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["nowhere.jsonl"], "nowhere.jsonl can't be read: No such file"),
        (["empty"], "empty has no *.jsonl files"),
        (["empty", "--run-id", ""], "empty"),
    ],
)
def test_a_mistake_is_told_in_a_line(
    journals: Path, stepwell: Callable[..., Result], here: Path, words: list[str], text: str
) -> None:
    (here / "empty").mkdir()
    done = stepwell("--store", NEW, "import", *words)
    assert (2, 1) == (done.code, done.err.count("\n"))
    assert text in done.err


def test_a_run_that_was_moved_is_not_brought_back_beside_itself(
    journals: Path, stepwell: Callable[..., Result]
) -> None:
    assert 0 == stepwell("--store", NEW, "import", "runs").code
    assert 0 == stepwell("migrate", NEW, "sqlite:///third.db").code
    done = stepwell("--store", NEW, "import", "runs")
    assert 2 == done.code
    assert "RUN_MOVED" in done.err
