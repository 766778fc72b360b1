"""The workflows of `stepwell demo`, and their engine: `--app stepwell.demo:engine`. Floor 5.

Two workflows, as any program may have them: `triage` waits for a human, `send_replies` is a batch that nobody wants
repeated. The command line runs them in processes of their own, and kills one. The rules in `classify` stand in for a
model.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from pathlib import Path

from attrs import frozen

from . import lifecycle as lc
from .codec import Codec
from .commands import Flow, Signal, Step, Suspend
from .engine import Engine
from .errors import CodecError
from .outcomes import RunSuspended
from .performers import current_step
from .workflows import workflow

__all__ = [
    "CUSTOMERS",
    "TICKETS",
    "Classification",
    "Ticket",
    "Verdict",
    "engine",
    "main",
    "review",
    "send_replies",
    "triage",
]


@frozen
class Ticket:
    """A support ticket."""

    id: str
    customer: str
    body: str


@frozen
class Classification:
    """What a ticket is about, and how much it hurts: severity 1 to 5."""

    topic: str
    severity: int


@frozen
class Verdict:
    """What a human decides."""

    approved: bool
    reviewer: str


review: Signal[Verdict] = Signal("manual-review", Verdict)

_RULES = {"charged twice": ("billing", 5), "crash": ("bug", 3), "ログイン": ("account", 2)}


def classify(ticket: Ticket) -> Classification:
    """Find out what a ticket is about. Slow, as a model would be."""
    time.sleep(0.2)
    found = [rule for words, rule in _RULES.items() if words in ticket.body]
    return Classification(*found[0]) if found else Classification("question", 1)


def draft(ticket: Ticket, found: Classification) -> str:
    """Write the answer."""
    return f"Dear {ticket.customer}, thank you for writing to us about your {found.topic}."


@workflow
def triage(ticket: Ticket) -> Flow[str]:
    """Classify a ticket, ask a human when it is severe, and draft the answer."""
    found = yield from Step(classify, ticket)
    if found.severity >= 4:
        verdict = yield from Suspend(review, reason=f"severity {found.severity}, {found.topic}: may we answer?")
        if not verdict.approved:
            return f"rejected by {verdict.reviewer}"
    return (yield from Step(draft, ticket, found))


CUSTOMERS = ("Ada", "Björn", "Chidi", "Dilnoza", "Emeka", "文子", "Gül", "Hoa")
_BIG = "Emeka"  # has a large attachment, which leaves time to be killed in


def send_reply(customer: str, log: str) -> str:
    """Send a reply that nobody wants to get twice; each execution leaves a line in `log`."""
    context = current_step()
    line = json.dumps({"run": context.run_id, "step": context.step_id, "pid": os.getpid()})
    with Path(log).open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    time.sleep(0.7 if customer == _BIG else 0.1)
    return f"sent to {customer}"


@workflow
def send_replies(log: str) -> Flow[int]:
    """Send a reply to every customer, one step each."""
    for customer in CUSTOMERS:
        yield Step(send_reply, customer, log).options(name=f"reply to {customer}")
    return len(CUSTOMERS)


def narrate(event: lc.LifecycleEvent) -> None:
    """Tell on stderr what an engine does."""
    match event:
        case lc.StepReplayed():
            print(f"{event.run_id}  {event.step_id}: answered from history", file=sys.stderr)
        case lc.StepCompleted():
            print(f"{event.run_id}  {event.step_id}: ran, {event.seconds:.2f} s", file=sys.stderr)


engine = Engine(
    os.environ.get("STEPWELL_STORE") or "sqlite:///stepwell-demo.db",
    workflows=[triage, send_replies],
    on_event=narrate,
    lease=2,  # on a server, the killed process's run is free only when its lease is over
)

TICKETS = [
    {"id": "T-1", "customer": "Zoë", "body": "The app will crash when I paste a 🦊."},
    {"id": "T-2", "customer": "佐藤", "body": "ログインできません。" * 200},
    {"id": "T-3", "customer": "Ms. Okafor", "body": "I was charged twice, and nobody answers!"},
    {"id": "T-4", "customer": "Null", "body": 404},
]


def _name(entry: object) -> str:
    return repr(entry.get("id")) if isinstance(entry, dict) else type(entry).__name__


def main() -> int:
    """Start one `triage` run for each ticket of a file; one that is no ticket is told of, and the others go on."""
    parser = argparse.ArgumentParser(prog="python -m stepwell.demo", description=main.__doc__)
    parser.add_argument("file", metavar="FILE", help="a JSON list of tickets")
    parser.add_argument("--prefix", default="", help="what the run ids begin with")
    options = parser.parse_args()
    with engine:
        for number, entry in enumerate(json.loads(Path(options.file).read_text("utf-8")), 1):
            try:
                ticket = Codec().decode(json.dumps(entry).encode(), Ticket)
            except CodecError as error:
                print(f"{options.file}: ticket {number} ({_name(entry)}) is malformed and left out: {error.message}")
                continue
            outcome = engine.start(
                triage, ticket, run_id=options.prefix + ticket.id, tags={"customer": ticket.customer}
            )
            waits = f", waits for a human: {outcome.reason}" if isinstance(outcome, RunSuspended) else ""
            print(f"{outcome.run_id}  {outcome.status}{waits}")
    return 0


if __name__ == "__main__":
    # By its own name, so that failures are recorded as of stepwell.demo and not of __main__.
    sys.exit(importlib.import_module("stepwell.demo").main())
