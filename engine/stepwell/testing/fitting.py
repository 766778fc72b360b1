"""Whether a history fits the code at hand: a replay that performs nothing, and says all that it finds.

What an engine raises when it comes to a run, this finds before: the first divergence, changed inputs of steps and
children, values of other types, and for closed runs another outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec
from msgspec import Raw

from .. import commands as c
from .. import events as e
from ..codec import Codec
from ..depicting import said, subject_of
from ..errors import (
    CodecError,
    CorruptHistoryError,
    DivergenceError,
    InvalidInputError,
    InvalidYieldError,
    StepwellError,
    StoreError,
)
from ..failures import failure_of
from ..fibers import describe
from ..logs import replaying
from ..machine import Machine
from ..strictness import is_strict
from ..workflows import Workflow, check_workflow
from .digesting import Digests, encoded_inputs
from .misfits import MESSAGES, ChangedInputs, Misfit, MisfitKind
from .remedies import Place, remedies_for
from .wording import place_of

__all__ = ["check_history", "judge"]

_UNASKED: tuple[None, None] = (None, None)
_KEPT = 50  # changed inputs that are told
_SHOWN = 10  # left-over events that are told
_COLUMNS = 100


def check_history(
    workflow: Workflow[..., Any],
    history: Sequence[e.EventBase],
    *,
    run_id: str = "",
    codec: Codec | None = None,
    strict_inputs: bool | None = None,
    inputs: Mapping[str, str] | None = None,
    next_input: str | None = None,
) -> Misfit | None:
    """Replay a recorded history against a workflow and say where it does not fit; nothing is performed or written.

    Args:
        workflow: the code at hand.
        history: the events, the start first, as `Engine.history` gives them.
        run_id: for texts.
        codec: the engine's codec, when it is not the default one.
        strict_inputs: whether changed inputs of steps and children count; None: as the workflow says, else yes.
        inputs: recorded arguments as JSON by `at`, where somebody kept them.
        next_input: of a history that ended with ContinueAsNew, the arguments as JSON that the run went on with: the
            code has to end so too.

    Returns:
        None when the code goes on with it as recorded, else the Misfit.

    Raises:
        InvalidInputError: it is no workflow, or no history.

    Example:
        >>> from stepwell import Engine, Flow, Step, workflow
        >>> @workflow(name="hello")
        ... def old(name: str) -> Flow[str]:
        ...     return (yield from Step(str.upper, name).options(into=str))
        >>> @workflow(name="hello")
        ... def new(name: str) -> Flow[str]:
        ...     return (yield from Step(str.lower, name).options(into=str))
        >>> engine = Engine("memory:", workflows=[old])
        >>> outcome = engine.start(old, "ada", run_id="h1")
        >>> check_history(old, engine.history("h1")) is None
        True
        >>> found = check_history(new, engine.history("h1"))
        >>> found.recorded, found.yielded, found.remedies[0].by
        ("step 'upper'", "step 'lower'", 'version')
    """
    check_workflow(workflow)
    if not history or not isinstance(history[0], e.Start):
        raise InvalidInputError("a history begins with its start event, as engine.history() gives it")
    events = list(history)
    return judge(
        workflow,
        lambda: iter([events]),
        digests=Digests(codec or Codec()),
        run_id=run_id or getattr(history, "run_id", ""),
        strict=is_strict(workflow, True) if strict_inputs is None else strict_inputs,
        inputs=inputs or {},
        outcome=True,
        next_input=next_input,
    )


def judge(
    workflow: Workflow[..., Any],
    pages: Callable[[], Iterator[Sequence[e.EventBase]]],
    *,
    digests: Digests,
    run_id: str,
    strict: bool,
    inputs: Mapping[str, str] | None = None,
    outcome: bool = False,
    next_input: str | None = None,
) -> Misfit | None:
    """Fold pages of a history, and say where it does not fit; one page is held at a time.

    Inputs are compared twice where they seem to differ: what a workflow does to an argument after it has yielded a step
    is no change, so the second look takes them as the step is issued, which takes longer.

    Args:
        pages: gives lists of events, the start first, from the beginning each time.
        digests: of the engine's codec.
        strict: whether inputs are compared.
        inputs: recorded arguments as JSON by `at`.
        outcome: whether the recorded outcome of a closed run is compared too.
        next_input: what it went on with as new, which is compared too when it is known.
    """
    found = None
    for exact in (False, True):
        given = pages()
        page = next(given)
        start = page[0]
        assert isinstance(start, e.Start)
        look = _Look(workflow, start, digests, run_id, inputs or {}, strict=strict, exact=exact)
        with replaying():
            found = look.through(page[1:], given, outcome=outcome)
            if found is None and next_input is not None:
                found = look.goes_on(next_input)
        if not look.doubt:
            break
    return found


class _Look:
    """One look at a history."""

    def __init__(
        self,
        workflow: Workflow[..., Any],
        start: e.Start,
        digests: Digests,
        run_id: str,
        inputs: Mapping[str, str],
        *,
        strict: bool,
        exact: bool,
    ) -> None:
        self.workflow, self.start, self.run_id, self.inputs = workflow, start, run_id, inputs
        self.digests, self.codec = digests, digests.codec
        self.strict, self.exact = strict, exact
        self.doubt = False
        self.machine: Machine | None = None
        self.trace: list[tuple[str, c.Command[Any]]] = []
        self.asked: dict[str, tuple[str | None, c.Step[Any] | None]] = {}
        self.changed: list[ChangedInputs] = []
        self.since: list[e.EventBase] = []  # the events from the first changed inputs on
        self.cancelled = False
        self.last: e.EventBase = start
        self.page: Sequence[e.EventBase] = ()
        self.first = 1  # seq of the page's first event

    def through(
        self,
        page: Sequence[e.EventBase],
        pages: Iterator[Sequence[e.EventBase]],
        *,
        outcome: bool,
    ) -> Misfit | None:
        """Take in all of it, or as much as fits."""
        try:
            try:
                self.machine = Machine(
                    self.workflow,
                    self.start,
                    codec=self.codec,
                    run_id=self.run_id,
                    trace=self.trace if self.strict and self.exact else None,
                )
            except CodecError as error:
                recorded, now = f"input {said(self.start)}", f"parameters that don't take it: {error.message}"
                return self._misfit("input", error, recorded=recorded, yielded=now, at_all=False)
            while True:
                self.page = page
                if self.strict:
                    self.machine.fold(self._passing(page) if self.exact else self._glancing(page))
                else:
                    self.machine.fold(page)
                if page:
                    self.last = page[-1]
                    self.cancelled = self.cancelled or any(isinstance(event, e.Cancel) for event in page)
                if self.changed:
                    self.since += page[max(0, self.changed[0].seq - self.first) :]
                self.first += len(page)
                more = next(pages, None)
                if more is None:
                    break
                page = more
            return self._at_the_end(outcome)
        except StoreError:
            raise
        except CorruptHistoryError as error:
            return self._misfit("damaged", error, at_all=False)
        except StepwellError as error:
            return self._parted(error, pages)
        finally:
            if self.machine is not None:
                self.machine.close()

    def goes_on(self, recorded: str) -> Misfit | None:
        """Compare what the run goes on with as new, once all is taken in."""
        machine = self.machine
        assert machine is not None
        if machine.status == "continue" and machine.next_input is not None:
            now = bytes(machine.next_input)
            if _same_json(Raw(recorded.encode()), now):
                return None
            yielded = f"going on as new with {now.decode('utf-8', 'replace')[:_COLUMNS]}"
        else:
            at_hand = ", ".join(f"{describe(p.command)} at {p.at}" for p in machine.pending.values())
            yielded = at_hand if machine.status == "open" else f"nothing: the workflow has ended ({machine.status})"
        error = DivergenceError("the code does not go on as new as it did", seq=machine.seq - 1)
        recorded = f"going on as new with {recorded[:_COLUMNS]}"
        return self._misfit("result", error, recorded=recorded, yielded=yielded, seq=machine.seq - 1)

    # ---- inputs

    def _glancing(self, events: Iterable[e.EventBase]) -> Iterator[e.EventBase]:
        """Give events to the machine, and see whether inputs differ, as far as they are what they were when issued."""
        assert self.machine is not None
        pending, digest_of = self.machine.pending, self.digests.of
        for event in events:
            if type(event) is e.Step:
                if event.inputs is not None and not self.doubt:
                    asked = pending.get(event.at)
                    command = None if asked is None else asked.command
                    if isinstance(command, c.Step):
                        self.doubt = digest_of(command) not in (event.inputs, None)
                    else:  # a Patched is asked: it is issued as this very event is taken in, if at all
                        self.doubt = True
            elif type(event) is e.Child and self._child_digest(event) not in (event.inputs, None):
                self.doubt = True
            yield event

    def _passing(self, events: Iterable[e.EventBase]) -> Iterator[e.EventBase]:
        """Give events to the machine, and compare the inputs of steps as they were when they were issued."""
        trace, asked = self.trace, self.asked
        late: tuple[int, e.Step] | None = None
        machine = self.machine
        assert machine is not None
        for seq, event in enumerate(events, self.first):
            if trace:
                self._note()
            if late is not None:
                self._compare(*late)
                late = None
            if type(event) is e.Step:
                if event.inputs is not None and (found := asked.pop(event.at, _UNASKED)) is not _UNASKED:
                    if found[0] is not None and found[0] != event.inputs and found[1] is not None:
                        self._differ(seq, event, found[0], found[1])
                elif event.inputs is not None:
                    late = seq, event  # a Patched is asked: it is issued as this very event is taken in, if at all
            elif type(event) is e.Child:
                self._compare_child(seq, event, machine)
            yield event
        self._note()
        if late is not None:
            self._compare(*late)

    def _note(self) -> None:
        """Take down the digests of the steps that were issued since."""
        for at, command in self.trace:
            if isinstance(command, c.Step):
                self.asked[at] = self.digests.of(command), command
        self.trace.clear()

    def _compare(self, seq: int, event: e.Step) -> None:
        digest, command = self.asked.pop(event.at, _UNASKED)
        if command is not None and digest is not None and digest != event.inputs:
            self._differ(seq, event, digest, command)

    def _differ(self, seq: int, event: e.Step, digest: str, command: c.Step[Any]) -> None:
        if command.name != event.name or len(self.changed) >= _KEPT:  # another step is for the machine to find
            return
        self._change(seq, event.at, event.step_id, event.inputs or "", digest, encoded_inputs(self.codec, command))

    def _child_digest(self, event: e.Child) -> str | None:
        """The digest of what the child is called with now; None where there is nothing to compare."""
        assert self.machine is not None
        asked = self.machine.pending.get(event.at)
        if event.inputs is None or asked is None or asked.input is None or asked.command.label != event.workflow:
            return None
        return self.codec.digest(bytes(asked.input))

    def _compare_child(self, seq: int, event: e.Child, machine: Machine) -> None:
        now = self._child_digest(event)
        if event.inputs is None or now in (event.inputs, None) or len(self.changed) >= _KEPT:
            return
        given = bytes(machine.pending[event.at].input or b"").decode("utf-8", "replace")
        self._change(seq, event.at, event.workflow, event.inputs, now or "", given)

    def _change(self, seq: int, at: str, subject: str, recorded: str, digest: str, now: str | None) -> None:
        self.changed.append(ChangedInputs(seq, at, subject, recorded, digest, self.inputs.get(at), now))

    # ---- words

    def _at_the_end(self, outcome: bool) -> Misfit | None:
        machine = self.machine
        assert machine is not None
        if self.changed:
            return self._inputs_differ()
        last = self.last
        if not outcome or not machine.closed:
            return None
        if isinstance(last, e.Complete) and not _same_json(last.result, machine.result_raw):
            recorded, now = f"result {said(last)}", f"result {machine.result_raw.decode('utf-8', 'replace')[:_COLUMNS]}"
        elif isinstance(last, e.Error) and machine.error is not None:
            failure = failure_of(machine.error)
            if (failure.type, failure.message) == (last.error.type, last.error.message):
                return None
            recorded, now = f"failure {last.error}", f"failure {failure}"
        else:
            return None
        error = DivergenceError("the code comes to another outcome", seq=machine.seq - 1)
        return self._misfit("result", error, recorded=recorded, yielded=now, seq=machine.seq - 1)

    def _inputs_differ(self) -> Misfit:
        first, event = self.changed[0], self.since[0]
        error = DivergenceError("steps are called with other inputs than were recorded")
        return self._misfit("inputs", error, seq=first.seq, rest=self.since, subject=_words(event))

    def _parted(self, error: StepwellError, pages: Iterator[Sequence[e.EventBase]]) -> Misfit:
        """The machine took in no more: say where, and what is left."""
        machine = self.machine
        if machine is None or isinstance(error, InvalidYieldError):
            return self._misfit("yield", error, at_all=False)
        rest = list(chain(self.page[machine.seq - self.first :], *pages))
        event = rest[0] if rest else self.last
        if isinstance(error, DivergenceError):
            kind: MisfitKind = "command"
            if isinstance(event, e.CLOSING) and event.at is None:
                kind = "end"
            elif machine.status != "open":
                kind = "tail"
            pending = machine.pending.get(event.at) if event.at is not None else None
            at_hand = pending or next(iter(machine.pending.values()), None)
            line = place_of(at_hand) if at_hand is not None and machine.status == "open" else ""
            asked = None if at_hand is None or machine.status != "open" else at_hand.command
            yielded = _yielded(machine, error, None if pending is None else pending.command)
        elif isinstance(error, CodecError):
            kind, line, asked, yielded = "value", "", None, f"a value of another type: {error.message}"
        else:
            kind, line, asked, yielded = "yield", "", None, error.message
        return self._misfit(
            kind,
            error,
            recorded=_words(event),
            yielded=yielded,
            line=line,
            seq=machine.seq,
            rest=rest,
            subject=_words(event),
            asked=asked,
        )

    def _misfit(
        self,
        kind: MisfitKind,
        error: StepwellError,
        *,
        recorded: str = "",
        yielded: str = "",
        line: str = "",
        seq: int = -1,
        rest: Sequence[e.EventBase] = (),
        subject: str = "",
        asked: c.Command[Any] | None = None,
        at_all: bool = True,
    ) -> Misfit:
        place = None
        if at_all:
            place = Place(
                self.workflow,
                seq,
                rest,
                None if asked is None else (asked.kind, asked.label),
                subject,
                open_run=not (isinstance(rest[-1] if rest else self.last, e.CLOSING)),
                cancelled=self.cancelled or any(isinstance(event, e.Cancel) for event in self.page[: seq - self.first]),
            )
        at = (rest[0].at if rest else None) or ""
        left = () if kind == "inputs" else rest
        return Misfit(
            kind,
            error.code,
            MESSAGES.get(kind, error.message),
            self.run_id,
            self.start.incarnation,
            self.start.workflow,
            self.start.version,
            seq,
            at,
            recorded,
            yielded,
            line,
            tuple(self.changed),
            tuple(f"{seq + n} {_words(event)}" for n, event in enumerate(left[:_SHOWN])),
            len(left),
            remedies_for(kind, place),
        )


def _words(event: e.EventBase) -> str:
    """An event in the words of a divergence."""
    subject = subject_of(event)
    if isinstance(event, e.Step):
        return f"step {event.step_id!r}"
    return f"{event.kind} {subject!r}" if subject else event.kind


def _yielded(machine: Machine, error: DivergenceError, there: c.Command[Any] | None) -> str:
    """What the workflow asks for where the event stands."""
    if there is not None:
        return describe(there)
    if machine.status != "open":
        return f"nothing: the workflow has ended ({machine.status})"
    frontier = ", ".join(f"{describe(p.command)} at {p.at}" for p in machine.pending.values())
    return f"{frontier or 'nothing'}" + (f"; {error.yielded.partition(';')[0]}" if not frontier else "")


def _same_json(one: Raw, other: bytes) -> bool:
    """Whether two encoded values are the same but for the order of keys."""
    if bytes(one) == other:
        return True
    return msgspec.json.encode(msgspec.json.decode(one), order="sorted") == msgspec.json.encode(
        msgspec.json.decode(other), order="sorted"
    )
