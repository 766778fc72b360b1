"""What stands in for steps and children in a simulation, and takes down what was asked of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from datetime import timedelta
from functools import wraps
from typing import Any

from attrs import define, field, frozen

from .. import events as e
from ..commands import Step, Transaction
from ..errors import StepTimeoutError
from ..fibers import describe
from ..loading import read_tails
from ..performers import StepContext, call_step
from ..results import flow_result
from ..retry import as_seconds
from ..store import Store
from ..wire import read_event
from ..workflows import Workflow
from .answers import Answer
from .chronicle import Chronicle
from .environments import VirtualClock

__all__ = ["REAL", "Abort", "Call", "SimulationError", "Takes", "World", "stand_in", "takes"]


class SimulationError(AssertionError):
    """The simulation can't go on, or found what must not be: a missing fake, a step that ran twice, a stuck run.

    Its text ends with everything that had happened.
    """


class Abort(SystemExit):
    """Leaves the engine without being recorded."""

    def __init__(self, error: SimulationError) -> None:
        super().__init__(str(error))
        self.error = error


@define
class Call:
    """A step that was performed, or a faked child.

    Attributes:
        step_id: the step's id; of a faked child, the name of its workflow.
        attempt: 1-based number of the try.
        time: virtual time since the start.
        incarnation: in which the run was; a restart of the workflow's own opens the next one.
        run_id: the run; another one than "simulation" for a step of a child, and for a faked child.
    """

    step_id: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    attempt: int
    time: timedelta
    incarnation: int = 0
    run_id: str = "simulation"


@frozen
class Takes:
    """A fake that takes virtual time; `takes` makes one."""

    seconds: float
    answer: Any


def takes(duration: timedelta | float, answer: Any = None) -> Takes:
    """Make a fake that takes virtual time; one that takes longer than the step may is a time-out.

    Args:
        duration: how long, timedelta or seconds.
        answer: what comes of it then, any other fake.

    Raises:
        InvalidInputError: `duration` is none.
    """
    return Takes(as_seconds(duration, "a fake's duration"), answer)


class _Real:
    def __repr__(self) -> str:
        return "REAL"


REAL = _Real()
"""As a fake: call the step's own function, or run the child."""


@define
class World:
    """What survives a crash: time, fakes with their place, and what was performed."""

    clock: VirtualClock
    fakes: dict[Any, Any]
    store: Store
    chronicle: Chronicle
    begun: Any = None
    stand_ins: dict[Any, Workflow[..., Any]] = field(factory=dict)
    taken: Counter[Any] = field(factory=Counter)  # answers of each list
    turns: dict[Any, int] = field(factory=dict)  # which of them an attempt got
    done: set[Any] = field(factory=set)  # attempts that were performed
    calls: list[Call] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.begun = self.clock.now()

    def elapsed(self) -> timedelta:
        """Virtual time since the start."""
        passed: timedelta = self.clock.now() - self.begun
        return passed

    def perform(self, step: Step[Any], context: StepContext) -> Any:
        """Answer a step from its fake."""
        if step.fn in self.stand_ins:
            return self._child(self.stand_ins[step.fn], step, context)
        call = self._called(context.step_id, step, context)
        self.chronicle.note("call", f"{_shown(call)}{f', attempt {call.attempt}' if call.attempt > 1 else ''}")
        for key in (context.step_id, step.fn, step.name):
            if _known(key, self.fakes):
                limit = step.given.timeout
                return self._answer(key, lambda: self._real(step, context), call, limit)
        raise Abort(
            SimulationError(
                f"no fake for {describe(step)} (step id {context.step_id!r}): give fakes={{{step.name}: value}}, with "
                "the function, its step name or its step id as the key"
            )
        )

    def stand_in(self, workflow: Workflow[..., Any]) -> Workflow[..., Any]:
        """What is run in place of a child, answered from its fake."""

        def answer(*args: Any) -> Any:
            raise AssertionError(args)  # `perform` is asked in its place

        self.stand_ins[answer] = workflow
        return stand_in(workflow, answer)

    def _child(self, workflow: Workflow[..., Any], step: Step[Any], context: StepContext) -> Any:
        call = self._called(workflow.name, step, context)
        self.chronicle.note("child", _shown(call))
        return self._answer(self.faked(workflow), None, call, None)

    def _called(self, name: str, step: Step[Any], context: StepContext) -> Call:
        """Take down that a step, or a faked child, is performed; SimulationError when it was and is recorded."""
        head = self.store.head(context.run_id)
        number = 0 if head is None else head.incarnation
        run_id, attempt = context.run_id, context.attempt
        call = Call(name, step.args, step.kwargs, attempt, self.elapsed(), number, run_id=run_id)
        done = (run_id, name, attempt, number)
        if done in self.done and self._is_recorded(context, number):
            text = f"step {name!r} ran again (attempt {attempt}) after a crash, though recorded"
            raise Abort(SimulationError(text))
        self.done.add(done)
        self.calls.append(call)
        return call

    def _is_recorded(self, context: StepContext, incarnation: int) -> bool:
        """Whether what an attempt came to is in the history: what is not may be performed again after a crash."""
        for tail in read_tails(self.store, context.run_id, incarnation=incarnation):
            for event in map(read_event, tail.records):
                if event.at == context.at and (
                    isinstance(event, e.Step) or (isinstance(event, e.Attempt) and event.attempt >= context.attempt)
                ):
                    return True
        return False

    def _turn(self, key: Any, call: Call, answers: list[Any]) -> Any:
        """The next answer of a list; an attempt that is made again, since it was not recorded, gets its own."""
        asks = (key, call.run_id, call.step_id, call.attempt, call.incarnation)
        if asks not in self.turns:
            self.turns[asks] = self.taken[key]
            self.taken[key] += 1
        if self.turns[asks] >= len(answers):
            text = f"fake {key!r} has {len(answers)} answers, and {call.step_id!r} asks for one more"
            raise Abort(SimulationError(text))
        return answers[self.turns[asks]]

    def _answer(self, key: Any, real: Callable[[], Any] | None, call: Call, limit: float | None) -> Any:
        fake = self.fakes[key]
        if isinstance(fake, list):
            fake = self._turn(key, call, fake)
        if isinstance(fake, Takes):
            if limit is not None and fake.seconds > limit:
                self.clock.advance(limit)
                raise StepTimeoutError(f"step {call.step_id!r} took longer than {limit:g} s")
            self.clock.advance(fake.seconds)
            fake = fake.answer
        if isinstance(fake, Answer):
            if fake.kind == "raised":
                raise fake.value
            fake = fake.value
        if isinstance(fake, BaseException):
            raise fake
        if fake is REAL and real is not None:
            return real()
        return fake(*call.args, **call.kwargs) if callable(fake) else fake

    def _real(self, step: Step[Any], context: StepContext) -> Any:
        if isinstance(step, Transaction):
            text = (
                f"{describe(step)} can't be REAL: a simulation has no database. Give a value, or a function, which "
                f"is called without the connection: lambda *args: {step.name}(your_connection, *args)"
            )
            raise Abort(SimulationError(text))
        return call_step(step, context)

    def faked(self, workflow: Workflow[..., Any]) -> Any:
        """The key of the fake of a child's workflow; None when it is real."""
        named = (workflow, workflow.name)
        return next((key for key, fake in self.fakes.items() if fake is not REAL and key in named), None)

    def fakes_child(self, name: str) -> bool:
        """Whether children of a workflow's name are faked."""
        named = {key.name if isinstance(key, Workflow) else key for key, fake in self.fakes.items() if fake is not REAL}
        return name in named


def stand_in(workflow: Workflow[..., Any], answer: Callable[..., Any]) -> Workflow[..., Any]:
    """A workflow of the same name, version, parameters and result, whose one step calls `answer`."""

    @wraps(workflow.annotated)
    def faked(*args: Any) -> Generator[Any, Any, Any]:
        step: Step[Any] = Step(answer, *args)
        return (yield step.options(name=workflow.name.replace("#", "_"), into=flow_result(workflow)))

    return Workflow(faked, name=workflow.name, version=workflow.version, recursive=True)


def _known(key: Any, fakes: dict[Any, Any]) -> bool:
    try:
        return key in fakes
    except TypeError:  # a callable that can't be hashed
        return False


def _shown(call: Call) -> str:
    parts = [*map(repr, call.args), *(f"{name}={value!r}" for name, value in call.kwargs.items())]
    where = "" if call.run_id == "simulation" else f"[{call.run_id}] "
    return f"{where}{call.step_id}({', '.join(parts)})"
