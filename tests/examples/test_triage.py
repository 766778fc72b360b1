"""examples/triage as its README says: each step in a process of its own."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from stepwell import Engine

TICKETS = Path(__file__).parents[2] / "examples" / "triage" / "tickets.json"
VERDICT = '{"approved": true, "reviewer": "alice"}'


def test_the_tickets_are_what_the_readme_says():
    tickets = json.loads(TICKETS.read_text("utf-8"))
    assert 5 == len(tickets)
    assert any(not json.dumps(ticket, ensure_ascii=False).isascii() for ticket in tickets)
    assert 4_000 < max(len(str(ticket["body"])) for ticket in tickets)


def test_a_severe_ticket_waits_over_processes_and_a_malformed_one_is_told(call, tmp_path):
    started = call("start.py", code=1)
    assert "ticket 'T-1005' is malformed: no Ticket: $.body: expected str, got int 404\n" == started.stderr
    assert "T-1003: waits for a human (severity 5: data loss)" in started.stdout
    assert 3 == started.stdout.count(": completed\n")
    resumed = call("resume.py", "T-1003", "--reviewer", "alice", "--note", "It is back.")
    assert "T-1003: completed" in resumed.stdout
    assert "    It is back." in resumed.stdout
    assert "classify" not in resumed.stdout
    with Engine(f"sqlite:///{tmp_path}/triage.db") as engine:
        assert ["T-1001", "T-1002", "T-1003", "T-1004"] == sorted(record.id for record in engine.runs())
        kinds = [event.kind for event in engine.history("T-1003")]
        assert ["start", "step", "suspend", "resume", "step", "complete"] == kinds


def test_starting_the_same_file_again_classifies_nothing(call):
    first, second = call("start.py", code=1), call("start.py", code=1)
    ran = re.compile(r"^  \[.*\n", re.MULTILINE)
    assert 7 == len(ran.findall(first.stdout))
    assert ran.sub("", first.stdout) == second.stdout


def test_a_rejected_ticket_gets_no_draft(call):
    call("start.py", code=1)
    done = call("resume.py", "T-1003", "--reject", "--reviewer", "bob")
    assert ["T-1003: completed", "    rejected by bob"] == done.stdout.splitlines()


def test_good_tickets_alone_give_0(call, tmp_path):
    ticket = {"id": "orders/12", "customer": "Ada", "subject": "Hi", "body": "How are you?"}
    (tmp_path / "good.json").write_text(json.dumps([ticket]), "utf-8")
    assert "orders/12: completed" in call("start.py", "good.json").stdout


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"id": "T-9", "customer": "Ada", "subject": "Hi"}, "ticket 'T-9' is malformed"),
        ({"customer": "Ada", "subject": "Hi", "body": ""}, "ticket 'without an id' is malformed"),
        ("text", "ticket 'text' is malformed"),
        ({"id": "", "customer": "Ada", "subject": "Hi", "body": ""}, "ticket '' was refused: a run id"),
    ],
)
def test_every_malformed_ticket_gets_one_clear_line(call, tmp_path, entry, words):
    (tmp_path / "bad.json").write_text(json.dumps([entry]), "utf-8")
    done = call("start.py", "bad.json", code=1)
    assert words in done.stderr
    assert 1 == done.stderr.count("\n")


def test_a_changed_ticket_under_a_known_id_is_refused(call, tmp_path):
    ticket = {"id": "T-1", "customer": "Ada", "subject": "Hi", "body": "one"}
    (tmp_path / "one.json").write_text(json.dumps([ticket]), "utf-8")
    (tmp_path / "two.json").write_text(json.dumps([ticket | {"body": "two"}]), "utf-8")
    call("start.py", "one.json")
    assert "ticket 'T-1' was refused: run 'T-1' is there already" in call("start.py", "two.json", code=1).stderr


@pytest.mark.parametrize("text", ["[", "{}"])
def test_a_file_of_no_tickets_is_told(call, tmp_path, text):
    (tmp_path / "bad.json").write_text(text, "utf-8")
    assert "bad.json: " in call("start.py", "bad.json", code=2).stderr


def test_a_file_that_is_not_there_is_told(call):
    assert "none.json: No such file or directory\n" == call("start.py", "none.json", code=2).stderr


def test_a_verdict_for_no_question_is_refused(call):
    call("start.py", code=1)
    for run_id, code in (("nobody", "NOT_FOUND"), ("T-1001", "RUN_CLOSED"), ("", "INVALID_INPUT")):
        assert call("resume.py", run_id, code=2).stderr.startswith(f"{code}: ")


def test_the_command_line_works_with_the_example_too(call, tmp_path):
    call("start.py", code=1)
    where = ("-m", "stepwell", "--app", "workflow:engine", "--store", f"sqlite:///{tmp_path}/triage.db", "--json")
    done = call(*where, "resume", "T-1003", "manual-review", VERDICT)
    assert '"status": "completed"' in done.stdout
