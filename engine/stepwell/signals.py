"""A signal on its way: whom it answers, and its payload, checked before anything is written. Floor 4."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen
from msgspec import Raw

from . import commands as c
from . import events as e
from .codec import Codec
from .environment import new_token
from .errors import CodecError, EventMismatchError, InvalidInputError
from .fibers import Pending
from .inputs import encode_given
from .loading import Parts
from .machine import Machine

__all__ = ["Message", "payload"]


def _checked_id(signal_id: str | None) -> str:
    if signal_id is None:
        return new_token()
    if not isinstance(signal_id, str) or not 1 <= len(signal_id) <= 200 or not signal_id.isprintable():
        raise InvalidInputError(f"a signal's id must be printable text of 1 to 200 characters, got {signal_id!r}")
    return signal_id


@frozen
class Message:
    """What a sender gives.

    Attributes:
        name: the signal's name.
        value: the payload.
        wait: the wait id that it answers, or None.
        id: counts once; a sender that gives none gets one.
        into: the type of a typed Signal; UNSET when the sender has only the name.

    Raises:
        InvalidInputError: the id is not text of 1 to 200 characters.
    """

    name: str
    value: Any = None
    wait: str | None = None
    id: str = field(default=None, converter=_checked_id)
    into: Any = c.UNSET

    @classmethod
    def of(cls, signal: c.Signal[Any], value: Any, wait: str | None = None, signal_id: str | None = None) -> Message:
        """A message for a Signal; one that was made of a name alone has no type."""
        return cls(signal.name, value, wait, signal_id, c.UNSET if signal.type is Any else signal.type)

    def waiting(self, machine: Machine, run_id: str, *, must_wait: bool) -> Pending | None:
        """The Suspend that it answers, None when it comes early.

        Raises:
            EventMismatchError: it names a wait that is over, or nobody waits and somebody must.
        """
        waits = machine.waits
        for pending in waits:
            if pending.command.label == self.name and (self.wait is None or pending.wait == self.wait):
                return pending
        if self.wait is None and not must_wait:
            return None
        now = ", ".join(f"{p.command.label!r} (wait {p.wait})" for p in waits) or "no signal"
        asked = f"signal {self.name!r}" + (f" with wait {self.wait!r}" if self.wait is not None else "")
        raise EventMismatchError(
            f"run {run_id!r} does not wait for {asked}; it waits for {now}. "
            "A signal that may come early is sent with engine.signal()",
            run_id=run_id,
        )

    def event(self, parts: Parts, pending: Pending | None) -> e.Resume:
        """The event, its payload checked against the wait, or else against the type of the Signal.

        Raises:
            InvalidInputError: the payload does not fit.
        """
        raw = payload(parts.codec, pending, self.name, self.value, self.into)
        return e.Resume(event_name=self.name, value=Raw(raw), wait=self.wait, id=self.id, timestamp=parts.stamp())


def payload(codec: Codec, pending: Pending | None, name: str, value: Any, declared: Any = c.UNSET) -> bytes:
    """Encode a signal's payload, checked against the type of the wait that it answers.

    The value may be of that type, or the plain JSON shapes that it decodes from (what a web form or the command line
    has). When nobody waits yet, the type of the sender's own Signal counts, or the value's own.

    Raises:
        InvalidInputError: it does not fit.
    """
    command = pending.command if pending is not None else None
    into = command.into if isinstance(command, c.Suspend) else declared
    if into is c.UNSET or into is Any:
        try:
            return codec.encode(value)
        except CodecError as error:
            if pending is not None:
                raise InvalidInputError(f"signal {name!r}: {error.message}") from error
            return _by_own_type(codec, name, value)
    return encode_given(codec, value, into, f"signal {name!r} does not fit {_type_name(into)}")


def _by_own_type(codec: Codec, name: str, value: Any) -> bytes:
    """An early signal of a name alone: the payload is recorded as what it is."""
    try:
        return codec.encode(value, type(value))
    except CodecError as error:
        raise InvalidInputError(f"signal {name!r}: {error.message}") from error


def _type_name(into: Any) -> str:
    return getattr(into, "__name__", None) or str(into)
