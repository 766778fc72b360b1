"""What callers give to an engine, checked before anything is read or written. Floor 2.

Each function gives its argument back, or raises InvalidInputError with the value and what it should have been.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .commands import Signal
from .errors import InvalidInputError

__all__ = [
    "checked_choice",
    "checked_limit",
    "checked_reason",
    "checked_run_id",
    "checked_signal_name",
    "checked_tags",
]


def checked_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """One of a few words."""
    if value not in choices:
        known = ", ".join(str(choice) for choice in choices if choice is not None)
        raise InvalidInputError(f"{name} must be one of {known}, got {value!r}")


def checked_limit(limit: object, most: int) -> None:
    """A length of a page or a list, 1 or more."""
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= most:
        raise InvalidInputError(f"limit must be a whole number from 1 to {most:,}, got {limit!r}")


def checked_run_id(run_id: object) -> str:
    """A run id: printable, 1 to 200 bytes of UTF-8."""
    if not isinstance(run_id, str) or not run_id:
        raise InvalidInputError(f"a run id must be text that is not empty, got {run_id!r}")
    if not run_id.isprintable():
        raise InvalidInputError(f"a run id can't hold control or unprintable characters, got {run_id!r}")
    if len(run_id.encode()) > 200:
        raise InvalidInputError(
            f"a run id can be 200 bytes of UTF-8 at most, got {len(run_id.encode())}: {run_id[:40]!r}..."
        )
    return run_id


def checked_signal_name(signal: Signal[Any] | str) -> str:
    """The name of a signal."""
    return signal.name if isinstance(signal, Signal) else Signal(signal).name


def checked_reason(reason: object) -> str | None:
    """Text, or None."""
    if reason is not None and not isinstance(reason, str):
        raise InvalidInputError(f"reason must be text or None, got {reason!r}")
    return reason


def checked_tags(tags: object) -> dict[str, str]:
    """Labels, text to text."""
    if not isinstance(tags, Mapping) or not all(
        isinstance(k, str) and k and isinstance(v, str) for k, v in tags.items()
    ):
        raise InvalidInputError(f"tags must be a mapping of text to text, got {tags!r}")
    return dict(tags)
