"""What all deploys have in common: the steps, how money is collected, and how an engine is made."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from metrics import count_charge, count_event

from stepwell import Engine, Flow, HistoryLimit, Signal, Spend, Step, StepInterrupted, Workflow

PRICE = 500  # cents for an issue
FEE = 15  # cents that the bank takes for a charge
BANK = Path("bank.txt")  # the bank's book, a line for each charge: no file of ours, if it were a bank

issue = Signal("issue", str)  # of a month, and it is out


def check_address(reader: str) -> str:
    return f"1, {reader} street"


def charge(reader: str, what: str, cents: int) -> None:
    """Ask the bank for money. It books whatever it is asked for: twice, when it is asked twice."""
    die_if_told("before", reader)
    with BANK.open("a", encoding="utf-8") as book:
        book.write(f"{reader} {what} {cents}\n")
    die_if_told("after", reader)


def ask_the_bank(reader: str, what: str) -> bool:
    """Whether it has booked that charge: a question, which may be asked any number of times."""
    print(f"  does the bank know of {what}, {reader}?", flush=True)
    return BANK.exists() and f"{reader} {what} " in BANK.read_text("utf-8")


def send(address: str, month: str) -> None:
    print(f"  the issue of {month} goes to {address}", flush=True)


def collect(reader: str, what: str, cents: int) -> Flow[None]:
    """Take money once. When the process dies in the call, nobody but the bank knows whether it was taken."""
    charging = Step(charge, reader, what, cents).options(at_most_once=True)
    try:
        yield charging
    except StepInterrupted:
        if not (yield from Step(ask_the_bank, reader, what)):
            yield charging  # a step of its own; when this one is interrupted too, the run fails, and people look at it
    yield Spend(FEE, "bank fee")


def open_engine(*workflows: Workflow[..., Any]) -> Engine:
    """The engine of a deploy. Nothing is opened before it is used.

    `strict_inputs`: code that would ask for another price than was paid is found. `history_limit`: a subscription has
    some twenty events, so one with a hundred is a mistake that loops, and is stopped.
    """
    return Engine(
        os.environ.get("STEPWELL_STORE", "sqlite:///magazine.db"),
        workflows,
        strict_inputs=True,
        history_limit=HistoryLimit(warn_events=50, max_events=int(os.environ.get("MAX_EVENTS", "100"))),
        on_event=count_event,
        meter=count_charge,
    )


def die_if_told(when: str, reader: str) -> None:
    """With DIE=before:bob or DIE=after:bob, end as `kill -9` does: before bob's charge is booked, or after it."""
    if os.environ.get("DIE") == f"{when}:{reader}":
        os.kill(os.getpid(), signal.SIGKILL)
