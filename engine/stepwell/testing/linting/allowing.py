"""Comments that silence: `# stepwell: allow RULE reason`, on the line of a finding or alone on the line above."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator

import msgspec

from .finding import Finding
from .project import shown
from .rules import RULES
from .scopes import Module

__all__ = ["Allows"]

_COMMENT = re.compile(r"#\s*stepwell:\s*allow\b[:\s]*(?P<rule>[\w-]*)[:,]?\s*(?P<reason>.*)")


class _Allow(msgspec.Struct, eq=False):
    """One comment. `lines` are those that it speaks of."""

    rule: str
    reason: str
    line: int
    column: int
    lines: range
    used: bool = False

    @property
    def complaint(self) -> str:
        """What is wrong with it; it silences nothing then."""
        if self.rule not in RULES or self.rule == "allow":
            known = ", ".join(name for name in RULES if name != "allow")
            return f"{self.rule!r} is no rule; there are: {known}." if self.rule else "It names no rule."
        return "" if self.reason.strip() else f"It does not say why {self.rule} is allowed here."


class Allows:
    """The comments of one file."""

    def __init__(self, module: Module) -> None:
        self._file = shown(module.path)
        statements = _statements(module.scope.node)
        self._all = list(_comments(module.source, statements))

    def silence(self, rule: str, line: int) -> bool:
        """Whether a finding is allowed; the comment that allows it has served then."""
        found = False
        for allow in self._all:
            if allow.rule == rule and line in allow.lines and not allow.complaint:
                allow.used = found = True
        return found

    def findings(self, spans: Iterable[range]) -> Iterator[Finding]:
        """What is wrong with the comments themselves; those that serve nothing are told within these lines only."""
        looked_at = list(spans)
        for allow in self._all:
            if allow.complaint:
                yield self._finding(allow, allow.complaint)
            elif not allow.used and any(allow.line in span or allow.lines[0] in span for span in looked_at):
                yield self._finding(allow, f"It silences nothing: {allow.rule} is not found here.")

    def _finding(self, allow: _Allow, reason: str) -> Finding:
        return Finding("allow", self._file, allow.line, allow.column, reason, RULES["allow"].remedy)


def _statements(tree: ast.AST) -> dict[int, range]:
    """For each line, the lines of the innermost statement there; of one with a body, those of its head."""
    found: dict[int, range] = {}
    for node in ast.walk(tree):  # breadth first, so that inner ones come later
        if isinstance(node, (ast.stmt, ast.ExceptHandler)):
            end = node.end_lineno or node.lineno
            body = getattr(node, "body", None)
            if isinstance(body, list) and body:
                end = max(node.lineno, body[0].lineno - 1)
            lines = range(node.lineno, end + 1)
            found.update(dict.fromkeys(lines, lines))
    return found


def _comments(source: str, statements: dict[int, range]) -> Iterator[_Allow]:
    if "stepwell:" not in source:
        return
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        match = _COMMENT.search(token.string) if token.type == tokenize.COMMENT else None
        if match is None:
            continue
        line, column = token.start
        about = line
        if token.line[:column].strip() == "":  # alone: it is about what comes next
            rest = (
                n for n, text in enumerate(lines[line:], line + 1) if text.strip() and not text.strip().startswith("#")
            )
            about = next(rest, line)
        reach = statements.get(about, range(about, about + 1))
        yield _Allow(match["rule"], match["reason"], line, column + 1, reach)
