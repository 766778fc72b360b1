"""Travel: a trip of several bookings, each a run of its own; all are undone when one of them can't be had.

Bookings are lines in `bookings.txt`, so that one can see what is left of a trip that failed, or was killed.
"""

from __future__ import annotations

import os
from pathlib import Path

from stepwell import All, Child, Compensate, ContinueAsNew, Engine, Flow, Spend, Step, Suspend, current_step, workflow

BOOKINGS = Path("bookings.txt")
PRICES = {"flight": 310, "hotel": 120, "car": 80}


class SoldOut(Exception):
    """There is none left; no retry would help."""


def book(what: str, traveller: str) -> str:
    """Book once: the idempotency key is the same however often this is called for one booking."""
    if Path(f"no-{what}").exists():
        raise SoldOut(f"no {what} left")
    line = f"{current_step().idempotency_key[:8]} {what} {traveller}"
    booked = BOOKINGS.read_text("utf-8").splitlines() if BOOKINGS.exists() else []
    if line not in booked:
        with BOOKINGS.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    return line


def cancel_booking(line: str) -> None:
    """Cancel once: what is not there needs not be removed."""
    kept = [other for other in BOOKINGS.read_text("utf-8").splitlines() if other != line]
    BOOKINGS.write_text("".join(f"{other}\n" for other in kept), "utf-8")


@workflow
def booking(what: str, traveller: str) -> Flow[str]:
    """One booking, charged to the budget of the trip. A parent that fails later undoes it by its result."""
    yield Spend(PRICES[what], what)
    return (yield from Step(book, what, traveller))


def booked(what: str, traveller: str) -> Flow[str]:
    """A branch of a trip: book, and say how to undo it."""
    line = yield from Child(booking, what, traveller)
    yield Compensate(cancel_booking, line)
    return line


@workflow
def trip(traveller: str) -> Flow[list[str]]:
    flight = yield from booked("flight", traveller)
    hotel, car = yield All(booked("hotel", traveller), booked("car", traveller))
    return [flight, hotel, car]


@workflow
def desk(served: int) -> Flow[int]:
    """Take orders for ever: each starts a trip that lives by itself. The history stays short."""
    for _ in range(10):
        traveller = yield from Suspend("order", into=str, reason=f"served so far: {served}")
        if not traveller:
            return served
        if not traveller.isprintable() or len(traveller) > 40:
            continue  # no run could have such a name, and one bad order must not stop the desk
        yield Child(trip, traveller).options(detached=True, run_id=f"trip-{traveller}", budget=600)
        served += 1
    yield ContinueAsNew(served)
    return served


engine = Engine(os.environ.get("STEPWELL_STORE", "sqlite:///travel.db"), workflows=[trip, booking, desk])
