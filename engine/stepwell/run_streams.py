"""Reading a run as it goes: its history from the store, and what is told live in the same process. Floor 4.

The history is the truth: what is recorded is read from it, in order, wherever the run is driven. Live messages are
extras. Each says how long the history was when its attempt began, so it is given after the events before that; and an
outcome is read before the messages are taken, so a chunk is given before the outcome of its own attempt.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

from . import events as e
from .control import RESTARTED
from .errors import ClosedError, InvalidInputError, NotFoundError
from .hub import MAX_LIVE, Inbox, Live
from .loading import Parts
from .reading import outcome_of, status_of
from .registry import known_workflow
from .sessions import Sessions
from .store import RunHead
from .streaming import Chunk, Done, Emitted, Lagged, StatusChanged, StepChanged, StreamEvent
from .wire import read_tail

__all__ = ["Position", "RunStream", "Until"]

Position: TypeAlias = int | tuple[int, int]
"""The seq of an event in the current incarnation, or (incarnation, seq)."""

Until: TypeAlias = Literal["done", "parked"]

PAGE = 1_000
"""Events that are read at once."""

LOOK = 0.25
"""Seconds after which the store is asked again, when nobody said that there is something."""

GRACE = 5.0
"""Seconds that a run which was closed to be begun anew has for that."""

_CLOSED = {e.Complete: "completed", e.Error: "failed", e.Cancelled: "cancelled"}


class RunStream:
    """The events of a run, one after the other, for one reader in one thread; made by `engine.stream`.

    It ends with `Done`, when the engine or the stream itself is closed, or as `timeout` and `until` say. A context
    manager; one that nobody holds any more costs nothing.

    Attributes:
        run_id: the run.
        after: position of the last recorded event that was given: what a later `engine.stream(after=...)` takes.
    """

    def __init__(
        self,
        parts: Parts,
        sessions: Sessions,
        ready: Callable[[], None],
        run_id: str,
        after: Position | None,
        timeout: float | None,
        until: Until,
    ) -> None:
        self.run_id = run_id
        self._parts, self._sessions, self._check = parts, sessions, ready
        self._timeout, self._until = timeout, until
        self._join()
        head = self._head()
        self._incarnation, self._seq = _begin(head, after)
        self.after = None if after is None else (self._incarnation, self._seq - 1)
        self._going_over = False  # to an incarnation that was opened while this reads
        self._prefix = 0  # offset of the last event that it has taken over
        self._told: tuple[Any, ...] | None = None  # how the run stood last
        self._ready: deque[StreamEvent] = deque()
        self._live: deque[Live] = deque()
        self._step_ids: dict[str, str] = {}  # of steps under way, by `at`
        self._ended: dict[str, int] = {}  # attempts that are over, by `at`, of streams that were seen live
        self._restarting: float | None = None  # until when another incarnation is waited for
        self._over = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> StreamEvent:
        """Give the next event, as soon as there is one.

        Raises:
            StopIteration: there is none, or none came in time.
            NotFoundError: the run was deleted meanwhile.
            CorruptHistoryError, StoreError: the history can't be read.
        """
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        while (event := self._next()) is None:
            if self._over or self._inbox.closed:
                raise StopIteration
            if self._pid != os.getpid():
                self._join()  # in a forked child the parent's inbox is not filled
            try:
                head = self._look()
                if head is None or self._ready or self._over:
                    continue
                left = LOOK if deadline is None else min(LOOK, deadline - time.monotonic())
                if left <= 0:
                    raise StopIteration
                self._wait(head, left)
            except ClosedError:
                self.close()
        self.after = event.position or self.after
        return event

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<stream of run {self.run_id!r}, after {self.after}>"

    def close(self) -> None:
        """End the stream, from any thread: a reader that waits is woken."""
        self._over = True
        self._ready.clear()
        self._inbox.close()
        self._parts.hub.leave(self.run_id, self._inbox)

    # ---- looking

    def _next(self) -> StreamEvent | None:
        try:
            return self._ready.popleft()
        except IndexError:
            return None

    def _join(self) -> None:
        self._check()
        self._pid = os.getpid()
        self._inbox: Inbox = self._parts.hub.join(self.run_id)

    def _head(self) -> RunHead:
        head = self._parts.store.head(self.run_id)
        if head is None:
            raise NotFoundError(f"no run {self.run_id!r}", run_id=self.run_id)
        return head

    def _wait(self, head: RunHead, seconds: float) -> None:
        """Block until there may be something: live, where the run is driven here, else in the store."""
        if self._sessions.drives(self.run_id):
            self._inbox.wait(seconds)
        else:
            self._parts.store.wait(self.run_id, head.seq, seconds)

    def _look(self) -> RunHead | None:
        """Take in what there is now, up to a page; None when there is more to look at."""
        head = self._head()
        behind = head.incarnation > self._incarnation
        page: list[e.Event] = []
        caught_up = not behind and head.seq <= self._seq
        if not caught_up:
            page, caught_up = self._read()
        elif head.incarnation < self._incarnation or head.seq < self._seq:
            raise NotFoundError(f"run {self.run_id!r} was deleted, and its id is used again", run_id=self.run_id)
        self._take_live()
        for event in page:
            self._give_live()
            self._take_in(event, head)
            if self._over:
                return head
        self._give_live()
        if not caught_up:
            return None
        if behind:
            self._go_over()
            return None
        self._stand(head)
        return head

    def _read(self) -> tuple[list[e.Event], bool]:
        """The next events, and whether those are all that there were."""
        tail = self._parts.store.read(self.run_id, self._seq, incarnation=self._incarnation, limit=PAGE)
        if tail is None or tail.from_seq < self._seq:
            raise NotFoundError(f"run {self.run_id!r} was deleted meanwhile", run_id=self.run_id)
        return read_tail(tail, self.run_id), not tail.more

    def _go_over(self) -> None:
        """Go on with the next incarnation; what it has taken over from this one was given already."""
        self._incarnation, self._seq, self._going_over = self._incarnation + 1, 0, True
        self._step_ids.clear()
        self._ended.clear()
        self._told, self._restarting = None, None

    def _stand(self, head: RunHead) -> None:
        """Tell how the run stands, when that has changed; everything recorded is given before."""
        if self._going_over:
            self._begun(self._seq - 1)
        if head.closed:
            self._wait_for_another(head)
            return
        row, status = head.head, status_of(head)
        parked = status in ("suspended", "paused")
        waits = tuple(wait.signal for wait in row.waiting) if parked else ()
        due = e.from_micros(row.due) if parked and row.due is not None else None
        blocked = None if row.blocked is None else row.blocked.code
        stands = (status, waits, due, blocked)
        if stands != self._told:
            self._told = stands
            self._ready.append(self._made(StatusChanged, status=status, waiting_for=waits, due=due, blocked=blocked))
        if self._until == "parked" and (parked or (blocked is not None and head.lease_until is None)):
            self._over = due is None or due > self._parts.now()

    def _wait_for_another(self, head: RunHead) -> None:
        """The run is closed, and its end was given: it is about to be begun anew, or this reader came after that."""
        if self._restarting is None or time.monotonic() >= self._restarting:
            last = self._parts.store.read(self.run_id, self._seq - 1, incarnation=self._incarnation)
            if last is not None and last.records:
                self._done(read_tail(last, self.run_id)[-1], head)

    # ---- what is live

    def _take_live(self) -> None:
        dropped, live = self._inbox.take()
        self._live.extend(live)
        while len(self._live) > MAX_LIVE:  # they wait for a long history to be given first
            self._live.popleft()
            dropped += 1
        if dropped:
            self._ready.append(self._made(Lagged, count=dropped))

    def _give_live(self) -> None:
        """Give the live messages that come before the next recorded event."""
        while self._live:
            live = self._live[0]
            if (live.incarnation, live.base) > (self._incarnation, self._seq):
                return
            self._live.popleft()
            if live.incarnation < self._incarnation or live.attempt <= self._ended.get(live.at, 0):
                continue
            what: dict[str, Any] = {"step_id": live.step_id, "at": live.at, "attempt": live.attempt}
            if self._going_over:
                self._begun(self._seq - 1)
            self._step_ids[live.at] = live.step_id
            self._ended.setdefault(live.at, 0)
            if len(self._ended) > MAX_LIVE:
                del self._ended[next(iter(self._ended))]
            if live.index is None:
                self._ready.append(self._made(StepChanged, status="started", **what))
            else:
                value = self._parts.codec.decode(live.value)
                self._ready.append(self._made(Chunk, index=live.index, value=value, **what))

    # ---- what is recorded

    def _take_in(self, event: e.Event, head: RunHead) -> None:
        """Give what a recorded event tells."""
        if self._going_over:
            if isinstance(event, e.Start):  # a retry takes over so many events, with the one that marks it
                self._prefix = 0 if event.source is None else event.prefix + 1
            if self._seq <= self._prefix or event.kept:
                self._seq += 1
                return
            self._begun(self._seq - 1)
        seq = self._seq
        self._seq += 1
        if event.at is None and isinstance(event, e.CLOSING):
            self._closed(event, head)
        elif isinstance(event, e.Start):
            self._begun(seq)
        else:
            self._ready.extend(self._told_by(event, seq))

    def _begun(self, seq: int) -> None:
        """An incarnation begins; what it has taken over is behind."""
        self._going_over = False
        self._told = ("pending", (), None, None)
        self._ready.append(self._made(StatusChanged, seq=seq, status="pending"))

    def _told_by(self, event: e.Event, seq: int) -> list[StreamEvent]:
        """What an event in the midst of a history tells."""
        match event:
            case e.Step():
                self._over_with(event.at, event.attempts)
                status = "completed" if event.error is None else "failed"
                result = None if event.result is e.UNSET else self._parts.codec.decode(event.result)
                return [self._step(event, seq, status, attempt=event.attempts, result=result, failure=event.error)]
            case e.Attempt():
                self._step_ids[event.at] = event.step_id
                if event.at in self._ended:
                    self._ended[event.at] = event.attempt
                what = {"attempt": event.attempt, "failure": event.error, "due": e.parse_instant(event.due)}
                return [self._step(event, seq, "attempt_failed", **what)]
            case e.Begin():
                self._step_ids[event.at] = event.step_id
                return [self._step(event, seq, "started", attempt=1)]
            case e.Cancelled():
                step_id = self._step_ids.get(event.at or "", "")
                self._over_with(event.at or "", None)
                return [self._made(StepChanged, seq=seq, status="cancelled", at=event.at, step_id=step_id)]
            case e.Chunk():
                self._step_ids[event.at] = event.step_id
                what = {"attempt": event.attempt, "index": event.index, "value": self._parts.codec.decode(event.value)}
                return [self._made(Chunk, seq=seq, at=event.at, step_id=event.step_id, **what)]
            case e.Emit():
                value = self._parts.codec.decode(event.value)
                return [self._made(Emitted, seq=seq, value=value, topic=event.topic, at=event.at)]
        return []

    def _step(self, event: e.Step | e.Attempt | e.Begin, seq: int, status: str, **what: Any) -> StreamEvent:
        return self._made(StepChanged, seq=seq, status=status, at=event.at, step_id=event.step_id, **what)

    def _over_with(self, at: str, attempts: int | None) -> None:
        """A step is over: late live messages of it are void."""
        self._step_ids.pop(at, None)
        if at in self._ended:
            self._ended[at] = 1 << 30 if attempts is None else attempts

    def _closed(self, event: e.Event, head: RunHead) -> None:
        """The incarnation is closed: the run too, unless another one is there or about to come."""
        if head.incarnation > self._incarnation:
            self._ready.append(self._made(StatusChanged, seq=self._seq - 1, status=_CLOSED[type(event)]))
        elif isinstance(event, e.Cancelled) and event.forced and event.reason == RESTARTED:
            self._restarting = time.monotonic() + GRACE
            self._ready.append(self._made(StatusChanged, seq=self._seq - 1, status="cancelled"))
        else:
            self._done(event, head)

    def _done(self, event: e.EventBase, head: RunHead) -> None:
        outcome = outcome_of(self._parts.codec, self.run_id, known_workflow(self._parts.registry, head), event)
        self._ready.append(self._made(Done, seq=self._seq - 1, outcome=outcome))
        self._over = True

    def _made(self, kind: Callable[..., StreamEvent], **what: Any) -> StreamEvent:
        return kind(run_id=self.run_id, incarnation=self._incarnation, **what)


def _begin(head: RunHead, after: Position | None) -> tuple[int, int]:
    """The incarnation and seq of the first event that is read."""
    if after is None:
        return head.incarnation, 0
    incarnation, seq = after if isinstance(after, tuple) and len(after) == 2 else (head.incarnation, after)
    whole = all(isinstance(number, int) and not isinstance(number, bool) for number in (incarnation, seq))
    if not whole or not 0 <= incarnation <= head.incarnation or seq < 0:
        raise InvalidInputError(
            f"after must be the seq of an event, or (incarnation, seq) as `position` has it, got {after!r}"
        )
    if incarnation == head.incarnation and seq >= head.seq:
        raise InvalidInputError(
            f"run {head.run_id!r} has {head.seq} events, so there is none at seq {seq} to go on from"
        )
    return incarnation, seq + 1
