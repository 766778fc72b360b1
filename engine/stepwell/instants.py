"""Instants and ids as events hold them: how they are written, and read back. Floor 1."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uuid import UUID

__all__ = ["from_micros", "instant", "micros", "parse_instant", "parse_uuid", "stamp"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICRO = timedelta(microseconds=1)


def instant(when: datetime) -> str:
    """Write an aware datetime as the wire does: UTC, microseconds, `Z`."""
    return stamp((when - _EPOCH) // _MICRO)


def stamp(value: int) -> str:
    """Write microseconds since 1970 as the wire does."""
    seconds, rest = divmod(value, 1_000_000)
    text = (_EPOCH + timedelta(seconds=seconds)).isoformat()[:19]
    return f"{text}.{rest:06}Z"


def parse_instant(text: str) -> datetime:
    """Read what `instant` wrote."""
    return datetime.fromisoformat(text)


def parse_uuid(text: str) -> UUID:
    """Read a UUID; ValueError when it is none."""
    from uuid import UUID

    return UUID(text)


def micros(when: datetime) -> int:
    """Microseconds since 1970 in UTC: how stores hold instants."""
    return (when - _EPOCH) // _MICRO


def from_micros(value: int) -> datetime:
    """The aware UTC datetime of `micros`."""
    return _EPOCH + timedelta(microseconds=value)
