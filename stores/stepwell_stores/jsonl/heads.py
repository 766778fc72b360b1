"""What is kept of a run beside its journals, and how: the head with its lease, and the fence. Each has a checksum."""

from __future__ import annotations

import zlib

import msgspec

from stepwell.store import Arrival, Departure, Head

from ..file_names import encode
from ..rules import Position, status_from
from .journal import mark

__all__ = ["Fence", "Held", "Run", "begun", "fence_bytes", "fence_from", "head_bytes", "head_from", "journal"]

_BLOCK = 512
_CRC = len(', "crc": "00000000"}')
_DAMAGED = (msgspec.MsgspecError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError)


class Fence(msgspec.Struct, frozen=True):
    """The newest session number of a run id, and what must be known when its journals are gone.

    Attributes:
        departure: where the run went.
        arrival: the run that is to come. Its journals are there already, and nobody is to see them.
    """

    run_id: str
    fence: int
    deleted: bool = False
    created: int = 0
    departure: Departure | None = None
    arrival: Arrival | None = None


class Held(msgspec.Struct, frozen=True):
    """A lease, live or lapsed. `token` is that of the request that it was granted to."""

    owner: str
    until: int
    lock: str | None
    token: str


class Run(msgspec.Struct, frozen=True, rename={"run_id": "runId", "held": "lease"}):
    """Where a run stands, as its head file has it.

    No field has a default: a head that lacks one is not believed.

    Attributes:
        size: that of the current journal in bytes.
        session: the highest in it.
        tail: what stands for its last record.
    """

    run_id: str
    incarnation: int
    seq: int
    size: int
    session: int
    fence: int
    closed: bool
    tail: str
    head: Head
    held: Held | None

    @property
    def stem(self) -> str:
        """The stem of the names of its files."""
        return encode(self.run_id)

    @property
    def position(self) -> Position:
        """As far as an append cares."""
        return Position(self.incarnation, self.seq, self.fence, self.closed)

    @property
    def journal(self) -> str:
        """The name of its current journal."""
        return f"{encode(self.run_id)}.{self.incarnation}.jsonl"


_read_run = msgspec.json.Decoder(Run).decode


def journal(stem: str, incarnation: int) -> str:
    """The name of an incarnation's journal."""
    return f"{stem}.{incarnation}.jsonl"


def begun(
    run_id: str, incarnation: int, lines: list[bytes], fence: int, closed: bool, head: Head, held: Held | None
) -> Run:
    """Where a run stands after the first records of an incarnation."""
    size = sum(len(line) + 1 for line in lines)
    return Run(run_id, incarnation, len(lines), size, fence, fence, closed, mark(lines[-1]), head, held)


def head_bytes(run: Run) -> bytes:
    """What a head file holds. Its size hardly ever changes, which makes the next sync cheaper."""
    text = _summed(msgspec.json.encode(run))
    return text.ljust(len(text) // _BLOCK * _BLOCK + _BLOCK - 1) + b"\n"


def head_from(data: bytes, stem: str) -> Run | None:
    """What `head_bytes` made for these files; None when it is no head, or another run's."""
    text = data.rstrip()
    if not _is_summed(text):
        return None
    try:
        run = _read_run(text)
        status_from(run.head.status)
        return run if run.stem == stem else None
    except _DAMAGED:
        return None


def fence_bytes(fence: Fence) -> bytes:
    """What a fence file holds."""
    row: dict[str, object] = {"runId": fence.run_id, "fence": fence.fence}
    row |= {"deleted": fence.deleted, "created": fence.created}
    for name in ("departure", "arrival"):
        if getattr(fence, name) is not None:
            row[name] = getattr(fence, name)
    return _summed(msgspec.json.encode(row))


def fence_from(data: bytes, stem: str) -> Fence:
    """What `fence_bytes` made for these files.

    Raises:
        ValueError: it is no fence, or another run's; the text says which.
    """
    if not _is_summed(data):
        raise ValueError("the checksum is wrong")
    try:
        row = msgspec.json.decode(data)
        departure = msgspec.convert(row.get("departure"), Departure | None)
        arrival = msgspec.convert(row.get("arrival"), Arrival | None)
        numbers = (int(row["fence"]), bool(row["deleted"]), int(row["created"]))
        fence = Fence(str(row["runId"]), *numbers, departure, arrival)
        mine = encode(row["runId"]) == stem
    except _DAMAGED as e:
        raise ValueError(str(e)) from e
    if not mine:
        raise ValueError("it is another run's")
    return fence


def _summed(text: bytes) -> bytes:
    """A JSON object with a checksum of all bytes before it."""
    return b'%b, "crc": "%08x"}' % (text[:-1], zlib.crc32(text[:-1]))


def _is_summed(text: bytes) -> bool:
    return text[-_CRC:] == b', "crc": "%08x"}' % zlib.crc32(text[:-_CRC])
