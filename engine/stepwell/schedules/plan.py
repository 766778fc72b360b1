"""What of a schedule is data: when it is due, and what becomes of slots that were missed."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from attrs import frozen

from ..errors import InvalidInputError
from ..retry import as_seconds
from .expressions import checked_cron, checked_zone

__all__ = ["MOST", "Missed", "Overlap", "Plan"]

Missed = Literal["skip", "last", "all"]
Overlap = Literal["allow", "skip"]

MOST = 1_000
"""Slots that are started at one time, at most."""


@frozen
class Plan:
    """The part of a schedule that is recorded; attributes as `Schedule` has them, durations in seconds.

    It is the input of the schedule's run. Another plan reaches that run as a signal, so what takes effect when is in
    its history.

    Raises:
        InvalidInputError: something is wrong, or a package is missing.
    """

    cron: str | None = None
    every: float | None = None
    tz: str = "UTC"
    missed: Missed = "last"
    at_most: int = 100
    grace: float = 60.0
    overlap: Overlap = "allow"

    def __attrs_post_init__(self) -> None:
        if (self.cron is None) == (self.every is None):
            raise InvalidInputError("give cron= or every=, one of the two")
        for name, value, choices in (
            ("missed", self.missed, ("skip", "last", "all")),
            ("overlap", self.overlap, ("allow", "skip")),
        ):
            if value not in choices:
                raise InvalidInputError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        if isinstance(self.at_most, bool) or not isinstance(self.at_most, int) or not 1 <= self.at_most <= MOST:
            raise InvalidInputError(f"at_most must be a whole number from 1 to {MOST:,}, got {self.at_most!r}")
        as_seconds(self.grace, "grace")
        checked_zone(self.tz)
        if self.cron is not None:
            checked_cron(self.cron)
        elif self.tz != "UTC":
            raise InvalidInputError("tz is for cron=: a fixed time is the same in every zone")
        elif as_seconds(self.every or 0, "every") < 1:
            raise InvalidInputError(f"every must be at least 1 second, got {self.every!r}")

    @property
    def step(self) -> int:
        """Microseconds from slot to slot, when they are a fixed time apart."""
        return round((self.every or 0) * 1e6)

    def __str__(self) -> str:
        if self.cron is not None:
            return f"{self.cron} ({self.tz})"
        return f"every {timedelta(seconds=self.every or 0)}"
