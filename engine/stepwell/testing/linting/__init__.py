"""Lint: what is not the same on every replay, and what is never performed, found by reading a workflow's source.

One analysis serves all rules: `project` finds and reads files, `scopes` says which names they bind, `meaning` resolves
expressions to what they stand for, `reach` walks from a workflow through the helpers that it calls. The rules are small
functions over that: `impure`, `ordering`, `sharing`, `leaving`, `yielding`. Nothing of the user's is imported or run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .finding import Finding, LintError

if TYPE_CHECKING:
    from ...workflows import Workflow

__all__ = ["Finding", "LintError", "lint"]


def lint(*targets: Workflow[..., Any] | str | Path) -> list[Finding]:
    """Find what makes workflow code differ from one replay to the next, and what it never performs.

    Reads source, and imports and runs nothing. It looks through the helper functions and helper generators that a
    workflow calls, in its own module and in others of the project, and never into what is handed to `Step` and its
    like, which may do anything. `# stepwell: allow RULE reason` on a line silences that rule there. What it can't tell
    from the text it does not speak of.

    Args:
        targets: workflows; paths of files and folders; dotted names of modules and packages.

    Returns:
        The findings, in the order of files and lines; empty when there are none.

    Raises:
        InvalidInputError: a target is none of these.
        LintError: a workflow's source, a file or a module can't be found, or is no Python.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> source = '''
        ... from datetime import datetime
        ... from stepwell import Flow, Step, workflow
        ...
        ... @workflow
        ... def order(item: str) -> Flow[str]:
        ...     ordered = datetime.now()
        ...     return (yield from Step(print, item, ordered))
        ... '''
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder) / "orders.py"
        ...     _ = path.write_text(source)
        ...     found = lint(path)
        >>> [(one.rule, one.line, one.column) for one in found]
        [('clock', 7, 15)]
        >>> found[0].reason
        'datetime.now() depends on when it runs, and a replay runs at another time.'
        >>> found[0].remedy
        'Write `now = yield from Now()`.'
    """
    from .linter import look_at

    return look_at(targets).findings
