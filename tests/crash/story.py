"""The program that the crash harness kills: a workflow of ten steps with branches, a retry, a timer and two signals.

Every step tells the witness that it runs, before it does anything else, so that a repeat is seen whatever the store
says. What the workflow returns follows from what it was given and from what was recorded, so that the end of every run
is known beforehand. A second one, of three steps, is cancelled, or it fails for good and is retried.
"""

from __future__ import annotations

from typing import Any

from tests.crash.witness import Witness

from stepwell import (
    All,
    Cancelled,
    Engine,
    Flow,
    Now,
    Random,
    RetryPolicy,
    Sleep,
    Step,
    Suspend,
    Uuid,
    current_step,
    workflow,
)
from stepwell.outcomes import Outcome, RunFailed, RunSuspended

__all__ = ["RESULT", "STEPS", "TRIP", "drive", "drive_trip", "make_order", "make_trip"]

STEPS = ("reserve", "price", "flaky", "left1", "left2", "right1", "right2", "charge", "ship", "mail")
"""Names of the ten steps; each is its step id too."""

RESULT = [
    "reserve",
    "price",
    "flaky",
    ["left1", "left2"],
    ["right1", "right2"],
    "yes",
    "charge",
    "ship",
    "soon",
    "mail",
]
"""What the workflow comes to."""

TRIP = ["book", "go", "pay"]
"""What the second workflow comes to when nobody cancels it."""

_AT_ONCE = RetryPolicy(attempts=3, initial=0)


def make_order(witness: Witness) -> Any:
    """The workflow, with steps that tell this witness."""

    def effect(name: str) -> str:
        here = current_step()
        witness.effect(here.run_id, here.step_id, here.attempt, here.idempotency_key)
        if name == "flaky" and here.attempt == 1:
            raise ConnectionError("the line is down")
        return name

    def do(name: str) -> Step[str]:
        return Step(effect, name).options(name=name, retry=_AT_ONCE)

    def branch(name: str) -> Flow[list[str]]:
        first = yield from do(f"{name}1")
        return [first, (yield from do(f"{name}2"))]

    @workflow
    def order() -> Flow[list[Any]]:
        yield Now()
        seen: list[Any] = [(yield from do("reserve")), (yield from do("price"))]
        yield Random()
        yield Uuid()
        seen.append((yield from do("flaky")))
        seen += [list(pair) for pair in (yield All(branch("left"), branch("right")))]
        seen.append((yield from Suspend("approve", into=str, reason="may it go out?")))
        seen.append((yield from do("charge")))
        yield Sleep(0)
        seen.append((yield from do("ship")))
        seen.append((yield from Suspend("when", into=str)))
        seen.append((yield from do("mail")))
        return seen

    return order


def drive(engine: Engine, order: Any, witness: Witness, run_id: str = "r") -> Outcome[Any]:
    """Start the run or go on with it, and give it its signals, until it has ended. What an impatient user does."""
    outcome = engine.start(order, run_id=run_id)
    for name, value in (("approve", "yes"), ("when", "soon")):
        if isinstance(outcome, RunSuspended) and outcome.waiting_for == (name,):
            if name == "approve":  # the next one is sent early, from outside, and kept until it is asked for
                engine.signal(run_id, "when", "soon", id="when")
                witness.signal(run_id, "when")
            outcome = engine.resume(run_id, name, value, id=name)
            witness.signal(run_id, name)
    return outcome


def make_trip(witness: Witness, mended: list[bool]) -> Any:
    """The workflow that is cancelled or fails: `pay` raises as long as `mended` holds a False."""

    def effect(name: str) -> str:
        here = current_step()
        witness.effect(here.run_id, here.step_id, here.attempt, here.idempotency_key)
        if name == "pay" and not all(mended):
            raise ValueError("the card is declined")
        return name

    def do(name: str) -> Step[str]:
        return Step(effect, name).options(name=name)

    @workflow
    def trip() -> Flow[list[str]]:
        seen = [(yield from do("book"))]
        try:
            seen.append((yield from Suspend("go", into=str)))
        except Cancelled:
            yield from do("unbook")
            raise
        seen.append((yield from do("pay")))
        return seen

    return trip


def drive_trip(
    engine: Engine, trip: Any, witness: Witness, mended: list[bool], *, cancel: bool, run_id: str = "r"
) -> Outcome[Any]:
    """Start the run or go on with it until it has ended: cancelled while it waits, or failed, mended and retried."""
    outcome = engine.start(trip, run_id=run_id)
    if isinstance(outcome, RunSuspended):
        if cancel:
            return engine.cancel(run_id, "not today")
        outcome = engine.resume(run_id, "go", "go", id="go")
        witness.signal(run_id, "go")
    if isinstance(outcome, RunFailed):
        mended[:] = [True]
        witness.reopen(run_id)
        outcome = engine.retry(run_id)
    return outcome
