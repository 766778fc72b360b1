"""The slots of a schedule against a model that looks at every minute."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise, takewhile
from zoneinfo import ZoneInfo

import hypothesis.strategies as st
from attrs import frozen
from hypothesis import example, given, settings

from stepwell.schedules import Plan
from stepwell.schedules.planning import due_slots
from stepwell.schedules.slots import newest, slots_after

MINUTE = timedelta(minutes=1)
DAYS = timedelta(days=3)

# Instants about which the clocks are moved: by an hour, by half an hour, at midnight, and never.
MOVES = {
    "Europe/Berlin": ("2026-03-29T01:00", "2026-10-25T01:00"),
    "America/New_York": ("2026-03-08T07:00", "2026-11-01T06:00"),
    "Australia/Lord_Howe": ("2026-04-04T15:00", "2026-10-03T15:30"),
    "America/Havana": ("2026-03-08T05:00", "2026-11-01T05:00"),
    "America/Santiago": ("2026-04-05T03:00", "2026-09-06T04:00"),
    "Asia/Kolkata": ("2026-05-01T00:00",),
    "UTC": ("2026-02-28T12:00",),
}


@frozen
class Times:
    """What an expression stands for; None is a star, in text too."""

    minutes: frozenset[int] | None
    hours: frozenset[int] | None
    weekdays: frozenset[int] | None

    def __str__(self) -> str:
        def field(numbers: frozenset[int] | None) -> str:
            return "*" if numbers is None else ",".join(map(str, sorted(numbers)))

        return f"{field(self.minutes)} {field(self.hours)} * * {field(self.weekdays)}"

    def fits(self, local: datetime) -> bool:
        return (
            (self.minutes is None or local.minute in self.minutes)
            and (self.hours is None or local.hour in self.hours)
            and (self.weekdays is None or local.isoweekday() % 7 in self.weekdays)
        )

    @property
    def fixed(self) -> bool:
        return self.minutes is not None and self.hours is not None


def model(times: Times, zone: ZoneInfo, after: datetime, until: datetime) -> list[datetime]:
    """The slots, found by looking at every minute there is, on the clock and on the wall."""
    begin = after.replace(second=0, microsecond=0) - timedelta(days=2)
    clock = [begin + number * MINUTE for number in range(int((until - begin) / MINUTE) + 1440)]
    walls = [one.astimezone(zone).replace(tzinfo=None) for one in clock]
    if not times.fixed:
        found = {one for one, wall in zip(clock, walls, strict=True) if times.fits(wall)}
        return sorted(one for one in found if after < one <= until)
    shown: dict[datetime, datetime] = {}
    found = set()
    for one, wall in zip(clock, walls, strict=True):
        shown.setdefault(wall, one)
    for before, wall, one in zip(walls, walls[1:], clock[1:], strict=False):
        skipped = before + MINUTE
        while skipped < wall:  # what no clock has shown is due now
            if times.fits(skipped):
                found.add(one)
            skipped += MINUTE
    found |= {one for wall, one in shown.items() if times.fits(wall)}
    return sorted(one for one in found if after < one <= until)


numbers = st.one_of(st.none(), st.frozensets(st.integers(0, 59), min_size=1, max_size=3))
hours = st.one_of(st.none(), st.frozensets(st.integers(0, 5) | st.just(23), min_size=1, max_size=4))
weekdays = st.one_of(st.none(), st.none(), st.frozensets(st.integers(0, 6), min_size=1, max_size=3))
moves = st.sampled_from([(zone, datetime.fromisoformat(f"{one}+00:00")) for zone in MOVES for one in MOVES[zone]])


@given(st.builds(Times, numbers, hours, weekdays), moves, st.integers(-2 * 86_400, 86_400))
@example(Times(frozenset({30}), frozenset({2}), None), ("Europe/Berlin", datetime(2026, 10, 25, 1, tzinfo=UTC)), 1)
@settings(max_examples=60, deadline=None)
def test_slots_are_those_that_a_look_at_every_minute_finds(
    times: Times, move: tuple[str, datetime], seconds: int
) -> None:
    """Shows S13 (P6)."""
    name, moved = move
    plan, after = Plan(cron=str(times), tz=name), moved + timedelta(seconds=seconds)
    until = after + timedelta(days=2, seconds=17)
    wanted = model(times, ZoneInfo(name), after, until)
    assert wanted == list(takewhile(lambda slot: slot <= until, slots_after(plan, after)))
    for limit in (1, 7, 10_000):
        assert wanted[-limit:] == newest(plan, after, until, limit)


@given(
    st.integers(1, 200_000).map(lambda thousandths: 1 + thousandths / 1000),
    st.integers(0, 2**33).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
    st.integers(1, 50),
)
@settings(max_examples=60, deadline=None)
def test_slots_a_fixed_time_apart_are_multiples_of_it(every: float, after: datetime, many: int) -> None:
    """Shows S13 (P6)."""
    plan = Plan(every=every)
    found = list(islice(slots_after(plan, after), many))
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    step = timedelta(microseconds=plan.step)
    assert found[0] - step <= after < found[0]
    assert all((slot - epoch) % step == timedelta(0) for slot in found)
    assert [step] * (many - 1) == [late - early for early, late in pairwise(found)]
    assert found == newest(plan, after, found[-1], 100)
    assert found[-3:] == newest(plan, after, found[-1], 3)


@given(
    st.sampled_from(["skip", "last", "all"]),
    st.integers(1, 9),
    st.integers(0, 300),
    st.integers(0, 3_000),
    st.integers(0, 59),
)
@settings(max_examples=80, deadline=None)
def test_what_is_missed_goes_by_the_policy_and_what_is_in_time_is_started(
    missed: str, at_most: int, grace: int, away: int, second: int
) -> None:
    """Shows S13 (P6)."""
    plan = Plan(every=60.0, missed=missed, at_most=at_most, grace=grace)  # type: ignore[arg-type]
    after = datetime(2026, 1, 1, 12, 0, second, tzinfo=UTC)
    now = after + timedelta(seconds=away)
    slots = list(takewhile(lambda slot: slot <= now, slots_after(plan, after)))
    fresh = [slot for slot in slots if now - slot < timedelta(seconds=grace)]
    late = slots[: len(slots) - len(fresh)]
    wanted = {"skip": fresh, "last": fresh or late[-1:], "all": late[-at_most:] + fresh}[missed]
    assert tuple(wanted) == due_slots(plan, after, now)
