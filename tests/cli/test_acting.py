"""Verbs that move runs."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest


def test_start_runs_a_workflow_and_shows_its_result(run):
    done = run("start", "hello", '"ada"', "2", "--run-id", "r1")
    assert (0, "") == (done.code, done.err)
    assert ["r1  completed", "  ADAADA"] == done.out.splitlines()


def test_start_in_json_gives_the_whole_record(run):
    done = run("--json", "start", "hello", '"ada"', "--run-id", "r1", "--tag", "team=red", "--tag", "x=a=b")
    found = json.loads(done.out)
    assert ("r1", "completed", ["ada", 1], "ADA") == tuple(found[k] for k in ("runId", "status", "input", "result"))
    assert {"team": "red", "x": "a=b"} == found["tags"]


def test_options_may_stand_before_and_after_the_verb(stepwell, app):
    assert 0 == stepwell("start", "hello", '"a"', "--run-id", "r", "--app", app, "--store", "sqlite:///runs.db").code
    assert "r" == json.loads(stepwell("list", "--store", "sqlite:///runs.db", "--json").out)[0]["runId"]
    assert "r" == json.loads(stepwell("--store", "sqlite:///runs.db", "--json", "list").out)[0]["runId"]


def test_an_app_that_reads_the_variable_follows_the_store_option(stepwell, app, here):
    assert 0 == stepwell("--store", "sqlite:///other.db", "--app", app, "start", "hello", '"a"').code
    assert ((here / "other.db").exists(), (here / "runs.db").exists()) == (True, False)


def test_an_app_on_another_store_than_the_named_one_is_refused(stepwell, write_app, here):
    name = write_app("from stepwell import Engine\nengine = Engine('sqlite:///fixed.db')\n")
    done = stepwell("--store", "sqlite:///other.db", "--app", f"{name}:engine", "list")
    assert 2 == done.code
    assert "keeps its runs in" in done.err


def test_a_value_comes_from_a_file_or_from_standard_input(run, here, monkeypatch):
    Path("name.json").write_text('"Ünï"', "utf-8")
    assert "  ÜNÏ" in run("start", "hello", "@name.json").out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'"stdin"')))
    assert "  STDIN" in run("start", "hello", "-").out


def test_the_same_start_again_gives_the_same_and_runs_nothing(run, engine):
    run("start", "hello", '"ada"', "--run-id", "r1")
    before = engine.history("r1")
    assert "r1  completed" in run("start", "hello", '"ada"', "--run-id", "r1").out
    assert before == engine.history("r1")


def test_a_suspended_run_says_what_it_waits_for_and_how_to_go_on(run):
    done = run("start", "ask", '"ada"', "--run-id", "it's")
    assert 0 == done.code
    assert "suspended  waits for 'review': please look" in done.out
    assert "next: stepwell resume 'it'\"'\"'s' review JSON" in done.out


def test_resume_gives_the_verdict_and_the_run_completes(run):
    run("start", "ask", '"ada"', "--run-id", "r1")
    done = run("resume", "r1", "review", '{"approved": true, "reviewer": "alice"}')
    assert (0, "True by alice") == (done.code, done.out.splitlines()[1].strip())


def test_a_late_answer_to_another_wait_is_refused(run, engine):
    run("start", "ask", '"ada"', "--run-id", "r1")
    done = run("resume", "r1", "review", '{"approved": true, "reviewer": "a"}', "--wait", "review@0:9")
    assert (2, True) == (done.code, done.err.startswith("stepwell: EVENT_MISMATCH: "))
    assert "suspended" == engine.get("r1").status


def test_a_signal_needs_no_code_and_the_next_owner_takes_it(run, stepwell, engine):
    run("start", "ask", '"ada"', "--run-id", "r1")
    at = ("--store", "sqlite:///runs.db")
    done = stepwell(*at, "signal", "r1", "review", '{"approved": false, "reviewer": "bob"}', "--id", "s1")
    assert (0, True) == (done.code, "is recorded" in done.out)
    again = stepwell(*at, "signal", "r1", "review", '{"approved": false, "reviewer": "bob"}', "--id", "s1")
    assert 0 == again.code
    assert 1 == [event.kind for event in engine.history("r1")].count("resume")
    assert "  False by bob" in run("start", "ask", '"ada"', "--run-id", "r1").out


def test_cancel_with_the_code_performs_the_clean_up(run, here):
    run("start", "ask", '"ada"', "--run-id", "r1")
    done = run("cancel", "r1", "--reason", "no longer needed")
    assert (0, True) == (done.code, "r1  cancelled" in done.out)
    assert (here / "tidied").exists()


def test_cancel_without_the_code_is_recorded_for_the_next_owner(run, stepwell, here, engine):
    run("start", "ask", '"ada"', "--run-id", "r1")
    done = stepwell("--store", "sqlite:///runs.db", "cancel", "r1")
    assert (0, True) == (done.code, "whoever drives the run next" in done.out)
    assert "cancel" == engine.history("r1")[-1].kind
    assert 1 == run("start", "ask", '"ada"', "--run-id", "r1").code
    assert "cancelled" == engine.get("r1").status


def test_a_forced_cancel_closes_at_once(run, stepwell, here):
    run("start", "ask", '"ada"', "--run-id", "r1")
    done = stepwell("--store", "sqlite:///runs.db", "--json", "cancel", "r1", "--force")
    assert (0, "cancelled") == (done.code, json.loads(done.out)["status"])
    assert not (here / "tidied").exists()


def test_a_failed_run_gives_1_and_retry_goes_on_from_what_failed(run, here, engine):
    done = run("start", "read", '"text"', "--run-id", "r1")
    assert 1 == done.code
    assert "r1  failed  " in done.out
    assert "FileNotFoundError" in done.out
    assert "next: stepwell retry r1" in done.out
    (here / "text").write_text("found", "utf-8")
    again = run("retry", "r1")
    assert (0, "  found") == (again.code, again.out.splitlines()[1])
    assert 2 == engine.get("r1").attempts


def test_pause_and_unpause(run):
    run("start", "ask", '"ada"', "--run-id", "r1")
    paused = run("pause", "r1", "--reason", "lunch")
    assert (0, True) == (paused.code, "r1  paused" in paused.out)
    unpaused = run("unpause", "r1")
    assert (0, True) == (unpaused.code, "r1  suspended" in unpaused.out)


@pytest.mark.parametrize("before", ["2", "shout"])
def test_fork_takes_the_history_up_to_a_point(run, before):
    run("start", "read", '"text"', "--run-id", "r1")
    Path("text").write_text("found", "utf-8")
    done = run("fork", "r1", "--before", before, "--run-id", "r2")
    assert (0, "r2  completed") == (done.code, done.out.splitlines()[0])


def test_delete_wants_to_be_sure_and_then_the_run_is_gone(run, stepwell):
    run("start", "hello", '"ada"', "--run-id", "r1")
    at = ("--store", "sqlite:///runs.db")
    assert 2 == stepwell(*at, "delete", "r1").code
    assert "completed" in stepwell(*at, "list").out
    assert 0 == stepwell(*at, "delete", "r1", "--yes").code
    assert "no runs\n" == stepwell(*at, "list").out


@pytest.mark.parametrize("run_id", ["orders/12", "..", "ÄÖ", "a b", "x" * 200])
def test_any_printable_run_id_is_fine(run, run_id):
    assert 0 == run("start", "hello", '"ada"', "--run-id", run_id).code
    assert run_id in run("show", run_id).out


def test_a_run_that_somebody_else_drives_is_no_failure(run, engine):
    run("start", "ask", '"ada"', "--run-id", "r1")
    lease = engine.store.claim("r1", "somebody else", 30)
    done = run("start", "ask", '"ada"', "--run-id", "r1")
    assert (0, True) == (done.code, "r1  running  somebody drives it now" in done.out)
    engine.store.release(lease)


def test_a_signal_may_start_its_run(run, engine):
    said = '{"approved": true, "reviewer": "bob"}'
    how = ("signal", "r9", "review", said, "--id", "s1", "--start", "ask", "--arg", '"ada"', "--tag", "team=red")
    for _ in range(2):
        done = run(*how)
        assert (0, True) == (done.code, "is recorded" in done.out)
    assert ["start", "resume"] == [event.kind for event in engine.history("r9")]
    assert ({"team": "red"}, ["ada"]) == (engine.get("r9").tags, engine.get("r9").input)
    assert "True by bob" in run("start", "ask", '"ada"', "--run-id", "r9").out
    done = run("signal", "r9", "review", said, "--start", "ask", "--arg", '"ada"')
    assert done.err.startswith("stepwell: RUN_CLOSED: ")
    assert 0 == run("signal", "r9", "review", said, "--start", "ask", "--arg", '"eve"', "--if-closed", "restart").code
    assert (2, ["eve"]) == (engine.get("r9").attempts, engine.get("r9").input)


@pytest.mark.parametrize("more", [["--arg", "1"], ["--tag", "a=b"], ["--if-closed", "restart"]])
def test_what_is_for_a_new_run_needs_a_start(run, more):
    done = run("signal", "r9", "review", *more)
    assert (2, True) == (done.code, "add --start WORKFLOW" in done.err)


def test_a_decision_says_who_made_it_and_what_else_is_known(run, stepwell, engine):
    run("start", "ask", '"ada"', "--run-id", "r1")
    at, yes = ("--store", "sqlite:///runs.db"), '{"approved": true, "reviewer": "alice"}'
    sent = stepwell(*at, "signal", "r1", "review", yes, "--wait", "review@0:1", "--actor", "alice", "--meta", "via=a=b")
    assert 0 == sent.code
    (event,) = [event for event in engine.history("r1") if event.kind == "resume"]
    assert ("alice", {"via": "a=b"}) == (event.actor, json.loads(bytes(event.metadata)))
    shown = run("show", "r1").out
    assert "by alice" in shown
    assert '{"via": "a=b"}' in shown
    late = run("resume", "r1", "review", yes, "--wait", "review@0:1", "--actor", "bob")
    assert (2, True) == (late.code, "was decided by 'alice' at 2" in late.err)


@pytest.mark.parametrize("wrong", [("--actor", ""), ("--meta", "via"), ("--meta", "=x")])
def test_a_wrong_actor_or_meta_is_told(run, engine, wrong):
    run("start", "ask", '"ada"', "--run-id", "r1")
    for verb in ("resume", "signal"):
        done = run(verb, "r1", "review", '{"approved": true, "reviewer": "a"}', *wrong)
        assert 2 == done.code
        assert "Traceback" not in done.err
    assert "suspended" == engine.get("r1").status
