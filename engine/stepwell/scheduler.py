"""The scheduler of fibers: runs generators, numbers what they yield, opens and closes groups, carries cancels.

It knows commands, never events: what it can't settle by itself it asks of its host, the machine. Fibers run from one
FIFO queue, branches left to right, each until it blocks. Floor 3.
"""

from __future__ import annotations

import inspect
import warnings
from collections import deque
from collections.abc import Generator
from typing import Any, Protocol

from . import commands as c
from .command import Command
from .errors import CancelIgnoredError, Cancelled, InvalidYieldError, StepwellWarning, Thrown
from .fibers import CancelState, Fiber, Group, Pending, Verdict, line_of

__all__ = ["MAX_IGNORED_CANCELS", "MAX_IGNORED_CLOSES", "MAX_TURN", "Host", "Scheduler"]

MAX_IGNORED_CANCELS = 100
"""Waits that a cancelled fiber may begin in a row before the run is failed."""

MAX_IGNORED_CLOSES = 100
"""Commands that a generator may yield while it is closed."""

MAX_TURN = 100_000
"""Commands that one turn may issue: a loop that never waits for anything is a mistake."""

_NOT_CANCELLED = CancelState.NONE
_COMMAND: Any = Command  # one that is an effect has a name besides


class Host(Protocol):
    """What the scheduler asks of the machine."""

    def unnumbered(self, fiber: Fiber, command: c.Command[Any]) -> Verdict | None:
        """Answer a command that takes no number (SetState, Patched); None: the scheduler is to stop."""
        ...

    def admit(self, pending: Pending) -> Verdict | None:
        """Take in a numbered command that is no step: its answer, where there is one at once; None: it is pending."""
        ...


class Scheduler:
    """The fibers of one run.

    Attributes:
        pending: commands that were issued and not answered, by `at`, oldest first.
        halted: while true, no fiber advances.
        verdict: how the root ended, None before.
        thrown: whether Cancelled was thrown into the root.
        event: offset of the event that is being fed, for the origin of exceptions.
        origins: of an exception that own code raised in a branch: the offset after the event that led to it, by id.
        notes: of the failure that a group raised: the failures of siblings that came later, by id.
        made: commands that the workflow made and has not yielded yet.
        void: paths that were pending when the run was ended from outside: what comes for them is ignored.
    """

    def __init__(
        self, name: str, gen: Generator[Any, Any, Any], host: Host, trace: list[tuple[str, c.Command[Any]]] | None
    ) -> None:
        self.name = name
        self.host = host
        self.trace = trace
        self.pending: dict[str, Pending] = {}
        self.halted = False
        self.verdict: Verdict | None = None
        self.event = 0
        self.origins: dict[int, tuple[BaseException, int]] = {}
        self.notes: dict[int, tuple[BaseException, list[BaseException]]] = {}
        self.made: dict[int, c.Command[Any]] = {}
        self.void: set[str] = set()
        self.root = Fiber(gen)
        self._fibers: dict[int, Fiber] = {id(gen): self.root}
        self._queue: deque[tuple[Fiber, Any, BaseException | None]] = deque([(self.root, None, None)])
        self._numbers: dict[str, int] = {}

    @property
    def thrown(self) -> bool:
        return self.root.cancel is CancelState.THROWN

    def run(self) -> Verdict | None:
        """Run every fiber that can go on, until each is blocked or the scheduler is halted; how the root ended."""
        answered, queue = 0, self._queue
        while queue and not self.halted:
            fiber, value, error = queue.popleft()
            if fiber.ended:
                continue
            fiber.started = True
            while True:
                try:
                    command = fiber.gen.send(value) if error is None else fiber.gen.throw(error)
                except StopIteration as stop:
                    self._end(fiber, Verdict(stop.value))
                    break
                except (KeyboardInterrupt, SystemExit):
                    raise  # of the process, never the workflow's outcome
                except BaseException as raised:
                    self._end(fiber, Verdict(error=raised))
                    break
                at_once = self._issue(fiber, command)
                if at_once is None:
                    break
                value, error = at_once.value, at_once.error
                answered += 1
                if answered >= MAX_TURN:
                    why = f"one turn issued more than {MAX_TURN:,} commands: it loops and never waits"
                    raise self.invalid(fiber, why)
        return self.verdict

    def answer(self, fiber: Fiber, verdict: Verdict, *, first: bool = False) -> None:
        """Queue a fiber with what its `yield` gives."""
        fiber.waiting = None
        if first:
            self._queue.appendleft((fiber, verdict.value, verdict.error))
        else:
            self._queue.append((fiber, verdict.value, verdict.error))

    def settle(self, pending: Pending, value: Any = None, error: BaseException | None = None) -> None:
        """Answer a pending command, with a value or an error."""
        del self.pending[pending.at]
        fiber = pending.fiber
        fiber.ignored = 0
        fiber.waiting = None
        self._queue.append((fiber, value, error))

    def settle_cancelled(self, pending: Pending) -> None:
        """Answer a step that was cancelled: Cancelled is thrown at its own `yield`."""
        pending.fiber.cancel = CancelState.THROWN
        self.settle(pending, error=Cancelled())

    def end(self, verdict: Verdict) -> None:
        """End the run from outside the generators."""
        self.void.update(self.pending)
        self.close()
        self.pending.clear()
        self.verdict = verdict

    def begin(self, gen: Generator[Any, Any, Any], path: str) -> None:
        """Run another generator, now that the root has ended: how it ends is the verdict then."""
        fiber = Fiber(gen, path)
        self.verdict = None
        self._fibers[id(gen)] = fiber
        self._queue.append((fiber, None, None))

    def close(self) -> None:
        """Close the generators, innermost first; commands that they yield meanwhile are never performed."""
        fibers = list(self._fibers.values())
        self._fibers.clear()
        self._queue.clear()
        complaints: list[str] = []
        for fiber in reversed(fibers):
            fiber.ended = True
            complaints += _close(fiber.gen)
        for what in complaints:  # once all are closed: a warning may be made an error
            text = f"workflow {self.name!r}: clean-up code failed when the run was parked: {what}"
            warnings.warn(text, StepwellWarning, stacklevel=2)

    def in_use(self, gen: Generator[Any, Any, Any]) -> bool:
        """Whether a generator can't be a new branch: it is started, ended, or a fiber's already."""
        return id(gen) in self._fibers or inspect.getgeneratorstate(gen) != inspect.GEN_CREATED

    def invalid(self, fiber: Fiber, why: str) -> InvalidYieldError:
        """The error for something that a workflow may not do, with its own line."""
        return InvalidYieldError(f"workflow {self.name!r}, {_line(fiber)}: {why}")

    def cut(self, left: BaseException | None) -> int | None:
        """Offset of the earliest failed outcome behind what left the root; None when there is none.

        Looked for in the error itself, its causes and contexts, and the failures of its groups.
        """
        found: int | None = None
        stack: list[BaseException | None] = [left]
        seen: set[int] = set()
        while stack:
            error = stack.pop()
            if error is None or id(error) in seen:
                continue
            seen.add(id(error))
            seq = error.seq if isinstance(error, Thrown) else self.origins.get(id(error), (error, -1))[1]
            if seq >= 0 and (found is None or seq < found):
                found = seq
            stack += [error.__cause__, error.__context__, *self.notes.get(id(error), (error, ()))[1]]
        return found

    # ---- running

    def _issue(self, fiber: Fiber, command: Any) -> Verdict | None:
        """Take in what a fiber yielded: its answer, where there is one at once, or None when the fiber blocks."""
        if not isinstance(command, _COMMAND):
            raise self.invalid(fiber, f"it yielded {_shown(command)}")
        self.made.pop(id(command), None)
        if not command.numbered:
            return self.host.unnumbered(fiber, command)
        if fiber.cancel is not _NOT_CANCELLED:
            stops = command.is_group or command.is_effect or command.is_child
            if command.is_wait or (stops and fiber.cancel is CancelState.DUE):
                return self._throw_cancelled(fiber)
        at = f"{fiber.path}{fiber.count}"
        fiber.count += 1
        if self.trace is not None:
            self.trace.append((at, command))
        if command.is_effect:
            name, numbers = command.name, self._numbers  # a step has the number of its name
            number = numbers[name] = numbers.get(name, 0) + 1
            if number == 1 and name == "<lambda>":
                why = "a lambda has no name to be recorded by; write Step(...).options(name=...)"
                raise self.invalid(fiber, why)
            pending = Pending(at, command, fiber, name, number)
        elif command.is_group:
            return self._open(fiber, command, at)
        else:
            pending = Pending(at, command, fiber)
            at_once = self.host.admit(pending)
            if at_once is not None:
                return at_once
        fiber.waiting = self.pending[at] = pending
        return None

    def _throw_cancelled(self, fiber: Fiber) -> Verdict | None:
        """Cancelled, thrown at a `yield`; None when the fiber has gone on waiting too often and the run is failed."""
        fiber.cancel = CancelState.THROWN
        fiber.ignored += 1
        if fiber.ignored <= MAX_IGNORED_CANCELS:
            return Verdict(error=Cancelled())
        text = (
            f"workflow {self.name!r}, {_line(fiber)}: it was cancelled and went on waiting {MAX_IGNORED_CANCELS} "
            "times in a row; let Cancelled pass, and clean up with steps only"
        )
        self.end(Verdict(error=CancelIgnoredError(text)))
        return None

    def _end(self, fiber: Fiber, verdict: Verdict) -> None:
        fiber.ended = True
        self._fibers.pop(id(fiber.gen), None)
        if fiber.group is None:
            self.verdict = verdict
            if self.made and verdict.error is None:
                text = f"workflow {self.name!r} made commands and never yielded them: {c.unyielded(self.made.values())}"
                warnings.warn(text, StepwellWarning, stacklevel=2)
            return
        if isinstance(verdict.error, Cancelled):
            verdict.error.__traceback__ = None  # nobody reads it, and its frames hold whoever drove the run, for long
        if verdict.error is not None and not isinstance(verdict.error, Thrown):
            self.origins.setdefault(id(verdict.error), (verdict.error, self.event + 1))
        self._branch_ended(fiber.group, fiber.index, verdict)

    # ---- groups

    def _open(self, fiber: Fiber, command: Any, at: str) -> Verdict | None:
        if not command.branches:
            return Verdict(())
        group = Group(at, command, fiber)
        # clean-up in branches is clean-up all the same: steps are performed, waits raise Cancelled again
        cancel = CancelState.THROWN if fiber.cancel is CancelState.THROWN else CancelState.NONE
        for i, branch in enumerate(command.branches):
            gen = _single(branch) if isinstance(branch, c.Command) else branch
            if self.in_use(gen):
                raise self.invalid(
                    fiber, f"branch {i} of {type(command).__name__} is a generator that is in use already"
                )
            child = Fiber(gen, f"{at}.{i}.", group, i, cancel, ignored=fiber.ignored)
            self._fibers[id(gen)] = child
            group.add(child)
        fiber.waiting = group
        limit = (command.limit if isinstance(command, c.All) else None) or len(group.fibers)
        for child in group.fibers[:limit]:
            self.answer(child, Verdict())
        group.next = limit
        return None

    def _branch_ended(self, group: Group, index: int, verdict: Verdict) -> None:
        failure = group.failure
        if group.note(index, verdict):
            self._stop(group, lost=isinstance(group.command, c.Race))
        elif failure is not None and verdict.error is not None:
            self.notes.setdefault(id(failure), (failure, []))[1].append(verdict.error)
        if not group.stopping and group.next < len(group.fibers):
            self.answer(group.fibers[group.next], Verdict())
            group.next += 1
        if group.over:
            self._deliver(group)

    def _stop(self, group: Group, *, lost: bool) -> None:
        """Cancel every branch that has not ended; one that has not started never does."""
        for i, fiber in enumerate(group.fibers):
            if group.verdicts[i] is not None:
                continue
            if fiber.started:
                self.cancel(fiber, lost=lost)
            else:
                fiber.ended = True
                self._fibers.pop(id(fiber.gen), None)
                fiber.gen.close()
                group.end(i, Verdict(error=Cancelled()))

    def _deliver(self, group: Group) -> None:
        parent, answer = group.parent, group.answer()
        if answer is None or (isinstance(answer.error, Cancelled) and parent.cancel is CancelState.THROWN):
            answer = self._throw_cancelled(parent)
            if answer is None:
                return
        self.answer(parent, answer)

    # ---- cancel

    def cancel(self, fiber: Fiber, *, lost: bool = False) -> None:
        """Cancel a fiber and all below it, once.

        A wait is interrupted at once; a step is marked and waits for its outcome; everything else gets its answer
        first, and Cancelled at its next effect, wait or group. `lost`: the fiber lost a Race, its results are dropped.
        """
        if fiber.ended or fiber.cancel is not CancelState.NONE:
            return
        fiber.cancel = CancelState.DUE
        waiting = fiber.waiting
        if isinstance(waiting, Group):
            waiting.cancelled = True
            self._stop(waiting, lost=lost)
            if waiting.over:
                self._deliver(waiting)
        elif isinstance(waiting, Pending) and waiting.command.is_wait:
            fiber.cancel = CancelState.THROWN
            self.settle(waiting, error=Cancelled())
        elif isinstance(waiting, Pending) and (waiting.command.is_effect or waiting.command.is_child):
            waiting.cancelling, waiting.lost = True, lost


def _close(gen: Generator[Any, Any, Any]) -> list[str]:
    """Close a generator and those that it delegates to, innermost first; what went wrong, in words.

    `gen.close()` alone would throw the RuntimeError of an inner generator that yields once more into the outer one, and
    leave the inner one to the garbage collector.
    """
    complaints: list[str] = []
    ignored = 0
    while ignored < MAX_IGNORED_CLOSES:
        inner = _innermost(gen)
        try:
            inner.close()
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            if inspect.getgeneratorstate(inner) != inspect.GEN_CLOSED:
                ignored += 1  # it yielded a command, which is not performed
                continue
            complaints.append(f"{type(error).__name__}: {error}")
        if inner is gen:
            return complaints
    complaints.append(f"it yielded {MAX_IGNORED_CLOSES} commands while it was closed; none was performed")
    return complaints


def _innermost(gen: Any) -> Any:
    """The generator at the end of a chain of `yield from` that is not closed yet."""
    inner = gen.gi_yieldfrom
    while inspect.isgenerator(inner) and inspect.getgeneratorstate(inner) != inspect.GEN_CLOSED:
        gen, inner = inner, inner.gi_yieldfrom
    return gen


def _single(command: c.Command[Any]) -> Generator[c.Command[Any], Any, Any]:
    return (yield command)


def _line(fiber: Fiber) -> str:
    """The workflow's own line; a command that is a branch by itself stands at the line of its group."""
    while fiber.group is not None and getattr(fiber.gen, "gi_code", None) is _single.__code__:
        fiber = fiber.group.parent
    return line_of(fiber.gen)


def _shown(value: Any) -> str:
    """What was yielded in place of a command, with a hint."""
    try:
        text = repr(value)
    except Exception:
        text = f"a {type(value).__name__}"
    if len(text) > 200:
        text = text[:197] + "..."
    hint = ""
    if inspect.isgenerator(value):
        hint = "; write `yield from` to run a generator in this workflow"
    elif isinstance(value, type) and issubclass(value, c.Command):
        hint = f"; write {value.__name__}(...)"
    elif callable(value):
        hint = "; write Step(function, arguments)"
    return f"{text}, which is no command{hint}"
