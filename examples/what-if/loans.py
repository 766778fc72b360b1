"""Loans: scored by a model, decided by a rule or a person, and paid out.

The score is a step, so it is recorded; and what is recorded can be replaced in a fork: see what_if.py.
"""

from __future__ import annotations

import os

from attrs import frozen

from stepwell import Engine, Flow, Signal, Step, Suspend, workflow


@frozen
class Score:
    points: int  # 0 to 100
    why: str


@frozen
class Decision:
    granted: bool
    by: str


decision: Signal[Decision] = Signal("decision", Decision)


def score(name: str, amount: int) -> Score:
    """Stands in for a model, whose answers nobody can foresee and everybody asks about."""
    points = max(0, 100 - amount // 500)
    return Score(points, f"{amount} for {name}")


def pay_out(name: str, amount: int) -> str:
    print(f"  [{os.getpid()}] {amount} is paid to {name}", flush=True)
    return f"{amount} paid to {name}"


def decline(name: str, why: str) -> str:
    print(f"  [{os.getpid()}] {name} is told: {why}", flush=True)
    return f"declined: {why}"


@workflow
def loan(name: str, amount: int) -> Flow[str]:
    found = yield from Step(score, name, amount)
    if found.points < 30:
        return (yield from Step(decline, name, f"only {found.points} points"))
    if found.points < 70:
        decided = yield from Suspend(decision, reason=f"{found.points} points: {found.why}")
        if not decided.granted:
            return (yield from Step(decline, name, f"decided by {decided.by}"))
    return (yield from Step(pay_out, name, amount))


# Nothing is opened before the engine is used. `stepwell --app loans:engine` works with it too.
engine = Engine(os.environ.get("STEPWELL_STORE", "sqlite:///loans.db"), workflows=[loan])
