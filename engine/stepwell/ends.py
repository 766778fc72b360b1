"""The events with which a history ends, or the next one begins. Floor 4."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from . import events as e
from .failures import failure_of
from .loading import Loaded
from .machine import Machine
from .store import Status

__all__ = ["STATUS", "closing_event", "next_events"]

STATUS: dict[str, Status] = {"complete": "completed", "cancelled": "cancelled", "error": "failed"}
"""The status of a closed run, by how its machine ended."""


def closing_event(machine: Machine, seq: int, stamp: str) -> e.EventBase:
    """The event that closes a run whose workflow has ended.

    Args:
        seq: where that event will be.
        stamp: the present instant, as the wire writes it.
    """
    state: Any = Raw(_object(machine.state)) if machine.state else e.UNSET
    spent, suppressed = machine.spent, machine.suppressed
    if machine.status == "complete":
        return e.Complete(result=Raw(machine.result_raw), state=state, spent=spent, timestamp=stamp)
    if machine.status == "cancelled":
        reason = machine.cancel_reason
        return e.Cancelled(reason=reason, state=state, spent=spent, suppressed=suppressed, timestamp=stamp)
    assert machine.error is not None
    cut = machine.cut()
    return e.Error(
        error=failure_of(machine.error),
        cause=seq if cut is None else cut,
        state=state,
        spent=spent,
        suppressed=suppressed,
        timestamp=stamp,
    )


def next_events(run: Loaded, machine: Machine, seq: int, stamp: str) -> list[e.EventBase]:
    """The first events of the incarnation that follows a ContinueAsNew: a start, and the signals that nobody read.

    Args:
        seq: the length of the history that ends here.
        stamp: the present instant, as the wire writes it.
    """
    assert machine.next_input is not None
    unread, seen = machine.mailbox.carried()
    number = run.incarnation + 1
    start = replace(
        run.start,
        session=0,
        offset=0,
        input=machine.next_input,
        incarnation=number,
        epoch=number,
        origin=0,
        source={"runId": run.run_id, "incarnation": run.incarnation, "offset": seq},
        prefix=len(unread),
        spent=machine.spent,
        seen=seen,
        timestamp=stamp,
    )
    return [start, *unread]


def _object(members: dict[str, bytes]) -> bytes:
    """A JSON object of members that are encoded already."""
    return b"{" + b",".join(msgspec.json.encode(name) + b":" + raw for name, raw in members.items()) + b"}"
