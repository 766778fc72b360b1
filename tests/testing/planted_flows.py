"""Workflows with a mistake each, for the tests of the property tests: at the top of a module, as users write them."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime, timedelta
from typing import Literal

from attrs import frozen

from stepwell import Flow, RetryPolicy, Signal, Sleep, Step, Suspend, TimedOut, failed, workflow
from stepwell.errors import StepTimeoutError


@frozen
class Finding:
    severity: int
    topics: list[str]


@frozen
class Verdict:
    approved: bool
    reviewer: str = ""


review = Signal("review", Verdict)
payment = Signal("payment", int)


def look(text: str) -> Finding:
    raise AssertionError("nothing is performed")


def tell(topic: str) -> None:
    raise AssertionError("nothing is performed")


def draft(severity: int) -> str:
    raise AssertionError("nothing is performed")


def charge(cents: int) -> str:
    raise AssertionError("nothing is performed")


def poll(job: str) -> Literal["queued", "running", "lost"]:
    raise AssertionError("nothing is performed")


@workflow
def well(text: str) -> Flow[str]:
    """Nothing is wrong with this one."""
    found = yield from Step(look, text)
    for topic in sorted(set(found.topics)):
        yield Step(tell, topic)
    if found.severity >= 4:
        verdict = yield from Suspend(review, timeout=timedelta(days=2), default=Verdict(False))
        if not verdict.approved:
            return "no"
    return (yield from Step(draft, found.severity))


@workflow
def iterates_over_a_set(text: str) -> Flow[int]:
    found = yield from Step(look, text)
    for topic in set(found.topics):
        yield Step(tell, topic)
    return len(found.topics)


@workflow
def reads_a_clock(text: str) -> Flow[str]:
    found = yield from Step(look, text)
    begun = time.time()
    return f"{found.severity} at {begun}"


@workflow
def reads_the_hour(text: str) -> Flow[str]:
    """What it decides by is the same for an hour."""
    yield Step(tell, text)
    return "day" if 8 <= datetime.now(UTC).hour < 20 else "night"


seen: list[str] = []


@workflow
def keeps_a_global(text: str) -> Flow[int]:
    found = yield from Step(look, text)
    for topic in found.topics:
        if topic not in seen:
            seen.append(topic)
            yield Step(tell, topic)
    return found.severity


@workflow
def takes_a_chance(text: str) -> Flow[str]:
    yield Step(tell, text)
    if random.random() < 0.5:
        yield Step(tell, "again")
    return text


@workflow
def waits_for_what_nobody_sends(text: str) -> Flow[str]:
    """After a refusal it waits for an appeal, of which no page of the program knows."""
    found = yield from Step(look, text)
    if found.severity >= 4:
        verdict = yield from Suspend(review)
        if not verdict.approved:
            verdict = yield from Suspend("appeal", into=Verdict)
    return text


@workflow
def polls_for_ever(job: str) -> Flow[str]:
    """No answer of the step ends it."""
    verdict = yield from Suspend(review)
    while verdict.approved:
        state = yield from Step(poll, job)
        if state == "done":  # type: ignore[comparison-overlap]  # that is the mistake
            break
        yield Sleep(60)
    return job


@workflow
def polls(job: str) -> Flow[str]:
    """Nothing is wrong with this one: it is lost at last, perhaps after long."""
    while (yield from Step(poll, job)) != "lost":
        yield Sleep(60)
    return job


@workflow
def drafts_without_approval(text: str) -> Flow[str]:
    """A time-out is taken for a yes."""
    found = yield from Step(look, text)
    if found.severity >= 4:
        verdict = yield from Suspend(review, timeout=timedelta(days=2), default=Verdict(True))
        if not verdict.approved:
            return "no"
    return (yield from Step(draft, found.severity))


@workflow
def charges_twice(cents: int) -> Flow[str]:
    """What has timed out may have been done all the same."""
    once = Step(charge, cents).options(timeout=30, retry=RetryPolicy(3, on=ConnectionError))
    try:
        return (yield from once)
    except failed(StepTimeoutError):
        return (yield from Step(charge, cents))


@workflow
def charges_again_when_nobody_confirms(cents: int) -> Flow[int]:
    yield Step(charge, cents)
    while True:
        try:
            return (yield from Suspend(payment, timeout=timedelta(hours=1)))
        except TimedOut:
            yield Step(charge, cents)
