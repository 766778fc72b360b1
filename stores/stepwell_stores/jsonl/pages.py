"""Records of a journal, page by page: where a page ends is remembered, so that the next one begins there."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator

from attrs import evolve

from stepwell.errors import CorruptHistoryError

from ..liveness import ForkAware, watch_forks
from .files import Directory
from .journal import Scan, check_lines, scan_from

__all__ = ["Pages"]

_CHUNK = 1 << 18
_MARKS = 512


class Pages(ForkAware):
    """Reads journals of a directory. All calls need the run's lock.

    What was acknowledged of a journal never changes, so a record stays where it is as long as the journal is there. In
    a journal that took its place under the same inode another record would be found, or none; then it is read from its
    beginning.
    """

    def __init__(self, files: Directory) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._marks: OrderedDict[tuple[str, int], int] = OrderedDict()
        watch_forks(self)

    def mark(self, name: str, seq: int, byte: int) -> None:
        """Remember where a record begins, or will."""
        with self._lock:
            self._marks[name, seq] = byte
            self._marks.move_to_end((name, seq))
            if len(self._marks) > _MARKS:
                self._marks.popitem(last=False)

    def after_fork_in_child(self) -> None:
        """Make a new lock: the inherited one may be held by a thread that isn't here."""
        self._lock = threading.Lock()

    def read(self, name: str, seq: int, limit: int | None, size: int | None) -> tuple[Scan, bool]:
        """Records of a journal, each checked once, and whether its end was reached.

        Args:
            seq: the first that is wanted; when the end was reached, those given may begin before it, or be none.
            limit: how many; None: all.
            size: of what was acknowledged; None: the whole file is read, up to what may be torn.

        Raises:
            CorruptHistoryError: as `scan`, but of a damaged record only when it is met.
        """
        with self._lock:
            byte = self._marks.get((name, seq))
        if byte is not None:
            with contextlib.suppress(CorruptHistoryError):
                found = self._read(name, seq, limit, size, seq, byte)
                if found[0].lines:
                    return found
            with self._lock:
                self._marks.pop((name, seq), None)
        return self._read(name, seq, limit, size, 0, 0)

    def _read(self, name: str, seq: int, limit: int | None, size: int | None, at: int, byte: int) -> tuple[Scan, bool]:
        """As `read`, beginning with record number `at`, which begins at `byte`."""
        try:
            with self._files.reading(name) as fd:
                return self._walk(fd, name, seq, limit, size, at, byte)
        except FileNotFoundError:
            return Scan([], 0, False, b""), True

    def _walk(
        self, fd: int, name: str, seq: int, limit: int | None, size: int | None, at: int, byte: int
    ) -> tuple[Scan, bool]:
        path = self._files.file(name)
        kept, first, start = list[bytes](), at, byte  # those that may be given, the number of the first, its byte
        parts = list[bytes]()
        for data, ended in _chunks(fd, byte, size):
            parts.append(data)
            if not ended and b"\n" not in data:
                continue  # a long record
            rest = b"".join(parts)
            most = -1 if limit is None else seq + limit - at
            pieces = rest.split(b"\n", most)
            tail = pieces.pop()
            full = len(pieces) == most
            if ended and not (full and tail):
                found = scan_from(rest, path, at, byte)
                return evolve(found, lines=[*kept, *found.lines], seq=first, at=start), True
            check_lines(pieces, at, byte, path)
            kept += pieces
            at, byte, parts = at + len(pieces), byte + len(rest) - len(tail), [tail]
            if full:
                page = Scan(kept, byte, False, b"", None, first, start)
                if size is None and page.closed:
                    return page, True  # an older incarnation; what follows was never acknowledged
                self.mark(name, at, byte)
                return page, False
            if at <= seq and kept:  # the last one stays, for it may be the last of all
                start += sum(len(line) + 1 for line in kept[:-1])
                first, kept = at - 1, kept[-1:]
        raise AssertionError("the last bytes end it")


def _chunks(fd: int, byte: int, size: int | None) -> Iterator[tuple[bytes, bool]]:
    """Bytes of a file from `byte` on, and whether they are the last ones."""
    stop = os.fstat(fd).st_size if size is None else size
    os.lseek(fd, byte, os.SEEK_SET)
    ended = False
    while not ended:
        data = os.read(fd, max(min(_CHUNK, stop - byte), 0))
        byte += len(data)
        ended = byte >= stop or not data
        yield data, ended
