"""How a wrapper's record lies in a line, and the pieces that it is taken apart to and put together from.

A changed record stays a record, so that any store can keep it: the same envelope, but a mark behind its type (`step`
becomes `step+enc`), and a body that begins with what people and indexes go by:

    "timestamp":"...","workflow":"...","version":"..."     as it was, as far as the body begins so
    "enc":"k1:9f3c21"                                      a member of the wrapper's own
    "tags":{...}                                           copies, in a `start` record, of what else a head is made from
    "box":"..."                                            the rest of the body, changed

Whoever reads it without the wrapper meets a type that is no event's, and is told which wrapper is missing.
"""

from __future__ import annotations

import re
from typing import NoReturn
from zlib import crc32

import msgspec
from msgspec import UNSET, Raw

from stepwell.errors import CorruptHistoryError
from stepwell.store import Draft

__all__ = ["at_last", "body_of", "corrupt", "joined", "matched", "place", "remade", "split"]

_LINE = re.compile(
    rb'\{"v":[0-9]+,"type":"([^"]*)","session":([0-9]+),"offset":[0-9]+,'
    rb'(?:"more":true,)?(?:"then":"closed",)?(?:"left":[0-9]+,)?(?:"attemptId":"([^"]*)",)?'
)
_TEXT = rb'"(?:[^"\\]|\\.)*"'
_BEGIN = re.compile(rb'"timestamp":"[^"\\]*"(?:,"workflow":%b)?(?:,"version":%b)?(?=,|\Z)' % (_TEXT, _TEXT))
_CRC_TAIL = len(b',"crc":"00000000"}')


class _Copied(msgspec.Struct):
    """What of a `start` record a head is made from, when it is made from the history alone."""

    timestamp: Raw | msgspec.UnsetType = UNSET
    workflow: Raw | msgspec.UnsetType = UNSET
    version: Raw | msgspec.UnsetType = UNSET
    tags: Raw | msgspec.UnsetType = UNSET


_read_copied = msgspec.json.Decoder(_Copied).decode


def split(draft: Draft) -> tuple[bytes, bytes, dict[str, bytes]]:
    """The beginning of a body that stays readable, the rest of it, and copies of readable members of the rest."""
    body = draft.body
    found = _BEGIN.match(body)
    begin = b"" if found is None else found[0]
    copies: dict[str, bytes] = {}
    if draft.type.partition("+")[0] == "start":
        try:
            members = _read_copied(b"{%b}" % body)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return begin, body[len(begin) :], copies
        for name in members.__struct_fields__:
            value = getattr(members, name)
            if value is not UNSET and not (value and b'"%b":%b' % (name.encode(), bytes(value)) in begin):
                copies[name] = bytes(value)
    return begin, body[len(begin) :], copies


def joined(begin: bytes, own: bytes, copies: dict[str, bytes], last: bytes = b"") -> bytes:
    """A body made of what `split` gave, with members of the wrapper's own: `own` in front of the copies."""
    more = b"".join(b',"%b":%b' % (name.encode(), value) for name, value in copies.items())
    return b"%b%b%b%b%b" % (begin, b"," if begin else b"", own, more, last)


def remade(found: re.Match[bytes], kind: bytes, body: bytes) -> bytes:
    """A record with another type and body under the same envelope; `found` is its match."""
    line = found.string
    start, stop = found.span(1)
    new = b"%b%b%b%b" % (line[:start], kind, line[stop : found.end()], body)
    if not body:
        new = new[:-1]  # the comma behind the envelope
    return b'%b,"crc":"%08x"}' % (new, crc32(new))


def matched(line: bytes) -> re.Match[bytes] | None:
    """The envelope of a record that has a body; its first group is the type."""
    return _LINE.match(line)


def at_last(body: bytes, member: bytes, kind: bytes) -> int:
    """Where a wrapper's last member begins; -1 when it isn't there. Only a `start` record has others' text before."""
    return body.rfind(member) if kind.startswith(b"start") else body.find(member)


def body_of(found: re.Match[bytes]) -> bytes:
    """The body of a record, by the match of its envelope."""
    return found.string[found.end() : -_CRC_TAIL]


def place(run_id: str, incarnation: int, seq: int) -> str:
    """A record, for texts."""
    return f"run {run_id!r}, incarnation {incarnation}, event {seq}"


def corrupt(run_id: str, incarnation: int, seq: int, what: str, cause: BaseException | None = None) -> NoReturn:
    """Raise that a record is not what was written."""
    where = place(run_id, incarnation, seq)
    error = CorruptHistoryError(f"{where}: {what}; restore it from a backup", place=where, seq=seq)
    raise error from cause
