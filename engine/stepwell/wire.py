"""Events to records and back: the one place that knows how an event lies in a line. Floor 2."""

from __future__ import annotations

import msgspec
from msgspec import Raw

from .errors import CorruptHistoryError
from .events import Event, EventBase
from .store import Draft, open_body

__all__ = ["read_event", "split_list", "to_draft"]

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
        return _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise CorruptHistoryError(f"{place or 'record'}: not an event of this format: {e}", place=place) from e


def split_list(raw: Raw | bytes) -> list[Raw]:
    """Split a JSON list into its members without decoding them.

    Raises:
        CorruptHistoryError: it is no JSON list.
    """
    try:
        return _list_decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise CorruptHistoryError(f"recorded input is no JSON list: {e}") from e
