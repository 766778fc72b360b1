"""The part of an engine's facade that keeps its store in order: retention, sizes, space. Floor 4."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from .checks import checked_limit
from .errors import InvalidInputError
from .facade import Facade
from .upkeep import Pruned, StoreSize
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
