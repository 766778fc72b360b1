"""Support tickets: classified by a slow step, shown to a human when severe, answered with a draft.

A workflow is a generator. It yields what it wants done, and stepwell does it and writes down what came of it; so a run
can stop in the middle, for a second or a month, and go on in another process without doing anything twice.
"""

from __future__ import annotations

import os
import time

from attrs import frozen

from stepwell import Engine, Flow, Signal, Step, Suspend, workflow


@frozen
class Ticket:
    id: str
    customer: str
    subject: str
    body: str


@frozen
class Classification:
    topic: str
    severity: int  # 1 to 5


@frozen
class Verdict:
    approved: bool
    reviewer: str
    note: str = ""


review: Signal[Verdict] = Signal("manual-review", Verdict)

# (words, topic, severity): what stands in for a language model. The first rule that fits wins.
RULES = [
    ("all our data", "data loss", 5),
    ("charged twice", "billing", 4),
    ("crash", "bug", 3),
    ("パスワード", "account", 2),
]


def classify(ticket: Ticket) -> Classification:
    """Steps are plain functions: they may take long, fail, and touch the world."""
    print(f"  [{os.getpid()}] classify {ticket.id} ({len(ticket.body):,} characters) ...", flush=True)
    time.sleep(0.3)
    text = f"{ticket.subject}\n{ticket.body}".lower()
    for words, topic, severity in RULES:
        if words in text:
            return Classification(topic, severity)
    return Classification("question", 1)


def draft(ticket: Ticket, found: Classification, note: str) -> str:
    print(f"  [{os.getpid()}] draft an answer to {ticket.id}", flush=True)
    lines = [
        f"Dear {ticket.customer},",
        f"thank you for writing to us about “{ticket.subject}”. We look into the {found.topic} at once.",
        *([note] if note else []),
    ]
    return "\n".join(lines)


@workflow
def triage(ticket: Ticket) -> Flow[str]:
    found = yield from Step(classify, ticket)
    note = ""
    if found.severity >= 4:
        verdict = yield from Suspend(review, reason=f"severity {found.severity}: {found.topic}")
        if not verdict.approved:
            return f"rejected by {verdict.reviewer}"
        note = verdict.note
    return (yield from Step(draft, ticket, found, note))


# Nothing is opened before the engine is used. `stepwell --app workflow:engine` works with it too.
engine = Engine(os.environ.get("STEPWELL_STORE", "sqlite:///triage.db"), workflows=[triage])
