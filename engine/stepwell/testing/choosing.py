"""What may happen next to a run: every answer that its commands allow, early and late signals, time-outs, a cancel.

Time is virtual and runs one way: of the timers that are set, the one that is due first fires first. A step may take any
time. Needs Hypothesis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeAlias

import msgspec
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from .. import commands as c
from ..errors import Failure, InvalidInputError, StepInterrupted, StepTimeoutError, type_names
from ..fibers import Pending
from ..results import flow_result, result_type
from .answers import Answer
from .environments import EPOCH
from .generating import Values, is_strategy
from .replaying import Replay

__all__ = ["Option", "Terms", "World"]

Draw: TypeAlias = Callable[[SearchStrategy[Any]], Any]

_UNASKED = 2
"""Signals that nobody waits for, at most, in one history."""

_PAUSES = (0, 1, 3_600, 86_400, 30 * 86_400)
"""Seconds that pass before somebody asks for the time."""


class Terms(msgspec.Struct):
    """What may happen to the runs of one workflow.

    Attributes:
        values: makes values up by their type.
        results: what steps and children give, by function, workflow, step name or step id: a strategy, or a value.
        failures: what they fail with, by the same; None: they don't. Those that are not named fail as they declare.
        signals: by name, the type of the payload and what it is, a strategy or None. None: whatever is waited for.
        early: the same of those that may come before anybody waits.
        actors: who sends signals.
        cancels: whether somebody may ask for the run to be cancelled.
    """

    values: Values
    results: Mapping[Any, Any]
    failures: Mapping[Any, Sequence[Any]] | None
    signals: dict[str, tuple[Any, Any]] | None
    early: dict[str, tuple[Any, Any]]
    actors: Sequence[str]
    cancels: bool


class Option(msgspec.Struct):
    """One thing that may happen.

    Attributes:
        kind: of the answer.
        value: what draws its value; None when it has none.
        pending: the command that it answers, if it answers one.
        rest: the other fields of the answer.
    """

    kind: str
    value: SearchStrategy[Any] | None = None
    pending: Pending | None = None
    rest: dict[str, Any] = {}


class World:
    """What happens to one run.

    Args:
        run: the run.
        terms: what may happen.
    """

    def __init__(self, run: Replay[Any], terms: Terms) -> None:
        self._run = run
        self._terms = terms
        self._now = 0.0
        self._issued: dict[str, float] = {}
        self._unasked = _UNASKED
        self._cancels = terms.cancels

    def options(self) -> tuple[list[Option], list[Option], list[Option]]:
        """Everything that may happen next: what goes well, what goes wrong, and what nobody has asked for."""
        well: list[Option] = []
        wrong: list[Option] = []
        asking = self._run.machine.asking is not None
        if asking:
            well.append(Option("patched"))
        pendings = self._run.reachable()
        first = self._first_due(pendings)
        signals: set[str] = set()
        for pending in pendings:
            command = pending.command
            if pending.cancelling:
                well.append(Option("cancelled", pending=pending))
                if not pending.lost:
                    wrong += self._given(pending)
            elif isinstance(command, (c.Step, c.Child)):
                well += self._given(pending)
                wrong += self._failed(pending)
            elif isinstance(command, c.Sleep):
                well += [Option("fired", pending=pending)] if pending.at in first else []
            elif isinstance(command, c.Suspend):
                if command.signal not in signals and not asking:
                    signals.add(command.signal)
                    well += self._sent(command)
                wrong += [Option("fired", pending=pending)] if pending.at in first else []
            elif isinstance(command, (c.Now, c.Random, c.Uuid)):
                well.append(Option("returned", self._drawn(pending), pending))
        if asking:
            return well[:1], [*well[1:], *wrong], []
        return well, wrong, list(self._unasked_for(signals))

    def answer(self, option: Option, draw: Draw) -> Answer:
        """Draw the answer that an option stands for, and let its time pass."""
        pending = option.pending
        value: Any = None if option.value is None else draw(option.value)
        if pending is not None and isinstance(pending.command, c.Now):
            self._now += value
            value = EPOCH + timedelta(seconds=self._now)
        elif option.kind == "fired" and pending is not None:
            self._now = max(self._now, self._due(pending))
        elif pending is None and option.kind != "patched":
            self._unasked -= not option.rest.get("awaited", False)
            self._cancels = self._cancels and option.kind != "cancel"
        rest = {name: draw(one) if is_strategy(one) else one for name, one in option.rest.items() if name != "awaited"}
        answer = Answer(option.kind, value, **rest)
        return answer if pending is None else self._run.addressed_to(pending, answer)

    # ---- kinds of answers

    def _given(self, pending: Pending) -> list[Option]:
        command = pending.command
        if isinstance(command, c.Child):
            if command.detached:
                return [Option("returned", None, pending)]
            into, what = flow_result(command.workflow), f"the result of child {command.label!r}"
        else:
            into, what = result_type(command), f"the result of step {pending.step_id!r}"
        given = _named(self._terms.results, pending)
        if given is not c.UNSET:
            strategy = given if is_strategy(given) else st.just(given)
            return [Option("returned", self._terms.values.checked(strategy, into, what), pending)]
        remedy = f"histories(..., results={{{command.label}: a strategy}})"
        return [Option("returned", self._terms.values.of(into, what, remedy), pending)]

    def _failed(self, pending: Pending) -> list[Option]:
        if self._terms.failures is None or getattr(pending.command, "detached", False):
            return []
        declared = _named(self._terms.failures, pending)
        errors = self._declared(pending) if declared is c.UNSET else [_error_of(one) for one in declared]
        return [Option("raised", st.sampled_from(errors), pending)] if errors else []

    def _declared(self, pending: Pending) -> list[BaseException]:
        """What a step says of its failures: what its policy retries or gives up on, its time-out, at most once."""
        command = pending.command
        if not isinstance(command, c.Step):
            return [RuntimeError("made up")]
        policy, given = command.given.retry or self._run.machine.workflow.retry, command.given
        classes = [] if policy is None else [*(policy.on or ()), *policy.give_up_on]
        found = [made for cls in classes if (made := _made(cls)) is not None] or [RuntimeError("made up")]
        if given.timeout is not None:
            found.append(StepTimeoutError(f"step {pending.step_id!r} took longer than {given.timeout:g} s"))
        if given.at_most_once:
            found.append(StepInterrupted(Failure(type_names(StepInterrupted), "its outcome is not known")))
        return found

    def _sent(self, command: c.Suspend[Any]) -> list[Option]:
        """The signal that is waited for, if anybody sends it."""
        known, name = self._terms.signals, command.signal
        if known is not None and name not in known:
            return []
        rest: dict[str, Any] = {"signal": name, "awaited": True}
        if command.asks_who:
            rest["actor"] = st.none() | st.sampled_from(self._terms.actors)
        into = Any if command.into is c.UNSET else command.into
        return [Option("received", self._payload(name, into, (known or {}).get(name, (into, None))[1]), None, rest)]

    def _unasked_for(self, awaited: set[str]) -> Iterator[Option]:
        if self._unasked > 0:
            for name, (into, given) in self._terms.early.items():
                if name not in awaited:
                    rest = {"signal": name, "into": c.UNSET if into is Any else into}
                    yield Option("received", self._payload(name, into, given), None, rest)
        if self._cancels and not self._run.machine.cancelled:
            yield Option("cancel")

    def _payload(self, name: str, into: Any, given: Any) -> SearchStrategy[Any]:
        what = f"the payload of signal {name!r}"
        if given is not None:
            return self._terms.values.checked(given if is_strategy(given) else st.just(given), into, what)
        return self._terms.values.of(into, what, f"histories(..., signals={{{name!r}: a strategy}})")

    def _drawn(self, pending: Pending) -> SearchStrategy[Any]:
        if isinstance(pending.command, c.Now):
            return st.sampled_from(_PAUSES)
        if isinstance(pending.command, c.Random):
            return st.floats(0, 1, exclude_max=True)
        return st.uuids(version=4)

    # ---- time

    def _first_due(self, pendings: list[Pending]) -> set[str]:
        """The timers that may fire: those that are due before all others."""
        timers = {}
        for pending in pendings:
            self._issued.setdefault(pending.at, self._now)
            if isinstance(pending.command, c.Sleep) or getattr(pending.command, "timeout", None) is not None:
                timers[pending.at] = self._due(pending)
        first = min(timers.values(), default=0.0)
        return {at for at, due in timers.items() if due <= max(first, self._now)}

    def _due(self, pending: Pending) -> float:
        command: Any = pending.command
        if isinstance(command, c.Sleep):
            until: datetime | None = command.until
            if until is not None:
                return (until - EPOCH).total_seconds()
            return self._issued[pending.at] + (command.seconds or 0)
        return self._issued[pending.at] + float(command.timeout)


def _named(given: Mapping[Any, Any], pending: Pending) -> Any:
    """What was given for a command: by step id, function or workflow, or name; UNSET when nothing was."""
    command: Any = pending.command
    target = command.workflow if isinstance(command, c.Child) else command.fn
    for key in (pending.step_id, target, command.label):
        try:
            if key in given:
                return given[key]
        except TypeError:  # a callable that can't be hashed
            continue
    return c.UNSET


def _error_of(given: Any) -> BaseException:
    if isinstance(given, BaseException):
        return given
    made = _made(given) if isinstance(given, type) and issubclass(given, BaseException) else None
    if made is None:
        raise InvalidInputError(f"failures= takes exceptions, or classes that can be called with a text, got {given!r}")
    return made


def _made(cls: type[BaseException]) -> BaseException | None:
    try:
        return cls("made up")
    except Exception:  # noqa: BLE001 - it wants other arguments
        return None
