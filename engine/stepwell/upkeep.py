"""What a store is asked for its upkeep: which runs are closed since when, how large it is, and to give space back.

A part of the store port, and what callers are told of it. Floor 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import msgspec

from .heads import Head, RunHead, Status

__all__ = ["ClosedKey", "Moved", "Pruned", "Rewritable", "StoreSize", "Upkeep", "closed_key"]

ClosedKey: TypeAlias = tuple[str, int, str]
"""Where a closed run stands in their order: its workflow, when it was closed (its head's `updated`), its run id."""


def closed_key(run: RunHead) -> ClosedKey:
    """Where a closed run stands among the closed ones."""
    return run.head.workflow, run.head.updated, run.run_id


class StoreSize(msgspec.Struct, frozen=True):
    """How large a store is.

    Attributes:
        runs: how many there are, by status; a status that no run has is left out.
        events: how many events they have, those of earlier incarnations too.
        bytes: what the store takes on its disk, or in memory the records alone.
        free: those of them that hold nothing, and are filled before the store grows. `vacuum` gives them back.
    """

    runs: Mapping[Status, int]
    events: int
    bytes: int
    free: int = 0


class Pruned(msgspec.Struct, frozen=True):
    """What `prune` removed, or would remove.

    Attributes:
        removed: how many runs.
        run_ids: theirs, those closed first of each workflow first; of more than 10,000 the first 10,000.
        events: how many events went with them, those of earlier incarnations not counted.
        kept: how many runs were old enough and stay, by the reason: "newest", among those that `keep_last` keeps;
            "needed" by an open parent; "unreadable", damaged, of a newer format, or its key is not at hand; "changed",
            retried, reset or removed by somebody else meanwhile.
        more: whether `limit` ended it, so that there may be more to remove.
        dry_run: True when nothing was removed.
    """

    removed: int = 0
    run_ids: tuple[str, ...] = ()
    events: int = 0
    kept: Mapping[str, int] = {}
    more: bool = False
    dry_run: bool = False


class Moved(msgspec.Struct, frozen=True):
    """What `migrate` moved, or would move.

    Attributes:
        moved: how many runs, those included that an earlier call had begun to move.
        run_ids: theirs; of more than 10,000 the first 10,000.
        events: how many events went with them, those of earlier incarnations not counted.
        kept: how many runs stay, by the reason: "busy", driven by somebody, or one of their family is; "taken", the
            target has a run of that id; "unreadable", damaged or of a newer format; "changed", moved, retried, reset or
            removed by somebody else meanwhile.
        kept_ids: theirs, as many as of `run_ids`, each with its reason.
        dry_run: True when nothing was moved.
    """

    moved: int = 0
    run_ids: tuple[str, ...] = ()
    events: int = 0
    kept: Mapping[str, int] = {}
    kept_ids: Mapping[str, str] = {}
    dry_run: bool = False


class Upkeep(Protocol):
    """The part of the store port that retention needs."""

    def closed(
        self,
        *,
        after: ClosedKey | None = None,
        before: ClosedKey | None = None,
        newest_first: bool = False,
        limit: int,
    ) -> list[RunHead]:
        """Heads of closed runs between two keys, in the order of their keys, or from the end with `newest_first`.

        The order is by workflow, then `updated`, then run id, text by code points. Damaged runs are passed by. No heads
        means that there are no more, never that a page had nothing else.

        Args:
            after, before: neither of the two is given back; None: from the beginning, to the end.
            limit: how many, at least 1.
        """
        ...

    def size(self) -> StoreSize:
        """How large it is. A run under a live lease counts as "running", as in `heads`."""
        ...

    def vacuum(self) -> int:
        """Give space that holds nothing back to the file system; how many bytes it took less than before, 0 or more.

        No record is changed, and no writer is kept waiting for longer than by an append, unless nobody drives a run.

        Raises:
            StoreUnavailableError: not now, since runs are being driven; nothing was changed.
        """
        ...


@runtime_checkable
class Rewritable(Protocol):
    """What a store has besides when records can be put in place of others: for those that stand around it.

    A history never changes for those who read it. But how it is kept may: encrypted with another key. It is looked for
    by its method, so that a wrapper may hand it on.
    """

    def rewrite(
        self,
        run_id: str,
        incarnation: int,
        from_seq: int,
        old: Sequence[bytes],
        new: Sequence[bytes],
        *,
        head: tuple[Head, Head] | None = None,
    ) -> bool:
        """Put as many records in place of those from `from_seq` on, and a head in place of the run's: all or nothing.

        It may be called at any time, whoever drives the run. Killed in its midst it leaves the old records or the new.

        Args:
            old: what is there, byte for byte.
            new: sealed records with the same sessions, offsets and marks; only type and body may differ.
            head: what is there, and what takes its place; None: it stays. Only texts in it and its tags may differ.

        Returns:
            False when there is no such run, or something else is there; then nothing was changed.
        """
        ...
