"""`replay`: a workflow answered from a fake history. Performs nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar, TypeVarTuple
from uuid import UUID

from attrs import evolve
from msgspec import Raw

from .. import commands as c
from .. import events as e
from ..codec import Codec
from ..errors import CodecError, Failure, InvalidInputError
from ..failures import failure_of
from ..fibers import Pending, describe
from ..frontier import default_of
from ..inputs import decode_input, encode_input
from ..machine import Machine
from ..results import flow_result, result_type
from ..signals import metadata_of, payload
from ..strictness import InputCheck
from ..workflows import Workflow, check_workflow
from .answers import Answer, WrongAnswerError, returned  # noqa: F401 - for the doctest
from .environments import EPOCH
from .wording import child_name, place_of, takes, words_for

__all__ = ["Replay", "prefixes", "replay"]

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

_VALUES = (c.Step, c.Child, c.Now, c.Random, c.Uuid, c.Emit)
_BY_THEMSELVES = (c.Emit, c.Spend)
_OWN = ("returned", "raised", "fired", "cancelled")


class Replay(Generic[R]):
    """A workflow as far as a fake history takes it.

    Attributes:
        status: "open", "complete", "error", "cancelled", or "continue" after a ContinueAsNew.
        commands: every command that was issued, as (at, command), in order.
        events: the events that the answers came to.
        emitted: values of Emit, in order; a fake history need not answer them, nor any Spend.
    """

    def __init__(
        self,
        workflow: Workflow[..., Any],
        inputs: tuple[Any, ...],
        codec: Codec,
        budget: float | None = None,
        *,
        strict_inputs: bool = True,
    ) -> None:
        self.codec = codec
        self.commands: list[tuple[str, c.Command[Any]]] = []
        self.emitted: list[Any] = []
        start = e.Start(
            workflow=workflow.name,
            version=workflow.version,
            input=encode_input(codec, workflow, inputs),
            budget=budget,
            timestamp=e.instant(EPOCH),
        )
        self.events: list[e.EventBase] = [start]
        self.machine = Machine(workflow, start, codec=codec, run_id="replay", trace=self.commands)
        self._check = InputCheck("replay", workflow.name, codec, self.commands) if strict_inputs else None
        self._recorded = False  # a recorded history brings its own emit events
        self._number = 0  # of the answer that is fed

    # ---- what a test asks

    @property
    def status(self) -> str:
        return self.machine.status

    @property
    def pending(self) -> list[c.Command[Any]]:
        """The commands that wait for an answer, oldest first."""
        if self.machine.asking is not None:
            return [c.Patched(self.machine.asking)]
        return [p.command for p in self.machine.pending.values()]

    @property
    def next(self) -> c.Command[Any] | None:
        """The command that the workflow waits for: the oldest, None when it has ended."""
        pending = self.pending
        return pending[0] if pending else None

    @property
    def result(self) -> R:
        """The workflow's return value.

        Raises:
            AssertionError: it has not returned; the text says what it waits for or how it ended.
        """
        if self.status != "complete":
            raise AssertionError(f"the workflow has not returned: {self._where()}")
        result: R = self.machine.result
        return result

    @property
    def failure(self) -> Failure:
        """What the run fails with.

        Raises:
            AssertionError: it has not failed.
        """
        if self.machine.error is None:
            raise AssertionError(f"the workflow has not failed: {self._where()}")
        return failure_of(self.machine.error)

    @property
    def error(self) -> BaseException | None:
        """The exception that left the workflow, live."""
        return self.machine.error

    @property
    def continued(self) -> tuple[Any, ...] | None:
        """The arguments of the next incarnation, when the workflow has ended with ContinueAsNew; else None."""
        raw = self.machine.next_input
        return (
            tuple(decode_input(self.codec, self.machine.workflow, raw)) if raw and self.status == "continue" else None
        )

    @property
    def spent(self) -> float:
        """What the workflow has spent so far."""
        return self.machine.spent

    @property
    def state(self) -> dict[str, Any]:
        """What SetState left."""
        return {name: self.codec.decode(raw) for name, raw in self.machine.state.items()}

    def close(self) -> None:
        """Close the generator, as parking does."""
        self.machine.close()

    def __repr__(self) -> str:
        return f"<replay: {self._where()}>"

    # ---- feeding

    def feed(self, answer: Answer | e.EventBase) -> None:
        """Take in one more answer, or a recorded event.

        Raises:
            WrongAnswerError: it answers nothing that the workflow waits for.
            DivergenceError: a recorded event does not fit.
            InvalidInputError: it is neither.
        """
        if isinstance(answer, e.EventBase):
            self._recorded = True
            self._feed(answer)
            return
        if not isinstance(answer, Answer):
            raise InvalidInputError(
                f"a history is made of answers, such as returned(5), or of recorded events, and got {answer!r}"
            )
        self._recorded = False  # what a recorded history has left off at is answered by itself from here on
        self._number += 1
        self.settle(old=answer.kind in _OWN)
        for event in self._events_of(answer):
            self._feed(event)
        self.settle()

    def _feed(self, event: e.EventBase) -> None:
        if self._check is not None:
            self._check.before(event, self.machine.seq)
        self.machine.feed(event)
        if self._check is not None:
            self._check.after()
        self.events.append(event)
        if isinstance(event, e.Emit):
            self.emitted.append(self.codec.decode(event.value))

    def settle(self, *, old: bool = False) -> None:
        """Answer each Emit and Spend, unless a recorded history does: there is nothing that a test could say of it.

        Args:
            old: while Patched is asked, answer as a run that was recorded before the patch.
        """
        while not self._recorded and (old or self.machine.asking is None):
            asked = next((p for p in self.reachable() if isinstance(p.command, _BY_THEMSELVES)), None)
            if asked is None:
                return
            command = asked.command
            if isinstance(command, c.Spend):
                self._feed(e.Spend(at=asked.at, amount=command.amount, label=command.label or None))
            elif isinstance(command, c.Emit):
                self._feed(e.Emit(at=asked.at, value=Raw(self.codec.encode(command.value)), topic=command.topic))

    def _events_of(self, answer: Answer) -> list[e.EventBase]:
        stamp = e.instant(EPOCH)
        if answer.kind == "received":
            return [self._signal(answer, stamp)]
        if answer.kind == "cancel":
            return [e.Cancel(reason=answer.value, timestamp=stamp)]
        if answer.kind == "pause":
            return [e.Pause(timestamp=stamp)]
        if answer.kind == "unpause":
            return [e.Unpause(timestamp=stamp)]
        if answer.kind == "patched":
            if self.machine.asking is None:
                raise self._wrong(answer, "no Patched is asked")
            return [e.Patch(change_id=self.machine.asking, timestamp=stamp)]
        pending = self.addressee(answer)
        if answer.kind == "fired":
            return self._fire(pending, stamp)
        if isinstance(pending.command, c.Child):
            return self._child(answer, pending, pending.command, stamp)
        if answer.kind == "cancelled":
            if not pending.cancelling:
                raise self._wrong(answer, f"nobody cancels {words_for(pending)}")
            return [e.Cancelled(at=pending.at, timestamp=stamp)]
        return [self._outcome(answer, pending, stamp)]

    def addressee(self, answer: Answer) -> Pending:
        """The pending command that an answer is for: the addressed one, else the oldest that it can answer."""
        kinds: tuple[type[Any], ...] = _VALUES
        if answer.kind in ("raised", "cancelled"):
            kinds = (c.Step, c.Child)
        elif answer.kind == "fired":
            kinds = (c.Sleep, c.Suspend)
        fit = [
            p
            for p in self.reachable()
            if isinstance(p.command, kinds)
            and (answer.at is None or p.at == answer.at)
            and (answer.step is None or answer.step == (p.step_id or child_name(p)))
            and (answer.kind != "cancelled" or p.cancelling)
            and (answer.kind != "fired" or isinstance(p.command, c.Sleep) or _timeout(p.command) is not None)
        ]
        if not fit:
            where = f" at {answer.at!r}" if answer.at else f" of {answer.step!r}" if answer.step else ""
            raise self._wrong(answer, f"nothing pending takes this answer{where}")
        return fit[0]

    def addressed_to(self, pending: Pending, answer: Answer) -> Answer:
        """Give the answer with the address of a pending command, if it would go to another one without."""
        try:
            plain = self.addressee(answer)
        except WrongAnswerError:
            plain = None
        if plain is not None and plain.at == pending.at:
            return answer
        return evolve(answer, step=pending.step_id) if pending.step_id else evolve(answer, at=pending.at)

    def reachable(self) -> list[Pending]:
        """The frontier; while Patched is asked, as it is on an old run: an answer to anything else says False."""
        if self.machine.asking is None:
            return list(self.machine.pending.values())
        start = self.events[0]
        assert isinstance(start, e.Start)
        told = Machine(self.machine.workflow, start, codec=self.codec)
        for event in (*self.events[1:], e.Patch(change_id="")):  # another id than the one that is asked
            told.feed(event)
        told.close()
        return list(told.pending.values())

    def _child(self, answer: Answer, pending: Pending, child: c.Child[Any], stamp: str) -> list[e.EventBase]:
        """That a child was started, unless it is known already, and how it ended."""
        events: list[e.EventBase] = []
        child_id = pending.child or child.run_id or f"replay/0:{pending.at}"
        if not pending.recorded:
            events.append(
                e.Child(
                    at=pending.at,
                    child_id=child_id,
                    workflow=child.label,
                    version=child.workflow.version,
                    detached=child.detached,
                    timestamp=stamp,
                )
            )
        how: dict[str, Any] = {"status": "started" if child.detached else "completed"}
        if answer.kind == "cancelled":
            how["status"] = "cancelled"
        elif answer.kind == "raised":
            how = {"status": "failed", "error": failure_of(answer.value)}
        elif not child.detached:
            how["result"] = self._encoded(answer, flow_result(child.workflow))
        return [*events, e.ChildResult(at=pending.at, child_id=child_id, timestamp=stamp, **how)]

    def _outcome(self, answer: Answer, pending: Pending, stamp: str) -> e.EventBase:
        command = pending.command
        if isinstance(command, c.Step):
            outcome: dict[str, Any]
            if answer.kind == "returned":
                outcome = {"result": self._encoded(answer, result_type(command))}
            else:
                outcome = {"error": failure_of(answer.value, attempts=1)}
            name = command.name
            return e.Step(
                at=pending.at, step_id=pending.step_id, name=name, attempts=1, started=stamp, timestamp=stamp, **outcome
            )
        if isinstance(command, c.Now) and isinstance(answer.value, datetime) and answer.value.tzinfo is not None:
            return e.Now(at=pending.at, value=e.instant(answer.value), timestamp=stamp)
        if isinstance(command, c.Random) and isinstance(answer.value, float) and 0 <= answer.value < 1:
            return e.Random(at=pending.at, value=answer.value, timestamp=stamp)
        if isinstance(command, c.Uuid) and isinstance(answer.value, UUID):
            return e.Uuid(at=pending.at, value=str(answer.value), timestamp=stamp)
        raise self._wrong(answer, f"{words_for(pending)} can't give that value")

    def _encoded(self, answer: Answer, into: Any) -> Raw:
        try:
            return Raw(self.codec.encode(answer.value, into))
        except CodecError as error:
            raise self._wrong(answer, f"the value could not be recorded: {error.message}") from error

    def _signal(self, answer: Answer, stamp: str) -> e.EventBase:
        name, wait = answer.signal, answer.wait
        waiting = next((p for p in self.machine.waits if p.command.label == name and wait in (None, p.wait)), None)
        try:
            raw = payload(self.codec, waiting, name, answer.value, answer.into)
            metadata = metadata_of(self.codec, answer.metadata)
        except InvalidInputError as error:
            raise self._wrong(answer, f"no sender could record that: {error.message}") from error
        return e.Resume(
            event_name=name, value=Raw(raw), wait=wait, actor=answer.actor, metadata=metadata, timestamp=stamp
        )

    def _fire(self, pending: Pending, stamp: str) -> list[e.EventBase]:
        wake = e.Wake(at=pending.at, value=default_of(pending), timestamp=stamp)
        if pending.due is not None:
            return [wake]
        command = pending.command
        if isinstance(command, c.Sleep):
            due = command.until or EPOCH + timedelta(seconds=command.seconds or 0)
            return [e.Sleep(at=pending.at, due=e.instant(due), timestamp=stamp), wake]
        due = EPOCH + timedelta(seconds=_timeout(command) or 0)
        wait = e.Suspend(
            at=pending.at, waiting_for=command.label, wait=pending.wait, due=e.instant(due), timestamp=stamp
        )
        return [wait, wake]

    # ---- words

    def _where(self) -> str:
        machine = self.machine
        if machine.error is not None:
            return f"it failed with {type(machine.error).__name__}: {machine.error}"
        if machine.status != "open":
            return f"it has ended ({machine.status})"
        if machine.asking is not None:
            return f"it asks Patched({machine.asking!r})"
        return "it waits for " + (", ".join(map(words_for, machine.pending.values())) or "nothing")

    def _wrong(self, answer: Answer, why: str) -> WrongAnswerError:
        so_far = "\n".join(f"  {at:8} {describe(command)}" for at, command in self.commands) or "  nothing"
        wanted = "\n".join(f"  {words_for(p)}, {place_of(p)}: {takes(p)}" for p in self.machine.pending.values())
        if self.machine.asking is not None:
            wanted = f"  Patched({self.machine.asking!r}): patched(), or what an old run has been answered next"
        expected = f"\nexpected next, any of\n{wanted}" if wanted else ""
        return WrongAnswerError(
            f"answer {self._number}, {answer}: {why}\ncommands so far:\n{so_far}\nnow {self._where()}{expected}"
        )


def _timeout(command: c.Command[Any]) -> float | None:
    return command.timeout if isinstance(command, c.Suspend) else None


def prefixes(history: Iterable[Any]) -> Iterator[list[Any]]:
    """Give every prefix of a history, the shortest first: a run is where one of them leaves it, at any time.

    Args:
        history: recorded events, or answers; the `start` that a recorded one begins with is in every prefix.

    Example:
        >>> [len(part) for part in prefixes([returned(1), returned(2)])]
        [0, 1, 2]
    """
    events = list(history)
    for length in range(1 if events and isinstance(events[0], e.Start) else 0, len(events) + 1):
        yield events[:length]


def replay(
    workflow: Callable[[*Ts], c.Flow[R]],
    *inputs: *Ts,
    history: Iterable[Answer | e.EventBase] = (),
    budget: float | None = None,
    codec: Codec | None = None,
    strict_inputs: bool = True,
) -> Replay[R]:
    """Run a workflow against a fake history and give where it stands; nothing is performed.

    Args:
        workflow: what `@workflow` made.
        inputs: its arguments.
        history: answers in order, or recorded events (a leading `start` is skipped, its input is not used).
        budget: what the run may spend.
        codec: the engine's codec, when it is not the default one.
        strict_inputs: False leaves changed inputs of recorded steps unnoticed, as an engine does by default.

    Raises:
        WrongAnswerError: an answer does not fit; the text shows the commands so far and what is waited for.
        DivergenceError: a recorded event does not fit the code, or a recorded step was called with other inputs.
        InvalidInputError, CodecError: the inputs do not fit the workflow, or `history` holds something else.

    Example:
        >>> from stepwell import Flow, Step, workflow
        >>> @workflow
        ... def hello(name: str) -> Flow[str]:
        ...     return (yield from Step(str.upper, name).options(into=str)) + "!"
        >>> replay(hello, "ada", history=[returned("ADA")]).result
        'ADA!'
    """
    known = check_workflow(workflow)
    if not isinstance(history, Iterable):
        raise InvalidInputError(f"history takes a list of answers or events, got {history!r}")
    run: Replay[R] = Replay(known, inputs, codec or Codec(), budget, strict_inputs=strict_inputs)
    for answer in history:
        if not isinstance(answer, e.Start):
            run.feed(answer)
    run.settle()
    return run
