"""Values that JSON has no form for and that are written as text: how each is written, read and compared.

Each entry is exact: what `write` gives, `read` gives back equal and of the same class, and `read` refuses text that
`write` could not have meant. Private part of the codec, floor 2.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path, PosixPath, PurePath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any
from uuid import UUID

import msgspec
from attrs import frozen

__all__ = ["SCALARS", "Scalar"]


@frozen
class Scalar:
    """How values of one class are held as JSON text.

    Attributes:
        what: what a message calls the text that is expected.
        write: gives the text of a value.
        read: gives the value of a text; any exception means that the text is wrong.
        same: whether two values of the class can't be told apart.
    """

    what: str
    write: Callable[[Any], str]
    read: Callable[[str], Any]
    same: Callable[[Any, Any], bool] = lambda a, b: bool(a == b)


def _matching(pattern: str, read: Callable[[str], Any]) -> Callable[[str], Any]:
    matches = re.compile(pattern).match

    def checked(text: str) -> Any:
        if matches(text) is None:
            raise ValueError(text)
        return read(text)

    return checked


def _same_clock(a: datetime | time, b: datetime | time) -> bool:
    # Two aware datetimes of different zones are never `==` in the hour that a zone repeats or skips (PEP 495), so the
    # wall clock and the offset are compared. The zone itself becomes its offset.
    return (
        (a.tzinfo is None) == (b.tzinfo is None)
        and a.utcoffset() == b.utcoffset()
        and a.replace(tzinfo=None) == b.replace(tzinfo=None)
    )


def _write_clock(value: Any) -> str:
    # Of an aware one the offset tells which of the two it is.
    if value.fold and value.tzinfo is None:
        raise ValueError("fold=1 without a time zone can't be held")
    return str(value.isoformat())


def _read_uuid(text: str) -> UUID:
    value = UUID(text)
    if str(value) != text.lower():
        raise ValueError(text)
    return value


def _write_decimal(value: Decimal) -> str:
    if not value.is_finite():
        raise ValueError("NaN and infinity can't be held")
    return str(value)


def _read_bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:[.,][0-9]{1,6})?)?"
_OFFSET = r"(?:[Zz]|[+-][0-9]{2}:?[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?)?\Z"

SCALARS: dict[type, Scalar] = {
    datetime: Scalar(
        "an ISO 8601 date and time",
        _write_clock,
        _matching(f"{_DATE}[T ]{_CLOCK}{_OFFSET}", datetime.fromisoformat),
        _same_clock,
    ),
    date: Scalar("an ISO 8601 date", date.isoformat, _matching(rf"{_DATE}\Z", date.fromisoformat)),
    time: Scalar("an ISO 8601 time", _write_clock, _matching(_CLOCK + _OFFSET, time.fromisoformat), _same_clock),
    timedelta: Scalar(
        'an ISO 8601 duration such as "PT1H30M"',
        msgspec.to_builtins,
        lambda text: msgspec.convert(text, timedelta),
    ),
    UUID: Scalar("a UUID with hyphens", str, _read_uuid),
    Decimal: Scalar(
        "a decimal number as text",
        _write_decimal,
        _matching(r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?\Z", Decimal),
        lambda a, b: bool(a.as_tuple() == b.as_tuple()),
    ),
    bytes: Scalar("base64 text", lambda v: base64.b64encode(v).decode(), _read_bytes),
    bytearray: Scalar("base64 text", lambda v: base64.b64encode(v).decode(), lambda text: bytearray(_read_bytes(text))),
    **{
        cls: Scalar("a path as text", str, cls)
        for cls in (Path, PosixPath, WindowsPath, PurePath, PurePosixPath, PureWindowsPath)
    },
}
"""By exact class: subclasses would come back as the class itself, so they are refused."""
