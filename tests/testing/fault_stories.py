"""Short stories in the manner of the examples, each told on a store that may fail at any call.

Whoever tells a story does what a program has to: what raised an error of the store's is said again once leases have
lapsed, and what is left to be driven is driven.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from attrs import define, field, frozen
from tests.crash.generations import memory_folder

from stepwell import (
    All,
    Cancelled,
    Child,
    Compensate,
    ConflictError,
    ContinueAsNew,
    Emit,
    Engine,
    Flow,
    LeaseLostError,
    Now,
    Patched,
    Race,
    RetryPolicy,
    RunBusyError,
    RunClosedError,
    SetState,
    Sleep,
    Spend,
    Step,
    StoreError,
    Suspend,
    Transaction,
    Uuid,
    current_step,
    workflow,
)
from stepwell.environment import Environment
from stepwell.store import HeadFilter, Store
from stepwell.testing import Fault, FaultStore, InlineExecutor, SeededEntropy, VirtualClock
from stepwell_stores import open_store

__all__ = ["STORIES", "Story", "World", "tell"]

RUN = "r"
TRIES = 8
FAILURES = (StoreError, LeaseLostError, RunBusyError)
DONE = (ConflictError, RunClosedError)
Said: TypeAlias = Callable[[Engine], object]


@define
class World:
    """What a story is told with.

    Attributes:
        inner: the store below all faults.
        effects: how often each step was performed, by run and step id.
        repeated: steps that were performed though they were recorded.
        told: what the engine raised.
    """

    inner: Store
    clock: VirtualClock
    effects: Counter[str] = field(factory=Counter)
    repeated: list[str] = field(factory=list)
    told: list[BaseException] = field(factory=list)

    def perform(self, name: str, attempts_that_fail: int = 0) -> str:
        """The effect of each step: it looks whether it should be performed at all."""
        step = current_step()
        assert step is not None
        tail = self.inner.read(step.run_id)
        assert tail is not None
        here = f"{step.run_id}.{tail.incarnation} {step.step_id}"
        self.effects[here] += 1
        if any(f'"stepId":"{step.step_id}"'.encode() in line for line in tail.records if _type(line) == "step"):
            self.repeated.append(here)
        if step.attempt <= attempts_that_fail:
            raise ConnectionError("the line is down")
        return name

    def step(self, name: str, fails: int = 0, attempts: int = 1) -> Step[str]:
        return Step(self.perform, name, fails).options(name=name, into=str, retry=RetryPolicy(attempts, jitter=0))


@frozen
class Story:
    """A story.

    Attributes:
        make: its workflows, the first of which is started.
        steps: how many are recorded in the end.
        said: what is said, None for the start, and how the run stands afterwards.
        stores: where it can be told.
    """

    make: Callable[[World], list[Any]]
    steps: int
    said: tuple[tuple[Said | None, str], ...] = ((None, "completed"),)
    stores: tuple[str, ...] = ("memory", "sqlite", "jsonl")


def _type(line: bytes) -> str:
    return line.partition(b'"type":"')[2].partition(b'"')[0].decode()


# ---- the stories


def triage(world: World) -> list[Any]:
    @workflow(name="triage")
    def flow() -> Flow[str]:
        found = yield from world.step("classify", 1, 3)
        verdict = yield from Suspend("review", into=str)
        note = yield from Suspend("note", into=str)
        return f"{found} {verdict} {note} {(yield from world.step('draft'))}"

    return [flow]


def fan_out(world: World) -> list[Any]:
    def part(name: str) -> Flow[str]:
        return (yield from world.step(f"read {name}")) + (yield from world.step(f"write {name}", 1, 2))

    @workflow(name="fan-out")
    def flow() -> Flow[list[str]]:
        parts = yield All(*(part(name) for name in "abc"), limit=2)
        return [*parts, (yield from world.step("sum"))]

    return [flow]


def saga(world: World) -> list[Any]:
    @workflow(name="saga")
    def flow() -> Flow[str]:
        for name in ("car", "hotel"):
            yield Compensate(world.perform, f"undo {name}").options(name=f"undo {name}")
            yield world.step(f"book {name}")
        return (yield from world.step("book flight", 9, 2))

    return [flow]


def late(world: World) -> list[Any]:
    @workflow(name="late")
    def flow() -> Flow[list[Any]]:
        winner, value = yield Race(done=Suspend("paid"), late=Sleep(30 * 86400))
        yield Sleep(60)
        return [winner, value, (yield from world.step("remind"))]

    return [flow]


def family(world: World) -> list[Any]:
    @workflow(name="child")
    def child(name: str) -> Flow[str]:
        return (yield from world.step(f"work {name}"))

    @workflow(name="parent")
    def parent() -> Flow[list[str]]:
        pair = yield All(Child(child, "a"), Child(child, "b"))
        return [*pair, (yield from world.step("collect"))]

    return [parent, child]


def loop(world: World) -> list[Any]:
    @workflow(name="loop")
    def flow(turn: int = 0) -> Flow[list[Any]]:
        yield world.step(f"turn {turn}")
        if turn < 2:
            yield ContinueAsNew(turn + 1)
        return [turn, (yield from Suspend("kept", into=str))]

    return [flow]


def values(world: World) -> list[Any]:
    @workflow(name="values")
    def flow() -> Flow[str]:
        yield SetState(phase="begun")
        yield Now()
        yield Emit("hello")
        yield world.step("one")
        yield Uuid()
        yield Spend(3)
        new = yield from Patched("second")
        yield SetState(phase="over")
        return (yield from world.step("two")) + str(new)

    return [flow]


def clean_up(world: World) -> list[Any]:
    @workflow(name="clean-up")
    def flow() -> Flow[None]:
        yield world.step("open")
        try:
            yield Suspend("never")
        except Cancelled:
            yield world.step("shut")
            raise

    return [flow]


def bank(world: World) -> list[Any]:
    def book(connection: sqlite3.Connection, cents: int) -> int:
        connection.execute("CREATE TABLE IF NOT EXISTS bookings (cents INTEGER)")
        connection.execute("INSERT INTO bookings VALUES (?)", (cents,))
        count: int = connection.execute("SELECT count(*) FROM bookings").fetchone()[0]
        return count

    @workflow(name="bank")
    def flow() -> Flow[list[int]]:
        first = yield from Transaction(book, 5)
        yield world.step("tell")
        return [first, (yield from Transaction(book, 7))]

    return [flow]


def _send(name: str) -> Said:
    return lambda engine: engine.signal(RUN, name, name, id=name)


STORIES = {
    "triage": Story(triage, 2, ((None, "suspended"), (_send("note"), "suspended"), (_send("review"), "completed"))),
    "fan-out": Story(fan_out, 7),
    "saga": Story(saga, 5, ((None, "failed"),)),
    "late": Story(late, 1, ((None, "suspended"), (lambda _engine: None, "completed"))),
    "paid": Story(late, 1, ((None, "suspended"), (_send("paid"), "completed"))),
    "family": Story(family, 3),
    "loop": Story(loop, 3, ((None, "suspended"), (_send("kept"), "completed"))),
    "values": Story(values, 2),
    "clean-up": Story(clean_up, 2, ((None, "suspended"), (lambda engine: engine.cancel(RUN), "cancelled"))),
    "bank": Story(bank, 3, stores=("sqlite",)),
}


# ---- telling one


@contextmanager
def _place(kind: str) -> Iterator[Callable[[VirtualClock], Store]]:
    with memory_folder() as folder:
        url = {"memory": "memory:", "jsonl": f"file:{folder}/runs", "sqlite": f"sqlite:///{Path(folder)}/runs.db"}[kind]
        yield lambda clock: open_store(url, clock=clock.micros)


def tell(story: Story, kind: str, *faults: Fault, seed: int = 0) -> tuple[FaultStore, World, dict[str, Any]]:
    """Tell a story, and give the store, what was performed, and how every run ended."""
    with _place(kind) as opened:
        clock = VirtualClock()
        inner = opened(clock)
        world, store = World(inner, clock), FaultStore(inner, *faults, seed=seed, clock=clock)
        environment = Environment(clock=clock, entropy=SeededEntropy(), executor=InlineExecutor(), threads=False)
        flows = story.make(world)
        with Engine(store, flows, park_after=0, environment=environment) as engine:
            for say, status in story.said:
                _until(world, engine, say or (lambda engine: engine.start(flows[0], run_id=RUN)), status)
            store.armed = False
            ends = {head.run_id: _end(inner, head.run_id) for head in inner.heads(HeadFilter(), limit=10)}
    return store, world, ends


def _until(world: World, engine: Engine, say: Said, status: str) -> None:
    """Say it until it is said, and drive what is left to drive until the run stands as it should."""
    said = False
    for _ in range(TRIES):
        try:
            if not said:
                said = _say(engine, say)
            run = engine.get(RUN)
            if run.status == status:
                return
            world.clock.advance(60)  # leases lapse
            if run.status == "suspended" and run.due is not None:
                world.clock.advance_to(run.due)
            engine.run_due()
        except FAILURES as error:
            world.told.append(error)
            world.clock.advance(60)
    raise AssertionError(f"it is {engine.get(RUN).status}, not {status}: {world.told!r}")


def _say(engine: Engine, say: Said) -> bool:
    try:
        say(engine)
    except DONE:  # it was said, and nobody was told
        return True
    return True


def _end(store: Store, run_id: str) -> dict[str, Any]:
    """How a run ended, and which steps are recorded in each of its incarnations."""
    head = store.head(run_id)
    assert head is not None
    histories: list[list[bytes]] = []
    for number in range(head.incarnation + 1):
        tail = store.read(run_id, incarnation=number)
        assert tail is not None
        histories.append(tail.records)
    last = json.loads(histories[-1][-1])
    steps = [sorted(json.loads(line)["stepId"] for line in lines if _type(line) == "step") for lines in histories]
    return {"status": head.head.status, "last": last["type"], "result": last.get("result"), "steps": steps}
