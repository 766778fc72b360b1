"""Which events of a history a fork or a retry takes over: pure functions over events. Floor 3.

An *incarnation* is (run id, number, prefix of events). What lies before the cut is taken over, less what stands for
something under way; a retry then offers what came after the cut to the new fold, so that siblings which had finished
stay finished.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from . import commands as c
from . import events as e
from .codec import Codec
from .errors import (
    CodecError,
    ConflictError,
    DivergenceError,
    InvalidInputError,
    NotFoundError,
    SignalRejected,
)
from .inputs import inputs_digest
from .machine import Machine
from .workflows import Workflow

__all__ = ["Plan", "find_cut", "plan_fork", "plan_retry"]

_ROUNDS = 5
"""How often a retry is planned anew because of what it finds spent; mostly once or twice."""

_GOOD_ENDS = ("completed", "started")
"""Ends of children that a new incarnation takes over; one that failed is started anew."""


class Plan(msgspec.Struct, frozen=True, eq=False):
    """A history to begin with, the `start` event first."""

    events: list[e.EventBase]


def find_cut(history: Sequence[e.EventBase], before: object) -> int:
    """The offset of the event before which a fork cuts.

    Args:
        before: a seq from 1 to the length of the history, or a step id such as "classify#2".

    Raises:
        NotFoundError: no step of that id is recorded.
        InvalidInputError: the seq is outside the history.
    """
    if isinstance(before, str):
        for seq, event in enumerate(history):
            if isinstance(event, e.Step) and event.step_id == before:
                return seq
        known = ", ".join(event.step_id for event in history if isinstance(event, e.Step)) or "none"
        raise NotFoundError(f"no step {before!r} is recorded in this history; recorded steps: {known}")
    if isinstance(before, bool) or not isinstance(before, int) or not 1 <= before <= len(history):
        raise InvalidInputError(f"before must be a step id, or a seq from 1 to {len(history)}, got {before!r}")
    return before


def plan_fork(history: Sequence[e.EventBase], cut: int, source: dict[str, Any], tags: dict[str, str]) -> Plan:
    """The history of a fork: what lies before the cut, under a start event that names its source.

    Raises:
        ConflictError: the run was cancelled before the cut.
    """
    if any(isinstance(event, e.Cancel) for event in history[:cut]):
        raise ConflictError(f"event {cut} comes after a cancel: a fork from there would be cancelled too")
    kept = [event for event in _before(_readdressed(history, 0), cut) if not isinstance(event, e.Heartbeat)]
    start = _restart(history[0], incarnation=0, source=source, prefix=len(kept))
    start = msgspec.structs.replace(start, epoch=0, origin=0, tags=tags, parent=None, spent=0, seen=[])
    return Plan([start, *kept])


def plan_retry(
    workflow: Workflow[..., Any],
    history: Sequence[e.EventBase],
    *,
    incarnation: int,
    codec: Codec,
    run_id: str,
    stamp: str,
) -> Plan:
    """The history of a retried run: what lies before the cut, the `retry` event, and what is kept of the rest.

    Args:
        history: of a failed run; its last event is `error`.
        incarnation: number of the new one.
        stamp: the present instant, as the wire writes it.

    Raises:
        ConflictError: its compensations have run.
    """
    closing = history[-1]
    assert isinstance(closing, e.Error)
    if any((event.at or "").startswith("undo.") for event in history):
        raise ConflictError(
            f"run {run_id!r} has undone what it did: it can't be retried; fork it from a step before its failure, or "
            "reset it",
            run_id=run_id,
        )
    cut = min(closing.cause, len(history) - 1)
    moved = _readdressed(history, incarnation)
    before = _before(moved, cut)
    source = {"runId": run_id, "incarnation": _start(history).incarnation, "offset": cut}
    old = _start(history)
    origin = old.origin or old.session
    start = _restart(old, incarnation=incarnation, origin=origin, source=source, prefix=len(before))
    told = _folded(workflow, history, codec)
    after = moved[cut + _rejected(told.error, cut) : -1]

    def planned(spent: float) -> tuple[Plan, float]:
        machine, retry = _marked(workflow, [start, *before], cut, told.patches, codec, run_id, stamp, spent)
        try:
            kept, dropped = _offered(machine, after, codec, stamp)
        finally:
            machine.close()
        return Plan([start, *before, retry, *kept]), _charges(dropped, machine)

    plan, lost = planned(0)
    spent: float = 0
    for _ in range(_ROUNDS):
        if lost == spent:
            break
        spent = lost  # what a Spend gives is less then, and the workflow may go another way
        plan, lost = planned(spent)
    return plan


def _offered(
    machine: Machine, after: Sequence[e.EventBase], codec: Codec, stamp: str
) -> tuple[list[e.EventBase], list[e.EventBase]]:
    """Offer what came after the cut to the new fold: what it takes, and what is dropped."""
    kept: list[e.EventBase] = []
    dropped: list[e.EventBase] = []
    done = {one.child_id for one in after if isinstance(one, e.ChildResult) and one.status in _GOOD_ENDS}
    for event in after:
        _say_yes(machine, kept, stamp)
        taken = msgspec.structs.replace(event, kept=True)
        if _stays(machine, codec, event, done):
            try:
                machine.feed(taken)
            except CodecError:
                pass  # the code wants another type now: the step runs again
            else:
                kept.append(taken)
                continue
        dropped.append(event)
    return kept, dropped


def _charges(dropped: Sequence[e.EventBase], machine: Machine) -> float:
    """What was spent by events that are dropped, but for charges that are about to be made again."""
    spent: float = 0
    charged: dict[str, float] = {}
    for event in dropped:
        if isinstance(event, e.ChildResult):
            charged[event.child_id] = max(event.spent, charged.get(event.child_id, 0))
        elif isinstance(event, e.Spend):
            pending = machine.pending.get(event.at)
            asked = pending.command if pending is not None else None
            again = isinstance(asked, c.Spend) and (asked.amount, asked.label) == (event.amount, event.label or "")
            spent += 0 if again else event.amount
        elif isinstance(event, e.Retry):
            spent += event.spent
    return spent + sum(charged.values())


def _marked(
    workflow: Workflow[..., Any],
    before: Sequence[e.EventBase],
    cut: int,
    decided: dict[str, bool],
    codec: Codec,
    run_id: str,
    stamp: str,
    spent: float,
) -> tuple[Machine, e.Retry]:
    """Fold the prefix and the `retry` event, which holds the answer of every Patched that is asked where it stands.

    What nobody ever answered is asked in a new run, as it were: yes. Answering one may bring up another.
    """
    patches: dict[str, bool] = {}
    while True:
        machine = Machine(workflow, _start(before), codec=codec, run_id=run_id)
        try:
            for event in before[1:]:
                machine.feed(event)
            known = set(machine.patches)
            patches |= {i: yes for i, yes in decided.items() if not yes and i not in known}
            if machine.asking is not None:
                patches[machine.asking] = decided.get(machine.asking, True)
            retry = e.Retry(cut=cut, patches=dict(patches), spent=spent, timestamp=stamp)
            machine.feed(retry)
        except BaseException:
            machine.close()
            raise
        asked = machine.patches.keys() - known - patches.keys()
        if not asked:
            return machine, retry
        machine.close()
        patches |= {i: decided.get(i, True) for i in asked}


def _start(history: Sequence[e.EventBase]) -> e.Start:
    start = history[0]
    assert isinstance(start, e.Start)
    return start


def _restart(start: e.EventBase, **changes: Any) -> e.Start:
    assert isinstance(start, e.Start)
    return msgspec.structs.replace(start, session=0, offset=0, **changes)


def _readdressed(history: Sequence[e.EventBase], incarnation: int) -> list[e.EventBase]:
    """The history with wait ids of the new incarnation where no `suspend` holds one: a signal came early."""
    recorded = {event.wait for event in history if isinstance(event, e.Suspend)}
    number = str(_start(history).incarnation)
    moved: list[e.EventBase] = []
    for event in history:
        wait = event.wait if isinstance(event, e.Resume) and event.wait not in recorded else None
        name, _, place = (wait or "").rpartition("@")
        of, _, at = place.partition(":")
        same = wait is None or of != number
        moved.append(event if same else msgspec.structs.replace(event, wait=f"{name}@{incarnation}:{at}"))
    return moved


def _before(history: Sequence[e.EventBase], cut: int) -> list[e.EventBase]:
    """The events before the cut that a new incarnation begins with; the start is not among them.

    What a step has told of its progress stays, for its next attempt: it is the same step, with the same arguments.
    """
    after = history[cut:]
    # every end that was taken in before the cut holds, good or not: what followed from it is kept as well
    done = {(one.child_id, one.at) for one in history[1:cut] if isinstance(one, e.ChildResult)}
    ended = {event.at for event in history[1:cut] if isinstance(event, (e.Step, e.Cancelled))}
    again = {event.at for event in after if isinstance(event, e.Step)}  # their outcome is known, and dropped or kept
    timed_out = {event.at for event in after[:1] if isinstance(event, e.Wake)}  # the failed wait is begun anew
    gone: set[str] = set()
    kept: list[e.EventBase] = []
    for event in history[1:cut]:
        drop = isinstance(event, (e.Pause, e.Unpause))
        drop = drop or (isinstance(event, (e.Attempt, e.Chunk)) and event.at not in ended)
        drop = drop or (isinstance(event, e.Begin) and event.at in again)
        drop = drop or (isinstance(event, (e.Child, e.ChildResult)) and (event.child_id, event.at) not in done)
        if isinstance(event, e.Suspend) and event.at in timed_out:
            drop = True
            gone.add(event.wait)
        if isinstance(event, e.Resume) and event.wait is not None and event.wait in gone:
            drop = True
        if not drop:
            kept.append(event)
    return kept


def _folded(workflow: Workflow[..., Any], history: Sequence[e.EventBase], codec: Codec) -> Machine:
    """What the code at hand makes of the history: how it answered each Patched, and what the run failed of.

    A run does not change its mind by being retried; only the close is dropped, so it decides nothing.
    """
    machine = Machine(workflow, _start(history), codec=codec)
    try:
        for event in history[1:-1]:
            machine.feed(event)
    except (DivergenceError, CodecError, InvalidInputError):
        pass  # the code was mended after the cut; what was asked before that counts
    finally:
        machine.close()
    return machine


def _rejected(error: BaseException | None, cut: int) -> bool:
    """Whether the event at the cut is a signal that did not fit, and still does not: it would be refused for ever."""
    seen: set[int] = set()
    stack = [error]
    while stack:
        error = stack.pop()
        if error is None or id(error) in seen:
            continue
        if isinstance(error, SignalRejected) and error.seq == cut:
            return True
        seen.add(id(error))
        stack += [error.__cause__, error.__context__]
    return False


def _say_yes(machine: Machine, kept: list[e.EventBase], stamp: str) -> None:
    """A Patched that the failed run never came to asks in a new run, as it were: the owner says yes."""
    while machine.asking is not None:
        patch = e.Patch(change_id=machine.asking, timestamp=stamp, kept=True)
        machine.feed(patch)
        kept.append(patch)


_OF_ATTEMPTS = (e.Cancelled, e.Attempt, e.Begin, e.Chunk, e.Heartbeat)
"""What says nothing when it came after the cut: it began from other values."""


def _stays(machine: Machine, codec: Codec, event: e.EventBase, done: set[str]) -> bool:
    """Whether an event from after the cut holds in the new fold too; `done` are the children that ended well."""
    if isinstance(event, e.Resume):
        return event.wait is None or any(p.wait == event.wait for p in machine.waits)
    if isinstance(event, e.Patch):
        return True
    if machine.asking is not None or event.at is None or isinstance(event, _OF_ATTEMPTS):
        return False
    pending = machine.pending.get(event.at)
    if pending is None:
        return False
    command = pending.command
    if isinstance(event, e.Child):
        given = None if pending.input is None else codec.digest(bytes(pending.input))
        return event.child_id in done and command.label == event.workflow and given == event.inputs
    if isinstance(event, e.ChildResult):
        return pending.child == event.child_id and event.status in _GOOD_ENDS
    if isinstance(event, e.Spend):
        return isinstance(command, c.Spend) and (command.amount, command.label) == (event.amount, event.label or "")
    if isinstance(event, e.Step):
        fits = isinstance(command, c.Step) and event.error is None and command.name == event.name
        return fits and isinstance(command, c.Step) and inputs_digest(codec, command) == event.inputs
    if isinstance(event, e.Suspend):
        return isinstance(command, c.Suspend) and command.signal == event.waiting_for
    if isinstance(event, e.Wake):  # a time-out is a failure; the end of a sleep is none
        return isinstance(command, c.Sleep) and pending.due is not None
    if isinstance(event, e.Emit) and command.label != (event.topic or ""):
        return False
    return command.kind == event.kind
