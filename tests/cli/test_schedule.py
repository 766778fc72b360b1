"""`stepwell schedule`: what is due, and what a person may do about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

APP = """
import os
from datetime import timedelta
from stepwell import Engine, Flow, workflow
from stepwell.schedules import Schedule

@workflow
def report(day: str) -> Flow[str]:
    yield from ()
    return day

nightly = Schedule("nightly", report, cron="0 3 * * *", tz="Europe/Berlin", args=lambda slot: (f"{slot:%Y-%m-%d}",))
often = Schedule("often", report, every=timedelta(days=4000), args=("x",), overlap="skip")
engine = Engine(os.environ.get("STEPWELL_STORE", "sqlite:///runs.db"), workflows=[report, often, nightly])
"""

PLAIN = """
from stepwell import Engine
engine = Engine("sqlite:///runs.db")
"""


@pytest.fixture
def call(stepwell: Callable[..., Any], write_app: Callable[[str], str]) -> Callable[..., Any]:
    """`stepwell schedule` with the app above."""
    app = f"{write_app(APP)}:engine"

    def act(*arguments: str) -> Any:
        return stepwell("schedule", *arguments, "--app", app)

    return act


def test_schedules_are_ensured_and_listed(call: Callable[..., Any]) -> None:
    done = call("ensure")
    assert (0, "nightly  started\noften  started\n") == (done.code, done.out)
    done = call("ensure")
    assert (0, "nightly  unchanged\noften  unchanged\n") == (done.code, done.out)
    listed = call("list")
    assert 0 == listed.code
    header, nightly, often = listed.out.splitlines()
    assert "SCHEDULE WORKFLOW WHEN STATUS NEXT NEWEST RUN" == " ".join(header.split())
    assert all(word in nightly for word in ("nightly", "report", "0 3 * * * (Europe/Berlin)", "pending", "03:00:00+0"))
    assert "every 4000 days" in often


def test_in_json_there_is_everything_of_a_schedule(call: Callable[..., Any]) -> None:
    assert {"nightly": "started", "often": "started"} == json.loads(call("ensure", "--json").out)
    nightly, often = json.loads(call("list", "--json").out)
    assert ("nightly", "0 3 * * *", "Europe/Berlin") == (nightly["name"], nightly["cron"], nightly["tz"])
    assert ("last", "schedule:nightly") == (nightly["missed"], nightly["run"]["runId"])
    assert (345_600_000.0, "skip") == (often["every"], often["overlap"])
    assert "last" not in often
    assert "Z" == often["next"][-1]


def test_the_next_slots_are_shown_in_the_zone_of_the_schedule(call: Callable[..., Any], here: Any) -> None:
    done = call("next", "nightly", "-n", "2", "--after", "2026-03-28T12:00Z", "--json")
    assert [
        {
            "slot": "2026-03-29T01:00:00.000000Z",
            "local": "2026-03-29T03:00:00+02:00",
            "runId": "nightly@2026-03-29T01:00:00Z",
        },
        {
            "slot": "2026-03-30T01:00:00.000000Z",
            "local": "2026-03-30T03:00:00+02:00",
            "runId": "nightly@2026-03-30T01:00:00Z",
        },
    ] == json.loads(done.out)
    assert "Sun 2026-03-29 03:00:00+02:00" in call("next", "nightly", "--after", "2026-03-28T12:00Z").out
    assert 5 == len(json.loads(call("next", "nightly", "--json").out))
    assert not (here / "runs.db").exists()


def test_a_run_is_triggered_for_now_and_for_a_slot(call: Callable[..., Any], stepwell: Callable[..., Any]) -> None:
    now = json.loads(call("trigger", "nightly", "--json").out)
    assert ("pending", {"schedule": "nightly"}) == (now["status"], now["tags"])
    done = call("trigger", "nightly", "--slot", "2026-01-01T02:00Z")
    assert (0, "nightly@2026-01-01T02:00:00Z  pending\n") == (done.code, done.out)
    again = call("trigger", "nightly", "--slot", "2026-01-01T03:00+01:00", "--json")
    assert ["2026-01-01"] == json.loads(again.out)["input"]
    assert 2 == len(
        json.loads(stepwell("list", "--tag", "schedule=nightly", "--store", "sqlite:///runs.db", "--json").out)
    )


def test_it_is_paused_and_unpaused_with_the_app_or_the_store_alone(
    call: Callable[..., Any], stepwell: Callable[..., Any]
) -> None:
    call("ensure")
    done = call("pause", "nightly", "--reason", "holidays")
    assert 0 == done.code
    assert "schedule:nightly  paused" in done.out
    assert "paused" in call("list").out
    assert "next" not in json.loads(call("list", "--json").out)[0]
    done = stepwell("schedule", "unpause", "nightly", "--store", "sqlite:///runs.db")
    assert (0, "unpause is recorded") == (done.code, done.out.split("  ")[1][:19])
    assert "schedule:nightly  suspended" in call("unpause", "nightly").out


def test_one_that_was_cancelled_is_begun_anew_when_it_is_named(
    call: Callable[..., Any], stepwell: Callable[..., Any]
) -> None:
    call("ensure")
    stepwell("cancel", "schedule:often", "--force", "--store", "sqlite:///runs.db")
    assert "often  cancelled" in call("ensure").out
    assert "often  restarted\n" == call("ensure", "often").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("next", "weekly"), "the app has no schedule 'weekly'; it has: 'nightly', 'often'"),
        (("ensure", "weekly"), "the app has no schedule 'weekly'"),
        (("trigger", "weekly"), "the app has no schedule 'weekly'"),
        (("pause", "nightly"), "schedule 'nightly' is not started in this store"),
        (("next", "nightly", "-n", "0"), "takes a whole number from 1 to 10000"),
        (("next", "nightly", "--after", "tomorrow"), "takes an instant with its offset"),
        (("next", "nightly", "--after", "2026-01-01"), "takes an instant with its offset"),
        (("trigger", "nightly", "--slot", "x"), "takes an instant with its offset"),
        ((), "the following arguments are required: ACTION"),
        (("stop",), "invalid choice: 'stop'"),
    ],
)
def test_a_mistake_is_told_in_one_line(call: Callable[..., Any], arguments: tuple[str, ...], message: str) -> None:
    if arguments[:1] == ("pause",):
        call("trigger", "often")  # so that there is a store
    done = call(*arguments)
    assert (2, 1) == (done.code, len(done.err.splitlines()))
    assert message in done.err


def test_without_an_app_or_schedules_it_says_so(stepwell: Callable[..., Any], write_app: Callable[[str], str]) -> None:
    done = stepwell("schedule", "list", "--store", "sqlite:///runs.db")
    assert 2 == done.code
    assert "schedule runs workflow code: say where it is" in done.err
    app = f"{write_app(PLAIN)}:engine"
    assert "no schedules: give them to the engine as workflows\n" == stepwell("schedule", "ensure", "--app", app).out


def test_a_worker_ensures_the_schedules_of_its_app(
    stepwell: Callable[..., Any], write_app: Callable[[str], str], call: Callable[..., Any]
) -> None:
    done = stepwell("worker", "--drain", "--app", f"{write_app(APP)}:engine")
    assert 0 == done.code
    assert "schedule nightly: started\nschedule often: started\n" in done.out
    assert ["suspended", "suspended"] == [one["run"]["status"] for one in json.loads(call("list", "--json").out)]
