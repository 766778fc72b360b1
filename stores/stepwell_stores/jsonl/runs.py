"""The files of one run, as one state: journals, the fence, and the head that is kept beside them.

<stem>.<n>.jsonl       the journal of incarnation n: the truth
<stem>.fence           the newest session number, durable before a lease is granted; outlives the run
<stem>.head.json       head and lease: a cache, written after the journal and rebuilt from it
<stem>.<n>.jsonl.torn  what was cut off a journal
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from msgspec import structs

from stepwell.errors import CorruptHistoryError
from stepwell.store import Envelope, envelope

from ..file_names import decode
from ..move_rules import refuse_absent
from ..rules import earlier
from .files import Directory
from .heads import Fence, Held, Run, begun, fence_bytes, fence_from, head_bytes, head_from, journal
from .journal import Scan, find_attempt, mark, rebuilt_head, scan
from .pages import Pages

__all__ = ["Fence", "Held", "Run", "Runs", "begun", "check_tail", "journal"]


class Runs:
    """Reads and writes the files of runs. Every call needs the run's lock."""

    def __init__(self, files: Directory) -> None:
        self._files = files
        self._pages = Pages(files)

    def load(self, stem: str, *, writing: bool) -> Run | None:
        """Where a run stands; None when there is none.

        A head that knows the journal's size was kept after the journal was synced to it. Without one, the writer may
        have died before its sync: then the records are made durable before anybody acts on them, readers too.

        Args:
            writing: also cut off what a crash has left torn, to write behind what is whole.

        Raises:
            CorruptHistoryError: the files don't hold what the store writes.
        """
        run = self._recalled(stem)
        if run is not None:
            return run
        fence = self.fence(stem)
        if fence is not None and fence.arrival is not None:
            return None  # its journals are not to be seen yet
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
        if known is not None and size < known.size:
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
            head = run.head
            if not run.closed:  # the head is older than the last lease, and what it says of due may be over
                head = structs.replace(head, due=earlier(head.due, head.updated))
            run = structs.replace(run, fence=granted, held=None, head=head)
        return run

    def _recalled(self, stem: str) -> Run | None:
        """Where an open run stands that this store wrote to last, when all its files are as it left them."""
        opened = self._files.kept.recall(stem)
        if opened is None:
            return None
        run: Run = opened.known
        try:
            size = opened.sizes[run.journal]
            if size == run.size:
                if os.pread(opened.fds[f"{stem}.head.json"][0], len(opened.head) + 1, 0) == opened.head:
                    return run
            elif size > run.size:
                self._pages.mark(run.journal, run.seq, run.size)  # somebody wrote more, and will be asked for it
        except OSError:
            pass  # as in `recall`
        self._files.kept.forget(stem)
        return None

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
        held, raised = None, 0
        if known is not None and number == known.incarnation and not found.closed:
            held, raised = known.held, known.fence
        size = found.size
        if found.unended and not writing:
            size -= 1  # the newline that is missing is for a writer to add
        at = (run_id, number, len(found.lines), size, found.session, raised)
        run = Run(*at, found.closed, mark(found.lines[-1]), head, held)
        start = known.size if known is not None and number == known.incarnation else 0
        self._files.sync(name, _text(found.lines)[start:size], start)
        if writing or (size == len(data) and not found.unended):
            self.save(run)
        return run

    def _check_known(self, known: Run, number: int, found: Scan) -> None:
        """See that the journal that a head speaks of is what it was; `found` is that of incarnation `number`."""
        if number != known.incarnation:  # the head is older than the newest journal
            found = scan(self._files.read(known.journal) or b"", self._files.file(known.journal))
        check_tail(known, found, self._files.file(known.journal))

    def page(self, run: Run, incarnation: int, seq: int, limit: int | None) -> tuple[int, list[bytes], bool]:
        """Records of one incarnation from `seq` on, each checked: the number of the first, they, and if there are more.

        Raises:
            CorruptHistoryError: as `scan`, or records are missing.
        """
        name = journal(run.stem, incarnation)
        current = incarnation == run.incarnation
        found, ended = self._pages.read(name, seq, limit, run.size if current else None)
        if ended:
            path = self._files.file(name)
            if current:
                check_tail(run, found, path)
            elif not found.closed and self.left(run.stem, incarnation) != found.seq + len(found.lines):
                count = found.seq + len(found.lines)
                raise found.wrong or CorruptHistoryError(
                    f"{path}: holds {count} records and is not closed, though a later incarnation is there; "
                    "restore it from a backup",
                    place=path,
                    seq=count,
                )
        start = min(max(seq, found.seq), found.seq + len(found.lines))
        lines = found.lines[start - found.seq :][:limit]
        return start, lines, start + len(lines) < found.seq + len(found.lines) if ended else True

    def holds(self, run: Run, incarnation: int, seq: int, lines: list[bytes]) -> bool:
        """Whether these very records are at this position already."""
        if incarnation > run.incarnation or (incarnation == run.incarnation and seq >= run.seq):
            return False
        start, found, _ = self.page(run, incarnation, seq, len(lines))
        return start == seq and found == lines

    def first_attempt(self, run: Run, incarnation: int) -> str | None:
        """The attempt that opened an incarnation."""
        return self._first(journal(run.stem, incarnation)).attempt_id

    def left(self, stem: str, incarnation: int) -> int | None:
        """How many records an incarnation held when its owner opened the next one; None when it was closed then."""
        return self._first(journal(stem, incarnation + 1)).left

    def _first(self, name: str) -> Envelope:
        """The envelope of the first record of a journal."""
        first = b""
        for part in self._parts(name):
            first += part
            if b"\n" in part:
                break
        return envelope(first.partition(b"\n")[0], self._files.file(name))

    def find(self, run: Run, incarnation: int, attempt_id: str) -> int | None:
        """The seq of the record that an attempt began with; None when it isn't in this incarnation."""
        name = journal(run.stem, incarnation)
        return find_attempt(self._parts(name), attempt_id, self._files.file(name))

    def _parts(self, name: str) -> Iterator[bytes]:
        with contextlib.suppress(FileNotFoundError):
            yield from self._files.parts(name)

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
        stem, data = run.stem, head_bytes(run)
        name, opened = f"{stem}.head.json", self._files.kept.used(stem)
        try:
            self._files.overwrite(name, data, len(opened.head) if opened is not None else 0)
            if opened is not None and not run.closed:  # its journal is open, so it was written to
                self._files.kept.settle(stem, run, data)
            else:
                self._files.kept.forget(stem)
        except BaseException:
            self._files.kept.forget(stem)
            raise

    def cached(self, stem: str) -> Run | None:
        """The head as it was kept, None when it is gone or no head: then it is rebuilt."""
        return head_from(self._files.read(f"{stem}.head.json") or b"", stem)

    def fence(self, stem: str) -> Fence | None:
        """The fence file, None when there is none: then the fence is the journal's.

        Raises:
            CorruptHistoryError: it is damaged.
        """
        data = self._files.read(f"{stem}.fence")
        if data is None:
            return None
        try:
            return fence_from(data, stem)
        except ValueError as e:
            path = self._files.file(f"{stem}.fence")
            raise CorruptHistoryError(f"{path}: is damaged: {e}; restore it from a backup", place=path) from e

    def refuse_absent(self, stem: str) -> None:
        """Say of a run that isn't here where it is, if that is known.

        Raises:
            RunMovedError, RunArrivingError: it is there.
        """
        fence = self.fence(stem)
        if fence is not None:
            refuse_absent(fence.run_id, fence.departure, fence.arrival)

    def raise_fence(self, stem: str, fence: Fence) -> None:
        """Write the fence file, durably.

        Raises:
            OSError: nothing changed.
            UnsyncedError: it may be undone by a power cut.
        """
        self._files.publish(f"{stem}.fence", fence_bytes(fence))

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

    def count(self, name: str) -> int:
        """How many lines a journal has."""
        return sum(part.count(b"\n") for part in self._parts(name))

    def clear(self, stem: str, newest: int | None = None) -> None:
        """Remove all files of a run but its fence.

        Args:
            newest: its incarnation; None when that is not known, and then the whole directory is looked through.
        """
        if newest is None:
            names = [name for name in self._files.names() if name.startswith(f"{stem}.") and name != f"{stem}.fence"]
        else:
            journals = [journal(stem, number) for number in range(newest + 1)]
            names = [f"{stem}.head.json", f"{stem}.tmp", *journals, *(f"{name}.torn" for name in journals)]
        # The head first: it must never speak of another journal under the old name. The first journal last: as long as
        # it is there the rest is looked for again.
        names.sort(key=lambda name: (name == journal(stem, 0), not name.endswith(".head.json")))
        with contextlib.suppress(FileNotFoundError):
            self._files.remove(names)


def check_tail(known: Run, found: Scan, path: str) -> None:
    """See that a journal begins with what was acknowledged, as far as its head tells: count, size and last record.

    Raises:
        CorruptHistoryError: it was shortened, exchanged, or written over.
    """
    lines = found.lines[: max(known.seq - found.seq, 0)]
    size = found.at + sum(len(line) + 1 for line in lines)
    if found.unended and len(found.lines) == len(lines):
        size -= 1  # the newline that is missing
    if not lines or found.seq + len(lines) < known.seq or size != known.size or mark(lines[-1]) != known.tail:
        raise found.wrong or CorruptHistoryError(
            f"{path}: is not the journal of {known.seq} records and {known.size} bytes that was acknowledged; restore "
            "it from a backup",
            place=path,
            seq=min(found.seq + len(lines), known.seq - 1),
        )


def _text(lines: list[bytes]) -> bytes:
    return b"\n".join([*lines, b""])
