"""Expenses: small ones are paid at once, others when somebody else has approved them, and not at all after a month."""

from __future__ import annotations

import os
from datetime import timedelta

from attrs import frozen

from stepwell import Engine, Flow, Signal, Step, Suspend, workflow

APPROVERS = {"grace", "heidi"}
AT_ONCE = 5_000  # cents


@frozen
class Verdict:
    approved: bool
    note: str = ""


review: Signal[Verdict] = Signal("expense-review", Verdict)


def pay(employee: str, cents: int) -> str:
    """Stands for a transfer."""
    return f"{cents / 100:.2f} paid to {employee}"


@workflow
def expense(employee: str, cents: int, purpose: str) -> Flow[str]:
    while cents > AT_ONCE:
        question = Suspend(
            review,
            reason=f"{employee} spent {cents / 100:.2f}",
            show={"employee": employee, "cents": cents, "purpose": purpose},
            timeout=timedelta(days=30),
            default=Verdict(False, "nobody has answered"),
        )
        decision = yield from question.decided()
        if decision.actor == employee:
            continue  # one's own expense: the question is asked again, under another wait id
        if not decision.value.approved:
            return f"refused by {decision.actor or 'nobody'}: {decision.value.note}"
        break
    return (yield from Step(pay, employee, cents))


engine = Engine(os.environ.get("STEPWELL_STORE", "sqlite:///expenses.db"), workflows=[expense])
