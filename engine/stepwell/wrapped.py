"""What is read without the wrapper that wrote it: how it is known, and what is told. Floor 2.

A store around a store may change records; then their type ends in a mark, and no event has such a type. Texts of a head
that it has encrypted begin with `SEALED`.
"""

from __future__ import annotations

import re
from typing import TypeVar

from .errors import StoreMisconfiguredError

__all__ = ["SEALED", "readable", "refuse_wrapped"]

T = TypeVar("T", bound="str | None")

SEALED = "stepwell-enc:"
"""How an encrypted text of a head begins; also the name of the tag that holds hidden ones."""

_TYPE = re.compile(rb'\{"v":[0-9]+,"type":"[A-Za-z]*(?:\+[a-z]+)*\+([a-z]+)"')
_KEY = re.compile(rb'"enc":"([A-Za-z0-9._-]+):')
_REMEDIES = {
    b"enc": "is encrypted{key}; name the store as encrypted+URL and give the keys (STEPWELL_KEYS, STEPWELL_KEY_FILE, "
    "--key-file), or wrap it in EncryptedStore",
    b"z": "is compressed; name the store as compressed+URL, or wrap it in CompressedStore",
    b"blob": "has its payload elsewhere; name the store as offloaded+URL?blobs=PLACE, or wrap it in OffloadingStore",
}


def refuse_wrapped(line: bytes, place: str) -> None:
    """Raise StoreMisconfiguredError for a record that a wrapper has changed, and do nothing for any other."""
    found = _TYPE.match(line)
    if found is None:
        return
    key = _KEY.search(line)
    text = _REMEDIES.get(found[1], f"was changed by a store around this one, which is not there: {found[1].decode()}")
    text = text.format(key="" if key is None else f" with key {key[1].decode()!r}")
    raise StoreMisconfiguredError(f"{place or 'record'}: {text}")


def readable(text: T) -> T | str:
    """A text of a head for people: what is encrypted is not shown. None stays None."""
    return "(encrypted)" if text is not None and text.startswith(SEALED) else text
