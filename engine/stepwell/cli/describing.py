"""Runs and events as people and scripts are shown them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from .. import events as e
from ..errors import Failure
from ..outcomes import RunRecord
from .terminal import cut

__all__ = [
    "EVENT_COLUMNS",
    "event_rows",
    "failure_json",
    "instant_json",
    "many",
    "next_step",
    "record_json",
    "short",
    "story",
    "when",
]

EVENT_COLUMNS = ("seq", "time (UTC)", "session", "type", "at", "step or signal", "what")
_SHORT = 300
_CELL = 160


def when(instant: datetime | None) -> str:
    """An instant for people, in UTC."""
    return "" if instant is None else instant.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def many(number: int, what: str) -> str:
    """A number of things in words: 1 run, 2 runs."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def short(value: Any) -> str:
    """A JSON value on one line, shortened."""
    return cut(json.dumps(value, ensure_ascii=False), _SHORT)


def record_json(record: RunRecord) -> dict[str, Any]:
    """A record as a JSON object; keys as in histories, absent values left out."""
    found: dict[str, Any] = {
        "runId": record.id,
        "workflow": record.workflow,
        "version": record.version,
        "status": record.status,
        "waitingFor": list(record.waiting_for),
        "due": instant_json(record.due),
        "tags": dict(record.tags),
        "attempts": record.attempts,
        "sessions": record.sessions,
        "events": record.events,
        "created": instant_json(record.created),
        "updated": instant_json(record.updated),
        "completed": instant_json(record.completed),
        "leaseUntil": instant_json(record.lease_until),
        "input": record.input,
    }
    if record.blocked is not None:
        found["blocked"] = {"code": record.blocked.code, "message": record.blocked.message}
    if record.failure is not None:
        found["failure"] = failure_json(record.failure)
    found = {name: value for name, value in found.items() if value is not None}
    if record.status == "completed" and record.input is not None:  # a whole record, whose result may be null
        found["result"] = record.result
    return found


def story(record: RunRecord, reason: str | None = None) -> str:
    """What there is to say of a run beside its status."""
    if record.blocked is not None:
        return f"blocked, {record.blocked.code}: {record.blocked.message}"
    if record.failure is not None:
        return str(record.failure)
    if record.status == "running":
        return "somebody drives it now"
    if record.waiting_for and record.completed is None:
        due = f" until {when(record.due)}" if record.due else ""
        return f"waits for {', '.join(map(repr, record.waiting_for))}{due}" + (f": {reason}" if reason else "")
    if record.status == "suspended" and record.due:
        return f"sleeps until {when(record.due)}"
    return ""


def next_step(record: RunRecord) -> str:
    """The command that moves a parked or failed run on; "" when there is none."""
    run = shlex.quote(record.id)
    if record.status == "suspended" and record.waiting_for:
        return f"stepwell resume {run} {shlex.quote(record.waiting_for[0])} JSON"
    if record.status == "paused":
        return f"stepwell unpause {run}"
    if record.status == "failed":
        return f"stepwell retry {run}"
    return ""


def event_rows(history: Sequence[e.EventBase]) -> list[tuple[str, ...]]:
    """Events as rows under `EVENT_COLUMNS`; the date is left out when all are of one day."""
    one_day = len({event.timestamp[:10] for event in history}) == 1
    return [_event_row(event, one_day) for event in history]


def _event_row(event: e.EventBase, one_day: bool) -> tuple[str, ...]:
    stamp = event.timestamp[:23].replace("T", " ")  # to the millisecond
    kind = event.kind + (" (kept)" if event.kept else "")
    what = cut("; ".join(part for part in _what(event) if part), _CELL)
    time = stamp[11:] if one_day else stamp
    return str(event.offset), time, str(event.session), kind, event.at or "", _subject(event), what


def _subject(event: e.EventBase) -> str:
    match event:
        case e.Step() | e.Attempt() | e.Begin():
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
    return ""


def _what(event: e.EventBase) -> Iterator[str]:
    """What an event says, in parts."""
    match event:
        case e.Start():
            yield f"version {event.version}, input {_payload(event.input)}"
            yield f"from {short(event.source)}" if event.source else ""
        case e.Step():
            yield str(event.error) if event.error else _payload(event.result)
            yield f"{event.attempts} attempts" if event.attempts > 1 else ""
        case e.Attempt():
            yield f"attempt {event.attempt} failed: {event.error}"
            yield f"again at {when(e.parse_instant(event.due))}"
        case e.Suspend():
            yield event.reason or "waits"
            yield f"until {when(e.parse_instant(event.due))}" if event.due else ""
        case e.Resume() | e.Emit():
            yield _payload(event.value)
        case e.Sleep():
            yield f"until {when(e.parse_instant(event.due))}"
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


def _payload(raw: Any) -> str:
    return short(msgspec.json.decode(raw)) if isinstance(raw, msgspec.Raw) else ""


def failure_json(failure: Failure) -> dict[str, Any]:
    """A recorded failure as a JSON object."""
    return {
        "type": failure.type,
        "message": failure.message,
        "code": failure.code,
        "where": failure.where,
        "attempts": failure.attempts,
    }


def instant_json(value: datetime | None) -> str | None:
    """An instant as histories have it."""
    return None if value is None else e.instant(value)
