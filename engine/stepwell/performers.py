"""How a step is performed: the only place that calls user functions. Floor 4.

An attempt is a *flight*: a future, a deadline, and a context that the function can ask for with `current_step()`. A
lone sync step runs in the calling thread; steps of branches run on the engine's executor; a sync step with a time-out
runs in a daemon thread of its own, so that one that hangs neither holds a place in the pool nor the process's exit;
`async def` steps run on one background event loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import hashlib
import inspect
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from datetime import datetime
from typing import Any, TypeAlias

from attrs import define, field, frozen

from .commands import Step
from .environment import Environment
from .errors import InvalidInputError

__all__ = ["Flight", "LeavesLoop", "NoThreadError", "Perform", "Performer", "StepContext", "call_step", "current_step"]


@frozen
class StepContext:
    """What a running step may know of itself; get it with `current_step()`.

    Attributes:
        run_id: its run.
        step_id: its name, with `#2`, `#3` on repeats.
        attempt: 1-based number of this try.
        idempotency_key: 32 hex digits, the same for every attempt and session of this step; hand it to the service that
            the step calls, so that a repeated call counts once.
    """

    run_id: str
    step_id: str
    attempt: int
    idempotency_key: str
    _cancelled: threading.Event = field(factory=threading.Event, eq=False, repr=False)

    @property
    def cancelled(self) -> bool:
        """Whether nobody wants the result any more: run or branch is cancelled, it timed out, or the lease is lost."""
        return self._cancelled.is_set()

    def wait_cancelled(self, seconds: float) -> bool:
        """Wait in place of sleeping: True as soon as `cancelled`."""
        return self._cancelled.wait(seconds)

    def cancel(self) -> None:
        """Tell the step; for interpreters."""
        self._cancelled.set()


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


def idempotency_key(run_id: str, epoch: int, at: str, name: str) -> str:
    """32 hex digits that stand for one step of one run."""
    text = f"{run_id}\0{epoch}\0{at}\0{name}".encode()
    return hashlib.blake2b(text, digest_size=16).hexdigest()


Perform: TypeAlias = Callable[[Step[Any], StepContext], Any]
"""Calls a step's function: gives its result, a coroutine for an `async def` step, or raises."""


def call_step(step: Step[Any], _context: StepContext) -> Any:
    """Call the function; its arguments are this attempt's own already."""
    return step.fn(*step.args, **step.kwargs)


def own_copy(step: Step[Any]) -> Step[Any]:
    """The step with copies of its arguments, so that the function can't change the workflow's own objects."""
    args, kwargs = tuple(map(_copied, step.args)), {name: _copied(value) for name, value in step.kwargs.items()}
    return step.replaced(args, kwargs, step.given)


_IMMUTABLE = (str, int, float, bool, bytes, type(None))


def _copied(value: Any) -> Any:
    if isinstance(value, _IMMUTABLE):
        return value
    try:
        return copy.deepcopy(value)
    except Exception:
        return value  # a client or a lock: what can't be copied is shared


class NoThreadError(RuntimeError):
    """There is no thread or executor for a step now; there may be one later."""


@define(eq=False)
class Flight:
    """One attempt that is under way.

    Attributes:
        future: its end.
        started: when it was begun.
        deadline: when it times out, or None.
        dropped: nobody waits for it any more; its end is only reported.
    """

    at: str
    step_id: str
    command: Step[Any]
    context: StepContext
    started: datetime
    future: Future[Any]
    deadline: datetime | None = None
    dropped: bool = False


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
        self._environment = environment
        self._perform = perform
        self._given_loop = loop
        self._loop: asyncio.AbstractEventLoop | None = None
        self._executor: Executor | None = None
        self._lock = threading.Lock()

    def run_here(self, step: Step[Any], context: StepContext) -> Future[Any]:
        """Perform a sync step in this thread; the future is done. KeyboardInterrupt and SystemExit pass through."""
        future: Future[Any] = Future()
        _settle(future, lambda: contextvars.copy_context().run(self._call, step, context))
        return future

    def launch(self, step: Step[Any], context: StepContext, *, daemon: bool) -> Future[Any]:
        """Perform a step elsewhere: on the loop, in a daemon thread, or on the executor.

        Raises:
            NoThreadError: none is to be had; the step was not begun.
        """
        try:
            return self._launch(step, context, daemon=daemon)
        except RuntimeError as error:
            raise NoThreadError(str(error)) from error

    def _launch(self, step: Step[Any], context: StepContext, *, daemon: bool) -> Future[Any]:
        within = contextvars.copy_context()
        if self.is_async(step):
            return asyncio.run_coroutine_threadsafe(self._await(step, context, within), self._get_loop())
        if daemon and self._environment.threads:
            future: Future[Any] = Future()
            future.set_running_or_notify_cancel()
            thread = threading.Thread(
                target=_settle,
                args=(future, lambda: within.run(self._call, step, context), True),
                name=f"stepwell-{context.step_id}",
                daemon=True,
            )
            thread.start()
            return future
        return self._get_executor().submit(within.run, self._call, step, context)

    def is_async(self, step: Step[Any]) -> bool:
        """Whether the step runs on the event loop: its function is `async def`, and is what is called."""
        return self._perform is call_step and _is_async(step.fn)

    def close(self) -> None:
        """End the threads; steps that run are not waited for."""
        with self._lock:
            executor, self._executor = self._executor, None
            loop, self._loop = self._loop, None
        if executor is not None and executor is not self._environment.executor:
            executor.shutdown(wait=False, cancel_futures=True)
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)

    def forget(self) -> None:
        """In a forked child: the parent's threads are not there."""
        self._executor = self._loop = None
        self._lock = threading.Lock()

    def _call(self, step: Step[Any], context: StepContext) -> Any:
        _current.set(context)
        value = self._perform(step, context)
        if not inspect.iscoroutine(value):
            return value
        try:
            return asyncio.run_coroutine_threadsafe(_carried(value), self._get_loop()).result()
        except LeavesLoop as carried:
            raise carried.error from None

    async def _await(self, step: Step[Any], context: StepContext, within: contextvars.Context) -> Any:
        return await asyncio.get_running_loop().create_task(self._awaited(step, context), context=within)

    async def _awaited(self, step: Step[Any], context: StepContext) -> Any:
        _current.set(context)
        return await _carried(self._perform(step, context))

    def _get_executor(self) -> Executor:
        with self._lock:
            if self._executor is None:
                self._executor = self._environment.executor or self._environment.make_executor()
            return self._executor

    def _get_loop(self) -> asyncio.AbstractEventLoop:
        if self._given_loop is not None:
            return self._given_loop
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=_serve, args=(self._loop,), name="stepwell-loop", daemon=True).start()
            return self._loop


async def _carried(value: Any) -> Any:
    try:
        return await value if inspect.isawaitable(value) else value
    except (KeyboardInterrupt, SystemExit) as error:
        raise LeavesLoop(error) from error


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        if left := asyncio.all_tasks(loop):
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def _is_async(fn: Any) -> bool:
    inner = inspect.unwrap(fn)
    while hasattr(inner, "func"):  # functools.partial
        inner = inner.func
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(getattr(inner, "__call__", None))  # noqa: B004 - the method itself is wanted


def _settle(future: Future[Any], call: Callable[[], Any], catch_all: bool = False) -> None:
    """Run the call and put its end into the future; what ends the process passes through, unless `catch_all`."""
    try:
        value = call()
    except (KeyboardInterrupt, SystemExit) as error:
        if not catch_all:
            raise
        future.set_exception(error)
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(value)
