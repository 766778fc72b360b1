"""What can be asked of runs; nothing here writes. Floor 4."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from . import events as e
from .deciding import show_of
from .errors import NotFoundError
from .loading import Parts, load, read_history
from .outcomes import Outcome, RunRecord, WaitingFor
from .reading import newest_event, outcome_of_head, record_of, waits_of_head
from .registry import known_workflow
from .session import POLL
from .store import HeadFilter, RunHead

if TYPE_CHECKING:
    from .differences import Diff
    from .histories import History

__all__ = ["Queries"]


class Queries:
    """Reads runs.

    Args:
        parts: what the engine works with.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    def head(self, run_id: str) -> RunHead:
        """The run's head.

        Raises:
            NotFoundError: no such run.
        """
        head = self.parts.store.head(run_id)
        if head is None:
            raise NotFoundError(f"no run {run_id!r}", run_id=run_id)
        return head

    def get(self, run_id: str) -> RunRecord:
        """The whole record of a run, payloads as plain JSON shapes."""
        head, codec = self.head(run_id), self.parts.codec
        record = record_of(head)
        start = next(read_history(self.parts.store, run_id, incarnation=head.incarnation))
        if isinstance(start, e.Start):
            parent = start.parent["runId"] if start.parent is not None else None
            record = replace(record, input=codec.decode(start.input), budget=start.budget, parent=parent)
        if not head.closed:
            return replace(record, spent=self._spent(head))
        last = newest_event(self.parts.store, head)
        if isinstance(last, e.CLOSING):
            record = replace(record, spent=last.spent)
        if isinstance(last, e.Complete):
            record = replace(record, result=codec.decode(last.result))
        elif isinstance(last, e.Error):
            record = replace(record, failure=last.error)
        return record

    def _spent(self, head: RunHead) -> float:
        """What an open run has spent, as its history tells, without its code."""
        spent: float = 0
        charged: dict[str, float] = {}
        for event in read_history(self.parts.store, head.run_id, incarnation=head.incarnation):
            if isinstance(event, (e.Start, e.Retry)):
                spent += event.spent
            elif isinstance(event, e.Spend):
                spent += event.amount
            elif isinstance(event, e.ChildResult):
                known = charged.get(event.child_id, 0)
                spent += max(0, event.spent - known)
                charged[event.child_id] = max(event.spent, known)
        return spent

    def runs(self, where: HeadFilter, limit: int, after: str | None) -> list[RunRecord]:
        """A page of records, newest first."""
        return [record_of(head) for head in self.parts.store.heads(where, limit=limit, after=after)]

    def waiting(self, signal: str | None, limit: int | None, after: str | None) -> list[WaitingFor]:
        """The waits of open runs that nobody drives now: all, oldest first, or those of so many runs, newest first."""
        where = HeadFilter(waiting_for=signal) if signal is not None else HeadFilter()
        found: list[WaitingFor] = []
        runs, size = 0, 500 if limit is None else min(500, limit)
        while page := self.parts.store.heads(where, limit=size, after=after):
            for head in page:
                waits = [] if head.closed else waits_of_head(head, signal)
                found += self._shown(head, waits)
                runs += bool(waits)
                if runs == limit:
                    return found
            after = page[-1].run_id
        return found if limit is not None else sorted(found, key=lambda w: (w.since, w.run_id))

    def _shown(self, head: RunHead, waits: list[WaitingFor]) -> list[WaitingFor]:
        """Waits with what their questions show, which their histories hold; none of a run that is gone meanwhile."""
        try:
            shown = [show_of(self.parts, head.run_id, head.incarnation, head.seq, one.wait) for one in waits]
        except NotFoundError:
            return []
        return [replace(one, show=show) for one, show in zip(waits, shown, strict=True)]

    def history(self, run_id: str, incarnation: int | None) -> History:
        """Every event."""
        from .histories import History  # most programs read none

        events = read_history(self.parts.store, run_id, incarnation=incarnation)
        return History(events, run_id=run_id, codec=self.parts.codec)

    def diff(self, a: tuple[str, int | None], b: tuple[str, int | None]) -> Diff:
        """Two histories, each of a run id and an incarnation."""
        from .differences import diff

        one, other = (self.history(*which) for which in (a, b))
        names = [one.run_id, other.run_id]
        if a[0] == b[0] or a[1] is not None or b[1] is not None:
            names = [f"{history.run_id}, incarnation {history.incarnation}" for history in (one, other)]
        return diff(one, other, names=(names[0], names[1]))

    def state(self, run_id: str) -> dict[str, Any]:
        """What SetState left: of a closed run as it was recorded, of an open one as its history makes it."""
        head, codec = self.head(run_id), self.parts.codec
        if head.closed:
            state: Any = getattr(newest_event(self.parts.store, head), "state", e.UNSET)
            found: dict[str, Any] = codec.decode(state) if state is not e.UNSET else {}
            return found
        run = load(self.parts, run_id)
        try:
            return {name: codec.decode(raw) for name, raw in run.machine.state.items()}
        finally:
            self.parts.parked.keep(run)

    def outcome(self, head: RunHead) -> Outcome[Any]:
        """How a run stands."""
        return outcome_of_head(self.parts.codec, self.parts.store, head, known_workflow(self.parts.registry, head))

    def wait(self, run_id: str, timeout: float | None) -> Outcome[Any]:
        """Block until the run is closed, parked or blocked, or the seconds are over, by the clock or in fact."""
        deadline = None if timeout is None else self.parts.now() + timedelta(seconds=timeout)
        waited = 0.0  # a clock that stands still must not make this endless
        while True:
            head = self.head(run_id)
            now = e.micros(self.parts.now())
            free, due = head.lease_until is None, head.head.due
            parked = head.head.status in ("suspended", "paused") and not (due is not None and due <= now)
            if head.closed or (free and (parked or head.head.blocked is not None)):
                return self.outcome(head)
            left = POLL
            if timeout is not None and deadline is not None:
                left = min(POLL, (deadline - self.parts.now()).total_seconds(), timeout - waited)
            if left <= 0:
                return self.outcome(head)
            if not self.parts.store.wait(run_id, head.seq, left):
                waited += left
