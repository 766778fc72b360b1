"""Events as people are shown them: their words, and a history as lines of text. Floor 2.

The command line, `History.timeline()`, diagrams and differences all say an event in the words of this module.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Raw

from . import events as e
from .texts import cut, safe, short, when, width

__all__ = ["elapsed", "kind_of", "line", "said", "start_of", "subject_of", "timeline"]

CELL = 160
"""Columns that the words of one event may take."""

_USUAL = (10, 9, 6, 16)  # columns of `line`
_ENVELOPE = frozenset(field.name for field in msgspec.structs.fields(e.EventBase))
_SUBJECTS = frozenset(("at", "step_id", "name", "event_name", "waiting_for", "change_id", "topic", "workflow", "wait"))


def kind_of(event: e.EventBase) -> str:
    """The type of an event, and whether a retry took it over from after its cut."""
    return event.kind + (" (kept)" if event.kept else "")


def subject_of(event: e.EventBase) -> str:
    """What an event is about: a step id, a signal, a workflow; "" when there is nothing to name."""
    match event:
        case e.Step() | e.Attempt() | e.Begin() | e.Chunk() | e.Heartbeat():
            return event.step_id
        case e.Suspend():
            return event.waiting_for
        case e.Resume():
            return event.event_name
        case e.Start():
            return event.workflow
        case e.Patch():
            return event.change_id
        case e.Emit():
            return event.topic or ""
        case e.Spend():
            return event.label or ""
    named = (getattr(event, name, None) for name in ("step_id", "name", "workflow", "topic"))
    return next((name for name in named if isinstance(name, str)), "")


def said(event: e.EventBase, columns: int = CELL) -> str:
    """What an event says, on one line of at most so many columns; not made safe."""
    return cut("; ".join(part for part in _parts(event) if part), columns)


def _parts(event: e.EventBase) -> Iterator[str]:
    match event:
        case e.Start():
            yield f"version {event.version}, input {_payload(event.input)}"
            yield f"from {short(event.source)}" if event.source else ""
        case e.Step():
            yield str(event.error) if event.error else _payload(event.result)
            yield f"{event.attempts} attempts" if event.attempts > 1 else ""
        case e.Attempt():
            yield f"attempt {event.attempt} failed: {event.error}"
            yield f"again at {_instant(event.due)}"
        case e.Suspend():
            yield event.reason or "waits"
            yield f"until {_instant(event.due)}" if event.due else ""
        case e.Resume():
            yield _payload(event.value)
            yield f"by {event.actor}" if event.actor else ""
            yield _payload(event.metadata)
        case e.Emit() | e.Wake():
            yield _payload(event.value)
        case e.Sleep():
            yield f"until {_instant(event.due)}"
        case e.Now() | e.Random() | e.Uuid():
            yield str(event.value)
        case e.Complete():
            yield _payload(event.result)
        case e.Error():
            yield str(event.error)
        case e.Cancel() | e.Pause():
            yield event.reason or ""
        case e.Cancelled():
            yield "forced" if event.forced else ""
            yield event.reason or ""
        case e.Retry():
            yield f"goes on after event {event.cut - 1}"
        case e.Begin() | e.Unpause() | e.Patch():
            pass
        case _:
            yield from _more_parts(event)


def _more_parts(event: e.EventBase) -> Iterator[str]:
    match event:
        case e.Chunk():
            yield f"chunk {event.index}: {_payload(event.value)}"
            yield f"attempt {event.attempt}" if event.attempt > 1 else ""
        case e.Heartbeat():
            yield f"attempt {event.attempt}: {_payload(event.details)}"
        case e.Spend():
            yield f"{event.amount:g}"
        case e.Child():
            yield f"run {event.child_id}"
            yield "detached" if event.detached else ""
        case e.ChildResult():
            yield f"run {event.child_id} {event.status}"
            yield str(event.error) if event.error else _payload(event.result)
        case _:
            yield from _fields(event)


def _fields(event: e.EventBase) -> Iterator[str]:
    """What an event holds that nothing above has words for."""
    for field in msgspec.structs.fields(event):
        value = getattr(event, field.name)
        if field.name in _ENVELOPE or field.name in _SUBJECTS or value is None or value is e.UNSET:
            continue
        yield f"{field.encode_name} {_payload(value) if isinstance(value, Raw) else value}"


def _payload(raw: Any) -> str:
    return short(msgspec.json.decode(raw)) if isinstance(raw, Raw) else ""


def _instant(text: str) -> str:
    return when(e.parse_instant(text))


def timeline(history: Sequence[e.EventBase]) -> Iterator[str]:
    """A history as text, one line an event: the time since its start, type, place, subject, and what it says.

    Every line is made safe for a terminal. Columns are as wide as the widest of all, so that they stand below each
    other.
    """
    since = start_of(history[0]) if history else None
    rows = [_cells(event, since) for event in history]
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)] if rows else []
    for event, row in zip(history, rows, strict=True):
        yield _aligned(row, widths, event)


def line(event: e.EventBase, since: datetime | None) -> str:
    """One line as `timeline` has them, for events that come one by one: columns are as wide as most need."""
    return _aligned(_cells(event, since), _USUAL, event)


def start_of(event: e.EventBase) -> datetime | None:
    """The instant from which a timeline counts, given its first event; None when that was never written."""
    return e.parse_instant(event.timestamp) if event.timestamp else None


def _cells(event: e.EventBase, since: datetime | None) -> list[str]:
    passed = ""
    if since is not None and event.timestamp:
        passed = elapsed((e.parse_instant(event.timestamp) - since).total_seconds())
    return [passed, kind_of(event), safe(event.at or ""), safe(subject_of(event))]


def _aligned(row: list[str], widths: Sequence[int], event: e.EventBase) -> str:
    room = [" " * (wanted - width(cell)) for cell, wanted in zip(row, widths, strict=True)]
    rest = (cell + space for cell, space in zip(row[1:], room[1:], strict=True))
    return "  ".join([room[0] + row[0], *rest, safe(said(event))]).rstrip()


def elapsed(seconds: float) -> str:
    """A time since something, with its sign: +0.012s, +3m05s, +2h03m, +14d02h."""
    sign, seconds = ("-", -seconds) if seconds < 0 else ("+", seconds)
    if seconds < 60:
        return f"{sign}{int(seconds * 1000) / 1000:.3f}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{sign}{minutes}m{rest:02}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{sign}{hours}h{minutes:02}m"
    days, hours = divmod(hours, 24)
    return f"{sign}{days}d{hours:02}h"
