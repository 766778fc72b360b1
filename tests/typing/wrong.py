"""Mistakes that mypy and pyright have to find.

Each wrong line names the error that each checker gives there. A line that a checker lets pass fails the check, because
both are told to report an ignore that ignores nothing; so does an error of another kind, or on another line.
"""
# pyright: reportUnusedExpression=false
# ruff: noqa: B018, F841, RUF059 - each mistake is a line of its own

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Generator
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from attrs import frozen

from stepwell import (
    All,
    Emit,
    Engine,
    Flow,
    Now,
    Outcome,
    Patched,
    Race,
    Random,
    RetryPolicy,
    RunCompleted,
    RunSuspended,
    SetState,
    Signal,
    Sleep,
    Step,
    Stream,
    Suspend,
    Transaction,
    Uuid,
    Workflow,
    current_step,
    durable,
    failed,
    step,
    workflow,
)
from stepwell.testing import Replay, replay, simulate


@frozen
class Ticket:
    """What a workflow is about."""

    id: str


@frozen
class Verdict:
    """What a person decides."""

    approved: bool


def size(ticket: Ticket) -> int:
    return len(ticket.id)


def draft(ticket: Ticket, note: str = "", *, polite: bool = True) -> str:
    return f"{ticket.id} {note} {polite}"


async def fetch(url: str) -> bytes:
    return url.encode()


def plain_json() -> Any:
    return {}


class Mailer:
    """Has a step for a method."""

    def post(self, to: str) -> float:
        return float(len(to))


def book(db: sqlite3.Connection, account: str, cents: int = 1) -> int:
    return db.execute("UPDATE accounts SET cents = ?", (cents,)).rowcount


def no_connection() -> int:
    return 1


review = Signal("manual-review", Verdict)


# ---- Transaction


@workflow
def transactions(t: Ticket, db: sqlite3.Connection) -> Flow[None]:
    yield Transaction(book)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    yield Transaction(book, 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    yield Transaction(book, db, "ada")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    yield Transaction(book, "ada", "5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    yield Transaction(book, "ada", euros=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    yield Transaction(size)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    yield Transaction(no_connection)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    yield Transaction(book(db, "ada"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    yield Transaction(book, "ada").options(at_most_once=True)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    yield Transaction(book, "ada").options(timeout="3 s")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    a: str = yield from Transaction(book, "ada")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    b: str = yield from Transaction(book, "ada").options(into=Verdict)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


# ---- Step


@workflow
def steps(t: Ticket) -> Flow[None]:
    yield Step(size)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    yield Step(size, "t1")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    yield Step(size, t, t)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    yield Step(size, of=t)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    yield Step(draft, t, 3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    yield Step(draft, t, polite="yes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    yield Step(draft, t, rude=True)  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportCallIssue]
    yield Step(fetch)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    yield Step(fetch, 3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    yield Step(Mailer().post, 3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    yield Step(Mailer.post, "ada")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    yield Step(Ticket, 3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    yield Step(len, 3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    yield Step(partial(size, t), t)  # pyright: ignore[reportCallIssue]
    yield Step(partial(size, "t1"))  # type: ignore[arg-type, call-overload]  # pyright: ignore[reportArgumentType]
    yield Step(size(t))  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    yield Step("size", t)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    yield Step()  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


@workflow
def results_of_steps(t: Ticket) -> Flow[None]:
    a: str = yield from Step(size, t)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    b: str = yield from Step(fetch, "u")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    c: int = yield from Step(draft, t).options(name="d")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    d: str = yield from Step(plain_json).options(into=Verdict)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    e: Step[str] = Step(size, t)  # type: ignore[call-overload]  # pyright: ignore[reportAssignmentType]
    (yield from Step(size, t)).upper()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    (yield from Step(fetch, "u")).send(None)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    yield from size(t)  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]


def say(prompt: str) -> Generator[str, None, int]:
    yield prompt
    return len(prompt)


async def say_later(prompt: str) -> AsyncIterator[str]:
    yield prompt


def total(numbers: list[int]) -> int:
    return sum(numbers)


@workflow
def streams(t: Ticket) -> Flow[None]:
    yield Stream(say)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    yield Stream(say, 3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    yield Stream(say_later, t)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    yield Stream(size, t)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    yield Stream(say("a"))  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    a: str = yield from Stream(say, "a")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    b: str = yield from Stream(say_later, "a")  # type: ignore[assignment, func-returns-value]  # pyright: ignore[reportAssignmentType]
    c: int = yield from Stream(say, "a").options(collect="".join)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    yield Stream(say, "a").options(collect=total)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    yield Stream(say, "a").options(collect=3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    yield Stream(say, "a").options(record_chunks="yes")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]


@workflow
def options_of_steps(t: Ticket) -> Flow[None]:
    yield Step(size, t).options(nmae="s")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    yield Step(size, t).options("s")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    yield Step(size, t).options(name=3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    yield Step(size, t).options(retry=3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    yield Step(size, t).options(timeout="3 s")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    yield Step(size, t).options(at_most_once="yes")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    yield Step(size, t).options(into=3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    yield Step(size, t, retry=RetryPolicy(3))  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportCallIssue]


@step(retry=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
def badly_retried() -> None:
    return None


@step  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportCallIssue]
def without_brackets() -> None:
    return None


@step(timeout="3 s")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
def badly_timed() -> None:
    return None


@step(retry=RetryPolicy(3))
def charge(amount: int) -> Verdict:
    context: str = current_step()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    current_step().attempts  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    return Verdict(amount > 0)


@workflow
def steps_with_defaults() -> Flow[None]:
    yield Step(charge, "3")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    a: int = yield from Step(charge, 3)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


RetryPolicy("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
RetryPolicy(3, on=OSError())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# ---- Suspend and Signal


@workflow
def waits() -> Flow[None]:
    yield Suspend()  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    yield Suspend(3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    yield Suspend(Verdict)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    yield Suspend(review, "reason")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    yield Suspend(review, into=Verdict)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    yield Suspend(review, reason=3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    yield Suspend(review, timeout="1 h")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    yield Suspend(review, fresh="yes")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    yield Suspend("reply", into=3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    yield Suspend("reply", int)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    yield Suspend("reply", type=int)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


@workflow
def payloads() -> Flow[None]:
    a: str = yield from Suspend(review)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    b: Verdict = yield from Suspend(review, timeout=1, default=None)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    c: str = yield from Suspend("reply", into=int)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    d: str = yield from Suspend("reply", into=str | None)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    e: int = yield from Suspend("reply", into=int, timeout=1, default="late")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    f: Verdict = yield from Suspend(review).decided()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    (yield from Suspend(review).decided()).approved  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    (yield from Suspend(review)).aproved  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    (yield from Suspend(review, timeout=1, default=None)).approved  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]


Signal()  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
Signal(3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
Signal("reply", 3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
Signal("reply", Verdict(True))  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
as_text: Signal[str] = Signal("reply", int)  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
review.name = "other"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


# ---- Sleep, Now, Random, Uuid, Patched, SetState, Emit


@workflow
def values(until: datetime) -> Flow[None]:
    yield Sleep()  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    yield Sleep("x")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    yield Sleep(until)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    yield Sleep(3, until=until)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    yield Sleep(until=timedelta(days=1))  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    yield Sleep(seconds=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    yield Now("UTC")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    yield Random(1, 6)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    yield Uuid(4)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    yield Patched()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    yield Patched(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    yield SetState({"step": 1})  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    yield Emit()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    yield Emit(1, topic=2)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    a: str = yield from Now()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    b: int = yield from Random()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    c: str = yield from Uuid()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    d: str = yield from Patched("p")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    (yield from Sleep(1)).wake  # type: ignore[attr-defined, func-returns-value]  # pyright: ignore[reportAttributeAccessIssue]
    (yield from Emit(1)).seq  # type: ignore[attr-defined, func-returns-value]  # pyright: ignore[reportAttributeAccessIssue]
    (yield from SetState(step=1)).step  # type: ignore[attr-defined, func-returns-value]  # pyright: ignore[reportAttributeAccessIssue]


# ---- All and Race


def helper(question: str) -> Flow[int]:
    return (yield from Suspend(question, into=int))


@workflow
def decide(t: Ticket) -> Flow[Verdict]:
    return (yield from Suspend(review, reason=t.id))


@workflow
def everything(t: Ticket) -> Flow[None]:
    yield All(limit="x")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    yield All(Now(), limit="x")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    yield All(Now(), settle="yes")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    yield All(Now(), of=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    yield All(3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    yield All(size)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    yield All(size(t), size(t))  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    yield All(decide)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    yield All([Now(), Now()])  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    yield All(decide("t1"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    a: tuple[str] = yield from All(Step(size, t))  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    b: tuple[str, str] = yield from All(Step(size, t), Step(draft, t))  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    c: tuple[int, str] = yield from All(helper("a"), decide(t))  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    d: tuple[str, ...] = yield from All(*[Step(size, t)])  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    e: tuple[int] = yield from All(Step(size, t), settle=True)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    f: tuple[int, ...] = yield from All(*[Step(size, t)], settle=True)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    g: list[int] = yield from All(Step(size, t))  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    x, y, z = yield from All(Now(), Now())  # type: ignore[misc]  # pyright: ignore[reportAssignmentType]
    yield All(Now(), Step(size, "t1"))  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    yield All(All(Now()), Race(3))  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]


@workflow
def races(t: Ticket) -> Flow[None]:
    yield Race(Now(), late=Sleep(3))  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    yield Race(3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    yield Race(done=3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    yield Race(Now(), limit=1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    yield Race([Now(), Now()])  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    yield Race(done=decide)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    a: datetime = yield from Race(Now(), Now())  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    b: tuple[str, datetime] = yield from Race(Now(), Now())  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    c: tuple[int, datetime] = yield from Race(a=Now(), b=Now())  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    d: tuple[int, int] = yield from Race(Step(size, t), Sleep(3))  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    e: tuple[int, str] = yield from Race(*[Step(size, t)])  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


# ---- workflows


@workflow
def gives_another_type(t: Ticket) -> Flow[str]:
    return (yield from Step(size, t))  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


@workflow
def yields_no_command(t: Ticket) -> Flow[None]:
    yield size(t)  # type: ignore[misc]  # pyright: ignore[reportReturnType]
    yield 3  # type: ignore[misc]  # pyright: ignore[reportReturnType]
    yield size  # type: ignore[misc]  # pyright: ignore[reportReturnType]
    yield None  # type: ignore[misc]  # pyright: ignore[reportReturnType]


@workflow  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
def no_generator(t: Ticket) -> int:
    return len(t.id)


@workflow(name="async")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def asynchronous(t: Ticket) -> int:
    return len(t.id)


@workflow(name=3)  # type: ignore[call-overload, untyped-decorator]  # pyright: ignore[reportArgumentType]
def badly_named(t: Ticket) -> Flow[None]:
    yield Sleep(1)


@workflow(retry=3)  # type: ignore[call-overload, untyped-decorator]  # pyright: ignore[reportArgumentType]
def badly_retried_workflow(t: Ticket) -> Flow[None]:
    yield Sleep(1)


@workflow
def with_defaults(t: Ticket, note: str = "", copies: int = 1) -> Flow[str]:
    return (yield from Step(draft, t, note * copies))


@workflow(name="brackets")
def with_brackets(t: Ticket, copies: int) -> Flow[int]:
    return (yield from Step(size, t)) * copies


@workflow
def outer(t: Ticket) -> Flow[None]:
    a: str = yield from decide(t)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    yield from decide("t1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    yield from decide()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    yield from decide(t, t)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    yield from decide  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    yield from with_brackets(t, "2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    yield from with_defaults(t, note=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    decide.name = "other"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


other: Workflow[[str], Verdict] = decide  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
another: Workflow[[Ticket], str] = decide  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


# ---- failures


failed(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
failed(OSError("full"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@workflow
def catches(t: Ticket) -> Flow[None]:
    try:
        yield Step(size, t)
    except failed(OSError) as error:
        a: OSError = error  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
        error.failure.traceback  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


# ---- the engine


def starts(engine: Engine, t: Ticket) -> None:
    engine.start()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    engine.start(decide)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.start(decide, "t1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.start(decide, t, t)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.start(decide, t=t)  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportCallIssue]
    engine.start(decide(t))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.start(size, t)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.start("decide", t)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.start(with_brackets, t)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.start(with_brackets, t, "2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.start(with_brackets, 2, t)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.start(with_defaults)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.start(with_defaults, "t1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.start(with_defaults, t, 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.start(with_defaults, t, "note", 2, 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.start(with_defaults, t, note="note")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    engine.start(decide, t, run_id=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.start(decide, t, tags={"n": 3})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    engine.start(decide, t, if_open="retry")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.start(decide, t, if_closed="join")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.start(decide, t, runid="t1")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    engine.submit(decide)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.submit(decide, "t1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.submit(with_defaults, t, 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    a: Outcome[str] = engine.start(decide, t)  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
    b: str = engine.start(decide, t).unwrap()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    c: str = engine.submit(decide, t).unwrap()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    d: Verdict = engine.start(decide, t)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    engine.start(decide, t).result  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue]
    engine.start(decide, t).waiting_for  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue]


def reads_the_outcome(engine: Engine, t: Ticket) -> None:
    match engine.start(decide, t):
        case RunCompleted(result=result):
            a: str = result  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
        case RunSuspended() as waits:
            waits.result  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
            b: str = waits.waiting_for  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
        case _:
            pass


def long_steps() -> Flow[None]:
    yield Step(size, Ticket("t1")).options(process="yes")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    yield Step(size, Ticket("t1")).options(heartbeat_timeout="1 h")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    step(heartbeat_timeout="1 h")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    step(process=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def resumes(engine: Engine) -> None:
    engine.resume("t1")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    engine.resume("t1", Verdict(True))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.resume("t1", review, 3)  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
    engine.resume("t1", review, "yes")  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
    engine.resume("t1", review, Ticket("t1"))  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
    engine.resume("t1", Verdict, Verdict(True))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.resume(3, review, Verdict(True))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.resume("t1", review, Verdict(True), "wait")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    engine.resume("t1", review, Verdict(True), id=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.signal("t1", review, 3)  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
    engine.signal("t1", 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    a: str = engine.signal("t1", review, Verdict(True))  # type: ignore[assignment, func-returns-value]  # pyright: ignore[reportAssignmentType]


def controls(engine: Engine) -> None:
    engine.advance()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    engine.advance(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.run_due("all")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.wait("t1", timeout="3 s")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.pause("t1", 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.cancel("t1", "no use", True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    engine.fork("t1")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    engine.fork("t1", before=None)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    engine.fork("t1", replace="classify")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    engine.history("t1").step(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.diff("t1")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    engine.signal("t1", "x", start=decide)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.signal("t1", "x", start=(decide,))  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
    engine.signal("t1", "x", start=(decide, "t1"))  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
    engine.signal("t1", "x", if_closed="no")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.start(durable(size), 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    d: Outcome[str] = engine.start(durable(size), Ticket("a"))  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
    engine.runs(status="done")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.runs("failed")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    engine.waiting(review, 3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    engine.decide("t1", "review@0:1", True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    engine.decide("t1", "review@0:1", True, "ada")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    engine.resume("t1", review, Verdict(True), actor=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.resume("t1", review, Verdict(True), metadata=["a"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.waiting(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.query("t1").step  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    engine.get("t1").step  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


Engine()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Engine(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Engine("memory:", [size])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
Engine("memory:", decide)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Engine("memory:", [decide], 3)  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportCallIssue]
Engine("memory:", park_after="5 s")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Engine("memory:", retry=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# ---- the testing kit


def tests(t: Ticket) -> None:
    replay(decide)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    replay(decide, "t1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    replay(decide, t, history=[3])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    a: Replay[str] = replay(decide, t)  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
    b: str = replay(decide, t).result  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    simulate(decide)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    simulate(decide, "t1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    simulate(decide, t, crash_after="all")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    c: str = simulate(decide, t).result  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
