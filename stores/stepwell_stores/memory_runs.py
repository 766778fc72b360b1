"""A run and its lease, as the store in memory has them."""

from __future__ import annotations

from attrs import define, field

from stepwell.store import Head

from .rules import Position

__all__ = ["Held", "Run"]


@define
class Held:
    """A lease, live or lapsed. `token` is that of the request that it was granted to."""

    owner: str
    until: int
    token: str


@define
class Run:
    """A run with all of its incarnations; the last of `histories` is the current one."""

    run_id: str
    fence: int
    head: Head
    closed: bool
    histories: list[list[bytes]]
    held: Held | None = None
    attempts: dict[str, tuple[int, int]] = field(factory=dict)

    @property
    def incarnation(self) -> int:
        return len(self.histories) - 1

    @property
    def lines(self) -> list[bytes]:
        return self.histories[-1]

    @property
    def position(self) -> Position:
        return Position(self.incarnation, len(self.lines), self.fence, self.closed)
