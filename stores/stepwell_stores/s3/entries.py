"""An entry of a run's log: where the run stands after it, its records, and how that lies in an object."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NoReturn

import msgspec
from msgspec.structs import replace

from stepwell.errors import CorruptHistoryError, NewerFormatError
from stepwell.store import Arrival, Departure, Head, RunHead

from ..rules import Position, earlier

__all__ = ["FORMAT", "STUB", "Entry", "Held", "Part", "State", "decode", "encode", "name_of"]

FORMAT = 1
"""Version of the layout of the bucket and its objects."""

_BEGIN = b'{"stepwell":%d,' % FORMAT
_NEWER = re.compile(rb'\{"stepwell":([0-9]{1,9}),')
STUB = _BEGIN + b'"removed":true}\n'
"""What stays at a run's first key when its entries are removed: so nobody makes an object there any more."""

_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
_LONGEST = 200
_KEPT = 100
_ATTEMPTS = 16  # so many are carried along from entry to entry


class Held(msgspec.Struct, frozen=True):
    """A lease, live or lapsed.

    Attributes:
        token: that of the request that it was granted to.
        lock: by which others on the owner's machine can tell whether it lives.
    """

    owner: str
    until: int
    token: str = ""
    lock: str = ""


class Part(msgspec.Struct, frozen=True, array_like=True, order=True):
    """Records of a run that came from another store: `count` from `seq` on, after the first `skip` of an entry."""

    incarnation: int
    seq: int
    count: int
    entry: int
    skip: int = 0

    @property
    def stop(self) -> int:
        return self.seq + self.count


class State(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a run stands after an entry. All of it is in the entry, so that the last one tells everything.

    Attributes:
        entry: number of the entry, 0-based; never used again for a run id, also not after a delete.
        at: when it was written, by the bucket's clock.
        nonce: tells it from every other entry that anybody might have written there.
        count: how many records the entry holds.
        seq: how many the current incarnation has, with those.
        first: number of the entry with which the current incarnation began.
        born: number of the entry with which the run was created.
        events: records of all incarnations.
        hint: (instant, entry) of the object that tells when the run is due; None when it needs none.
        attempts: where the newest attempts of outside writers, and those that began incarnations, were written.
        older: number of the entry that has the attempts before those.
        deleted: no such run is here; what is left of one that was is its fence.
        arrival: the run that is to come under this id; the entry's records are staged, and `incarnation` and `seq` tell
            where they are in it. Such a state is `deleted`, and `born` is the entry with which it began to arrive.
        departure: where the run of this id went; kept until one has landed.
        landed: number of the entry with which the run landed here; it has `parts`, where its records are of then.
    """

    run_id: str
    entry: int
    at: int
    nonce: str
    fence: int
    incarnation: int
    seq: int
    closed: bool
    head: Head
    first: int
    born: int
    events: int
    count: int
    held: Held | None = None
    hint: tuple[int, int] | None = None
    attempts: dict[str, tuple[int, int]] = {}
    older: int | None = None
    deleted: bool = False
    sizes: tuple[int, ...] = ()
    arrival: Arrival | None = None
    departure: Departure | None = None
    landed: int | None = None
    parts: tuple[Part, ...] = ()

    @property
    def buried(self) -> int:
        """Number of the newest grave, by what this entry knows; -1: there is none. No entry before it is a run's."""
        return self.entry if self.deleted and self.arrival is None else self.born - 1

    @property
    def position(self) -> Position:
        """Where it stands, as far as an append cares."""
        return Position(self.incarnation, self.seq, self.fence, self.closed)

    def live(self, now: int) -> Held | None:
        """The lease, if somebody holds it."""
        return self.held if self.held is not None and self.held.until > now else None

    def shown(self, now: int) -> RunHead:
        """Its head, with what the store knows of it."""
        live = self.live(now)
        until = None if live is None else live.until
        return RunHead(self.run_id, self.incarnation, self.seq, self.fence, self.closed, until, self.head)

    def wanted(self) -> int | None:
        """The earliest instant at which it may want to be driven: when it is due, or its lease lapses."""
        if self.closed or self.deleted:
            return None
        return earlier(self.head.due, None if self.held is None else self.held.until)

    def due(self, now: int) -> int | None:
        """When it wants to be driven; one whose lease has lapsed was left by a dead owner."""
        return None if self.live(now) is not None else self.wanted()

    def after(self, now: int, count: int = 0, **changes: Any) -> State:
        """The state after one more entry with so many records."""
        changes = {"events": self.events + count, "sizes": (), "parts": (), **changes}
        return replace(self, entry=self.entry + 1, at=now, nonce=new_nonce(), count=count, **changes)

    def grave(self, now: int, **changes: Any) -> State:
        """The state after an entry that says that the run is gone."""
        nothing: dict[str, Any] = {"held": None, "seq": 0, "events": 0, "attempts": {}, "older": None, "landed": None}
        return self.after(now, deleted=True, arrival=None, **nothing, **changes)

    def noted(self, attempt_id: str, incarnation: int, seq: int, entry: int) -> State:
        """With an attempt that `entry` holds, this state's own."""
        if len(self.attempts) < _ATTEMPTS:
            return replace(self, attempts={**self.attempts, attempt_id: (incarnation, seq)})
        return replace(self, attempts={attempt_id: (incarnation, seq)}, older=entry - 1)


class Entry(msgspec.Struct, frozen=True):
    """An entry as it was read or written; `size` is that of its object."""

    state: State
    lines: list[bytes]
    size: int


def new_nonce() -> str:
    """Text that nobody else has."""
    return secrets.token_hex(8)


def encode(state: State, lines: Sequence[bytes]) -> bytes:
    """An entry as an object: the state as a line of JSON that ends in the SHA-256 of everything, then the records."""
    if any(b"\n" in line for line in lines):
        state = replace(state, sizes=tuple(map(len, lines)))
    header = _BEGIN + msgspec.json.encode(state)[1:-1]
    records = b"".join(b"%b\n" % line for line in lines)
    return b'%b,"sha256":"%b"}\n%b' % (header, _digest(header, records), records)


_TAIL = len(b',"sha256":""}') + 64


_read_state = msgspec.json.Decoder(State).decode


def decode(data: bytes, place: str, number: int) -> Entry | None:
    """Read an entry; None for the stub of one that was removed.

    Raises:
        NewerFormatError: it was written by a newer stepwell.
        CorruptHistoryError: it is none, damaged, or another one than number `number`.
    """
    if data == STUB:
        return None
    head, _, records = data.partition(b"\n")
    newer = _NEWER.match(head)
    if newer is not None and int(newer[1]) > FORMAT:
        raise NewerFormatError(
            f"{place}: written in format {int(newer[1])}, and this stepwell reads up to format {FORMAT}; upgrade "
            "stepwell",
            place=place,
        )
    header = head[:-_TAIL]
    if newer is None or head[-_TAIL:] != b',"sha256":"%b"}' % _digest(header, records):
        _refuse(place, "no entry of a run's log, or damaged: its checksum is wrong")
    try:
        state = _read_state(b"%b}" % header)
    except (msgspec.MsgspecError, UnicodeDecodeError) as e:
        _refuse(place, f"no entry of a run's log: {e}", e)
    lines = _split(records, state.sizes)
    if state.entry != number or len(lines) != state.count:
        _refuse(place, f"holds entry {state.entry} of run {state.run_id!r}, with {len(lines)} records")
    return Entry(state, lines, len(data))


def _split(records: bytes, sizes: tuple[int, ...]) -> list[bytes]:
    if not sizes:
        return records.split(b"\n")[:-1]
    lines, start = [], 0
    for size in sizes:
        lines.append(records[start : start + size])
        start += size + 1
    return lines


def _digest(header: bytes, records: bytes) -> bytes:
    found = hashlib.sha256(header)
    found.update(b"\n")
    found.update(records)
    return found.hexdigest().encode()


def _refuse(place: str, what: str, cause: BaseException | None = None) -> NoReturn:
    raise CorruptHistoryError(f"{place}: {what}; restore it from a backup", place=place) from cause


@lru_cache(maxsize=4096)
def name_of(run_id: str) -> str:
    """A run id as a part of a key: injective, and with nothing that means something to a bucket.

    Letters, digits, `_` and `-` stand for themselves, every other byte of the UTF-8 form for `=` and two hex digits.
    What gets too long ends in `=-` and a hash, which no other name has.

    Example:
        >>> name_of("Order-12"), name_of("orders/12")
        ('Order-12', 'orders=2f12')
    """
    name = "".join(chr(byte) if byte in _PLAIN else f"={byte:02x}" for byte in run_id.encode())
    if len(name) > _LONGEST:
        return f"{name[:_KEPT]}=-{hashlib.sha256(run_id.encode()).hexdigest()}"
    return name
