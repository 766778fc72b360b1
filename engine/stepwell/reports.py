"""What a session tells the listener of the events that it has written. Floor 4."""

from __future__ import annotations

from . import events as e
from . import lifecycle as lc
from .flights import Flights
from .loading import Parts
from .machine import Machine

__all__ = ["Reports"]

_NEAR = 0.9
"""The share of its budget at which a run is told to be near its end."""


class Reports:
    """Tells of recorded events, once each.

    Args:
        parts: what the engine works with.
        run_id: the run.
        flights: knows what the record of a step doesn't tell.

    Attributes:
        dropped: step ids of steps that are cancelled, by `at`.
        spent: what the run has spent, as far as it is on disk.
    """

    def __init__(self, parts: Parts, run_id: str, flights: Flights, spent: float) -> None:
        self.dropped: dict[str, str] = {}
        self._parts = parts
        self._run_id = run_id
        self._flights = flights
        self.spent = spent

    def tell_of(self, event: e.EventBase, machine: Machine) -> None:
        """Tell that an event is recorded, which the machine may not have been fed yet."""
        parts, run_id = self._parts, self._run_id
        if isinstance(event, (e.Step, e.Attempt)):
            self._flights.tell_of(event)
        elif isinstance(event, e.Wake):
            parts.tell(lc.TimerFired(run_id, event.at))
        elif isinstance(event, e.Emit):
            parts.tell(lc.ValueEmitted(run_id, parts.codec.decode(event.value), event.topic))
        elif isinstance(event, e.Cancelled) and event.at is not None:
            step_id = self._flights.stopped.pop(event.at, "") or self.dropped.pop(event.at, "")
            parts.tell(lc.StepDropped(run_id, step_id, event.at))
        elif isinstance(event, e.Spend):
            self._tell_of_charge(event, machine.budget)
        elif isinstance(event, e.Child):
            parts.tell(lc.ChildStarted(run_id, event.child_id, event.workflow, event.at))
        elif isinstance(event, e.ChildResult):
            known = machine.charged.get(event.child_id, event.spent)  # of a detached one, nothing is charged
            self.spent += max(0, event.spent - known)  # one that is retried ends again, and has spent more
            parts.tell(lc.ChildEnded(run_id, event.child_id, event.status, event.at))

    def _tell_of_charge(self, event: e.Spend, budget: float | None) -> None:
        tell, run_id, before = self._parts.tell, self._run_id, self.spent
        self.spent = spent = before + event.amount
        tell(lc.BudgetSpent(run_id, event.amount, event.label, spent, None if budget is None else budget - spent))
        if budget is None or before > budget:
            return
        if spent > budget:
            tell(lc.BudgetExceeded(run_id, spent, budget))
        elif before < _NEAR * budget <= spent:
            tell(lc.BudgetNears(run_id, spent, budget))
