"""Runs and events as people and scripts are shown them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from .. import events as e
from ..depicting import kind_of, said, subject_of
from ..errors import Failure
from ..outcomes import RunRecord
from ..texts import many, short, when

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
    time = stamp[11:] if one_day else stamp
    return str(event.offset), time, str(event.session), kind_of(event), event.at or "", subject_of(event), said(event)


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
