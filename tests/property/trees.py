"""Random workflow trees: one workflow whose code is grown from a seed, so that every shape of nesting occurs."""

from __future__ import annotations

import random
from collections.abc import Generator
from datetime import timedelta
from typing import Any

from stepwell import (
    All,
    Cancelled,
    Emit,
    Flow,
    Now,
    Patched,
    Race,
    Random,
    RetryPolicy,
    SetState,
    Signal,
    SignalRejected,
    Sleep,
    Step,
    StepFailed,
    Suspend,
    TimedOut,
    Uuid,
    workflow,
)

Node = tuple[Any, ...]
SIGNALS = ("alpha", "beta", "gamma")
FAILURES = (StepFailed, TimedOut, SignalRejected)


def work(name: str, mode: str) -> str:
    """What every step of a tree calls; the harness answers in its place."""
    raise AssertionError("the harness performs steps")


def grow(rng: random.Random, *, budget: int = 40, failing: bool = True, waits: bool = True) -> Node:
    """Grow a tree of about `budget` commands.

    Args:
        failing: some steps fail, and some failures are caught.
        waits: there are sleeps, signals and races.
    """
    left = [budget]
    return ("seq", [_grow(rng, left, 0, failing, waits) for _ in range(rng.randint(3, 9))])


def _grow(rng: random.Random, left: list[int], depth: int, failing: bool, waits: bool) -> Node:
    left[0] -= 1
    if depth >= 4 or left[0] <= 0 or rng.random() < 0.45:
        return _leaf(rng, left, failing, waits)
    many = rng.randint(1, 4)
    kind = rng.choice(["seq", "all", "all", "race", "try", "finally"])
    children = [_grow(rng, left, depth + 1, failing, waits) for _ in range(many)]
    if kind == "all":
        return ("all", children, rng.choice([None, None, 1, 2]), failing and rng.random() < 0.2)
    if kind == "race":
        return ("race", children) if waits else ("all", children, None, False)
    if kind == "try" and failing:
        return ("try", ("seq", children), _leaf(rng, left, False, waits))
    if kind == "finally":
        return ("finally", ("seq", children), ("step", f"clean{left[0]}", "ok"))
    return ("seq", children)


def _leaf(rng: random.Random, left: list[int], failing: bool, waits: bool) -> Node:
    number = left[0]
    modes = ["ok"] * 6 + (["fails", "flaky", "flaky", "once"] if failing else [])
    kinds = ["step"] * 6 + ["now", "random", "uuid", "emit", "state", "patched"]
    if waits:
        kinds += ["sleep", "suspend", "suspend", "suspend"]
    kind = rng.choice(kinds)
    if kind == "step":
        return ("step", f"s{number}", rng.choice(modes))
    if kind == "sleep":
        return ("sleep", rng.choice([0, 1, 3, 20, 400]))
    if kind == "suspend":
        timeout = rng.choice([None, None, 2, 60]) if failing else None
        return ("suspend", rng.choice(SIGNALS), timeout, timeout is not None and rng.random() < 0.5, rng.random() < 0.2)
    return (kind, rng.choice(["x", "y", "z"]))


def walk(node: Node, log: list[Any]) -> Generator[Any, Any, Any]:
    """Run a tree; `log` is shared by all branches, so that their order shows."""
    kind = node[0]
    if kind == "seq":
        last = None
        for child in node[1]:
            last = yield from walk(child, log)
        return last
    if kind == "all":
        values = yield All(*(_branch(child, log) for child in node[1]), limit=node[2], settle=node[3])
        log.append(["all", [v if not isinstance(v, BaseException) else type(v).__name__ for v in values]])
        return len(values)
    if kind == "race":
        index, value = yield Race(*(_branch(child, log) for child in node[1]))
        log.append(["race", index, value])
        return value
    if kind == "try":
        try:
            return (yield from walk(node[1], log))
        except FAILURES as error:
            log.append(["caught", type(error).__name__])
            return (yield from walk(node[2], log))
    if kind == "finally":
        try:
            return (yield from walk(node[1], log))
        except Cancelled:
            log.append(["cancelled"])
            raise
        finally:
            log.append(["finally"])
            yield from walk(node[2], log)
    value = yield from _command(node)
    log.append([kind, value])
    return value


def _branch(node: Node, log: list[Any]) -> Any:
    """Some branches are bare commands."""
    if node[0] in ("step", "sleep", "now") and len(str(node)) % 2:
        return next(_command(node))
    return walk(node, log)


RETRY = RetryPolicy(3, initial=1, jitter=0.5, cap=30)


def _command(node: Node) -> Generator[Any, Any, Any]:
    kind = node[0]
    if kind == "step":
        step = Step(work, node[1], node[2]).options(name=node[1])
        if node[2] == "flaky":
            step = step.options(retry=RETRY)
        elif node[2] == "once":
            step = step.options(at_most_once=True)
        return (yield step)
    if kind == "sleep":
        yield Sleep(timedelta(seconds=node[1]))
        return "slept"
    if kind == "suspend":
        _, name, timeout, default, fresh = node
        if default:
            return (yield Suspend(Signal(name, int), timeout=timeout, default=-1, fresh=fresh))
        return (yield Suspend(Signal(name, int), timeout=timeout, fresh=fresh))
    if kind == "now":
        return (yield Now()).isoformat()
    if kind == "random":
        return (yield Random())
    if kind == "uuid":
        return str((yield Uuid()))
    if kind == "emit":
        yield Emit([node[1]], topic=node[1])
        return None
    if kind == "state":
        yield SetState(**{node[1]: [1, node[1]]})
        return None
    return (yield Patched(node[1]))


@workflow
def wander(seed: int, failing: bool, waits: bool) -> Flow[list[Any]]:
    """The workflow that a seed stands for."""
    log: list[Any] = []
    yield from walk(grow(random.Random(seed), failing=failing, waits=waits), log)
    return log
