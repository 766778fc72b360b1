"""examples/deploys as its README says: each deploy in processes of its own, some of them killed."""

from __future__ import annotations

import functools
import json
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from msgspec import Raw

from stepwell import Engine
from stepwell import events as e

from ..docs.pages import Runner

DEPLOYS = Path(__file__).parents[2] / "examples" / "deploys"
PATIENCE = 60.0
"""Seconds after which a test is sure that the bank won't book any more."""


@pytest.fixture(params=["sqlite:///{}/magazine.db", "file:{}/magazine"])
def url(request, tmp_path):
    return request.param.format(tmp_path)


@pytest.fixture
def begin(begin, url):
    return functools.partial(begin, STEPWELL_STORE=url)


@pytest.fixture
def stepwell(call):
    return functools.partial(call, "-m", "stepwell")


@pytest.fixture
def desk(call):
    def run(*words, **how):
        return call("desk.py", *words, **how).stdout

    return run


def booked(folder):
    """What the bank has booked, line by line."""
    path = folder / "bank.txt"
    return path.read_text("utf-8").splitlines() if path.exists() else []


def counts(said):
    """The table at the end of what the desk says."""
    rows = [line.strip().removesuffix(" cents").rsplit(None, 1) for line in said.splitlines() if line[:2] == "  "]
    return {name: int(count) for name, count in rows if count.isdecimal()}


def names(url, run_id):
    """The steps of a run that are recorded, in order."""
    with Engine(url) as engine:
        return [event.step_id for event in engine.history(run_id) if isinstance(event, e.Step)]


def test_it_does_what_the_readme_shows(tmp_path):
    runner = Runner(DEPLOYS / "README.md", tmp_path)
    for source in DEPLOYS.glob("*.py"):
        shutil.copy(source, runner.folder)
    runner.run()


def test_each_run_goes_the_way_that_it_began(desk, url, tmp_path):
    desk("1", "subscribe", "ada")
    desk("1", "publish", "May")
    desk("2", "subscribe", "bob")
    desk("2", "publish", "June")
    desk("3", "subscribe", "cleo")
    desk("3", "publish", "July")
    desk("4", "publish", "August")
    said = desk("5", "publish", "September")
    assert [
        "ada: version 1, completed",
        "bob: version 1, completed",
        "cleo: version 2, completed",
    ] == [line for line in said.splitlines() if line[0] != " "]
    old = ["charge", "send", "charge#2", "send#2", "charge#3", "send#3"]
    assert old == names(url, "ada")
    assert ["check_address", *old] == names(url, "bob")
    assert ["check_address", "charge", "send", "send#2", "send#3"] == names(url, "cleo")
    assert {"ada": 3, "bob": 3, "cleo": 1} == Counter(line.split()[0] for line in booked(tmp_path))


@pytest.mark.parametrize(
    ("dies", "known", "charges"), [("after:bob", Raw(b"true"), 1), ("before:bob", Raw(b"false"), 2)]
)
def test_a_charge_that_was_interrupted_is_asked_about_and_made_once(begin, desk, url, tmp_path, dies, known, charges):
    desk("1", "subscribe", "ada", "bob", "cleo")
    killed = begin("desk.py", "2", "publish", "May", DIE=dies)
    said, complaint = killed.communicate(timeout=PATIENCE)
    assert (-signal.SIGKILL, "  the issue of May goes to ada\n", "") == (killed.returncode, said, complaint)
    said = desk("2", "publish", "May")
    assert "does the bank know of May, bob?" in said
    expected = {"SignalSent": 3, "StepErrored": 1, "BudgetSpent": 2, "bank fee": 30, "RunParked": 2, "StepReplayed": 0}
    assert expected == {name: counts(said).get(name, 0) for name in expected}
    with Engine(url) as engine:
        history = engine.history("bob")
    assert charges == sum(event.kind == "begin" for event in history)
    assert [known] == [event.result for event in history if isinstance(event, e.Step) and event.name == "ask_the_bank"]
    assert ["ada May 500", "bob May 500", "cleo May 500"] == sorted(booked(tmp_path))


def test_a_charge_that_is_interrupted_twice_fails_the_run_and_is_left_to_people(begin, desk, tmp_path):
    desk("1", "subscribe", "bob")
    for _ in range(2):
        begin("desk.py", "1", "publish", "May", DIE="before:bob").communicate(timeout=PATIENCE)
    done = desk("1", "publish", "May", code=1)
    assert "bob: version 1, failed\n" in done
    assert 1 == counts(done)["RunClosed failed"]
    assert [] == booked(tmp_path)


def test_a_deploy_that_is_killed_anywhere_is_gone_on_with_by_the_next(begin, desk, url, tmp_path):
    """From outside, whenever the bank has booked something: what was begun with one deploy, another one ends."""
    readers = [f"reader-{number}" for number in range(12)]
    desk("1", "subscribe", *readers[:6])
    desk("2", "subscribe", *readers[6:])
    for deploy, lines in (("2", 2), ("3", 5), ("2", 9)):
        process = begin("desk.py", deploy, "publish", "May")
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None and len(booked(tmp_path)) < lines:
            assert time.monotonic() < deadline
        process.kill()
        process.wait()
    for month in ("May", "June", "July"):
        desk("3", "publish", month)
    charged = Counter(tuple(line.split()[:2]) for line in booked(tmp_path))
    assert {(reader, month): 1 for reader in readers for month in ("May", "June", "July")} == charged
    for number, reader in enumerate(readers):
        steps = names(url, reader)
        assert (number >= 6) == (steps[0] == "check_address")
        assert 3 == sum(step.partition("#")[0] == "send" for step in steps)


def test_a_deploy_that_comes_too_early_is_found_before_and_harms_nothing(desk, stepwell, tmp_path):
    desk("1", "subscribe", "ada")
    for deploy, kind, remedy in (("4", "command", "Patched"), ("5", "version", "version")):
        found = json.loads(stepwell("--app", f"deploy_{deploy}:engine", "--json", "check", code=1).stdout)
        (run,) = found["runs"]
        assert (1, 1, "ada", kind) == (found["checked"], found["breaks"], run["runId"], run["kind"])
        assert remedy == run["remedies"][0]["by"]
    old = stepwell("--app", "deploy_3:engine", "--json", "list", "--without-patch", "check-address").stdout
    assert ["ada"] == [run["runId"] for run in json.loads(old)]
    early = desk("4", "publish", "May", code=1)
    assert "blocked, DIVERGENCE: run 'ada' diverges at event 1 at 0: recorded is suspend 'issue'," in early
    assert "the workflow 'subscription' yielded step 'check_address' there." in early
    early = desk("5", "publish", "May", code=1)
    mismatch = "workflow 'subscription': the run is on version '1', and this engine has 2; keep the old version in"
    assert f"blocked, VERSION_MISMATCH: {mismatch} workflows=[...] until its runs are closed\n" in early
    assert [] == booked(tmp_path)
    said = desk("3", "publish", "May")
    assert "the issue of May goes to ada" in said
    assert ["ada May 500"] == booked(tmp_path), "the month counted once, however often it was told"


def test_a_price_that_is_raised_in_place_is_found_and_charges_nobody(desk, stepwell, tmp_path):
    desk("3", "subscribe", "dan")
    found = json.loads(stepwell("--app", "deploy_3b:engine", "--json", "check", code=1).stdout)
    assert ["dan"] == [run["runId"] for run in found["runs"]]
    done = desk("3b", "publish", "July", code=1)
    assert "blocked, DIVERGENCE: run 'dan' diverges at event 3 at 1: step 'charge' was recorded with inputs " in done
    assert {"RunBlocked DIVERGENCE": 1, "SignalSent": 1} == counts(done)
    assert "the issue of July goes to 1, dan street" in desk("3", "publish", "July")
    assert ["dan three issues 1200"] == booked(tmp_path)
    desk("3b", "subscribe", "eve")
    assert "eve three issues 1500" == booked(tmp_path)[-1]


def test_a_history_that_grows_too_long_is_stopped_and_goes_on_when_the_limit_is_raised(desk, tmp_path):
    desk("1", "subscribe", "ada")
    desk("1", "publish", "May")
    done = desk("1", "publish", "June", MAX_EVENTS="9", code=1)
    assert "blocked, HISTORY_LIMIT: run 'ada' has 9 events of " in done
    assert "and the limit is 9 events or 50,000,000 bytes" in done
    assert ["ada May 500"] == booked(tmp_path), "nothing more is performed"
    assert "the issue of June goes to ada" in desk("1", "again")
