"""What a history may hold: one frozen record for each type of event.

These are the wire records themselves: msgspec Structs, tagged by `type`, with camelCase keys, so that one line of JSON
is decoded into its event in one pass (an attrs class can't be part of a tagged union and takes ten times as long to
import). Payloads stay as the bytes that were recorded (`Raw`) until somebody decodes them with a type.

`session` and `offset` are 0 in an event that isn't written yet; the store's `seal` puts them into the line. An absent
key is UNSET or None, and is not written.

The *owner's* events carry `at`, the path of the command that they answer or describe. *Outside* events (`Resume`,
`Cancel`, `Pause`, `Unpause`, and `ChildResult`, which has one) may land between any two of the owner's. Floor 1.
"""
# `at` is a class variable, None, but a field in the events that answer or describe a command:
# pyright: reportIncompatibleVariableOverride=false

from __future__ import annotations

from typing import Any, ClassVar, TypeAlias

import msgspec
from msgspec import UNSET, Raw, UnsetType

from .errors import Failure
from .instants import from_micros, instant, micros, parse_instant, parse_uuid, stamp

__all__ = [
    "CLOSING",
    "EVENT_TYPES",
    "KINDS",
    "OUTSIDE",
    "UNSET",
    "Amount",
    "Attempt",
    "Begin",
    "Cancel",
    "Cancelled",
    "Child",
    "ChildResult",
    "Chunk",
    "Compensate",
    "Complete",
    "Emit",
    "Error",
    "Event",
    "EventBase",
    "Heartbeat",
    "Now",
    "Patch",
    "Pause",
    "Random",
    "Resume",
    "Retry",
    "Sleep",
    "Spend",
    "Start",
    "Step",
    "Suspend",
    "Unpause",
    "Uuid",
    "Wake",
    "from_micros",
    "instant",
    "micros",
    "parse_instant",
    "parse_uuid",
    "stamp",
]

Amount: TypeAlias = int | float
"""How much was or may be spent; a whole number stays one."""


class EventBase(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", rename="camel", omit_defaults=True):
    """What every event has.

    Attributes:
        session: number of the session that wrote it; for an outside event, of the head that it met.
        offset: 0-based position in its history.
        timestamp: when it was made, as `instant` writes it.
        kept: True when a retry took it over from after the cut.
    """

    session: int = 0
    offset: int = 0
    timestamp: str = ""
    kept: bool = False

    at: ClassVar[Any] = None

    @property
    def kind(self) -> str:
        """The `type` on the wire."""
        return KINDS[type(self)]


class Start(EventBase, frozen=True, kw_only=True, tag="start"):
    """The first event of every incarnation.

    Attributes:
        input: JSON list of the positional arguments.
        epoch: incarnation in which this line of paths began; a retry keeps it, so that idempotency keys stay the same.
        origin: for a retry, the session that began the first history of this line of paths; 0: this history's own.
        source: for a fork or retry, where the prefix came from: `runId`, `incarnation`, `offset` (the cut); for a fork
            with another result of a step, `replaced`: the step's id. After a ContinueAsNew, the history that ended.
        prefix: how many of the following events were taken over, the `retry` event not counted.
        budget: what the run may spend, None without a limit.
        spent: what earlier histories of the run have spent.
        parent: for a child, who waits for it: `runId`, `incarnation`, `session` (that began its history), `at`, and
            `detached` when nobody does.
        ancestors: for a child, the names of the workflows above it, the root's first.
        max_depth: how many ancestors a run may have, when it is not the default.
        seen: ids of signals that came before a ContinueAsNew, so that each counts once.
    """

    workflow: str
    version: str
    input: Raw
    incarnation: int = 0
    epoch: int = 0
    origin: int = 0
    tags: dict[str, str] = {}
    source: dict[str, Any] | None = None
    prefix: int = 0
    budget: Amount | None = None
    spent: Amount = 0
    parent: dict[str, Any] | None = None
    ancestors: list[str] = []
    max_depth: int | None = None
    seen: list[str] = []

    @property
    def line(self) -> str:
        """What tells this line of paths from all others that the run id had or will have, deleted ones too."""
        began = self.origin or self.session  # sessions are never counted anew
        return str(self.epoch) if began <= 1 else f"{self.epoch}@{began}"


class Step(EventBase, frozen=True, kw_only=True, tag="step"):
    """The outcome of a step: `result` or `error`. `inputs` is a digest of its arguments, None if they don't encode."""

    at: str  # type: ignore[misc]
    step_id: str
    name: str
    attempts: int
    started: str
    inputs: str | None = None
    result: Raw | UnsetType = UNSET
    error: Failure | None = None


class Attempt(EventBase, frozen=True, kw_only=True, tag="attempt"):
    """A failed try of a step that will be tried again at `due`."""

    at: str  # type: ignore[misc]
    step_id: str
    attempt: int
    error: Failure
    due: str


class Begin(EventBase, frozen=True, kw_only=True, tag="begin"):
    """An `at_most_once` step is about to be called."""

    at: str  # type: ignore[misc]
    step_id: str
    name: str


class Chunk(EventBase, frozen=True, kw_only=True, tag="chunk"):
    """A value that a stream yielded, on its way to an outcome; recorded where the workflow asks for that.

    Attributes:
        attempt: of the step, from 1. Seen here it has begun, so that what begins after a crash is the next one.
        index: of the value in its attempt, from 0.
    """

    due: ClassVar[None] = None  # as an attempt has it: this one is not waited for

    at: str  # type: ignore[misc]
    step_id: str
    attempt: int
    index: int
    value: Raw


class Heartbeat(EventBase, frozen=True, kw_only=True, tag="heartbeat"):
    """What a step that runs has told of its progress, for its next attempt."""

    at: str  # type: ignore[misc]
    step_id: str
    attempt: int
    details: Raw


class Suspend(EventBase, frozen=True, kw_only=True, tag="suspend"):
    """The run waits for a signal; `wait` is the id that a decision may name."""

    at: str  # type: ignore[misc]
    waiting_for: str
    wait: str
    reason: str | None = None
    due: str | None = None
    show: Raw | UnsetType = UNSET


class Resume(EventBase, frozen=True, kw_only=True, tag="resume"):
    """A signal that was sent to the run. Outside event.

    Attributes:
        id: counts once in a history.
        wait: the wait id that it answers.
        actor: who sent it, in the sender's words.
        metadata: what else the sender said of it, a JSON object.
    """

    event_name: str
    value: Raw
    id: str = ""
    wait: str | None = None
    actor: str | None = None
    metadata: Raw | UnsetType = UNSET


class Sleep(EventBase, frozen=True, kw_only=True, tag="sleep"):
    """A timer was set."""

    at: str  # type: ignore[misc]
    due: str


class Wake(EventBase, frozen=True, kw_only=True, tag="wake"):
    """A timer fired: answers a Sleep, or times a Suspend out, which gives `value` when it has a default."""

    at: str  # type: ignore[misc]
    value: Raw | UnsetType = UNSET


class Now(EventBase, frozen=True, kw_only=True, tag="now"):
    """Answer to `Now()`."""

    at: str  # type: ignore[misc]
    value: str


class Random(EventBase, frozen=True, kw_only=True, tag="random"):
    """Answer to `Random()`."""

    at: str  # type: ignore[misc]
    value: float


class Uuid(EventBase, frozen=True, kw_only=True, tag="uuid"):
    """Answer to `Uuid()`."""

    at: str  # type: ignore[misc]
    value: str


class Patch(EventBase, frozen=True, kw_only=True, tag="patch"):
    """The run has the change `change_id`. An owner's event without a path: the answer holds for the whole run."""

    change_id: str


class Emit(EventBase, frozen=True, kw_only=True, tag="emit"):
    """Answer to `Emit(value)`."""

    at: str  # type: ignore[misc]
    value: Raw
    topic: str | None = None


class Spend(EventBase, frozen=True, kw_only=True, tag="spend"):
    """A charge to the run's budget: answer to `Spend(amount)`."""

    at: str  # type: ignore[misc]
    amount: Amount
    label: str | None = None


class Compensate(EventBase, frozen=True, kw_only=True, tag="compensate"):
    """The run has failed and is not restarted: its compensations begin. Written when a policy had to be asked."""


class Child(EventBase, frozen=True, kw_only=True, tag="child"):
    """A child is to be started; it is, before the owner writes anything else, or by whoever finds this.

    Attributes:
        child_id: its run id.
        workflow, version: what it runs.
        inputs: a digest of its arguments.
    """

    at: str  # type: ignore[misc]
    child_id: str
    workflow: str
    version: str
    inputs: str | None = None
    detached: bool = False
    budget: Amount | None = None


class ChildResult(EventBase, frozen=True, kw_only=True, tag="childResult"):
    """How a child ended. Outside event; the child's owner writes it, or the parent's, who has looked.

    Attributes:
        status: "completed", "failed" or "cancelled"; "started" for a detached child, which nobody waits for.
        spent: what it has spent.
    """

    at: str  # type: ignore[misc]
    child_id: str
    status: str
    result: Raw | UnsetType = UNSET
    error: Failure | None = None
    spent: Amount = 0


class Cancel(EventBase, frozen=True, kw_only=True, tag="cancel"):
    """Somebody asked for the run to be cancelled. Outside event."""

    reason: str | None = None


class Cancelled(EventBase, frozen=True, kw_only=True, tag="cancelled"):
    """With `at`: the outcome of a step that was cancelled. Without: the run is closed as cancelled."""

    at: str | None = None  # type: ignore[misc]
    reason: str | None = None
    forced: bool = False
    state: Raw | UnsetType = UNSET
    spent: Amount = 0
    suppressed: list[Failure] = []


class Pause(EventBase, frozen=True, kw_only=True, tag="pause"):
    """Somebody asked for the run to be paused. Outside event."""

    reason: str | None = None


class Unpause(EventBase, frozen=True, kw_only=True, tag="unpause"):
    """Somebody let the run go on. Outside event."""


class Complete(EventBase, frozen=True, kw_only=True, tag="complete"):
    """The run is closed with a result. `state` is what SetState left, `spent` what all of its histories spent."""

    result: Raw
    state: Raw | UnsetType = UNSET
    spent: Amount = 0


class Error(EventBase, frozen=True, kw_only=True, tag="error"):
    """The run is closed as failed. `cause` is the offset at which a retry cuts the history.

    Attributes:
        suppressed: how compensations failed that ran because of it.
    """

    error: Failure
    cause: int
    state: Raw | UnsetType = UNSET
    spent: Amount = 0
    suppressed: list[Failure] = []


class Retry(EventBase, frozen=True, kw_only=True, tag="retry"):
    """Marks the cut in a retried run. `patches` holds answers that were decided after the cut.

    Attributes:
        spent: what children had spent whose ends are dropped.
        restart: how often the run was restarted by its workflow's policy, this time included; 0: somebody asked for it.
        error: of a restart, what the run failed with.
        due: of a restart, when the run goes on.
    """

    cut: int
    patches: dict[str, bool] = {}
    spent: Amount = 0
    restart: int = 0
    error: Failure | None = None
    due: str | None = None


Event: TypeAlias = (
    Start
    | Step
    | Attempt
    | Begin
    | Chunk
    | Heartbeat
    | Suspend
    | Resume
    | Sleep
    | Wake
    | Now
    | Random
    | Uuid
    | Patch
    | Emit
    | Spend
    | Compensate
    | Child
    | ChildResult
    | Cancel
    | Cancelled
    | Pause
    | Unpause
    | Complete
    | Error
    | Retry
)
"""Any event of a history."""

EVENT_TYPES: dict[str, type[EventBase]] = {str(cls.__struct_config__.tag): cls for cls in EventBase.__subclasses__()}
"""Event classes by their `type` on the wire."""

KINDS: dict[type, str] = {cls: kind for kind, cls in EVENT_TYPES.items()}
"""The `type` on the wire by event class."""

OUTSIDE = (Resume, Cancel, Pause, Unpause, ChildResult)
"""Events that anybody may append to an open run, between any two of the owner's."""

CLOSING = (Complete, Error, Cancelled)
"""Events that close a run; `Cancelled` only when it has no `at`."""
