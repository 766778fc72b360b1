"""The engine: load, fold, perform, append, repeat until the run is parked or closed. Floor 4.

This is the facade: it checks what callers give, and hands the work to `Driver` (start, advance, resume), `Control`
(signal, cancel, retry, fork, ...) and `Queries` (get, runs, history, ...). Its parts are `Telling`, `Asking` and
`Keeping`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from .asking import Asking
from .checks import (
    checked_choice,
    checked_count,
    checked_limit,
    checked_run_id,
    checked_tags,
    checked_ttl,
)
from .codec import Codec
from .commands import Flow, check_amount
from .driving import IfClosed, IfOpen
from .environment import Clock, Environment, SystemClock
from .environment import new_run_id as make_run_id
from .errors import InvalidInputError
from .keeping import Keeping
from .lifecycle import BudgetSpent, LifecycleEvent
from .loading import DEFAULT_LIMIT, HistoryLimit, Parts
from .opening import import_early, open_store, teller
from .outcomes import Outcome
from .parked import Parked
from .performers import Perform, Performer, call_step
from .registry import Registry
from .retry import NO_RETRY, RetryPolicy, as_seconds
from .sessions import Sessions
from .store import Store
from .telling import Telling
from .workflows import Workflow

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Executor

__all__ = ["Engine"]

T = TypeVar("T")
R = TypeVar("R")
Ts = TypeVarTuple("Ts")


class Engine(Telling, Asking, Keeping):
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
        meter: called with each `BudgetSpent`, once a charge is recorded and never on replay; a crash in between may
            lose the call, never the charge. One that raises is logged.
        history_limit: how long histories may grow before their runs are blocked; None without a limit.
        max_depth: how many ancestors a child may have; 32 when None. It holds for the runs that are started here, and
            for all of their descendants.
        strict_inputs: compare the inputs of steps with the recorded ones whenever a run is answered from its history;
            workflows may say otherwise.
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
        meter: Callable[[BudgetSpent], None] | None = None,
        history_limit: HistoryLimit | None = DEFAULT_LIMIT,
        max_depth: int | None = None,
        strict_inputs: bool = False,
        environment: Environment | None = None,
        perform: Perform = call_step,
    ) -> None:
        if environment is not None and (clock is not None or executor is not None):
            raise InvalidInputError("give an environment, or a clock and an executor, not both")
        if not isinstance(strict_inputs, bool):
            raise InvalidInputError(f"strict_inputs must be True or False, got {strict_inputs!r}")
        ttl, most = checked_ttl(lease), checked_count("keep_parked", keep_parked)
        import_early()
        env = environment or Environment(clock=clock or SystemClock(), executor=executor)
        opened, performer = open_store(store), Performer(env, perform, loop)
        parts = Parts(
            store=opened,
            codec=codec or Codec(),
            environment=env,
            performer=performer,
            registry=Registry(workflows),
            tell=teller(on_event, meter),
            listens=on_event is not None or meter is not None,
            retry=retry or NO_RETRY,
            park_after=as_seconds(park_after, "park_after"),
            ttl=ttl,
            owner=make_run_id(),
            stamp=env.stamper(),
            parked=Parked(most if on_event is None else 0),  # a listener hears of each step that is replayed
            limit=history_limit,
            max_depth=None if max_depth is None else checked_count("max_depth", max_depth),
            strict_inputs=strict_inputs,
        )
        super().__init__(parts, Sessions(opened, ttl, renews=env.threads))

    # Taken by its call, not as Workflow[P, R]: so arguments with defaults may be left out, and options be keywords.
    def start(
        self,
        workflow: Callable[[*Ts], Flow[R]],
        *args: *Ts,
        run_id: str | None = None,
        tags: Mapping[str, str] | None = None,
        budget: float | None = None,
        if_open: IfOpen = "join",
        if_closed: IfClosed = "return",
    ) -> Outcome[R]:
        """Run a workflow in the calling thread until it is closed or parked; the same call again goes on with it.

        Args:
            workflow: what `@workflow` made; it becomes known to this engine.
            args: its arguments, recorded with the run.
            run_id: the caller's key, printable, at most 200 bytes of UTF-8; a new UUIDv7 when None.
            tags: labels to find the run by, text to text.
            budget: how much the run may `Spend`, its children included; None without a limit.
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
        return self._start(workflow, args, run_id, tags, budget, if_open, if_closed, drive=True)

    def submit(
        self,
        workflow: Callable[[*Ts], Flow[R]],
        *args: *Ts,
        run_id: str | None = None,
        tags: Mapping[str, str] | None = None,
        budget: float | None = None,
        if_open: IfOpen = "join",
        if_closed: IfClosed = "return",
    ) -> Outcome[R]:
        """Only record the start; `run_due` or `advance` drives the run. Arguments and errors as `start`."""
        return self._start(workflow, args, run_id, tags, budget, if_open, if_closed, drive=False)

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

    def _start(
        self,
        workflow: Any,
        args: tuple[Any, ...],
        run_id: str | None,
        tags: Mapping[str, str] | None,
        budget: float | None,
        if_open: IfOpen,
        if_closed: IfClosed,
        *,
        drive: bool,
    ) -> Outcome[Any]:
        self._ready()
        checked_choice("if_open", if_open, ("join", "error", "restart"))
        checked_choice("if_closed", if_closed, ("return", "retry_failed", "error", "restart"))
        chosen, labels = make_run_id() if run_id is None else checked_run_id(run_id), checked_tags(tags or {})
        amount = None if budget is None else check_amount(budget, "budget")
        self._parts.registry.add(workflow)
        policies: Any = {"if_open": if_open, "if_closed": if_closed, "control": self._control}
        return self._driver.start(workflow, args, chosen, labels, amount, drive=drive, **policies)
