"""What an engine tells its `on_event` listener: typed, frozen, in the order in which it happened.

Nothing here is recorded, and nothing is told during replay but `StepReplayed`. A listener that raises never hurts a
run: the error goes to the `stepwell` logger. Floor 2.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeAlias

import msgspec

from .errors import Failure

__all__ = [
    "BudgetExceeded",
    "BudgetNears",
    "BudgetSpent",
    "CancelAsked",
    "ChildEnded",
    "ChildStarted",
    "HistoryGrows",
    "LateResult",
    "LifecycleEvent",
    "PauseAsked",
    "RunBlocked",
    "RunClosed",
    "RunContinued",
    "RunOpened",
    "RunParked",
    "RunRemoved",
    "RunRestarting",
    "SessionStarted",
    "SignalSent",
    "StepAttemptFailed",
    "StepCompleted",
    "StepDropped",
    "StepErrored",
    "StepReplayed",
    "StepStarted",
    "TimerFired",
    "UnpauseAsked",
    "ValueEmitted",
]


class _Event(msgspec.Struct, frozen=True):
    """Structs, as the events of a history: every program loads these classes, and few use them."""


class _WithError(_Event, frozen=True, eq=False):
    """Equal when all but `error` is, since exceptions never are."""

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__struct_fields__ if name != "error")

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, name) for name in self.__struct_fields__ if name != "error"))


class RunOpened(_Event, frozen=True):
    """A run was started, forked, retried or reset: an incarnation was opened."""

    run_id: str
    workflow: str
    incarnation: int = 0


class SessionStarted(_Event, frozen=True):
    """An owner begins to drive the run; `session` is its fence, `replayed` the number of events that it read."""

    run_id: str
    session: int
    replayed: int = 0


class StepReplayed(_Event, frozen=True):
    """A step was answered from the history."""

    run_id: str
    step_id: str
    at: str


class StepStarted(_Event, frozen=True):
    """A step's function is about to be called; `attempt` is 1-based."""

    run_id: str
    step_id: str
    at: str
    attempt: int


class StepCompleted(_Event, frozen=True):
    """A step's result is recorded; `seconds` is how long the last attempt took."""

    run_id: str
    step_id: str
    at: str
    attempt: int
    seconds: float


class StepAttemptFailed(_WithError, frozen=True, eq=False):
    """An attempt failed and another one will follow at `due`. `error` is the live exception with its traceback."""

    run_id: str
    step_id: str
    at: str
    attempt: int
    failure: Failure
    due: datetime
    error: BaseException | None = None


class StepErrored(_WithError, frozen=True, eq=False):
    """A step's failure is recorded. `error` is the live exception with its traceback."""

    run_id: str
    step_id: str
    at: str
    attempt: int
    failure: Failure
    error: BaseException | None = None


class StepDropped(_Event, frozen=True):
    """A step was cancelled before it ran, or lost its Race."""

    run_id: str
    step_id: str
    at: str


class LateResult(_WithError, frozen=True, eq=False):
    """A step came back after its time-out, or after its Race was decided; what it brought was dropped."""

    run_id: str
    step_id: str
    attempt: int
    value: Any = None
    error: BaseException | None = None


class TimerFired(_Event, frozen=True):
    """A Sleep or the time-out of a Suspend fired."""

    run_id: str
    at: str


class ValueEmitted(_Event, frozen=True):
    """A workflow emitted a value, and it is recorded."""

    run_id: str
    value: Any
    topic: str | None = None


class SignalSent(_Event, frozen=True):
    """A signal is recorded in the run's history."""

    run_id: str
    signal: str


class PauseAsked(_Event, frozen=True):
    """A pause is recorded in the run's history; `RunParked` follows when its owner has stopped."""

    run_id: str
    reason: str | None = None


class UnpauseAsked(_Event, frozen=True):
    """That a paused run may go on is recorded in its history."""

    run_id: str


class CancelAsked(_Event, frozen=True):
    """A cancel is recorded in the run's history; `RunClosed` follows when its clean-up is done."""

    run_id: str
    reason: str | None = None


class RunParked(_Event, frozen=True):
    """The run is parked: `status` is "suspended" or "paused", or "pending" when its session was told to leave."""

    run_id: str
    status: str
    waiting_for: tuple[str, ...] = ()
    due: datetime | None = None


class RunClosed(_Event, frozen=True):
    """The run is closed: `status` is "completed", "failed" or "cancelled"."""

    run_id: str
    status: str
    failure: Failure | None = None


class RunRestarting(_Event, frozen=True):
    """The run failed, and goes on from what failed at `due`; `restart` is 1 the first time."""

    run_id: str
    restart: int
    failure: Failure
    due: datetime


class RunBlocked(_Event, frozen=True):
    """The code and the history don't fit; `run_due` passes the run by until the code changes."""

    run_id: str
    code: str
    message: str


class RunRemoved(_Event, frozen=True):
    """A closed run is removed for good, by `delete`, by `prune` or by a worker; `status` is how it had ended."""

    run_id: str
    workflow: str
    status: str


class RunContinued(_Event, frozen=True):
    """A workflow yielded ContinueAsNew: its next incarnation is open."""

    run_id: str
    incarnation: int


class BudgetSpent(_Event, frozen=True):
    """A charge is recorded: `spent` is the sum, `left` what the budget has left, None without one."""

    run_id: str
    amount: float
    label: str | None
    spent: float
    left: float | None


class BudgetNears(_Event, frozen=True):
    """A charge of the run's own is recorded with which nine tenths of its budget are spent, and no more than all."""

    run_id: str
    spent: float
    budget: float


class BudgetExceeded(_Event, frozen=True):
    """A charge of the run's own is recorded that passes its budget: `BudgetExceededError` is thrown at its `Spend`."""

    run_id: str
    spent: float
    budget: float


class ChildStarted(_Event, frozen=True):
    """A child is recorded, and about to be started."""

    run_id: str
    child_id: str
    workflow: str
    at: str


class ChildEnded(_Event, frozen=True):
    """How a child ended is recorded: "completed", "failed", "cancelled", or "started" when nobody waits for it."""

    run_id: str
    child_id: str
    status: str
    at: str


class HistoryGrows(_Event, frozen=True):
    """A history has passed the length at which a warning is due; `size` is about its bytes."""

    run_id: str
    events: int
    size: int


LifecycleEvent: TypeAlias = (
    RunOpened
    | RunContinued
    | BudgetSpent
    | BudgetNears
    | BudgetExceeded
    | ChildStarted
    | ChildEnded
    | HistoryGrows
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
    | PauseAsked
    | UnpauseAsked
    | CancelAsked
    | RunParked
    | RunClosed
    | RunRemoved
    | RunRestarting
    | RunBlocked
)
"""Anything that `on_event` may get."""
