"""`simulate`: the real engine on virtual time, with fakes in place of steps. Takes no time, no file and no thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar, TypeVarTuple

from ..codec import Codec
from ..commands import Flow, Signal
from ..errors import InvalidInputError
from ..outcomes import RunFailed
from ..retry import RetryPolicy, as_seconds
from ..workflows import Workflow, check_workflow
from .environments import EPOCH
from .fakes import REAL, Call, SimulationError
from .staging import Simulation, Stage

__all__ = ["REAL", "Call", "Simulation", "SimulationError", "simulate"]

_SUCH = {"fakes": "{charge: 5}", "signals": "{paid: (timedelta(days=1), True)}"}

R = TypeVar("R")
Ts = TypeVarTuple("Ts")


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
    budget: float | None = None,
    until: timedelta | float | None = None,
) -> Simulation[R]:
    """Run a workflow on the real engine with fakes and virtual time; sleeps and retries jump the clock.

    Args:
        workflow: what `@workflow` made.
        inputs: its arguments.
        fakes: answers of steps by function, step name, or step id ("classify#2"): a value, a list of values in order
            (an exception, or `raised(exc)`, is raised), a function that is called with the step's arguments, or `REAL`;
            `takes(duration, fake)` lets time pass. Of children by workflow or its name: a child that is named here is
            not run, and others are, with fakes for their steps.
        signals: by Signal or name: (timedelta since the start, payload), or a list of those. A payload may be
            `received(signal, value, actor=...)`, to say who sends it.
        cancel: ask for the run to be cancelled this long after the start.
        crash_after: "die" after that many recorded events, or after "every" one, and go on in a new engine; the run
            must end as it does without, and no recorded step may run again. Never between the `begin` of an
            `at_most_once` step and its outcome, which would rightly end in `StepInterrupted`, nor after a chunk of a
            stream, which would begin anew: then after the next one.
        start: the first virtual instant.
        seed: of what Random and Uuid draw.
        retry: the engine's default retry policy.
        codec: the engine's codec.
        budget: what the run may spend.
        until: how long the run is followed, since the start; None: to its end, or until nothing can come any more. A
            workflow that never ends needs one.

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
    for name, given in (("fakes", fakes), ("signals", signals)):
        if given is not None and not isinstance(given, Mapping):
            raise InvalidInputError(f"{name} takes a mapping, such as {_SUCH[name]}, got {given!r}")
    events = _timed(signals or {}, cancel)
    how: dict[str, Any] = {"events": events, "start": start, "seed": seed, "retry": retry, "codec": codec or Codec()}
    how |= {
        "fakes": dict(fakes or {}),
        "budget": budget,
        "until": None if until is None else as_seconds(until, "until"),
    }
    if crash_after is None:
        return _run(known, inputs, _never, **how)
    if crash_after != "every" and (
        isinstance(crash_after, bool) or not isinstance(crash_after, int) or crash_after < 1
    ):
        raise InvalidInputError(f"crash_after must be a number of events, 1 or more, or 'every', got {crash_after!r}")
    plain: Simulation[R] = _run(known, inputs, _never, **how)
    dies = _once(crash_after) if isinstance(crash_after, int) else _always
    crashed: Simulation[R] = _run(known, inputs, dies, **how)
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
    workflow: Workflow[..., Any], inputs: Sequence[Any], dies: Callable[[int], bool], **how: Any
) -> Simulation[Any]:
    with Stage(workflow, dies, **how) as stage:
        return stage.play(inputs)


def _check_same(plain: Simulation[Any], crashed: Simulation[Any]) -> None:
    same = plain.outcome == crashed.outcome or (isinstance(plain.outcome, RunFailed) and plain.status == crashed.status)
    if not same:
        raise SimulationError(
            f"with crashes the run ends otherwise: {crashed.outcome}, without: {plain.outcome}\n{crashed.trace()}"
        )
    for what in ("state", "emitted", "spent"):
        before, after = getattr(plain, what), getattr(crashed, what)
        if before != after:
            raise SimulationError(f"with crashes its {what} is {after!r}, without: {before!r}\n{crashed.trace()}")
