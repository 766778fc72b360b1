"""The instants at which a schedule is due: pure functions of what it says, without a clock.

The rule for the hours that a time zone skips or repeats is that of cron on Debian. An expression of fixed times of day
means each of them once a day: one that the clocks skip is due when they have skipped, one that they repeat is due the
first time. An expression that begins its minutes or hours with `*` means time that passes: it knows no skipped hour,
and is due throughout a repeated one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby, islice, takewhile
from zoneinfo import ZoneInfo

from .expressions import cronsim, fields
from .plan import Plan

__all__ = ["newest", "slots_after"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)
_SHIFT = timedelta(hours=3)
"""More than any zone moves its clocks by, but for those that have left out a whole day."""


def slots_after(plan: Plan, after: datetime) -> Iterator[datetime]:
    """The slots after an instant, in UTC, earliest first; of a cron expression as long as it has any."""
    if plan.cron is None:
        return _every_after(plan.step, after)
    return _cron_after(plan.cron, ZoneInfo(plan.tz), after)


def newest(plan: Plan, after: datetime, until: datetime, limit: int) -> list[datetime]:
    """Of the slots after one instant and up to another, the newest, at most `limit`, earliest first.

    The cost does not grow with the time in between.
    """
    if until <= after or limit < 1:
        return []
    if plan.cron is None:
        step = plan.step
        last = _micros(until) // step
        first = max(_micros(after) // step + 1, last - limit + 1)
        return [_EPOCH + timedelta(microseconds=number * step) for number in range(first, last + 1)]
    back = _cron_before(plan.cron, ZoneInfo(plan.tz), until)
    return list(islice(takewhile(lambda slot: slot > after, back), limit))[::-1]


# ---- every


def _micros(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(microseconds=1)


def _every_after(step: int, after: datetime) -> Iterator[datetime]:
    slot = _EPOCH + timedelta(microseconds=(_micros(after) // step + 1) * step)
    while True:
        yield slot
        slot += timedelta(microseconds=step)


# ---- cron


def _cron_after(cron: str, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    local = after.astimezone(zone)
    begin = local.replace(tzinfo=None, fold=0, microsecond=0)
    if _is_plain(local):
        begin -= timedelta(seconds=1)  # what is found comes after it
    else:
        begin -= _SHIFT
    last = after
    for slots in _by_day(cron, zone, begin, back=False):
        for slot in slots:
            if slot > last:
                yield slot
                last = slot


def _cron_before(cron: str, zone: ZoneInfo, until: datetime) -> Iterator[datetime]:
    """The slots up to an instant, the latest first."""
    local = until.astimezone(zone)
    begin = local.replace(tzinfo=None, fold=0, microsecond=0) + timedelta(seconds=1)
    if not _is_plain(local):
        begin += _SHIFT
    last = until + timedelta(microseconds=1)
    for slots in _by_day(cron, zone, begin, back=True):
        for slot in slots:
            if slot < last:
                yield slot
                last = slot


def _is_plain(local: datetime) -> bool:
    """Whether the clocks are not moved within a day of a local time."""
    around = (local - _DAY, local, local + _DAY)
    return len({one.replace(fold=fold).utcoffset() for one in around for fold in (0, 1)}) == 1


def _by_day(cron: str, zone: ZoneInfo, begin: datetime, *, back: bool) -> Iterator[Iterable[datetime]]:
    """The slots of each local day from a local time on, in UTC and in their order.

    Days on which the clocks are moved are sorted; on others a local time is one instant, so nothing is looked up ahead.
    """
    expression, fixed = fields(cron)
    times = cronsim().CronSim(expression, begin, reverse=back)
    for day, found in groupby(times, key=lambda time: time.date()):
        midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
        if _is_plain(midnight) and _is_plain(midnight + _DAY):
            yield (time.replace(tzinfo=zone).astimezone(UTC) for time in found)
        else:
            instants = {one for time in found for one in _instants(time, zone, fixed=fixed)}
            yield sorted(instants, reverse=back)


def _instants(time: datetime, zone: ZoneInfo, *, fixed: bool) -> list[datetime]:
    """The instants at which clocks show a local time, the first of them only when it is fixed."""
    first, second = (time.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if first.astimezone(zone).replace(tzinfo=None) == time:
        return [first] if fixed or first == second else [first, second]
    if not fixed:
        return []
    return [_after_gap(first, zone)]


def _after_gap(late: datetime, zone: ZoneInfo) -> datetime:
    """The instant at which the clocks had skipped: the first with the offset of `late`, which lies behind it."""
    early, offset = late - _DAY - _SHIFT, late.astimezone(zone).utcoffset()
    while late - early > timedelta(seconds=1):
        middle = (early + (late - early) / 2).replace(microsecond=0)
        if middle.astimezone(zone).utcoffset() == offset:
            late = middle
        else:
            early = middle
    return late
