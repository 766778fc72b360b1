"""What a thread does after it has driven a run: the children and the parent that it made runnable. Floor 4."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias

from .errors import StepwellError
from .loading import Parts
from .logs import logger
from .outcomes import Outcome, RunSuspended
from .reading import outcome_of_head
from .registry import known_workflow
from .session import PASSING, Session
from .store import Lease

__all__ = ["Began", "Errands"]

Began: TypeAlias = Callable[[Session], None]
"""Is given a session before it drives."""


class Errands:
    """Drives runs that are waiting to be driven, one after the other, in the calling thread.

    Args:
        parts: what the engine works with.
        take: drives the run of a lease.
    """

    def __init__(self, parts: Parts, take: Callable[..., Outcome[Any]]) -> None:
        self._parts = parts
        self._take = take
        self._thread = threading.local()  # `agenda`: what the outermost call in a thread is to drive

    def run(
        self,
        run_id: str,
        outcome: Outcome[Any],
        agenda: list[str],
        began: Began | None,
        contained: type[BaseException] | None,
    ) -> Outcome[Any]:
        """Drive what a run has made runnable: children, a parent, and in the end perhaps the run again; its outcome.

        All in this thread, one after the other; what is found on the way is done by the outermost call.
        """
        waiting: deque[str] | None = getattr(self._thread, "agenda", None)
        if waiting is not None:
            waiting.extend(agenda)
            return outcome
        self._thread.agenda = waiting = deque(agenda)
        try:
            while waiting:
                next_id = waiting.popleft()
                if next_id in waiting:
                    continue  # once, for all that it was told
                found = self.drive(next_id, began, contained, raises=next_id == run_id)
                outcome = found if found is not None and next_id == run_id else outcome
                due = outcome.due if isinstance(outcome, RunSuspended) and not waiting else None
                if due is not None and (due - self._parts.now()).total_seconds() <= self._parts.park_after:
                    waiting.append(run_id)  # it would have waited for that, had there been nothing else to do
        finally:
            self._thread.agenda = None
        return outcome

    def drive(
        self,
        run_id: str,
        began: Began | None = None,
        contained: type[BaseException] | None = Exception,
        *,
        raises: bool = False,
    ) -> Outcome[Any] | None:
        """Drive a child or a parent, unless somebody else does.

        Args:
            raises: it is the run of the caller; what is wrong with others is logged, and met again by whoever drives
                them next.
        """
        try:
            claimed = self._parts.store.claim(run_id, self._parts.owner, self._parts.ttl)
            if isinstance(claimed, Lease):
                return self._take(claimed, began, contained=contained)
            if claimed is not None:
                return outcome_of_head(
                    self._parts.codec, self._parts.store, claimed, known_workflow(self._parts.registry, claimed)
                )
        except (StepwellError, *PASSING) as error:
            if raises:
                raise
            logger.warning("run %r could not be driven: %s", run_id, error)
        except Exception:
            if raises:
                raise
            logger.exception("run %r could not be driven", run_id)
        return None
