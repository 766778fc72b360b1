"""What callers give to an engine, checked before anything is read or written. Floor 2.

Each function gives its argument back, or raises InvalidInputError with the value and what it should have been.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, get_args

from .commands import Signal, check_text
from .errors import InvalidInputError
from .retry import as_seconds
from .store import HeadFilter, Status

__all__ = [
    "checked_actor",
    "checked_choice",
    "checked_count",
    "checked_filter",
    "checked_incarnation",
    "checked_limit",
    "checked_metadata",
    "checked_reason",
    "checked_run_id",
    "checked_signal",
    "checked_tags",
    "checked_text",
    "checked_ttl",
]


def checked_actor(actor: object) -> str | None:
    """Who decides: printable text of 1 to 200 characters, or None."""
    if actor is not None and (not isinstance(actor, str) or not 1 <= len(actor) <= 200 or not actor.isprintable()):
        raise InvalidInputError(f"actor must be printable text of 1 to 200 characters, or None, got {actor!r}")
    return actor


def checked_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """One of a few words."""
    if value not in choices:
        known = ", ".join(str(choice) for choice in choices if choice is not None)
        raise InvalidInputError(f"{name} must be one of {known}, got {value!r}")


def checked_count(name: str, value: object) -> int:
    """A number of things, 0 or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidInputError(f"{name} must be a whole number, 0 or more, got {value!r}")
    return value


def checked_filter(
    status: Any,
    workflow: object,
    tag: object,
    waiting_for: Any,
    blocked: object,
    version: object = None,
    closed: object = None,
) -> HeadFilter:
    """What runs to list; None of any means all."""
    checked_choice("status", status, (None, *get_args(Status)))
    pair = tag if isinstance(tag, tuple) else (tag, None)
    if len(pair) != 2 or not (tag is None or isinstance(pair[0], str)):
        raise InvalidInputError(f"tag must be a name, or a tuple of name and value, got {tag!r}")
    for what, flag in (("blocked", blocked), ("closed", closed)):
        if flag is not None and not isinstance(flag, bool):
            raise InvalidInputError(f"{what} must be True, False or None, got {flag!r}")
    name, value = checked_text("tag", pair[0]), checked_text("the value of tag", pair[1])
    return HeadFilter(
        status=status,
        workflow=checked_text("workflow", workflow),
        tag=None if name is None else (name, value),
        waiting_for=None if waiting_for is None else checked_signal(waiting_for).name,
        blocked=None if blocked is None else bool(blocked),
        version=checked_text("version", version),
        closed=None if closed is None else bool(closed),
    )


def checked_incarnation(number: object) -> int | None:
    """The number of an incarnation, or None."""
    if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 0):
        raise InvalidInputError(f"incarnation must be a whole number of 0 or more, or None, got {number!r}")
    return number


def checked_limit(limit: object, most: int) -> None:
    """A length of a page or a list, 1 or more."""
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= most:
        raise InvalidInputError(f"limit must be a whole number from 1 to {most:,}, got {limit!r}")


def checked_metadata(metadata: object) -> dict[str, Any] | None:
    """What a sender says of a signal: a mapping with text for keys, or None; its values are checked by the codec."""
    if metadata is None:
        return None
    if not isinstance(metadata, Mapping) or not all(isinstance(name, str) for name in metadata):
        raise InvalidInputError(f"metadata must be a mapping of text to JSON values, got {metadata!r}")
    return dict(metadata)


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


def checked_signal(signal: Signal[Any] | str) -> Signal[Any]:
    """A Signal, or the one of that name."""
    return signal if isinstance(signal, Signal) else Signal(signal)


def checked_reason(reason: object) -> str | None:
    """Text that can be recorded, or None."""
    return check_text(reason, "reason")


def checked_tags(tags: object) -> dict[str, str]:
    """Labels, text to text: printable names of 1 to 200 characters, values that can be recorded."""
    if not isinstance(tags, Mapping) or not all(
        isinstance(k, str) and k and isinstance(v, str) for k, v in tags.items()
    ):
        raise InvalidInputError(f"tags must be a mapping of text to text, got {tags!r}")
    for name, value in tags.items():
        if len(name) > 200 or not name.isprintable():
            raise InvalidInputError(f"a tag's name must be printable text of 1 to 200 characters, got {name[:201]!r}")
        check_text(value, f"the value of tag {name!r}")
    return dict(tags)


def checked_text(name: str, value: object) -> str | None:
    """Text that can be recorded, or None, of the argument that is called `name`."""
    return check_text(value, name)


def checked_ttl(lease: timedelta | float) -> float:
    """How long a lease lasts, in seconds."""
    ttl = as_seconds(lease, "lease")
    if ttl < 0.1:
        raise InvalidInputError(f"lease must be at least 0.1 seconds, got {lease!r}")
    return ttl
