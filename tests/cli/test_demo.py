"""`stepwell demo`, as a newcomer runs it."""

from __future__ import annotations

import json
import time

import pytest

from stepwell import Engine
from stepwell.cli.demo import Execution, repeated
from stepwell.demo import send_replies


def test_the_demo_shows_all_of_it_in_ten_seconds_and_leaves_its_store(process, here):
    began = time.monotonic()
    done = process("demo")
    assert (0, "") == (done.returncode, done.stderr)
    assert time.monotonic() - began < 10
    for words in (
        "ticket 4 ('T-4') is malformed and left out: no Ticket: $.body: expected str, got int 404",
        "suspended, waits for a human: severity 5",
        '"waitingFor":"manual-review"',
        "Dear Ms. Okafor",
        "kill -9",
        "reply to Ada: answered from history",
        "No finished step ran twice.",
        "stepwell --store sqlite:///stepwell-demo.db list",
    ):
        assert words in done.stdout
    assert "\x1b" not in done.stdout
    with Engine("sqlite:///stepwell-demo.db") as engine:
        assert {"completed"} == {record.status for record in engine.runs()}
        assert ["demo-1/T-1", "demo-1/T-2", "demo-1/T-3", "demo-1/replies"] == sorted(r.id for r in engine.runs())


def test_the_demo_can_run_again_on_its_store_in_another_directory(process, here):
    (here / "other").mkdir()
    with Engine("sqlite:///other/stepwell-demo.db") as engine:
        engine.submit(send_replies, "effects", run_id="demo-1/replies")
    log = here / "other" / "stepwell-demo-effects.log"
    log.write_text('{"run": "demo-2/replies", "step": "reply to Ada", "pid": 1}\n')  # of a store that was removed
    found = json.loads(process("demo", "--dir", "other", "--json").stdout)
    assert ("demo-3/replies", []) == (found["batch"], found["repeated"])
    assert 4 <= len(found["killed"]["finished"]) < 8
    assert {1} == {found["executions"][step] for step in found["killed"]["finished"]}
    assert 8 == len(found["executions"])
    assert ["other"] == [path.name for path in here.iterdir()]


def test_the_demo_runs_on_another_store_that_is_named(process, here, database):
    url = database.replace("postgres@", "postgres:hunter2@")
    done = process("--store", url, "demo")
    assert (0, "") == (done.returncode, done.stderr)
    assert "No finished step ran twice." in done.stdout
    assert "postgresql://postgres:***@127.0.0.1" in done.stdout
    assert "hunter2" not in done.stdout
    with Engine(database) as engine:
        assert 4 == len(engine.runs())
    assert not (here / "stepwell-demo.db").exists()


def test_the_demo_refuses_a_store_that_would_die_with_a_process(process, here):
    done = process("--store", "memory:", "demo")
    assert 2 == done.returncode
    assert "the demo kills a process" in done.stderr
    assert [] == list(here.iterdir())


def test_a_repeated_step_would_be_noticed():
    assert ["a"] == repeated(("a", "b"), [Execution("a", 1), Execution("b", 1), Execution("a", 2)])
    assert ["a"] == repeated(("a",), [])
    assert [] == repeated(("a",), [Execution("a", 1), Execution("b", 1), Execution("b", 2)])


@pytest.mark.parametrize("content", ["just some notes\n"])
def test_the_demo_leaves_a_file_that_is_no_store_alone(process, here, content):
    (here / "stepwell-demo.db").write_text(content)
    done = process("demo")
    assert 2 == done.returncode
    assert done.stderr.startswith("stepwell: STORE_MISCONFIGURED: ")
    assert content == (here / "stepwell-demo.db").read_text()
    assert ["stepwell-demo.db"] == [path.name for path in here.iterdir()]


def test_a_changed_ticket_file_is_read_and_a_failing_process_is_told(process, here):
    (here / "stepwell-demo-tickets.json").write_text("[")
    done = process("demo")
    assert 1 == done.returncode
    assert done.stderr.startswith("stepwell: DEMO: process ")
    assert 1 == done.stderr.count("\n")
