"""Compression: a store around a store that gets large records as zlib has them."""

from __future__ import annotations

import re
import zlib
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64

from stepwell.errors import InvalidInputError, StoreMisconfiguredError
from stepwell.store import Draft, Store

from .lines import at_last, corrupt, joined, split
from .wrapper import Wrapper, find

__all__ = ["CompressedStore"]

ABOVE = 1024
_OWN = re.compile(rb'(?:\A|,)"z":([0-9]{1,12})(?=,)')
_DATA = b',"data":"'


class CompressedStore(Wrapper):
    """Keeps records above a size compressed, each by itself and only when that makes it smaller.

    Smaller records stay as they are, byte for byte, and an older history that was never compressed is read as well: so
    it can be put around a store at any time. Without it what is compressed is refused, and nothing else.

    Args:
        store: any store. Around an encrypted one: what is encrypted can't be compressed any more.
        above: bytes of a record's body from which on it is tried.
        level: of zlib, 1 (fast) to 9 (small).

    Raises:
        StoreMisconfiguredError: the store is compressed already.
        InvalidInputError: `above` or `level` is none.

    Example:
        >>> from stepwell_stores.wrapping import CompressedStore
        >>> from stepwell_stores.memory import MemoryStore
        >>> CompressedStore(MemoryStore()).MARK
        '+z'
    """

    MARK = "+z"

    def __init__(self, store: Store, *, above: int = ABOVE, level: int = 6) -> None:
        if isinstance(above, bool) or not isinstance(above, int) or above < 0:
            raise InvalidInputError(f"above must be a number of bytes, 0 or more, got {above!r}")
        if isinstance(level, bool) or not isinstance(level, int) or not 1 <= level <= 9:
            raise InvalidInputError(f"level must be a whole number from 1 to 9, got {level!r}")
        if find(store, CompressedStore) is not None:
            raise StoreMisconfiguredError("the store is compressed already; wrap it once")
        super().__init__(store)
        self.above = above
        self.level = level

    def _wrap(self, run_id: str, incarnation: int, seq: int, draft: Draft) -> Draft:  # noqa: ARG002 - of others
        if len(draft.body) < self.above:
            return draft
        begin, rest, copies = split(draft)
        data = b2a_base64(zlib.compress(rest, self.level), newline=False)
        body = joined(begin, b'"z":%d' % len(rest), copies, b'%b%b"' % (_DATA, data))
        return Draft(draft.type + self.MARK, body) if len(body) + len(self.MARK) < len(draft.body) else draft

    def _unwrap(self, run_id: str, incarnation: int, seq: int, kind: bytes, body: bytes) -> bytes:
        own, stop = _OWN.search(body), at_last(body, _DATA, kind)
        if own is None or stop < 0:
            corrupt(run_id, incarnation, seq, "it is marked as compressed, and is not")
        size = int(own[1])
        try:
            engine = zlib.decompressobj()
            rest = engine.decompress(a2b_base64(body[stop + len(_DATA) : -1], strict_mode=True), size + 1)
        except (zlib.error, Base64Error, ValueError) as e:
            corrupt(run_id, incarnation, seq, "it is marked as compressed, and can't be decompressed", e)
        if len(rest) != size or not engine.eof:  # no more than it says is ever made
            corrupt(run_id, incarnation, seq, f"it is marked as {size} compressed bytes, and has another number")
        return body[: own.start()] + rest
