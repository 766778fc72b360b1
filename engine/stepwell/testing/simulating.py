"""`simulate`: the real engine on virtual time, with fakes in place of steps. Takes no time, no file and no thread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta
from typing import Any, Generic, Literal, TypeVar, TypeVarTuple

from attrs import define, field

from stepwell_stores.memory import MemoryStore

from .. import events as e
from ..codec import Codec
from ..commands import Flow, Signal, Step, Transaction
from ..engine import Engine
from ..environment import Environment
from ..errors import Failure, InvalidInputError
from ..fibers import describe
from ..outcomes import Outcome, RunCompleted, RunFailed
from ..performers import StepContext, call_step
from ..retry import RetryPolicy, as_seconds
from ..workflows import Workflow, check_workflow
from .answers import Answer
from .crashing import CrashingStore, SimulatedCrash
from .environments import EPOCH, InlineExecutor, SeededEntropy, VirtualClock

__all__ = ["Call", "Simulation", "SimulationError", "simulate"]

R = TypeVar("R")
Ts = TypeVarTuple("Ts")
RUN_ID = "simulation"


class SimulationError(AssertionError):
    """The simulation can't go on, or found what must not be: a missing fake, a step that ran twice, a stuck run."""


class _Abort(SystemExit):
    """Leaves the engine without being recorded."""

    def __init__(self, error: SimulationError) -> None:
        super().__init__(str(error))
        self.error = error


@define
class Call:
    """A step that was performed.

    Attributes:
        attempt: 1-based number of the try.
        time: virtual time since the start.
        incarnation: in which the run was; a restart of the workflow's own opens the next one.
    """

    step_id: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    attempt: int
    time: timedelta
    incarnation: int = 0


@define
class Simulation(Generic[R]):
    """How a simulated run went.

    Attributes:
        outcome: how it ended, or was left: RunSuspended when it waits for a signal that never comes.
        elapsed: virtual time from start to end.
        calls: the steps that were performed, in order.
        history: the recorded events.
        state: what SetState left.
        crashes: how often the process 'died'.
    """

    outcome: Outcome[R]
    elapsed: timedelta
    calls: list[Call]
    history: list[e.Event]
    state: dict[str, Any]
    emitted: list[Any]
    crashes: int = 0

    @property
    def status(self) -> str:
        """Status of the run."""
        return self.outcome.status

    @property
    def result(self) -> R:
        """The result.

        Raises:
            SimulationError: the run is not completed; the text shows everything that happened.
        """
        if isinstance(self.outcome, RunCompleted):
            result: R = self.outcome.result
            return result
        raise SimulationError(f"the run is not completed: {self.outcome}\n{self.trace()}")

    @property
    def failure(self) -> Failure:
        """The recorded failure.

        Raises:
            SimulationError: the run has not failed.
        """
        if isinstance(self.outcome, RunFailed):
            return self.outcome.failure
        raise SimulationError(f"the run has not failed: {self.outcome}\n{self.trace()}")

    def trace(self) -> str:
        """Everything that was recorded, one line each."""
        lines = []
        for event in self.history:
            name = next((v for k in ("step_id", "waiting_for", "event_name") if (v := getattr(event, k, None))), "")
            error = getattr(event, "error", None)
            lines.append(f"  {event.offset:4} {event.timestamp} {event.kind:9} {event.at or '':8} {name} {error or ''}")
        return "\n".join(line.rstrip() for line in lines)


@define
class _World:
    """What survives a crash: time, fakes with their place, and what was performed."""

    clock: VirtualClock
    fakes: dict[Any, Any]
    codec: Codec
    store: MemoryStore
    start: datetime = field(init=False)
    turns: Counter[Any] = field(factory=Counter)
    calls: list[Call] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.start = self.clock.now()

    def perform(self, step: Step[Any], context: StepContext) -> Any:
        """Answer a step from its fake."""
        elapsed = self.clock.now() - self.start
        head = self.store.head(RUN_ID)
        number = 0 if head is None else head.incarnation
        self.calls.append(Call(context.step_id, step.args, step.kwargs, context.attempt, elapsed, number))
        for key in (context.step_id, step.fn, step.name):
            if _hashable(key) and key in self.fakes:
                return self._answer(key, step, context)
        raise _Abort(
            SimulationError(
                f"no fake for {describe(step)} (step id {context.step_id!r}): give fakes={{{step.name}: value}}, with "
                "the function, its step name or its step id as the key"
            )
        )

    def _answer(self, key: Any, step: Step[Any], context: StepContext) -> Any:
        fake = self.fakes[key]
        if isinstance(fake, list):
            turn = self.turns[key]
            self.turns[key] += 1
            if turn >= len(fake):
                text = f"fake {key!r} has {len(fake)} answers, and {describe(step)} asks for one more"
                raise _Abort(SimulationError(text))
            fake = fake[turn]
        if isinstance(fake, Answer):
            if fake.kind == "raised":
                raise fake.value
            fake = fake.value
        if isinstance(fake, BaseException):
            raise fake
        if fake is REAL:
            if isinstance(step, Transaction):
                text = (
                    f"{describe(step)} can't be REAL: a simulation has no database. Give a value, or a function, which "
                    f"is called without the connection: lambda *args: {step.name}(your_connection, *args)"
                )
                raise _Abort(SimulationError(text))
            return call_step(step, context)
        return fake(*step.args, **step.kwargs) if callable(fake) else fake


class _Real:
    def __repr__(self) -> str:
        return "REAL"


REAL = _Real()
"""As a fake: call the step's own function."""


def _hashable(key: Any) -> bool:
    try:
        hash(key)
    except TypeError:
        return False
    return True


def simulate(
    workflow: Callable[[*Ts], Flow[R]],
    *inputs: *Ts,
    fakes: Mapping[Any, Any] | None = None,
    signals: Mapping[Signal[Any] | str, Any] | None = None,
    cancel: timedelta | float | None = None,
    crash_after: int | Literal["every"] | None = None,
    start: datetime = EPOCH,
    seed: int = 0,
    retry: RetryPolicy | None = None,
    codec: Codec | None = None,
) -> Simulation[R]:
    """Run a workflow on the real engine with fakes and virtual time; sleeps and retries jump the clock.

    Args:
        workflow: what `@workflow` made.
        inputs: its arguments.
        fakes: answers of steps by function, step name, or step id ("classify#2"): a value, a list of values in order
            (an exception, or `raised(exc)`, is raised), a function that is called with the step's arguments, or `REAL`.
        signals: by Signal or name: (timedelta since the start, payload), or a list of those.
        cancel: ask for the run to be cancelled this long after the start.
        crash_after: "die" after that many recorded events, or after "every" one, and go on in a new engine; the run
            must end as it does without, and no recorded step may run again. Never between the `begin` of an
            `at_most_once` step and its outcome, which would rightly end in `StepInterrupted`, nor after a chunk of a
            stream, which would begin anew: then after the next one.
        start: the first virtual instant.
        seed: of what Random and Uuid draw.
        retry: the engine's default retry policy.
        codec: the engine's codec.

    Raises:
        SimulationError: a fake is missing or used up, a recorded step ran again, or a crash changed the outcome.
        InvalidInputError: an argument is wrong.

    Example:
        >>> from stepwell import Flow, Sleep, Step, workflow
        >>> @workflow
        ... def late(name: str) -> Flow[str]:
        ...     yield Sleep(timedelta(days=30))
        ...     return (yield from Step(str.upper, name).options(into=str))
        >>> run = simulate(late, "ada", fakes={"upper": "ADA"})
        >>> run.result, run.elapsed.days
        ('ADA', 30)
    """
    known = check_workflow(workflow)
    events = _timed(signals or {}, cancel)
    how: dict[str, Any] = {"events": events, "start": start, "seed": seed, "retry": retry, "codec": codec or Codec()}
    if crash_after is None:
        return _run(known, inputs, dict(fakes or {}), _never, **how)
    if crash_after != "every" and (
        isinstance(crash_after, bool) or not isinstance(crash_after, int) or crash_after < 1
    ):
        raise InvalidInputError(f"crash_after must be a number of events, 1 or more, or 'every', got {crash_after!r}")
    plain: Simulation[R] = _run(known, inputs, dict(fakes or {}), _never, **how)
    dies = _once(crash_after) if isinstance(crash_after, int) else _always
    crashed: Simulation[R] = _run(known, inputs, dict(fakes or {}), dies, **how)
    _check_same(plain, crashed)
    return crashed


def _never(_total: int) -> bool:
    return False


def _always(_total: int) -> bool:
    return True


def _once(after: int) -> Callable[[int], bool]:
    left = [after]

    def dies(total: int) -> bool:
        if left and total >= left[0]:
            left.clear()
            return True
        return False

    return dies


def _timed(signals: Mapping[Any, Any], cancel: timedelta | float | None) -> list[tuple[float, str | None, Any]]:
    """All outside events as (seconds since the start, signal name or None for cancel, payload), earliest first."""
    found: list[tuple[float, str | None, Any]] = []
    for signal, sent in signals.items():
        name = signal.name if isinstance(signal, Signal) else signal
        for item in sent if isinstance(sent, list) else [sent]:
            if not isinstance(item, tuple) or len(item) != 2:
                raise InvalidInputError(f"signal {name!r} takes (timedelta, payload) or a list of those, got {item!r}")
            found.append((as_seconds(item[0], f"the instant of signal {name!r}"), name, item[1]))
    if cancel is not None:
        found.append((as_seconds(cancel, "cancel"), None, None))
    return sorted(found, key=lambda event: event[0])


def _run(
    workflow: Workflow[..., Any],
    inputs: Sequence[Any],
    fakes: dict[Any, Any],
    dies: Callable[[int], bool],
    *,
    events: list[tuple[float, str | None, Any]],
    start: datetime,
    seed: int,
    retry: RetryPolicy | None,
    codec: Codec,
) -> Simulation[Any]:
    clock = VirtualClock(start)
    memory = MemoryStore(clock=clock.micros)
    world = _World(clock, fakes, codec, memory)
    store = CrashingStore(memory, dies)
    entropy, executor = SeededEntropy(seed), InlineExecutor()
    crashes, opened = 0, ExitStack()

    def engine(on: Any) -> Engine:
        env = Environment(clock=world.clock, entropy=entropy, executor=executor, threads=False)
        made = Engine(
            on,
            [workflow],
            retry=retry,
            codec=codec,
            park_after=0,
            environment=env,
            perform=world.perform,
            strict_inputs=workflow.strict_inputs is not False,
        )
        opened.callback(made.close)
        return made

    def survive(act: Callable[[Engine], Any]) -> None:
        nonlocal crashes
        before = len(world.calls)
        try:
            act(engine(store))
        except SimulatedCrash:
            crashes += 1
        except _Abort as abort:
            raise abort.error from None
        _check_no_repeat(world.calls[:before], world.calls[before:])

    with opened:
        survive(lambda eng: eng.start(workflow, *inputs, run_id=RUN_ID))
        outside, left = engine(memory), list(events)
        while True:
            head = memory.head(RUN_ID)
            assert head is not None
            if head.closed:
                break
            due = None if head.head.due is None else e.from_micros(head.head.due)
            next_event = world.start + timedelta(seconds=left[0][0]) if left else None
            if due is None and next_event is None:
                break  # it waits for a signal that never comes
            if next_event is not None and (due is None or next_event <= due):
                world.clock.advance_to(next_event)
                _, name, value = left.pop(0)
                if name is None:
                    survive(lambda eng: eng.cancel(RUN_ID))
                else:
                    outside.signal(RUN_ID, name, value)
                continue
            assert due is not None
            world.clock.advance_to(due)
            survive(lambda eng: eng.advance(RUN_ID))
        return _report(outside, world, crashes)


def _report(engine: Engine, world: _World, crashes: int) -> Simulation[Any]:
    history = engine.history(RUN_ID)
    return Simulation(
        outcome=engine.wait(RUN_ID, timeout=0),
        elapsed=world.clock.now() - world.start,
        calls=world.calls,
        history=history,
        state=engine.query(RUN_ID),
        emitted=[world.codec.decode(event.value) for event in history if isinstance(event, e.Emit)],
        crashes=crashes,
    )


def _check_no_repeat(before: list[Call], now: list[Call]) -> None:
    """No attempt that was performed in an earlier session, and recorded then, is performed again."""
    done = {(call.step_id, call.attempt, call.incarnation) for call in before}
    again = [call for call in now if (call.step_id, call.attempt, call.incarnation) in done]
    if again:
        call = again[0]
        raise SimulationError(
            f"step {call.step_id!r} ran again (attempt {call.attempt}) after a crash, though recorded"
        )


def _check_same(plain: Simulation[Any], crashed: Simulation[Any]) -> None:
    if plain.outcome != crashed.outcome and not (
        isinstance(plain.outcome, RunFailed) and plain.status == crashed.status
    ):
        raise SimulationError(
            f"with crashes the run ends otherwise: {crashed.outcome}, without: {plain.outcome}\n{crashed.trace()}"
        )
