"""What `engine.stream(run_id)` gives: typed, frozen events. Floor 2.

What is recorded has a position, `(incarnation, seq)`, and is given exactly once, in the order of the history. What is
not recorded (that an attempt begins, chunks of a Stream without `record_chunks`, how the run stands while it waits) has
none, and is given to those who read at that moment. Payloads are plain JSON shapes.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, TypeAlias

import msgspec

from .errors import Failure
from .outcomes import Outcome
from .store import Status

__all__ = ["Chunk", "Done", "Emitted", "Lagged", "StatusChanged", "StepChanged", "StepStatus", "StreamEvent"]

StepStatus: TypeAlias = Literal["started", "completed", "failed", "attempt_failed", "cancelled"]
"""What became of a step."""


class _Event(msgspec.Struct, frozen=True, kw_only=True):
    """What every event has.

    Attributes:
        incarnation: of the run: 0, and one more with each retry or reset.
        seq: of the recorded event that this tells of; None when there is none.
    """

    run_id: str
    incarnation: int = 0
    seq: int | None = None

    @property
    def position(self) -> tuple[int, int] | None:
        """What `engine.stream(run_id, after=...)` takes to go on behind this event; None when it is not recorded."""
        return None if self.seq is None else (self.incarnation, self.seq)


class StatusChanged(_Event, frozen=True, kw_only=True):
    """How the run stands: told when it is started, and when a reader who has caught up sees that it stands otherwise.

    A status that lasts shorter than a look may be passed over.

    Attributes:
        status: as in `RunRecord`; with a `seq`, "pending" says that an incarnation begins there.
        waiting_for: names of the signals that a suspended run waits for.
        due: when a parked run goes on by itself, or None.
        blocked: the code of the error that blocks it, or None.
    """

    status: Status
    waiting_for: tuple[str, ...] = ()
    due: datetime | None = None
    blocked: str | None = None


class StepChanged(_Event, frozen=True, kw_only=True):
    """What became of a step, or of an attempt of one.

    Attributes:
        status: "started", "completed", "failed", "attempt_failed" or "cancelled". That an attempt starts is recorded
            of `at_most_once` steps only; of others those are told who read in the same process.
        step_id: its name with `#2`, `#3` on repeats; "" when a history doesn't say.
        attempt: 1-based; 0 of a step that was cancelled.
        result: of a completed one, as plain JSON shapes.
        failure: of a failed step or attempt.
        due: when the next attempt begins.
    """

    status: StepStatus
    at: str
    step_id: str
    attempt: int = 0
    result: Any = None
    failure: Failure | None = None
    due: datetime | None = None


class Chunk(_Event, frozen=True, kw_only=True):
    """A value that a Stream yielded. An attempt begins anew with `index` 0: what came of those before is void."""

    step_id: str
    at: str
    attempt: int
    index: int
    value: Any


class Emitted(_Event, frozen=True, kw_only=True):
    """A value that the workflow emitted."""

    value: Any
    topic: str | None = None
    at: str = ""


class Lagged(_Event, frozen=True, kw_only=True):
    """The reader was slow: `count` live events were dropped, the oldest first. What is recorded is never dropped."""

    count: int


class Done(_Event, frozen=True, kw_only=True):
    """The run is closed; nothing follows."""

    outcome: Outcome[Any]


StreamEvent: TypeAlias = StatusChanged | StepChanged | Chunk | Emitted | Lagged | Done
"""Anything that `engine.stream` may give."""
