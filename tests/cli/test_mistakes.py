"""A user's mistake: its own code, one line on stderr, exit code 2, and nothing is changed."""

from __future__ import annotations

import hashlib
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stepwell import StepwellError, errors
from stepwell.cli import main, reading
from stepwell.cli.mistakes import exit_code_of

GOOD_VERDICT = '{"approved": true, "reviewer": "alice"}'

TWICE = """
@workflow(name="wrong")
def a() -> Flow[None]:
    yield Step(print)

@workflow(name="wrong")
def b() -> Flow[None]:
    yield Step(print)

wrong = (a, b)
"""

BROKEN_APPS = {
    "not a generator": (
        '@workflow\ndef wrong() -> str:\n    return "done"\n',
        "INVALID_INPUT",
        "'wrong' is no generator function",
    ),
    "yields something else": (
        '@workflow\ndef wrong() -> Flow[str]:\n    yield "no command"\n    return ""\n',
        "INVALID_YIELD",
        "it yielded 'no command'",
    ),
    "a generator function given to Step": (
        "def steps():\n    yield 1\n\n@workflow\ndef wrong() -> Flow[str]:\n    return (yield from Step(steps))\n",
        "INVALID_INPUT",
        "Step can't call the generator function 'steps'",
    ),
    "two workflows of one name": (
        TWICE,
        "INVALID_INPUT",
        "two workflows are named 'wrong'",
    ),
    "no workflow": ("def wrong():\n    yield 1\n", "INVALID_INPUT", "decorate it with @workflow"),
    "a syntax error": ("def wrong(:\n", "APP", "line 2"),
    "an import that fails": ("import no_such_module_anywhere\n", "APP", "no_such_module_anywhere"),
    "a module that raises": ("raise RuntimeError('two\\nlines')\n", "APP", "RuntimeError: two lines"),
    "a module that exits": ("raise SystemExit(0)\n", "APP", "SystemExit"),
}

# What is done with the good app and its store: arguments, the error's code, and words of its text.
WITH_APP = {
    "unknown workflow": (["start", "helo", '"ada"'], "NOT_FOUND", "it knows: ask, hello, read"),
    "unknown run: show": (["show", "nobody"], "NOT_FOUND", "no run 'nobody'"),
    "unknown run: show --raw": (["show", "nobody", "--raw"], "NOT_FOUND", "no run 'nobody'"),
    "unknown run: resume": (["resume", "nobody", "review", GOOD_VERDICT], "NOT_FOUND", "no run 'nobody'"),
    "unknown run: signal": (["signal", "nobody", "review"], "NOT_FOUND", "no run 'nobody'"),
    "unknown run: cancel": (["cancel", "nobody"], "NOT_FOUND", "no run 'nobody'"),
    "unknown run: cancel --force": (["cancel", "nobody", "--force"], "NOT_FOUND", "no run 'nobody'"),
    "unknown run: pause": (["pause", "nobody"], "NOT_FOUND", "no run 'nobody'"),
    "unknown run: unpause": (["unpause", "nobody"], "NOT_FOUND", "no run 'nobody'"),
    "unknown run: retry": (["retry", "nobody"], "NOT_FOUND", "no run 'nobody'"),
    "unknown run: fork": (["fork", "nobody", "--before", "1"], "NOT_FOUND", "no run 'nobody'"),
    "unknown run: delete": (["delete", "nobody", "--yes"], "NOT_FOUND", "no run 'nobody'"),
    "empty run id": (["start", "hello", '"a"', "--run-id", ""], "INVALID_INPUT", "not empty"),
    "empty run id: show": (["show", ""], "INVALID_INPUT", "not empty"),
    "run id too long": (["start", "hello", '"a"', "--run-id", "ä" * 101], "INVALID_INPUT", "200 bytes"),
    "control characters": (["start", "hello", '"a"', "--run-id", "a\nb\x1b[31m"], "INVALID_INPUT", "control"),
    "control characters: show": (["show", "\x1b]0;title\x07"], "INVALID_INPUT", "control"),
    "bytes that are no text": (["start", "hello", '"a"', "--run-id", "\udcff"], "INVALID_INPUT", "unprintable"),
    "too few arguments": (["start", "hello"], "INVALID_INPUT", "missing a required argument: 'name'"),
    "too many arguments": (["start", "hello", '"a"', "1", "2"], "INVALID_INPUT", "was given 3 arguments"),
    "argument of another type": (["start", "hello", "7"], "INVALID_INPUT", "argument 'name'"),
    "argument that is no JSON": (
        ["start", "hello", "ada"],
        "INVALID_INPUT",
        "not a JSON value: 'ada'; text is written",
    ),
    "argument from no file": (["start", "hello", "@none.json"], "USAGE", "can't read 'none.json'"),
    "argument from a text file": (["start", "hello", "@text.txt"], "INVALID_INPUT", "'text.txt' holds no JSON value"),
    "standard input twice": (["start", "hello", "-", "-"], "USAGE", "standard input can be read once"),
    "tag without a value": (["start", "hello", '"a"', "--tag", "red"], "USAGE", "--tag takes NAME=VALUE"),
    "other input under a run id": (["start", "hello", '"b"', "--run-id", "done"], "CONFLICT", "with other input"),
    "other workflow under a run id": (["start", "ask", '"b"', "--run-id", "done"], "CONFLICT", "of workflow 'hello'"),
    "signal to a closed run": (["signal", "done", "review"], "RUN_CLOSED", "is completed"),
    "resume of a closed run": (["resume", "done", "review", GOOD_VERDICT], "RUN_CLOSED", "'done'"),
    "cancel of a closed run": (["cancel", "done"], "RUN_CLOSED", "'done'"),
    "retry of a run that has not failed": (["retry", "done"], "CONFLICT", "only a failed run"),
    "delete of an open run": (["delete", "waits", "--yes"], "CONFLICT", "is open"),
    "delete without --yes": (["delete", "done"], "USAGE", "--yes"),
    "signal that nobody waits for": (["resume", "waits", "go", "1"], "EVENT_MISMATCH", "it waits for 'review'"),
    "payload of another type": (["resume", "waits", "review", '{"approved": "no"}'], "INVALID_INPUT", "Verdict"),
    "payload that is no JSON": (["resume", "waits", "review", "{yes}"], "INVALID_INPUT", "not a JSON value"),
    "fork before no step": (["fork", "done", "--before", "nothing"], "NOT_FOUND", "nothing"),
    "limit of nothing": (["list", "--limit", "0"], "INVALID_INPUT", "limit"),
    "limit that is no number": (["list", "--limit", "many"], "USAGE", "--limit"),
    "unknown status": (["list", "--status", "sad"], "USAGE", "--status"),
    "empty tag": (["list", "--tag", "=x"], "USAGE", "--tag takes NAME"),
    "unknown verb": (["lst"], "USAGE", "invalid choice: 'lst'"),
    "unknown option": (["list", "--colour"], "USAGE", "--colour"),
    "a verb's argument is missing": (["show"], "USAGE", "RUN"),
}

# With no app: the whole command line.
STORES = {
    "no store is named": (["list"], "USAGE", "no store is named"),
    "no app is named": (["--store", "sqlite:///runs.db", "start", "hello"], "USAGE", "--app"),
    "no verb": ([], "USAGE", "COMMAND"),
    "unknown scheme": (["--store", "mysql://u:secret@h/db", "list"], "STORE_MISCONFIGURED", "scheme 'mysql'"),
    "no scheme": (["--store", "runs.db", "list"], "STORE_MISCONFIGURED", "sqlite:///runs.db"),
    "two slashes": (["--store", "sqlite://runs.db", "list"], "STORE_MISCONFIGURED", "three slashes"),
    "a text file": (["--store", "sqlite:///text.txt", "list"], "STORE_MISCONFIGURED", "no SQLite database"),
    "a text file as a directory": (["--store", "file:text.txt", "list"], "STORE_MISCONFIGURED", "no directory"),
    "a directory": (["--store", "sqlite:///.", "list"], "STORE_MISCONFIGURED", "directory"),
    "an empty file": (["--store", "sqlite:///empty.db", "list"], "STORE_MISCONFIGURED", "no store at"),
    "another program's database": (["--store", "sqlite:///theirs.db", "list"], "STORE_MISCONFIGURED", "tables"),
    "memory": (["--store", "memory:", "list"], "STORE_MISCONFIGURED", "no store at memory:"),
    "app without an attribute": (["--app", "module", "list"], "APP", "MODULE:ATTRIBUTE"),
    "app that is not there": (["--app", "no_such_app:engine", "list"], "APP", "no module 'no_such_app'"),
    "app whose package is not there": (["--app", "no_such.app:engine", "list"], "APP", "no module 'no_such.app'"),
    "app without that name": (["--app", "json:engine", "list"], "APP", "has no 'engine'"),
    "app that is no engine": (["--app", "json:dumps", "list"], "APP", "no Engine but function"),
    "demo in no directory": (["demo", "--dir", "none"], "USAGE", "no such directory"),
    "demo in a file": (["demo", "--dir", "text.txt"], "USAGE", "no such directory"),
}


@pytest.fixture
def unchanged(here: Path) -> Any:
    """Checks after the test that every file is as it was when `begin()` was called."""
    before: list[dict[str, str]] = []

    def begin() -> None:
        before.append(files(here))

    yield begin
    assert before == [files(here)]


def files(folder: Path) -> dict[str, str]:
    """A digest of every file; what SQLite keeps beside an open database has no part in it."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    }


def is_one_line(result: Any, code: str, words: str) -> None:
    """What every mistake has in common."""
    assert 2 == result.code
    assert "" == result.out
    assert 1 == result.err.count("\n"), result.err
    assert result.err.endswith("\n")
    assert "Traceback" not in result.err
    assert result.err.startswith(f"stepwell: {code}: ")
    assert result.err.removesuffix("\n").isprintable()
    assert words in result.err


@pytest.fixture
def text_files(here: Path) -> None:
    """Files that are no stores."""
    (here / "text.txt").write_text("just some notes\n", "utf-8")
    (here / "empty.db").touch()
    db = sqlite3.connect(here / "theirs.db")
    db.execute("CREATE TABLE theirs (x)")
    db.close()


@pytest.mark.parametrize(("arguments", "code", "words"), WITH_APP.values(), ids=WITH_APP)
def test_a_mistake_about_runs(
    run: Callable[..., Any],
    text_files: None,
    unchanged: Callable[[], None],
    arguments: list[str],
    code: str,
    words: str,
) -> None:
    assert 0 == run("start", "hello", '"a"', "--run-id", "done").code
    assert 0 == run("start", "ask", '"a"', "--run-id", "waits").code
    unchanged()
    is_one_line(run(*arguments), code, words)


@pytest.mark.parametrize("json", [[], ["--json"]])
@pytest.mark.parametrize(("arguments", "code", "words"), STORES.values(), ids=STORES)
def test_a_mistake_about_stores_and_apps(
    stepwell: Callable[..., Any],
    text_files: None,
    unchanged: Callable[[], None],
    arguments: list[str],
    code: str,
    words: str,
    json: list[str],
) -> None:
    unchanged()
    is_one_line(stepwell(*json, *arguments), code, words)


def test_a_password_in_a_url_is_not_shown(stepwell: Callable[..., Any]) -> None:
    assert "secret" not in stepwell("--store", "mysql://u:secret@h/db", "list").err


@pytest.mark.parametrize(("source", "code", "words"), BROKEN_APPS.values(), ids=BROKEN_APPS)
def test_a_mistake_in_the_app(
    stepwell: Callable[..., Any],
    write_app: Callable[[str], str],
    unchanged: Callable[[], None],
    source: str,
    code: str,
    words: str,
) -> None:
    ending = (
        "\nengine = Engine('sqlite:///runs.db', workflows=wrong if isinstance(wrong, tuple) else [wrong])\n"
        if "raise" not in source
        else ""
    )
    name = write_app("from stepwell import Engine, Flow, Step, workflow\n" + source + ending)
    unchanged()
    is_one_line(stepwell("--app", f"{name}:engine", "start", "wrong", "--run-id", "r1"), code, words)


NEWER = {
    "sqlite:///runs.db": [["show", "done"], ["start", "hello", '"a"', "--run-id", "done"]],
    "file:runs": [["show", "done"], ["show", "done", "--json"]],
}


@pytest.mark.parametrize(("store", "arguments"), [(store, one) for store, all_ in NEWER.items() for one in all_])
def test_a_history_of_a_newer_format(
    stepwell: Callable[..., Any],
    app: str,
    here: Path,
    unchanged: Callable[[], None],
    store: str,
    arguments: list[str],
) -> None:
    at = ("--store", store, "--app", app)
    assert 0 == stepwell(*at, "start", "hello", '"a"', "--run-id", "done").code
    if store.startswith("sqlite"):
        db = sqlite3.connect(here / "runs.db")
        db.execute("""UPDATE stepwell_events SET body = CAST(replace(body, '{"v":1,', '{"v":2,') AS BLOB)""")
        db.commit()
        db.close()
    else:
        for path in (here / "runs").glob("*.jsonl"):
            path.write_bytes(path.read_bytes().replace(b'{"v":1,', b'{"v":2,'))
    unchanged()
    is_one_line(stepwell(*at, *arguments), "NEWER_FORMAT", "upgrade stepwell")


def test_tables_of_a_newer_version(run: Callable[..., Any], here: Path, unchanged: Callable[[], None]) -> None:
    run("start", "hello", '"a"', "--run-id", "done")
    db = sqlite3.connect(here / "runs.db")
    db.execute("UPDATE stepwell_schema SET version = 99")
    db.commit()
    db.close()
    unchanged()
    is_one_line(run("list"), "NEWER_FORMAT", "upgrade stepwell")


AS_NOBODY = """
import gettext, locale, logging, stepwell.pools, os, pathlib, shutil, sys  # nobody may read these
import stepwell_stores.jsonl, stepwell_stores.sqlite
import stepwell.cli.options
from stepwell.cli import main
if os.geteuid() == 0:
    os.setuid(65534)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
@pytest.mark.parametrize("there", [True, False], ids=["with a store in it", "empty"])
@pytest.mark.parametrize("store", ["sqlite:///{}/runs.db", "file:{}/runs"])
def test_a_directory_without_permission(
    popen: Callable[..., Any], stepwell: Callable[..., Any], app: str, here: Path, store: str, there: bool
) -> None:
    closed = here / "closed"
    closed.mkdir()
    url = store.format(closed)
    if there:
        assert 0 == stepwell("--store", url, "--app", app, "start", "hello", '"a"').code
    before = files(here)
    closed.chmod(0o500)
    with popen("-c", AS_NOBODY, "--store", url, "list") as process:
        out, err = process.communicate(timeout=60)
    closed.chmod(0o700)
    assert (2, "") == (process.returncode, out)
    assert 1 == err.count("\n"), err
    assert err.startswith("stepwell: STORE_MISCONFIGURED: ")
    assert before == files(here)


def test_several_lines_of_an_error_become_one(
    stepwell: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    def fails(*_: object) -> int:
        raise StepwellError("first\n  second\x1b[0m")

    monkeypatch.setattr(reading, "list_runs", fails)
    assert "stepwell: STEPWELL: first second\\x1b[0m\n" == stepwell("list").err


def test_the_environment_names_the_store(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("start", "hello", '"a"', "--run-id", "r1")
    monkeypatch.setenv("STEPWELL_STORE", "sqlite:///runs.db")
    assert 0 == main(["list"])
    assert "r1" in capsys.readouterr().out


def test_code_that_does_not_fit_the_history_is_one_line_and_4(
    stepwell: Callable[..., Any], write_app: Callable[[str], str]
) -> None:
    source = (
        "from stepwell import *\n@workflow\ndef w() -> Flow[None]:\n    yield Step(print)\n    yield Suspend('s')\n"
    )
    source += "engine = Engine('sqlite:///runs.db', workflows=[w])\n"
    stepwell("--app", write_app(source) + ":engine", "start", "w", "--run-id", "r1")
    done = stepwell("--app", write_app(source.replace("Step(print)", "Now()")) + ":engine", "resume", "r1", "s")
    assert (4, "", 1) == (done.code, done.out, done.err.count("\n"))
    assert done.err.startswith("stepwell: DIVERGENCE: ")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidInputError, 2),
        (errors.VersionMismatchError, 2),
        (errors.RunBusyError, 3),
        (errors.LeaseLostError, 3),
        (errors.StoreUnavailableError, 3),
        (errors.StoreError, 4),
        (errors.StoreMisconfiguredError, 2),
        (errors.CorruptHistoryError, 4),
        (errors.NewerFormatError, 2),
        (errors.CodecError, 4),
        (errors.ClosedError, 70),
    ],
)
def test_a_script_can_tell_mistakes_from_what_may_go_away(error: type[StepwellError], code: int) -> None:
    assert code == exit_code_of(error("text"))
