"""One damaged line at its place among good ones: through the store's scan, the event decoder, and the fold.

What the journal must be taken for is worked out here once more, in the plainest way: split at newlines, check each line
by itself. The store has to come to the same, about good lines and bad ones alike.
"""

from __future__ import annotations

import json
import random
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec
from attrs import asdict, frozen
from msgspec.structs import replace
from tests.crash.corpus import Recorded, corpus, genuine_lines, make_engine
from tests.crash.mutators import mutate_line

from stepwell import events as e
from stepwell.errors import (
    CodecError,
    CorruptHistoryError,
    DivergenceError,
    Failure,
    InvalidYieldError,
    NewerFormatError,
    NotFoundError,
    StepwellError,
    VersionMismatchError,
)
from stepwell.loading import Parts, load, waits_of
from stepwell.store import Tail
from stepwell.testing import VirtualClock
from stepwell.wire import read_event
from stepwell_stores.jsonl import journal as jsonl_journal
from stepwell_stores.memory import MemoryStore

__all__ = ["Finding", "check_line", "is_hole", "reason_of", "whole_lines"]

PATH = "/runs/r.0.jsonl"
LOADING = (
    CodecError,
    CorruptHistoryError,
    DivergenceError,
    InvalidYieldError,
    NotFoundError,
    VersionMismatchError,
)
"""What `load` says that it raises."""

_REASONS = {
    "is damaged": "damaged fence",
    "the checksum is wrong": "checksum",
    "not a history record": "no record",
    "holds another record": "another record",
    "the envelope is malformed": "envelope",
    "not an event of this format": "no event",
    "a record is no JSON": "no JSON",
    "is not the journal": "another journal",
    "is not closed, though": "records missing",
    "acknowledged": "journal too short",
    " is gone": "file gone",
    "is no file but": "no file",
    "holds no whole record": "no whole record",
    "does not begin with a start": "no start event",
    "without an outcome": "step without outcome",
}
_PLACE = re.compile(r"^(?P<file>.*), line (?P<line>\d+), byte (?P<byte>\d+): ")


class Finding(AssertionError):
    """Something that must not be."""


class Digits(str):
    """An integer of JSON, of any length."""

    __slots__ = ()


@frozen
class Journal:
    """What is left to check once a line is damaged: `lines[at]` is the damaged one."""

    run: Recorded
    incarnation: int
    at: int
    lines: tuple[bytes, ...]
    repaired: bool

    @property
    def original(self) -> tuple[bytes, ...]:
        return self.run.histories[self.incarnation]


def reason_of(error: BaseException) -> str:
    """A name for why something was refused."""
    kind = type(error).__name__
    if type(error) is not CorruptHistoryError:
        return kind
    return f"{kind}: {next((name for words, name in _REASONS.items() if words in str(error)), 'other')}"


def check_line(seed: int, index: int) -> Counter[str]:
    """Damage one line and see what comes of it; half of the lines get a right checksum.

    Raises:
        Finding: something other than a typed error, or content that was altered.
    """
    rng = random.Random(f"line-{seed}-{index}")
    found = damaged_journal(rng, repair=index % 2 == 1)
    counts = Counter({"repaired" if found.repaired else "not repaired": 1})
    counts["scan: " + check_scan(found, rng)] += 1
    told, event = check_event(found)
    counts["decode: " + told] += 1
    if event is not None:
        counts["fold: " + check_fold(found)] += 1
    return counts


def damaged_journal(rng: random.Random, *, repair: bool) -> Journal:
    """One of the histories, with one line damaged."""
    run = rng.choice(corpus())
    incarnation = rng.randrange(len(run.histories))
    lines = list(run.histories[incarnation])
    at = rng.randrange(len(lines))
    damaged = mutate_line(lines[at], rng.choice(rng.choice(corpus()).histories[0]), rng, repair=repair)
    if damaged not in genuine_lines():  # or chance has put another run's record together, which nothing could tell
        lines[at] = damaged
    return Journal(run, incarnation, at, tuple(lines), repair)


# ---- the store


def whole_lines(data: bytes) -> tuple[list[bytes], int | None]:
    """The records of a journal's ended lines, and the number of the first line that is none."""
    pieces = data.split(b"\n")[:-1]
    for seq, line in enumerate(pieces):
        if not is_record(line, seq):
            return pieces[:seq], seq
    return pieces, None


def is_record(line: bytes, seq: int) -> bool:
    """Whether these bytes are record number `seq`, as far as a store can tell."""
    sealed = line[-18:] == b',"crc":"%08x"}' % zlib.crc32(line[:-18])
    return line.startswith(b'{"v":1,"type":"') and sealed and b',"offset":%d,' % seq in line[:400]


def is_hole(data: bytes, bad: int) -> bool:
    """Whether line `bad`, and all behind it, can be one append of which a power cut left zeros in the midst.

    Whatever follows the last record of an append was written when that append was durable.
    """
    first, *more = data.split(b"\n")[bad:]
    more = [line for line in more if line.strip(b"\0")]
    return b"\0" in first and not any(ends_append(line) for line in more[:-1])


def ends_append(line: bytes) -> bool:
    """Whether this is a whole record, of any number, that no other of its append follows."""
    number = re.search(rb',"offset":(\d+),', line[:400])
    return number is not None and is_record(line, int(number[1])) and b'"more":true,' not in line[:400]


def check_scan(found: Journal, rng: random.Random) -> str:
    """The store's reader takes every journal for what it is."""
    lines = found.lines[: found.at + 3]  # what comes later is no news
    data = b"".join(line + b"\n" for line in lines)
    if rng.random() < 0.1:  # the last append was cut short, and zeros may stand for what was to come
        data = data[: -rng.choice((1, 1, 2, 20))] + b"\0" * rng.choice((0, 0, 1, 30))
    good, bad = whole_lines(data)
    try:
        scanned = jsonl_journal.scan(data, PATH)
        scanned_session = scanned.session
    except CorruptHistoryError as error:
        if bad is None and reason_of(error) != "CorruptHistoryError: envelope":
            raise Finding(f"a whole journal is refused: {error}") from error
        if (
            bad is not None
            and is_hole(data, bad)
            and type(error) is CorruptHistoryError
            and "envelope" not in str(error)
        ):
            raise Finding(f"an append that was cut short is refused: {error}") from error
        check_place(error, bad, sum(len(line) + 1 for line in good))
        return reason_of(error)
    except Exception as error:
        raise Finding(f"scan raised {error!r}") from error
    if bad is not None and is_hole(data, bad) and scanned.wrong is not None and len(scanned.lines) <= bad:
        check_place(scanned.wrong, bad, sum(len(line) + 1 for line in good))
    elif bad is not None:
        taken = data.split(b"\n")[bad]
        raise Finding(f"line {bad + 1} is no record {bad}, and was taken for one: {taken[:200]!r}")
    check_content(data, good, scanned)
    if not isinstance(scanned_session, int):
        raise Finding(f"the session is {scanned_session!r}")
    if not found.repaired and tuple(scanned.lines) != found.original[: len(scanned.lines)]:
        raise Finding("content was altered, and nobody told")
    if len(scanned.lines) < len(lines):
        return "torn"
    return "unchanged" if tuple(scanned.lines) == found.original[: len(lines)] else "as the bytes say"


def check_content(data: bytes, good: list[bytes], scanned: jsonl_journal.Scan) -> None:
    """Bytes in, bytes out: what was read, and what is torn, make up the journal."""
    text = b"".join(line + b"\n" for line in scanned.lines)
    if scanned.size != len(text):
        raise Finding(f"the size is {scanned.size}, and the records take {len(text)} bytes")
    rest = data.removeprefix(text[:-1] if scanned.unended else text)
    if scanned.torn != (rest.removeprefix(b"\0") if scanned.unended else rest):  # a newline takes one zero's place
        raise Finding("records and torn bytes don't make up the journal")
    ended = scanned.lines[:-1] if scanned.unended else scanned.lines
    if ended != good[: len(ended)]:
        raise Finding("the records are not the journal's lines")
    if scanned.unended and not is_record(scanned.lines[-1], len(ended)):
        raise Finding(f"an unended line is no record, and was taken for one: {scanned.lines[-1][:200]!r}")
    held_back = good[len(ended) :]
    if not scanned.unended and any(b'"more":true,' not in line[:400] for line in held_back):
        raise Finding(f"{len(held_back)} whole records were taken for torn")


def check_place(error: CorruptHistoryError, bad: int | None, byte: int) -> None:
    """An error of the store names file, line and byte, and they are right."""
    match = _PLACE.match(str(error))
    if match is None or match["file"] != PATH or not error.place:
        raise Finding(f"an error does not name file, line and byte: {error}")
    if bad is not None and (int(match["line"]), int(match["byte"]), error.byte) != (bad + 1, byte, byte):
        raise Finding(f"the damage is in line {bad + 1}, byte {byte}, and the error says: {error} (byte={error.byte})")
    if isinstance(error, NewerFormatError) and "upgrade" not in str(error):
        raise Finding(f"a newer format is refused without a remedy: {error}")


# ---- the decoder


def check_event(found: Journal) -> tuple[str, e.Event | None]:
    """The decoder gives what the line says, or a typed error."""
    line = found.lines[found.at]
    try:
        event = read_event(line, "the place")
    except CorruptHistoryError as error:
        if "the place" not in str(error) or error.place != "the place":
            raise Finding(f"an error does not say where: {error}") from error
        return reason_of(error), None
    except Exception as error:
        raise Finding(f"read_event raised {error!r}") from error
    if line == found.original[found.at]:
        return "unchanged", event
    if not found.repaired:
        raise Finding(f"a line was altered, and nobody told: {line[:400]!r}")
    return compared(event, line), event


def compared(event: e.EventBase, line: bytes) -> str:
    """Hold an event against another reader of the same line."""
    try:
        row = json.loads(line, parse_int=Digits)
    except (ValueError, RecursionError):
        return "as the bytes say, unread"  # the other reader has limits that the decoder leaves to the codec
    if row["type"] != event.kind:
        raise Finding(f"a {row['type']!r} was read as {event.kind!r}")
    for name, key in zip(event.__struct_fields__, event.__struct_encode_fields__, strict=True):
        value = getattr(event, name)
        if value is e.UNSET:
            if key in row:
                raise Finding(f"{key} is recorded and was not read")
        elif key in row and not same(value, row[key]):
            raise Finding(f"{key} is {row[key]!r} in the line and was read as {value!r}")
    return "as the bytes say"


def same(value: Any, recorded: Any) -> bool:
    """Whether a field holds what the JSON says."""
    if isinstance(value, msgspec.Raw):
        return repr(json.loads(bytes(value), parse_int=Digits)) == repr(recorded)
    if isinstance(value, Failure):
        usual = {"types": None, "message": "", "code": None, "where": "", "attempts": 0}
        told = asdict(value) | {"types": list(value.types)}
        return bool(told == {key: plain(recorded.get(key, default)) for key, default in usual.items()})
    if isinstance(value, float):
        return value == float(recorded)
    return bool(value == plain(recorded))


def plain(recorded: Any) -> Any:
    """JSON with its integers as integers."""
    if isinstance(recorded, Digits):
        return int(recorded)
    if isinstance(recorded, dict):
        return {key: plain(value) for key, value in recorded.items()}
    if isinstance(recorded, list):
        return [plain(value) for value in recorded]
    return recorded


# ---- the fold


class OneHistory:
    """As much of a store as `load` asks for."""

    def __init__(self, lines: Sequence[bytes]) -> None:
        self._lines = list(lines)

    def read(self, run_id: str, from_seq: int = 0, *, incarnation: int | None = None, limit: int | None = None) -> Tail:
        return Tail(incarnation or 0, from_seq, self._lines[from_seq:], False)


@cache
def parts() -> Parts:
    """What `load` needs, without a store."""
    return make_engine(MemoryStore(), VirtualClock())._parts


def check_fold(found: Journal) -> str:
    """The fold takes an event that decodes, or refuses it with a typed error; and so does what shows the run."""
    try:
        store: Any = OneHistory(found.lines)
        loaded = load(replace(parts(), store=store), found.run.run_id)
    except LOADING as error:
        return reason_of(error)
    except Exception as error:
        raise Finding(f"the fold raised {error!r} of {found.lines[found.at][:400]!r}") from error
    try:
        waits_of(loaded.machine, 0)
        return "folded"
    except StepwellError as error:
        return reason_of(error)
    except Exception as error:
        raise Finding(f"showing the run raised {error!r} of {found.lines[found.at][:400]!r}") from error
    finally:
        loaded.machine.close()
