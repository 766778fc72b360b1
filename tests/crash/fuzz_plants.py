"""Bugs that are put into the JSONL store and the decoder for a while, to see that the fuzz finds them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias
from unittest import mock

from attrs import evolve
from tests.crash import fuzz_lines

from stepwell import sealing, wire
from stepwell_stores.jsonl import journal as jsonl_journal
from stepwell_stores.jsonl import runs as jsonl_runs
from stepwell_stores.jsonl.files import Directory
from stepwell_stores.jsonl.journal import Scan
from stepwell_stores.jsonl.runs import Runs

__all__ = ["PLANTS", "planted"]

Patch: TypeAlias = tuple[Any, str, Any]
"""What is put where: (module or class, name, value)."""

_CRC = len(', "crc": "00000000"}')


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """Put a bug in for a while, if one is named."""
    with ExitStack() as stack:
        for where, attribute, wrong in PLANTS[name]() if name is not None else []:
            stack.enter_context(mock.patch.object(where, attribute, wrong))
        yield


def _crc_ignored() -> list[Patch]:
    """A record is taken whatever its checksum says."""

    def open_body(line: bytes, _place: str = "") -> bytes:
        return line[: -sealing._CRC_TAIL]

    def first_broken(lines: Sequence[bytes], offset: int) -> int | None:
        return next((i for i, line in enumerate(lines) if b',"offset":%d,' % (offset + i) not in line[:100]), None)

    bodies: list[Patch] = [(module, "open_body", open_body) for module in (sealing, wire, jsonl_journal)]
    return [*bodies, (sealing, "first_broken", first_broken)]


def _position_ignored() -> list[Patch]:
    """A record is taken wherever it lies."""

    def first_broken(lines: Sequence[bytes], _offset: int) -> int | None:
        return next((i for i, line in enumerate(lines) if not sealing.is_whole(line)), None)

    return [(sealing, "first_broken", first_broken)]


def _torn_taken() -> list[Patch]:
    """What an append left that was cut short is a record."""
    scan = jsonl_journal.scan

    def more(data: bytes, path: str) -> Scan:
        found = scan(data, path)
        return evolve(found, lines=[*found.lines, found.torn], torn=b"") if found.torn else found

    return _scans(more)


def _damage_torn() -> list[Patch]:
    """A damaged record in the midst of others is taken for the rest of an append that was cut short."""
    return [(jsonl_journal, "_holed", lambda *_: True)]


def _text_lines() -> list[Patch]:
    """A journal is split at all that ends a line of text."""

    class Text(bytes):
        def split(self, *_: Any) -> list[bytes]:
            lines = self.decode("utf-8", "surrogateescape").splitlines()
            return [line.encode("utf-8", "surrogateescape") for line in [*lines, ""]]

    scan = jsonl_journal.scan
    return _scans(lambda data, path: scan(Text(data), path))


def _scans(wrong: Callable[[bytes, str], Scan]) -> list[Patch]:
    return [(module, "scan", wrong) for module in (jsonl_journal, jsonl_runs)]


def _untyped_error() -> list[Patch]:
    """What is no event is told of in words of the decoder's library."""
    return [(fuzz_lines, "read_event", lambda line, _place: wire._decoder().decode(line))]


def _no_copy() -> list[Patch]:
    """What is torn is cut off, and gone."""
    return [(Directory, "keep_aside", lambda *_: None)]


def _no_head() -> list[Patch]:
    """Nothing knows how long a journal was."""
    return [(Runs, "cached", lambda *_: None)]


def _believed(ending: str) -> list[Patch]:
    """A file is believed whatever its checksum says."""
    read = Directory.read

    def repaired(self: Directory, name: str) -> bytes | None:
        data = read(self, name)
        if not data or not name.endswith(ending):
            return data
        text = data.rstrip()[:-_CRC]
        return b'%b, "crc": "%08x"}' % (text, zlib.crc32(text))

    return [(Directory, "read", repaired)]


PLANTS: dict[str, Callable[[], list[Patch]]] = {
    "CRC ignored": _crc_ignored,
    "damage taken for a torn tail": _damage_torn,
    "decoder's own errors": _untyped_error,
    "fence trusted without CRC": lambda: _believed(".fence"),
    "head not looked at": _no_head,
    "head trusted without CRC": lambda: _believed(".head.json"),
    "journal split as text": _text_lines,
    "position ignored": _position_ignored,
    "torn tail cut without a copy": _no_copy,
    "torn tail taken for good": _torn_taken,
}
"""By name: what to put where."""
