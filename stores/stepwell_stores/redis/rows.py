"""Heads as the values of a row, and back; and the names of the indexes that a run is in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from stepwell.errors import CorruptHistoryError, InvalidInputError
from stepwell.store import Head, HeadFilter, Lease, LeaseRequest, RunHead

from ..rules import micros

__all__ = ["Conditions", "conditions", "head_values", "lease_from", "lease_values", "name_of", "run_head"]

_NO_LEASE = ("", "", "")
_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Head)


def name_of(text: str) -> str:
    """Any text as a part of a key."""
    return quote(text, safe="")


def head_values(head: Head) -> tuple[Any, ...]:
    """A head as the eight values that scripts take: all of it, due, indexes, created, updated, workflow, kind, codes.

    Raises:
        InvalidInputError: it holds text that can't be written as UTF-8.
    """
    names = [f"status:{head.status}", f"wf:{name_of(head.workflow)}"]
    for tag, value in head.tags.items():
        names += [f"tag:{name_of(tag)}", f"tag:{name_of(tag)}:{name_of(value)}"]
    names += {f"wait:{name_of(waiting.signal)}": None for waiting in head.waiting}
    kind = codes = ""
    if head.blocked is not None:
        names.append("blocked")
        codes = json.dumps(sorted(head.blocked.fingerprints))
        kind = hashlib.sha256(codes.encode()).hexdigest()[:32]
    try:
        whole = _ENCODER.encode(head)
    except UnicodeEncodeError as e:
        raise InvalidInputError(f"the head of a run can't be written as UTF-8: {e.reason}") from e
    due = "" if head.due is None else head.due
    return whole, due, "\n".join(names), head.created, head.updated, head.workflow, kind, codes


def run_head(row: Sequence[Any], place: str) -> RunHead:
    """The head that the port speaks of, from what the script `row` gives.

    Raises:
        CorruptHistoryError: the row doesn't hold what the store writes there.
    """
    run_id, incarnation, seq, fence, closed, until, due, head, least = row[:9]
    try:
        found = _DECODER.decode(head)
        wanted = int(due) if due else None
        found = found if found.due == wanted else replace(found, due=wanted)
        end = int(until) if until else None
        numbers = int(incarnation), max(int(seq), int(least)), int(fence)
        return RunHead(run_id.decode(), *numbers, closed == b"1", end, found)
    except (ValueError, TypeError) as e:
        key = f"{place}, key run:{name_of(run_id.decode(errors='replace'))}"
        raise CorruptHistoryError(f"{key}: the row is damaged: {e}", place=key) from e


def lease_values(request: LeaseRequest | None) -> tuple[Any, ...]:
    """A request for a lease as the three values that scripts take: ttl, owner, token."""
    return _NO_LEASE if request is None else (micros(request.ttl), request.owner, request.token)


def lease_from(answer: Sequence[Any] | None, run_id: str, owner: str) -> Lease | None:
    """A lease, as scripts give it."""
    if answer is None:
        return None
    incarnation, fence, seq, until = answer
    return Lease(run_id, int(incarnation), int(fence), int(seq), owner, int(until))


class Conditions(msgspec.Struct, frozen=True):
    """A filter as the script `heads` takes it.

    Attributes:
        wanted, unwanted: indexes that a run has to be in, and may not be in.
        driven: "yes" or "no": whether under a live lease; "" when it doesn't matter.
        version: the one condition that no index tells.
    """

    wanted: list[str]
    unwanted: list[str]
    driven: str
    version: str | None


def conditions(where: HeadFilter) -> Conditions:
    """What a filter asks for."""
    wanted, driven = ["all"], ""
    unwanted: list[str] = []
    if where.status == "running":
        wanted, driven = ["leased"], "yes"
    elif where.status is not None:
        wanted.append(f"status:{where.status}")
        driven = "no"
    if where.workflow is not None:
        wanted.append(f"wf:{name_of(where.workflow)}")
    if where.tag is not None:
        name, value = where.tag
        wanted.append(f"tag:{name_of(name)}" if value is None else f"tag:{name_of(name)}:{name_of(value)}")
    if where.waiting_for is not None:
        wanted.append(f"wait:{name_of(where.waiting_for)}")
        driven = "never" if driven == "yes" else "no"
    if where.blocked is not None:
        (wanted if where.blocked else unwanted).append("blocked")
    if where.closed is not None:
        wanted.append("closed" if where.closed else "open")
    return Conditions(wanted, unwanted, driven, where.version)
