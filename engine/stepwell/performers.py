"""How a step is performed: the only place that calls user functions. Floor 4.

An attempt is a *flight*: a future, a deadline, and a context that the function can ask for with `current_step()`. A
lone sync step runs in the calling thread; steps of branches run on the engine's executor; a sync step with a time-out
runs in a daemon thread of its own, so that one that hangs neither holds a place in the pool nor the process's exit;
`async def` steps run on one background event loop.
"""

from __future__ import annotations

import contextvars
import inspect
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias, TypeVar

import msgspec

from .codec import Codec
from .commands import Step
from .digests import digest
from .environment import Environment
from .errors import Cancelled, CodecError, InvalidInputError
from .inputs import ATOMS
from .results import Form
from .steps import callee_of

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Executor, Future

    from .loops import Loop

__all__ = [
    "Flight",
    "LeavesLoop",
    "NoThreadError",
    "Perform",
    "Performer",
    "StepContext",
    "call_step",
    "current_step",
    "end_of",
    "running",
]


R = TypeVar("R")


class Host(Protocol):
    """What a step's context asks of whoever performs the step."""

    def beat(self, context: StepContext, details: bytes | None) -> None:
        """Take in a sign of life, with JSON of how far the step is when it says so."""
        ...

    def details_before(self, context: StepContext) -> bytes | None:
        """What an earlier attempt told last."""
        ...


class StepContext:
    """What a running step may know of itself; get it with `current_step()`.

    Attributes:
        run_id: its run.
        step_id: its name, with `#2`, `#3` on repeats.
        attempt: 1-based number of this try.
    """

    __slots__ = ("_cancelled", "_host", "_key", "_waiters", "attempt", "run_id", "step_id")

    drain: ClassVar[Any] = None  # of a Stream's: makes the result of the generator that a call gave

    def __init__(
        self, run_id: str, step_id: str, attempt: int, key: tuple[str, str, str], host: Host | None = None
    ) -> None:
        self.run_id = run_id
        self.step_id = step_id
        self.attempt = attempt
        self._key = key
        self._host = host
        self._cancelled = False
        self._waiters: list[Told] = []  # of those that wait now

    def __repr__(self) -> str:
        return f"StepContext(run_id={self.run_id!r}, step_id={self.step_id!r}, attempt={self.attempt})"

    @property
    def at(self) -> str:
        """Path of the step in its run."""
        return self._key[1]

    @property
    def idempotency_key(self) -> str:
        """32 hex digits, the same for every attempt and session of this step.

        Hand it to the service that the step calls, so that a repeated call counts once.
        """
        return idempotency_key(self.run_id, *self._key)

    @property
    def cancelled(self) -> bool:
        """Whether nobody wants the result any more: run or branch is cancelled, it timed out, or the lease is lost."""
        return self._cancelled

    def wait_cancelled(self, seconds: float) -> bool:
        """Wait in place of sleeping: True as soon as `cancelled`."""
        event = threading.Event()
        self._waiters.append(event)
        try:
            return self._cancelled or event.wait(seconds)  # looked at after the event is there for `cancel` to see
        finally:
            self._waiters.remove(event)

    def heartbeat(self, details: Any = None) -> None:
        """Say that the step is alive, and how far it is; call it as often as you like, from any thread of the step.

        The newest details are recorded while the step runs, at most once a second, and when an attempt fails. The next
        attempt has them as `last_details`, also after a crash or `engine.retry`, and begins there what it can.

        Args:
            details: plain JSON of at most 64 KiB; None leaves the last ones as they are.

        Raises:
            Cancelled: nobody wants the result any more, as `cancelled` says. Let it pass: the step is recorded as
                cancelled, and a lost attempt is dropped.
            InvalidInputError: the details are no JSON, or too much of it.
        """
        host = self._host
        if host is not None:
            host.beat(self, None if details is None else encoded_details(details))
        if self._cancelled:
            raise Cancelled

    @property
    def last_details(self) -> Any:
        """What an earlier attempt of this step told last by `heartbeat`, as plain JSON; None when it told nothing."""
        raw = None if self._host is None else self._host.details_before(self)
        return None if raw is None else msgspec.json.decode(raw)

    def cancel(self) -> None:
        """Tell the step; for interpreters."""
        self._cancelled = True
        for waiter in list(self._waiters):
            waiter.set()

    def when_cancelled(self, told: Told) -> None:
        """Have somebody else told as well, at once when it is so already; for interpreters."""
        self._waiters.append(told)
        if self._cancelled:
            told.set()


class Told(Protocol):
    """Who is told of a cancel; several times, from any thread."""

    def set(self) -> None:
        """It is cancelled."""
        ...


MAX_DETAILS = 1 << 16
"""Bytes of JSON that a heartbeat may bring: they may be recorded every second."""


def encoded_details(details: Any) -> bytes:
    """How far a step is, as it is recorded."""
    global _details  # noqa: PLW0603 - made by the first heartbeat of a process
    _details = _details or Codec(max_bytes=MAX_DETAILS)
    try:
        return _details.encode(details)
    except CodecError as error:
        raise InvalidInputError(f"a heartbeat's details must be plain JSON: {error.message}") from error


_details: Codec | None = None

_current: contextvars.ContextVar[StepContext | None] = contextvars.ContextVar("stepwell_current_step", default=None)


def current_step() -> StepContext:
    """The context of the step that calls this, in its thread or coroutine.

    Raises:
        InvalidInputError: no step is running here.
    """
    context = _current.get()
    if context is None:
        raise InvalidInputError("current_step() can be asked inside a step only")
    return context


def running(context: StepContext, call: Callable[[], R]) -> R:
    """Call something as the step of this context."""
    _current.set(context)
    return call()


def idempotency_key(run_id: str, line: str, at: str, name: str) -> str:
    """32 hex digits that stand for one step of one run; `line` is that of its `start` event."""
    return digest(f"{run_id}\0{line}\0{at}\0{name}".encode())


Perform: TypeAlias = Callable[[Step[Any], StepContext], Any]
"""Calls a step's function: gives its result, a coroutine for `async def`, a generator for a Stream, or raises."""


def call_step(step: Step[Any], _context: StepContext) -> Any:
    """Call the function; its arguments are this attempt's own already."""
    return step.fn(*step.args, **step.kwargs)


class NoThreadError(RuntimeError):
    """There is no thread or executor for a step now; there may be one later."""


def end_of(future: Future[Any]) -> BaseException | None:
    """How a call failed, None when it did not."""
    from concurrent.futures import CancelledError

    try:
        return future.exception()
    except CancelledError as error:
        return error


class Flight(msgspec.Struct, eq=False):
    """One attempt that is under way.

    Attributes:
        form: how its result is recorded.
        started: when it was begun, as the wire writes it.
        inputs: a digest of its arguments, None when they don't encode.
        since: the same, for the listener; None when there is none.
        deadline: when it times out, or None.
        future: its end; None for a call in the session's own thread.
        dropped: nobody waits for it any more; its end is only reported.
        stream: of a Stream, its context.
        beaten: when it gave its last sign of life; None when nobody waits for one.
        killable: whether it is ended for good when its time is over, and its end is waited for.
        overdue: why it is being ended, for one that is killable.
    """

    at: str
    step_id: str
    command: Step[Any]
    form: Form
    context: StepContext
    started: str
    inputs: str | None
    since: datetime | None = None
    deadline: datetime | None = None
    future: Any = None  # a Future
    dropped: bool = False
    stream: Any = None  # a StreamContext
    beaten: datetime | None = None
    killable: bool = False
    overdue: BaseException | None = None

    @property
    def ends(self) -> datetime | None:
        """When its time is over, as far as is known now."""
        if self.overdue is not None:
            return None
        patience = self.command.given.heartbeat_timeout
        if self.beaten is None or patience is None:
            return self.deadline
        silent = self.beaten + timedelta(seconds=patience)
        return silent if self.deadline is None else min(silent, self.deadline)


class LeavesLoop(Exception):
    """Carries KeyboardInterrupt or SystemExit out of an event loop, which would end, and with it every step."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class Performer:
    """Threads and the event loop of one engine.

    Args:
        environment: clock, chance and executor.
        perform: calls a step's function; a simulation gives its fakes here.
        loop: a running event loop for `async def` steps; None makes one, in a daemon thread, at first use.
    """

    def __init__(
        self,
        environment: Environment,
        perform: Perform = call_step,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.awaits = perform is call_step  # whether what a step of `async def` gives is awaited, on the loop
        self._environment = environment
        self._perform = perform
        self._given_loop = loop
        self._loop: Loop | None = None
        self._executor: Executor | None = None
        self._lock = threading.Lock()

    def run_here(self, step: Step[Any], context: StepContext) -> tuple[Any, BaseException | None]:
        """Perform a sync step in this thread: what it gave, and how it failed, one of them None.

        KeyboardInterrupt and SystemExit pass through.
        """
        try:
            return contextvars.copy_context().run(self._call, step, context), None
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            return None, error

    def launch(self, step: Step[Any], context: StepContext, *, daemon: bool = False) -> Future[Any]:
        """Perform a step elsewhere: on the loop, in a daemon thread, or on the executor.

        Raises:
            NoThreadError: none is to be had; the step was not begun.
        """
        try:
            return self._launch(step, context, daemon=daemon)
        except (RuntimeError, OSError, ImportError) as error:
            raise NoThreadError(str(error)) from error

    def _launch(self, step: Step[Any], context: StepContext, *, daemon: bool) -> Future[Any]:
        within = contextvars.copy_context()
        if self.awaits and not step.given.process and callee_of(step.fn).is_async:
            return self._get_loop().call(partial(self._awaited, step, context), within)
        if daemon and self._environment.threads:
            from concurrent.futures import Future

            future: Future[Any] = Future()
            future.set_running_or_notify_cancel()
            thread = threading.Thread(
                target=_settle,
                args=(future, lambda: within.run(self._call, step, context)),
                name=f"stepwell-{context.step_id}",
                daemon=True,
            )
            thread.start()
            return future
        return self._get_executor().submit(within.run, self._call, step, context)

    def close(self) -> None:
        """End the threads; steps that run are not waited for."""
        with self._lock:
            executor, self._executor = self._executor, None
            loop, self._loop = self._loop, None
        if executor is not None and executor is not self._environment.executor:
            executor.shutdown(wait=False, cancel_futures=True)
        if loop is not None:
            loop.stop()

    def forget(self) -> None:
        """In a forked child: the parent's threads are not there."""
        self._executor = self._loop = None
        self._lock = threading.Lock()

    def _call(self, step: Step[Any], context: StepContext) -> Any:
        _current.set(context)
        value = self._perform(step, context)
        if type(value) in ATOMS:
            return value
        if context.drain is not None:
            value = context.drain(value)
        if not inspect.iscoroutine(value):
            return value
        try:
            return self._get_loop().submit(carried(value)).result()
        except LeavesLoop as left:
            raise left.error from None

    async def _awaited(self, step: Step[Any], context: StepContext) -> Any:
        _current.set(context)
        value = self._perform(step, context)
        return await carried(value if context.drain is None else context.drain(value))

    def _get_executor(self) -> Executor:
        with self._lock:
            if self._executor is None:
                self._executor = self._environment.executor or self._environment.make_executor()
            return self._executor

    def _get_loop(self) -> Loop:
        with self._lock:
            if self._loop is None:
                from .loops import Loop  # with the first `async def` step: asyncio takes long to import

                self._loop = Loop(self._given_loop)
            return self._loop


async def carried(value: Any) -> Any:
    """Await what is awaitable; what ends the process is carried out of the loop."""
    try:
        return await value if inspect.isawaitable(value) else value
    except (KeyboardInterrupt, SystemExit) as error:
        raise LeavesLoop(error) from error


def _settle(future: Future[Any], call: Callable[[], Any]) -> None:
    """Run the call and put its end into the future."""
    try:
        value = call()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(value)
