"""Text for people: what is safe to show, how wide it is, values and instants on one line. Floor 1."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from typing import Any

__all__ = ["cut", "harmless", "many", "safe", "short", "when", "width"]

# Joiners that scripts and emoji need, and that move nothing on a terminal.
_JOINERS = {"\u200c", "\u200d"}
_BRIEF = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_SHORT = 300


def safe(text: str) -> str:
    """One line of text that can't move the cursor, change colours, or turn the order of what is read.

    Control characters, line breaks, bidirectional overrides and lone surrogates are shown as escapes.
    """
    if text.isprintable():
        return text
    return "".join(c if harmless(c) else _escaped(c) for c in text)


def harmless(char: str) -> bool:
    """Whether a character may be shown as it is."""
    return char.isprintable() or char in _JOINERS or unicodedata.category(char) == "Zs"


def _escaped(char: str) -> str:
    if char in _BRIEF:
        return _BRIEF[char]
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def cut(text: str, columns: int) -> str:
    """The text, shortened to so many columns; an ellipsis stands for what is missing."""
    if width(text) <= columns:
        return text
    kept, room = [], columns - 1
    for char in text:
        room -= width(char)
        if room < 0:
            break
        kept.append(char)
    return "".join(kept) + "…"


def width(text: str) -> int:
    """Columns that a terminal takes for it."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) or c in _JOINERS else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def when(instant: datetime | None) -> str:
    """An instant for people, in UTC."""
    return "" if instant is None else instant.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def many(number: int, what: str) -> str:
    """A number of things in words: 1 run, 2 runs."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def short(value: Any, columns: int = _SHORT) -> str:
    """A JSON value on one line, shortened."""
    import json  # most programs never show a value

    return cut(json.dumps(value, ensure_ascii=False), columns)
