"""Verbs that only look."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator

import pytest

from stepwell import Engine, Flow, Step, Stream, Suspend, workflow

AT = ("--store", "sqlite:///runs.db")
NASTY = "\x1b[31mred\x1b[0m\x07 \u202eevil\u2066 \x9b31m line\nbreak\r"


def say(text: str) -> str:
    return text


@workflow
def echo(text: str) -> Flow[str]:
    return (yield from Step(say, text))


@workflow
def wait(text: str) -> Flow[str]:
    yield Suspend("go", reason=text)
    return text


@pytest.fixture
def runs(here):
    with Engine("sqlite:///runs.db", workflows=[echo, wait]) as engine:
        engine.start(echo, "one", run_id="e1", tags={"team": "red"})
        engine.start(echo, "two", run_id="e2", tags={"team": "blue"})
        engine.start(wait, "please", run_id="w1")
        yield engine


def test_list_shows_runs_newest_first(stepwell, runs):
    done = stepwell(*AT, "list")
    head, *rows = done.out.splitlines()
    assert ["RUN", "WORKFLOW", "STATUS"] == head.split()[:3]
    assert ["w1", "e2", "e1"] == [row.split()[0] for row in rows]
    assert "waits for 'go'" in rows[0]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (["--status", "suspended"], ["w1"]),
        (["--workflow", "echo"], ["e2", "e1"]),
        (["--tag", "team"], ["e2", "e1"]),
        (["--tag", "team=red"], ["e1"]),
        (["--waiting", "go"], ["w1"]),
        (["--blocked"], []),
        (["--limit", "1"], ["w1"]),
        (["--after", "e2"], ["e1"]),
    ],
)
def test_list_filters_and_pages(stepwell, runs, filters, found):
    done = stepwell(*AT, "list", "--json", *filters)
    assert (0, found) == (done.code, [one["runId"] for one in json.loads(done.out)])


def test_a_full_page_says_how_to_go_on(stepwell, runs):
    assert "--after e2" in stepwell(*AT, "list", "--limit", "2").out


def test_nothing_found_is_said(stepwell, runs):
    assert "no runs that match\n" == stepwell(*AT, "list", "--workflow", "other").out


def test_show_has_the_record_and_the_history(stepwell, runs):
    done = stepwell(*AT, "show", "w1")
    assert "waits for 'go'" in done.out
    assert "(wait go@0:0)" in done.out
    rows = done.out.split("SEQ", 1)[1].splitlines()[1:]
    assert [("0", "start"), ("1", "suspend")] == [(row.split()[0], row.split()[3]) for row in rows]


def test_show_in_json_is_the_record_with_waits_and_events(stepwell, runs):
    found = json.loads(stepwell(*AT, "show", "w1", "--json").out)
    assert ("w1", ["please"], "suspended") == (found["runId"], found["input"], found["status"])
    assert [{"signal": "go", "wait": "go@0:0", "reason": "please"}] == found["waiting"]
    assert ["start", "suspend"] == [event["type"] for event in found["history"]]


def test_a_result_of_null_is_shown(stepwell, here):
    @workflow
    def nothing() -> Flow[None]:
        yield Step(say, "x")

    with Engine("sqlite:///runs.db") as engine:
        engine.start(nothing, run_id="n")
    found = json.loads(stepwell(*AT, "show", "n", "--json").out)
    assert None is found["result"]


def test_raw_records_are_the_bytes_that_are_stored(process, runs):
    done = process(*AT, "show", "e1", "--raw")
    stored = runs.store.read("e1").records
    assert [line.decode() for line in stored] == done.stdout.splitlines()


def test_an_earlier_incarnation_can_be_shown(stepwell, runs):
    runs.reset("e1")
    found = json.loads(stepwell(*AT, "show", "e1", "--json", "--incarnation", "0").out)
    assert {1} == {event["session"] for event in found["history"]}
    assert 2 == stepwell(*AT, "show", "e1", "--incarnation", "7").code


@pytest.mark.parametrize("arguments", [["list"], ["show", "nasty"], ["show", "nasty", "--json"], ["list", "--json"]])
def test_nothing_from_a_payload_reaches_the_terminal_raw(stepwell, here, arguments):
    with Engine("sqlite:///runs.db", workflows=[wait]) as engine:
        engine.start(wait, NASTY, run_id="nasty", tags={"evil": NASTY})
    done = stepwell(*AT, *arguments)
    assert 0 == done.code
    assert set() == {char for char in done.out if not char.isprintable() and char != "\n"}
    assert "red" in done.out


@pytest.mark.parametrize("store", ["sqlite:///none.db", "file:none"])
@pytest.mark.parametrize(
    "verb", [["list"], ["show", "r"], ["signal", "r", "s"], ["cancel", "r"], ["delete", "r", "--yes"]]
)
def test_a_store_that_is_not_there_is_said_and_not_made(stepwell, here, store, verb):
    done = stepwell("--store", store, *verb)
    assert (2, "") == (done.code, done.out)
    assert "no store at" in done.err
    assert [] == list(here.iterdir())


def test_an_app_whose_store_is_not_there_does_not_make_it(run, here):
    done = run("list")
    assert (2, True) == (done.code, "no store at" in done.err)
    assert not (here / "runs.db").exists()


def test_a_damaged_history_is_told_with_its_own_exit_code(stepwell, runs):
    db = sqlite3.connect("runs.db")
    db.execute("UPDATE stepwell_events SET body = CAST(replace(body, 'one', 'two') AS BLOB) WHERE run_id = 'e1'")
    db.commit()
    db.close()
    done = stepwell(*AT, "show", "e1")
    assert (4, True) == (done.code, done.err.startswith("stepwell: CORRUPT_HISTORY: "))


def spell(text: str) -> Iterator[str]:
    yield from text


@workflow
def dictate(text: str) -> Flow[str]:
    return (yield from Stream(spell, text).options(collect="".join, record_chunks=True))


def test_recorded_chunks_are_shown_and_verified(stepwell, here):
    with Engine("sqlite:///runs.db", workflows=[dictate]) as engine:
        engine.start(dictate, "ab", run_id="d1")
    rows = [line.split() for line in stepwell(*AT, "show", "d1").out.splitlines()]
    assert [["spell", "chunk", "0:", '"a"'], ["spell", "chunk", "1:", '"b"']] == [
        row[-4:] for row in rows if "chunk" in row
    ]
    history = json.loads(stepwell(*AT, "show", "d1", "--json").out)["history"]
    assert ["start", "chunk", "chunk", "step", "complete"] == [event["type"] for event in history]
    assert ["at", "stepId", "attempt", "index", "value"] == [*history[1]][-6:-1]
    assert 0 == stepwell(*AT, "verify").code
