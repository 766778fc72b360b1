"""What can happen to a line of a journal: bytes that flip, go, come, or change places; and members of its JSON.

Every function is given a `random.Random` and does the same for the same state of it.
"""

from __future__ import annotations

import copy
import json
import random
import re
import zlib
from collections.abc import Callable
from typing import Any, TypeAlias

__all__ = ["BYTE_MUTATORS", "change_json", "deepen", "mutate_line", "repair_line"]

Mutator: TypeAlias = Callable[[bytes, random.Random], bytes]

BIG = 1 << 20

SNIPPETS: tuple[bytes, ...] = (
    b"\0",
    b"\xff",
    b"\xc3\x28",
    b"\xed\xa0\x80",  # a surrogate as UTF-8 must not hold it
    b"\xf0\x28\x8c\xbc",
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"1e999",
    b"\\ud800",
    b'"\\udfff"',
    b"9223372036854775808",
    b"7" * 5_000,
    b"[" * 2_000,
    b'{"a":' * 2_000,
    b"\r",
    b"\r\n",
    b"\n",
    "\u2028".encode(),
    "\u2029".encode(),
    "\x85".encode(),
    b"\x85",
    b"\xef\xbb\xbf",
    b'"at":"0",',
    b'"type":"step",',
    b'"offset":0,',
    b'"v":2,',
    b"\x1b[2J\x1b]0;owned\x07",
    b"'; DROP TABLE events; --",
    b'","x":"',
    b"\t",
    b"\x7f",
    b"//",
    b"{}",
    b",",
)
"""What is put into a line at any place."""

VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    2**31,
    2**63 - 1,
    2**63,
    -(2**64),
    1.5,
    -0.0,
    float("nan"),
    float("inf"),
    "",
    "\0",
    "\ud800",
    "x\x1b[31m\u202e\r\n\u2028",
    "0",
    "0.0.0",
    "undo.0",
    [],
    {},
    [[]],
    {"": None},
    ["x", 1, None],
    "NaN",
    "2026-01-01",
    "2026-01-01T00:00:00",
    "2026-13-45T99:99:99Z",
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59.999999-23:59",
    "2026-01-01T00:00:00.000000+00:00",
    "not a time",
    "123e4567-e89b-12d3-a456-42661417400",
    "{123e4567-e89b-12d3-a456-426614174000}",
    "urn:uuid:zzz",
    "stepwell.errors.StepInterrupted",
    "@@1e999@@",
    "@@" + "8" * 5_000 + "@@",
    "@@" + "[" * 2_000 + "]" * 2_000 + "@@",
    "@@" + '{"a":' * 90 + "1" + "}" * 90 + "@@",
    "@@1.0@@",
    "@@1E0@@",
)
"""What stands in for a member's value; `@@` around it means: as it is, without quotes."""

_BARE = re.compile(rb'"@@(.*?)@@"')
_TAIL = re.compile(rb',"crc":"[0-9a-f]{8}"}\Z')
_TAIL_SIZE = len(b',"crc":"00000000"}')


def flip(line: bytes, rng: random.Random) -> bytes:
    """Turn a few bits."""
    data = bytearray(line)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def cut(line: bytes, rng: random.Random) -> bytes:
    return line[: rng.randrange(len(line))]


def nul_block(line: bytes, rng: random.Random) -> bytes:
    """A sector that was never written."""
    start, stop = _slice(line, rng, 512)
    return line[:start] + b"\0" * (stop - start) + line[stop:]


def turn_round(line: bytes, rng: random.Random) -> bytes:
    start, stop = _slice(line, rng, len(line))
    return line[:start] + line[start:stop][::-1] + line[stop:]


def duplicate(line: bytes, rng: random.Random) -> bytes:
    start, stop = _slice(line, rng, 100)
    return line[:stop] + line[start:]


def delete(line: bytes, rng: random.Random) -> bytes:
    start, stop = _slice(line, rng, 100)
    return line[:start] + line[stop:]


def swap_digits(line: bytes, rng: random.Random) -> bytes:
    places = [i for i, byte in enumerate(line) if 48 <= byte <= 57]
    data = bytearray(line)
    if len(places) > 1:
        a, b = rng.sample(places, 2)
        data[a], data[b] = data[b], data[a]
    return bytes(data)


def insert(line: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(line) + 1)
    if rng.random() < 0.5:  # where a member begins, or its value
        at = rng.choice([i + 1 for i, byte in enumerate(line) if byte in b',:{["'] or [at])
    return line[:at] + rng.choice(SNIPPETS) + line[at:]


def other_version(line: bytes, rng: random.Random) -> bytes:
    """The format's number is another."""
    number = rng.choice((b"2", b"17", b"999999999999999999", b"1" * 5_000, b"0", b"-1", b"01", b"1.0", b'"2"', b"null"))
    return line.replace(b'"v":1,', b'"v":%b,' % number, 1)


def other_offset(line: bytes, rng: random.Random) -> bytes:
    """The record has another number."""
    number = rng.choice((b"0", b"1", b"2", b"7", b"99", b"-1", b"1_0", b" 3", b"9" * 5_000, b"1e1", b"true"))
    return re.sub(rb'"offset":\d+,', b'"offset":%b,' % number, line, count=1)


def reseal(line: bytes, _rng: random.Random) -> bytes:
    """Nothing but another way to write the same: space between the tokens."""
    return line.replace(b'","', b'"\r,\t"', 1)


BYTE_MUTATORS: tuple[Mutator, ...] = (
    flip,
    flip,
    flip,
    cut,
    nul_block,
    turn_round,
    duplicate,
    delete,
    swap_digits,
    insert,
    insert,
    insert,
    insert,
    other_version,
    other_offset,
    reseal,
)
"""More often those that can do more."""


def mutate_line(line: bytes, other: bytes, rng: random.Random, *, repair: bool) -> bytes:
    """Damage a sealed line.

    Args:
        other: another line, for splices.
        repair: give the line a right checksum afterwards, so that what reads behind it is reached.
    """
    choice = rng.random()
    if choice < 0.5:
        body = (line[:-_TAIL_SIZE] if repair else line) or b"{}"
        damaged = rng.choice(BYTE_MUTATORS)(body, rng)
        damaged += b"}" if repair and rng.random() < 0.5 else b""
    elif choice < 0.55:
        damaged = line[: rng.randrange(len(line))] + other[rng.randrange(len(other)) :]
    else:
        damaged = change_json(line, rng)
    return repair_line(damaged) if repair else damaged


def repair_line(line: bytes) -> bytes:
    """The line with the checksum that it should have."""
    body = line[:-_TAIL_SIZE] if _TAIL.search(line) else line.removesuffix(b"}")
    return b'%b,"crc":"%08x"}' % (body, zlib.crc32(body))


def change_json(text: bytes, rng: random.Random) -> bytes:
    """Change one or two members of a JSON object, wherever they are; bytes that are none lose a few bits."""
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        return flip(text, rng)
    for _ in range(rng.choice((1, 1, 2))):
        _change(row, rng)
    spaced = rng.random() < 0.05
    dumped = json.dumps(row, ensure_ascii=rng.random() < 0.2, separators=(", ", ": ") if spaced else (",", ":"))
    return _BARE.sub(lambda match: match[1].replace(b"\\", b""), dumped.encode("utf-8", "surrogatepass"))


def _change(row: dict[str, Any], rng: random.Random) -> None:
    """Change one member, at any depth but rather near the top; the envelope's own less often."""
    where: Any = row
    while True:
        keys: list[Any] = list(where) if isinstance(where, dict) else list(range(len(where)))
        if where is row and rng.random() < 0.9:
            keys = [key for key in keys if key not in ("v", "type", "session", "offset", "crc")] or keys
        if not keys:
            return
        key = rng.choice(keys)
        inner = where[key]
        if not isinstance(inner, (dict, list)) or not inner or rng.random() < 0.4:
            break
        where = inner
    how = rng.random()
    if how < 0.15:
        del where[key]
    elif how < 0.2 and isinstance(where, dict):
        where[rng.choice(("x", "at", "", "value", "\x00"))] = where.pop(key)
    elif how < 0.3:
        where[key] = deepen(inner, rng)
    else:
        where[key] = copy.deepcopy(rng.choice(VALUES))


def deepen(value: Any, rng: random.Random) -> Any:
    """The same value, but more of it."""
    if rng.random() < 0.01:
        return rng.choice(("x" * BIG, [f"name{i}" for i in range(2_000)]))
    if isinstance(value, str):
        return rng.choice((value + "\0", value[::-1], value * rng.choice((2, 300)), value.upper()))
    if isinstance(value, bool) or value is None:
        return [value]
    if isinstance(value, int):
        return rng.choice((-value, value + 1, value * 10**9, str(value), float(value)))
    if isinstance(value, list):
        return rng.choice((value * 2, value[::-1], [value], [*value, None]))
    return [value]


def _slice(line: bytes, rng: random.Random, longest: int) -> tuple[int, int]:
    start = rng.randrange(len(line))
    return start, min(len(line), start + rng.randint(1, longest))
