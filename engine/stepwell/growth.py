"""How far a history may grow before its run is stopped. Floor 4."""

from __future__ import annotations

from . import lifecycle as lc
from .limits import HistoryLimitError
from .loading import HistoryLimit, Parts
from .logs import logger
from .recorder import Recorder

__all__ = ["Growth"]

_NO_LIMIT = HistoryLimit(*[2**62] * 4)


class Growth:
    """Watches one history in one session.

    Args:
        parts: what the engine works with.
        run_id: the run.

    Attributes:
        events, size: where `check` has something to say; below it need not be called.
    """

    def __init__(self, parts: Parts, run_id: str) -> None:
        self._parts = parts
        self._run_id = run_id
        self._limit = parts.limit or _NO_LIMIT
        limit = self._limit
        self.events, self.size = min(limit.warn_events, limit.max_events), min(limit.warn_bytes, limit.max_bytes)

    def check(self, recorder: Recorder, *, cleaning: bool) -> None:
        """Refuse to perform what the history has no room for; a run that is cancelled may clean up.

        Raises:
            HistoryLimitError: it is as long as it may be.
        """
        limit, seq, size = self._limit, recorder.seq, recorder.size
        if cleaning or (seq < self.events and size < self.size):
            return
        if seq >= limit.max_events or size >= limit.max_bytes:
            raise HistoryLimitError(
                f"run {self._run_id!r} has {seq:,} events of {size:,} bytes, and the limit is {limit.max_events:,} "
                f"events or {limit.max_bytes:,} bytes; have the workflow yield ContinueAsNew from time to time, or "
                "raise the limit with Engine(history_limit=HistoryLimit(...))",
                run_id=self._run_id,
                events=seq,
                size=size,
            )
        at = (self._run_id, seq, size, limit.max_events, limit.max_bytes)
        logger.warning("run %r has %d events of %d bytes; at %d events or %d bytes it is blocked", *at)
        self._parts.tell(lc.HistoryGrows(self._run_id, seq, size))
        self.events, self.size = limit.max_events, limit.max_bytes
