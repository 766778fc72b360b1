"""Inputs of steps as digests, for very many steps, and as JSON, for people."""

from __future__ import annotations

from typing import Any

import msgspec

from .. import commands as c
from ..codec import Codec
from ..digests import digest
from ..errors import CodecError
from ..inputs import inputs_digest

__all__ = ["Digests", "encoded_inputs"]

_PLAIN = frozenset({str, int, bool, type(None)})
_UNENCODABLE = (OverflowError, UnicodeEncodeError, msgspec.EncodeError)
_SMALL = 200  # bytes of inputs whose digest is kept
_REMEMBERED = 10_000  # digests that are kept
_encode = msgspec.json.Encoder().encode


class Digests:
    """Digests of steps' inputs; those of small ones are kept, since many runs call the same steps alike.

    Args:
        codec: the engine's.
    """

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self._known: dict[bytes, str] = {}

    def of(self, step: c.Step[Any]) -> str | None:
        """As `inputs_digest`."""
        if step.kwargs or not _PLAIN.issuperset(map(type, step.args)):
            return inputs_digest(self.codec, step)
        try:
            encoded = _encode(step.args)
        except _UNENCODABLE:
            return None
        found = self._known.get(encoded)
        if found is None:
            found = digest(encoded)
            if len(encoded) <= _SMALL:
                if len(self._known) >= _REMEMBERED:
                    self._known.clear()
                self._known[encoded] = found
        return found


def encoded_inputs(codec: Codec, step: c.Step[Any]) -> str | None:
    """The arguments of a step as the JSON that its digest is made of; None when they don't encode."""
    try:
        given = [list(step.args), step.kwargs] if step.kwargs else list(step.args)
        return codec.encode(given).decode("utf-8", "replace")
    except CodecError:
        return None
