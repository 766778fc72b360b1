"""What lint finds, and what it refuses."""

from __future__ import annotations

from typing import Any

import msgspec

from ...errors import StepwellError

__all__ = ["Finding", "LintError"]


class LintError(StepwellError):
    """Code can't be linted: its source is not there, or it is no Python. The text says what to do."""

    code = "LINT"


class Finding(msgspec.Struct, frozen=True):
    """Something in workflow code that is not the same on every replay, or is not performed at all.

    Attributes:
        rule: id of the rule, as `# stepwell: allow RULE reason` names it.
        file: path, seen from the current directory where it lies below it.
        line: 1-based.
        column: 1-based, in characters.
        reason: what is wrong, one sentence.
        remedy: what to write in its place, one sentence.
        workflow: name of a workflow that gets there; "" when the finding is about a comment.
        through: the calls by which it gets there, outermost first, each `function (file:line)`; empty when the code is
            the workflow's own.
    """

    rule: str
    file: str
    line: int
    column: int
    reason: str
    remedy: str
    workflow: str = ""
    through: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.rule} {self.reason} {self.remedy}"

    def json(self) -> dict[str, Any]:
        """Give it as JSON has it: a dict of its attributes."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found
