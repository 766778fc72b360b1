"""Many entries of a run in one object, `runs/<run>/pack`: so that who loads a long run asks once, and not for each.

A pack is a cache. It holds entries as they are in the log, each with its own number and SHA-256, and is believed only
as far as these are right; what it lacks is read from the log. So it may be old, damaged, removed or written twice. Who
asks where a run stands asks the log alone. Whoever drives a run writes the pack, when it was loaded by many reads, and
when it is closed. It is removed with the entries of a run that is removed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import msgspec

from stepwell.errors import CorruptHistoryError

from .entries import FORMAT, Entry, State, encode
from .log import Log, Logs

__all__ = ["MANY", "is_whole", "pack_later", "packed"]

MANY = 64
"""Entries from which on a pack is worth while."""

_MOST = 8_000_000  # bytes of a pack


class _Index(msgspec.Struct):
    """The first line of a pack: number and size of each entry."""

    stepwell: int
    pack: list[tuple[int, int]]


_read_index = msgspec.json.Decoder(_Index).decode


def pack_key(name: str) -> str:
    """The object of a run's pack. Sorts after all entries."""
    return f"runs/{name}/pack"


def packed(logs: Logs, name: str, wanted: Iterable[int]) -> dict[int, Entry]:
    """Those of these entries that the run's pack has whole."""
    found: dict[int, Entry] = {}
    there, left = logs.bucket.get(pack_key(name)), set(wanted)
    for number, data in () if there is None else _opened(there.data):
        with contextlib.suppress(CorruptHistoryError):
            entry = logs.read(data, name, number) if number in left else None
            if entry is not None:
                found[number] = entry
    return found


def is_whole(logs: Logs, name: str) -> bool:
    """Whether everything in a run's pack can be believed; so when there is none."""
    there = logs.bucket.get(pack_key(name))
    try:
        return there is None or bool([logs.read(data, name, number) for number, data in _opened(there.data)])
    except CorruptHistoryError:
        return False


def _opened(pack: bytes) -> Iterator[tuple[int, bytes]]:
    """The entries of a pack, as they are in it; none when it is not one of this format."""
    line, _, rest = pack.partition(b"\n")
    start = 0
    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
        index = _read_index(line)
        for number, size in index.pack if index.stepwell == FORMAT else ():
            yield number, rest[start : start + size]
            start += size


def pack_later(logs: Logs, log: Log, state: State | None) -> None:
    """Have the pack of a run written that its owner has loaded, or closed; if that is worth while."""
    if state is not None and state.entry - state.first >= MANY:
        logs.bucket.later(lambda: _write(logs, log, state))


def _write(logs: Logs, log: Log, state: State) -> None:
    """Write the pack of the current incarnation, of entries that are known here; not when some of them are not."""
    parts, size = list[tuple[int, bytes]](), 0
    for number in range(state.first, state.entry + 1):
        entry = logs.known(log.name, number)
        if entry is None:
            return
        parts.append((number, encode(entry.state, entry.lines)))
        size += len(parts[-1][1])
        if size > _MOST:
            return
    index = msgspec.json.encode(_Index(FORMAT, [(number, len(data)) for number, data in parts]))
    logs.bucket.put(pack_key(log.name), b"%b\n%b" % (index, b"".join(data for _, data in parts)))
    log.loose = 0
