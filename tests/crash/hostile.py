"""Values that cost much for their size: each in the place of every member of every kind of event."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from attrs import evolve
from tests.crash.corpus import corpus
from tests.crash.fuzz_lines import Finding, Journal, check_event, check_fold
from tests.crash.mutators import repair_line

from stepwell.errors import CorruptHistoryError
from stepwell.wire import read_event
from stepwell_stores.jsonl.journal import rebuilt_head

__all__ = ["HOSTILE", "check_hostile", "places"]

HOSTILE: dict[str, str] = {
    "5,000 digits": "7" * 5_000,
    "a fraction of 100,000 digits": "0." + "3" * 100_000,
    "a large exponent": "1e999999999",
    "2,000 brackets": "[" * 2_000,
    "2,000 levels": "[" * 2_000 + "]" * 2_000,
    "100,000 levels": '{"":' * 100_000 + "0" + "}" * 100_000,
    "1 MiB of text": json.dumps("x" * (1 << 20)),
    "1 MiB of escapes": '"' + "\\u0000" * 170_000 + '"',
    "half a surrogate pair": '"\\ud800"',
    "2,000 names": json.dumps([f"module.Name{i}" for i in range(2_000)]),
    "50,000 elements": "[" + ",".join("0" * 50_000) + "]",
    "20,000 members": "{" + ",".join(f'"{i}":{i}' for i in range(20_000)) + "}",
    "20,000 times one member": "{" + ",".join(['"a":0'] * 20_000) + "}",
    "a long path": json.dumps("0." * 100_000 + "0"),
}
"""JSON, or nearly."""

_MARK = "<here>"
_COMMON = ("session", "offset", "more", "then", "attemptId")


def places() -> Iterator[tuple[str, Journal, bytes]]:
    """Every member of every kind of event: its name, where it stands, and its line with a mark for the value."""
    seen: set[str] = set()
    for run in corpus():
        for incarnation, lines in enumerate(run.histories):
            for at, line in enumerate(lines):
                kind = read_event(line).kind
                journal = Journal(run, incarnation, at, tuple(lines), repaired=True)
                for path in _members(json.loads(line), ()):
                    name = path[0] if path[0] in _COMMON else f"{kind}.{'.'.join(path)}"
                    if name not in seen and path[0] not in ("v", "type", "crc"):
                        seen.add(name)
                        yield name, journal, _marked(line, path)


def check_hostile(journal: Journal, marked: bytes, value: str) -> None:
    """Read and fold a history with this value in that place.

    Raises:
        Finding: it is not refused as it should be, or not read as it is.
    """
    line = repair_line(marked.replace(json.dumps(_MARK).encode(), value.encode()))
    damaged = evolve(journal, lines=(*journal.lines[: journal.at], line, *journal.lines[journal.at + 1 :]))
    if check_event(damaged)[1] is not None:
        check_fold(damaged)
    try:
        rebuilt_head(damaged.lines, None, "the place")
    except CorruptHistoryError as error:
        if "the place" not in str(error):
            raise Finding(f"an error does not say where: {error}") from error
    except Exception as error:
        raise Finding(f"making a head of the history raised {error!r}") from error


def _members(row: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for key, value in row.items():
        yield (*path, key)
        if key in ("error", "source", "tags"):  # other objects are payloads, which nobody looks into
            yield from _members(value, (*path, key))


def _marked(line: bytes, path: tuple[str, ...]) -> bytes:
    row = where = json.loads(line)
    for key in path[:-1]:
        where = where[key]
    where[path[-1]] = _MARK
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode()
