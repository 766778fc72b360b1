"""Forks in which a recorded step result is replaced by another value: what if it had said something else? Floor 3.

All is checked here, by folding, before anything is written: that the step is there, that the value is one which the
step could have given, and that the workflow goes on from it to what else is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw

from . import commands as c
from . import events as e
from .codec import Codec
from .errors import CodecError, ConflictError, DivergenceError, InvalidInputError
from .incarnations import Plan, find_cut
from .inputs import encode_given
from .machine import Machine
from .results import result_type
from .workflows import Workflow

__all__ = ["Replacement", "check_follows", "replace_result"]


class Replacement(msgspec.Struct, frozen=True, eq=False):
    """A history with one step's outcome replaced.

    Attributes:
        history: the whole history, with the other result.
        seq: where the replaced outcome stands.
        step_id: the step's id.
    """

    history: list[e.EventBase]
    seq: int
    step_id: str

    def cut(self, before: str | int | None) -> int:
        """Where the fork cuts: right after the step, or before a later point.

        Raises:
            InvalidInputError: the point comes before the step's outcome, which would not be kept.
            NotFoundError: as `find_cut`.
        """
        if before is None:
            return self.seq + 1
        cut = find_cut(self.history, before)
        if cut <= self.seq:
            raise InvalidInputError(
                f"the result of step {self.step_id!r} is event {self.seq}, and a fork before {before!r} keeps only "
                f"what comes before event {cut}; leave `before` out, or name a later point"
            )
        return cut


def replace_result(
    workflow: Workflow[..., Any], history: Sequence[e.EventBase], replace: object, *, codec: Codec, run_id: str
) -> Replacement:
    """Put another value in the place of a step's recorded outcome.

    Args:
        history: of the run that is forked.
        replace: (step id, value). The value is of the type that the step's result has, or the plain JSON that it
            decodes from. A step that failed gets a result.

    Raises:
        InvalidInputError: it is no such pair, or the value does not fit the type.
        NotFoundError: no step of that id is recorded.
        DivergenceError, CodecError: the code does not fit what is recorded before the step.
    """
    if not isinstance(replace, (tuple, list)) or len(replace) != 2 or not isinstance(replace[0], str):
        raise InvalidInputError(f"replace must be a step id and a value, as in ('classify#2', value); got {replace!r}")
    step_id, value = replace
    seq = find_cut(history, step_id)
    event = history[seq]
    assert isinstance(event, e.Step)
    command = _issued(workflow, history[: seq + 1], codec, run_id)
    unfit = f"the value that is to replace the result of step {step_id!r} is none"
    result = encode_given(codec, value, result_type(command), unfit)
    other = msgspec.structs.replace(event, result=Raw(result), error=None)
    return Replacement([*history[:seq], other, *history[seq + 1 :]], seq, step_id)


def _issued(workflow: Workflow[..., Any], history: Sequence[e.EventBase], codec: Codec, run_id: str) -> c.Step[Any]:
    """The command that the last event answers, as the code issues it today."""
    *before, event = history
    start = before[0]
    assert isinstance(start, e.Start)
    trace: list[tuple[str, c.Command[Any]]] = []
    machine = Machine(workflow, start, codec=codec, run_id=run_id, trace=trace)
    try:
        machine.fold(before[1:])
        pending = machine.pending.get(event.at)
        if pending is not None and isinstance(event, e.Step) and pending.name == event.name:
            assert isinstance(pending.command, c.Step)
            return pending.command  # not fed: the recorded result may be what the code of today refuses
        machine.feed(event)  # diverges, or is asked for by this very event, behind a Patched
        return next(command for at, command in trace if at == event.at and isinstance(command, c.Step))
    finally:
        machine.close()


def check_follows(workflow: Workflow[..., Any], plan: Plan, step_id: str, *, codec: Codec, run_id: str) -> None:
    """See that the workflow, given the other result, asks for all that is kept after it.

    Raises:
        ConflictError: it does not.
    """
    start, *rest = plan.events
    assert isinstance(start, e.Start)
    machine = Machine(workflow, start, codec=codec, run_id=run_id)
    try:
        machine.fold(rest)
    except (DivergenceError, CodecError) as error:
        raise ConflictError(
            f"with the other result of step {step_id!r} the workflow does not come to all that is recorded after it; "
            f"leave `before` out, or name an earlier point: {error.message}",
            run_id=run_id,
        ) from error
    finally:
        machine.close()
