"""The part of an engine's facade that answers questions about runs; it writes nothing. Floor 4."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from .checks import (
    checked_choice,
    checked_filter,
    checked_incarnation,
    checked_limit,
    checked_run_id,
    checked_signal,
    checked_text,
)
from .commands import Patched, Signal
from .errors import InvalidInputError
from .facade import Facade
from .outcomes import RunRecord, WaitingFor
from .retry import as_seconds
from .store import Status

if TYPE_CHECKING:
    from .differences import Diff
    from .histories import History
    from .run_streams import Position, RunStream, Until

__all__ = ["Asking"]


class Asking(Facade):
    """Records, pages, waits and histories."""

    def query(self, run_id: str) -> dict[str, Any]:
        """The state that `SetState` left, live or closed; writes nothing."""
        self._ready()
        return self._queries.state(checked_run_id(run_id))

    def get(self, run_id: str) -> RunRecord:
        """Everything that is known of a run, input and result as plain JSON shapes. NotFoundError."""
        self._ready()
        return self._queries.get(checked_run_id(run_id))

    def runs(
        self,
        *,
        status: Status | None = None,
        workflow: str | None = None,
        tag: tuple[str, str | None] | str | None = None,
        waiting_for: Signal[Any] | str | None = None,
        blocked: bool | None = None,
        version: str | None = None,
        closed: bool | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> list[RunRecord]:
        """A page of runs, newest first, without payloads; None of a filter means any.

        Args:
            tag: (name, value), or the name alone.
            version: of the workflow: `runs(version="1", closed=False)` is empty when the code of version 1 can go.
            closed: False leaves out what is completed, failed or cancelled.
            limit: length of the page, 1 to 10,000.
            after: the last run id of the page before.
        """
        self._ready()
        checked_limit(limit, 10_000)
        where = checked_filter(status, workflow, tag, waiting_for, blocked, version, closed)
        return self._queries.runs(where, limit, checked_text("after", after))

    def unpatched(self, change_id: str, *, workflow: str | None = None) -> list[RunRecord]:
        """The open runs that go the old way at `Patched(change_id)`, newest first; when there are none it can go.

        To be asked with code that still has the Patched: each open run is folded, and one that has not come to it is
        not listed, for it will have the change. A run whose code is not at hand or does not fit, or whose workflow
        holds the id in none of its versions, is listed unless its history says that it has the change.

        Args:
            change_id: as the code has it.
            workflow: only runs of this workflow; of any when None.
        """
        from .patches import find_unpatched  # late: asked once in the life of a change

        self._ready()
        asked = Patched(change_id).change_id  # which says what is wrong with it
        return find_unpatched(self._parts, asked, checked_text("workflow", workflow))

    def waiting(
        self, signal: Signal[Any] | str | None = None, *, limit: int | None = None, after: str | None = None
    ) -> list[WaitingFor]:
        """What open runs wait for: which question, since when, for what reason, with what to show, by which wait id.

        Runs that are driven at this moment are left out. Each run costs a small read of its own, so ask for pages
        where many may wait; with a `signal`, stores with an index look at the runs of the page only.

        Args:
            signal: only waits for this one.
            limit: a page of so many runs, 1 to 10,000, newest run first; None gives all waits, the oldest wait first.
            after: with a limit, the last run id of the page before.
        """
        self._ready()
        if limit is not None:
            checked_limit(limit, 10_000)
        elif after is not None:
            raise InvalidInputError("after is for pages: give a limit too")
        name = None if signal is None else checked_signal(signal).name
        return self._queries.waiting(name, limit, checked_text("after", after))

    def history(self, run_id: str, *, incarnation: int | None = None) -> History:
        """The recorded events of a run, with look-ups; of its current incarnation when None. NotFoundError."""
        self._ready()
        return self._queries.history(checked_run_id(run_id), checked_incarnation(incarnation))

    def stream(
        self,
        run_id: str,
        *,
        after: Position | None = None,
        timeout: timedelta | float | None = None,
        until: Until = "done",
    ) -> RunStream:
        """Read a run as it goes: an iterator of typed events (module `stepwell.streaming`), and a context manager.

        It begins with what is recorded, in order and each once, wherever the run is driven, and ends with `Done` when
        the run is closed. Chunks of a Stream without `record_chunks`, and that attempts begin, are given live to those
        who read in the engine that drives the run. A reader never keeps a run waiting: of what is live it may leave
        1,000 events unread, then the oldest are dropped, and `Lagged` says how many. While the run is parked the
        iterator waits, after `StatusChanged`; when it is retried or reset, the iterator goes on with that. Any number
        of iterators may read a run, each in one thread; closing the engine ends them.

        Args:
            after: give what comes after this event: its seq in the current incarnation, or its `position`; all of the
                current incarnation when None.
            timeout: longest wait for the next event, timedelta or seconds; then the iterator ends. None waits for ever.
            until: "parked" also ends it when the run is suspended, paused or blocked, after `StatusChanged`.

        Raises:
            NotFoundError: no such run. Raised by the iterator: it was deleted meanwhile.
            InvalidInputError: `after` is no event of the run, or an argument is wrong.
        """
        from .run_streams import RunStream  # few programs read runs as they go

        checked_choice("until", until, ("done", "parked"))
        seconds = None if timeout is None else as_seconds(timeout, "timeout")
        return RunStream(self._parts, self._sessions, self._ready, checked_run_id(run_id), after, seconds, until)

    def diff(self, a: str, b: str, *, incarnation_a: int | None = None, incarnation_b: int | None = None) -> Diff:
        """Compare the histories of two runs: where they part, and how. Writes nothing, and needs no workflow's code.

        Args:
            a, b: run ids; they may be the same, for two incarnations of one run.
            incarnation_a, incarnation_b: which incarnation of each; the current one when None.

        Raises:
            NotFoundError: no such run or incarnation.
        """
        self._ready()
        return self._queries.diff(
            (checked_run_id(a), checked_incarnation(incarnation_a)),
            (checked_run_id(b), checked_incarnation(incarnation_b)),
        )
