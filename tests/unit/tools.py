"""What the tests of the machine share: steps that nobody performs, events by hand, and folds to compare."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Raw

from stepwell import All, Codec, Race, Step, Workflow
from stepwell import events as e
from stepwell.commands import Command
from stepwell.failures import failure_of
from stepwell.machine import Machine
from stepwell.sealing import seal
from stepwell.testing import Replay
from stepwell.wire import read_event, to_draft

STAMP = "2026-01-01T00:00:00.000000Z"
CODEC = Codec()


def ask(*args: Any) -> Any:
    """A step's function; nothing is performed here."""
    raise AssertionError("a fake history performs nothing")


def task(name: str, *args: Any) -> Step[Any]:
    """A step of that name."""
    return Step(ask, *args).options(name=name)


def raw(value: Any) -> Raw:
    """A payload as it is recorded."""
    return Raw(CODEC.encode(value))


# ---- events by hand


def start_of(workflow: Workflow[Any, Any], *inputs: Any, **fields: Any) -> e.Start:
    """The first event of a history."""
    return e.Start(workflow=workflow.name, version=workflow.version, input=raw(list(inputs)), timestamp=STAMP, **fields)


def did(at: str, name: str, value: Any = None, **fields: Any) -> e.Step:
    """A step that gave a value."""
    step_id = fields.pop("step_id", name)
    fields.setdefault("result", raw(value))
    return e.Step(at=at, step_id=step_id, name=name, attempts=1, started=STAMP, timestamp=STAMP, **fields)


def broke(at: str, name: str, error: BaseException, **fields: Any) -> e.Step:
    """A step that failed."""
    step_id = fields.pop("step_id", name)
    failure = failure_of(error, attempts=1)
    return e.Step(
        at=at, step_id=step_id, name=name, attempts=1, started=STAMP, error=failure, timestamp=STAMP, **fields
    )


def tried(at: str, name: str, attempt: int = 1) -> e.Attempt:
    """A try that is followed by another one."""
    return e.Attempt(at=at, step_id=name, attempt=attempt, error=failure_of(OSError("no")), due=STAMP, timestamp=STAMP)


def begun(at: str, name: str) -> e.Begin:
    """A step that is about to be called once."""
    return e.Begin(at=at, step_id=name, name=name, timestamp=STAMP)


def waits(at: str, signal: str, wait: str | None = None, due: str | None = None) -> e.Suspend:
    """A wait for a signal that was written down."""
    return e.Suspend(at=at, waiting_for=signal, wait=wait or f"{signal}@0:{at}", due=due, timestamp=STAMP)


def sent(signal: str, value: Any = None, *, id: str = "", wait: str | None = None) -> e.Resume:
    """A signal."""
    return e.Resume(event_name=signal, value=raw(value), id=id, wait=wait, timestamp=STAMP)


def slept(at: str) -> list[e.EventBase]:
    """A timer that was set and fired."""
    return [e.Sleep(at=at, due=STAMP, timestamp=STAMP), e.Wake(at=at, timestamp=STAMP)]


# ---- folds

OPENED: list[Machine] = []
"""Machines of folds, which are closed after each test: what is left to the garbage collector may complain."""


def through_the_wire(events: Iterable[e.EventBase]) -> list[e.EventBase]:
    """The events as a store gives them back."""
    return [read_event(seal([to_draft(event)], session=1, offset=n)[0]) for n, event in enumerate(events)]


class Fold:
    """A machine that has taken in a history, and the commands that were issued meanwhile."""

    def __init__(self, workflow: Workflow[Any, Any], events: Sequence[e.EventBase]) -> None:
        self.commands: list[tuple[str, Command[Any]]] = []
        start = events[0]
        assert isinstance(start, e.Start)
        self.machine = Machine(workflow, start, codec=Codec(), run_id="r", trace=self.commands)
        OPENED.append(self.machine)
        for event in events[1:]:
            self.machine.feed(event)

    @property
    def asked(self) -> list[str]:
        """Paths and names of the commands that were issued, in their order."""
        return words(self.commands)


def fold(workflow: Workflow[Any, Any], *events: e.EventBase) -> Fold:
    """Fold a history without inputs, written by hand from after its start."""
    return Fold(workflow, [start_of(workflow), *events])


def words(commands: Iterable[tuple[str, Command[Any]]]) -> list[str]:
    """`at name` of each command; its kind when it has no name."""
    return [f"{at} {command.label or command.kind}" for at, command in commands]


def asked(run: Replay[Any]) -> list[str]:
    """Paths and names of the commands that a run has issued, in their order."""
    return words(run.commands)


def frontier(run: Replay[Any] | Fold) -> list[str]:
    """Paths and names of what a run waits for, oldest first."""
    return words((p.at, p.command) for p in run.machine.pending.values())


def picture(machine: Machine) -> tuple[Any, ...]:
    """All that can be seen of a machine."""
    pending = [
        (p.at, p.command, p.step_id, p.cancelling, p.lost, p.recorded, p.wait, p.due, p.attempts, p.begun)
        for p in machine.pending.values()
    ]
    ended = (machine.status, machine.result, machine.result_raw, repr(machine.error), machine.closed)
    buffers = {name: list(events) for name, events in machine.mailbox.buffered.items() if events}
    asks = (machine.asking, dict(machine.patches), machine.paused, machine.cancelled, machine.cancel_reason)
    return pending, ended, buffers, asks, dict(machine.state), machine.seq


def check_replay(run: Replay[Any]) -> None:
    """A run's events, read back from their bytes, lead to the same commands and the same state."""
    read = through_the_wire(run.events)
    again = Fold(run.machine.workflow, read)
    assert asked(run) == again.asked
    assert [_shape(command) for _, command in run.commands] == [_shape(command) for _, command in again.commands]
    assert _settled(picture(run.machine)) == _settled(picture(again.machine))
    again.machine.close()


def _settled(state: tuple[Any, ...]) -> tuple[Any, ...]:
    """Buffered events differ by their place in the history only, which a fake one has not."""
    pending, ended, buffers, *rest = state
    return pending, ended, {name: [bytes(ev.value) for ev in buffered] for name, buffered in buffers.items()}, *rest


def _shape(command: Command[Any]) -> Any:
    """A command; a group without its branches, which are generators of their own in each fold."""
    return (type(command), len(command.branches)) if isinstance(command, (All, Race)) else command
