"""Events to records and back: the one place that knows how an event lies in a line. Floor 2."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec
from msgspec import Raw

from .errors import CorruptHistoryError, Failure
from .events import Event, EventBase, Now, Uuid
from .store import Draft, open_body

__all__ = ["read_event", "split_list", "to_draft"]

MAX_TYPES = 100
"""Type names that a recorded failure may have: each becomes a class when it is thrown."""

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
_list_decoder = msgspec.json.Decoder(list[Raw])
_TAG = len(b'{"type":"')


def to_draft(event: EventBase) -> Draft:
    """Encode an event that has no position yet. `session` and `offset` are left out: `seal` writes them."""
    if event.session or event.offset:
        event = msgspec.structs.replace(event, session=0, offset=0)
    raw = _encoder.encode(event)
    kind = event.kind
    return Draft(kind, raw[_TAG + len(kind) + 2 : -1])


def read_event(line: bytes, place: str = "") -> Event:
    """Decode a sealed record after checking version and CRC.

    Args:
        line: one JSON object as `seal` made it.
        place: file and line, or table and row, for the error's text.

    Raises:
        NewerFormatError: written by a newer stepwell.
        CorruptHistoryError: damaged, or no event of this format.
    """
    open_body(line, place)
    try:
        event = _decoder.decode(line)
        _check(event)
    except (msgspec.DecodeError, RecursionError, OverflowError, ValueError) as e:
        raise CorruptHistoryError(f"{place or 'record'}: not an event of this format: {e}", place=place) from e
    return event


def _check(event: Event) -> None:
    """What the decoder can't: texts that are read later, when nobody knows the place any more."""
    for text in (event.timestamp, getattr(event, "due", None), getattr(event, "started", None)):
        if text:
            _check_instant(text)
    if isinstance(event, Now):
        _check_instant(event.value)
    elif isinstance(event, Uuid):
        UUID(event.value)
    failure: Failure | None = getattr(event, "error", None)
    if failure is not None and (len(failure.types) > MAX_TYPES or any("\0" in name for name in failure.types)):
        raise ValueError("the types of its failure can't be names of classes")


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
