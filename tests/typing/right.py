"""What users' code looks like to type checkers: each `assert_type` is checked by mypy and by pyright.

Nothing here runs but the imports and decorators. `test_typing.py` runs the checkers, and makes every `assert_type` of a
copy wrong, to see that each one is really looked at.
"""
# pyright: strict, reportUnusedFunction=false

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable, Iterator
from datetime import datetime, timedelta
from enum import Enum
from functools import partial
from typing import Annotated, Any, Literal, TypeVar, assert_never, assert_type
from uuid import UUID

from attrs import frozen

from stepwell import (
    All,
    Cancelled,
    Command,
    Decision,
    Diff,
    Emit,
    Engine,
    Failure,
    Flow,
    Now,
    Outcome,
    Patched,
    Race,
    Random,
    RetryPolicy,
    RunCancelled,
    RunCompleted,
    RunFailed,
    Running,
    RunPaused,
    RunRecord,
    RunSuspended,
    SetState,
    Signal,
    Sleep,
    Step,
    StepContext,
    StepFailed,
    Stream,
    Suspend,
    TimedOut,
    Transaction,
    Uuid,
    WaitingFor,
    Workflow,
    current_step,
    diff,
    durable,
    failed,
    step,
    workflow,
)
from stepwell.testing import Replay, Simulation, fired, raised, received, replay, returned, simulate

T = TypeVar("T")
K = TypeVar("K")


@frozen
class Ticket:
    """What a workflow is about."""

    id: str
    severity: int = 1


@frozen
class Verdict:
    """What a person decides."""

    approved: bool
    reviewer: str


class Colour(Enum):
    """A payload with few values."""

    RED = "red"
    BLUE = "blue"


class CardDeclined(Exception):
    """What a step raises."""


# ---- functions that are used as steps


def classify(ticket: Ticket) -> int:
    return ticket.severity


def draft(ticket: Ticket, note: str | None = None, *, polite: bool = True) -> str:
    return f"{ticket.id} {note} {polite}"


async def fetch(url: str, *, size: float = 1.0) -> bytes:
    return url.encode()[: int(size)]


def now_or_later(wait: bool) -> str | None:
    return None if wait else "now"


def forget(*ids: str) -> None:
    return None


def plain_json() -> dict[str, Any]:
    return {}


def first(items: list[T]) -> T:
    return items[0]


def pair(left: T, right: K) -> tuple[T, K]:
    return left, right


@step(retry=RetryPolicy(5), timeout=timedelta(seconds=30))
def charge(amount: int, *, card: str = "") -> Verdict:
    context = current_step()
    assert_type(context, StepContext)
    assert_type(context.idempotency_key, str)
    assert_type(context.attempt, int)
    assert_type(context.cancelled, bool)
    assert_type(context.last_details, Any)
    context.heartbeat({"rows": 3})
    return Verdict(True, card * amount)


@step(name="post", at_most_once=True)
async def send(text: str) -> int:
    return len(text)


class Mailer:
    """Has a step for a method."""

    def post(self, to: str, copies: int = 1) -> float:
        return float(copies)

    async def receive(self) -> list[str]:
        return []

    @classmethod
    def build(cls, host: str) -> Mailer:
        return cls()

    @staticmethod
    def check(address: str) -> bool:
        return "@" in address


class Scorer:
    """Can be called."""

    def __call__(self, ticket: Ticket) -> complex:
        return complex(ticket.severity)


# ---- Step


@workflow
def steps(ticket: Ticket) -> Flow[str]:
    assert_type((yield Step(classify, ticket)), Any)
    untyped = yield Step(classify, ticket)
    assert_type(untyped, Any)

    assert_type((yield from Step(classify, ticket)), int)
    severity = yield from Step(classify, ticket)
    assert_type(severity, int)
    assert_type((yield from Step(draft, ticket)), str)
    assert_type((yield from Step(draft, ticket, "note")), str)
    assert_type((yield from Step(draft, ticket, note="note", polite=False)), str)
    assert_type((yield from Step(now_or_later, True)), str | None)
    assert_type((yield from Step(forget, "a", "b", "c")), None)
    assert_type((yield from Step(plain_json)), dict[str, Any])
    assert_type(Step(classify, ticket), Step[int])
    return (yield from Step(draft, ticket))


# ---- Transaction


def transfer(db: sqlite3.Connection, ticket: Ticket, cents: int = 1, *, note: str = "") -> int:
    return db.execute("UPDATE accounts SET cents = cents + ?", (cents,)).rowcount


def with_any(db: Any, name: str) -> str:
    return name


def with_more(db: sqlite3.Connection, /, *names: str, **tags: int) -> list[str]:
    return list(names)


def with_nothing(db: sqlite3.Connection) -> None:
    return None


class Ledger:
    """Has a transaction for a method."""

    def book(self, db: sqlite3.Connection, cents: int) -> float:
        return float(cents)


@workflow
def transactions(ticket: Ticket) -> Flow[int]:
    assert_type((yield Transaction(transfer, ticket)), Any)
    assert_type((yield from Transaction(transfer, ticket)), int)
    assert_type((yield from Transaction(transfer, ticket, 5)), int)
    assert_type((yield from Transaction(transfer, ticket, cents=5, note="x")), int)
    assert_type((yield from Transaction(with_any, "ada")), str)
    assert_type((yield from Transaction(with_more, "a", "b", c=1)), list[str])
    assert_type((yield from Transaction(with_nothing)), None)
    assert_type((yield from Transaction(Ledger().book, 5)), float)
    assert_type(Transaction(transfer, ticket), Transaction[int])
    assert_type(Transaction(transfer, ticket).options(name="t", timeout=timedelta(seconds=1)), Transaction[int])
    assert_type(Transaction(transfer, ticket).options(retry=RetryPolicy(3)), Transaction[int])
    assert_type(Transaction(with_any, "ada").options(into=Ticket), Transaction[Ticket])
    assert_type((yield from All(Transaction(transfer, ticket), Step(classify, ticket))), tuple[int, int])
    return (yield from Transaction(transfer, ticket))


@workflow
def asynchronous_steps() -> Flow[bytes]:
    assert_type((yield Step(fetch, "url")), Any)
    assert_type((yield from Step(fetch, "url")), bytes)
    assert_type((yield from Step(fetch, "url", size=2)), bytes)
    assert_type((yield from Step(Mailer().receive)), list[str])
    return (yield from Step(fetch, "url"))


@workflow
def steps_of_every_kind_of_callable(ticket: Ticket) -> Flow[float]:
    mailer = Mailer()
    assert_type((yield from Step(mailer.post, "ada")), float)
    assert_type((yield from Step(mailer.post, "ada", copies=2)), float)
    assert_type((yield from Step(Mailer.post, mailer, "ada")), float)
    assert_type((yield from Step(Mailer.build, "host")), Mailer)
    assert_type((yield from Step(Mailer.check, "a@b")), bool)
    assert_type((yield from Step(Scorer(), ticket)), complex)
    assert_type((yield from Step(Ticket, "t1", severity=3)), Ticket)
    assert_type((yield from Step(partial(draft, ticket))), str)
    assert_type((yield from Step(partial(draft, ticket), polite=True)), str)
    assert_type((yield from Step(partial(draft, polite=True), ticket)), str)
    assert_type((yield from Step(lambda: 3).options(name="three")), int)
    assert_type((yield from Step(lambda: ticket.id).options(name="id")), str)
    assert_type((yield from Step(len, "abc")), int)
    assert_type((yield from Step(str.upper, "abc")), str)
    assert_type((yield from Step("abc".count, "b")), int)
    return (yield from Step(mailer.post, "ada"))


@workflow
def steps_that_are_generic(tickets: list[Ticket]) -> Flow[Ticket]:
    assert_type((yield from Step(first, tickets)), Ticket)
    assert_type((yield from Step(first, ["a"])), str)
    assert_type((yield from Step(pair, 1, "a")), tuple[int, str])
    return (yield from Step(first, tickets))


@workflow
def steps_with_defaults() -> Flow[Verdict]:
    assert_type((yield from Step(charge, 3, card="c")), Verdict)
    assert_type((yield from Step(send, "text")), int)
    assert_type(charge(3), Verdict)
    return (yield from Step(charge, 3))


@workflow
def steps_with_options(ticket: Ticket) -> Flow[None]:
    once = Step(classify, ticket).options(
        name="c", retry=RetryPolicy(3, on=(OSError, CardDeclined)), timeout=1.5, at_most_once=True
    )
    assert_type(once, Step[int])
    assert_type((yield once), Any)
    assert_type((yield from once), int)
    assert_type((yield from Step(plain_json).options(into=Verdict)), Verdict)
    assert_type((yield from Step(plain_json).options(into=list[Verdict], name="list")), list[Verdict])
    assert_type((yield from Step(plain_json).options(into=Verdict | None)), Verdict | None)
    assert_type((yield from Step(plain_json).options(into=Literal["a", "b"])), Literal["a", "b"])
    assert_type((yield from Step(plain_json).options(into=Annotated[int, "positive"])), int)
    assert_type((yield from Step(fetch, "url").options(timeout=timedelta(minutes=1))), bytes)
    assert_type((yield from Step(fetch, "url").options(into=str).options(name="get")), str)


# ---- durable


def start_durable(engine: Engine, ticket: Ticket, mailer: Mailer) -> None:
    assert_type(engine.start(durable(classify), ticket), Outcome[int])
    assert_type(engine.start(durable(classify, retry=RetryPolicy(3), timeout=5), ticket).unwrap(), int)
    assert_type(engine.start(durable(now_or_later, name="later", version="2"), True, run_id="r"), Outcome[str | None])
    assert_type(engine.start(durable(mailer.receive)), Outcome[list[str]])
    assert_type(engine.start(durable(partial(now_or_later, True), name="now")), Outcome[str | None])
    assert_type(engine.submit(durable(Mailer.check), "a@b"), Outcome[bool])


def signal_with_start(engine: Engine, ticket: Ticket) -> None:
    engine.signal("r", Signal("manual-review", Verdict), Verdict(True, "ada"), start=(steps, ticket))
    engine.signal("r", "reply", 3, id="m1", start=(asynchronous_steps,), tags={"a": "b"}, if_closed="restart")
    engine.signal("r", "reply", start=(steps_with_defaults,))


# ---- Stream


def say(prompt: str) -> Generator[str, None, int]:
    yield prompt
    return len(prompt)


def say_plainly(prompt: str, *, loud: bool = False) -> Iterator[str]:
    yield prompt.upper() if loud else prompt


async def say_later(prompt: str) -> AsyncIterator[str]:
    yield prompt


async def count_later(most: int) -> AsyncGenerator[int, None]:
    yield most


def total(numbers: Iterable[int]) -> float:
    return float(sum(numbers))


@workflow
def streams(prompt: str) -> Flow[str]:
    assert_type((yield Stream(say, prompt)), Any)
    assert_type((yield from Stream(say, prompt)), int)
    assert_type((yield from Stream(say_plainly, prompt, loud=True)), Any)
    assert_type((yield from Stream(say_later, prompt)), None)
    assert_type((yield from Stream(count_later, 3)), None)
    assert_type(Stream(say, prompt), Stream[int, str])
    assert_type(Stream(count_later, 3), Stream[None, int])
    assert_type((yield from Stream(partial(say, prompt))), int)
    step: Step[int] = Stream(say, prompt)
    assert_type((yield from All(step, Stream(say_later, prompt))), tuple[int, None])
    return (yield from Stream(say_later, prompt).options(collect="".join))


@workflow
def streams_with_options(prompt: str) -> Flow[list[str]]:
    assert_type((yield from Stream(say, prompt).options(name="s", timeout=2, record_chunks=True)), int)
    assert_type((yield from Stream(say, prompt).options(collect="".join)), str)
    assert_type((yield from Stream(say, prompt).options(collect=list)), list[str])
    assert_type((yield from Stream(say, prompt).options(collect=len)), int)
    assert_type((yield from Stream(count_later, 3).options(collect=total)), float)
    assert_type((yield from Stream(count_later, 3).options(collect=total, into=int)), int)
    assert_type((yield from Stream(say_later, prompt).options(into=int | None)), int | None)
    assert_type(Stream(say, prompt).options(collect=len, retry=RetryPolicy(2)), Stream[int, str])
    return (yield from Stream(say_later, prompt).options(collect=list, at_most_once=True))


# ---- Suspend and Signal

review = Signal("manual-review", Verdict)
colour = Signal("colour", Colour)
answers = Signal("answers", list[str])
maybe = Signal("maybe", Verdict | None)
either = Signal("either", Literal["yes", "no"])
anything = Signal("anything")
go_on = Signal("go-on", None)

assert_type(review, Signal[Verdict])
assert_type(review.name, str)
assert_type(answers, Signal[list[str]])
assert_type(maybe, Signal[Verdict | None])
assert_type(either, Signal[Literal["yes", "no"]])
assert_type(anything, Signal[Any])
assert_type(go_on, Signal[None])


@workflow
def typed_waits() -> Flow[Verdict]:
    assert_type((yield Suspend(review)), Any)
    assert_type((yield from Suspend(review)), Verdict)
    verdict = yield from Suspend(review, reason="severe", show={"id": "t1"}, fresh=True)
    assert_type(verdict, Verdict)
    assert_type((yield from Suspend(colour)), Colour)
    assert_type((yield from Suspend(answers)), list[str])
    assert_type((yield from Suspend(maybe)), Verdict | None)
    assert_type((yield from Suspend(either)), Literal["yes", "no"])
    assert_type((yield from Suspend(anything)), Any)
    assert_type((yield from Suspend(go_on)), None)
    assert_type(Suspend(review), Suspend[Verdict])
    assert_type(Suspend(review).decided(), Suspend[Decision[Verdict]])
    assert_type((yield from Suspend(review, show=[1]).decided()), Decision[Verdict])
    assert_type((yield from Suspend(review).decided()).actor, str | None)
    assert_type((yield from Suspend(review).decided()).metadata, dict[str, Any])
    assert_type((yield from Suspend(review).decided()).at, datetime)
    assert_type((yield from Suspend(review, timeout=1, default=None).decided()).value, Verdict | None)
    assert_type((yield from Suspend("reply", into=int).decided()).value, int)
    assert_type((yield from Suspend("reply").decided()), Decision[Any])
    return (yield from Suspend(review))


@workflow
def named_waits() -> Flow[Any]:
    assert_type((yield Suspend("reply")), Any)
    assert_type((yield from Suspend("reply")), Any)
    assert_type((yield from Suspend("reply", reason="r", timeout=3, default="none")), Any)
    assert_type((yield from Suspend("reply", into=str)), str)
    assert_type((yield from Suspend("reply", into=list[Verdict])), list[Verdict])
    assert_type((yield from Suspend("reply", into=dict[str, int])), dict[str, int])
    assert_type((yield from Suspend("reply", into=str | None)), str | None)
    assert_type((yield from Suspend("reply", into=Literal["yes", "no"])), Literal["yes", "no"])
    assert_type((yield from Suspend("reply", into=Any)), Any)


@workflow
def waits_with_a_default() -> Flow[Verdict | None]:
    assert_type((yield Suspend(review, timeout=60, default=None)), Any)
    assert_type((yield from Suspend(review, timeout=60)), Verdict)
    assert_type((yield from Suspend(review, timeout=60, default=None)), Verdict | None)
    assert_type((yield from Suspend(review, timeout=timedelta(days=1), default=Verdict(False, "nobody"))), Verdict)
    assert_type((yield from Suspend("reply", into=int, timeout=60, default="late")), int | str)
    try:
        yield from Suspend(review, timeout=60)
    except TimedOut as late:
        assert_type(late.signal, str)
    return (yield from Suspend(review, timeout=60, default=None))


# ---- Sleep, Now, Random, Uuid, Patched, SetState, Emit


@workflow
def values(until: datetime) -> Flow[UUID]:
    assert_type((yield Sleep(5)), Any)
    assert_type((yield from Sleep(5)), None)
    assert_type((yield from Sleep(timedelta(days=30))), None)
    assert_type((yield from Sleep(until=until)), None)

    assert_type((yield Now()), Any)
    assert_type((yield from Now()), datetime)
    assert_type((yield Random()), Any)
    assert_type((yield from Random()), float)
    assert_type((yield Uuid()), Any)
    assert_type((yield from Uuid()), UUID)

    assert_type((yield Patched("new-tax")), Any)
    assert_type((yield from Patched("new-tax")), bool)

    assert_type((yield SetState(step=1, of="three")), Any)
    assert_type((yield from SetState(step=1, of="three")), None)
    assert_type((yield Emit({"done": 1})), Any)
    assert_type((yield from Emit({"done": 1})), None)
    assert_type((yield from Emit("half", topic="progress")), None)
    assert_type((yield from Emit("half", "progress")), None)
    return (yield from Uuid())


# ---- All and Race


def ask_twice(question: str) -> Flow[list[str]]:
    """A helper: a generator of commands that is no workflow."""
    once = yield from Suspend(question, into=str)
    return [once, (yield from Suspend(question, into=str))]


@workflow
def decide(ticket: Ticket) -> Flow[Verdict]:
    return (yield from Suspend(review, reason=ticket.id))


@workflow
def all_of_different_types(t: Ticket) -> Flow[tuple[int, str]]:
    assert_type((yield All(Step(classify, t), Step(draft, t))), Any)
    assert_type((yield from All()), tuple[()])
    assert_type((yield from All(Step(classify, t))), tuple[int])
    assert_type((yield from All(Step(classify, t), Step(draft, t))), tuple[int, str])
    assert_type((yield from All(Now(), Random(), Uuid())), tuple[datetime, float, UUID])
    assert_type((yield from All(Sleep(1), Emit(1), Suspend(review), Suspend("x"))), tuple[None, None, Verdict, Any])
    assert_type(
        (yield from All(Now(), Random(), Uuid(), Sleep(1), Step(classify, t))),
        tuple[datetime, float, UUID, None, int],
    )
    assert_type(
        (yield from All(Now(), Random(), Uuid(), Sleep(1), Step(classify, t), Step(fetch, "u"))),
        tuple[datetime, float, UUID, None, int, bytes],
    )
    severity, text = yield from All(Step(classify, t), Step(draft, t), limit=1)
    assert_type(severity, int)
    assert_type(text, str)
    return severity, text


@workflow
def all_of_commands_and_generators(t: Ticket) -> Flow[None]:
    assert_type((yield from All(ask_twice("a"))), tuple[list[str]])
    assert_type((yield from All(ask_twice("a"), decide(t))), tuple[list[str], Verdict])
    assert_type((yield from All(Step(classify, t), decide(t), ask_twice("b"))), tuple[int, Verdict, list[str]])


@workflow
def all_of_a_list(ts: list[Ticket]) -> Flow[tuple[int, ...]]:
    assert_type((yield All(*[Step(classify, t) for t in ts])), Any)
    assert_type((yield from All(*[Step(classify, t) for t in ts])), tuple[int, ...])
    assert_type((yield from All(*[Step(classify, t) for t in ts], limit=3)), tuple[int, ...])
    assert_type((yield from All(*(decide(t) for t in ts))), tuple[Verdict, ...])
    assert_type((yield from All(*map(ask_twice, ["a", "b"]))), tuple[list[str], ...])
    branches: list[Step[int] | Generator[Command[Any], Any, int]] = [Step(classify, t) for t in ts]
    assert_type((yield from All(*branches)), tuple[int, ...])
    now = Now()
    assert_type((yield from All(now, now, now, now, now, now, now)), tuple[datetime, ...])
    return (yield from All(*[Step(classify, t) for t in ts]))


@workflow
def all_settled(ts: list[Ticket], flag: bool) -> Flow[None]:
    t = ts[0]
    assert_type((yield All(Step(classify, t), settle=True)), Any)
    assert_type((yield from All(settle=True)), tuple[()])
    assert_type((yield from All(Step(classify, t), settle=True)), tuple[int | BaseException])
    assert_type(
        (yield from All(Step(classify, t), Step(draft, t), settle=True)),
        tuple[int | BaseException, str | BaseException],
    )
    assert_type(
        (yield from All(decide(t), ask_twice("a"), Now(), settle=True, limit=2)),
        tuple[Verdict | BaseException, list[str] | BaseException, datetime | BaseException],
    )
    assert_type((yield from All(*[Step(classify, t) for t in ts], settle=True)), tuple[int | BaseException, ...])
    assert_type((yield from All(*[Step(classify, t) for t in ts], settle=flag)), tuple[int | BaseException, ...])
    assert_type((yield from All(*[Step(classify, t) for t in ts], settle=False)), tuple[int, ...])
    for value in (yield from All(*[Step(classify, t) for t in ts], settle=True)):
        if isinstance(value, BaseException):
            assert_type(value, BaseException)
        else:
            assert_type(value, int)


@workflow
def races(t: Ticket, ts: list[Ticket]) -> Flow[None]:
    assert_type((yield Race(Step(classify, t), Sleep(3))), Any)
    assert_type((yield from Race(Step(classify, t))), tuple[int, int])
    assert_type((yield from Race(Step(classify, t), Step(classify, t))), tuple[int, int])
    assert_type((yield from Race(Step(classify, t), Sleep(3))), tuple[int, int | None])
    assert_type((yield from Race(decide(t), ask_twice("a"), Now())), tuple[int, Verdict | list[str] | datetime])
    assert_type((yield from Race(*[Step(draft, t) for t in ts])), tuple[int, str])

    assert_type((yield Race(done=Step(classify, t), late=Sleep(3))), Any)
    assert_type((yield from Race(one=Step(classify, t), other=Step(len, "abc"))), tuple[str, int])
    assert_type((yield from Race(one=decide(t), other=Suspend(review))), tuple[str, Verdict])
    assert_type((yield from Race(**{t.id: Step(draft, t) for t in ts})), tuple[str, str])
    # Names can't be told apart by overloads: with branches of several types mypy gives what the types have in common
    # (object), pyright their union. Say which type is meant where the race is made, and both agree.
    mixed: Race[tuple[str, int | None]] = Race(done=Step(classify, t), late=Sleep(3))
    assert_type((yield from mixed), tuple[str, int | None])

    index, value = yield from Race(Step(classify, t), Step(draft, t))
    assert_type(index, int)
    assert_type(value, int | str)
    name, number = yield from Race(one=Step(classify, t), other=Step(classify, t))
    assert_type(name, str)
    assert_type(number, int)


@workflow
def groups_in_groups(t: Ticket) -> Flow[None]:
    assert_type(
        (yield from All(All(Now(), Random()), Race(Step(classify, t), Sleep(1)))),
        tuple[tuple[datetime, float], tuple[int, int | None]],
    )
    assert_type((yield from Race(All(Now(), Now()), Sleep(1))), tuple[int, tuple[datetime, datetime] | None])
    assert_type((yield from All(Race(a=Now(), b=Now()), All())), tuple[tuple[str, datetime], tuple[()]])
    assert_type(
        (yield from All(All(Now(), Random(), settle=True), Uuid())),
        tuple[tuple[datetime | BaseException, float | BaseException], UUID],
    )


# ---- workflows, and one in another


@workflow
def no_arguments() -> Flow[bool]:
    yield Sleep(1)
    return True


@workflow(name="named", version="2", retry=RetryPolicy(3))
def with_a_name(ticket: Ticket, copies: int) -> Flow[float]:
    return (yield from Random()) * copies + ticket.severity


@workflow(name="defaults")
def with_defaults(ticket: Ticket, note: str = "", copies: int = 1) -> Flow[str]:
    return (yield from Step(draft, ticket, note * copies))


@workflow()
def with_brackets(ticket: Ticket) -> Flow[None]:
    yield Step(forget, ticket.id)


@workflow
def echo(value: T) -> Flow[list[T]]:
    yield Sleep(1)
    return [value]


@workflow
def spelled_out(ticket: Ticket) -> Generator[Command[Any], Any, str]:
    return (yield from Step(draft, ticket))


@workflow
def outer(ticket: Ticket) -> Flow[str]:
    assert_type((yield from with_a_name(ticket, 2)), float)
    assert_type((yield from with_defaults(ticket)), str)
    assert_type((yield from with_defaults(ticket, "note")), str)
    assert_type((yield from with_defaults(ticket, copies=2)), str)
    assert_type((yield from no_arguments()), bool)
    assert_type((yield from echo(1)), list[int])
    assert_type((yield from ask_twice("again")), list[str])
    assert_type(decide(ticket), Flow[Verdict])
    return (yield from spelled_out(ticket))


def what_a_workflow_is(known: Workflow[..., Any], exact: Workflow[[int], str]) -> None:
    assert_type(with_a_name.name, str)
    assert_type(with_a_name.version, str)
    assert_type(with_a_name.retry, RetryPolicy | None)
    assert_type(known(1, "a"), Flow[Any])
    assert_type(exact(1), Flow[str])


def makes_workflows(fn: Callable[[int], Flow[str]]) -> Workflow[[int], str]:
    made = workflow(fn)
    assert_type(made, Workflow[[int], str])
    assert_type(workflow(name="made")(fn), Workflow[[int], str])
    return made


# ---- failures


@workflow
def catches(ticket: Ticket) -> Flow[Verdict | None]:
    try:
        return (yield from Step(charge, ticket.severity))
    except failed(CardDeclined, "other.Error") as error:
        assert_type(error, StepFailed)
        assert_type(error.failure, Failure)
        assert_type(error.failure.message, str)
        assert_type(error.failure.attempts, int)
        assert_type(error.step_id, str)
    except StepFailed as error:
        assert_type(error.at, str)
    except Cancelled:
        raise
    return None


# ---- the engine


def starts(engine: Engine, ticket: Ticket) -> None:
    assert_type(engine.start(no_arguments), Outcome[bool])
    assert_type(engine.start(decide, ticket), Outcome[Verdict])
    assert_type(engine.start(decide, ticket, run_id="t1", tags={"of": "ada"}), Outcome[Verdict])
    assert_type(engine.start(decide, ticket, if_open="restart", if_closed="retry_failed"), Outcome[Verdict])
    assert_type(engine.start(with_a_name, ticket, 2), Outcome[float])
    assert_type(engine.start(with_brackets, ticket), Outcome[None])
    assert_type(engine.start(spelled_out, ticket), Outcome[str])
    assert_type(engine.start(with_defaults, ticket), Outcome[str])
    assert_type(engine.start(with_defaults, ticket, "note"), Outcome[str])
    assert_type(engine.start(with_defaults, ticket, "note", 2, run_id="t1"), Outcome[str])
    assert_type(engine.start(echo, 1), Outcome[list[int]])
    assert_type(engine.submit(no_arguments), Outcome[bool])
    assert_type(engine.submit(with_a_name, ticket, 2, run_id="t2"), Outcome[float])
    assert_type(engine.submit(with_defaults, ticket, run_id="t3"), Outcome[str])
    assert_type(engine.start(with_a_name, ticket, 2).unwrap(), float)
    assert_type(engine.start(with_a_name, ticket, 2).run_id, str)


def starts_any(engine: Engine, known: Workflow[..., Any], returns: Workflow[..., int]) -> None:
    assert_type(engine.start(known, 1, "a"), Outcome[Any])
    assert_type(engine.start(returns, 1, "a").unwrap(), int)


def reads_the_outcome(engine: Engine, ticket: Ticket) -> str:
    outcome = engine.start(with_defaults, ticket)
    assert_type(outcome.unwrap(), str)
    if isinstance(outcome, RunCompleted):
        assert_type(outcome.result, str)
    match outcome:
        case RunCompleted(run_id, result):
            assert_type(outcome, RunCompleted[str])
            assert_type(run_id, str)
            assert_type(result, str)
            assert_type(outcome.unwrap(), str)
            return result
        case RunSuspended(waiting_for=names, reason=reason, due=due):
            assert_type(names, tuple[str, ...])
            assert_type(reason, str | None)
            assert_type(due, datetime | None)
        case RunFailed(failure=failure):
            assert_type(failure, Failure)
        case RunCancelled(reason=reason):
            assert_type(reason, str | None)
        case RunPaused() | Running():
            assert_type(outcome, RunPaused | Running)
        case _:
            assert_never(outcome)
    return ""


def drives(engine: Engine) -> None:
    assert_type(engine.advance("t1"), Outcome[Any])
    assert_type(engine.run_due(), list[Outcome[Any]])
    assert_type(engine.run_due(limit=3), list[Outcome[Any]])
    assert_type(engine.wait("t1", timeout=3), Outcome[Any])
    assert_type(engine.wait("t1", timedelta(seconds=3)).unwrap(), Any)
    assert_type(engine.resume("t1", review, Verdict(True, "alice")), Outcome[Any])
    assert_type(engine.resume("t1", review, {"approved": True, "reviewer": "alice"}, id="1"), Outcome[Any])
    assert_type(engine.resume("t1", answers, ["a"], wait="answers@0:3"), Outcome[Any])
    assert_type(engine.resume("t1", maybe, None), Outcome[Any])
    assert_type(engine.resume("t1", go_on), Outcome[Any])
    assert_type(engine.resume("t1", anything, 3), Outcome[Any])
    assert_type(engine.resume("t1", "manual-review", 3), Outcome[Any])
    assert_type(engine.resume("t1", "go-on"), Outcome[Any])
    engine.signal("t1", review, Verdict(True, "alice"))
    engine.signal("t1", review, {"approved": True, "reviewer": "alice"}, id="1", wait="manual-review@0:1")
    engine.signal("t1", colour, Colour.RED)
    engine.signal("t1", "colour", "red")


def asks_and_controls(engine: Engine) -> None:
    assert_type(engine.pause("t1", reason="audit"), Outcome[Any])
    assert_type(engine.unpause("t1"), Outcome[Any])
    assert_type(engine.cancel("t1", "no use"), Outcome[Any])
    assert_type(engine.cancel("t1", force=True), Outcome[Any])
    assert_type(engine.retry("t1"), Outcome[Any])
    assert_type(engine.reset("t1"), Outcome[Any])
    assert_type(engine.fork("t1", before="classify#2", new_run_id="t2"), Outcome[Any])
    assert_type(engine.fork("t1", before=4), Outcome[Any])
    assert_type(engine.fork("t1", replace=("classify", {"kind": "bug"}), before="draft"), Outcome[Any])
    assert_type(engine.history("t1").result_of("classify", Verdict), Verdict)
    assert_type(engine.history("t1").step("classify").attempts, int)
    assert_type(engine.diff("t1", "t2").same, bool)
    assert_type(diff(engine.history("t1"), engine.history("t2")), Diff)
    assert_type(engine.query("t1"), dict[str, Any])
    assert_type(engine.get("t1"), RunRecord)
    assert_type(engine.runs(status="failed", waiting_for=review, tag=("of", "ada"), limit=3), list[RunRecord])
    assert_type(engine.waiting(review), list[WaitingFor])
    assert_type(engine.waiting(limit=3, after="t1")[0].show, Any)
    assert_type(engine.decide("t1", "review@0:1", Verdict(True, ""), actor="ada"), Outcome[Any])
    assert_type(engine.decide("t1", "review@0:1", actor="a", metadata={"a": 1}, id="1", drive=False), Outcome[Any])
    assert_type(engine.resume("t1", review, Verdict(True, ""), actor="ada", metadata={"via": "web"}), Outcome[Any])
    with engine as same:
        assert_type(same, Engine)


def opens_engines() -> None:
    assert_type(Engine("memory:", workflows=[decide, no_arguments, with_defaults, echo]), Engine)
    Engine("memory:", workflows=(decide,), retry=RetryPolicy(3), park_after=timedelta(seconds=1), lease=10)


# ---- the testing kit


def replays(ticket: Ticket) -> None:
    run = replay(decide, ticket, history=[received(review, Verdict(True, "alice"))])
    assert_type(run, Replay[Verdict])
    assert_type(run.result, Verdict)
    assert_type(run.next, Command[Any] | None)
    assert_type(run.pending, list[Command[Any]])
    assert_type(run.failure, Failure)
    assert_type(replay(no_arguments), Replay[bool])
    assert_type(replay(with_defaults, ticket, history=[returned("text")]), Replay[str])
    assert_type(replay(with_defaults, ticket, "note", history=[raised(CardDeclined())]), Replay[str])
    assert_type(replay(echo, "a", history=[fired()]).result, list[str])


def simulates(ticket: Ticket) -> None:
    run = simulate(with_defaults, ticket, fakes={draft: "text"}, signals={review: (timedelta(days=1), {})})
    assert_type(run, Simulation[str])
    assert_type(run.result, str)
    assert_type(run.elapsed, timedelta)
    assert_type(simulate(no_arguments), Simulation[bool])
    assert_type(simulate(with_a_name, ticket, 2, crash_after="every").result, float)
