"""What the owner answers by itself: commands with no effect behind them. Floor 4."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Protocol

from msgspec import Raw

from . import commands as c
from . import events as e
from .errors import Failure, StepInterrupted, type_names
from .fibers import Pending
from .loading import Parts

__all__ = ["answer_to", "default_of", "suspend_event"]


class Landing(Protocol):
    """What is asked of the flights."""

    def may_cancel(self, pending: Pending) -> bool:
        """Whether a cancelled step's outcome is `cancelled`: it is not running, or nobody wants what it brings."""
        ...

    def flies(self, at: str) -> bool:
        """Whether an attempt is under way."""
        ...


def answer_to(pending: Pending, parts: Parts, now: datetime, flights: Landing) -> e.EventBase | None:
    """The event that the owner adds for a pending command without performing anything; None: there is none yet."""
    answer = _ANSWERS.get(type(pending.command))
    return None if answer is None else answer(pending, parts, now, flights)


def _step(pending: Pending, _parts: Parts, now: datetime, flights: Landing) -> e.EventBase | None:
    stamp = e.instant(now)
    interrupted = pending.begun and not pending.lost and not flights.flies(pending.at)
    if pending.cancelling and not interrupted:
        return e.Cancelled(at=pending.at, timestamp=stamp) if flights.may_cancel(pending) else None
    if not interrupted:
        return None
    failure = Failure(
        type_names(StepInterrupted),
        "it was begun in an earlier session and its outcome is not known; it is marked at_most_once, so it is not "
        "run again",
        attempts=1,
    )
    name = pending.command.label
    return e.Step(
        at=pending.at, step_id=pending.step_id, name=name, attempts=1, started=stamp, error=failure, timestamp=stamp
    )


def _timer(pending: Pending, _parts: Parts, now: datetime, _flights: Landing) -> e.EventBase | None:
    command = pending.command
    if pending.recorded:
        if pending.due is not None and e.parse_instant(pending.due) <= now:
            return e.Wake(at=pending.at, value=default_of(pending), timestamp=e.instant(now))
        return None
    if isinstance(command, c.Sleep):
        due = command.until or now + timedelta(seconds=command.seconds or 0)
        return e.Sleep(at=pending.at, due=e.instant(due), timestamp=e.instant(now))
    if isinstance(command, c.Suspend) and command.timeout is not None:
        return suspend_event(pending, now)
    return None


def default_of(pending: Pending) -> Any:
    """What a wait gives on time-out, as it is recorded; UNSET when it throws TimedOut, and for a sleep."""
    return e.UNSET if pending.default is None else Raw(pending.default[0])


def suspend_event(pending: Pending, now: datetime) -> e.EventBase:
    """The event that says that the run waits for a signal, with the instant of its time-out."""
    command: Any = pending.command
    return e.Suspend(
        at=pending.at,
        waiting_for=command.signal,
        wait=pending.wait,
        reason=command.reason,
        due=None if command.timeout is None else e.instant(now + timedelta(seconds=command.timeout)),
        show=e.UNSET if pending.show is None else Raw(pending.show),
        timestamp=e.instant(now),
    )


def _spend(pending: Pending, _parts: Parts, now: datetime, _flights: Landing) -> e.EventBase:
    command: Any = pending.command
    return e.Spend(at=pending.at, amount=command.amount, label=command.label or None, timestamp=e.instant(now))


def _child(pending: Pending, _parts: Parts, now: datetime, _flights: Landing) -> e.EventBase | None:
    """One that was cancelled before it was started never is; one that lost its Race is not waited for."""
    if pending.cancelling and (pending.lost or not pending.recorded):
        return e.Cancelled(at=pending.at, timestamp=e.instant(now))
    return None


def _now(pending: Pending, _parts: Parts, now: datetime, _flights: Landing) -> e.EventBase:
    stamp = e.instant(now)
    return e.Now(at=pending.at, value=stamp, timestamp=stamp)


def _random(pending: Pending, parts: Parts, now: datetime, _flights: Landing) -> e.EventBase:
    return e.Random(at=pending.at, value=parts.environment.entropy.random(), timestamp=e.instant(now))


def _uuid(pending: Pending, parts: Parts, now: datetime, _flights: Landing) -> e.EventBase:
    return e.Uuid(at=pending.at, value=str(parts.environment.entropy.uuid()), timestamp=e.instant(now))


def _emit(pending: Pending, parts: Parts, now: datetime, _flights: Landing) -> e.EventBase:
    command: Any = pending.command
    value = Raw(parts.codec.encode(command.value))
    return e.Emit(at=pending.at, value=value, topic=command.topic, timestamp=e.instant(now))


_ANSWERS: dict[type[c.Command[Any]], Callable[[Pending, Parts, datetime, Landing], e.EventBase | None]] = {
    c.Step: _step,
    c.Transaction: _step,
    c.Stream: _step,
    c.Sleep: _timer,
    c.Suspend: _timer,
    c.Now: _now,
    c.Random: _random,
    c.Uuid: _uuid,
    c.Emit: _emit,
    c.Spend: _spend,
    c.Child: _child,
}
