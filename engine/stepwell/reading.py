"""The read side: what heads and closing events say, as outcomes and records. Floor 4."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec.structs import replace

from . import events as e
from .codec import Codec
from .errors import CorruptHistoryError, NotFoundError
from .outcomes import (
    Outcome,
    RunCancelled,
    RunCompleted,
    RunFailed,
    Running,
    RunPaused,
    RunRecord,
    RunSuspended,
    WaitingFor,
)
from .results import flow_result
from .store import RunHead, Status, Store
from .wire import read_event
from .workflows import Workflow
from .wrapped import SEALED, readable

__all__ = ["newest_event", "outcome_of", "outcome_of_head", "record_of", "status_of", "waits_of_head"]


def outcome_of(codec: Codec, run_id: str, workflow: Workflow[..., Any] | None, last: e.EventBase) -> Outcome[Any]:
    """The outcome that a closing event stands for; without the workflow the result is plain JSON shapes."""
    if isinstance(last, e.Complete):
        into = flow_result(workflow) if workflow is not None else Any
        return RunCompleted(run_id, codec.decode(last.result, into))
    if isinstance(last, e.Error):
        return RunFailed(run_id, last.error, tuple(last.suppressed))
    if isinstance(last, e.Cancelled) and last.at is None:
        return RunCancelled(run_id, last.reason, tuple(last.suppressed))
    raise CorruptHistoryError(f"run {run_id!r} is closed, and its history ends with a {last.kind!r} event")


def newest_event(store: Store, run: RunHead) -> e.EventBase:
    """The last event of a run.

    Raises:
        NewerFormatError: a newer stepwell has written to the run; nobody else may.
        CorruptHistoryError: it is damaged.
        NotFoundError: it was deleted since its head was read.
    """
    place = f"run {run.run_id!r}, event {run.seq - 1}"
    tail = store.read(run.run_id, run.seq - 1, incarnation=run.incarnation)
    if tail is None or not tail.records:
        now = store.head(run.run_id)
        if now is None or now.head.created != run.head.created:
            raise NotFoundError(f"no run {run.run_id!r}: it was deleted meanwhile")
        raise CorruptHistoryError(f"{place}: the record is missing", place=place)
    return read_event(tail.records[-1], place)


def outcome_of_head(codec: Codec, store: Store, run: RunHead, workflow: Workflow[..., Any] | None) -> Outcome[Any]:
    """How a run stands, by its head, without folding its history."""
    if run.closed:
        return outcome_of(codec, run.run_id, workflow, newest_event(store, run))
    head = run.head
    if run.lease_until is not None:
        return Running(run.run_id, e.from_micros(run.lease_until))
    if head.status == "suspended":
        waits = tuple(w.signal for w in head.waiting)
        return RunSuspended(run.run_id, waits, readable(head.waiting[0].reason) if waits else None, _when(head.due))
    if head.status == "paused":
        return RunPaused(run.run_id)
    return Running(run.run_id)


def status_of(run: RunHead) -> Status:
    """The status as people see it: "running" is an open run under a live lease."""
    return "running" if run.lease_until is not None and not run.closed else run.head.status


def record_of(run: RunHead) -> RunRecord:
    """What a head says of a run; payloads are not read."""
    head = run.head
    return RunRecord(
        id=run.run_id,
        workflow=head.workflow,
        version=head.version,
        status=status_of(run),
        attempts=run.incarnation + 1,
        sessions=run.fence,
        events=run.seq,
        created=e.from_micros(head.created),
        updated=e.from_micros(head.updated),
        completed=e.from_micros(head.updated) if run.closed else None,
        waiting_for=tuple(w.signal for w in waits_of_head(run)),
        due=_when(head.due),
        tags={} if SEALED in head.tags else dict(head.tags),
        blocked=None if head.blocked is None else replace(head.blocked, message=readable(head.blocked.message)),
        lease_until=_when(run.lease_until),
    )


def waits_of_head(run: RunHead, signal: str | None = None) -> list[WaitingFor]:
    """The signals that a run waits for, by its head; none while it is driven, since they may be answered."""
    if run.lease_until is not None:
        return []
    return [
        WaitingFor(run.run_id, w.signal, w.wait, e.from_micros(w.since), readable(w.reason), _when(w.due))
        for w in run.head.waiting
        if signal is None or w.signal == signal
    ]


def _when(value: int | None) -> datetime | None:
    return None if value is None else e.from_micros(value)
