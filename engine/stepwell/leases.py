"""The right to drive a run, and how it is asked for. Floor 2."""

from __future__ import annotations

import msgspec

__all__ = ["Lease", "LeaseRequest"]


class LeaseRequest(msgspec.Struct, frozen=True):
    """Asks for a lease together with a write.

    Attributes:
        ttl: seconds that it lasts unless it is renewed.
        token: known to this caller alone. A write that is repeated with it gets the lease that it was granted; whoever
            sends the same write with another one, or with none, does not: two would drive under one fence.
    """

    owner: str
    ttl: float
    token: str = ""


class Lease(msgspec.Struct, frozen=True):
    """The right to drive a run until `until` (microseconds since 1970, the store's clock)."""

    run_id: str
    incarnation: int
    fence: int
    seq: int
    owner: str
    until: int
