"""Which slots are to be started at an instant."""

from __future__ import annotations

from datetime import datetime, timedelta

from .plan import MOST, Plan
from .slots import newest

__all__ = ["due_slots"]


def due_slots(plan: Plan, after: datetime, now: datetime) -> tuple[datetime, ...]:
    """The slots to start now, earliest first, of those after an instant: what is missed goes by the plan's policy.

    A slot is missed when it is later than the plan's grace; those that are not are all started.
    """
    fresh_after = max(after, now - timedelta(seconds=plan.grace))
    fresh = newest(plan, fresh_after, now, MOST)
    if plan.missed == "all":
        older = newest(plan, after, fresh_after, min(plan.at_most, MOST - len(fresh)))
        return (*older, *fresh)
    if plan.missed == "last" and not fresh:
        return tuple(newest(plan, after, now, 1))
    return tuple(fresh)
