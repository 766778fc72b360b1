"""What the bytes of a journal say: which are records, which are torn, and what a head can be rebuilt from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from attrs import frozen

from stepwell.errors import CorruptHistoryError, NewerFormatError
from stepwell.store import Envelope, Head, Status, envelope, open_body, verify_lines

__all__ = ["Scan", "check_lines", "find_attempt", "mark", "rebuilt_head", "scan", "scan_from"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ENDS: dict[str, Status] = {"complete": "completed", "error": "failed", "cancelled": "cancelled"}


@frozen
class Scan:
    """A journal taken apart.

    Attributes:
        lines: the records of whole batches, each checked.
        size: bytes that they take, newlines included.
        unended: the last of them lacks nothing but its newline; `size` counts that.
        torn: what follows: an append that was cut short and never acknowledged.
        wrong: the first line of `torn` that is no record, if it is one with holes. An append that takes several pages
            may be torn so that a page in its midst is missing. In a record that is known to have been acknowledged
            that is damage.
        seq: the number of the first record in `lines`.
        at: the byte at which it begins.
    """

    lines: list[bytes]
    size: int
    unended: bool
    torn: bytes
    wrong: CorruptHistoryError | None = None
    seq: int = 0
    at: int = 0

    @property
    def closed(self) -> bool:
        return bool(self.lines) and envelope(self.lines[-1]).then == "closed"

    @property
    def session(self) -> int:
        """The highest session in it, which is the last record's."""
        return envelope(self.lines[-1]).session if self.lines else 0


def scan(data: bytes, path: str) -> Scan:
    """Take a journal apart; each record is checked.

    Raises:
        CorruptHistoryError: a line that ends in a newline is no record, or not the one that belongs there, and that is
            not for an append that was cut short.
        NewerFormatError: a record of a newer format.
    """
    return scan_from(data, path, 0, 0)


def scan_from(data: bytes, path: str, seq: int, at: int) -> Scan:
    """As `scan`, of what a journal holds from record number `seq` on, which begins at byte `at`."""
    pieces = data.split(b"\n")  # never splitlines: other line ends are data
    rest = pieces.pop()
    wrong = None
    try:
        check_lines(pieces, seq, at, path)
    except CorruptHistoryError as e:
        first = e.seq - seq
        if isinstance(e, NewerFormatError) or not _holed(pieces[first:], rest, path):
            raise
        wrong, rest = e, b""
        del pieces[first:]
    last = rest.rstrip(b"\0")  # a power cut may leave zeros where the newline was to be
    unended = bool(last) and _whole(last, seq + len(pieces))
    if unended:
        pieces.append(last)
    whole = len(pieces)
    while whole and _envelope(pieces, whole - 1, seq, at, path).more:
        whole -= 1
    size = _bytes(pieces[:whole])
    return Scan(pieces[:whole], at + size, unended and whole == len(pieces), data[size:], wrong, seq, at)


def check_lines(lines: list[bytes], seq: int, at: int, path: str) -> None:
    """Check lines of a journal, the first of which is to be record number `seq` and begins at byte `at`.

    Raises:
        CorruptHistoryError, NewerFormatError: with the place of the first that is not the record that belongs there.
    """
    try:
        verify_lines(lines, seq, lambda number: _place(lines, number - seq, seq, at, path))
    except CorruptHistoryError as e:
        e.byte = at + _bytes(lines[: e.seq - seq])
        raise


def _holed(lines: list[bytes], rest: bytes, path: str) -> bool:
    """Whether lines can be what a power cut left of one append: zeros in the first, and nothing behind its last record.

    The next append is made when this one is durable, so it can't be there.
    """
    if b"\0" not in lines[0]:
        return False
    following = [line for line in (*lines[1:], rest) if line.strip(b"\0")]
    return not any([_ends(line, path) for line in following][:-1])


def _ends(line: bytes, path: str) -> bool:
    """Whether a line is a whole record, the last of its append."""
    try:
        return not envelope(line, path).more
    except NewerFormatError:
        raise
    except CorruptHistoryError:
        return False


def _bytes(lines: list[bytes]) -> int:
    return sum(len(line) + 1 for line in lines)


def _place(lines: list[bytes], index: int, seq: int, at: int, path: str) -> str:
    return f"{path}, line {seq + index + 1}, byte {at + _bytes(lines[:index])}"


def _envelope(lines: list[bytes], index: int, seq: int, at: int, path: str) -> Envelope:
    try:
        return envelope(lines[index], _place(lines, index, seq, at, path))
    except CorruptHistoryError as e:
        e.seq, e.byte = seq + index, at + _bytes(lines[:index])
        raise


def _whole(line: bytes, seq: int) -> bool:
    try:
        verify_lines([line], seq, str)
    except CorruptHistoryError:
        return False
    return True


def mark(line: bytes) -> str:
    """What stands for a sealed record: its checksum."""
    return line[-10:-2].decode("ascii", "replace")


def find_attempt(parts: Iterable[bytes], attempt_id: str, path: str) -> int | None:
    """The seq of the record that an attempt began with; None when it isn't there.

    Args:
        parts: the bytes of a journal, from its beginning, in pieces of any size.
        path: named in errors.
    """
    needle = f'"attemptId":"{attempt_id}",'.encode()
    rest = b""
    for part in parts:
        rest += part
        end = rest.rfind(b"\n") + 1
        found = _find(rest[:end], needle, attempt_id, path)
        if found is not None:
            return found
        rest = rest[end:]
    return _find(rest, needle, attempt_id, path)


def _find(data: bytes, needle: bytes, attempt_id: str, path: str) -> int | None:
    at = data.find(needle)
    while at >= 0:
        end = data.find(b"\n", at)
        end = len(data) if end < 0 else end
        record = envelope(data[data.rfind(b"\n", 0, at) + 1 : end], path)
        if record.attempt_id == attempt_id:
            return record.offset
        at = data.find(needle, end)
    return None


def rebuilt_head(lines: Sequence[bytes], known: Head | None, path: str) -> Head:
    """A head from the history alone, for when the one that was kept is lost or behind.

    An open run counts as due since its last record, so that an owner looks at it. `known`, the head that is behind,
    still says what doesn't change.
    """
    first, last = _members(lines[0], path), _members(lines[-1], path)
    created, updated = _micros(first.get("timestamp")), _micros(last.get("timestamp"))
    closing = envelope(lines[-1])
    status: Status = _ENDS.get(closing.type.partition("+")[0], "completed") if closing.then == "closed" else "pending"
    due = updated if status == "pending" else None
    if known is not None:
        return Head(
            status, known.workflow, known.version, known.created, max(updated, known.updated), due, (), known.tags
        )
    tags = first.get("tags") or {}
    if not isinstance(tags, dict):
        raise CorruptHistoryError(f"{path}: tags are no object", place=path)
    workflow, version = str(first.get("workflow", "")), str(first.get("version", ""))
    return Head(status, workflow, version, created, updated, due, (), {str(k): str(v) for k, v in tags.items()})


def _members(line: bytes, path: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(open_body(line) + b"}")
    except (ValueError, RecursionError) as e:
        raise CorruptHistoryError(f"{path}: a record is no JSON: {e}", place=path) from e
    return found


def _micros(text: object) -> int:
    """Microseconds since 1970 of a recorded instant, 0 when there is none."""
    try:
        when = datetime.fromisoformat(str(text))
    except ValueError:
        return 0
    return (when - _EPOCH) // timedelta(microseconds=1) if when.tzinfo else 0
