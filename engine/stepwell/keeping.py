"""The part of an engine's facade that keeps its store in order: retention, sizes, space. Floor 4."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from .checks import checked_filter, checked_limit
from .errors import InvalidInputError
from .facade import Facade
from .retry import as_seconds
from .store import Status, Store
from .upkeep import Moved, Pruned, StoreSize
from .workflows import Workflow

__all__ = ["Keeping"]


class Keeping(Facade):
    """Removes what is old enough, and says how large the store is."""

    def prune(
        self,
        *,
        older_than: timedelta | float | None = None,
        keep_last: int | None = None,
        status: str | Iterable[str] | None = None,
        workflow: Workflow[..., Any] | str | None = None,
        dry_run: bool = False,
        limit: int | None = None,
    ) -> Pruned:
        """Remove closed runs for good, with all of their incarnations; open ones always stay.

        With neither `older_than` nor `keep_last`, each workflow that this engine knows says by its `ttl` what goes; the
        runs of a version that it does not know go by the version that was registered last. Runs that an open parent may
        still need stay in any case. Each run is removed whole or not at all, whenever the process dies, and a run that
        takes the id afterwards sees nothing of it.

        Args:
            older_than: since they were closed, timedelta or seconds; 0: however young. None: any age.
            keep_last: so many runs of each workflow stay, those closed last among those of `status`. None: none.
            status: "completed", "failed", "cancelled", or several of them; None: all three.
            workflow: of this workflow, or name, only.
            dry_run: remove nothing, and tell what would be removed.
            limit: remove so many at most, those closed first of each workflow; None: all.

        Returns:
            Which runs, and how many stay for which reason.

        Raises:
            InvalidInputError: an argument is wrong, or `workflow` has no ttl and nothing else says what is to go.
            StoreError: the store failed; some runs may be removed. The same call goes on.
        """
        from .retention import Wanted, prune, sweep

        self._ready()
        if limit is not None:
            checked_limit(limit, 2**31)
        if not isinstance(dry_run, bool):
            raise InvalidInputError(f"dry_run must be True or False, got {dry_run!r}")
        wanted = Wanted.checked(older_than, keep_last, status, workflow)
        if wanted.by_ttl and wanted.workflow is not None:
            self._check_ttl(wanted.workflow)
        return prune(sweep(self._parts, wanted, dry_run=dry_run), limit, dry_run=dry_run)

    def migrate(
        self,
        target: str | Store,
        *,
        status: Status | None = None,
        workflow: Workflow[..., Any] | str | None = None,
        tag: str | tuple[str, str] | None = None,
        wait: timedelta | float = 0.0,
        dry_run: bool = False,
        on_run: Callable[[str, str], None] | None = None,
    ) -> Moved:
        """Move runs into another store, with every byte, incarnation, tag, timer and buffered signal.

        An open run goes on there: nobody can drive it here any more or send it anything, and whoever tries is told
        where it is. No run is ever driven in both stores, whenever the process dies; the same call goes on then. Every
        record is read back and compared before its run leaves. Runs that wait for their children move together with
        them. A run that somebody drives stays, and so does its family.

        Args:
            target: a URL, or a store, which stays the caller's to close.
            status, workflow, tag: only such runs, and the families of those that are open; None: all.
            wait: how long to wait for runs that somebody drives, timedelta or seconds.
            dry_run: move nothing, and tell what would be moved.
            on_run: called with the id of each run and what became of it: "moved", "landed" for one that an earlier call
                had left between the stores, else why it stays, as `Moved.kept` says.

        Returns:
            How many runs moved, and which stay for which reason.

        Raises:
            InvalidInputError: an argument is wrong.
            StoreMisconfiguredError: one of the two stores can't be used, or has runs that can't be moved.
            StoreError: a store failed; what has moved has moved. The same call goes on.
        """
        from .migrating import moving, tally

        self._ready()
        if not isinstance(dry_run, bool):
            raise InvalidInputError(f"dry_run must be True or False, got {dry_run!r}")
        name = workflow.name if isinstance(workflow, Workflow) else workflow
        where = checked_filter(status, name, tag, None, None)
        going = moving(self._parts, target, where, as_seconds(wait, "wait"), dry_run=dry_run, on_run=on_run)
        return tally(going, dry_run=dry_run)

    def swap_store(
        self,
        target: str | Store,
        *,
        wait: timedelta | float = 30.0,
        on_run: Callable[[str, str], None] | None = None,
    ) -> Moved:
        """Move all runs into another store, as `migrate` does, while this engine goes on working: from now on with it.

        Calls of other threads find each run where it is, new runs begin in the target, and those that are driven get to
        park or end, and then move. When all have moved, the engine works with the target alone. Engines in other
        processes are told where their runs are, and go on once they are given the new URL.

        Args:
            target: a URL, or a store, which becomes this engine's: `close` closes it.
            wait: how long to wait for runs that somebody drives, timedelta or seconds.
            on_run: as for `migrate`.

        Returns:
            How many runs moved. As long as `kept` names any, the engine works with both stores, and the same call moves
            them.

        Raises:
            InvalidInputError: an argument is wrong, or this engine is moving to another store.
            StoreMisconfiguredError: one of the two can't be used, or has runs that can't be moved.
            StoreError: a store failed; the engine works with both, and the same call goes on.
        """
        from .migrating import Swap, tally, told

        self._ready()
        seconds = as_seconds(wait, "wait")
        swap = Swap(self._parts, self._sessions)
        with self._lock:
            both = swap.begin(target)
        going = swap.go(both, target if isinstance(target, str) else None, seconds)
        done = tally(told(going, on_run))
        if not done.kept:
            with self._lock:
                self._left.append(swap.end(both))
        return done

    def size(self) -> StoreSize:
        """How large the store is: runs by status, events, and bytes with those that are free."""
        self._ready()
        return self._parts.store.size()

    def vacuum(self) -> int:
        """Give the space that removed runs left back to the file system; how many bytes it takes less.

        Only SQLite has such space. A file's first time writes it anew as a whole, with as much space again for a while,
        and is refused while anybody drives a run; from then on it is done in short steps beside everything else.

        Raises:
            StoreUnavailableError: not now, since runs are being driven; retryable, nothing was changed.
        """
        self._ready()
        return self._parts.store.vacuum()

    def _check_ttl(self, name: str) -> None:
        if not any(one.name == name for one in self._parts.registry.with_ttl()):
            raise InvalidInputError(
                f"workflow {name!r} has no ttl in this engine, so nothing says what to remove: give older_than= or "
                "keep_last=, or make it with @workflow(ttl=...)"
            )
