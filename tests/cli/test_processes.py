"""The command line as the processes that it really is."""

from __future__ import annotations

import json
import signal

import pytest

SLOW = """
import os, time
from stepwell import Engine, Flow, Step, workflow

def note(name: str) -> str:
    with open("effects", "a") as file:
        file.write(name + "\\n")
    return name

def hang(name: str) -> str:
    note(name)
    if not os.path.exists("go on"):
        print("hanging", flush=True)
        time.sleep(60)
    return name

@workflow
def slow() -> Flow[list[str]]:
    done = []
    for name in "ab":
        done.append((yield from Step(note, name)))
    done.append((yield from Step(hang, "c")))
    done.append((yield from Step(note, "d")))
    return done

engine = Engine("sqlite:///runs.db", workflows=[slow])
"""


@pytest.fixture
def start(popen, write_app):
    app = write_app(SLOW) + ":engine"
    return lambda: popen("-m", "stepwell", "--app", app, "--json", "start", "slow", "--run-id", "r1")


def test_a_killed_run_goes_on_at_once_and_repeats_no_finished_step(start, here, process):
    with start() as first:
        assert "hanging\n" == first.stdout.readline()
        first.kill()
    (here / "go on").touch()
    with start() as second:
        out, err = second.communicate(timeout=60)
    assert (0, "") == (second.returncode, err)
    assert ["a", "b", "c", "d"] == json.loads(out)["result"]
    assert ["a", "b", "c", "c", "d"] == (here / "effects").read_text().split()
    raw = process("--store", "sqlite:///runs.db", "show", "r1", "--raw")
    assert [1, 1, 1, 2, 2, 2] == [json.loads(line)["session"] for line in raw.stdout.splitlines()]


def test_ctrl_c_is_one_line_and_130_and_the_run_can_go_on(start, here):
    with start() as first:
        first.stdout.readline()
        first.send_signal(signal.SIGINT)
        _, err = first.communicate(timeout=60)
    assert (130, "stepwell: interrupted; what was recorded stays\n") == (first.returncode, err)
    (here / "go on").touch()
    with start() as second:
        second.communicate(timeout=60)
    assert 0 == second.returncode


def test_two_processes_do_not_drive_one_run(start, here):
    with start() as first:
        first.stdout.readline()
        with start() as second:
            out, _ = second.communicate(timeout=60)
        first.kill()
    assert (0, "running") == (second.returncode, json.loads(out)["status"])
    assert ["a", "b", "c"] == (here / "effects").read_text().split()


def test_a_reader_that_goes_away_is_no_traceback(popen, write_app):
    big = "from stepwell import *\n@workflow\ndef big() -> Flow[list[str]]:\n"
    big += (
        "    yield Step(str)\n    return ['x' * 1000] * 1000\nengine = Engine('sqlite:///runs.db', workflows=[big])\n"
    )
    with popen("-m", "stepwell", "--app", write_app(big) + ":engine", "start", "big") as child:
        child.stdout.close()
        err = child.stderr.read()
    assert (141, "") == (child.returncode, err)


def test_a_reader_that_leaves_the_demo_is_no_traceback(popen, here):
    with popen("-m", "stepwell", "demo") as child:
        while "│" not in child.stdout.readline():
            pass
        child.stdout.close()
        err = child.stderr.read()
    assert (141, "") == (child.returncode, err)


def test_a_bug_shows_its_traceback_and_has_its_own_exit_code(popen):
    code = (
        "import sys; from stepwell.cli import main, reading\n"
        "reading.list_runs = lambda *_: 1 / 0\n"
        "sys.exit(main(['list']))"
    )
    with popen("-c", code) as child:
        _, err = child.communicate(timeout=60)
    assert 70 == child.returncode
    assert "ZeroDivisionError" in err


def test_the_version_is_told(process):
    done = process("--version")
    assert (0, "stepwell ") == (done.returncode, done.stdout[:9])
    assert "history format 1" in done.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["start", "--help"], ["demo", "--help"]])
def test_help_is_on_stdout(process, arguments):
    done = process(*arguments)
    assert (0, "") == (done.returncode, done.stderr)
    assert "usage: stepwell" in done.stdout


def test_help_lists_the_exit_codes(process):
    text = process("--help").stdout
    assert all(f"\n  {code} " in text for code in (0, 1, 2, 3, 4, 70, 130, 141))


def test_an_app_in_the_current_directory_is_found_by_the_script_too(here, process, write_app):
    """The script has no current directory on its path."""
    name = write_app(SLOW)
    done = process("--app", f"{name}:engine", "list")
    assert "no store at" in done.stderr
    assert 2 == done.returncode
