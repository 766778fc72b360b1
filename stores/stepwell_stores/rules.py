"""What all stores share: the checks of the port's contract, written once, and how a head is kept as JSON."""

from __future__ import annotations

import heapq
import json
import re
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias, cast

import msgspec

from stepwell.errors import InvalidInputError
from stepwell.store import (
    Blocked,
    ClosedKey,
    Conflict,
    Draft,
    Fenced,
    Head,
    HeadFilter,
    LeaseRequest,
    RunHead,
    Status,
    Then,
    Waiting,
    closed_key,
)

Clock: TypeAlias = Callable[[], int]
"""Gives microseconds since 1970."""

MAX_RUN_ID = 1024
"""Longest run id in UTF-8 bytes. The engine's own limit is tighter."""

_ATTEMPT = re.compile(r"[A-Za-z0-9._:-]{1,100}")


def system_clock() -> int:
    """Microseconds since 1970 on this machine's clock."""
    return time.time_ns() // 1000


def micros(seconds: float) -> int:
    """A duration in seconds as whole microseconds."""
    return int(seconds * 1_000_000)


def earlier(a: int | None, b: int | None) -> int | None:
    """The earlier of two instants, None counting as never."""
    if a is None or b is None:
        return b if a is None else a
    return min(a, b)


class Position(msgspec.Struct, frozen=True):
    """Where a run stands, as far as an append cares."""

    incarnation: int
    seq: int
    fence: int
    closed: bool

    def conflict(self) -> Conflict:
        """The outcome that tells a writer where the tail is."""
        return Conflict(self.seq, self.incarnation, self.closed)

    def refuses_owner(self, incarnation: int, expected_seq: int, fence: int) -> Fenced | Conflict | None:
        """Why an owner's append may not be written, None when it may. Whether it is there already the caller knows."""
        if fence != self.fence:
            return Fenced(self.fence)
        return self.refuses_outside(incarnation, expected_seq)

    def refuses_opening(
        self, incarnation: int, expected_seq: int | None, fence: int | None
    ) -> Fenced | Conflict | None:
        """Why this incarnation may not be opened; None when it may."""
        if fence is not None and expected_seq is not None:  # the owner of the one before, which is open
            return self.refuses_owner(incarnation - 1, expected_seq, fence)
        return None if self.closed and incarnation == self.incarnation + 1 else self.conflict()

    def refuses_outside(self, incarnation: int | None, expected_seq: int | None) -> Conflict | None:
        """Why an outside append may not be written; None when it may."""
        if self.closed or incarnation not in (None, self.incarnation) or expected_seq not in (None, self.seq):
            return self.conflict()
        return None


def check_run_id(run_id: str) -> None:
    """Refuse what no store can keep as a key.

    Raises:
        InvalidInputError: not a str, empty, too long, or with half of a surrogate pair.
    """
    if isinstance(run_id, str) and 0 < len(run_id) <= MAX_RUN_ID and run_id.isascii():
        return
    if not isinstance(run_id, str) or not run_id:
        raise InvalidInputError(f"run_id must be a str that is not empty, got {run_id!r}")
    try:
        size = len(run_id.encode())
    except UnicodeEncodeError as e:
        raise InvalidInputError(f"run_id {run_id!r} can't be written as UTF-8: {e.reason}") from e
    if size > MAX_RUN_ID:
        raise InvalidInputError(f"run_id has {size} bytes, more than {MAX_RUN_ID}: {run_id[:60]!r}...")


def check_lease(request: LeaseRequest | None) -> None:
    """Refuse a lease that would lapse before it begins."""
    if request is not None and not request.ttl > 0:
        raise InvalidInputError(f"the ttl of a lease must be more than 0 seconds, got {request.ttl!r}")


def check_attempt_id(attempt_id: str) -> None:
    """Refuse an attempt id that can't go into a sealed record as it is."""
    if not isinstance(attempt_id, str) or not _ATTEMPT.fullmatch(attempt_id):
        raise InvalidInputError(f"attempt_id must be 1 to 100 characters of A-Za-z0-9._:- , got {attempt_id!r}")


def check_first(run_id: str, records: Sequence[Draft], attempt_id: str, lease: LeaseRequest | None) -> None:
    """Check the arguments of `create` and `open_incarnation`."""
    check_run_id(run_id)
    check_attempt_id(attempt_id)
    check_lease(lease)
    if not records:
        raise InvalidInputError(f"run {run_id!r}: a history begins with at least one record")


def check_opening(run_id: str, expected_seq: int | None, fence: int | None) -> None:
    """Check what the owner of an open incarnation gives, who opens the next one."""
    if (expected_seq is None) != (fence is None):
        raise InvalidInputError(f"run {run_id!r}: an owner (fence={fence}) names expected_seq too, others neither")


def check_append(
    run_id: str,
    incarnation: int | None,
    expected_seq: int | None,
    records: Sequence[Draft],
    attempt_id: str,
    head: Head | None,
    then: Then,
    fence: int | None,
    release: bool,
    lease: LeaseRequest | None,
) -> None:
    """Check the arguments of `append`: what owners must give and outside writers must not."""
    if type(run_id) is not str or not 0 < len(run_id) <= MAX_RUN_ID or not run_id.isascii():  # as most are
        check_run_id(run_id)
    if type(attempt_id) is not str or _ATTEMPT.fullmatch(attempt_id) is None:
        check_attempt_id(attempt_id)
    if lease is not None:
        check_lease(lease)
    if fence is None:
        if head is not None or release or then != "open":
            raise InvalidInputError(
                f"run {run_id!r}: head, release and then are an owner's; an outside writer (fence=None) may set due"
            )
    elif incarnation is None or expected_seq is None:
        raise InvalidInputError(f"run {run_id!r}: an owner (fence={fence}) names incarnation and expected_seq")
    elif lease is not None:
        raise InvalidInputError(f"run {run_id!r}: an owner (fence={fence}) has its lease; use renew")
    elif then != "open" and not records:
        raise InvalidInputError(f"run {run_id!r}: closing a history needs a record")


def matches(head: RunHead, where: HeadFilter) -> bool:
    """Whether a head passes the filter."""
    row = head.head
    if where.status is not None and where.status != shown_status(head):
        return False
    if where.workflow is not None and row.workflow != where.workflow:
        return False
    if where.version is not None and row.version != where.version:
        return False
    if where.closed is not None and head.closed != where.closed:
        return False
    if where.tag is not None:
        name, value = where.tag
        if name not in row.tags or value not in (None, row.tags[name]):
            return False
    if where.waiting_for is not None:
        waits = () if head.lease_until is not None else row.waiting  # while it is driven, they may be answered
        if all(w.signal != where.waiting_for for w in waits):
            return False
    return where.blocked is None or where.blocked == (row.blocked is not None)


def shown_status(head: RunHead) -> Status:
    """The status by which heads are filtered: an open run under a live lease is running, whatever its head holds."""
    return "running" if head.lease_until is not None and not head.closed else head.head.status


def check_limit(limit: int) -> None:
    """Refuse an empty page, which would say that there is nothing more."""
    if limit < 1:
        raise InvalidInputError(f"limit must be at least 1, got {limit!r}")


def closed_page(
    heads: Iterable[RunHead], after: ClosedKey | None, before: ClosedKey | None, newest_first: bool, limit: int
) -> list[RunHead]:
    """A page of closed runs out of all runs, for a store without an index."""
    check_limit(limit)
    found = (
        head
        for head in heads
        if head.closed and (after is None or closed_key(head) > after) and (before is None or closed_key(head) < before)
    )
    return (heapq.nlargest if newest_first else heapq.nsmallest)(limit, found, key=closed_key)


def may_try(blocked: Blocked | None, fingerprints: frozenset[str]) -> bool:
    """Whether a worker whose code has these fingerprints may claim a run that is blocked so."""
    return blocked is None or (bool(fingerprints) and fingerprints.isdisjoint(blocked.fingerprints))


def waiting_json(waiting: Sequence[Waiting]) -> str:
    """The signals that a run waits for, as a JSON list of objects."""
    if not waiting:
        return "[]"
    return json.dumps(
        [{"signal": w.signal, "wait": w.wait, "since": w.since, "reason": w.reason, "due": w.due} for w in waiting]
    )


def waiting_from(rows: Sequence[dict[str, Any]]) -> tuple[Waiting, ...]:
    """Read what `waiting_json` wrote, once parsed."""
    return tuple(Waiting(w["signal"], w["wait"], w["since"], w["reason"], w["due"]) for w in rows)


def blocked_json(blocked: Blocked | None) -> str | None:
    """Why a run is blocked, as a JSON object."""
    if blocked is None:
        return None
    return json.dumps({"code": blocked.code, "message": blocked.message, "fingerprints": blocked.fingerprints})


def blocked_from(row: dict[str, Any] | None) -> Blocked | None:
    """Read what `blocked_json` wrote, once parsed."""
    return None if row is None else Blocked(row["code"], row["message"], tuple(row["fingerprints"]))


def status_from(text: str) -> Status:
    """A recorded status, known to be one."""
    if text not in ("pending", "suspended", "paused", "completed", "failed", "cancelled"):
        raise ValueError(f"not a status: {text!r}")
    return cast("Status", text)
