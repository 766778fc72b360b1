"""What looks closer: diff, and show --follow."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from datetime import datetime

from .. import events as e
from ..checks import checked_incarnation, checked_run_id
from ..depicting import line, start_of
from ..differences import DIFF_COLUMNS, diff_head, diff_rows
from ..following import follow as pages_of
from ..texts import many
from ..wire import read_tail
from .mistakes import ENDED_BADLY, OK, UsageError
from .opening import open_engine
from .terminal import Terminal

__all__ = ["diff", "follow"]


def diff(options: argparse.Namespace, terminal: Terminal) -> int:
    """`stepwell diff A B`: where two histories part; 1 when they do."""
    with open_engine(options) as engine:
        found = engine.diff(
            options.a, options.b, incarnation_a=options.incarnation_a, incarnation_b=options.incarnation_b
        )
    if options.json:
        terminal.json(found.json())
    else:
        terminal.write(diff_head(found))
        if not found.same:
            terminal.line()
            terminal.table(DIFF_COLUMNS, diff_rows(found))
    return OK if found.same else ENDED_BADLY


def follow(options: argparse.Namespace, terminal: Terminal) -> int:
    """`stepwell show RUN --follow`: each event as it comes, until the run is closed; Ctrl-C ends it too."""
    if options.mermaid:
        raise UsageError("a diagram shows what is there: --mermaid and --follow can't go together")
    run_id, first = checked_run_id(options.run), checked_incarnation(options.incarnation)
    with open_engine(options) as engine:
        shown = _Lines(terminal)
        for page in pages_of(engine.store, run_id, incarnation=first):
            if options.raw:
                for record in page.tail.records:
                    terminal.raw(record)
            else:
                events = read_tail(page.tail, run_id)  # checks every record
                if options.json:
                    for record in page.tail.records:
                        terminal.write(json.dumps(json.loads(record)))
                else:
                    shown.show(events)
            terminal.flush()
    return OK


class _Lines:
    """Writes events as a timeline; what an incarnation took over from one that was shown is summed up."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._since: datetime | None = None
        self._taken_over = 0
        self._began = False

    def show(self, events: Iterable[e.EventBase]) -> None:
        for event in events:
            if isinstance(event, e.Start):
                self._begin(event)
            if 0 < event.offset <= self._taken_over:
                continue
            self._terminal.write(line(event, self._since))
            if isinstance(event, e.Start) and self._taken_over:
                self._terminal.line(f"{'':10}  ... {many(self._taken_over, 'event')} taken over", "dim")

    def _begin(self, start: e.Start) -> None:
        if start.incarnation:
            self._terminal.line(f"incarnation {start.incarnation}", "heading")
        self._since = start_of(start)
        self._taken_over = start.prefix if self._began else 0  # else nobody has seen it yet
        self._began = True
