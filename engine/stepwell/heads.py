"""A run's row in a store's index: what can be told of it without reading its history. Floor 2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import msgspec

__all__ = ["Blocked", "Head", "HeadFilter", "RunHead", "Status", "Waiting"]

Status: TypeAlias = Literal["pending", "running", "suspended", "paused", "completed", "failed", "cancelled"]
"""Status of a run. Stores hold all but `running`, which is an open run under a live lease, whatever they hold."""


class Waiting(msgspec.Struct, frozen=True):
    """A signal that a run waits for.

    Attributes:
        signal: its name.
        wait: the wait id that a decision may name.
        since: microseconds since 1970, UTC.
        reason: text for the person who is asked.
        due: when it times out, microseconds since 1970, or None.
    """

    signal: str
    wait: str
    since: int
    reason: str | None = None
    due: int | None = None


class Blocked(msgspec.Struct, frozen=True):
    """Why no worker claims a run: the code and its history don't fit.

    Attributes:
        code: the error's code, such as DIVERGENCE.
        message: its text.
        fingerprints: of every workflow's code that failed, newest first; the run is tried again by a worker that has
            none of them. Each is text of the engine's.
    """

    code: str
    message: str
    fingerprints: tuple[str, ...]


class Head(msgspec.Struct, frozen=True):
    """The run's row in the store's index. The engine writes it; the store keeps it and filters by it.

    Attributes:
        status: never "running", which a live lease says.
        due: when the run wants to be driven, microseconds since 1970; None when only an outside event can move it.
        waiting: the signals that it waits for, oldest first.
        created, updated: microseconds since 1970.
        tags: the caller's labels.
        blocked: why no worker claims the run, or None.
    """

    status: Status
    workflow: str
    version: str
    created: int
    updated: int
    due: int | None = None
    waiting: tuple[Waiting, ...] = ()
    tags: Mapping[str, str] = {}
    blocked: Blocked | None = None


class RunHead(msgspec.Struct, frozen=True):
    """A head with what the store itself knows of the run.

    Attributes:
        run_id: the run.
        incarnation: number of the current one.
        seq: number of records in its history; the seq of the next one.
        fence: the newest session number.
        closed: whether the current incarnation is closed.
        lease_until: when the live lease lapses, microseconds since 1970; None when nobody holds one.
        head: the index row. `due` is the earlier of what the owner wrote and what outside writers set.
    """

    run_id: str
    incarnation: int
    seq: int
    fence: int
    closed: bool
    lease_until: int | None
    head: Head


class HeadFilter(msgspec.Struct, frozen=True):
    """Which heads to list; None means any. `tag` is (name, value), value None means any value.

    A run under a live lease is being driven, and what its head said when it was parked may be over. So `status`
    "running" means every open run under a live lease, whatever status its head holds; any other status leaves those
    out, and so does `waiting_for`, since the wait may be answered already.
    """

    status: Status | None = None
    workflow: str | None = None
    tag: tuple[str, str | None] | None = None
    waiting_for: str | None = None
    blocked: bool | None = None
    version: str | None = None
    closed: bool | None = None
