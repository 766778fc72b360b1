"""Every byte of a directory of journals, looked at and left as it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Literal, TypeVar

from msgspec.structs import replace

from stepwell.errors import CorruptHistoryError, StoreError
from stepwell.store import Verified

from ..disk import translated
from ..file_names import decode
from .access import Access
from .files import Directory
from .journal import scan
from .runs import Run, Runs, check_tail, journal

__all__ = ["verify"]

T = TypeVar("T")

_NAME = re.compile(r"([a-z0-9_%~-]+)\.(?:([0-9]+)\.jsonl(\.torn)?|head\.json|fence|tmp)")
_UNLOCKED = "can't be written, so nothing was locked; a run that somebody writes to meanwhile may look damaged"
_GAP = 10  # journals that are missing before what is there; a name that was made up may have any number


def verify(files: Directory, runs: Runs, access: Access) -> Iterator[Verified]:
    """Read all files, run by run, each run under its lock where there can be locks.

    What can't be read is a problem of its own, and the next file is read.
    """
    access.check_open()
    locks = files.prepare_reading()
    if not locks:
        yield Verified(files.path, note=_UNLOCKED, share=0.0)
    try:
        names = files.names()
    except OSError as e:
        raise translated(files.path, e) from e
    stems: dict[str, None] = {}
    for name in sorted(names):
        match = _NAME.fullmatch(name)
        if match is not None:
            stems[match[1]] = None
        elif name not in (".locks", ".owners"):
            yield Verified(files.file(name), note="is no file of the store's", share=0.0)
    for done, stem in enumerate(stems, 1):
        try:
            if locks:
                with access.locked(stem):
                    parts = list(_run(files, runs, stem))
            else:
                access.check_open()
                parts = list(_run(files, runs, stem))
        except StoreError as e:  # its lock can't be had
            parts = [Verified(files.file(f"{stem}.*"), decode(stem), problem=e, unread=True)]
        for part in parts:
            yield replace(part, share=done / len(stems))


def _run(files: Directory, runs: Runs, stem: str) -> Iterator[Verified]:
    try:
        names = {name: match for name in files.names() if (match := _NAME.fullmatch(name)) and match[1] == stem}
    except OSError as e:
        yield _unread(Verified(files.file(f"{stem}.*"), decode(stem)), e)
        return
    fence_file, head_file = files.file(f"{stem}.fence"), files.file(f"{stem}.head.json")
    fence, wrong_fence = _tried(fence_file, lambda: runs.fence(stem))
    known, wrong_head = _tried(head_file, lambda: runs.cached(stem))
    yield from (part for part in (wrong_fence, wrong_head) if part is not None)
    run_id = decode(stem) or (fence and fence.run_id) or (known and known.run_id) or None
    numbers = {int(match[2]) for match in names.values() if match[2] is not None and not match[3]}
    newest = max(numbers, default=-1)
    for number in sorted({*numbers, *range(min(newest + 1, len(numbers) + _GAP))}):
        mine = known if known is not None and known.incarnation == number else None
        part = _journal(files, stem, number, run_id, mine, over=number < newest and (lambda n: runs.left(stem, n)))
        if run_id is None and wrong_fence is None and not part.unread:
            part = _broken(part, f"{stem}.fence, which has the run's id, is gone")
        if mine is not None and part.size < mine.size and not part.unread:
            part = _broken(part, f"has {part.size} bytes, fewer than the {mine.size} that were acknowledged")
        yield part
    if known is not None and known.incarnation not in numbers and not (fence and fence.deleted):
        place = files.file(journal(stem, known.incarnation))
        yield _broken(Verified(place, run_id, known.incarnation), "is gone")
    told = {part.place for part in (wrong_fence, wrong_head) if part is not None}
    for name, match in names.items():
        if files.file(name) not in told and (match[2] is None or match[3]):
            yield _other(files, name, known)


def _other(files: Directory, name: str, known: Run | None) -> Verified:
    """A file of a run that is no journal, and whose reading went well, if it is ever read."""
    place = files.file(name)
    size, wrong = _tried(place, lambda: files.size(name))
    if wrong is not None:
        return wrong
    note = None
    if name.endswith(".torn"):
        note = "was cut off a journal and never acknowledged"
    elif name.endswith(".tmp"):
        note = "was left by a process that died; it is not used"
    elif name.endswith(".head.json") and known is None:
        note = "is damaged; it will be made again from the journal"
    return Verified(place, size=size or 0, note=note)


def _journal(
    files: Directory,
    stem: str,
    number: int,
    run_id: str | None,
    known: Run | None,
    *,
    over: Callable[[int], int | None] | Literal[False],
) -> Verified:
    """One journal; `known` is its head. `over`, when a later incarnation is there, tells where it was left open."""
    name = journal(stem, number)
    place = files.file(name)
    part = Verified(place, run_id, number)
    try:
        data = files.read(name)
    except (OSError, CorruptHistoryError) as e:
        return _unread(part, e)
    if data is None:
        return _broken(part, "is gone")
    part = replace(part, size=len(data))
    try:
        found = scan(data, place)
        if known is not None and len(data) >= known.size:
            check_tail(known, found, place)
    except CorruptHistoryError as e:
        return replace(part, problem=e)
    part = replace(part, records=found.lines)
    if not found.lines:
        return _broken(replace(part, problem=found.wrong), "holds no whole record")
    if over and not found.closed and not _left_there(over, number, len(found.lines)):
        return _broken(replace(part, problem=found.wrong), "is not closed, though a later incarnation is there")
    if found.torn:
        return replace(part, note=f"ends in {len(found.torn)} bytes that are torn and were never acknowledged")
    return part


def _left_there(over: Callable[[int], int | None], number: int, count: int) -> bool:
    """Whether an open journal ends where the next one says; when that one is damaged, that is told of it."""
    try:
        return over(number) == count
    except (OSError, CorruptHistoryError):
        return True


def _tried(place: str, read: Callable[[], T]) -> tuple[T | None, Verified | None]:
    """What reading gives, or what is wrong."""
    try:
        return read(), None
    except (OSError, CorruptHistoryError) as e:
        return None, _unread(Verified(place), e)


def _unread(part: Verified, error: OSError | CorruptHistoryError) -> Verified:
    """A part of which an error was all that could be read, unless it was read and is damaged."""
    if isinstance(error, CorruptHistoryError):
        return replace(part, problem=error, unread=isinstance(error.__cause__, OSError))
    problem = translated(part.place, error)
    return replace(part, problem=problem if isinstance(problem, StoreError) else StoreError(str(problem)), unread=True)


def _broken(part: Verified, what: str) -> Verified:
    problem = CorruptHistoryError(f"{part.place}: {what}; restore it from a backup", place=part.place)
    return replace(part, problem=part.problem or problem)
