"""What the machine is made of: fibers, the commands they wait for, and the groups they belong to. Floor 3."""

from __future__ import annotations

from collections.abc import Generator
from enum import Enum
from typing import Any

import msgspec

from .commands import All, Command, Race

__all__ = ["CancelState", "Fiber", "Group", "Pending", "Verdict", "line_of"]


class CancelState(Enum):
    """How far a cancel has come in a fiber."""

    NONE = "none"
    DUE = "due"  # to be thrown at the next effect, wait or group
    THROWN = "thrown"  # steps are performed again (clean-up), waits raise Cancelled again


class Pending(msgspec.Struct, eq=False):  # a Struct, because every command has one, and attrs takes thrice as long
    """A command that was issued and is not answered: an entry of the frontier.

    Attributes:
        at: path of the command in its run.
        command: what was yielded.
        name: for a Step, its name.
        number: for a Step, how often its name was yielded so far.
        cancelling: for a Step, cancelled: no attempt may begin any more.
        lost: for a Step in a Race that another branch has decided: a late result is dropped.
        recorded: whether its `suspend` or `sleep` event is in the history.
        wait: for a Suspend, its wait id.
        due: for a timer, a wait with time-out, or a step before its next attempt: the recorded instant.
        attempts: for a Step, attempts that are recorded: failed ones, and one of which chunks are.
        begun: for an `at_most_once` Step, whether `begin` is in the history.
        details: for a Step, what it told last of its progress, as JSON.
        default: for a Suspend, what a time-out gives: as JSON, and the type to read it back.
        show: for a Suspend, its `show` as JSON.
        child: for a Child that was started, its run id.
        input, budget: for a Child, its arguments as JSON, and what it may spend.
        reason: why the last attempt failed, in words.
    """

    at: str
    command: Command[Any]
    fiber: Fiber
    name: str | None = None
    number: int = 0
    cancelling: bool = False
    lost: bool = False
    recorded: bool = False
    wait: str = ""
    since: str = ""
    due: str | None = None
    attempts: int = 0
    begun: bool = False
    details: bytes | None = None
    default: tuple[bytes, Any] | None = None
    show: bytes | None = None
    child: str = ""
    input: msgspec.Raw | None = None
    budget: float | None = None

    @property
    def step_id(self) -> str:
        """For a Step, its name with `#2`, `#3` on repeats."""
        return f"{self.name}#{self.number}" if self.number > 1 else self.name or ""


class Fiber(msgspec.Struct, eq=False, weakref=True):
    """One branch of a run: a generator and where it stands. The root is the fiber without a group.

    Attributes:
        path: prefix of the `at` of its commands: "" for the root, "3.0." for a branch.
        count: number of its next command.
        waiting: what it is blocked on; None while it is in the queue, runs, or asks Patched.
        ignored: how often in a row it went on waiting after Cancelled was thrown.
    """

    gen: Generator[Any, Any, Any]
    path: str = ""
    group: Group | None = None
    index: int = 0
    cancel: CancelState = CancelState.NONE
    count: int = 0
    waiting: Pending | Group | None = None
    started: bool = False
    ended: bool = False
    ignored: int = 0


class Verdict(msgspec.Struct, eq=False):
    """How a branch ended: a value, or an error."""

    value: Any = None
    error: BaseException | None = None


class Group(msgspec.Struct, eq=False):
    """An All or Race under way.

    Attributes:
        verdicts: how each branch ended, None while it has not.
        left: how many have not.
        next: index of the next branch to start.
        failure: for All, the first failure.
        winner: for Race, the branch that decided.
        cancelled: whether the fiber that opened it was cancelled meanwhile.
    """

    at: str
    command: All[Any] | Race[Any]
    parent: Fiber
    fibers: list[Fiber] = msgspec.field(default_factory=list)
    verdicts: list[Verdict | None] = msgspec.field(default_factory=list)
    left: int = 0
    next: int = 0
    failure: BaseException | None = None
    winner: int | None = None
    cancelled: bool = False

    @property
    def stopping(self) -> bool:
        """Whether no further branch is started."""
        return self.cancelled or self.failure is not None or self.winner is not None

    @property
    def over(self) -> bool:
        """Whether every branch has ended."""
        return self.left == 0

    def add(self, fiber: Fiber) -> None:
        """Take in a branch."""
        self.fibers.append(fiber)
        self.verdicts.append(None)
        self.left += 1

    def end(self, index: int, verdict: Verdict) -> None:
        """Take down how a branch ended."""
        if self.verdicts[index] is None:
            self.left -= 1
        self.verdicts[index] = verdict

    def note(self, index: int, verdict: Verdict) -> bool:
        """Take down how a branch ended; True when that decides the group, so that the others are to be cancelled."""
        self.end(index, verdict)
        error = verdict.error
        if isinstance(self.command, Race):
            decides = self.winner is None and not (self.cancelled and error is not None)
            if decides:
                self.winner = index
            return decides and not self.cancelled
        if error is None or self.cancelled or (self.command.settle and isinstance(error, Exception)):
            return False
        if self.failure is None:
            self.failure = error
            return True
        if isinstance(error, Exception):
            self.failure.add_note(f"branch {index} failed too: {type(error).__name__}: {error}")
        return False

    def answer(self) -> Verdict | None:
        """What the fiber that opened the group gets once it is over; None stands for Cancelled."""
        if isinstance(self.command, Race):
            if self.winner is None:
                return None
            verdict = self.verdicts[self.winner]
            assert verdict is not None
            if verdict.error is not None:
                return None if self.cancelled else verdict
            names = self.command.names
            return Verdict((names[self.winner] if names else self.winner, verdict.value))
        ended = [v for v in self.verdicts if v is not None]
        if self.cancelled:
            return None if any(v.error is not None for v in ended) else Verdict(tuple(v.value for v in ended))
        if self.failure is not None:
            return Verdict(error=self.failure)
        return Verdict(tuple(v.value if v.error is None else v.error for v in ended))


def line_of(gen: Generator[Any, Any, Any]) -> str:
    """`file:line, in function` of the innermost `yield` that the generator stands at; "" when it has none.

    The file without its folders: this text may be recorded, and host paths stay out of histories.
    """
    place = ""
    inner: Any = gen
    while inner is not None and getattr(inner, "gi_frame", None) is not None:
        code, frame = inner.gi_code, inner.gi_frame
        if code is not _ITER_CODE:
            file = code.co_filename.replace("\\", "/").rpartition("/")[2]
            place = f"{file}:{frame.f_lineno}, in {code.co_qualname}"
        inner = inner.gi_yieldfrom
    return place


_ITER_CODE = Command.__iter__.__code__


def describe(command: Command[Any]) -> str:
    """A command in the words of an error: kind, and name where it has one."""
    return f"{command.kind} {command.label!r}" if command.label else command.kind
