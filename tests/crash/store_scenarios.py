"""What is done to an engine while its store fails: seven short stories, each verb of which may be said again.

The caller of a verb that raised an error of the store's does what callers do: it waits until leases have lapsed and
says the same again, or goes on with `advance` when it is told that the thing was done already.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from attrs import define, field, frozen

from stepwell import All, Cancelled, Engine, Flow, RetryPolicy, Sleep, Step, Suspend, workflow
from stepwell.errors import (
    ConflictError,
    CorruptHistoryError,
    LeaseLostError,
    RunBusyError,
    RunClosedError,
    StoreError,
)
from stepwell.outcomes import Outcome, RunRecord
from stepwell.testing.environments import VirtualClock

__all__ = ["SCENARIOS", "Scenario", "Verb", "World"]

RUN, FORK = "r", "fork"
TRIES = 6
"""How often a verb is said before the caller gives up; one fault must never cost as many."""

FAILURES = (StoreError, CorruptHistoryError, LeaseLostError, RunBusyError)
"""What the caller of an engine may be told when the store fails."""

DONE = (ConflictError, RunClosedError)
"""What the caller may be told that says a thing again that was done."""


@define
class World:
    """What a story is played with.

    Attributes:
        workflow: the story's.
        effects: how often each step's function was called, by name.
        mended: whether `last` works.
        told: what the engine raised.
        wrong: what must not be.
    """

    clock: VirtualClock
    engine: Any = None
    workflow: Any = None
    effects: Counter[str] = field(factory=Counter)
    mended: bool = False
    told: list[BaseException] = field(factory=list)
    wrong: list[str] = field(factory=list)

    def step(self, name: str, *, fails: bool = False, flaky: bool = False) -> Step[str]:
        """A step that counts itself; one that fails does so until the world is mended, a flaky one once."""

        def effect() -> str:
            self.effects[name] += 1
            if fails and not self.mended:
                raise ValueError("the card is declined")
            if flaky and self.effects[name] == 1:
                raise ConnectionError("the line is down")
            return name

        policy = RetryPolicy(attempts=3, initial=1) if flaky else None
        return Step(effect).options(name=name, into=str, retry=policy)


@frozen
class Verb:
    """Something that a caller asks of the engine.

    Attributes:
        name: for reports.
        say: does it.
        status: how the run stands afterwards.
        run_id: which run.
    """

    name: str
    say: Callable[[Engine, World], Outcome[Any] | None]
    status: str
    run_id: str = RUN

    def play(self, world: World) -> None:
        """Say it until the run stands as it should."""
        for number in range(TRIES):
            try:
                outcome = self._try(world, world.engine, again=number > 0)
                if outcome.status == self.status:
                    return
                world.told.append(RuntimeError(f"{self.name} came to {outcome!r}"))
            except FAILURES as error:
                world.told.append(error)
            except Exception as error:
                world.wrong.append(f"{self.name} raised {type(error).__name__}: {error}")
                return
            world.clock.advance(60)  # so that leases have lapsed
        world.wrong.append(f"{self.name} did not come to its end: {world.told[-1]!r}")

    def _try(self, world: World, engine: Engine, *, again: bool) -> Outcome[Any] | RunRecord:
        """Say it; who says it again is content with what was done before, and drives on what nobody drives."""
        outcome: Outcome[Any] | RunRecord | None
        try:
            outcome = self.say(engine, world)
        except DONE:
            if not again:
                raise
            outcome = None
        if outcome is None or (again and outcome.status != self.status):
            outcome = engine.get(self.run_id)
            if outcome.blocked or outcome.status != self.status:
                return engine.advance(self.run_id)
        return outcome


@frozen
class Scenario:
    """A story.

    Attributes:
        make: the workflow, in a world.
        verbs: what is done, in order.
        effects: how often each step is performed when nothing fails.
        result: what the run comes to, None when it has no result.
        last: the type of its last event.
    """

    name: str
    make: Callable[[World], Any]
    verbs: tuple[Verb, ...]
    effects: dict[str, int]
    result: Any = None
    last: str = "complete"


def _start(status: str) -> Verb:
    return Verb("start", lambda engine, world: engine.start(world.workflow, run_id=RUN), status)


def _straight(world: World) -> Any:
    @workflow
    def story() -> Flow[list[str]]:
        one = yield from world.step("one")
        two = yield from world.step("two")
        return [one, two, (yield from world.step("three"))]

    return story


def _branches(world: World) -> Any:
    def branch(name: str) -> Flow[list[str]]:
        return [(yield from world.step(f"{name}1", flaky=name == "left")), (yield from world.step(f"{name}2"))]

    @workflow
    def story() -> Flow[list[str]]:
        left, right = yield All(branch("left"), branch("right"))
        return [*left, *right, (yield from world.step("last"))]

    return story


def _signals(world: World) -> Any:
    @workflow
    def story() -> Flow[list[str]]:
        seen = [(yield from world.step("one"))]
        seen.append((yield from Suspend("go", into=str)))
        seen.append((yield from world.step("two")))
        seen.append((yield from Suspend("when", into=str)))
        seen.append((yield from world.step("three")))
        return seen

    return story


def _sleeps(world: World) -> Any:
    @workflow
    def story() -> Flow[list[str]]:
        seen = [(yield from world.step("one"))]
        yield Sleep(3600)
        seen.append((yield from world.step("two")))
        return seen

    return story


def _cleans_up(world: World) -> Any:
    @workflow
    def story() -> Flow[list[str]]:
        seen = [(yield from world.step("one"))]
        try:
            yield from Suspend("never", into=str)
        except Cancelled:
            yield from world.step("undo")
            raise
        return seen

    return story


def _fails(world: World) -> Any:
    @workflow
    def story() -> Flow[list[str]]:
        seen = [(yield from world.step("one")), (yield from world.step("two"))]
        return [*seen, (yield from world.step("last", fails=True))]

    return story


def _retry(engine: Engine, world: World) -> Outcome[Any] | None:
    world.mended = True
    return engine.retry(RUN)


def _reset(engine: Engine, world: World) -> Outcome[Any] | None:
    before = engine._queries.head(RUN).incarnation
    return engine.reset(RUN) if before == 1 else None


def _run_due(engine: Engine, world: World) -> Outcome[Any] | None:
    world.clock.advance(3600)
    outcomes = engine.run_due()
    return outcomes[0] if outcomes else None


def _signal(name: str) -> Callable[[Engine, World], Outcome[Any] | None]:
    def say(engine: Engine, _world: World) -> Outcome[Any] | None:
        engine.signal(RUN, name, name, id=name)
        return None

    return say


_SIGNALLED = ["one", "go", "two", "when", "three"]

_STORIES = (
    Scenario(
        "a straight run",
        _straight,
        (_start("completed"),),
        {"one": 1, "two": 1, "three": 1},
        ["one", "two", "three"],
    ),
    Scenario(
        "branches and a retried step",
        _branches,
        (_start("completed"),),
        {"left1": 2, "left2": 1, "right1": 1, "right2": 1, "last": 1},
        ["left1", "left2", "right1", "right2", "last"],
    ),
    Scenario(
        "signals",
        _signals,
        (
            _start("suspended"),
            Verb("early signal", _signal("when"), "suspended"),
            Verb("resume", lambda engine, _: engine.resume(RUN, "go", "go", id="go"), "completed"),
        ),
        {"one": 1, "two": 1, "three": 1},
        _SIGNALLED,
    ),
    Scenario(
        "a sleep",
        _sleeps,
        (_start("suspended"), Verb("run_due", _run_due, "completed")),
        {"one": 1, "two": 1},
        ["one", "two"],
    ),
    Scenario(
        "a cancel with clean-up",
        _cleans_up,
        (_start("suspended"), Verb("cancel", lambda engine, _: engine.cancel(RUN, "not today"), "cancelled")),
        {"one": 1, "undo": 1},
        last="cancelled",
    ),
    Scenario(
        "fail, retry, reset, fork",
        _fails,
        (
            _start("failed"),
            Verb("retry", _retry, "completed"),
            Verb("reset", _reset, "completed"),
            Verb("fork", lambda engine, _: engine.fork(RUN, before="two", new_run_id=FORK), "completed", FORK),
        ),
        {"one": 2, "two": 3, "last": 4},
        ["one", "two", "last"],
    ),
    Scenario(
        "pause and unpause",
        _signals,
        (
            _start("suspended"),
            Verb("pause", lambda engine, _: engine.pause(RUN), "paused"),
            Verb("signal", _signal("go"), "paused"),
            Verb("unpause", lambda engine, _: engine.unpause(RUN), "suspended"),
            Verb("resume", lambda engine, _: engine.resume(RUN, "when", "when", id="when"), "completed"),
        ),
        {"one": 1, "two": 1, "three": 1},
        _SIGNALLED,
    ),
)

SCENARIOS = {story.name: story for story in _STORIES}
"""By name."""
