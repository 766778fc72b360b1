"""The files of one run, as one state: journals, the fence, and the head that is kept beside them.

<stem>.<n>.jsonl       the journal of incarnation n: the truth
<stem>.fence           the newest session number, durable before a lease is granted; outlives the run
<stem>.head.json       head and lease: a cache, written after the journal and rebuilt from it
<stem>.<n>.jsonl.torn  what was cut off a journal
"""

from __future__ import annotations

import contextlib
import re
import zlib

import msgspec
from msgspec import structs

from stepwell.errors import CorruptHistoryError
from stepwell.store import Head, envelope

from .jsonl_files import Directory
from .jsonl_journal import Scan, find_attempt, mark, rebuilt_head, scan
from .jsonl_names import decode, encode
from .rules import Position, earlier, status_from

__all__ = ["Fence", "Held", "Run", "Runs", "begun", "check_tail"]

_BLOCK = 512
_CRC = len(', "crc": "00000000"}')
_JOURNAL = re.compile(r"([a-z0-9_%~-]+)\.([0-9]+)\.jsonl")


class Fence(msgspec.Struct, frozen=True):
    """The newest session number of a run id, and what must be known when its journals are gone."""

    run_id: str
    fence: int
    deleted: bool = False
    created: int = 0


class Held(msgspec.Struct, frozen=True):
    """A lease, live or lapsed. `token` is that of the request that it was granted to."""

    owner: str
    until: int
    lock: str | None
    token: str


class Run(msgspec.Struct):
    """Where a run stands. `size` is that of the current journal in bytes, `session` the highest in it."""

    run_id: str
    stem: str
    incarnation: int
    seq: int
    size: int
    session: int
    fence: int
    closed: bool
    head: Head
    held: Held | None = None
    tail: str = ""  # what stands for the last record

    @property
    def position(self) -> Position:
        return Position(self.incarnation, self.seq, self.fence, self.closed)

    @property
    def journal(self) -> str:
        return journal(self.stem, self.incarnation)


class _Kept(msgspec.Struct, rename={"run_id": "runId"}):
    """What a head file holds, before its checksum."""

    run_id: str
    incarnation: int
    seq: int
    size: int
    session: int
    fence: int
    closed: bool
    tail: str
    head: Head
    lease: Held | None


_read_kept = msgspec.json.Decoder(_Kept).decode
_DAMAGED = (msgspec.MsgspecError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError)


def journal(stem: str, incarnation: int) -> str:
    """The name of an incarnation's journal."""
    return f"{stem}.{incarnation}.jsonl"


def begun(run_id: str, stem: str, incarnation: int, lines: list[bytes], fence: int, closed: bool, head: Head) -> Run:
    """Where a run stands after the first records of an incarnation."""
    size = sum(len(line) + 1 for line in lines)
    return Run(run_id, stem, incarnation, len(lines), size, fence, fence, closed, head, tail=mark(lines[-1]))


class Runs:
    """Reads and writes the files of runs. Every call but `stems` needs the run's lock."""

    def __init__(self, files: Directory) -> None:
        self._files = files

    def stems(self) -> list[str]:
        """The stems of all runs that have a journal."""
        self._files.prepare()
        found = (_JOURNAL.fullmatch(name) for name in self._files.names())
        return sorted({match[1] for match in found if match})

    def load(self, stem: str, *, writing: bool) -> Run | None:
        """Where a run stands; None when there is none.

        A head that knows the journal's size was kept after the journal was synced to it. Without one, the writer may
        have died before its sync: then the records are made durable before anybody acts on them, readers too.

        Args:
            writing: also cut off what a crash has left torn, to write behind what is whole.

        Raises:
            CorruptHistoryError: the files don't hold what the store writes.
        """
        fence = self.fence(stem)
        if fence is not None and fence.deleted:
            if self._files.size(journal(stem, 0)) is not None:  # its delete was cut short
                self._files.sync_names()  # that it is gone must be durable before anybody acts on it
                if writing:
                    self.clear(stem)
            return None
        known = self.cached(stem)
        number = 0 if known is None else known.incarnation
        size = self._files.size(journal(stem, number))
        if size is None:
            if known is None and self._files.size(journal(stem, 1)) is None:
                return None
            path = self._files.file(journal(stem, number))
            raise CorruptHistoryError(f"{path} is gone; restore it from a backup", place=path)
        if known is not None and number == known.incarnation and size < known.size:
            raise CorruptHistoryError(
                f"{self._files.file(known.journal)} has {size} bytes, fewer than the {known.size} that were "
                "acknowledged; restore it from a backup",
                place=self._files.file(known.journal),
                byte=size,
            )
        newer = self._files.size(journal(stem, number + 1)) is not None
        if known is not None and size == known.size and not newer:
            run = known
        else:
            while newer:
                number += 1
                newer = self._files.size(journal(stem, number + 1)) is not None
            run = self._rebuild(stem, number, known, fence, writing=writing)
        granted = max(run.session, 0 if fence is None else fence.fence, 0 if known is None else known.fence)
        if run.fence != granted:
            run.fence, run.held = granted, None
            if not run.closed:  # the head is older than the last lease, and what it says of due may be over
                run.head = structs.replace(run.head, due=earlier(run.head.due, run.head.updated))
        return run

    def _rebuild(self, stem: str, number: int, known: Run | None, fence: Fence | None, *, writing: bool) -> Run:
        name = journal(stem, number)
        path = self._files.file(name)
        data = self._files.read(name) or b""
        found = scan(data, path)
        if not found.lines:
            raise found.wrong or CorruptHistoryError(
                f"{path}: holds no whole record; restore it from a backup", place=path, byte=0
            )
        run_id = decode(stem) or (fence and fence.run_id) or (known and known.run_id)
        if not run_id:
            raise CorruptHistoryError(f"{path}: {stem}.fence, which has the run's id, is gone", place=path)
        if known is not None:
            self._check_known(known, number, found)
        if writing and found.torn:
            self._files.keep_aside(name, found.torn)
            self._truncate(stem, name, found.size)
        head = rebuilt_head(found.lines, None if known is None else known.head, path)
        run = Run(run_id, stem, number, len(found.lines), found.size, found.session, 0, found.closed, head)
        run.tail = mark(found.lines[-1])
        if known is not None and number == known.incarnation and not run.closed:
            run.held, run.fence = known.held, known.fence
        if found.unended and not writing:
            run.size -= 1  # the newline that is missing is for a writer to add
        start = known.size if known is not None and number == known.incarnation else 0
        self._files.sync(name, _text(found.lines)[start : run.size], start)
        if writing or (run.size == len(data) and not found.unended):
            self.save(run)
        return run

    def _check_known(self, known: Run, number: int, found: Scan) -> None:
        """See that the journal that a head speaks of is what it was; `found` is that of incarnation `number`."""
        if number != known.incarnation:  # the head is older than the newest journal
            found = scan(self._files.read(known.journal) or b"", self._files.file(known.journal))
        check_tail(known, found, self._files.file(known.journal))

    def lines(self, run: Run, incarnation: int) -> list[bytes]:
        """The records of one incarnation, each checked.

        Raises:
            CorruptHistoryError: as `scan`, or records are missing.
        """
        name = journal(run.stem, incarnation)
        path = self._files.file(name)
        found = scan(self._files.read(name) or b"", path)
        if incarnation == run.incarnation:
            check_tail(run, found, path)
            return found.lines[: run.seq]
        if not found.closed:
            raise found.wrong or CorruptHistoryError(
                f"{path}: holds {len(found.lines)} records and is not closed, though a later incarnation is there; "
                "restore it from a backup",
                place=path,
                seq=len(found.lines),
            )
        return found.lines

    def holds(self, run: Run, incarnation: int, seq: int, lines: list[bytes]) -> bool:
        """Whether these very records are at this position already."""
        if incarnation > run.incarnation or (incarnation == run.incarnation and seq >= run.seq):
            return False
        return self.lines(run, incarnation)[seq : seq + len(lines)] == lines

    def first_attempt(self, run: Run, incarnation: int) -> str | None:
        """The attempt that opened an incarnation."""
        path = self._files.file(journal(run.stem, incarnation))
        return envelope(self._raw(run.stem, incarnation).partition(b"\n")[0], path).attempt_id

    def find(self, run: Run, incarnation: int, attempt_id: str) -> int | None:
        """The seq of the record that an attempt began with; None when it isn't in this incarnation."""
        path = self._files.file(journal(run.stem, incarnation))
        return find_attempt(self._raw(run.stem, incarnation), attempt_id, path)

    def save(self, run: Run) -> bool:
        """Keep head and lease; whether that went well. They are a cache: the journal says what was done."""
        try:
            self.keep(run)
        except (OSError, CorruptHistoryError):
            return False
        return True

    def keep(self, run: Run) -> None:
        """As `save`, for when nothing else says what was done.

        Raises:
            OSError: it can't be written.
            CorruptHistoryError: what is in its place is no file that can be written.
        """
        where = (run.run_id, run.incarnation, run.seq, run.size, run.session, run.fence, run.closed, run.tail)
        text = msgspec.json.encode(_Kept(*where, run.head, run.held))
        text = b'%b, "crc": "%08x"}' % (text[:-1], zlib.crc32(text[:-1]))
        # The size hardly ever changes, which makes the next sync cheaper.
        self._files.overwrite(f"{run.stem}.head.json", text.ljust(len(text) // _BLOCK * _BLOCK + _BLOCK - 1) + b"\n")

    def cached(self, stem: str) -> Run | None:
        """The head as it was kept, None when it is gone or no head: then it is rebuilt."""
        try:
            text = (self._files.read(f"{stem}.head.json") or b"").rstrip()
            if text[-_CRC:] != b', "crc": "%08x"}' % zlib.crc32(text[:-_CRC]):
                return None
            kept = _read_kept(text)
            status_from(kept.head.status)
            if encode(kept.run_id) != stem:
                return None
            numbers = (kept.incarnation, kept.seq, kept.size, kept.session, kept.fence)
            return Run(kept.run_id, stem, *numbers, kept.closed, kept.head, kept.lease, kept.tail)
        except _DAMAGED:
            return None

    def fence(self, stem: str) -> Fence | None:
        """The fence file, None when there is none: then the fence is the journal's.

        Raises:
            CorruptHistoryError: it is damaged.
        """
        data = self._files.read(f"{stem}.fence")
        if data is None:
            return None
        try:
            if data[-_CRC:] != b', "crc": "%08x"}' % zlib.crc32(data[:-_CRC]):
                raise ValueError("the checksum is wrong")
            row = msgspec.json.decode(data)
            if encode(row["runId"]) != stem:
                raise ValueError("it is another run's")
            return Fence(str(row["runId"]), int(row["fence"]), bool(row["deleted"]), int(row["created"]))
        except _DAMAGED as e:
            path = self._files.file(f"{stem}.fence")
            raise CorruptHistoryError(f"{path}: is damaged: {e}; restore it from a backup", place=path) from e

    def raise_fence(self, stem: str, fence: Fence) -> None:
        """Write the fence file, durably.

        Raises:
            OSError: nothing changed.
            UnsyncedError: it may be undone by a power cut.
        """
        row = {"runId": fence.run_id, "fence": fence.fence, "deleted": fence.deleted, "created": fence.created}
        text = msgspec.json.encode(row)
        self._files.publish(f"{stem}.fence", b'%b, "crc": "%08x"}' % (text[:-1], zlib.crc32(text[:-1])))

    def begin(self, run: Run, lines: list[bytes]) -> None:
        """Write the first records of an incarnation, as a whole file.

        Raises:
            OSError: nothing changed.
            UnsyncedError: it may be undone by a power cut.
        """
        self._files.publish(run.journal, _text(lines))
        self.save(run)

    def append(self, run: Run, lines: list[bytes]) -> int:
        """Add records to the current journal, durably, and give their size.

        Raises:
            WriteError: as `Directory.append`.
        """
        data = _text(lines)
        self._files.append(run.journal, data, lambda: self._undo(run))
        return len(data)

    def _undo(self, run: Run) -> bool:
        """Bring a journal back to what was acknowledged after a failed append; whether that went well."""
        try:
            self._truncate(run.stem, run.journal, run.size)
        except (OSError, CorruptHistoryError):
            return False
        self.save(run)
        return True

    def _truncate(self, stem: str, name: str, size: int) -> None:
        """Shorten a journal. Until that is durable no head may vouch for its size, so the head is spoilt before."""
        self._files.spoil(f"{stem}.head.json")
        self._files.truncate(name, size)

    def clear(self, stem: str) -> None:
        """Remove all files of a run but its fence."""
        names = [name for name in self._files.names() if name.startswith(f"{stem}.") and name != f"{stem}.fence"]
        # The head first: it must never speak of another journal under the old name. The first journal last: as long as
        # it is there the rest is looked for again.
        names.sort(key=lambda name: (name == journal(stem, 0), not name.endswith(".head.json")))
        with contextlib.suppress(FileNotFoundError):
            self._files.remove(names)

    def _raw(self, stem: str, incarnation: int) -> bytes:
        return self._files.read(journal(stem, incarnation)) or b""


def check_tail(known: Run, found: Scan, path: str) -> None:
    """See that a journal begins with what was acknowledged, as far as its head tells: count, size and last record.

    Raises:
        CorruptHistoryError: it was shortened, exchanged, or written over.
    """
    lines = found.lines[: known.seq]
    size = sum(len(line) + 1 for line in lines)
    if found.unended and len(found.lines) == known.seq:
        size -= 1  # the newline that is missing
    if len(lines) < known.seq or size != known.size or mark(lines[-1]) != known.tail:
        raise found.wrong or CorruptHistoryError(
            f"{path}: is not the journal of {known.seq} records and {known.size} bytes that was acknowledged; restore "
            "it from a backup",
            place=path,
            seq=min(len(lines), known.seq - 1),
        )


def _text(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)
