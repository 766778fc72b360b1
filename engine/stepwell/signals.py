"""A signal on its way: whom it answers, and its payload, checked before anything is written. Floor 4."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen
from msgspec import Raw, UnsetType

from . import commands as c
from . import events as e
from .codec import Codec
from .environment import new_token
from .errors import CodecError, EventMismatchError, InvalidInputError
from .fibers import Pending
from .inputs import encode_given
from .loading import Parts
from .machine import Machine

__all__ = ["Message", "metadata_of", "payload"]

MAX_METADATA = 1 << 16
"""Bytes of JSON that a sender may say of a signal beside its payload."""


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
        actor: who sends it, or None.
        metadata: what else is said of it, or None.

    Raises:
        InvalidInputError: the id is not text of 1 to 200 characters.
    """

    name: str
    value: Any = None
    wait: str | None = None
    id: str = field(default=None, converter=_checked_id)
    into: Any = c.UNSET
    actor: str | None = None
    metadata: dict[str, Any] | None = None

    @classmethod
    def of(
        cls,
        signal: c.Signal[Any],
        value: Any,
        wait: str | None = None,
        signal_id: str | None = None,
        actor: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> Message:
        """A message for a Signal; one that was made of a name alone has no type."""
        into = c.UNSET if signal.type is Any else signal.type
        return cls(signal.name, value, wait, signal_id, into, actor, metadata)

    def is_late(self, machine: Machine) -> bool:
        """Whether it names a question that does not wait any more, or an id that came before."""
        if self.wait is None:
            return False
        return machine.mailbox.has_seen(self.id) or all(p.wait != self.wait for p in machine.waits)

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
            InvalidInputError: the payload does not fit, or the metadata can't be recorded.
        """
        raw = payload(parts.codec, pending, self.name, self.value, self.into)
        return e.Resume(
            event_name=self.name,
            value=Raw(raw),
            wait=self.wait,
            id=self.id,
            actor=self.actor,
            metadata=metadata_of(parts.codec, self.metadata),
            timestamp=parts.stamp(),
        )


def metadata_of(codec: Codec, metadata: dict[str, Any] | None) -> Raw | UnsetType:
    """Encode what a sender says of a signal beside its payload.

    Raises:
        InvalidInputError: it is no JSON, or too much of it.
    """
    if metadata is None:
        return e.UNSET
    try:
        raw = codec.encode(metadata)
    except CodecError as error:
        raise InvalidInputError(f"metadata must be a JSON object: {error.message}") from error
    if len(raw) > MAX_METADATA:
        raise InvalidInputError(f"metadata can have {MAX_METADATA:,} bytes of JSON at most, got {len(raw):,}")
    return Raw(raw)


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
