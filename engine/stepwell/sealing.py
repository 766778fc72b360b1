"""How a record lies in a line: envelope first, checksum last. What a store may know of it without decoding. Floor 2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NoReturn, TypeAlias
from zlib import crc32

import msgspec

from .errors import CorruptHistoryError, NewerFormatError

__all__ = [
    "FORMAT_VERSION",
    "Draft",
    "Envelope",
    "Then",
    "envelope",
    "first_broken",
    "is_whole",
    "open_body",
    "seal",
    "verify_lines",
]

FORMAT_VERSION = 1
"""Version of the history format, the `v` of every record."""

Then: TypeAlias = Literal["open", "closed"]
"""What an append leaves behind: an open run, or a closed one."""


class Draft(msgspec.Struct, frozen=True):
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
    left: int | None = None,
) -> list[bytes]:
    """Turn drafts into the lines that are stored: envelope first, CRC-32 of all bytes before it last.

    Args:
        records: drafts of one append.
        session: the fence of the owner; for an outside writer, the fence of the head that it met.
        offset: seq of the first record.
        then: kept in the last record when it is "closed", so that a store knows a closed run from its tail.
        attempt_id: kept in the first record, for outside writers only; 1 to 100 characters of `A-Za-z0-9._:-`.
        left: kept in the first record of an incarnation that was opened while the one before it was open: how many
            records that one holds, for good.

    Returns:
        One JSON object each, UTF-8, without a newline. All but the last of a batch carry `"more":true`, so that a
        store of lines can tell a batch that was cut short.
    """
    lines = []
    more, marks = len(records), b""
    if attempt_id is not None:
        marks = b'"attemptId":"%b",' % attempt_id.encode()
    if left is not None:
        marks = b'"left":%d,%b' % (left, marks)
    for record in records:
        more -= 1
        if more:
            marks = b'"more":true,%b' % marks
        elif then != "open":
            marks = b'"then":"closed",%b' % marks
        at = (_PREFIX, record.type.encode(), session, offset, marks, record.body)
        line = b'%b%b","session":%d,"offset":%d,%b%b' % at
        if not record.body:
            line = line[:-1]  # the comma behind the envelope
        lines.append(b'%b,"crc":"%08x"}' % (line, crc32(line)))
        marks = b""
        offset += 1
    return lines


_PREFIX = f'{{"v":{FORMAT_VERSION},"type":"'.encode()
_PREFIX_SIZE = len(_PREFIX)
_ENVELOPE = 100  # bytes, more than an envelope takes up to its offset
_CRC_TAIL = len(b',"crc":"00000000"}')


class Envelope(msgspec.Struct, frozen=True):
    """What a store may know of a record without decoding it."""

    type: str
    session: int
    offset: int
    more: bool
    then: Then
    attempt_id: str | None
    body: bytes
    left: int | None = None


def open_body(line: bytes, place: str = "") -> bytes:
    """Check version and CRC of a sealed record and give it back without its CRC and closing brace.

    Raises:
        NewerFormatError: `v` is higher than this library knows.
        CorruptHistoryError: not a sealed record, or the CRC is wrong; `place` is named in the text.
    """
    if not is_whole(line):
        _refuse(line, place)
    return line[:-_CRC_TAIL]


def is_whole(line: bytes) -> bool:
    """Whether bytes are a sealed record of this version, as it was written."""
    return line[-_CRC_TAIL:] == b',"crc":"%08x"}' % crc32(line[:-_CRC_TAIL]) and line.startswith(_PREFIX)


def first_broken(lines: Sequence[bytes], offset: int) -> int | None:
    """The index of the first line that is not the record with the offset that belongs there, counted from `offset`."""
    # One loop without calls of our own: this is done for every record that is ever read.
    first, body, crc = slice(_PREFIX_SIZE), slice(-_CRC_TAIL), slice(-_CRC_TAIL, None)
    for i, line in enumerate(lines):
        if (
            line[crc] != b',"crc":"%08x"}' % crc32(line[body])
            or line[first] != _PREFIX
            or line.find(b',"offset":%d,' % (offset + i), _PREFIX_SIZE, _ENVELOPE) < 0
        ):
            return i
    return None


def verify_lines(lines: Sequence[bytes], seq: int, place: Callable[[int], str]) -> None:
    """Check stored records, each for its version, its CRC and that it has the number that belongs there.

    Args:
        seq: the number of the first.
        place: names the place of a record, by its number.

    Raises:
        NewerFormatError, CorruptHistoryError: with `place` and `seq`.
    """
    broken = first_broken(lines, seq)
    if broken is not None:
        _refuse_line(lines[broken], seq + broken, place(seq + broken))


def _refuse_line(line: bytes, seq: int, place: str) -> NoReturn:
    try:
        open_body(line, place)
    except CorruptHistoryError as e:
        e.seq = seq
        raise
    raise CorruptHistoryError(f"{place}: holds another record than number {seq}: {line[:120]!r}", place=place, seq=seq)


def _refuse(line: bytes, place: str) -> NoReturn:
    head = line[5:24].split(b",")[0]
    if line.startswith(b'{"v":') and head.isdigit() and int(head) > FORMAT_VERSION:
        raise NewerFormatError(
            f"{place or 'record'}: written in format {int(head)}, and this stepwell reads up to format "
            f"{FORMAT_VERSION}; upgrade stepwell",
            place=place,
        )
    if not line.startswith(_PREFIX):
        raise CorruptHistoryError(f"{place or 'record'}: not a history record, starts with {line[:40]!r}", place=place)
    raise CorruptHistoryError(f"{place or 'record'}: the checksum is wrong; the record was damaged", place=place)


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
        attempt_id = left = None
        if rest.startswith(b'"left":'):
            left, rest = _number(rest, b'"left":')
        if rest.startswith(b'"attemptId":"'):
            end = rest.index(b'",')
            attempt_id, rest = rest[len(b'"attemptId":"') : end].decode("ascii"), rest[end + 2 :]
    except ValueError as e:
        raise CorruptHistoryError(f"{place or 'record'}: the envelope is malformed: {line[:120]!r}", place=place) from e
    return Envelope(kind, session, offset, more, then, attempt_id, rest, left)


def _number(rest: bytes, key: bytes) -> tuple[int, bytes]:
    if not rest.startswith(key):
        raise ValueError(key)
    end = rest.index(b",")
    return int(rest[len(key) : end]), rest[end + 1 :]
