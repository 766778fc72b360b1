"""Events to records and back: the one place that knows how an event lies in a line. Floor 2."""

from __future__ import annotations

from datetime import datetime
from functools import cache

import msgspec
from msgspec import Raw

from .errors import CorruptHistoryError, Failure
from .events import KINDS, Event, EventBase, Now, Step, Uuid, parse_uuid
from .store import Draft, Tail, open_body, verify_lines
from .wrapped import refuse_wrapped

__all__ = ["read_event", "read_tail", "split_list", "to_draft"]

MAX_TYPES = 100
"""Type names that a recorded failure may have: each becomes a class when it is thrown."""

_encode = msgspec.json.Encoder().encode
_list_decoder = msgspec.json.Decoder(list[Raw])
_TAG = len(b'{"type":"",')


def to_draft(event: EventBase) -> Draft:
    """Encode an event that has no position yet. `session` and `offset` are left out: `seal` writes them."""
    if event.session or event.offset:
        event = msgspec.structs.replace(event, session=0, offset=0)
    kind = KINDS[type(event)]
    return Draft(kind, _encode(event)[_TAG + len(kind) : -1])


@cache
def _decoder() -> msgspec.json.Decoder[Event]:  # made for the first history that is read: it knows twenty classes
    return msgspec.json.Decoder(Event)


def read_event(line: bytes, place: str = "") -> Event:
    """Decode a sealed record after checking version and CRC.

    Args:
        line: one JSON object as `seal` made it.
        place: file and line, or table and row, for the error's text.

    Raises:
        NewerFormatError: written by a newer stepwell.
        CorruptHistoryError: damaged, or no event of this format.
        StoreMisconfiguredError: encrypted, compressed or taken out by a store that is not there.
    """
    open_body(line, place)
    return _decoded(line, place)


def read_tail(tail: Tail, run_id: str) -> list[Event]:
    """Decode the records that a store gave, each checked once.

    Raises:
        NewerFormatError, CorruptHistoryError, StoreMisconfiguredError: as `read_event`.
    """
    records, seq = tail.records, tail.from_seq
    if not tail.checked:
        verify_lines(records, seq, lambda number: f"run {run_id!r}, event {number}")
    try:
        events = _decoder().decode_lines(b"\n".join(records))
    except _NO_EVENT:
        events = []
    if len(events) != len(records):
        events = [_decoded(line, f"run {run_id!r}, event {n}") for n, line in enumerate(records, seq)]  # to say where
    for event in events:
        if type(event) is not Step or event.error is not None:  # else there is nothing in it that is read later
            _check(event, f"run {run_id!r}, event {event.offset}")
    return events


_NO_EVENT = (msgspec.DecodeError, RecursionError, OverflowError, ValueError)


def _decoded(line: bytes, place: str) -> Event:
    try:
        event = _decoder().decode(line)
    except _NO_EVENT as e:
        refuse_wrapped(line, place)
        raise CorruptHistoryError(f"{place or 'record'}: not an event of this format: {e}", place=place) from e
    _check(event, place)
    return event


def _check(event: Event, place: str) -> None:
    """What the decoder can't see: texts that are read later, when nobody knows the place any more."""
    try:
        for text in (event.timestamp, getattr(event, "due", None), getattr(event, "started", None)):
            if text:
                _check_instant(text)
        if isinstance(event, Now):
            _check_instant(event.value)
        elif isinstance(event, Uuid):
            parse_uuid(event.value)
    except ValueError as e:
        raise CorruptHistoryError(f"{place or 'record'}: not an event of this format: {e}", place=place) from e
    failure: Failure | None = getattr(event, "error", None)
    if failure is not None and (len(failure.types) > MAX_TYPES or any("\0" in name for name in failure.types)):
        raise CorruptHistoryError(
            f"{place or 'record'}: not an event of this format: the types of its failure can't be names of classes",
            place=place,
        )


def _check_instant(text: str) -> None:
    if datetime.fromisoformat(text).utcoffset() is None:
        raise ValueError(f"{text!r} has no offset from UTC")


def split_list(raw: Raw | bytes) -> list[Raw]:
    """Split a JSON list into its members without decoding them.

    Raises:
        CorruptHistoryError: it is no JSON list.
    """
    try:
        return _list_decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise CorruptHistoryError(f"recorded input is no JSON list: {e}") from e
