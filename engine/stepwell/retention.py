"""Which closed runs are removed, and why others of their age stay. Floor 4.

Closed runs are gone through by workflow, those closed first first, a page at a time. Each removal is one operation of
the store, atomic, and only if the run still is the one that was looked at: whoever is killed in between has removed
some runs and left the others whole, and doing the same again goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

import msgspec

from . import events as e
from .checks import checked_text
from .errors import CorruptHistoryError, InvalidInputError, NotFoundError, StoreMisconfiguredError
from .lifecycle import RunRemoved
from .loading import Parts
from .needs import needed_by
from .retry import as_seconds
from .store import ClosedKey, RunHead, Store, closed_key
from .upkeep import Pruned
from .wire import read_tail
from .workflows import Workflow

__all__ = ["Fate", "Wanted", "prune", "sweep"]

Fate: TypeAlias = Literal["removed", "newest", "needed", "unreadable", "changed", "passed"]
"""What becomes of a closed run that is looked at: as `Pruned.kept` says; "passed": nobody wants it removed."""

CLOSED = ("completed", "failed", "cancelled")
PAGE = 500
MOST_IDS = 10_000
"""Run ids that `Pruned` holds, so that it stays small however many runs go."""

_FIRST, _LAST = -(2**62), 2**62


class Wanted(msgspec.Struct, frozen=True):
    """What is to be removed: closed runs that every one of these fits.

    Attributes:
        older_than: seconds since a run was closed; None: any.
        keep_last: so many of each workflow stay, those closed last; None: none.
        statuses: theirs.
        workflow: the name of theirs; None: any.

    With neither `older_than` nor `keep_last`, what each workflow's `ttl` says is removed.
    """

    older_than: float | None = None
    keep_last: int | None = None
    statuses: frozenset[str] = frozenset(CLOSED)
    workflow: str | None = None

    @property
    def by_ttl(self) -> bool:
        """Whether the workflows say what goes."""
        return self.older_than is None and self.keep_last is None

    @classmethod
    def checked(cls, older_than: Any, keep_last: Any, status: Any, workflow: Any) -> Wanted:
        """Of what a caller gives.

        Raises:
            InvalidInputError: it is no such thing; the text shows the value.
        """
        if keep_last is not None and (isinstance(keep_last, bool) or not isinstance(keep_last, int) or keep_last < 0):
            raise InvalidInputError(f"keep_last must be a whole number, 0 or more, or None, got {keep_last!r}")
        return cls(
            None if older_than is None else as_seconds(older_than, "older_than"),
            keep_last,
            _statuses(status),
            workflow.name if isinstance(workflow, Workflow) else checked_text("workflow", workflow),
        )


def _statuses(status: Any) -> frozenset[str]:
    if status is None:
        return frozenset(CLOSED)
    try:
        given = (status,) if isinstance(status, str) else tuple(status)
    except TypeError:
        given = ()
    if not given or any(one not in CLOSED for one in given):
        raise InvalidInputError(
            f"status must be one or several of {', '.join(CLOSED)}, got {status!r}: only closed runs are removed; "
            "cancel an open one first"
        )
    return frozenset(given)


def sweep(parts: Parts, wanted: Wanted, *, dry_run: bool = False) -> Iterator[tuple[RunHead, Fate]]:
    """Go through closed runs and remove what is wanted; gives each that was looked at, and what became of it.

    Raises:
        StoreError: the store failed; what was given so far is done.
    """
    now = e.micros(parts.now())
    for name in _names(parts, wanted):
        ages = _ages(parts, name) if wanted.by_ttl else {}
        shortest = min((age for age in ages.values() if age is not None), default=None)
        age = shortest if wanted.by_ttl else wanted.older_than
        last = now if age is None else now - round(age * 1_000_000)
        end: ClosedKey = (name, last + 1, "")
        if wanted.keep_last is not None:
            newest = _Newest(parts.store, name, wanted)
            for head in newest:
                yield head, "newest" if head.head.updated <= last else "passed"
            end = min(end, newest.end)
        for head in _closed(parts.store, (name, _FIRST, ""), end):
            limit = _age_of(ages, head.head.version) if wanted.by_ttl else age
            old = limit is not None or not wanted.by_ttl
            if limit is not None and head.head.updated > now - round(limit * 1_000_000):
                old = False
            if not old or head.head.status not in wanted.statuses:
                yield head, "passed"
            else:
                fate = _fate(parts.store, head, dry_run)
                if fate == "removed" and not dry_run:
                    parts.tell(RunRemoved(head.run_id, head.head.workflow, head.head.status))
                yield head, fate


def prune(sweeping: Iterator[tuple[RunHead, Fate]], limit: int | None = None, *, dry_run: bool = False) -> Pruned:
    """Go through a sweep until so many runs are removed, and tell what came of it."""
    removed = events = 0
    run_ids, kept = list[str](), dict[str, int]()
    for head, fate in sweeping:
        if fate == "removed":
            removed += 1
            events += head.seq
            if removed <= MOST_IDS:
                run_ids.append(head.run_id)
            if removed == limit:
                return Pruned(removed, tuple(run_ids), events, kept, more=True, dry_run=dry_run)
        elif fate != "passed":
            kept[fate] = kept.get(fate, 0) + 1
    return Pruned(removed, tuple(run_ids), events, kept, dry_run=dry_run)


def _names(parts: Parts, wanted: Wanted) -> Iterator[str]:
    """The workflows whose closed runs are gone through."""
    if wanted.by_ttl:
        known = [workflow.name for workflow in parts.registry.with_ttl()]
        yield from (name for name in sorted(set(known)) if wanted.workflow in (None, name))
        return
    if wanted.workflow is not None:
        yield wanted.workflow
        return
    after: ClosedKey | None = None
    while first := parts.store.closed(after=after, limit=1):
        name = first[0].head.workflow
        yield name
        after = (name, _LAST, "")


def _ages(parts: Parts, name: str) -> dict[str | None, float | None]:
    """The ttl of each version of a workflow that is known; under None that of the others, which the newest one says."""
    found: dict[str | None, float | None] = {one.version: one.ttl for one in parts.registry.versions(name)}
    try:
        found[None] = parts.registry.named(name).ttl
    except NotFoundError:
        found[None] = None
    return found


def _age_of(ages: dict[str | None, float | None], version: str) -> float | None:
    return ages[version] if version in ages else ages[None]


def _closed(store: Store, after: ClosedKey, before: ClosedKey) -> Iterator[RunHead]:
    """Closed runs between two keys, a page at a time."""
    while page := store.closed(after=after, before=before, limit=PAGE):
        yield from page
        after = closed_key(page[-1])


class _Newest:
    """The runs that `keep_last` keeps of a workflow, those closed last first; `end` is the key of the last given."""

    def __init__(self, store: Store, name: str, wanted: Wanted) -> None:
        self.end: ClosedKey = (name, _LAST, "")
        self._store, self._first = store, (name, _FIRST, "")
        self._wanted = wanted

    def __iter__(self) -> Iterator[RunHead]:
        left = self._wanted.keep_last or 0
        while left:
            page = self._store.closed(after=self._first, before=self.end, newest_first=True, limit=min(left, PAGE))
            if not page:
                return
            for head in page:
                self.end = closed_key(head)
                if head.head.status in self._wanted.statuses:
                    left -= 1
                    yield head


def _fate(store: Store, head: RunHead, dry_run: bool) -> Fate:
    """Remove a run, unless it has to stay."""
    try:
        tail = store.read(head.run_id, 0, incarnation=head.incarnation, limit=1)
        start = None if tail is None else read_tail(tail, head.run_id)[0]
    except (CorruptHistoryError, StoreMisconfiguredError, IndexError):  # damaged, or its key is not at hand
        return "unreadable"
    if start is None:
        return "changed"
    if not isinstance(start, e.Start):
        return "unreadable"
    if needed_by(store, start) is not None:
        return "needed"
    if dry_run or store.delete(head.run_id, head.incarnation, fence=head.fence):
        return "removed"
    return "changed"
