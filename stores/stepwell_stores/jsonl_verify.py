"""Every byte of a directory of journals, looked at and left as it is."""

from __future__ import annotations

import re
from collections.abc import Iterator

from attrs import evolve

from stepwell.errors import CorruptHistoryError
from stepwell.store import Verified

from .jsonl_access import Access
from .jsonl_files import Directory
from .jsonl_journal import scan
from .jsonl_names import decode
from .jsonl_runs import Run, Runs, check_tail, journal

__all__ = ["verify"]

_NAME = re.compile(r"([a-z0-9_%~-]+)\.(?:([0-9]+)\.jsonl(\.torn)?|head\.json|fence|tmp)")


def verify(files: Directory, runs: Runs, access: Access) -> Iterator[Verified]:
    """Read all files, run by run, each run under its lock."""
    files.prepare()
    stems: dict[str, None] = {}
    for name in sorted(files.names()):
        match = _NAME.fullmatch(name)
        if match is not None:
            stems[match[1]] = None
        elif name not in (".locks", ".owners"):
            yield Verified(files.file(name), note="is no file of the store's", share=0.0)
    for done, stem in enumerate(stems, 1):
        with access.locked(stem):
            parts = list(_run(files, runs, stem))
        for part in parts:
            yield evolve(part, share=done / len(stems))


def _run(files: Directory, runs: Runs, stem: str) -> Iterator[Verified]:
    names = {name: match for name in files.names() if (match := _NAME.fullmatch(name)) and match[1] == stem}
    numbers = sorted(int(match[2]) for match in names.values() if match[2] is not None and not match[3])
    fence_file, fence = files.file(f"{stem}.fence"), None
    try:
        fence = runs.fence(stem)
    except CorruptHistoryError as e:
        yield Verified(fence_file, problem=e)
    else:
        if fence is not None:
            yield Verified(fence_file, size=files.size(f"{stem}.fence") or 0)
    known = runs.cached(stem)
    run_id = decode(stem) or (fence and fence.run_id) or (known and known.run_id) or None
    for number in range(max(numbers, default=-1) + 1):
        mine = known if known is not None and known.incarnation == number else None
        part = _journal(files, stem, number, run_id, mine, closed=number < max(numbers))
        if mine is not None and part.size < mine.size:
            part = _broken(part, f"has {part.size} bytes, fewer than the {mine.size} that were acknowledged")
        yield part
    if known is not None and known.incarnation not in numbers and not (fence and fence.deleted):
        place = files.file(journal(stem, known.incarnation))
        yield _broken(Verified(place, run_id, known.incarnation), "is gone")
    for name, match in names.items():
        size = files.size(name) or 0
        if match[3]:
            yield Verified(files.file(name), size=size, note="was cut off a journal and never acknowledged")
        elif name.endswith(".tmp"):
            yield Verified(files.file(name), size=size, note="was left by a process that died; it is not used")
        elif name.endswith(".head.json"):
            note = "is damaged; it will be made again from the journal" if known is None else None
            yield Verified(files.file(name), size=size, note=note)


def _journal(
    files: Directory, stem: str, number: int, run_id: str | None, known: Run | None, *, closed: bool
) -> Verified:
    """One journal; `known` is its head, and `closed` whether it must be."""
    name = journal(stem, number)
    place = files.file(name)
    data: bytes | None = b""
    try:
        data = files.read(name)
        if data is None:
            return _broken(Verified(place, run_id, number), "is gone")
        found = scan(data, place)
        if known is not None and len(data) >= known.size:
            check_tail(known, found, place)
    except CorruptHistoryError as e:
        return Verified(place, run_id, number, size=len(data or b""), problem=e)
    part = Verified(place, run_id, number, found.lines, len(data))
    if not found.lines:
        return _broken(part, "holds no whole record")
    if run_id is None:
        return _broken(part, f"{stem}.fence, which has the run's id, is gone")
    if closed and not found.closed:
        return _broken(part, "is not closed, though a later incarnation is there")
    if found.torn:
        return evolve(part, note=f"ends in {len(found.torn)} bytes that are torn and were never acknowledged")
    return part


def _broken(part: Verified, what: str) -> Verified:
    problem = CorruptHistoryError(f"{part.place}: {what}; restore it from a backup", place=part.place)
    return evolve(part, problem=part.problem or problem)
