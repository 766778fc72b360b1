"""What makes sense of a race: one winner, the policy's answer for everybody else, each step performed once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from attrs import frozen
from tests.crash.racers import SIZE

from stepwell.store import Envelope, RunHead

OPEN = {"join": {"Running", "RunCompleted"}, "error": {"ConflictError"}}
"""What those who come to an open run may be told; "restart" is judged by itself."""

CLOSED = {"return": {"RunCompleted"}, "retry_failed": {"RunCompleted"}, "error": {"ConflictError"}}
"""What those who come to a run that is completed may be told."""

STEPS = ("first", "second")
"""What the workflows of the racers perform."""


@frozen
class Seen:
    """What one round came to.

    Attributes:
        orders: what each process was told to do.
        answers: what each got.
        effects: (process, step, key) of every step that was performed.
        head: the run's, afterwards.
        histories: its incarnations.
        fence: its newest session before the round.
    """

    run_id: str
    orders: list[dict[str, Any]]
    answers: list[dict[str, Any]]
    effects: list[tuple[int, str, str]]
    head: RunHead | None
    histories: list[list[Envelope]]
    fence: int

    @property
    def names(self) -> list[str]:
        return [answer["name"] for answer in self.answers]

    def count(self, *names: str) -> int:
        """How many got one of these answers."""
        return sum(name in names for name in self.names)

    def only(self, *names: str) -> Iterator[str]:
        """Violations: answers other than these."""
        for answer in self.answers:
            if answer["name"] not in names:
                yield f"told {answer}, and only {names} make sense"

    def once(self, *steps: str) -> Iterator[str]:
        """Violations: these steps, and no others, were performed once each, all by one process."""
        performed = Counter(step for _, step, _ in self.effects)
        if performed != Counter(steps):
            yield f"performed {dict(performed)}, instead of {steps} once each"
        if len({n for n, _, _ in self.effects}) > 1:
            yield f"several processes performed steps: {self.effects}"

    def stands(self, incarnations: int = 1, status: str = "completed") -> Iterator[str]:
        """Violations: so many histories, each with one start, which comes first."""
        if self.head is None or self.head.head.status != status:
            yield f"it is {self.head and self.head.head.status}, not {status}"
        if len(self.histories) != incarnations:
            yield f"it has {len(self.histories)} incarnations, not {incarnations}"
        for number, lines in enumerate(self.histories):
            starts = [line.offset for line in lines if line.type == "start"]
            if starts != [0]:
                yield f"incarnation {number} has starts at {starts}"

    def results(self) -> Iterator[str]:
        """Violations: all who got a result got the recorded one."""
        results = {json.dumps(answer["result"]) for answer in self.answers if answer["name"] == "RunCompleted"}
        if len(results) > 1:
            yield f"several results: {results}"


def judge_start(seen: Seen) -> Iterator[str]:
    """One winner, and the policy's answer for the others."""
    if_open, if_closed = seen.orders[0]["if_open"], seen.orders[0]["if_closed"]
    yield from seen.only("RunCompleted", *OPEN[if_open], *CLOSED[if_closed])
    if if_open == if_closed == "error" and seen.count("ConflictError") != SIZE - 1:
        yield f"{seen.count('ConflictError')} were refused, not {SIZE - 1}"
    if not seen.count("RunCompleted"):
        yield "nobody won"
    yield from seen.once(*STEPS)
    yield from seen.stands()
    yield from seen.results()


def judge_restart(seen: Seen) -> Iterator[str]:
    """Each incarnation has one owner, who performs each step at most once; the last one is completed."""
    # Who is restarted by another in the middle of it is told so.
    yield from seen.only("RunCompleted", "Running", "RunCancelled", "ConflictError", "LeaseLostError")
    opened = len(seen.histories)
    if opened > SIZE:
        yield f"{SIZE} processes opened {opened} incarnations"
    again = [step for step, times in Counter((s, key) for _, s, key in seen.effects).items() if times > 1]
    if again:
        yield f"steps of one incarnation were performed again: {again}"
    owners: dict[str, set[int]] = {}
    for n, step, key in seen.effects:
        owners.setdefault(f"{step}{key}", set()).add(n)
    if any(len(those) > 1 for those in owners.values()):
        yield f"several processes performed one incarnation: {owners}"
    yield from seen.stands(opened)
    if any(not lines or lines[-1].then != "closed" for lines in seen.histories):
        yield "an incarnation is not closed"


def judge_other_input(seen: Seen) -> Iterator[str]:
    """One input wins; who gave the other one is refused."""
    start = seen.histories[0][0].body if seen.histories else b""
    won = next((order["value"] for order in seen.orders if f'"input":["{order["value"]}"]'.encode() in start), None)
    for order, answer in zip(seen.orders, seen.answers, strict=True):
        allowed = {"RunCompleted", "Running"} if order["value"] == won else {"ConflictError"}
        if answer["name"] not in allowed:
            yield f"input {order['value']} was told {answer}, while {won} won"
    yield from seen.once(*STEPS)
    yield from seen.stands()
    yield from seen.results()


def judge_claim(seen: Seen) -> Iterator[str]:
    """One lease."""
    yield from seen.only("Lease", "RunHead")
    if seen.count("Lease") != 1:
        yield f"{seen.count('Lease')} leases were granted at once"


def judge_advance(seen: Seen) -> Iterator[str]:
    """One drives; the others find it busy, or done."""
    yield from seen.only("RunCompleted", "RunBusyError")
    yield from seen.once(*STEPS)
    yield from seen.stands()


def judge_due(seen: Seen) -> Iterator[str]:
    """Each run is driven by one of them; who drives two does so one after the other."""
    yield from seen.only("list")
    driven = Counter(run_id for answer in seen.answers for _, run_id in answer.get("result") or ())
    if driven != Counter([seen.run_id]):
        yield f"driven: {dict(driven)}"
    yield from seen.once(*STEPS)
    yield from seen.stands()


def judge_retry(seen: Seen) -> Iterator[str]:
    """One new incarnation; what was finished stays finished."""
    yield from seen.only("RunCompleted", "Running", "ConflictError")
    if seen.orders[0]["do"] == "retry" and seen.count("RunCompleted") != 1:
        yield f"{seen.count('RunCompleted')} retried it"
    yield from seen.once("second")
    yield from seen.stands(2)


def judge_resume(seen: Seen) -> Iterator[str]:
    """One answer counts, and is the one that the run goes on with."""
    same_id = seen.orders[0]["id"] == seen.orders[1]["id"]
    yield from seen.only("RunCompleted", "Running", "RunClosedError", *(() if same_id else ("EventMismatchError",)))
    signals = [line for lines in seen.histories for line in lines if line.type == "resume"]
    if len(signals) != 1:
        yield f"{len(signals)} signals are recorded"
    recorded = signals[0].body.partition(b'"value":"')[2].partition(b'"')[0].decode() if signals else ""
    yield from (
        f"came to {answer['result']} after {recorded!r} was recorded"
        for answer in seen.answers
        if answer["name"] == "RunCompleted" and answer["result"][2] != recorded
    )
    yield from seen.once("second")
    yield from seen.stands()
    yield from seen.results()


def judge_delete(seen: Seen) -> Iterator[str]:
    """One removes it; the others come too late."""
    yield from seen.only("NoneType", "NotFoundError", "ConflictError")
    if seen.count("NoneType") != 1 or seen.head is not None:
        yield f"{seen.count('NoneType')} removed it, and then it was {seen.head}"


def judge_reborn(seen: Seen) -> Iterator[str]:
    """After a delete the same id begins anew, under newer numbers."""
    yield from judge_start(seen)
    if seen.histories and seen.histories[0][0].session <= seen.fence:
        yield f"session {seen.histories[0][0].session} after {seen.fence} had been granted"


Judge: TypeAlias = Callable[[Seen], Iterator[str]]
"""Gives the violations of one round."""
