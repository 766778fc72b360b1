"""The instruction set: what a workflow may yield. Frozen data, no behaviour.

A command says what is wanted; an interpreter decides how it comes about. Commands compare by *what they ask for*
(function and arguments, signal, duration), never by options or reasons, so that a test can say
`run.next == Step(classify, ticket)`.

Each command is iterable and yields itself once, so both forms are allowed everywhere:

    value = yield Step(f, x)            # Any to a type checker
    value = yield from Step(f, x)       # f's own return type

Floor 1.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Generic, ParamSpec, TypeVar, overload

from attrs import field, frozen

from .children import Child, ContinueAsNew, check_amount
from .command import UNSET, Branch, Command, Flow, Unset, made_in_turn, unyielded
from .decisions import Decision
from .errors import InvalidInputError
from .groups import All, Race
from .retry import RetryPolicy, as_seconds
from .steps import Step, StepOptions, step
from .streams import Stream
from .transactions import Transaction

if TYPE_CHECKING:
    from uuid import UUID

    from typing_extensions import TypeForm  # type checkers know it, installed or not
else:
    UUID = Any  # the module takes as long to import as ten of ours

__all__ = [
    "UNSET",
    "All",
    "Branch",
    "Child",
    "Command",
    "Compensate",
    "ContinueAsNew",
    "Decision",
    "Emit",
    "Flow",
    "Now",
    "Patched",
    "Race",
    "Random",
    "SetState",
    "Signal",
    "Sleep",
    "Spend",
    "Step",
    "StepOptions",
    "Stream",
    "Suspend",
    "Transaction",
    "Unset",
    "Uuid",
    "check_amount",
    "check_text",
    "made_in_turn",
    "step",
    "unyielded",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
R = TypeVar("R")
D = TypeVar("D")
P = ParamSpec("P")


_MAX_TEXT = 10_000


def check_text(value: object, what: str) -> str | None:
    """Give text or None back: text of at most 10,000 characters that UTF-8 can hold, newlines and all.

    Raises:
        InvalidInputError: it is something else; the message calls it `what`.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidInputError(f"{what} must be text or None, got {value!r}")
    if len(value) > _MAX_TEXT:
        raise InvalidInputError(
            f"{what} can have {_MAX_TEXT:,} characters at most, got {len(value):,}: {value[:40]!r}..."
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        around = value[max(error.start - 20, 0) : error.start + 20]
        raise InvalidInputError(f"{what} holds a lone surrogate, which is no UTF-8, near {around!r}") from error
    return value


def _check_signal_name(_signal: object, _attribute: object, value: Any) -> None:
    if not isinstance(value, str) or not value or len(value) > 200 or not value.isprintable():
        raise InvalidInputError(f"a signal's name must be printable text of 1 to 200 characters, got {value!r}")


@frozen(init=False)
class Signal(Generic[T]):
    """A named, typed message that a run can wait for: `review = Signal("manual-review", Verdict)`.

    Attributes:
        name: name in the history, printable, 1 to 200 characters.
        type: type of the payload; Any means plain JSON.
    """

    name: str = field(validator=_check_signal_name)
    type: Any

    @overload
    def __init__(self: Signal[Any], name: str) -> None: ...
    @overload
    def __init__(self, name: str, type: TypeForm[T]) -> None: ...
    def __init__(self, name: str, type: Any = Any) -> None:
        self.__attrs_init__(name, type)  # pyright: ignore[reportAttributeAccessIssue]


@frozen(init=False, slots=False)
class Suspend(Command[T_co]):
    """Wait for a signal; the process may end meanwhile.

    Gives the payload. On time-out throws `TimedOut`, or gives `default` when one was given. A buffered payload that
    does not fit the type throws `SignalRejected`. Two Suspends are equal when they wait for the same signal name.
    Determinism: recorded as `suspend`, answered by `resume` or `wake`.

    Args:
        signal: a `Signal`, or its name.
        into: type of the payload when `signal` is a name.
        reason: text for the person who is asked.
        timeout: longest wait, timedelta or seconds; None waits for ever.
        default: value on time-out.
        show: any JSON-able value for the person who is asked.
        fresh: ignore signals that came before this wait.
    """

    is_wait: ClassVar[bool] = True

    signal: str
    into: Any = field(eq=False)
    reason: str | None = field(eq=False)
    timeout: float | None = field(eq=False)
    default: Any = field(eq=False)
    show: Any = field(eq=False)
    fresh: bool = field(eq=False)
    asks_who: bool = field(default=False, eq=False)
    """Whether it gives a Decision, which says who sent the payload."""

    @overload
    def __init__(
        self: Suspend[R],
        signal: Signal[R],
        *,
        reason: str | None = None,
        timeout: timedelta | float | None = None,
        show: Any = UNSET,
        fresh: bool = False,
    ) -> None: ...
    @overload
    def __init__(
        self: Suspend[R | D],
        signal: Signal[R],
        *,
        default: D,
        reason: str | None = None,
        timeout: timedelta | float | None = None,
        show: Any = UNSET,
        fresh: bool = False,
    ) -> None: ...
    @overload
    def __init__(
        self: Suspend[R],
        signal: str,
        *,
        into: TypeForm[R],
        reason: str | None = None,
        timeout: timedelta | float | None = None,
        show: Any = UNSET,
        fresh: bool = False,
    ) -> None: ...
    @overload
    def __init__(
        self: Suspend[R | D],
        signal: str,
        *,
        into: TypeForm[R],
        default: D,
        reason: str | None = None,
        timeout: timedelta | float | None = None,
        show: Any = UNSET,
        fresh: bool = False,
    ) -> None: ...
    @overload
    def __init__(
        self: Suspend[Any],
        signal: str,
        *,
        reason: str | None = None,
        timeout: timedelta | float | None = None,
        default: Any = UNSET,
        show: Any = UNSET,
        fresh: bool = False,
    ) -> None: ...
    def __init__(
        self,
        signal: Signal[Any] | str,
        *,
        into: Any = UNSET,
        reason: str | None = None,
        timeout: timedelta | float | None = None,
        default: Any = UNSET,
        show: Any = UNSET,
        fresh: bool = False,
    ) -> None:
        if not isinstance(signal, (Signal, str)):
            raise InvalidInputError(f"Suspend waits for a Signal or its name, got {signal!r}")
        typed: Signal[Any] = signal if isinstance(signal, Signal) else Signal(signal)
        check_text(reason, "Suspend's reason")
        if default is not UNSET and timeout is None:
            raise InvalidInputError("Suspend's default is given on time-out: give a timeout too")
        seconds = None if timeout is None else as_seconds(timeout, "Suspend's timeout")
        wanted = typed.type if into is UNSET else into
        self.__attrs_init__(typed.name, wanted, reason, seconds, default, show, bool(fresh))  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def label(self) -> str:
        return self.signal

    def decided(self) -> Suspend[Decision[T_co]]:
        """Give the same wait, but for a `Decision`: the payload with who sent it, when, and the sender's metadata.

        After a time-out with a `default`, its value is that default, and nobody is its actor.
        """
        made = made_in_turn.get()
        if made is not None:
            made.pop(id(self), None)  # this one is replaced, so nobody has to yield it
        copy: Suspend[Decision[T_co]] = object.__new__(Suspend)
        how = (self.reason, self.timeout, self.default, self.show, self.fresh)
        copy.__attrs_init__(self.signal, self.into, *how, True)  # pyright: ignore[reportAttributeAccessIssue]
        return copy


@frozen(init=False, slots=False)
class Sleep(Command[None]):
    """Wait for a duration (timedelta or seconds) or until an aware instant. Recorded as `sleep`, answered by `wake`."""

    is_wait: ClassVar[bool] = True

    seconds: float | None
    until: datetime | None

    @overload
    def __init__(self, duration: timedelta | float) -> None: ...
    @overload
    def __init__(self, *, until: datetime) -> None: ...
    def __init__(self, duration: timedelta | float | None = None, *, until: datetime | None = None) -> None:
        if (duration is None) == (until is None):
            raise InvalidInputError("Sleep takes a duration or until=, one of the two")
        seconds = None
        if duration is not None:
            seconds = as_seconds(duration, "Sleep's duration")
        elif not isinstance(until, datetime) or until.tzinfo is None:
            raise InvalidInputError(f"Sleep's until must be a datetime with a time zone, got {until!r}")
        else:
            until = until.astimezone(UTC)
        self.__attrs_init__(seconds, until)  # pyright: ignore[reportAttributeAccessIssue]


class _Plain(Command[T_co]):
    """A command without arguments: one is like the other."""

    __slots__ = ("__weakref__",)

    def __init__(self) -> None:
        self.__attrs_post_init__()

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self)

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Now(_Plain[datetime]):
    """Give the current time, aware, in UTC. Recorded as `now`."""

    __slots__ = ()


class Random(_Plain[float]):
    """Give a random float in [0, 1). Recorded as `random`."""

    __slots__ = ()


class Uuid(_Plain[UUID]):
    """Give a random UUID (version 4). Recorded as `uuid`."""

    __slots__ = ()


def _check_change_id(_command: object, _attribute: object, value: Any) -> None:
    if not isinstance(value, str) or not value or len(value) > 200 or not value.isprintable():
        raise InvalidInputError(f"Patched takes a change id of 1 to 200 printable characters, got {value!r}")


@frozen
class Patched(Command[bool]):
    """Tell whether the run has the change: True on new runs, False on those recorded before it. Recorded as `patch`."""

    numbered: ClassVar[bool] = False

    change_id: str = field(validator=_check_change_id)

    @property
    def kind(self) -> str:
        return "patch"

    @property
    def label(self) -> str:
        return self.change_id


@frozen(init=False, slots=False)
class SetState(Command[None]):
    """Merge values into the state that `engine.query(run_id)` reads. Not recorded: it follows from the history."""

    numbered: ClassVar[bool] = False

    values: dict[str, Any]

    def __init__(self, /, **values: Any) -> None:
        for name in values:
            check_text(name, "a name that SetState sets")
        self.__attrs_init__(values)  # pyright: ignore[reportAttributeAccessIssue]

    def __hash__(self) -> int:
        return hash((SetState, *self.values))


def _check_topic(_command: object, _attribute: object, value: Any) -> None:
    check_text(value, "Emit's topic")


@frozen
class Emit(Command[None]):
    """Record a value for readers of the run's events. Recorded as `emit`."""

    value: Any
    topic: str | None = field(default=None, validator=_check_topic)

    @property
    def label(self) -> str:
        return self.topic or ""


def _check_label(_command: object, _attribute: object, value: Any) -> None:
    check_text(value, "Spend's label")


def _check_amount(_command: object, _attribute: object, value: Any) -> None:
    check_amount(value, "Spend's amount")


@frozen
class Spend(Command[float | None]):
    """Charge the run's budget, and give what is left of it; None when the run has none.

    A charge is recorded once, and never again on replay or retry. The one that passes the limit is recorded, for it was
    spent, and throws `BudgetExceededError`, as does every one that follows; clean-up and compensations still run.
    Recorded as `spend`.

    Args:
        amount: how much: tokens, cents, seconds; a number, 0 or more.
        label: for what, for people and for `meter=`.
    """

    amount: float = field(validator=_check_amount)
    label_: str | None = field(default=None, alias="label", eq=False, validator=_check_label)

    @property
    def label(self) -> str:
        return self.label_ or ""


@frozen(init=False, slots=False)
class Compensate(Command[None]):
    """Say how to undo what was done: `fn(*args)` is called if the run fails or is cancelled later (a saga).

    Compensations run as recorded steps, the newest first, once the workflow itself has ended. One that fails does not
    stop the others, and its failure is kept beside the first. Say it *before* the effect when undoing what was not done
    is harmless: after a crash nobody knows whether a step ran. Not recorded: it follows from the history.

    Args:
        fn, args, kwargs: what a `Step` of it would take.

    Raises:
        InvalidInputError: as `Step`.
    """

    numbered: ClassVar[bool] = False

    step: Step[Any]

    def __init__(self, fn: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> None:
        self.__attrs_init__(Step(fn, *args, **kwargs))  # pyright: ignore[reportAttributeAccessIssue]
        if (made := made_in_turn.get()) is not None:
            made.pop(id(self.step), None)  # it is yielded by whoever undoes

    @property
    def label(self) -> str:
        return self.step.name

    def options(
        self, *, name: str | None = None, retry: RetryPolicy | None = None, timeout: timedelta | float | None = None
    ) -> Compensate:
        """Give the same compensation with other options of its step; what is None keeps its value."""
        made = made_in_turn.get()
        if made is not None:
            made.pop(id(self), None)
        other = Compensate(self.step.fn)
        step = self.step.options(name=name, retry=retry, timeout=timeout)
        object.__setattr__(other, "step", step)
        if made is not None:
            made.pop(id(step), None)
        return other
