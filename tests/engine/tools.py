"""What the tests of the engine share: stores that misbehave on purpose, a clock that is moved by hand, a fold."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from stepwell import Codec, Engine, Step, Workflow
from stepwell.commands import Command
from stepwell.events import EventBase
from stepwell.machine import Machine
from stepwell.testing.environments import EPOCH

PATIENCE = 30.0
"""Seconds after which a test that waits for something is sure that it won't come."""

_METHODS = (
    "append",
    "claim",
    "claim_due",
    "close",
    "create",
    "delete",
    "durability",
    "head",
    "heads",
    "next_due",
    "open_incarnation",
    "read",
    "release",
    "renew",
    "wait",
)


class Wrapped:
    """A store around a store; a subclass overrides what it meddles with."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        for name in _METHODS:
            if not hasattr(type(self), name):
                setattr(self, name, getattr(inner, name))


class Meddled(Wrapped):
    """Calls `act` once, right before the `nth` append of an owner (from 1)."""

    def __init__(self, inner: Any, nth: int, act: Callable[[], object]) -> None:
        super().__init__(inner)
        self.nth = nth
        self.act = act
        self.appends = 0

    def append(self, *where: Any, **how: Any) -> Any:
        if how.get("fence") is not None:
            self.appends += 1
            if self.appends == self.nth:
                self.act()
        return self.inner.append(*where, **how)


class HandClock:
    """A clock that stands still: `wait` blocks until it is woken, `advance` moves it and wakes all who wait."""

    def __init__(self, now: datetime = EPOCH) -> None:
        self._now = now
        self._changed = threading.Condition()
        self._waiting: list[threading.Event] = []
        self.waits: list[float] = []

    def now(self) -> datetime:
        return self._now

    def wait(self, wakeup: threading.Event, seconds: float) -> bool:
        if seconds <= 0:
            return wakeup.is_set()
        with self._changed:
            self._waiting.append(wakeup)
            self.waits.append(seconds)
            self._changed.notify_all()
        woken = wakeup.wait(PATIENCE)
        with self._changed:
            self._waiting.remove(wakeup)
        return woken

    def until_somebody_waits(self) -> float:
        """Block until the clock is waited for; the seconds that were asked for last."""
        with self._changed:
            assert self._changed.wait_for(lambda: bool(self._waiting), PATIENCE), "nobody waits for the clock"
            return self.waits[-1]

    def advance(self, seconds: float) -> None:
        with self._changed:
            self._now += timedelta(seconds=seconds)
            for wakeup in self._waiting:
                wakeup.set()


class Tally:
    """Counts effects by name, from any thread; `add` gives how often, this time included."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.order: list[str] = []

    def add(self, name: str) -> int:
        with self._lock:
            self.counts[name] += 1
            self.order.append(name)
            return self.counts[name]

    def step(self, name: str) -> Step[int]:
        """A step of that name that counts itself; gives how often it was performed."""
        return Step(self.add, name).options(name=name)

    def __getitem__(self, name: str) -> int:
        return self.counts[name]


class Task(threading.Thread):
    """A call in a thread of its own; `result()` gives what came of it, or raises it."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self._value: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._value = self._call()
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        self.join(PATIENCE)
        assert not self.is_alive(), "the call does not come back"
        if self._error is not None:
            raise self._error
        return self._value


def fold(workflow: Workflow[Any, Any], history: list[Any], run_id: str = "r") -> Machine:
    """Replay a whole history; its `trace` holds every command that was issued."""
    trace: list[tuple[str, Command[Any]]] = []
    machine = Machine(workflow, history[0], codec=Codec(), run_id=run_id, trace=trace)
    for event in history[1:]:
        machine.feed(event)
    return machine


def kinds(engine: Engine, run_id: str = "r", *, incarnation: int | None = None) -> list[str]:
    """The types of a run's events, in order."""
    return [event.kind for event in engine.history(run_id, incarnation=incarnation)]


def steps(engine: Engine, run_id: str = "r") -> list[str]:
    """The step ids of a run's recorded steps, in order."""
    events: list[EventBase] = list(engine.history(run_id))
    return [event.step_id for event in events if event.kind == "step"]  # type: ignore[attr-defined]


def eventually(holds: Callable[[], object]) -> None:
    """Look again and again until something holds."""
    pause = threading.Event()
    for _ in range(int(PATIENCE / 0.005)):
        if holds():
            return
        pause.wait(0.005)
    raise AssertionError("it never came to hold")
