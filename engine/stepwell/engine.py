"""The engine: load, fold, perform, append, repeat until the run is parked or closed. Floor 4.

This is the facade: it checks what callers give, and hands the work to `Driver` (start, advance, resume), `Control`
(signal, cancel, retry, fork, ...) and `Queries` (get, runs, history, ...).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, TypeVarTuple

from . import events as e
from .checks import (
    checked_choice,
    checked_count,
    checked_filter,
    checked_incarnation,
    checked_limit,
    checked_reason,
    checked_run_id,
    checked_signal,
    checked_tags,
    checked_text,
    checked_ttl,
)
from .codec import Codec
from .commands import Flow, Signal
from .control import Control
from .driving import Driver, IfClosed, IfOpen
from .environment import Clock, Environment, SystemClock
from .environment import new_run_id as make_run_id
from .errors import ClosedError, InvalidInputError
from .lifecycle import LifecycleEvent
from .loading import Parts
from .opening import import_early, open_store, teller
from .outcomes import Outcome, RunRecord, WaitingFor
from .parked import Parked
from .performers import Perform, Performer, call_step
from .queries import Queries
from .registry import Registry
from .retry import NO_RETRY, RetryPolicy, as_seconds
from .sessions import Sessions
from .signals import Message
from .store import Status, Store
from .workflows import Workflow

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Executor

__all__ = ["Engine"]

T = TypeVar("T")
R = TypeVar("R")
Ts = TypeVarTuple("Ts")


class Engine:
    """Runs workflows against a store. Thread-safe; several engines may live in one process; nothing is global.

    Nothing is opened before the first call, and a forked child opens its own handles.

    Args:
        store: a URL (`memory:`, `file:DIR`, `sqlite:///PATH`) or a Store object.
        workflows: the workflows that this engine knows; two of one name and version are refused.
        retry: default retry policy of steps; one attempt when None.
        clock: gives the time; the system's when None.
        executor: runs the steps of branches; a bounded pool of daemon threads when None.
        loop: a running event loop for `async def` steps; one in a daemon thread of the engine's own when None.
        on_event: called with each `LifecycleEvent`, in the thread in which it happens. One that raises is logged and
            never hurts a run.
        codec: turns values into JSON and back; give one with a converter of your own for your types.
        park_after: longest wait, timedelta or seconds, for which a thread is kept; longer ones park the run. 5 s.
        keep_parked: how many parked runs are kept in memory, so that a signal need not replay their histories.
        lease: how long a run stays with an owner that was paused, timedelta or seconds; renewed at a third of it. 30 s.
        environment: clock, chance and threads at once, for simulations; excludes `clock` and `executor`.
        perform: how a step's function is called, for simulations.

    Raises:
        InvalidInputError: an argument is wrong.
        StoreMisconfiguredError: the URL's scheme is not known, or the address is malformed.

    Example:
        >>> from stepwell import Engine, Flow, Step, workflow
        >>> @workflow
        ... def hello(name: str) -> Flow[str]:
        ...     return (yield from Step(str.upper, name).options(into=str))
        >>> Engine("memory:", workflows=[hello]).start(hello, "ada").unwrap()
        'ADA'
    """

    def __init__(
        self,
        store: str | Store,
        workflows: Iterable[Workflow[..., Any]] = (),
        *,
        retry: RetryPolicy | None = None,
        clock: Clock | None = None,
        executor: Executor | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        on_event: Callable[[LifecycleEvent], None] | None = None,
        codec: Codec | None = None,
        park_after: timedelta | float = 5.0,
        lease: timedelta | float = 30.0,
        keep_parked: int = 100,
        environment: Environment | None = None,
        perform: Perform = call_step,
    ) -> None:
        if environment is not None and (clock is not None or executor is not None):
            raise InvalidInputError("give an environment, or a clock and an executor, not both")
        ttl, most = checked_ttl(lease), checked_count("keep_parked", keep_parked)
        import_early()
        env = environment or Environment(clock=clock or SystemClock(), executor=executor)
        self._store: Store = open_store(store)
        self._performer = Performer(env, perform, loop)
        self._sessions = Sessions(self._store, ttl, renews=env.threads)
        self._parts = Parts(
            store=self._store,
            codec=codec or Codec(),
            environment=env,
            performer=self._performer,
            registry=Registry(workflows),
            tell=teller(on_event),
            listens=on_event is not None,
            retry=retry or NO_RETRY,
            park_after=as_seconds(park_after, "park_after"),
            ttl=ttl,
            owner=make_run_id(),
            stamp=env.stamper(),
            parked=Parked(most if on_event is None else 0),  # a listener hears of each step that is replayed
        )
        self._driver, self._queries = Driver(self._parts, self._sessions), Queries(self._parts)
        self._control = Control(self._parts, self._sessions, self._driver)
        self._lock, self._pid, self._closed = threading.Lock(), os.getpid(), False

    # ---- driving

    # Taken by its call, not as Workflow[P, R]: so arguments with defaults may be left out, and options be keywords.
    def start(
        self,
        workflow: Callable[[*Ts], Flow[R]],
        *args: *Ts,
        run_id: str | None = None,
        tags: Mapping[str, str] | None = None,
        if_open: IfOpen = "join",
        if_closed: IfClosed = "return",
    ) -> Outcome[R]:
        """Run a workflow in the calling thread until it is closed or parked; the same call again goes on with it.

        Args:
            workflow: what `@workflow` made; it becomes known to this engine.
            args: its arguments, recorded with the run.
            run_id: the caller's key, printable, at most 200 bytes of UTF-8; a new UUIDv7 when None.
            tags: labels to find the run by, text to text.
            if_open: the run is there and open. "join": drive it on, or give `Running` when somebody else does; "error":
                ConflictError; "restart": close it as cancelled and begin anew.
            if_closed: the run is there and closed. "return": its outcome; "retry_failed": retry it when it failed;
                "error": ConflictError; "restart": begin anew.

        Returns:
            RunCompleted, RunFailed, RunCancelled, RunSuspended, RunPaused or Running.

        Raises:
            InvalidInputError: an argument is wrong, or the workflow yields what is no command; nothing is written.
            ConflictError: the run id is taken by another workflow or other input, or a policy says so.
            DivergenceError, CodecError, VersionMismatchError: the code does not fit the run's history; it is blocked.
            StoreError: the store failed.
        """
        return self._start(workflow, args, run_id, tags, if_open, if_closed, drive=True)

    def submit(
        self,
        workflow: Callable[[*Ts], Flow[R]],
        *args: *Ts,
        run_id: str | None = None,
        tags: Mapping[str, str] | None = None,
        if_open: IfOpen = "join",
        if_closed: IfClosed = "return",
    ) -> Outcome[R]:
        """Only record the start; `run_due` or `advance` drives the run. Arguments and errors as `start`."""
        return self._start(workflow, args, run_id, tags, if_open, if_closed, drive=False)

    def advance(self, run_id: str) -> Outcome[Any]:
        """Drive a run on in this thread: the call for a queue consumer, harmless however often it is made.

        A blocked run is tried again.

        Raises:
            NotFoundError: no such run, or this engine does not know its workflow.
            RunBusyError: somebody else holds a live lease; retryable, and says until when.
            DivergenceError, CodecError, VersionMismatchError: the code does not fit the run's history; it is blocked.
        """
        self._ready()
        return self._driver.advance(checked_run_id(run_id))

    def run_due(self, limit: int | None = None) -> list[Outcome[Any]]:
        """Drive once, in this thread, everything that is submitted, due, or left by a dead owner.

        A run that can't be driven (unknown workflow, diverged) is marked as blocked, logged, and does not stop the
        others.

        Args:
            limit: how many runs at most; all when None.

        Returns:
            Outcomes of the runs that were driven, earliest due first.
        """
        self._ready()
        if limit is not None:
            checked_limit(limit, 2**31)
        return self._driver.run_due(limit)

    def wait(self, run_id: str, timeout: timedelta | float | None = None) -> Outcome[Any]:
        """Block until a run that somebody else drives is closed, parked or blocked, or until `timeout`; its outcome."""
        self._ready()
        seconds = None if timeout is None else as_seconds(timeout, "timeout")
        return self._queries.wait(checked_run_id(run_id), seconds)

    # ---- signals

    def resume(
        self,
        run_id: str,
        signal: Signal[T] | str,
        value: T | dict[str, Any] | list[Any] | None = None,
        *,
        wait: str | None = None,
        id: str | None = None,
    ) -> Outcome[Any]:
        """Give a suspended run the signal that it waits for, and drive it on in this thread.

        Args:
            signal: a Signal, or its name.
            value: the payload, of the type that the Suspend asks for, or the plain JSON that it decodes from.
            wait: the wait id that this answers, as `waiting()` shows it, so that a late click can't answer the next
                question.
            id: the same id twice counts once.

        Returns:
            As `start`; `Running` when somebody else drives the run, which has the signal all the same.

        Raises:
            EventMismatchError: the run does not wait for that signal, or not any more.
            InvalidInputError: the payload does not fit the type; nothing is written.
            RunClosedError, NotFoundError: there is nothing to resume.
        """
        self._ready()
        message = Message.of(checked_signal(signal), value, wait, id)
        return self._driver.resume(checked_run_id(run_id), message)

    def signal(
        self,
        run_id: str,
        signal: Signal[T] | str,
        value: T | dict[str, Any] | list[Any] | None = None,
        *,
        wait: str | None = None,
        id: str | None = None,
    ) -> None:
        """Send a signal: durable when this returns, buffered when it is early; nobody is driven here.

        Arguments as `resume`.

        Raises:
            RunClosedError, NotFoundError: nobody can get it.
            InvalidInputError: the payload does not fit the Suspend that waits for it.
            EventMismatchError: `wait` names a wait that is over.
        """
        self._ready()
        self._control.signal(checked_run_id(run_id), Message.of(checked_signal(signal), value, wait, id))

    # ---- control

    def pause(self, run_id: str, reason: str | None = None) -> Outcome[Any]:
        """Stop a run at its next yield; steps in flight are recorded. RunClosedError, NotFoundError."""
        self._ready()
        return self._control.send(
            checked_run_id(run_id), e.Pause(reason=checked_reason(reason), timestamp=self._parts.stamp())
        )

    def unpause(self, run_id: str) -> Outcome[Any]:
        """Let a paused run go on, in this thread when nobody else drives it. RunClosedError, NotFoundError."""
        self._ready()
        return self._control.send(checked_run_id(run_id), e.Unpause(timestamp=self._parts.stamp()))

    def cancel(self, run_id: str, reason: str | None = None, *, force: bool = False) -> Outcome[Any]:
        """Cancel a run: waits end at once, a step in flight is recorded, then `Cancelled` is thrown, and clean-up runs.

        A run that nobody drives is cancelled in this thread; one that is driven elsewhere at its next yield.

        Args:
            force: close it at once, without asking the workflow: no clean-up.

        Raises:
            RunClosedError, NotFoundError: there is nothing to cancel.
        """
        self._ready()
        run_id, reason = checked_run_id(run_id), checked_reason(reason)
        if force:
            self._queries.head(run_id)
            self._control.force_cancel(run_id, reason)
            return self._queries.outcome(self._queries.head(run_id))
        return self._control.send(run_id, e.Cancel(reason=reason, timestamp=self._parts.stamp()))

    # ---- incarnations

    def retry(self, run_id: str) -> Outcome[Any]:
        """Go on from what failed; finished steps stay finished. ConflictError when it has not failed."""
        self._ready()
        return self._control.retry(checked_run_id(run_id))

    def reset(self, run_id: str) -> Outcome[Any]:
        """Begin a run anew with its own input and an empty history; an open one is closed as cancelled first."""
        self._ready()
        return self._control.reset(checked_run_id(run_id))

    def fork(
        self,
        run_id: str,
        *,
        before: str | int,
        new_run_id: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Outcome[Any]:
        """Begin another run with this one's history up to a point, and drive it; the source stays as it is.

        Args:
            before: a step id such as "classify#2", or a seq: what comes before it is taken over.
            new_run_id: its run id; a new UUIDv7 when None.
            tags: its tags; the source's when None.

        Raises:
            NotFoundError: no such run or step.
            ConflictError: the point comes after a cancel, or the new run id is taken.
        """
        self._ready()
        new = make_run_id() if new_run_id is None else new_run_id
        return self._control.fork(
            checked_run_id(run_id), before, checked_run_id(new), None if tags is None else checked_tags(tags)
        )

    def delete(self, run_id: str) -> None:
        """Remove a closed run with all of its incarnations. ConflictError when it is open, NotFoundError."""
        self._ready()
        self._control.delete(checked_run_id(run_id))

    # ---- questions

    def query(self, run_id: str) -> dict[str, Any]:
        """The state that `SetState` left, live or closed; writes nothing."""
        self._ready()
        return self._queries.state(checked_run_id(run_id))

    def get(self, run_id: str) -> RunRecord:
        """Everything that is known of a run, input and result as plain JSON shapes. NotFoundError."""
        self._ready()
        return self._queries.get(checked_run_id(run_id))

    def runs(
        self,
        *,
        status: Status | None = None,
        workflow: str | None = None,
        tag: tuple[str, str | None] | str | None = None,
        waiting_for: Signal[Any] | str | None = None,
        blocked: bool | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> list[RunRecord]:
        """A page of runs, newest first, without payloads; None of a filter means any.

        Args:
            tag: (name, value), or the name alone.
            limit: length of the page, 1 to 10,000.
            after: the last run id of the page before.
        """
        self._ready()
        checked_limit(limit, 10_000)
        where = checked_filter(status, workflow, tag, waiting_for, blocked)
        return self._queries.runs(where, limit, checked_text("after", after))

    def waiting(self, signal: Signal[Any] | str | None = None) -> list[WaitingFor]:
        """What open runs wait for, oldest first: who is to decide what, since when, and by which wait id."""
        self._ready()
        return self._queries.waiting(None if signal is None else checked_signal(signal).name)

    def history(self, run_id: str, *, incarnation: int | None = None) -> list[e.Event]:
        """The recorded events of a run, in order; of its current incarnation when None. NotFoundError."""
        self._ready()
        return self._queries.history(checked_run_id(run_id), checked_incarnation(incarnation))

    # ---- itself

    @property
    def store(self) -> Store:
        """The store that this engine works with."""
        return self._store

    def close(self) -> None:
        """Close the store's handles and end the threads; a later call raises ClosedError."""
        with self._lock:
            closed, self._closed = self._closed, True
        if closed:
            return
        with ExitStack() as stack:  # the performer last: that a step ends because its loop does is no outcome
            for part in (self._performer, self._store, self._parts.parked, self._sessions):
                stack.callback(part.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<engine on {self._store!r}>"

    def _start(
        self,
        workflow: Any,
        args: tuple[Any, ...],
        run_id: str | None,
        tags: Mapping[str, str] | None,
        if_open: IfOpen,
        if_closed: IfClosed,
        *,
        drive: bool,
    ) -> Outcome[Any]:
        self._ready()
        checked_choice("if_open", if_open, ("join", "error", "restart"))
        checked_choice("if_closed", if_closed, ("return", "retry_failed", "error", "restart"))
        chosen, labels = make_run_id() if run_id is None else checked_run_id(run_id), checked_tags(tags or {})
        self._parts.registry.add(workflow)
        return self._driver.start(
            workflow, args, chosen, labels, drive=drive, if_open=if_open, if_closed=if_closed, control=self._control
        )

    def _ready(self) -> None:
        """Refuse a closed engine; in a forked child, let go of the parent's threads."""
        if self._closed:
            raise ClosedError("this engine was closed")
        if self._pid != os.getpid():
            self._lock, self._pid = threading.Lock(), os.getpid()
            for part in (self._sessions, self._performer, self._parts.parked):
                part.forget()
