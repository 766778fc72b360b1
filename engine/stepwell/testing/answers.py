"""Answers of a fake history: what came of a command, as a test says it."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from ..commands import UNSET, Signal
from ..errors import InvalidInputError

__all__ = [
    "Answer",
    "WrongAnswerError",
    "cancel",
    "cancelled",
    "fired",
    "patched",
    "pause",
    "raised",
    "received",
    "returned",
    "unpause",
]


class WrongAnswerError(AssertionError):
    """An answer of a fake history does not fit what the workflow asks for."""


@frozen
class Answer:
    """One answer, for the oldest pending command that it can answer unless `at` or `step` addresses another.

    Attributes:
        kind: "returned", "raised", "received", "fired", "patched", "cancelled", "cancel", "pause" or "unpause".
        value: the value, exception or payload.
        signal: name of the signal, for "received".
        into: type of its payload, when a typed Signal was given.
        at: path of the command, such as "2.0.1".
        step: step id, such as "classify#2"; of a child, the name of its workflow.
        wait: wait id that a signal names.
        actor: who sends it, for "received".
        metadata: what else is said of it.
    """

    kind: str
    value: Any = None
    signal: str = ""
    at: str | None = None
    step: str | None = None
    wait: str | None = None
    into: Any = UNSET
    actor: str | None = None
    metadata: dict[str, Any] | None = None

    def __str__(self) -> str:
        where = f", at={self.at!r}" if self.at else f", step={self.step!r}" if self.step else ""
        if self.kind == "received":
            return f"received({self.signal!r}, {self.value!r})"
        if self.kind in ("returned", "raised"):
            return f"{self.kind}({self.value!r}{where})"
        return f"{self.kind}({where.removeprefix(', ')})"


def returned(value: Any = None, *, at: str | None = None, step: str | None = None) -> Answer:
    """The command gave a value: a step's result, or what Now, Random or Uuid drew."""
    return Answer("returned", value, at=at, step=step)


def raised(error: BaseException, *, at: str | None = None, step: str | None = None) -> Answer:
    """The step failed with this exception, attempts and all."""
    if not isinstance(error, BaseException):
        raise InvalidInputError(f"raised() takes an exception, got {error!r}")
    return Answer("raised", error, at=at, step=step)


def received(
    signal: Signal[Any] | str,
    value: Any = None,
    *,
    wait: str | None = None,
    actor: str | None = None,
    metadata: dict[str, Any] | None = None,
) -> Answer:
    """A signal came, as `engine.signal` sends it; it is buffered when nobody waits for it.

    A payload is refused where the sender would be: by the Suspend that waits for it, or before there is one by the type
    of the Signal. Sent early by its name alone it is checked on delivery, which is how `SignalRejected` is tested.
    """
    if isinstance(signal, Signal):
        into = UNSET if signal.type is Any else signal.type
        return Answer("received", value, signal=signal.name, wait=wait, into=into, actor=actor, metadata=metadata)
    if not isinstance(signal, str):
        raise InvalidInputError(f"received() takes a Signal or the name of one, got {signal!r}")
    return Answer("received", value, signal=signal, wait=wait, actor=actor, metadata=metadata)


def fired(*, at: str | None = None) -> Answer:
    """The timer of a Sleep, or the time-out of a Suspend, fired."""
    return Answer("fired", at=at)


def patched() -> Answer:
    """The Patched that is asked answers True; with any other answer in its place it is False."""
    return Answer("patched")


def cancelled(*, at: str | None = None, step: str | None = None) -> Answer:
    """The step was cancelled before it ran (or was the loser of a Race)."""
    return Answer("cancelled", at=at, step=step)


def cancel(reason: str | None = None) -> Answer:
    """Somebody asks for the run to be cancelled."""
    return Answer("cancel", reason)


def pause() -> Answer:
    """Somebody asks for the run to be paused."""
    return Answer("pause")


def unpause() -> Answer:
    """Somebody lets the run go on."""
    return Answer("unpause")
