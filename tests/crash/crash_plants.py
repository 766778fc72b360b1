"""Bugs that are put into the JSONL store for a while, to see that a harness of crashes finds them."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias
from unittest import mock

from attrs import evolve
from msgspec.structs import replace

from stepwell.store import envelope
from stepwell_stores.jsonl import files as jsonl_files
from stepwell_stores.jsonl import journal as jsonl_journal
from stepwell_stores.jsonl import runs as jsonl_runs
from stepwell_stores.jsonl.files import Directory
from stepwell_stores.jsonl.runs import Runs

__all__ = ["PLANTS", "planted"]

Patch: TypeAlias = tuple[Any, str, Any]
"""What is put where: (module or class, name, value)."""


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """Put a bug in for a while, if one is named."""
    with ExitStack() as stack:
        for where, attribute, wrong in PLANTS[name]() if name is not None else []:
            stack.enter_context(mock.patch.object(where, attribute, wrong))
        yield


def _nothing(*_: Any, **__: Any) -> None:
    """Do nothing."""


def _no_fsync() -> list[Patch]:
    return [(Directory, "append", _unsynced(Directory.append))]


def _unsynced(call: Callable[..., Any]) -> Callable[..., Any]:
    """The call without its syncs of files."""

    def hasty(*args: Any) -> Any:
        with mock.patch.object(jsonl_files, "sync_file", _nothing):
            return call(*args)

    return hasty


def _no_directory_fsync() -> list[Patch]:
    return [(jsonl_files, "sync_directory", _nothing)]


def _publish_unsynced() -> list[Patch]:
    """A file is renamed into place before its bytes are on the disk."""
    return [(Directory, "publish", _unsynced(Directory.publish))]


def _no_sync_on_open() -> list[Patch]:
    """What is read is trusted, though it may be in the page cache only."""
    return [(Directory, "sync", _nothing)]


def _no_torn_cut() -> list[Patch]:
    """What is torn stays where it is, and the next record is written behind it."""
    scan = jsonl_journal.scan

    def longer(data: bytes, path: str) -> Any:
        found = scan(data, path)
        return evolve(found, size=len(data)) if found.torn else found

    return [(Directory, "keep_aside", _nothing), (jsonl_runs, "scan", longer)]


def _ack_before_write() -> list[Patch]:
    """A record is acknowledged at once, and written when somebody comes by."""
    late: list[tuple[Directory, str, bytes, Callable[[], bool]]] = []
    append, locked = Directory.append, Directory.locked

    def later(self: Directory, name: str, data: bytes, undo: Callable[[], bool]) -> None:
        late.append((self, name, data, undo))

    def catch_up(self: Directory, stem: str) -> Any:
        while late:
            call = late.pop()
            if call[0] is self:
                append(*call)
        return locked(self, stem)

    return [(Directory, "append", later), (Directory, "locked", catch_up)]


def _sync_twice() -> list[Patch]:
    """A sync that failed is tried again, and its yes is believed."""

    def sync_file(fd: int) -> None:
        try:
            os.fdatasync(fd)
        except OSError:
            os.fdatasync(fd)

    return [(jsonl_files, "sync_file", sync_file)]


def _head_without_crc() -> list[Patch]:
    """The head that is kept beside is believed whatever its checksum says."""
    read = Directory.read
    size = len('"00000000"}')

    def repaired(self: Directory, name: str) -> bytes | None:
        data = read(self, name)
        if not data or not name.endswith(".head.json"):
            return data
        text = data.rstrip()[: -size - len(', "crc": ')]
        return b'%b, "crc": "%08x"}' % (text, zlib.crc32(text))

    return [(Directory, "read", repaired)]


def _half_batches() -> list[Patch]:
    """A batch that was cut short is taken for what is left of it."""
    return [(jsonl_journal, "envelope", lambda line, place="": replace(envelope(line, place), more=False))]


def _fence_told_early() -> list[Patch]:
    """The number of a lease is told before it is on the disk."""
    hasty = _unsynced(Runs.raise_fence)

    def hastier(*args: Any) -> None:
        with mock.patch.object(jsonl_files, "sync_directory", _nothing):
            hasty(*args)

    return [(Runs, "raise_fence", hastier)]


def _attempt_ignored() -> list[Patch]:
    """A write that is repeated is written again."""
    return [(jsonl_runs, "find_attempt", _nothing)]


PLANTS: dict[str, Callable[[], list[Patch]]] = {
    "ack before write": _ack_before_write,
    "attempt id ignored": _attempt_ignored,
    "fence told before it is durable": _fence_told_early,
    "half batches kept": _half_batches,
    "head trusted without CRC": _head_without_crc,
    "no directory fsync": _no_directory_fsync,
    "no fsync of the journal": _no_fsync,
    "no sync on open": _no_sync_on_open,
    "no torn-tail cut": _no_torn_cut,
    "publish without fsync before rename": _publish_unsynced,
    "second fsync after an error trusted": _sync_twice,
}
"""By name: what to put where."""
