"""Every byte of a Redis store, looked at and left as it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from attrs import define
from msgspec.structs import replace

from stepwell.errors import CorruptHistoryError, NewerFormatError, RunArrivingError, RunMovedError
from stepwell.store import RunHead, Verified, envelope

from .history import read
from .reads import LOOK, NAMES, STRAYS
from .rows import head_values, run_head
from .server import Server

__all__ = ["verify"]

_PAGE = 500  # runs whose names are held at once
_KEYS = 1_000  # keys that one SCAN looks at


def verify(server: Server) -> Iterator[Verified]:
    """Read all runs by their index, each on its own, then look for keys that belong to none."""
    return _Look(server).parts()


@define
class _Look:
    """One look at a store."""

    server: Server

    def parts(self) -> Iterator[Verified]:
        """All parts. How many runs there are is asked for each page: others may go on."""
        done = 0
        begin: tuple[Any, Any] = (b"", b"")
        while True:
            total, page = self.server.again(NAMES, "", *begin, _PAGE)
            if not page:
                break
            for run_id in page[::2]:
                done += 1
                for part in self._run(run_id):
                    yield replace(part, share=min(0.99, done / (max(total, done) + 1)))
            begin = (page[-2], page[-1])
        yield from (replace(part, share=0.99) for part in self._strays())
        yield Verified(self.server.where.name, share=1.0)

    def _run(self, run_id: bytes) -> Iterator[Verified]:
        """A run: its row, then each of its incarnations."""
        text = run_id.decode(errors="replace")
        place = f"{self.server.where.name}, run {text!r}"
        try:
            row = self.server.again(LOOK, "", run_id)
        except NewerFormatError:
            raise
        except CorruptHistoryError as e:
            yield Verified(place, problem=e)
            return
        if row[0] == b"none":
            if row[1] == b"1":
                yield Verified(place, problem=_problem(place, "its index names it, and there is no row"))
            return
        head = None
        try:
            head = run_head(row[1], self.server.where.name)
            problem = _row_problem(place, head, row)
        except CorruptHistoryError as e:
            problem = e
        if problem is not None:
            yield Verified(place, text, size=len(row[1][7] or b""), problem=problem)
        for number in range(int(row[1][1]) + 1):
            yield self._history(place, text, number, head)

    def _history(self, place: str, run_id: str, number: int, head: RunHead | None) -> Verified:
        place = f"{place}, incarnation {number}"
        problem = None
        try:
            tail = read(self.server, "", run_id, 0, number, None)
        except (RunMovedError, RunArrivingError):
            tail = None
        except NewerFormatError as e:
            return Verified(place, run_id, number, problem=e)
        except CorruptHistoryError as e:
            return Verified(place, run_id, number, problem=e)
        if tail is None:  # it was removed meanwhile
            return Verified(place, note="was removed meanwhile")
        lines = tail.records
        if not lines:
            problem = _problem(place, "has no records")
        elif head is not None and number == head.incarnation and tail.seq == head.seq:
            closed = envelope(lines[-1], place).then == "closed"
            if closed != head.closed:
                problem = _problem(place, f"the row says that it is {'closed' if head.closed else 'open'}; it is not")
        return Verified(place, run_id, number, lines, sum(map(len, lines)), problem)

    def _strays(self) -> Iterator[Verified]:
        """Rows that no index has, and records that belong to no run."""
        pattern = f"{{{self.server.where.prefix}}}:"
        cursor: Any = b"0"
        while True:
            answer = self.server.ask(("SCAN", cursor, "MATCH", f"{pattern}*", "COUNT", _KEYS))[0]
            if answer is None:
                yield Verified(
                    pattern, note="SCAN is not allowed here, so keys that belong to no run are not looked for"
                )
                return
            cursor, keys = answer
            mine = [key for key in keys if key[len(pattern) :].startswith((b"run:", b"log:"))]
            for key, what in self.server.again(STRAYS, "", *mine)[1] if mine else ():
                place = f"{self.server.where.name}, key {key.decode(errors='replace')}"
                yield Verified(place, problem=_problem(place, what.decode()))
            if cursor in (b"0", "0", 0):
                return


def _row_problem(place: str, head: RunHead, row: Any) -> CorruptHistoryError | None:
    """What is wrong with a row that can be read: the values by which it is listed are not those of its head."""
    _, _, names, created, updated, workflow, kind, _ = head_values(head.head)
    wanted = [str(value).encode() for value in (names, created, updated, workflow, kind)]
    if wanted != row[2:7]:
        return _problem(place, "it is listed by other values than its head holds")
    if row[8]:
        return _problem(place, f"it is missing in {', '.join(key.decode() for key in row[8])}")
    return None


def _problem(place: str, what: str) -> CorruptHistoryError:
    return CorruptHistoryError(f"{place}: {what}", place=place)
