"""The machine: a fold over history. No clock, no store, no thread, no chance, no I/O.

Theory of operation
===================

A workflow is a generator that yields commands. The machine starts it and then knows the *frontier*: the commands that
were issued and not answered. Feeding an event answers one of them; the fiber that yielded it goes on until it yields
the next command; the frontier changes. That is all:

    machine = Machine(workflow, start)       # runs to the first frontier
    for event in history[1:]:                # replay, test, live: the same call
        machine.feed(event)
    machine.pending                          # the frontier, by `at`, oldest first

The machine can't tell whether it is replaying. Running live is: append an event to the store, then feed it. So live and
replay can't differ.

*Paths.* `at` names a command by its place in the code's structure: the root's commands are "0", "1", ...; the group
at "3" has branches "3.0", "3.1", whose commands are "3.0.0", "3.0.1". No interleaving or change in a sibling shifts it.

*Turns.* Fibers run from one FIFO queue, each until it blocks. Answers are delivered in history order, one at a time; a
turn ends when the queue is empty. So even variables that branches share are deterministic.

*Cancel.* A cancelled fiber's wait is interrupted at once. A step keeps its outcome, which the owner records: the
real one, or `cancelled` when it had not begun; then `Cancelled` comes at the fiber's next effect, wait or group. Once
thrown, steps are performed again, because clean-up needs them, and waits raise Cancelled again.

*Patched.* While a fiber asks, nothing advances. The owner's next event decides: its own `patch` event makes the answer
True, any other one was recorded by code that did not ask, which makes it False. Signals and cancels wait meanwhile.

*Divergence* is found before anything changes: an owner's event must fit what is pending at its `at`, in kind and name.

Floor 3: imports no time, random, os, threading, socket, sqlite3, logging (a test holds that).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import Any

from msgspec import Raw

from . import commands as c
from . import events as e
from .codec import Codec
from .errors import Cancelled, CodecError, Failure, InvalidInputError, InvalidYieldError, StepFailed
from .failures import failure_of
from .fibers import CancelState, Fiber, Pending, Verdict
from .handlers import HANDLERS, Handlers, forced
from .inputs import decode_input, encode_input
from .limits import CycleDetectedError, DepthExceededError
from .mailbox import Mailbox
from .results import Results, default_and_show, flow_result
from .scheduler import Scheduler
from .workflows import Workflow

__all__ = ["MAX_DEPTH", "GoesOnAsNew", "Machine"]

MAX_DEPTH = 32
"""How many ancestors a run may have, unless the engine that started the first of them says otherwise."""


class GoesOnAsNew(BaseException):
    """Thrown at a ContinueAsNew, so that `finally` runs; no `except Exception` can swallow it."""


class Machine(Handlers):
    """The fold of one run.

    Args:
        workflow: the code.
        start: the first event of the history.
        codec: turns payloads into values.
        run_id: for the texts of errors.
        trace: a list that gets each command as it is issued, as (at, command).

    Attributes:
        pending: the frontier by `at`, oldest first.
        asking: change id that a fiber asks Patched about, or None.
        seq: number of events taken in so far, the start included; the offset of the next one.
        status: "open" until the generator has ended and compensations have run, then "complete", "error" or
            "cancelled": how the run must be closed; or "continue".
        result: the workflow's return value, as it is read back; `result_raw` is how it is recorded.
        error: the exception that left the workflow.
        closed: whether the closing event has been fed.
        paused, cancelled: what outside events asked for.
        state: what SetState left, as JSON by name.
        mailbox: the signals that came.
        budget, spent: what the run may spend, None without a limit, and what it has spent.
        children: children that were started and have not ended, by run id; `abandoned`, those that nobody waits for;
            `charged`, what each child was found to have spent.
        suppressed: how compensations failed.
        has_children: whether a Child was ever yielded.
        undone: whether compensations have begun to run; of a run that has failed and may be restarted, they wait.
        next_input: the arguments of the next incarnation, when `status` is "continue".

    Raises:
        CodecError: the recorded input does not fit the workflow's parameters.
        InvalidYieldError: the workflow yielded something that is no command.
    """

    def __init__(
        self,
        workflow: Workflow[..., Any],
        start: e.Start,
        *,
        codec: Codec,
        run_id: str = "",
        trace: list[tuple[str, c.Command[Any]]] | None = None,
    ) -> None:
        self.workflow = workflow
        self.codec = codec
        self.run_id = run_id
        self.incarnation = start.incarnation
        self.trace = trace
        self.seq = 0
        self.status = "open"
        self.result: Any = None
        self.result_raw = b""
        self.error: BaseException | None = None
        self.closed = False
        self.paused = False
        self.cancelled = False
        self.cancel_reason: str | None = None
        self.state: dict[str, bytes] = {}
        self.patches: dict[str, bool] = {}
        self.mailbox = Mailbox(start.seen)
        self.start = start
        self.budget, self.spent = start.budget, start.spent
        self.children: dict[str, str] = {}
        self.abandoned: set[str] = set()
        self.charged: dict[str, float] = {}
        self.suppressed: list[Failure] = []
        self.next_input: Raw | None = None
        self.has_children = False
        self.undone = False
        self._compensations: list[c.Step[Any]] = []
        self._ending: tuple[str, BaseException | None] | None = None  # while compensations run
        self.asking: str | None = None
        self._asker: Fiber | None = None
        self._held: deque[tuple[e.EventBase, int]] = deque()
        self.results = Results(codec)
        self._timers_set: set[str] = set()
        root = workflow.fn(*decode_input(codec, workflow, start.input))
        self._fibers = Scheduler(workflow.name, root, self, trace)
        self.pending: dict[str, Pending] = self._fibers.pending
        self._turn(self._run)
        self.seq = 1

    # ---- what is asked from outside

    def feed(self, event: e.EventBase) -> None:
        """Take in the next event of the history; raises as `fold`."""
        self.fold((event,))

    def fold(self, events: Iterable[e.EventBase]) -> None:
        """Take in the next events of the history, in order.

        Raises:
            DivergenceError: the event answers no command that was issued.
            CodecError: a recorded value does not fit the type that the workflow asks for now. As before, the machine is
                as it was before that event, but that a Patched may have been decided.
            InvalidYieldError: the workflow yielded something that is no command; its generators are closed.
        """
        self._turn(self._take_in, events)

    def cut(self) -> int | None:
        """Where a retry cuts the history of a failed run; None means: only the closing event is dropped."""
        return self._fibers.cut(self.error)

    def close(self) -> None:
        """Close the generators, innermost first; commands that they yield meanwhile are never performed."""
        token = c.made_in_turn.set(None)  # what clean-up makes is no turn's
        try:
            self._fibers.close()
        finally:
            c.made_in_turn.reset(token)

    # ---- what the scheduler asks

    def unnumbered(self, fiber: Fiber, command: c.Command[Any]) -> Verdict | None:
        if isinstance(command, c.Patched):
            if command.change_id in self.patches:
                return Verdict(self.patches[command.change_id])
            self._asker, self.asking = fiber, command.change_id
            self._fibers.halted = True
            return None
        if isinstance(command, c.Compensate):
            if command.step.name == "<lambda>":
                raise self._fibers.invalid(fiber, "a lambda has no name to be recorded by; write .options(name=...)")
            self._compensations.append(command.step)
            return Verdict()
        if isinstance(command, c.ContinueAsNew):
            return self._go_on_as_new(fiber, command)
        assert isinstance(command, c.SetState)
        try:
            encoded = {name: self.codec.encode(value) for name, value in command.values.items()}
        except CodecError as error:
            return Verdict(error=error)
        self.state.update(encoded)
        return Verdict()

    def admit(self, pending: Pending) -> Verdict | None:
        command = pending.command
        try:
            if isinstance(command, c.Suspend):
                pending.default, pending.show = default_and_show(self.codec, command)
                early = None if command.fresh else self.mailbox.take(command.signal)
                if early is not None:
                    return self._received(pending, early, early.offset)
                pending.wait = f"{command.signal}@{self.incarnation}:{pending.at}"
            elif isinstance(command, c.Emit):
                self.codec.encode(command.value)
            elif isinstance(command, c.Child):
                return self._admit_child(pending, command)
            elif isinstance(command, c.Spend) and (refused := self.overspent(pending.at)):
                return Verdict(error=refused)
        except CodecError as error:
            return Verdict(error=error)
        return None

    def _admit_child(self, pending: Pending, command: c.Child[Any]) -> Verdict | None:
        """Refuse a child that would never end: its own ancestor, or one of too many."""
        self.has_children = True
        name, start = command.workflow.name, self.start
        line = [*start.ancestors, start.workflow]
        limit = MAX_DEPTH if start.max_depth is None else start.max_depth
        if name in line and not command.workflow.recursive:
            text = f"{' -> '.join([*line, name])}: a workflow may be its own descendant with @workflow(recursive=True)"
            return Verdict(error=CycleDetectedError(text))
        if len(line) > limit:
            text = f"{' -> '.join([*line, name])}: a run may have {limit} ancestors; Engine(max_depth=) says otherwise"
            return Verdict(error=DepthExceededError(text))
        if refused := self.overspent(pending.at):
            return Verdict(error=refused)
        try:
            pending.input = encode_input(self.codec, command.workflow, command.args)
        except InvalidInputError as error:
            return Verdict(error=error)
        return None

    def _go_on_as_new(self, fiber: Fiber, command: c.ContinueAsNew) -> Verdict:
        """Leave the root, whose end opens the next incarnation; a cancel that came before wins."""
        if fiber is not self._fibers.root:
            raise self._fibers.invalid(fiber, "ContinueAsNew may be yielded by the workflow itself, not in a branch")
        if self.cancelled:
            fiber.cancel = CancelState.THROWN
            return Verdict(error=Cancelled())
        try:
            self.next_input = encode_input(self.codec, self.workflow, command.args)
        except InvalidInputError as error:
            return Verdict(error=error)
        return Verdict(error=GoesOnAsNew())

    # ---- turns

    def _turn(self, run: Callable[..., None], *args: Any) -> None:
        token = c.made_in_turn.set(self._fibers.made)
        try:
            run(*args)
        except InvalidYieldError:  # nothing goes on from there
            self.close()
            raise
        finally:
            c.made_in_turn.reset(token)

    def _take_in(self, events: Iterable[e.EventBase]) -> None:
        fibers = self._fibers
        for event in events:
            fibers.event = self.seq
            if self.asking is not None or self.closed or fibers.void:
                self._take_in_late(event)
            else:
                HANDLERS[type(event)](self, event)
                if (verdict := fibers.run()) is not None:
                    self._end(verdict)
            self.seq += 1

    def _take_in_late(self, event: e.EventBase) -> None:
        """Take in an event while a fiber asks Patched, or after the run was ended."""
        if event.at in self._fibers.void:
            return
        if self.closed:
            raise self._divergence(event, "the history goes on after the event that closed the run")
        if self.asking is None or isinstance(event, (e.Pause, e.Unpause)) or forced(event):
            self._apply(event)
        elif isinstance(event, e.OUTSIDE):
            self._held.append((event, self.seq))
        else:
            self._decide(event)

    def _decide(self, event: e.EventBase) -> None:
        """The owner's next event while a fiber asks Patched: it says whether this run has the change."""
        while self.asking is not None:
            fiber, change_id = self._asker, self.asking
            assert fiber is not None
            own = isinstance(event, e.Patch) and event.change_id == change_id
            told = event.patches if isinstance(event, e.Retry) else {}
            self.patches[change_id] = told.get(change_id, own)
            self._asker, self.asking, self._fibers.halted = None, None, False
            self._fibers.answer(fiber, Verdict(self.patches[change_id]), first=True)
            self._run()
            while self._held and self.asking is None:
                held, self._fibers.event = self._held.popleft()
                self._apply(held)
            self._fibers.event = self.seq
            if own:
                return
        self._apply(event)

    def _apply(self, event: e.EventBase) -> None:
        HANDLERS[type(event)](self, event)
        if (verdict := self._fibers.run()) is not None:
            self._end(verdict)

    def _run(self) -> None:
        """Let the fibers go on."""
        if (verdict := self._fibers.run()) is not None:
            self._end(verdict)

    def _end(self, verdict: Verdict) -> None:
        """Take in how the root ended, and then how what undoes its effects did, each once."""
        if self.status != "open":
            return
        if self._ending is not None:
            self.suppressed = [failure for failure in verdict.value or [] if isinstance(failure, Failure)]
            self.status, self.error = self._ending
            return
        if isinstance(verdict.error, InvalidInputError):
            raise verdict.error  # a command that can't be made is a mistake of the code, like a wrong yield
        going_on = self.next_input is not None and (verdict.error is None or isinstance(verdict.error, GoesOnAsNew))
        if going_on and not self.cancelled:
            self.status = "continue"
        elif going_on or (self._fibers.thrown and (verdict.error is None or isinstance(verdict.error, Cancelled))):
            self._end_badly("cancelled", None)
        elif verdict.error is not None:
            self._end_badly("error", verdict.error)
        else:
            self._returned(verdict.value)

    def _end_badly(self, status: str, error: BaseException | None) -> None:
        """The run is to be closed so, once its compensations have run, the newest first."""
        self.status, self.error = status, error
        if status == "cancelled" or self.workflow.restart is None:  # or else its owner asks that policy first
            self.compensate()

    @property
    def to_undo(self) -> bool:
        """Whether there are compensations that have not begun to run."""
        return bool(self._compensations) and not self.undone

    def compensate(self) -> bool:
        """Begin to undo what was done; False when there is nothing to be undone, or it is being undone already."""
        if not self._compensations or self.undone or self.closed or self.status not in ("error", "cancelled"):
            return False
        self._ending = self.status, self.error
        self.status, self.error, self.undone = "open", None, True
        self._fibers.begin(_undone(self._compensations), "undo.")
        self._run()
        return True

    def _stop_going_on(self) -> None:
        if self.status == "continue":
            self.status = "open"
            self._end_badly("cancelled", None)

    def _returned(self, value: Any) -> None:
        """Take in the workflow's return value; one that can't be recorded fails the run."""
        into = flow_result(self.workflow)
        try:
            self.result_raw = self.codec.encode(value, into)
            self.status, self.result = "complete", self.codec.decode(self.result_raw, into)
        except CodecError as error:
            self.status = "open"
            self._end_badly("error", error)


def _undone(compensations: list[c.Step[Any]]) -> Generator[c.Command[Any], Any, list[Failure]]:
    """Perform the compensations, the newest first; gives the failures of those that failed."""
    failures: list[Failure] = []
    while compensations:
        try:
            yield compensations.pop()
        except StepFailed as failed:
            failures.append(failure_of(failed))
    return failures
