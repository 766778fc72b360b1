"""What is said of a history that the code does not fit: where, what is recorded, what is yielded, what mends it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

import msgspec

from ..texts import cut, many

__all__ = ["MESSAGES", "ChangedInputs", "Misfit", "MisfitKind", "Remedy"]

MisfitKind: TypeAlias = Literal[
    "command", "tail", "end", "inputs", "value", "input", "result", "yield", "version", "workflow", "damaged"
]
"""How a history and code don't fit: another command, recorded events that are left over, a recorded end that the code
goes on after, changed inputs, a recorded value of another type, the run's own input, another outcome, no command
yielded, an unknown version or workflow, a history that can't be read."""

MESSAGES: dict[str, str] = {
    "command": "the workflow asks for something else than is recorded",
    "tail": "the workflow has ended, and recorded events are left over",
    "end": "the workflow goes on, and its recorded history has ended",
    "inputs": "steps are called with other inputs than were recorded",
    "value": "a recorded value does not fit the type that the code asks for",
    "input": "the recorded input does not fit the workflow's parameters",
    "result": "the workflow comes to another outcome than is recorded",
}
"""What is wrong, in a line, where the error itself does not say it well."""

_SHOWN = 10
_COLUMNS = 200


class Remedy(msgspec.Struct, frozen=True):
    """One way to mend a misfit.

    Attributes:
        by: "Patched", "version", "fork", or a word for what else helps: "types", "strict_inputs", "workflows", "code",
            "record", "backup".
        how: what to do, in a sentence.
    """

    by: str
    how: str


class ChangedInputs(msgspec.Struct, frozen=True, rename="camel"):
    """A recorded step or child that the code calls with other arguments now.

    Attributes:
        seq, at: the recorded event.
        subject: the step id, or the child's workflow.
        recorded_digest, digest: of the inputs, as recorded and as they are now.
        recorded, now: the arguments as JSON; None where nobody kept them.
    """

    seq: int
    at: str
    subject: str
    recorded_digest: str
    digest: str
    recorded: str | None = None
    now: str | None = None


class Misfit(msgspec.Struct, frozen=True, rename="camel"):
    """A history that the code at hand does not fit; `str()` of it is a text for people.

    Attributes:
        kind: how it does not fit.
        code: code of the error that an engine would raise.
        message: what is wrong, in a line.
        run_id, incarnation: whose history it is.
        workflow, version: what its start says.
        seq, at: the recorded event that does not fit; -1 and "" when it is none.
        recorded, yielded: what the history holds there, and what the workflow asks for, in words.
        line: where the workflow yields that, as `file:line, in function`; "" when it does not say.
        changed: the steps and children with other inputs, in order, the first ones.
        left: the recorded events from there on, in words, the first ones.
        left_over: how many there are.
        remedies: what mends it, the best one first.
    """

    kind: MisfitKind
    code: str
    message: str
    run_id: str = ""
    incarnation: int = 0
    workflow: str = ""
    version: str = ""
    seq: int = -1
    at: str = ""
    recorded: str = ""
    yielded: str = ""
    line: str = ""
    changed: tuple[ChangedInputs, ...] = ()
    left: tuple[str, ...] = ()
    left_over: int = 0
    remedies: tuple[Remedy, ...] = ()

    @property
    def headline(self) -> str:
        """The first line of the text."""
        where = f", event {self.seq}" if self.seq >= 0 else ""
        at = f" at {self.at}" if self.at else ""
        run = f"run {self.run_id!r}" if self.run_id else "a run without a name"
        return f"{run}{where}{at}: {self.message}"

    def json(self) -> dict[str, Any]:
        """Give all of it as plain JSON."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found

    def __str__(self) -> str:
        name = f"workflow {self.workflow!r}, version {self.version}" if self.workflow else "unknown workflow"
        return "\n".join([f"{self.headline} ({name})", *self._body()])

    def _body(self) -> Iterator[str]:
        if self.recorded:
            yield f"  recorded   {self.recorded}"
        if self.yielded:
            yield f"  yielded    {self.yielded}" + (f"   ({self.line})" if self.line else "")
        for one in self.changed[:_SHOWN]:
            yield f"  inputs     of {one.subject!r}, event {one.seq} at {one.at}"
            yield f"    recorded {_inputs(one.recorded, one.recorded_digest)}"
            yield f"    yielded  {_inputs(one.now, one.digest)}"
        if len(self.changed) > _SHOWN:
            yield f"             and {len(self.changed) - _SHOWN} more"
        if self.left_over > 1 or self.kind == "tail":
            yield f"  left over  {many(self.left_over, 'recorded event')} from there on"
            yield from (f"    {text}" for text in self.left)
            if self.left_over > len(self.left):
                yield f"    and {self.left_over - len(self.left):,} more"
        for number, remedy in enumerate(self.remedies):
            yield ("  mend by    " if number == 0 else "  or by      ") + f"{remedy.by}: {remedy.how}"


def _inputs(value: str | None, digest: str) -> str:
    """Arguments in words; without their values, their digest alone."""
    return f"digest {digest}" if value is None else f"{cut(value, _COLUMNS)}  (digest {digest})"
