"""Run ids as file names: injective, also where upper and lower case are one, and safe on every file system."""

from __future__ import annotations

import functools
import hashlib
import re
from urllib.parse import unquote_to_bytes

__all__ = ["decode", "encode"]

_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_-")
_LONGEST = 180
_KEPT = 100
# Devices on Windows, whatever follows the first dot.
_RESERVED = re.compile(r"con|prn|aux|nul|com[0-9]|lpt[0-9]")


@functools.lru_cache(maxsize=4096)
def encode(run_id: str) -> str:
    """The stem of a run's files.

    Letters a-z, digits, `_` and `-` stand for themselves, every other byte of the UTF-8 form for `%` and two hex digits
    in lower case. What gets too long ends in `~` and a hash, which no other name has.

    Example:
        >>> encode("order-12"), encode("orders/12"), encode("Ä")
        ('order-12', 'orders%2f12', '%c3%84')
    """
    name = "".join(chr(byte) if byte in _PLAIN else f"%{byte:02x}" for byte in run_id.encode())
    if _RESERVED.fullmatch(name):
        name = f"%{ord(name[0]):02x}{name[1:]}"
    if len(name) > _LONGEST:
        return f"{name[:_KEPT]}~{hashlib.sha256(run_id.encode()).hexdigest()}"
    return name


def decode(name: str) -> str | None:
    """The run id of a stem; None when the stem is a hash, or none of ours.

    Example:
        >>> decode("orders%2f12")
        'orders/12'
    """
    try:
        run_id = unquote_to_bytes(name).decode()
    except UnicodeDecodeError:
        return None
    return run_id if run_id and encode(run_id) == name else None
