"""The logs of runs in a bucket: where each stands, how an entry is added, and how entries are read.

See `s3` for why this is safe.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec.structs import replace

from stepwell.errors import (
    CorruptHistoryError,
    NotFoundError,
    RunArrivingError,
    RunMovedError,
    StoreUnavailableError,
)
from stepwell.store import AlreadyCommitted, Committed

from ..liveness import ForkAware, watch_forks
from ..outcomes import AmbiguousError, NotWrittenError
from ..rules import Clock
from .bucket import Bucket
from .decisions import Change
from .entries import Entry, State, decode, encode, name_of, new_nonce
from .parts import Staged

__all__ = ["YOUNG", "Log", "Logs", "due_key", "entry_key", "folder_of", "lease_key", "local_seconds"]

_TRIES = 64  # as many writers may be faster, one after the other
_HOPS = 3  # entries of others that are read one by one, before they are listed
_WARM = 256  # runs whose place is remembered
_CACHE = 16_000_000  # bytes of entries
YOUNG = 3600.0  # seconds for which a hint is kept whose entry is not there: its writer may be on the way


def folder_of(name: str) -> str:
    """Where a run's objects are."""
    return f"runs/{name}"


def entry_key(name: str, number: int) -> str:
    """The object of an entry."""
    return f"runs/{name}/{number:012d}"


def lease_key(name: str) -> str:
    """The object that the owner of a lease extends it with. Sorts after all entries."""
    return f"runs/{name}/lease"


def due_key(name: str, hint: tuple[int, int]) -> str:
    """The object that tells when a run is due; sorts by that instant."""
    return f"due/{hint[0]:019d}/{name}.{hint[1]:012d}"


class Renewed(msgspec.Struct, frozen=True):
    """What the lease object holds: the lease of one fence, extended. The nonce tells it from every other version."""

    stepwell: int
    run_id: str
    fence: int
    until: int
    nonce: str
    lock: str = ""


_read_renewed = msgspec.json.Decoder(Renewed).decode


class Log:
    """One run's log, as this store knows it.

    Attributes:
        tail: where the run stood when somebody looked last; None: not known, or no such run.
        seen: local seconds at which nothing came after it yet.
        renewed: the lease as this store extended it last.
        staged: what was staged of a run that is to come, as of this state.
        loose: entries that were read singly since its pack was written.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.lock = threading.RLock()
        self.tail: State | None = None
        self.seen = 0.0
        self.renewed: Renewed | None = None
        self.staged: tuple[State, Staged] | None = None
        self.loose = 0

    def know(self, state: State | None, seen: float) -> None:
        """Keep where it stands, unless more is known."""
        if state is None or self.tail is None or state.entry >= self.tail.entry:
            self.tail, self.seen = state, seen


class Logs(ForkAware):
    """The logs of a bucket.

    Args:
        now: microseconds since 1970, by the bucket's clock.
        alive: whether the owner with this lock lives, as far as can be told.
        timer: local seconds, which go on while the machine sleeps.
        keep: seconds that entries of a removed run are kept.
    """

    def __init__(
        self, bucket: Bucket, now: Clock, timer: Callable[[], float], keep: float, alive: Callable[[str], bool]
    ) -> None:
        self.bucket, self.now, self._timer, self._patience, self._alive = bucket, now, timer, keep / 2, alive
        self._begin()
        watch_forks(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._logs: weakref.WeakValueDictionary[str, Log] = weakref.WeakValueDictionary()
        self._warm: OrderedDict[str, Log] = OrderedDict()
        self._entries: OrderedDict[tuple[str, int], Entry] = OrderedDict()
        self._cached = 0

    def after_fork_in_child(self) -> None:
        """Locks may be held by threads that aren't here."""
        self._begin()

    def get(self, name: str, *, warm: bool = True) -> Log:
        """The log of a run, of which there is one at a time."""
        with self._lock:
            log = self._logs.get(name)
            if log is None:
                log = self._logs[name] = Log(name)
            if not warm:
                return log
            self._warm[name] = log
            self._warm.move_to_end(name)
            if len(self._warm) > _WARM:
                self._warm.popitem(last=False)
            return log

    # ---- where a run stands

    def look(self, log: Log) -> State | None:
        """Where a run stands now; what a removed one left too, None when there never was one.

        An entry that was the last one a moment ago is followed. One that was it long ago may have been removed since,
        with those after it, so that nothing after it proves nothing; then the keys are listed. A list only finds the
        tail: that nothing comes after it is seen by asking for the next key.
        """
        seen, tail, hops = self._timer(), log.tail, 0
        since = log.seen  # when nothing came after `tail`, or after an entry before it
        while True:
            if tail is not None and self._timer() - since >= self._patience:
                tail = None
            if tail is None or hops > _HOPS:
                since = self._timer()
                tail, hops = self._listed(log, 0 if tail is None else tail.entry), 0
                if tail is None:
                    log.tail = None
                    return None
            following = self.fetch(log.name, tail.entry + 1)
            if following is not None:
                tail, hops = following.state, hops + 1
            elif self._timer() - since < self._patience:
                log.know(tail, seen)
                return tail

    def _listed(self, log: Log, after: int) -> State | None:
        """The last entry, by a list of the keys."""
        while True:
            start = entry_key(log.name, after) if after else None
            last = None
            for found in self.bucket.listed(folder_of(log.name), start):
                number = found.key.rpartition("/")[2]
                if number.isdigit():
                    last = int(number)
            if last is None:
                if not after:
                    return None
            elif (entry := self.fetch(log.name, last)) is not None:
                return entry.state
            after = 0  # removed meanwhile

    def with_lease(self, log: Log, state: State, now: int, *, exact: bool = False, renewed: bool = True) -> State:
        """A state whose lease is as long as it was made since, or over when its owner is seen to be dead.

        Args:
            exact: look at the lease object when the lease has not lapsed, too.
            renewed: False: it is known that there is none.
        """
        held = state.held
        if held is None or state.closed:
            return state
        known = log.renewed if log.renewed is not None and log.renewed.fence == state.fence else None
        if known is not None and known.until >= held.until:
            held = replace(held, until=known.until, lock=known.lock)
        live = held.until > now and self._alive(held.lock)
        if renewed and (not live or (exact and known is None)):
            found = self.lease_object(log)
            if found is not None and found[0].fence == state.fence and found[0].until >= held.until:
                held = replace(held, until=found[0].until, lock=found[0].lock)
                live = held.until > now and self._alive(held.lock)
        if not live and held.until > now:
            held = replace(held, until=now)
        return state if held == state.held else replace(state, held=held)

    def lease_object(self, log: Log) -> tuple[Renewed, str | None] | None:
        """What the lease object holds, and its tag."""
        found = self.bucket.get(lease_key(log.name))
        if found is None:
            return None
        try:
            return _read_renewed(found.data), found.e_tag
        except (msgspec.MsgspecError, UnicodeDecodeError):
            damaged = Renewed(0, "", 0, 0, "")  # a lease may lapse early: that is no danger
            return damaged, found.e_tag

    def renew(self, log: Log, fence: int, until: int, lock: str) -> State | None:
        """Extend the lease with this fence; None when it is lost."""
        with log.lock:
            state = self.look(log)
            if state is None or state.closed or state.held is None or state.fence != fence:
                return None
            mine = Renewed(1, state.run_id, fence, until, new_nonce(), lock)
            data = msgspec.json.encode(mine)
            for _ in range(_TRIES):
                there = self.lease_object(log)
                if there is not None and there[0].fence > fence:
                    return None
                if self.bucket.replace(lease_key(log.name), data, None if there is None else there[1]):
                    break
            log.renewed = mine
            return replace(state, held=replace(state.held, until=until))

    # ---- writing

    def change(self, log: Log, decide: Callable[[State | None, int], Change], *, new: bool = False) -> Any:
        """Decide on where the run stands, and write the entry that comes of it; its outcome.

        What is known is enough for a decision that writes: the entry is made at the next key, and only if nobody was
        there. A decision that refuses is taken on what was looked at just now.

        Args:
            new: there is probably no such run, so that nothing is asked first.

        Raises:
            NotWrittenError, AmbiguousError: it could not be written.
            NotFoundError: the decision's.
        """
        with log.lock:
            sure = False
            if log.tail is not None and self._timer() - log.seen < self._patience:
                state, began = log.tail, log.seen
            elif new:
                state, began = None, self._timer()
            else:
                state, began, sure = self.look(log), log.seen, True
            for _ in range(_TRIES):
                now = self.now()
                try:
                    decided = decide(None if state is None else self.with_lease(log, state, now), now)
                except (NotFoundError, RunMovedError, RunArrivingError):
                    if sure:
                        raise
                    decided = Change(None)
                if decided.state is not None:
                    written = self._write(log, state, began, decided)
                    if written is not None:
                        return _again(decided.outcome) if written == "found" else decided.outcome
                    if log.tail is not None and self._timer() - log.seen < self._patience:
                        state, began, sure = log.tail, log.seen, False
                        continue
                elif sure:
                    return decided.outcome
                state, sure = self.look(log), True
                began = log.seen
            raise NotWrittenError(f"{self.place(log.name, 0)}: others were faster, time and again; try again")

    def _write(self, log: Log, before: State | None, began: float, decided: Change) -> str | None:
        """Make the entry of a decision; None when somebody else's is there, which `log` knows then."""
        assert decided.state is not None
        state, hinted = self._hint(log.name, before, decided.state)
        data = encode(state, decided.lines)
        sent = self._timer()
        how, there = self.bucket.create(entry_key(log.name, state.entry), data)
        if how == "taken":
            other = self.read(there, log.name, state.entry)
            log.tail = None
            if other is not None and before is not None:
                log.know(other.state, began)
            return None
        log.know(state, sent)
        # The entry before it was the last one at `began`. Had it been removed since, with all that follows, so long
        # ago that this very key was free again, then this much time has passed.
        if before is not None and self._timer() - began >= self._patience and not self._stands(log, state):
            return None
        self._cache(log.name, Entry(state, list(decided.lines), len(data)))
        old = None if before is None else before.hint
        if hinted is not None and self._timer() - hinted >= YOUNG / 2:
            key = due_key(log.name, state.hint or (0, 0))
            self.bucket.later(lambda: self.bucket.put(key, b""))  # somebody may have taken it for a dead writer's
        if old is not None and old != state.hint:
            self.bucket.later(lambda: self.bucket.remove([due_key(log.name, old)]))
        return how

    def _hint(self, name: str, before: State | None, after: State) -> tuple[State, float | None]:
        """The state with the hint that it needs, and when that was made, if it was just now.

        The object is there before the entry that needs it, so no due run is ever without. It is named by the entry, so
        nobody who finds it useless beside an older entry removes it.
        """
        wanted, old = after.wanted(), None if before is None else before.hint
        if wanted is None:
            return replace(after, hint=None), None
        if after.held is not None:
            wanted = min(wanted, after.at)  # its owner may die at once
        if old is not None and (old[0] == max(wanted, 0) or (after.held is not None and old[0] <= wanted)):
            return replace(after, hint=old), None
        hint = (max(wanted, 0), after.entry)
        made = self._timer()
        self.bucket.put(due_key(name, hint), b"")
        return replace(after, hint=hint), made

    def _stands(self, log: Log, mine: State) -> bool:
        """Whether an entry that was made is a part of its run's log, and not left over in one that was removed."""
        log.tail = None
        try:
            state = self._listed(log, 0)
            if state is not None and state.nonce != mine.nonce and state.buried > mine.entry:
                self.bucket.remove([entry_key(log.name, mine.entry)])
                return False
        except StoreUnavailableError as e:
            raise AmbiguousError(e.message) from e
        log.know(state, self._timer() - self._patience)  # to be listed again
        return True

    # ---- reading entries

    def place(self, name: str, number: int) -> str:
        """Names an object in messages."""
        return f"{self.bucket.place}/{entry_key(name, number)}"

    def fetch(self, name: str, number: int) -> Entry | None:
        """An entry, from the bucket; None when there is none."""
        found = self.bucket.get(entry_key(name, number))
        if found is None:
            return None
        return self.read(found.data, name, number)

    def read(self, data: bytes, name: str, number: int) -> Entry | None:
        """An entry of these bytes; None for the stub of one that was removed.

        Raises:
            CorruptHistoryError: it is not this entry of this run, or damaged.
        """
        place = self.place(name, number)
        entry = decode(data, place, number)
        if entry is not None:
            if name_of(entry.state.run_id) != name:
                raise CorruptHistoryError(
                    f"{place}: holds run {entry.state.run_id!r}; restore it from a backup", place=place
                )
            self._cache(name, entry)
        return entry

    def known(self, name: str, number: int) -> Entry | None:
        """An entry that was read or written a while ago."""
        with self._lock:
            return self._entries.get((name, number))

    def entry(self, name: str, number: int) -> Entry:
        """An entry that has been there. An entry never changes, so one that was read before is it.

        Raises:
            CorruptHistoryError: it is not there any more.
        """
        with self._lock:
            entry = self._entries.get((name, number))
            if entry is not None:
                self._entries.move_to_end((name, number))
                return entry
        entry = self.fetch(name, number)
        if entry is None:
            place = self.place(name, number)
            raise CorruptHistoryError(f"{place}: is gone; restore it from a backup", place=place)
        return entry

    def _cache(self, name: str, entry: Entry) -> None:
        if entry.size > _CACHE // 4:
            return
        with self._lock:
            if (name, entry.state.entry) not in self._entries:
                self._entries[name, entry.state.entry] = entry
                self._cached += entry.size
            while self._cached > _CACHE:
                self._cached -= self._entries.popitem(last=False)[1].size

    def find(self, log: Log) -> Callable[[State, str], tuple[int, int] | None]:
        """Finds where an attempt was written, in as many entries as have attempts of their own."""

        def look(state: State, attempt_id: str) -> tuple[int, int] | None:
            while attempt_id not in state.attempts:
                if state.older is None:
                    return None
                state = self.entry(log.name, state.older).state
            return state.attempts[attempt_id]

        return look


def _again(outcome: Any) -> Any:
    """The outcome of a write that had been done by a try whose answer was lost."""
    if isinstance(outcome, Committed):
        return AlreadyCommitted(outcome.seq, outcome.incarnation, outcome.lease, outcome.busy_until)
    return outcome


def local_seconds() -> float:
    """Seconds of a clock that goes on while the machine sleeps, where there is one."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)
