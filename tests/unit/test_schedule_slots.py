"""When schedules are due: three zones whose clocks are moved, written out by hand, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from stepwell import Flow, InvalidInputError, Workflow, workflow
from stepwell.schedules import Schedule, upcoming


@workflow
def report(day: str = "") -> Flow[None]:
    yield from ()


# zone, expression, after, the next slots, all in UTC
TABLE = [
    # Berlin, 29 March 2026: 02:00 +01:00 becomes 03:00 +02:00, at 01:00 UTC
    ("Europe/Berlin", "30 2 * * *", "03-28T00:00", "03-28T01:30 03-29T01:00 03-30T00:30"),  # once, when they skipped
    ("Europe/Berlin", "15,45 2 * * *", "03-28T12:00", "03-29T01:00 03-30T00:15 03-30T00:45"),  # two skipped are one
    ("Europe/Berlin", "0 2,3 * * *", "03-28T12:00", "03-29T01:00 03-30T00:00 03-30T01:00"),  # as one that is there
    ("Europe/Berlin", "30 1 * * *", "03-28T12:00", "03-29T00:30 03-29T23:30"),
    ("Europe/Berlin", "0 * * * *", "03-28T22:30", "03-28T23:00 03-29T00:00 03-29T01:00 03-29T02:00"),  # time passes
    ("Europe/Berlin", "*/30 2 * * *", "03-28T12:00", "03-30T00:00 03-30T00:30"),  # there is no such hour
    # Berlin, 25 October 2026: 03:00 +02:00 becomes 02:00 +01:00, at 01:00 UTC
    ("Europe/Berlin", "30 2 * * *", "10-24T00:00", "10-24T00:30 10-25T00:30 10-26T01:30"),  # once, the first time
    ("Europe/Berlin", "30 2 * * *", "10-25T00:45", "10-26T01:30"),  # and not the second
    ("Europe/Berlin", "30 2 * * *", "10-25T01:15", "10-26T01:30"),
    ("Europe/Berlin", "0 3 * * *", "10-24T12:00", "10-25T02:00 10-26T02:00"),
    ("Europe/Berlin", "0 * * * *", "10-24T23:30", "10-25T00:00 10-25T01:00 10-25T02:00"),  # time passes
    ("Europe/Berlin", "*/30 2 * * *", "10-25T00:00", "10-25T00:30 10-25T01:00 10-25T01:30 10-26T01:00"),
    # New York, 8 March 2026: 02:00 -05:00 becomes 03:00 -04:00, at 07:00 UTC
    ("America/New_York", "30 2 * * *", "03-07T00:00", "03-07T07:30 03-08T07:00 03-09T06:30"),
    ("America/New_York", "0 0 * * *", "03-07T12:00", "03-08T05:00 03-09T04:00"),
    ("America/New_York", "*/20 * * * *", "03-08T06:30", "03-08T06:40 03-08T07:00 03-08T07:20"),
    # New York, 1 November 2026: 02:00 -04:00 becomes 01:00 -05:00, at 06:00 UTC
    ("America/New_York", "30 1 * * *", "10-31T12:00", "11-01T05:30 11-02T06:30"),
    ("America/New_York", "30 1 * * SUN", "11-01T05:30", "11-08T06:30"),
    ("America/New_York", "30 * * * *", "11-01T05:00", "11-01T05:30 11-01T06:30 11-01T07:30"),
    # Lord Howe, 5 April 2026: 02:00 +11:00 becomes 01:30 +10:30, at 15:00 UTC the day before
    ("Australia/Lord_Howe", "45 1 * * *", "04-03T16:00", "04-04T14:45 04-05T15:15"),
    ("Australia/Lord_Howe", "*/15 1 * * *", "04-04T14:20", "04-04T14:30 04-04T14:45 04-04T15:00 04-04T15:15"),
    ("Australia/Lord_Howe", "0 5 * * *", "04-04T12:00", "04-04T18:30 04-05T18:30"),
    # Lord Howe, 4 October 2026: 02:00 +10:30 becomes 02:30 +11:00, at 15:30 UTC the day before
    ("Australia/Lord_Howe", "15 2 * * *", "10-02T16:00", "10-03T15:30 10-04T15:15"),
    ("Australia/Lord_Howe", "*/15 2 * * *", "10-03T15:00", "10-03T15:30 10-03T15:45 10-04T15:00"),
    ("Australia/Lord_Howe", "*/15 5 * * *", "10-03T12:00", "10-03T18:00 10-03T18:15 10-03T18:30 10-03T18:45"),
]


@pytest.mark.parametrize(("zone", "cron", "after", "slots"), TABLE)
def test_clocks_that_are_moved_neither_lose_nor_double_a_slot(zone: str, cron: str, after: str, slots: str) -> None:
    """Shows S13 (P6)."""

    def instant(text: str) -> datetime:
        return datetime.fromisoformat(f"2026-{text}+00:00")

    wanted = [instant(slot) for slot in slots.split()]
    found = upcoming(Schedule("s", report, cron=cron, tz=zone), instant(after), len(wanted))
    assert wanted == [slot.astimezone(UTC) for slot in found]
    assert {ZoneInfo(zone)} == {slot.tzinfo for slot in found}


@pytest.mark.parametrize(
    ("cron", "slots"),
    [
        ("@hourly", ["2026-01-31T23:00", "2026-02-01T00:00"]),
        ("@daily", ["2026-02-01T00:00", "2026-02-02T00:00"]),
        ("@Midnight", ["2026-02-01T00:00", "2026-02-02T00:00"]),
        ("@weekly", ["2026-02-01T00:00", "2026-02-08T00:00"]),
        ("@monthly", ["2026-02-01T00:00", "2026-03-01T00:00"]),
        ("@yearly", ["2027-01-01T00:00", "2028-01-01T00:00"]),
        ("@annually", ["2027-01-01T00:00", "2028-01-01T00:00"]),
        ("  0   9 * *  MON-FRI ", ["2026-02-02T09:00", "2026-02-03T09:00"]),
        ("0 0 29 2 *", ["2028-02-29T00:00", "2032-02-29T00:00"]),
        ("0 12 L * *", ["2026-02-28T12:00", "2026-03-31T12:00"]),
        ("20 30 4 * * *", ["2026-02-01T04:30:20", "2026-02-02T04:30:20"]),  # six fields: the seconds come first
    ],
)
def test_expressions_mean_what_people_take_them_for(cron: str, slots: list[str]) -> None:
    found = upcoming(Schedule("s", report, cron=cron), datetime(2026, 1, 31, 22, 30, 1, tzinfo=UTC), 2)
    assert [datetime.fromisoformat(f"{slot}+00:00") for slot in slots] == found


def test_slots_a_fixed_time_apart_are_the_same_for_all_who_ask() -> None:
    every = Schedule("s", report, every=timedelta(minutes=90))
    found = upcoming(every, datetime(1970, 1, 1, 1, 30, tzinfo=UTC), 2)
    assert [datetime(1970, 1, 1, 3, tzinfo=UTC), datetime(1970, 1, 1, 4, 30, tzinfo=UTC)] == found
    assert "s@1970-01-01T03:00:00Z" == every.slot_id(found[0])


def test_a_slot_has_one_run_id_in_whatever_zone_it_is_given() -> None:
    """Shows S13 (P6)."""
    one = Schedule("s", report, cron="@daily", tz="Europe/Berlin")
    slot = upcoming(one, datetime(2026, 3, 1, tzinfo=UTC))[0]
    assert one.slot_id(slot) == one.slot_id(slot.astimezone(ZoneInfo("Asia/Tokyo"))) == "s@2026-03-01T23:00:00Z"
    with pytest.raises(InvalidInputError, match="with a time zone"):
        one.slot_id(datetime(2026, 3, 1))  # noqa: DTZ001


@workflow
def two(a: int, b: int) -> Flow[None]:
    yield from ()


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "give cron= or every=, one of the two"),
    ({"cron": "@daily", "every": 60}, "give cron= or every=, one of the two"),
    ({"cron": ""}, "must be an expression such as '0 3 \\* \\* \\*'"),
    ({"cron": 5}, "must be an expression"),
    ({"cron": "* * * *"}, "has 4 fields, and takes 5: minute, hour"),
    ({"cron": "@reboot"}, "the names there are: @yearly"),
    ({"cron": "61 * * * *"}, "bad minute"),
    ({"cron": "0 0 31 2 *"}, "bad day-of-month, or a day that no such month has"),
    ({"cron": "0 0 30 FEB *"}, "or a day that no such month has"),
    ({"cron": "0 0 * * MON#6"}, "bad day-of-week"),
    ({"cron": "@daily", "tz": "Europe/Atlantis"}, "no time zone 'Europe/Atlantis'"),
    ({"cron": "@daily", "tz": "../etc/passwd"}, "no time zone"),
    ({"cron": "@daily", "tz": "Europe"}, "no time zone"),
    ({"cron": "@daily", "tz": ZoneInfo("Europe/Berlin")}, "its name is what is recorded"),
    ({"every": 60, "tz": "UTC"}, "tz is for cron="),
    ({"every": 0.5}, "at least 1 second"),
    ({"every": "1h"}, "every must be a timedelta"),
    ({"every": 60, "missed": "some"}, "missed must be one of skip, last, all"),
    ({"every": 60, "overlap": "queue"}, "overlap must be one of allow, skip"),
    ({"every": 60, "at_most": 0}, "at_most must be a whole number from 1 to 1,000"),
    ({"every": 60, "grace": -1}, "grace must be between 0"),
    ({"every": 60, "tags": {"a": 1}}, "tags must be a mapping"),
    ({"every": 60, "budget": -1}, "budget must be a number"),
    ({"every": 60, "args": (1,)}, "args: workflow 'two' takes"),
    ({"every": 60, "args": "ab"}, "args must be a tuple, or a function"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_what_is_wrong_is_told_when_a_schedule_is_made(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as raised:
        Schedule("s", two, **{"args": (1, 2), **options})
    assert "schedule 's': " in raised.value.message


def test_a_schedule_has_a_name_of_its_own_and_a_workflow() -> None:
    with pytest.raises(InvalidInputError, match="has the name of its workflow"):
        Schedule("report", report, every=60)
    with pytest.raises(InvalidInputError, match="120 bytes at most"):
        Schedule("n" * 121, report, every=60)
    with pytest.raises(InvalidInputError, match="printable text"):
        Schedule("a\nb", report, every=60)
    fn: Any = lambda: None
    with pytest.raises(InvalidInputError, match="decorate it with @workflow"):
        Schedule("s", fn, every=60)


def test_what_the_function_of_arguments_gives_is_checked() -> None:
    slot = datetime(2026, 1, 1, tzinfo=UTC)
    good = Schedule("s", report, cron="@daily", tz="Asia/Tokyo", args=lambda slot: (f"{slot:%H}",))
    assert ("09",) == good.args_of(slot)
    bad = Schedule("s", two, every=60, args=lambda _: (1,))
    with pytest.raises(InvalidInputError, match="args: workflow 'two' takes"):
        bad.args_of(slot)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: upcoming(report, datetime.now(UTC)), "takes a Schedule"),  # type: ignore[arg-type]
        (lambda s: upcoming(s, datetime(2026, 1, 1)), "with a time zone"),  # noqa: DTZ001
        (lambda s: upcoming(s, datetime.now(UTC), 0), "n must be a whole number"),
    ],
)
def test_upcoming_says_what_is_wrong(call: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        call(Schedule("s", report, every=60))


def test_a_schedule_is_a_workflow_that_says_when() -> None:
    one = Schedule("s", report, cron="@daily", tz="Europe/Berlin")
    assert isinstance(one, Workflow)
    assert "<schedule s: report, @daily (Europe/Berlin)>" == repr(one)
    assert "<schedule e: report, every 1:00:00>" == repr(Schedule("e", report, every=3600))


def test_without_the_extra_cron_is_refused_with_the_remedy_and_every_works() -> None:
    code = """
import sys
sys.modules["cronsim"] = None  # as if it were not installed
from stepwell import Flow, InvalidInputError, workflow
from stepwell.schedules import Schedule
@workflow
def report() -> Flow[None]:
    yield from ()
Schedule("s", report, every=60)
try:
    Schedule("s", report, cron="@daily")
except InvalidInputError as error:
    print(error.message)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": ":".join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "pip install 'stepwell[cron]'" in done.stdout


def test_who_uses_no_schedules_imports_none_of_it() -> None:
    code = (
        "import sys, stepwell, stepwell.cli.options; print([m for m in sys.modules if 'cron' in m or 'schedules' in m])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": ":".join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "[]\n" == done.stdout
