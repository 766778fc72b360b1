"""Carts: one run for each customer, started by its first message, and tried again when the till is closed.

Nobody creates a cart. Each message says which run it is for and how that run is started, if it is the first.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from attrs import frozen

from stepwell import Engine, Flow, RetryPolicy, Signal, Step, Suspend, durable, workflow


@frozen
class Message:
    item: str = ""
    count: int = 0  # 0: that is all, check out


messages = Signal("message", Message)
TILL = Path("till-is-closed")  # make this file, and no cart can be paid


def pay(owner: str, items: dict[str, int]) -> str:
    """Steps are plain functions: they may fail."""
    if TILL.exists():
        raise ConnectionError("the till is closed")
    return f"{owner} paid for " + ", ".join(f"{count} {item}" for item, count in sorted(items.items()))


def report(paid: int) -> str:
    """A single call that is worth recording needs no workflow of its own: see report_paid.py."""
    return f"{paid} carts were paid"


# Once a second, for as long as an hour; a real shop would begin with minutes.
PATIENT = RetryPolicy(3600, initial=timedelta(seconds=1), factor=1, jitter=0, on=ConnectionError)


@workflow(restart=PATIENT)
def cart(owner: str) -> Flow[str]:
    items: dict[str, int] = {}
    while (message := (yield from Suspend(messages))).count:
        items[message.item] = items.get(message.item, 0) + message.count
    return (yield from Step(pay, owner, items))


# Nothing is opened before the engine is used. A run is parked at once when it has to wait for the till.
engine = Engine(os.environ.get("STEPWELL_STORE", "sqlite:///carts.db"), workflows=[cart, durable(report)], park_after=0)
