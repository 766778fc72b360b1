"""A history as callers get it: a list of events that answers questions. Floor 2."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar, cast, overload

from . import events as e
from .codec import Codec
from .errors import NotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing_extensions import TypeForm  # type checkers know it, installed or not

__all__ = ["History"]

R = TypeVar("R")


class History(list[e.Event]):
    """The recorded events of one incarnation of a run, in order: a list, with look-ups by step id.

    `Engine.history` gives one. It compares and behaves as the list of its events, and a slice of it is a plain list.
    Nothing here reads the store again: it is the history as it was.

    Args:
        events: the events, the start first.
        run_id: for texts; "" when it is no run's.
        codec: turns payloads into values; the usual one when None.

    Attributes:
        run_id: the run.

    Example:
        >>> from stepwell import Engine, Flow, Step, workflow
        >>> @workflow
        ... def hello(name: str) -> Flow[str]:
        ...     return (yield from Step(str.upper, name).options(into=str))
        >>> engine = Engine("memory:", workflows=[hello])
        >>> outcome = engine.start(hello, "ada", run_id="h1")
        >>> history = engine.history("h1")
        >>> history.step("upper").attempts, history.result_of("upper")
        (1, 'ADA')
        >>> [event.kind for event in history]
        ['start', 'step', 'complete']
    """

    def __init__(self, events: Iterable[Any] = (), *, run_id: str = "", codec: Codec | None = None) -> None:
        super().__init__(events)
        self.run_id = run_id
        self._codec = codec

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the events and the run id; a codec of one's own stays behind."""
        return _made, (list(self), self.run_id)

    @property
    def incarnation(self) -> int:
        """The number of the incarnation that this is the history of."""
        start = self[0] if self else None
        return start.incarnation if isinstance(start, e.Start) else 0

    @property
    def steps(self) -> tuple[e.Step, ...]:
        """The outcomes of steps, in the order in which they were recorded."""
        return tuple(event for event in self if isinstance(event, e.Step))

    @property
    def signals(self) -> tuple[e.Resume, ...]:
        """The signals that were sent to the run, in the order in which they came."""
        return tuple(event for event in self if isinstance(event, e.Resume))

    def step(self, step_id: str) -> e.Step:
        """The event with the outcome of a step.

        Args:
            step_id: its name, with `#2`, `#3` on repeats.

        Raises:
            NotFoundError: none of that id has ended; the text names those that have.
        """
        for event in self:
            if isinstance(event, e.Step) and event.step_id == step_id:
                return event
        told = (e.Attempt, e.Begin, e.Chunk, e.Heartbeat)
        under_way = any(isinstance(event, told) and event.step_id == step_id for event in self)
        what = f"step {step_id!r} has begun, and no outcome" if under_way else f"no step {step_id!r}"
        known = ", ".join(event.step_id for event in self.steps) or "none"
        raise NotFoundError(f"{what} is recorded in this history; recorded steps: {known}", run_id=self.run_id)

    @overload
    def result_of(self, step_id: str) -> Any: ...
    @overload
    def result_of(self, step_id: str, into: TypeForm[R]) -> R: ...
    def result_of(self, step_id: str, into: Any = Any) -> Any:
        """The recorded result of a step.

        Args:
            step_id: its name, with `#2`, `#3` on repeats.
            into: the type to read it back as; plain JSON shapes when it is left out.

        Raises:
            NotFoundError: there is no such step, or it failed; the text says of what.
            CodecError: the result does not fit the type.
        """
        event = self.step(step_id)
        if event.result is e.UNSET:
            raise NotFoundError(
                f"step {step_id!r} has no result: it failed with {event.error}; history.step({step_id!r}).error "
                "is what was recorded",
                run_id=self.run_id,
            )
        return (self._codec or Codec()).decode(cast(Any, event.result), into)

    def timeline(self) -> str:
        """The history as text for people: one line an event, with the time since the start.

        Control characters in payloads are shown as escapes, so it can be printed as it is. What a fork took over lies
        before its start: those times are negative.
        """
        from .depicting import timeline  # who prints histories is not in a hurry

        return "\n".join(timeline(self))

    def mermaid(self) -> str:
        """The history as a sequence diagram in Mermaid's language: the workflow, its steps, people and timers.

        Text from payloads is shortened and escaped: it can neither break the diagram nor become markup in it.
        """
        from .mermaid import sequence_diagram

        return sequence_diagram(self, self.run_id)


def _made(events: list[e.Event], run_id: str) -> History:
    return History(events, run_id=run_id)
