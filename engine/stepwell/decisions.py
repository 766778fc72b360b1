"""What is known of a decision besides its payload: who made it, when, and what the sender added. Floor 1."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, TypeVar

from attrs import field, frozen

__all__ = ["Decision"]

T_co = TypeVar("T_co", covariant=True)


@frozen
class Decision(Generic[T_co]):
    """What `Suspend(...).decided()` gives: the payload, and what is recorded of how it came.

    Attributes:
        value: the payload of the signal; the `default` after a time-out.
        at: when it was recorded, aware UTC.
        actor: who decided, as the sender said it; None when nobody said, and after a time-out.
        metadata: what else the sender gave, plain JSON.
    """

    value: T_co
    at: datetime
    actor: str | None = None
    metadata: dict[str, Any] = field(factory=dict)
