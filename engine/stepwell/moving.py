"""Runs move from one store into another. Floor 4.

A run is copied first, and every record read back and compared; nobody sees the copy. Then the source lets it depart,
and then the target lands it: see `stepwell.moves`. While an open run is moved its lease is held, so nobody drives it,
and a run that somebody drives is left where it is.

| killed | the source has | the target has | moving again |
|---|---|---|---|
| before it departs | the run, as ever once the lease is over | a copy that nobody sees | goes on with the copy |
| after it departed | a mark that says where it went | all of it, not yet to be seen | lands it |
| after it landed | the same | the run | has nothing to do |

Runs that wait for each other move together, children first: a parent that is driven where its child is not would begin
it anew. A parent that does not find its child any more since that went ahead waits for it.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Literal, Protocol, TypeAlias

import msgspec
from msgspec.structs import replace

from . import events as e
from .environment import new_token
from .errors import (
    CorruptHistoryError,
    NotFoundError,
    RunArrivingError,
    RunMovedError,
    StoreError,
)
from .logs import logger
from .moves import Arrival, Departure, Movable
from .needs import waiting_parent
from .store import HeadFilter, Lease, RunHead, Store, first_broken, open_body
from .wire import read_tail

__all__ = ["Fate", "MovableStore", "Mover"]

Fate: TypeAlias = Literal["moved", "landed", "busy", "taken", "unreadable", "changed"]
"""What became of a run: "landed" had departed before; the others stay where they are, as `Moved.kept` says."""

PAGE = 500
"""Records that are copied at once, and runs that are looked at."""

_TTL, _TTL_EACH = 60.0, 0.2  # seconds of the leases, and more of them for each run of a family
_TRIES = 50
_CHILD, _ENDED = b'"type":"child",', b'"type":"childResult",'
_POLL = 0.2
_GONE = (RunMovedError, RunArrivingError, NotFoundError)
"""What is met when somebody else moves the same run, and was faster."""


class MovableStore(Store, Movable, Protocol):
    """A store whose runs can be moved."""


class _ChildName(msgspec.Struct, rename="camel"):
    child_id: str
    at: str


_read_child_name = msgspec.json.Decoder(_ChildName).decode


class _Copy(msgspec.Struct):
    """A run that is being copied.

    Attributes:
        counts: how many records of each incarnation are in the target.
        arrival: as the target has it.
        seen: as the source had it, when all that it had was copied.
    """

    run_id: str
    counts: list[int] = []
    arrival: Arrival | None = None
    seen: RunHead | None = None


class Mover:
    """Moves what a filter finds, and what belongs to it.

    Args:
        source, target: from where, and where to.
        origin, to: what they are called.
        owner: who holds the leases meanwhile.
        where: which runs; those that they wait for and that wait for them go along.
        wait: seconds for which runs that somebody drives are looked at again and again.
        guard: is held while a family moves.
    """

    def __init__(
        self,
        source: MovableStore,
        target: MovableStore,
        *,
        origin: str,
        to: str,
        owner: str,
        where: HeadFilter,
        wait: float = 0.0,
        guard: AbstractContextManager[object] | None = None,
    ) -> None:
        self._guard = guard or nullcontext()
        self._source, self._target = source, target
        self._origin, self._to, self._owner = origin, to, owner
        self._where = where
        self._wait = wait
        self._kept: dict[str, Fate] = {}
        self._leases: dict[str, Lease] = {}
        self._parents = set[str]()  # that wait for children
        self._ttl, self._renewed = _TTL, 0.0

    def go(self) -> Iterator[tuple[RunHead, Fate]]:
        """Move them; gives each run, and what became of it. One that is kept may be given several times.

        Raises:
            StoreError: a store failed; what was given so far is done, and the same again goes on.
        """
        for arrival in self._departed():
            if self._target.land(arrival.run.run_id, arrival.token):
                yield arrival.run, "landed"
        deadline = time.monotonic() + self._wait
        while True:
            self._kept.clear()
            while (yield from self._pass()):  # another one, for runs that were begun meanwhile
                pass
            later = any(fate in ("busy", "changed") for fate in self._kept.values())
            if not later or time.monotonic() >= deadline:
                return
            time.sleep(_POLL)

    def look(self) -> Iterator[tuple[RunHead, Fate]]:
        """What `go` would do, as far as can be told without doing it."""
        for arrival in self._departed():
            yield arrival.run, "landed"
        seen = set[str]()
        for first in self._found():
            for run in self._look_around(first):
                if run.run_id in seen:
                    continue
                seen.add(run.run_id)
                if run.lease_until is not None:
                    yield run, "busy"
                else:
                    yield run, "taken" if _has(self._target, run.run_id) else "moved"

    def _departed(self) -> Iterator[Arrival]:
        """What has left the source and has not landed yet."""
        after = None
        while page := self._target.arrivals(after=after, limit=PAGE):
            for arrival in page:
                after = arrival.run.run_id
                try:
                    self._source.head(after)
                except RunMovedError as error:
                    if error.token == arrival.token:
                        yield arrival
                except RunArrivingError:
                    pass

    def _found(self) -> Iterator[RunHead]:
        after = None
        while page := self._source.heads(self._where, limit=PAGE, after=after):
            yield from page
            after = page[-1].run_id

    def _pass(self) -> Generator[tuple[RunHead, Fate], None, bool]:
        """Go through all runs once; whether any moved."""
        moved = False
        gone = set[str]()  # with a family; a page may be older
        for run in self._found():
            if run.run_id not in self._kept and run.run_id not in gone:
                with self._guard:
                    fates = list(self._move(run))
                for one, fate in fates:
                    if fate != "moved":
                        self._kept[one.run_id] = fate
                    elif one.run_id != run.run_id:
                        gone.add(one.run_id)
                    moved = moved or fate == "moved"
                    yield one, fate
            gone.discard(run.run_id)
        return moved

    # ---- families

    def _move(self, found: RunHead) -> Iterator[tuple[RunHead, Fate]]:
        """Move a run and its family."""
        try:
            family: dict[str, RunHead] = {}
            fate = self._gather(self._oldest(found), family)
            copies = list[_Copy]()
            if fate is None:
                fate = self._copy_all(family, copies)
            if fate is not None:
                self._turn_away(copies)
                for one in {found.run_id: found, **family}.values():
                    if fate != "changed" or _has(self._source, one.run_id):
                        yield one, fate
                return
            for copy in copies:
                if self._depart(copy):
                    yield family[copy.run_id], "moved"
                elif _has(self._source, copy.run_id):
                    yield family[copy.run_id], "changed"
        finally:
            self._release()

    def _oldest(self, run: RunHead) -> RunHead:
        """The run at the top of a family: nobody who is open waits for it."""
        seen = {run.run_id}
        while (parent := self._parent(run)) is not None and parent.run_id not in seen:
            seen.add(parent.run_id)
            run = parent
        return run

    def _parent(self, run: RunHead) -> RunHead | None:
        """The open run that waits for this one."""
        try:
            tail = self._source.read(run.run_id, 0, incarnation=run.incarnation, limit=1)
            start = None if tail is None or not tail.records else read_tail(tail, run.run_id)[0]
            return waiting_parent(self._source, start) if isinstance(start, e.Start) else None
        except (CorruptHistoryError, RunMovedError, RunArrivingError):
            return None  # it is met again when it is copied

    def _gather(self, run: RunHead, family: dict[str, RunHead]) -> Fate | None:
        """Take the leases of a run and of those that it waits for, and put them into `family`, children first."""
        if run.run_id in self._leases or run.run_id in family:
            return None
        if not run.closed:
            try:
                claimed = self._source.claim(run.run_id, self._owner, self._ttl)
            except RunMovedError:
                return "changed"
            if isinstance(claimed, Lease):
                self._leases[run.run_id] = claimed
                self._ttl = _TTL + _TTL_EACH * len(self._leases)
            elif claimed is None or not claimed.closed:
                return "changed" if claimed is None else "busy"
        try:
            children = self._children(run)
        except CorruptHistoryError as error:
            return _unreadable(run, error)
        for child in children:
            fate = self._gather(child, family)
            if fate is not None:
                return fate
        family[run.run_id] = run
        self._renew()
        return None

    def _children(self, run: RunHead) -> list[RunHead]:
        """The runs that an open run waits for, of which it has not heard that they ended."""
        waiting: dict[str, str] = {}
        for lines in () if run.closed else self._pages(run.run_id, run.incarnation):
            for line in lines:
                if line.startswith(_CHILD, 7):
                    name = _read_child_name(line)
                    waiting[name.at] = name.child_id
                elif line.startswith(_ENDED, 7):
                    waiting.pop(_read_child_name(line).at, None)
        if waiting:
            self._parents.add(run.run_id)
        found = []
        for child_id in waiting.values():
            with suppress(RunMovedError, RunArrivingError):  # it went ahead
                head = self._source.head(child_id)
                parent = None if head is None else self._parent(head)
                if head is not None and parent is not None and parent.run_id == run.run_id:
                    found.append(head)
        return found

    def _look_around(self, first: RunHead) -> list[RunHead]:
        """A family, without holding it."""
        found, waiting = dict[str, RunHead](), [self._oldest(first)]
        while waiting:
            run = waiting.pop()
            if run.run_id not in found:
                found[run.run_id] = run
                with suppress(CorruptHistoryError):
                    waiting += self._children(run)
        return list(found.values())

    # ---- copies

    def _copy_all(self, family: dict[str, RunHead], copies: list[_Copy]) -> Fate | None:
        """Copy a family; why one of it can't be, or None."""
        for run in family.values():
            copies.append(_Copy(run.run_id))
            try:
                fate = self._copy(copies[-1])
            except CorruptHistoryError as error:
                return _unreadable(run, error)
            except _GONE:
                return "changed"
            if fate is not None:
                return fate
        return None

    def _turn_away(self, copies: list[_Copy]) -> None:
        """Free the ids of a family that can't move, but for those that somebody else may be moving at this moment."""
        for copy in copies:
            if copy.arrival is None:
                continue
            ours = copy.run_id in self._leases
            try:
                self._source.head(copy.run_id)
            except RunMovedError as error:
                ours = error.token != copy.arrival.token  # it never lands from here
            except RunArrivingError:
                pass
            if ours:
                self._target.turn_away(copy.arrival)

    def _copy(self, copy: _Copy) -> Fate | None:
        """Have a run arrive with all of its records, each compared with what came back. Goes on where it was."""
        for _ in range(_TRIES):
            seen, lease = self._source.head(copy.run_id), self._leases.get(copy.run_id)
            if seen is None or (not seen.closed if lease is None else seen.fence != lease.fence):
                return "changed"
            whole = len(copy.counts) == seen.incarnation + 1 and copy.counts[-1] == seen.seq
            fate = self._arrive(copy, seen, whole)
            if fate is not None or whole:
                return fate
            self._copy_on(copy, seen.incarnation)
        return "changed"

    def _arrive(self, copy: _Copy, seen: RunHead, whole: bool) -> Fate | None:
        copy.seen = seen
        if copy.arrival is not None and not whole:
            return None  # what came since is staged first
        head = seen.head
        if copy.run_id in self._parents and (head.due is None or head.due > head.updated):
            head = replace(head, due=head.updated)  # so that it looks how its children are
        run, counts = replace(seen, lease_until=None, head=head), tuple(copy.counts) if whole else ()
        token = new_token() if copy.arrival is None else copy.arrival.token
        there = self._target.arrive(Arrival(run, counts, self._origin, token))
        if there is None:
            self._source.head(copy.run_id)  # raises if somebody else has moved it
            return "taken"
        if there.run != run:
            return "changed"  # somebody else knows more
        copy.arrival = there
        return None

    def _copy_on(self, copy: _Copy, newest: int) -> None:
        """Copy what came since."""
        for number in range(max(0, len(copy.counts) - 1), newest + 1):
            if number == len(copy.counts):
                copy.counts.append(0)
            for lines in self._pages(copy.run_id, number, copy.counts[number]):
                self._stage(copy, number, lines)
                copy.counts[number] += len(lines)
                self._renew()

    def _stage(self, copy: _Copy, number: int, lines: list[bytes]) -> None:
        assert copy.arrival is not None
        run_id, seq, limit = copy.run_id, copy.counts[number], max(1, len(lines))
        if not lines or self._target.staged(run_id, number, seq, limit=limit) == lines:
            return  # it came before
        self._target.stage(run_id, copy.arrival.token, number, seq, lines)
        if self._target.staged(run_id, number, seq, limit=limit) != lines:
            self._source.head(run_id)  # as above
            raise StoreError(
                f"{self._to}: records {seq} to {seq + len(lines) - 1} of run {run_id!r}, incarnation {number}, came "
                "back otherwise than they went in; the run stays where it is"
            )

    def _pages(self, run_id: str, incarnation: int, seq: int = 0) -> Iterator[list[bytes]]:
        more = True
        while more:
            tail = self._source.read(run_id, seq, incarnation=incarnation, limit=PAGE)
            if tail is None:
                raise CorruptHistoryError(f"{self._origin}: run {run_id!r} has no incarnation {incarnation}")
            if not tail.checked and (broken := first_broken(tail.records, tail.from_seq)) is not None:
                open_body(tail.records[broken], place := f"{self._origin}: run {run_id!r}, event {seq + broken}")
                raise CorruptHistoryError(f"{place}: another record is there", place=place)
            yield tail.records
            seq, more = tail.seq, tail.more

    def _depart(self, copy: _Copy) -> bool:
        """Let a run that is copied go; False when it is another one now."""
        for _ in range(_TRIES):
            if copy.arrival is None or copy.seen is None:
                break
            departure = Departure(self._to, copy.arrival.token)
            if self._source.depart(copy.seen, departure):
                self._leases.pop(copy.run_id, None)
                self._target.land(copy.run_id, departure.token)
                return True
            try:
                if self._copy(copy) is not None:
                    break
            except _GONE:
                break
        return False

    # ---- leases

    def _renew(self) -> None:
        if time.monotonic() - self._renewed < self._ttl / 3:
            return
        self._renewed = time.monotonic()
        for run_id, lease in self._leases.items():
            self._leases[run_id] = self._source.renew(lease, self._ttl) or lease  # a lost one is noticed later

    def _release(self) -> None:
        for lease in self._leases.values():
            try:
                self._source.release(lease)
            except StoreError as error:
                logger.warning("the lease of run %r could not be released: %s", lease.run_id, error)
        self._leases.clear()
        self._parents.clear()
        self._ttl = _TTL


def _unreadable(run: RunHead, error: CorruptHistoryError) -> Fate:
    logger.warning("run %r can't be moved: %s", run.run_id, error)
    return "unreadable"


def _has(store: Store, run_id: str) -> bool:
    try:
        return store.head(run_id) is not None
    except (RunMovedError, RunArrivingError):
        return False
