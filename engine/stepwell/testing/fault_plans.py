"""Which calls of a store fail, and how: the plan of a `FaultStore`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, Literal, TypeAlias, get_args

from attrs import field, frozen

from ..errors import InvalidInputError

__all__ = ["POSSIBLE", "Fault", "FaultKind", "Injected", "StoreCall"]

FaultKind: TypeAlias = Literal["before", "not_applied", "after", "lost", "unknown", "latency", "fenced"]
"""How a call fails; see `Fault`."""

_ANSWERED = ("create", "append", "open_incarnation", "transact")
_CHANGES = (*_ANSWERED, "claim", "claim_due", "release", "delete")
_LOOKS = ("head", "heads", "read", "next_due")
_OTHERS = ("renew", "wait", "closed", "size", "vacuum", "verify")
_USUAL: dict[str, tuple[str, ...]] = {
    "before": _CHANGES + _LOOKS,
    "not_applied": _ANSWERED,
    "after": _CHANGES,
    "lost": _ANSWERED,
    "unknown": _ANSWERED,
    "latency": _CHANGES + _LOOKS,
    "fenced": ("append", "open_incarnation", "transact"),
}
"""What each kind meets when `on` names nothing."""
POSSIBLE = {**_USUAL, "before": _CHANGES + _LOOKS + _OTHERS, "after": (*_CHANGES, "renew", "vacuum")}
POSSIBLE["latency"] = POSSIBLE["before"]
"""What each kind can meet at all."""


def _is_number(value: object, *classes: type) -> bool:
    return isinstance(value, classes or (int, float)) and not isinstance(value, bool)


@frozen
class StoreCall:
    """A call of a store, as a fault's `when` sees it.

    Attributes:
        operation: name of the method, such as "append".
        run_id: which run it is about; None when it is about several.
        arguments: the other arguments, by name.
    """

    operation: str
    run_id: str | None
    arguments: Mapping[str, Any]

    @property
    def types(self) -> tuple[str, ...]:
        """Types of the records that it writes, such as ("start",) or ("step", "suspend")."""
        return tuple(record.type for record in self.arguments.get("records", ()))

    @property
    def owned(self) -> bool:
        """Whether a session writes here, under its fence, and nobody from outside."""
        return self.arguments.get("fence") is not None


def _operations(value: str | Iterable[str]) -> tuple[str, ...]:
    if not isinstance(value, Iterable):
        raise InvalidInputError(f"on takes names of operations, such as 'append', got {value!r}")
    return (value,) if isinstance(value, str) else tuple(value)


def _seconds(value: timedelta | float) -> float:
    return value.total_seconds() if isinstance(value, timedelta) else value


def _numbers(value: int | Iterable[int] | None) -> frozenset[int] | None:
    if value is None:
        return None
    numbers = frozenset((value,) if isinstance(value, int) else value)
    if not numbers or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in numbers):
        raise InvalidInputError(f"nth counts calls from 1, alone or several of them, got {value!r}")
    return numbers


@frozen
class Fault:
    """One line of a plan: how calls fail, and which. A call has to fit all that is given; with nothing, each fails.

    | kind | what was asked for | what the caller meets |
    |---|---|---|
    | `before` | not done | `StoreUnavailableError` is raised |
    | `not_applied` | not written | `NotApplied` |
    | `after` | done | `StoreError` is raised |
    | `lost` | written, and the acknowledgement is lost | `Unknown` |
    | `unknown` | not written | `Unknown` |
    | `latency` | done, but later | the clock waits for `seconds` first |
    | `fenced` | not written | `Fenced`: another session took the run over, and went silent |

    Args:
        kind: one of these.
        on: names of the store's operations, one or several; by default those that the kind can meet, but `renew`,
            `wait` and those of upkeep, which fail only when they are named.
        nth: which of the calls that fit the rest, counted from 1: a number or several.
        when: is given the `StoreCall`, and says whether it fits.
        rate: chance of each call that fits, 0 to 1, drawn from the store's seed.
        times: how often at most; None is without end.
        seconds: how long `latency` waits; how long the other session of `fenced` holds the lease before it lapses. A
            timedelta will do.
        error: makes what is raised by `before` and `after`, out of a text.

    Raises:
        InvalidInputError: the kind is not known or can't meet such an operation, or a number is out of its range.

    Example:
        >>> Fault("lost", on="append", nth=2)
        Fault('lost', on='append', nth=2)
    """

    kind: FaultKind
    on: tuple[str, ...] = field(default=(), kw_only=True, converter=_operations)
    nth: frozenset[int] | None = field(default=None, kw_only=True, converter=_numbers)
    when: Callable[[StoreCall], bool] | None = field(default=None, kw_only=True)
    rate: float | None = field(default=None, kw_only=True)
    times: int | None = field(default=None, kw_only=True)
    seconds: float = field(default=1.0, kw_only=True, converter=_seconds)
    error: Callable[[str], Exception] | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.kind not in get_args(FaultKind):
            raise InvalidInputError(f"a fault is one of {', '.join(get_args(FaultKind))}, got {self.kind!r}")
        possible = POSSIBLE[self.kind]
        if wrong := [name for name in self.on if name not in possible]:
            raise InvalidInputError(f"a fault {self.kind!r} can meet {', '.join(possible)}, got {wrong[0]!r}")
        if self.rate is not None and not (_is_number(self.rate) and 0 <= self.rate <= 1):
            raise InvalidInputError(f"rate must be 0 to 1, got {self.rate!r}")
        if self.times is not None and not (_is_number(self.times, int) and self.times >= 1):
            raise InvalidInputError(f"times must be 1 or more, got {self.times!r}")
        if not (_is_number(self.seconds) and self.seconds > 0):
            raise InvalidInputError(f"seconds must be more than 0, got {self.seconds!r}")
        for name, made in (("when", self.when), ("error", self.error)):
            if made is not None and not callable(made):
                raise InvalidInputError(f"{name} takes a function, got {made!r}")

    def __repr__(self) -> str:
        on: Any = self.on[0] if len(self.on) == 1 else self.on
        nth: Any = None if self.nth is None else sorted(self.nth)
        given: dict[str, Any] = {
            "on": on or None,
            "nth": nth[0] if nth and len(nth) == 1 else nth,
            "when": self.when,
            "rate": self.rate,
            "times": self.times,
            "seconds": None if self.seconds == 1.0 else self.seconds,
            "error": self.error,
        }
        words = [f"{name}={_called(value)}" for name, value in given.items() if value is not None]
        return f"Fault({', '.join([repr(self.kind), *words])})"

    def fits(self, call: StoreCall) -> bool:
        """Whether a call is one of those that are counted."""
        if call.operation not in (self.on or _USUAL[self.kind]) or (self.kind == "fenced" and not call.owned):
            return False
        return self.when is None or self.when(call)


def _called(value: Any) -> str:
    return getattr(value, "__qualname__", None) or repr(value)


@frozen
class Injected:
    """A fault that was met.

    Attributes:
        fault: the same fault at this very call, told by its number: with it the failure comes again.
        run_id: which run the call was about; None when it was about several.
    """

    fault: Fault
    run_id: str | None

    def __str__(self) -> str:
        (number,) = self.fault.nth or (0,)
        return f"{self.fault.kind} at {self.fault.on[0]} {number}" + (f" of run {self.run_id!r}" if self.run_id else "")
