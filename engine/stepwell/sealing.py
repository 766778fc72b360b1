"""How a record lies in a line: envelope first, checksum last. What a store may know of it without decoding. Floor 2."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Literal, TypeAlias

from attrs import frozen

from .errors import CorruptHistoryError, NewerFormatError

__all__ = ["FORMAT_VERSION", "Draft", "Envelope", "Then", "envelope", "open_body", "seal"]

FORMAT_VERSION = 1
"""Version of the history format, the `v` of every record."""

Then: TypeAlias = Literal["open", "closed"]
"""What an append leaves behind: an open run, or a closed one."""


@frozen
class Draft:
    """A record before its position is known.

    Attributes:
        type: the event's `type`.
        body: the members of its JSON object that follow the envelope, without braces: `"timestamp":"...","at":"0",...`.
    """

    type: str
    body: bytes


def seal(
    records: Sequence[Draft],
    *,
    session: int,
    offset: int,
    then: Then = "open",
    attempt_id: str | None = None,
) -> list[bytes]:
    """Turn drafts into the lines that are stored: envelope first, CRC-32 of all bytes before it last.

    Args:
        records: drafts of one append.
        session: the fence of the owner; for an outside writer, the fence of the head that it met.
        offset: seq of the first record.
        then: kept in the last record when it is "closed", so that a store knows a closed run from its tail.
        attempt_id: kept in the first record, for outside writers only; 1 to 100 characters of `A-Za-z0-9._:-`.

    Returns:
        One JSON object each, UTF-8, without a newline. All but the last of a batch carry `"more":true`, so that a
        store of lines can tell a batch that was cut short.
    """
    last = len(records) - 1
    lines = []
    for i, record in enumerate(records):
        parts = [f'{{"v":{FORMAT_VERSION},"type":"{record.type}","session":{session},"offset":{offset + i},'.encode()]
        if i < last:
            parts.append(b'"more":true,')
        elif then != "open":
            parts.append(f'"then":"{then}",'.encode())
        if i == 0 and attempt_id is not None:
            parts.append(f'"attemptId":"{attempt_id}",'.encode())
        parts.append(record.body)
        line = b"".join(parts).removesuffix(b",")  # of a body without members
        lines.append(b'%b,"crc":"%08x"}' % (line, zlib.crc32(line)))
    return lines


_PREFIX = f'{{"v":{FORMAT_VERSION},"type":"'.encode()
_CRC_TAIL = len(b',"crc":"00000000"}')


@frozen
class Envelope:
    """What a store may know of a record without decoding it."""

    type: str
    session: int
    offset: int
    more: bool
    then: Then
    attempt_id: str | None
    body: bytes


def open_body(line: bytes, place: str = "") -> bytes:
    """Check version and CRC of a sealed record and give it back without its CRC and closing brace.

    Raises:
        NewerFormatError: `v` is higher than this library knows.
        CorruptHistoryError: not a sealed record, or the CRC is wrong; `place` is named in the text.
    """
    if not line.startswith(_PREFIX):
        _refuse(line, place)
    body = line[:-_CRC_TAIL]
    if line[-_CRC_TAIL:] != b',"crc":"%08x"}' % zlib.crc32(body):
        raise CorruptHistoryError(f"{place or 'record'}: the checksum is wrong; the record was damaged", place=place)
    return body


def _refuse(line: bytes, place: str) -> None:
    head = line[5:24].split(b",")[0]
    if line.startswith(b'{"v":') and head.isdigit() and int(head) > FORMAT_VERSION:
        raise NewerFormatError(
            f"{place or 'record'}: written in format {int(head)}, and this stepwell reads up to format "
            f"{FORMAT_VERSION}; upgrade stepwell",
            place=place,
        )
    raise CorruptHistoryError(f"{place or 'record'}: not a history record, starts with {line[:40]!r}", place=place)


def envelope(line: bytes, place: str = "") -> Envelope:
    """Read the envelope of a sealed record, after checking its version and CRC.

    Raises:
        NewerFormatError, CorruptHistoryError: as `open_body`.
    """
    body = open_body(line, place)
    try:
        type_end = body.index(b'"', len(_PREFIX))
        kind = body[len(_PREFIX) : type_end].decode("ascii")
        rest = body[type_end + 2 :]
        session, rest = _number(rest, b'"session":')
        offset, rest = _number(rest, b'"offset":')
        more = rest.startswith(b'"more":true,')
        if more:
            rest = rest[len(b'"more":true,') :]
        then: Then = "open"
        if rest.startswith(b'"then":"closed",'):
            then, rest = "closed", rest[len(b'"then":"closed",') :]
        attempt_id = None
        if rest.startswith(b'"attemptId":"'):
            end = rest.index(b'",')
            attempt_id, rest = rest[len(b'"attemptId":"') : end].decode("ascii"), rest[end + 2 :]
    except ValueError as e:
        raise CorruptHistoryError(f"{place or 'record'}: the envelope is malformed: {line[:120]!r}", place=place) from e
    return Envelope(kind, session, offset, more, then, attempt_id, rest)


def _number(rest: bytes, key: bytes) -> tuple[int, bytes]:
    if not rest.startswith(key):
        raise ValueError(key)
    end = rest.index(b",")
    return int(rest[len(key) : end]), rest[end + 1 :]
