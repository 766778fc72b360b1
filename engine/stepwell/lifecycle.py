"""What an engine tells its `on_event` listener: typed, frozen, in the order in which it happened.

Nothing here is recorded, and nothing is told during replay but `StepReplayed`. A listener that raises never hurts a
run: the error goes to the `stepwell` logger. Floor 2.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeAlias

from attrs import field, frozen

from .errors import Failure

__all__ = [
    "LateResult",
    "LifecycleEvent",
    "RunBlocked",
    "RunClosed",
    "RunOpened",
    "RunParked",
    "SessionStarted",
    "SignalSent",
    "StepAttemptFailed",
    "StepCompleted",
    "StepDropped",
    "StepErrored",
    "StepReplayed",
    "StepStarted",
    "TimerFired",
    "ValueEmitted",
]


@frozen
class RunOpened:
    """A run was started, forked, retried or reset: an incarnation was opened."""

    run_id: str
    workflow: str
    incarnation: int = 0


@frozen
class SessionStarted:
    """An owner begins to drive the run; `session` is its fence, `replayed` the number of events that it read."""

    run_id: str
    session: int
    replayed: int = 0


@frozen
class StepReplayed:
    """A step was answered from the history."""

    run_id: str
    step_id: str
    at: str


@frozen
class StepStarted:
    """A step's function is about to be called; `attempt` is 1-based."""

    run_id: str
    step_id: str
    at: str
    attempt: int


@frozen
class StepCompleted:
    """A step's result is recorded; `seconds` is how long the last attempt took."""

    run_id: str
    step_id: str
    at: str
    attempt: int
    seconds: float


@frozen
class StepAttemptFailed:
    """An attempt failed and another one will follow at `due`. `error` is the live exception with its traceback."""

    run_id: str
    step_id: str
    at: str
    attempt: int
    failure: Failure
    due: datetime
    error: BaseException | None = field(default=None, eq=False)


@frozen
class StepErrored:
    """A step's failure is recorded. `error` is the live exception with its traceback."""

    run_id: str
    step_id: str
    at: str
    attempt: int
    failure: Failure
    error: BaseException | None = field(default=None, eq=False)


@frozen
class StepDropped:
    """A step was cancelled before it ran, or lost its Race."""

    run_id: str
    step_id: str
    at: str


@frozen
class LateResult:
    """A step came back after its time-out, or after its Race was decided; what it brought was dropped."""

    run_id: str
    step_id: str
    attempt: int
    value: Any = None
    error: BaseException | None = field(default=None, eq=False)


@frozen
class TimerFired:
    """A Sleep or the time-out of a Suspend fired."""

    run_id: str
    at: str


@frozen
class ValueEmitted:
    """A workflow emitted a value, and it is recorded."""

    run_id: str
    value: Any
    topic: str | None = None


@frozen
class SignalSent:
    """A signal is recorded in the run's history."""

    run_id: str
    signal: str


@frozen
class RunParked:
    """The run is parked: `status` is "suspended" or "paused", or "pending" when its session was told to leave."""

    run_id: str
    status: str
    waiting_for: tuple[str, ...] = ()
    due: datetime | None = None


@frozen
class RunClosed:
    """The run is closed: `status` is "completed", "failed" or "cancelled"."""

    run_id: str
    status: str
    failure: Failure | None = None


@frozen
class RunBlocked:
    """The code and the history don't fit; `run_due` passes the run by until the code changes."""

    run_id: str
    code: str
    message: str


LifecycleEvent: TypeAlias = (
    RunOpened
    | SessionStarted
    | StepReplayed
    | StepStarted
    | StepCompleted
    | StepAttemptFailed
    | StepErrored
    | StepDropped
    | LateResult
    | TimerFired
    | ValueEmitted
    | SignalSent
    | RunParked
    | RunClosed
    | RunBlocked
)
"""Anything that `on_event` may get."""
