"""How writes to a store end: what the port's methods give back. Floor 2."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from .heads import RunHead
from .leases import Lease

__all__ = [
    "AlreadyCommitted",
    "AppendOutcome",
    "Committed",
    "Conflict",
    "CreateOutcome",
    "Created",
    "Exists",
    "Fenced",
    "NotApplied",
    "Unknown",
]


class Committed(msgspec.Struct, frozen=True):
    """Written and durable. `seq` is that of the first record, `lease` the lease that was asked for, if it was free."""

    seq: int
    incarnation: int
    lease: Lease | None = None
    busy_until: int | None = None


class AlreadyCommitted(msgspec.Struct, frozen=True):
    """This very attempt was written before: success. Fields as `Committed`."""

    seq: int
    incarnation: int
    lease: Lease | None = None
    busy_until: int | None = None


class Conflict(msgspec.Struct, frozen=True):
    """Not written: the tail is elsewhere. Read the new tail, feed it, try again.

    Attributes:
        seq: the tail's seq.
        incarnation: the current one.
        closed: whether it is closed.
    """

    seq: int
    incarnation: int
    closed: bool = False


class Fenced(msgspec.Struct, frozen=True):
    """Not written: a newer session owns the run. `fence` is its number."""

    fence: int


class _Failed(msgspec.Struct, frozen=True, eq=False):
    """Equal whatever the cause, since exceptions never are."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))


class NotApplied(_Failed, frozen=True, eq=False):
    """Not written, for certain, and not for a reason of the run's: safe to try again. `cause` is the driver's error."""

    cause: BaseException | None = None


class Unknown(_Failed, frozen=True, eq=False):
    """Nobody can say whether it was written. Repeat the same attempt; never the step. `cause` is the driver's error."""

    cause: BaseException | None = None


AppendOutcome: TypeAlias = Committed | AlreadyCommitted | Conflict | Fenced | NotApplied | Unknown
"""How an append ended."""


class Created(msgspec.Struct, frozen=True):
    """The run was created (or this very attempt had created it). `lease` is the one that was asked for."""

    lease: Lease | None = None


class Exists(msgspec.Struct, frozen=True):
    """The run id is taken."""

    head: RunHead


CreateOutcome: TypeAlias = Created | Exists | NotApplied | Unknown
"""How a create ended."""
