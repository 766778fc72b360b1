"""The workflow that all simulated runs are of, and how its plans are drawn: every command, in any mixture.

A plan is JSON: a list of moves, each a list that begins with its kind. What a move came to is written into a log, as
the workflow has *seen* it (its `repr`), and the log is the run's result. So what was seen live is recorded, and a
replay that sees anything else gives another result.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from datetime import timedelta
from enum import Enum
from typing import Any

from attrs import frozen
from tests.dst.kernel import here

from stepwell import (
    All,
    Child,
    ChildFailed,
    Compensate,
    ContinueAsNew,
    Emit,
    Flow,
    Now,
    Patched,
    Race,
    Random,
    RetryPolicy,
    SetState,
    Signal,
    Sleep,
    Spend,
    Step,
    StepFailed,
    Stream,
    Suspend,
    TimedOut,
    Transaction,
    Uuid,
    current_step,
    workflow,
)

__all__ = [
    "ATTEMPTS",
    "POSTED",
    "SIGNALS",
    "Plan",
    "draw_plan",
    "journey",
    "questions_of",
    "seen_signals",
    "with_transactions",
]

Plan = list[Any]
SIGNALS = ("alpha", "beta")
POSTED = "post-"
ATTEMPTS = 4
RETRY = RetryPolicy(ATTEMPTS, initial=2, cap=600, factor=4, jitter=0.5)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@frozen
class Parcel:
    """A value that JSON does not know."""

    number: int
    colours: tuple[Colour, ...]
    weight: timedelta


# ---- steps: each performed by the world, and each giving a value of another type


def _perform(name: str, how: str, seconds: float, seen: Any) -> int:
    task = here()
    assert task is not None
    number: int = task.process.world.perform(task.process, current_step(), (name, how, seconds, seen))
    return number


def count(name: str, how: str, seconds: float, seen: Any) -> int:
    return _perform(name, how, seconds, seen)


def weigh(name: str, how: str, seconds: float, seen: Any) -> float:
    return _perform(name, how, seconds, seen)  # a whole number, which is read back as a float


def pair(name: str, how: str, seconds: float, seen: Any) -> tuple[int, str]:
    return _perform(name, how, seconds, seen), name


def pack(name: str, how: str, seconds: float, seen: Any) -> Parcel:
    number = _perform(name, how, seconds, seen)
    return Parcel(number, (Colour.RED, Colour.BLUE)[: number % 3], timedelta(seconds=number))


def note(name: str, how: str, seconds: float, seen: Any) -> dict[str, list[int]]:
    return {name: [_perform(name, how, seconds, seen)]}


def undo(name: str, how: str, seconds: float, seen: Any) -> None:
    _perform(name, how, seconds, seen)


def pour(name: str, how: str, seconds: float, seen: Any) -> Generator[int, None, int]:
    """A stream: the process may die between what it yields."""
    number = _perform(name, how, seconds, seen)
    task = here()
    assert task is not None
    for part in range(number % 4):
        yield part
        task.process.kernel.sleep(0.2 * (number % 3))
    return number


def post(database: Any, name: str, how: str) -> int:
    """A transaction, whose row is there if and only if its record is."""
    task = here()
    assert task is not None
    number: int = task.process.world.post(task.process, current_step(), (name, how, 0.0, None), database)
    return number


STEPS: dict[str, Callable[..., Any]] = {step.__name__: step for step in (count, weigh, pair, pack, note)}


# ---- the workflow


@workflow(ttl=timedelta(hours=3), recursive=True)
def journey(plan: Plan, log: list[list[str]]) -> Flow[list[list[str]]]:
    """Follow a plan; gives what was seen on the way, what came before a ContinueAsNew included."""
    yield from _walk(plan, log)
    return log


def _walk(plan: Plan, log: list[list[str]]) -> Generator[Any, Any, None]:
    for move in plan:
        seen = yield from MOVES[move[0]](log, *move[1:])
        if seen is not None:
            log.append([move[0], *(one if isinstance(one, str) else repr(one) for one in seen)])


def _step(_log: Any, name: str, kind: str, how: str, seconds: float) -> Generator[Any, Any, Any]:
    """A step; before it something is drawn that it is called with, so that a draw that is lost shows."""
    drawn = (yield Random()) if how == "drawn" else None
    command: Step[Any] = Step(STEPS[kind], name, how, seconds, drawn).options(name=name)
    return (yield from _performed(command, name, how))


def _stream(_log: Any, name: str, kept: bool, how: str, seconds: float) -> Generator[Any, Any, Any]:
    """A stream, whose chunks are recorded or not."""
    command = Stream(pour, name, how, seconds, None).options(name=name, record_chunks=kept)
    return (yield from _performed(command, name, how))


def _post(_log: Any, name: str, how: str) -> Generator[Any, Any, Any]:
    command = Transaction(post, name, how).options(name=f"{POSTED}{name}")
    return (yield from _performed(command, name, how))


def _performed(command: Step[Any], name: str, how: str) -> Generator[Any, Any, Any]:
    if how == "flaky":
        command = command.options(retry=RETRY)
    elif how == "once":
        command = command.options(at_most_once=True)
    elif how == "hurried":
        command = command.options(timeout=20, retry=RETRY)
    try:
        return [name, (yield command)]
    except StepFailed as error:
        return [name, error.failure.type]


def _sleep(_log: Any, seconds: float) -> Generator[Any, Any, Any]:
    yield Sleep(timedelta(seconds=seconds))


def _ask(_log: Any, name: str, timeout: float | None) -> Generator[Any, Any, Any]:
    try:
        return [name, (yield Suspend(Signal(name, int), timeout=timeout))]
    except TimedOut:
        return ["nobody", name]


def _all(log: Any, *plans: Plan) -> Generator[Any, Any, Any]:
    values = yield All(*(_walk(plan, log) for plan in plans))
    return [len(values)]


def _race(log: Any, *plans: Plan) -> Generator[Any, Any, Any]:
    index, _ = yield Race(*(_walk(plan, log) for plan in plans))
    return [index]


def _child(_log: Any, plan: Plan, detached: bool) -> Generator[Any, Any, Any]:
    try:
        child = Child(journey, plan, [])
        return [(yield child.options(detached=True) if detached else child)]
    except ChildFailed as error:
        return [error.failure.type]


def _draw(_log: Any) -> Generator[Any, Any, Any]:
    return [(yield Now()), (yield Uuid()), (yield Random()), (yield Patched("draws"))]


def _tell(_log: Any, topic: str) -> Generator[Any, Any, Any]:
    yield Emit([topic], topic=topic)
    yield SetState(topic=topic)


def _spend(_log: Any, amount: int) -> Generator[Any, Any, Any]:
    return [(yield Spend(amount))]


def _undo(_log: Any, name: str) -> Generator[Any, Any, Any]:
    yield Compensate(undo, name, "undo", 0.0, None)


def _cleanly(log: Any, plan: Plan, name: str) -> Generator[Any, Any, Any]:
    """A plan with a step in its `finally`, which is performed when the run passes there, and never when it is left."""
    try:
        yield from _walk(plan, log)
    finally:
        yield Step(undo, name, "clean", 0.0, None).options(name=name)


def _again(log: Any, plan: Plan) -> Generator[Any, Any, Any]:
    yield ContinueAsNew(plan, log)


def _raise(_log: Any) -> Generator[Any, Any, Any]:
    yield from ()
    raise ValueError("as planned")


MOVES: dict[str, Callable[..., Generator[Any, Any, Any]]] = {
    "again": _again,
    "all": _all,
    "ask": _ask,
    "child": _child,
    "cleanly": _cleanly,
    "draw": _draw,
    "post": _post,
    "race": _race,
    "raise": _raise,
    "sleep": _sleep,
    "spend": _spend,
    "step": _step,
    "stream": _stream,
    "tell": _tell,
    "undo": _undo,
}


# ---- plans


class _Drawing:
    """Draws one plan: `left` commands, no more."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.left = chance.randint(4, 16)
        self.number = 0

    def moves(self, most: int, depth: int) -> Plan:
        made = []
        for _ in range(self.chance.randint(1, most)):
            if self.left <= 0:
                break
            self.left -= 1
            made.append(self.move(depth))
        return made

    def move(self, depth: int) -> list[Any]:
        chance = self.chance
        kinds = ["step"] * 9 + ["stream"] * 2 + ["sleep"] * 3 + ["ask"] * 3 + ["draw", "tell", "spend", "undo"]
        if depth < 2:
            kinds += ["all", "all", "race", "cleanly", "child", "child"]
        kind = chance.choice(kinds)
        self.number += 1
        name = f"s{self.number}"
        if kind == "step":
            how = chance.choice(["ok", "ok", "drawn", "flaky", "flaky", "flaky", "once", "fails", "hurried"])
            seconds = chance.choice([0.0, 0.0, 0.1, 0.5, 2.0, chance.choice([3.0, 8.0, 8.0, 45.0])])
            return ["step", name, chance.choice(list(STEPS)), how, seconds]
        if kind == "stream":
            how = chance.choice(["ok", "flaky", "once", "fails"])
            return ["stream", name, chance.random() < 0.7, how, chance.choice([0.0, 0.5, 8.0])]
        if kind == "sleep":
            return ["sleep", chance.choice([0.5, 3, 20, 400, 3600, 3 * 3600])]
        if kind == "ask":
            return ["ask", chance.choice(SIGNALS), chance.choice([None, None, 2, 600, 7200])]
        if kind in ("all", "race"):
            return [kind, *(self.moves(3, depth + 1) for _ in range(chance.randint(1, 3)))]
        if kind == "child":
            return ["child", self.moves(3, depth + 1), chance.random() < 0.2]
        if kind == "cleanly":
            return ["cleanly", self.moves(3, depth + 1), name]
        last: dict[str, list[Any]] = {"tell": [name], "spend": [10], "undo": [name], "draw": []}
        return [kind, *last[kind]]


def draw_plan(chance: random.Random) -> Plan:
    """A plan by seeded chance."""
    drawing = _Drawing(chance)
    plan = drawing.moves(7, 0)
    end = chance.random()
    if end < 0.15:
        plan.append(["again", drawing.moves(4, 0)])
    elif end < 0.25:
        plan.append(["raise"])
    return plan


def with_transactions(plan: Plan) -> Plan:
    """The same plan with transactions in place of some steps, for a store that can take rows of others."""
    found: Plan = []
    for kind, *rest in plan:
        if kind == "step" and rest[2] in ("ok", "fails"):
            found.append(["post", rest[0], rest[2]])
        elif kind in ("all", "race"):
            found.append([kind, *map(with_transactions, rest)])
        elif kind in ("child", "cleanly", "again"):
            found.append([kind, with_transactions(rest[0]), *rest[1:]])
        else:
            found.append([kind, *rest])
    return found


def questions_of(plan: Plan) -> list[str]:
    """The signals that a run of this plan itself may wait for, those after a ContinueAsNew included."""
    found: list[str] = []
    for move in plan:
        if move[0] == "ask":
            found.append(move[1])
        elif move[0] in ("all", "race"):
            found += [name for branch in move[1:] for name in questions_of(branch)]
        elif move[0] in ("cleanly", "again"):
            found += questions_of(move[1])
    return found


def seen_signals(log: list[list[str]], name: str) -> list[int]:
    """The payloads of one signal that a run has seen, in order."""
    return [int(line[2]) for line in log if line[0] == "ask" and line[1] == name]
