"""How a call of the engine ended, and what it knows of a run: frozen data for `match`. Floor 2."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar, Generic, NoReturn, TypeAlias, TypeVar

import msgspec

from .errors import Failure, RunCancelledError, RunFailedError, RunNotFinishedError
from .store import Blocked, Status

__all__ = [
    "Outcome",
    "RunCancelled",
    "RunCompleted",
    "RunFailed",
    "RunPaused",
    "RunRecord",
    "RunSuspended",
    "Running",
    "WaitingFor",
]

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class RunCompleted(msgspec.Struct, Generic[R_co], frozen=True):
    """The run is closed with a result."""

    run_id: str
    result: R_co
    status: ClassVar[Status] = "completed"

    def unwrap(self) -> R_co:
        """Give the result."""
        return self.result


class RunSuspended(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    """The run is parked.

    Attributes:
        waiting_for: names of the signals that it waits for, oldest first; empty while it only sleeps.
        reason: text of the oldest wait for the person who is asked.
        due: when it goes on by itself, aware UTC; None when only a signal or a child can move it.
        children: run ids of the children that it waits for, oldest first.
    """

    run_id: str
    waiting_for: tuple[str, ...] = ()
    reason: str | None = None
    due: datetime | None = None
    children: tuple[str, ...] = ()
    status: ClassVar[Status] = "suspended"

    def unwrap(self) -> NoReturn:
        """Raise RunNotFinishedError."""
        what = f"sleeps until {self.due}"
        if self.waiting_for or self.children:
            children = [f"child {child!r}" for child in self.children]
            what = f"waits for {', '.join([*map(repr, self.waiting_for), *children])}"
        raise RunNotFinishedError(f"run {self.run_id!r} {what}", run_id=self.run_id)


class RunPaused(msgspec.Struct, frozen=True):
    """The run is parked until `engine.unpause(run_id)`."""

    run_id: str
    status: ClassVar[Status] = "paused"

    def unwrap(self) -> NoReturn:
        """Raise RunNotFinishedError."""
        raise RunNotFinishedError(f"run {self.run_id!r} is paused; engine.unpause() lets it go on", run_id=self.run_id)


class Running(msgspec.Struct, frozen=True):
    """Somebody else drives the run now, or it waits for somebody to do so."""

    run_id: str
    lease_until: datetime | None = None
    status: ClassVar[Status] = "running"

    def unwrap(self) -> NoReturn:
        """Raise RunNotFinishedError."""
        raise RunNotFinishedError(
            f"run {self.run_id!r} is not finished; engine.wait() waits for it", run_id=self.run_id
        )


class RunFailed(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    """The run is closed with a failure; `engine.retry(run_id)` goes on from the step that failed.

    Attributes:
        suppressed: how compensations failed that ran because of it.
    """

    run_id: str
    failure: Failure
    suppressed: tuple[Failure, ...] = ()
    status: ClassVar[Status] = "failed"

    def unwrap(self) -> NoReturn:
        """Raise RunFailedError with the recorded failure."""
        raise RunFailedError(f"run {self.run_id!r} failed: {self.failure}", run_id=self.run_id, failure=self.failure)


class RunCancelled(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    """The run is closed as cancelled; `suppressed` is how compensations failed that ran because of it."""

    run_id: str
    reason: str | None = None
    suppressed: tuple[Failure, ...] = ()
    status: ClassVar[Status] = "cancelled"

    def unwrap(self) -> NoReturn:
        """Raise RunCancelledError."""
        why = f": {self.reason}" if self.reason else ""
        raise RunCancelledError(f"run {self.run_id!r} was cancelled{why}", run_id=self.run_id)


Outcome: TypeAlias = RunCompleted[R] | RunSuspended | RunFailed | RunCancelled | RunPaused | Running
"""How a call of the engine left the run."""


class WaitingFor(msgspec.Struct, frozen=True):
    """A run that waits for a signal.

    Attributes:
        wait: the wait id; a decision that names it can't answer another question.
        since: when the wait began, aware UTC.
        reason: text for the person who is asked.
        due: when it times out, or None.
        show: plain JSON for the person who is asked; None when there is none.
    """

    run_id: str
    signal: str
    wait: str
    since: datetime
    reason: str | None = None
    due: datetime | None = None
    show: Any = None


class RunRecord(msgspec.Struct, frozen=True):
    """What the store knows of a run.

    Attributes:
        input: JSON shapes of the arguments, a list; None in pages of `runs()`, which read no histories.
        result: JSON shape of the result; None until it is completed, and in pages.
        failure: the recorded failure, None unless failed, and in pages.
        attempts: how often the run was started, retried or reset.
        sessions: number of the newest session: 1 when it is created, one more each time somebody begins to drive it.
        events: number of events in its history.
        due: when it wants to be driven, aware UTC, or None.
        blocked: why `run_due` passes it by, or None.
        completed: when it was closed, or None.
        budget: what it may spend, None without a limit, and in pages.
        spent: what it has spent, its children included; 0 in pages.
        parent: run id of the run that started it as a child, or None, and in pages.
    """

    id: str
    workflow: str
    version: str
    status: Status
    attempts: int
    sessions: int
    events: int
    created: datetime
    updated: datetime
    completed: datetime | None = None
    input: Any = None
    result: Any = None
    failure: Failure | None = None
    waiting_for: tuple[str, ...] = ()
    due: datetime | None = None
    tags: Mapping[str, str] = {}
    blocked: Blocked | None = None
    lease_until: datetime | None = None
    budget: float | None = None
    spent: float = 0
    parent: str | None = None
