"""`stepwell doctor`: what a store is, what it survives, and what wants to be looked at."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from stepwell import Engine, Flow, Now, Step, Suspend, workflow
from stepwell.cli import doctoring
from stepwell.store import Blocked
from stepwell_stores import open_store

ROOT = Path(__file__).parents[2]
SQLITE, FILES = "sqlite:///runs.db", "file:runs"


@workflow
def ask(name: str) -> Flow[str]:
    yield Step(str.upper, name).options(name="shout", into=str)
    return (yield from Suspend("answer", into=str))


@workflow
def one() -> Flow[None]:
    yield Now()


@pytest.fixture(params=[SQLITE, FILES])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def path(url: str) -> Path:
    return Path("runs.db" if url == SQLITE else "runs")


@pytest.fixture
def engine(here: Path, url: str) -> Any:
    """Has made the store."""
    with Engine(url, [ask, one]) as made:
        made.runs()
        yield made


@pytest.fixture
def doctor(stepwell: Callable[..., Any]) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Asks it about a store: exit code and JSON."""

    def call(url: str, *options: str) -> tuple[int, dict[str, Any]]:
        done = stepwell("--store", url, "doctor", "--json", *options)
        assert "" == done.err
        found = json.loads(done.out)
        assert isinstance(found, dict)
        return done.code, found

    return call


def texts(found: dict[str, Any], *, safety: bool) -> list[str]:
    """The advice of one kind."""
    return [one["text"] for one in found["advice"] if one["safety"] is safety]


def test_a_store_in_good_order_wants_nothing(doctor, engine, path, url):
    engine.start(one, run_id="r1")
    engine.start(ask, "ada", run_id="r2")
    code, found = doctor(url)
    assert (0, []) == (code, found["advice"])
    assert {"processCrash": True, "powerLoss": True, "failover": False} == found["survives"]
    assert (str(path.resolve()), True) == (found["path"], found["ownerOnly"])
    assert ("0600" if url == SQLITE else "0700") == found["permissions"]
    assert {"completed": 1, "suspended": 1} == {name: count for name, count in found["runs"].items() if count}
    assert [0, 0, 0, 0] == [found[name] for name in ("leases", "due", "overdue", "blocked")]
    assert dict(engine.store.durability.settings) == found["settings"]
    assert found["freeBytes"] > 0
    assert Path(found["owners"]).is_dir()
    assert sys.version.split()[0] == found["python"]


def test_it_is_told_in_words(stepwell, engine, path, url):
    engine.start(one, run_id="r1")
    done = stepwell("--store", url, "doctor")
    lines = {line[:12].strip(): line[12:].strip() for line in done.out.splitlines()}
    assert (0, "") == (done.code, done.err)
    assert f"{'sqlite' if url == SQLITE else 'jsonl'}, {path.resolve()}" == lines["store"]
    assert "kill -9: yes, power cut: yes, loss of the disk or server: no" == lines["survives"]
    assert " free" in lines["file system"]
    assert lines["permissions"].endswith(": its owner only")
    assert "1 completed" == lines["runs"]
    assert "0 held now" == lines["leases"]
    assert ("SQLite" in lines) == (url == SQLITE)
    if url == SQLITE:
        assert lines["SQLite"].startswith(f"{sqlite3.sqlite_version}; guard against the WAL-reset bug: ")
        assert "synchronous 2" in lines["settings"]
    assert done.out.endswith("\nnothing wants to be looked at\n")


def test_a_store_that_a_power_cut_hurts_is_a_danger(doctor, engine, url):
    code, found = doctor(url + ("?sync=normal" if url == SQLITE else "?sync=off"))
    assert (1, False) == (code, found["survives"]["powerLoss"])
    (text,) = texts(found, safety=True)
    assert "a power cut loses what was acknowledged last" in text


@pytest.mark.skipif(os.name != "posix", reason="other systems have other permissions")
@pytest.mark.parametrize(
    ("bits", "words"),
    [
        (0o040, "group may read it"),
        (0o004, "others may read it"),
        (0o044, "group and others may read it"),
        (0o066, "group and others may read and write it"),
        (0o011, ""),
    ],
)
def test_a_store_that_others_may_read_is_a_danger(doctor, engine, path, url, bits, words):
    path.chmod(path.stat().st_mode & 0o777 | bits)
    code, found = doctor(url)
    assert (bool(words), not words) == (bool(code), found["ownerOnly"])
    assert [True] * bool(words) == [words in text and "; chmod " in text for text in texts(found, safety=True)]


def test_a_full_disk_is_a_danger(doctor, engine, url, monkeypatch):
    usage = shutil.disk_usage(".")._replace(free=99 * 1024 * 1024)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    code, found = doctor(url)
    assert (1, 99 * 1024 * 1024) == (code, found["freeBytes"])
    assert ["only 99.0 MiB are free"] == [text.split(": ")[1].split(";")[0] for text in texts(found, safety=True)]


def test_blocked_runs_are_shown_and_no_danger(stepwell, doctor, engine, url):
    for number in range(7):
        engine.submit(one, run_id=f"r{number}")
    with Engine(url, [ask]) as ignorant:
        assert [] == ignorant.run_due()
    code, found = doctor(url)
    assert (0, 7, 5) == (code, found["blocked"], len(found["firstBlocked"]))
    assert {"NOT_FOUND"} == {one["code"] for one in found["firstBlocked"]}
    (text,) = texts(found, safety=False)
    assert text.startswith("7 runs can't be driven with the code that was tried: see stepwell show r")
    assert 5 == stepwell("--store", url, "doctor").out.count(": NOT_FOUND: this engine knows no workflow 'one'")


def test_runs_that_nobody_drives_are_told(doctor, engine, url):
    engine.submit(one, run_id="now")
    code, found = doctor(url)
    assert (0, 1, 0, []) == (code, found["due"], found["overdue"], found["advice"])
    head = engine.store.head("now").head
    lease = engine.store.claim("now", "me", 30.0)
    late = replace(head, due=head.due - 61_000_000)
    engine.store.append("now", 0, 1, [], attempt_id="a", head=late, fence=lease.fence, release=True)
    code, found = doctor(url)
    assert (0, 1, 1) == (code, found["due"], found["overdue"])
    (text,) = texts(found, safety=False)
    assert "1 run should have been driven more than a minute ago: is a worker running?" in text


def test_held_leases_are_counted(doctor, engine, url):
    engine.submit(one, run_id="a")
    engine.submit(one, run_id="b")
    lease = engine.store.claim("a", "me", 30.0)
    code, found = doctor(url)
    assert (0, 1, 1, 1) == (code, found["leases"], found["due"], found["runs"]["running"])
    engine.store.release(lease)
    assert 0 == doctor(url)[1]["leases"]


def test_many_runs_are_counted_page_by_page(doctor, engine, url, monkeypatch):
    monkeypatch.setattr(doctoring, "_PAGE", 3)
    for number in range(10):
        engine.submit(one, run_id=str(number))
    assert 10 == doctor(url)[1]["runs"]["pending"]


def test_a_damaged_run_is_told_and_has_its_own_exit_code(doctor, here):
    with Engine(FILES, [one]) as engine:
        engine.submit(one, run_id="r")
    path = here / "runs" / "r.0.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"one"', b'"two"'))
    (here / "runs" / "r.head.json").unlink()
    code, found = doctor(FILES)
    assert 4 == code
    assert any("stepwell verify tells all that is damaged" in text for text in texts(found, safety=True))


@pytest.mark.parametrize("store", [SQLITE, FILES])
def test_a_store_that_is_not_there_is_said_and_not_made(stepwell, here, store):
    done = stepwell("--store", store, "doctor")
    assert (2, "", []) == (done.code, done.out, list(here.iterdir()))
    assert done.err.startswith("stepwell: STORE_MISCONFIGURED: no store at ")


def test_tables_of_a_newer_version_are_a_mistake(stepwell, here):
    with Engine(SQLITE) as engine:
        engine.runs()
    db = sqlite3.connect("runs.db")
    db.execute("UPDATE stepwell_schema SET version = 99")
    db.commit()
    db.close()
    done = stepwell("--store", SQLITE, "doctor")
    assert (2, "") == (done.code, done.out)


# ---- stores of others

OWN = """
from stepwell import Engine
from stepwell.store import Durability
from stepwell_stores import open_store

class Own:
    def __init__(self):
        self._inner = open_store("memory:")

    def __getattr__(self, name):
        return getattr(self._inner, name)

    @property
    def durability(self):
        return Durability({}, settings={})

engine = Engine(Own())
"""


def test_a_memory_store_is_a_danger(stepwell, write_app):
    name = write_app("from stepwell import Engine\nengine = Engine('memory:')\n")
    done = stepwell("--app", f"{name}:engine", "doctor")
    assert 1 == done.code
    assert "danger  the memory store: everything is lost with the process" in done.out
    assert "permissions" not in done.out


@pytest.mark.parametrize(
    ("durability", "settings", "words"),
    [
        ("True, True, None", "{}", []),
        ("None, None, None", "{'file_system': 'nfs4'}", ["nobody can tell what a power cut loses: it is on nfs4"]),
        ("True, None, None", "{'odd': object()}", ["nobody can tell what a power cut loses; use a local disk"]),
        (
            "True, True, None",
            "{'sqlite': '3.51.2', 'wal_reset_guard': 'none'}",
            ["SQLite 3.51.2 may damage the file when two processes write"],
        ),
        ("True, True, None", "{'sqlite': '3.51.3', 'wal_reset_guard': 'none'}", []),
        ("True, True, None", "{'sqlite': '3.7', 'wal_reset_guard': 'a file lock'}", []),
    ],
)
def test_what_is_told_of_a_store_is_what_it_says_itself(stepwell, write_app, durability, settings, words):
    source = OWN.replace("{}, settings={}", f"{durability}, settings={settings}")
    app = write_app(source) + ":engine"
    done = stepwell("--app", app, "doctor", "--json")
    found = json.loads(done.out)
    assert (len(words), "Own", None) == (done.code, found["store"], found["path"])
    assert [True] * len(words) == [word in text for word, text in zip(words, texts(found, safety=True), strict=True)]
    assert done.code == stepwell("--app", app, "doctor").code


def test_nothing_from_a_store_reaches_the_terminal_raw(stepwell, here):
    with Engine(SQLITE, [one]) as engine:
        engine.submit(one, run_id="r")
    store: Any = open_store(SQLITE)
    lease = store.claim("r", "me", 30.0)
    row = replace(store.head("r").head, blocked=Blocked("ODD", "two\nlines\x1b[31m\u202e", ("x",)))
    store.append("r", 0, 1, [], attempt_id="a", head=row, fence=lease.fence, release=True)
    store.close()
    done = stepwell("--store", SQLITE, "doctor")
    assert set() == {char for char in done.out if not char.isprintable() and char != "\n"}
    assert "r: ODD: two lines\\x1b[31m\\u202e" in done.out


# ---- extras


def test_what_is_missing_is_named(doctor, stepwell, here, monkeypatch):
    with Engine(SQLITE) as engine:
        engine.runs()
    assert [] == doctor(SQLITE)[1]["missingExtras"]
    monkeypatch.setattr(doctoring, "find_spec", lambda _: None)
    assert ["cli", "cron", "crypto", "postgres", "redis", "s3"] == doctor(SQLITE)[1]["missingExtras"]
    assert "pip install 'stepwell[cli]' brings tables that fit" in stepwell("--store", SQLITE, "doctor").out


def test_the_extras_are_those_of_the_package():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert set(extras) - {"test", "dev"} == set(doctoring.EXTRAS)
    assert all(module in " ".join(extras[name]) for name, (module, _) in doctoring.EXTRAS.items())
