"""What looks closer: show --timeline, --mermaid and --follow, diff, and fork with another result."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest

from stepwell import Engine

from .conftest import eventually

AT = ("--store", "sqlite:///runs.db")
NASTY = "\x1b[31mred\x1b[0m\x07 \u202eevil\u2066 \x9b31m line\nbreak\r"


def kinds_of(lines: str) -> list[str]:
    return [line.split()[1] for line in lines.splitlines()]


# ---- show


def test_a_timeline_has_a_line_for_each_event(run):
    run("start", "hello", '"ada"', "--run-id", "r")
    done = run("show", "r", "--timeline")
    assert (0, ["start", "step", "complete"]) == (done.code, kinds_of(done.out))
    assert "+0.000s  start" in done.out
    found = json.loads(run("show", "r", "--timeline", "--json").out)
    assert ("r", 0, done.out.splitlines()) == (found["runId"], found["incarnation"], found["timeline"])


def test_a_diagram_is_written(run):
    run("start", "hello", '"ada"', "--run-id", "r")
    done = run("show", "r", "--mermaid")
    assert (0, "sequenceDiagram") == (done.code, done.out.splitlines()[0])
    assert "    workflow->>steps: shout" in done.out.splitlines()
    assert done.out.rstrip("\n") == json.loads(run("show", "r", "--mermaid", "--json").out)["mermaid"]


def test_an_earlier_incarnation_is_drawn_too(run, engine):
    run("start", "ask", '"ada"', "--run-id", "r")
    run("cancel", "r")
    run("start", "ask", '"ada"', "--run-id", "r", "--if-closed", "restart")
    assert "cancel" in run("show", "r", "--mermaid", "--incarnation", "0").out
    assert "cancel" not in run("show", "r", "--mermaid").out
    assert "cancelled" in run("show", "r", "--timeline", "--incarnation", "0").out


@pytest.mark.parametrize(
    "wrong",
    [
        ["--mermaid", "--timeline"],
        ["--raw", "--mermaid"],
        ["--follow", "--mermaid"],
        ["--follow", "--incarnation", "-1"],
        ["--follow", "--incarnation", "5"],
        ["--timeline", "--incarnation", "5"],
    ],
)
def test_what_does_not_go_together_is_a_mistake(run, wrong):
    run("start", "hello", '"ada"', "--run-id", "r")
    done = run("show", "r", *wrong)
    assert (2, "") == (done.code, done.out)
    assert done.err.startswith("stepwell: ")


@pytest.mark.parametrize("form", ["--timeline", "--mermaid", "--follow"])
@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_nothing_from_a_payload_reaches_the_terminal_raw(run, form, as_json):
    run("start", "hello", json.dumps(NASTY), "--run-id", "nasty")
    done = run("show", "nasty", form, *as_json)
    assert 0 == done.code
    assert set() == {char for char in done.out if not char.isprintable() and char != "\n"}
    assert "red" in done.out


# ---- show --follow


def test_a_closed_run_is_shown_and_done(run):
    run("start", "hello", '"ada"', "--run-id", "r")
    done = run("show", "r", "--follow")
    assert (0, ["start", "step", "complete"]) == (done.code, kinds_of(done.out))


def test_each_event_is_one_line_of_json(run, engine):
    run("start", "hello", '"ada"', "--run-id", "r")
    done = run("show", "r", "--follow", "--json")
    assert [json.loads(line) for line in engine.store.read("r").records] == list(map(json.loads, done.out.splitlines()))


def test_raw_records_are_followed_byte_for_byte(process, run, engine):
    run("start", "hello", '"ädä"', "--run-id", "r")
    done = process(*AT, "show", "r", "--follow", "--raw")
    assert [line.decode() for line in engine.store.read("r").records] == done.stdout.splitlines()


def test_a_retry_is_followed_from_where_it_goes_on(run, here):
    run("start", "read", '"file"', "--run-id", "r")
    (here / "file").write_text("text")
    run("retry", "r")
    lines = run("show", "r", "--follow", "--incarnation", "0").out.splitlines()
    assert ["start", "step", "step", "error"] == [line.split()[1] for line in lines[:4]]
    assert "incarnation 1" == lines[4]
    assert "... 1 event taken over" == lines[6].strip()
    assert ["retry", "step", "complete"] == [line.split()[1] for line in lines[7:]]


def test_a_fork_is_followed_with_what_it_took_over(run):
    run("start", "read", '"file"', "--run-id", "r")
    run("fork", "r", "--before", "fail", "--run-id", "f")
    assert ["start", "step", "step", "error"] == kinds_of(run("show", "f", "--follow").out)


def test_a_run_that_is_not_there_can_not_be_followed(run):
    run("start", "hello", '"ada"', "--run-id", "r")
    done = run("show", "gone", "--follow")
    assert (2, True) == (done.code, done.err.startswith("stepwell: NOT_FOUND: "))


@pytest.fixture(params=["sqlite:///runs.db", "file:runs"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def children(popen: Callable[..., subprocess.Popen[str]]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts processes; they end with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        started.append(popen(*arguments))
        return started[-1]

    yield start
    for child in started:
        child.kill()
        child.communicate()


WRITER = """
import sys, threading
from stepwell import Engine, Flow, Step, workflow

def work(number: int) -> int:
    if number == int(sys.argv[2]):
        print("here", flush=True)
        threading.Event().wait()
    return number

@workflow
def count() -> Flow[None]:
    for number in range(10):
        yield Step(work, number)

Engine(sys.argv[1], [count], lease=0.3).start(count, run_id="r")
"""


def test_a_run_is_followed_over_the_death_of_its_writer(children, here, url):
    writer = children("-c", WRITER, url, "5")
    assert "here\n" == writer.stdout.readline()
    follower = children("-m", "stepwell", "--store", url, "show", "r", "--follow", "--json")
    first = [json.loads(follower.stdout.readline()) for _ in range(6)]
    assert (["start", *["step"] * 5], True) == ([event["type"] for event in first], follower.poll() is None)
    writer.kill()
    writer.wait()
    assert 0 == children("-c", WRITER, url, "-1").wait(60)
    rest, errors = follower.communicate(timeout=60)
    events = [*first, *map(json.loads, rest.splitlines())]
    assert (0, "") == (follower.returncode, errors)
    assert [*range(12)] == [event["offset"] for event in events]
    assert ("complete", 2) == (events[-1]["type"], events[-1]["session"])


def test_ctrl_c_ends_it_without_a_traceback(children, run, url, app):
    run("--store", url, "start", "ask", '"ada"', "--run-id", "r")
    follower = children("-m", "stepwell", "--store", url, "show", "r", "--follow")
    assert ["start", "step", "suspend"] == [follower.stdout.readline().split()[1] for _ in range(3)]
    follower.send_signal(signal.SIGINT)
    rest, errors = follower.communicate(timeout=60)
    assert (130, "") == (follower.returncode, rest)
    assert "stepwell: interrupted; what was recorded stays\n" == errors


def test_a_reader_that_goes_away_ends_it(children, run, url):
    run("--store", url, "start", "ask", '"ada"', "--run-id", "r")
    follower = children("-m", "stepwell", "--store", url, "show", "r", "--follow")
    follower.stdout.readline()
    follower.stdout.close()
    with Engine(url) as engine:
        for _ in range(2):
            engine.signal("r", "other")
        eventually(lambda: follower.poll() is not None)
    assert (141, "") == (follower.returncode, follower.stderr.read())


# ---- diff


def test_runs_that_are_the_same_give_0(run):
    for run_id in ("a", "b"):
        run("start", "hello", '"ada"', "--run-id", run_id)
    done = run("diff", "a", "b")
    assert (0, "a (a) and b (b) are the same: 3 events\n") == (done.code, done.out)
    assert True is json.loads(run("diff", "a", "b", "--json").out)["same"]


def test_runs_that_differ_give_1_and_a_table(run, stepwell):
    run("start", "hello", '"ada"', "--run-id", "a")
    run("start", "hello", '"bob"', "--run-id", "b")
    done = stepwell(*AT, "diff", "a", "b")
    head, _, columns, *rows = done.out.splitlines()
    assert 1 == done.code
    assert 'a (a) and b (b) part at event 0, start hello: input[0]: "ada" | "bob"' == head
    assert ["AT", "A", "B", "WHAT"] == columns.split()
    assert ["*", "*", "*"] == [row.split()[0] for row in rows]
    found = run("diff", "a", "b", "--json")
    shape = json.loads(found.out)
    assert (1, False, 0) == (found.code, shape["same"], shape["first"])
    assert ["changed"] * 3 == [row["mark"] for row in shape["rows"]]


def test_incarnations_of_a_run_are_compared(run, here):
    run("start", "read", '"file"', "--run-id", "r")
    (here / "file").write_text("text")
    run("retry", "r")
    assert 0 == run("diff", "r", "r").code
    done = run("diff", "r", "r", "--incarnation-a", "0")
    assert (1, True) == (done.code, "step fail at 1" in done.out)
    assert 2 == run("diff", "r", "r", "--incarnation-b", "7").code


def test_a_diff_of_what_is_not_there_is_a_mistake(run):
    run("start", "hello", '"ada"', "--run-id", "a")
    done = run("diff", "a", "gone")
    assert (2, "", True) == (done.code, done.out, "no run 'gone'" in done.err)
    assert 2 == run("diff", "a").code


def test_a_diff_shows_nothing_raw(run):
    run("start", "hello", '"ada"', "--run-id", "a")
    run("start", "hello", json.dumps(NASTY), "--run-id", "b")
    for arguments in (["diff", "a", "b"], ["diff", "a", "b", "--json"]):
        out = run(*arguments).out
        assert set() == {char for char in out if not char.isprintable() and char != "\n"}


# ---- fork --replace


def test_a_fork_with_another_result(run, engine):
    run("start", "ask", '"ada"', "--run-id", "r")
    done = run("--json", "fork", "r", "--replace", "shout", "--value", '"EVE"', "--run-id", "f")
    assert (0, "suspended") == (done.code, json.loads(done.out)["status"])
    assert ("EVE", "shout") == (engine.history("f").result_of("shout"), engine.history("f")[0].source["replaced"])
    assert 1 == run("diff", "r", "f").code


def test_a_step_that_failed_is_given_a_result(run):
    run("start", "read", '"file"', "--run-id", "r")
    done = run("fork", "r", "--replace", "fail", "--value", '"text"', "--run-id", "f")
    assert (0, "  text") == (done.code, done.out.splitlines()[1])


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--replace", "shout"], "USAGE", "go together"),
        (["--value", "1"], "USAGE", "go together"),
        ([], "USAGE", "fork needs to know where"),
        (["--replace", "shout", "--value", "12"], "INVALID_INPUT", "expected str, got int 12"),
        (["--replace", "shout", "--value", "{"], "INVALID_INPUT", "not a JSON value"),
        (["--replace", "other", "--value", "1"], "NOT_FOUND", "recorded steps: shout"),
        (["--replace", "shout", "--value", '"A"', "--before", "1"], "INVALID_INPUT", "keeps only"),
    ],
)
def test_a_fork_that_can_not_be_is_told_and_makes_nothing(run, engine, arguments, code, text):
    run("start", "ask", '"ada"', "--run-id", "r")
    done = run("fork", "r", *arguments)
    assert (2, "") == (done.code, done.out)
    assert done.err.startswith(f"stepwell: {code}: ")
    assert text in done.err
    assert ["r"] == [record.id for record in engine.runs()]
