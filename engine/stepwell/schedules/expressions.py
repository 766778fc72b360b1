"""Cron expressions and names of time zones, as they are given: what is wrong with them, and what they say."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from ..errors import InvalidInputError

__all__ = ["checked_cron", "checked_zone", "cronsim", "fields"]

_NAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


def cronsim() -> Any:
    """The library that reads expressions.

    Raises:
        InvalidInputError: it is not installed.
    """
    try:
        import cronsim as library
    except ModuleNotFoundError as error:
        raise InvalidInputError(
            "cron= needs the package cronsim: pip install 'stepwell[cron]' (every= needs none)"
        ) from error
    return library


def checked_cron(cron: object) -> str:
    """Give an expression back that stands for at least one instant; InvalidInputError says what is wrong with it."""
    if not isinstance(cron, str) or not cron.strip():
        raise InvalidInputError(f"cron must be an expression such as '0 3 * * *', got {cron!r}")
    text = " ".join(cron.split())
    if text.startswith("@") and text.lower() not in _NAMES:
        raise InvalidInputError(f"cron {cron!r}: the names there are: {', '.join(_NAMES)}")
    expression = _NAMES.get(text.lower(), text)
    if len(expression.split()) not in (5, 6):
        raise InvalidInputError(
            f"cron {cron!r} has {len(expression.split())} fields, and takes 5: minute, hour, day of the month, month, "
            "day of the week; or 6, the seconds before them"
        )
    library = cronsim()
    try:
        next(library.CronSim(expression, datetime(1970, 1, 1, tzinfo=UTC)))
    except library.CronSimError as error:
        raise InvalidInputError(f"cron {cron!r}: {str(error).lower()}, or a day that no such month has") from error
    except StopIteration:
        raise InvalidInputError(f"cron {cron!r} stands for a day that never comes") from None
    return text


def checked_zone(tz: object) -> str:
    """Give the name of a time zone back."""
    if not isinstance(tz, str) or not tz:
        hint = "; its name is what is recorded" if hasattr(tz, "utcoffset") else ""
        raise InvalidInputError(f"tz must be the name of a time zone, such as 'Europe/Berlin', got {tz!r}{hint}")
    try:
        ZoneInfo(tz)
    except (KeyError, OSError, ValueError) as error:
        raise InvalidInputError(
            f"no time zone {tz!r}: it takes a name such as 'Europe/Berlin'; where the system has no time zones, "
            "pip install tzdata"
        ) from error
    return tz


@lru_cache(maxsize=256)
def fields(cron: str) -> tuple[str, bool]:
    """An expression without names, and whether it means fixed times of day."""
    expression = _NAMES.get(cron.lower(), cron)
    *_, minutes, hours, _day, _month, _week = expression.split()
    return expression, not (minutes.startswith("*") or hours.startswith("*"))
