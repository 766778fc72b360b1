"""`stepwell lint`: what is not the same on every replay, for people, editors, GitHub and programs."""

from __future__ import annotations

import argparse
from typing import Any

from ..texts import many
from .mistakes import ENDED_BADLY, OK, UsageError
from .terminal import Terminal, safe

__all__ = ["lint"]


def lint(options: argparse.Namespace, terminal: Terminal) -> int:
    """`stepwell lint MODULE_OR_FILE...`: 1 when there are findings."""
    if options.rules:
        _show_rules(options, terminal)
        return OK
    if not options.targets:
        raise UsageError("lint needs a file, a folder or a module, as in: stepwell lint shop/orders.py")
    from ..testing.linting.linter import look_at

    report = look_at(options.targets)
    if options.json:
        terminal.json(
            {
                "findings": [finding.json() for finding in report.findings],
                "files": report.files,
                "workflows": report.workflows,
            }
        )
    elif options.format == "text":
        _show(report, terminal)
    else:
        for finding in report.findings:
            terminal.line(str(finding) if options.format == "editor" else _annotation(finding))
    return ENDED_BADLY if report.findings else OK


def _show_rules(options: argparse.Namespace, terminal: Terminal) -> None:
    from ..testing.linting.rules import RULES

    if options.json:
        terminal.json(
            [{"id": one.id, "finds": one.finds, "why": one.why, "remedy": one.remedy} for one in RULES.values()]
        )
        return
    for rule in RULES.values():
        terminal.line(rule.id, "heading")
        for text in (rule.finds, rule.why, rule.remedy):
            terminal.line(f"    {text}")


def _show(report: Any, terminal: Terminal) -> None:
    for finding in report.findings:
        place = safe(f"{finding.file}:{finding.line}:{finding.column}")
        terminal.write(f"{terminal.styled(place, 'bold')}  {terminal.styled(finding.rule, 'bad')}")
        terminal.line(f"    {finding.reason}")
        terminal.line(f"    {finding.remedy}")
        if finding.through:
            terminal.line(f"    reached by {' -> '.join(finding.through)}", "dim")
    looked = f"{many(len(report.workflows), 'workflow')} of {many(report.files, 'file')}"
    if report.findings:
        terminal.line()
        terminal.line(f"{many(len(report.findings), 'finding')} in {looked}", "bad")
    else:
        terminal.line(f"nothing found in {looked}", "good")


def _annotation(finding: Any) -> str:
    """A workflow command, which GitHub shows beside the line."""
    where = f"file={_property(finding.file)},line={finding.line},col={finding.column}"
    text = _data(f"{finding.reason} {finding.remedy}")
    return f"::error {where},title={_property(f'stepwell lint: {finding.rule}')}::{text}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
