"""Verbs that only look: list, show."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Iterator

from ..engine import Engine
from ..errors import NotFoundError
from ..outcomes import RunRecord, WaitingFor
from ..reading import waits_of_head
from .describing import EVENT_COLUMNS, event_rows, many, record_json, short, story, when
from .mistakes import OK, UsageError
from .opening import open_engine
from .terminal import Terminal, safe
from .values import tag_filter

__all__ = ["list_runs", "show", "show_history"]

_PAGE = 1_000


def list_runs(options: argparse.Namespace, terminal: Terminal) -> int:
    """`stepwell list`: a page of runs, newest first."""
    with open_engine(options) as engine:
        without = _without_patch(options, engine)
        found = (
            without
            if without is not None
            else engine.runs(
                status=options.status,
                workflow=options.workflow,
                tag=tag_filter(options.tag),
                waiting_for=options.waiting,
                blocked=True if options.blocked else None,
                version=options.version,
                closed=False if options.open else None,
                limit=options.limit,
                after=options.after,
            )
        )
    if options.json:
        terminal.json([record_json(record) for record in found])
        return OK
    if not found:
        terminal.line("no runs that match" if _filtered(options) else "no runs")
        return OK
    _table(terminal, found)
    if without is None and len(found) == options.limit:
        terminal.line(f"There may be more: add --after {shlex.quote(found[-1].id)}", "dim")
    return OK


def _without_patch(options: argparse.Namespace, engine: Engine) -> list[RunRecord] | None:
    """The runs that lack a patch, when those are asked for; all of them, for their number is what matters."""
    if options.without_patch is None:
        return None
    others = (options.status, options.tag, options.waiting, options.blocked, options.version, options.after)
    if any(others):
        raise UsageError("--without-patch goes with --workflow alone: it looks at every open run")
    return engine.unpatched(options.without_patch, workflow=options.workflow)


def show(options: argparse.Namespace, terminal: Terminal) -> int:
    """`stepwell show RUN`: its record and its history."""
    if options.follow:
        from .inspecting import follow  # most who look at a run look once

        return follow(options, terminal)
    with open_engine(options) as engine:
        if options.timeline or options.mermaid:
            return _drawn(options, terminal, engine)
        if options.raw:
            for line in _lines(engine, options.run, options.incarnation):
                terminal.raw(line)
            return OK
        record = engine.get(options.run)
        head = engine.store.head(record.id)
        waits = [] if head is None or head.closed else waits_of_head(head)
        if options.json:
            engine.history(record.id, incarnation=options.incarnation)  # checks every record
            lines = _lines(engine, record.id, options.incarnation)
            waiting = [{"signal": w.signal, "wait": w.wait, "reason": w.reason} for w in waits]
            history = [json.loads(line) for line in lines]
            terminal.json(record_json(record) | {"waiting": waiting, "history": history})
            return OK
        _show_record(terminal, record, waits)
        terminal.line()
        show_history(terminal, engine, record.id, incarnation=options.incarnation)
    return OK


def _drawn(options: argparse.Namespace, terminal: Terminal, engine: Engine) -> int:
    """The history as lines of text, or as a diagram."""
    history = engine.history(options.run, incarnation=options.incarnation)
    name, text = ("mermaid", history.mermaid()) if options.mermaid else ("timeline", history.timeline())
    if options.json:
        value: str | list[str] = text if options.mermaid else text.splitlines()
        terminal.json({"runId": history.run_id, "incarnation": history.incarnation, name: value})
    else:
        terminal.write(text)
    return OK


def show_history(terminal: Terminal, engine: Engine, run_id: str, *, incarnation: int | None = None) -> None:
    """Write a run's history as a table."""
    terminal.table(EVENT_COLUMNS, event_rows(engine.history(run_id, incarnation=incarnation)))


def _lines(engine: Engine, run_id: str, incarnation: int | None) -> Iterator[bytes]:
    """The records of a run as they are stored."""
    engine.get(run_id)  # says what is wrong with the run id, or that there is no such run
    seq, more = 0, True
    while more:
        tail = engine.store.read(run_id, seq, incarnation=incarnation, limit=_PAGE)
        if tail is None:
            raise NotFoundError(f"no run {run_id!r}")
        yield from tail.records
        seq, more = tail.seq, tail.more


def _show_record(terminal: Terminal, record: RunRecord, waits: list[WaitingFor]) -> None:
    status = terminal.status(record.status)
    said = story(record)
    pairs = [
        ("run", terminal.styled(record.id, "bold")),
        ("workflow", safe(f"{record.workflow}, version {record.version}")),
        ("status", f"{status}, {safe(said)}" if said else status),
        *(("waits for", _wait_line(terminal, wait)) for wait in waits),
        ("tags", safe(_tags(record))),
        ("input", safe(short(record.input))),
        ("result", safe(short(record.result)) if record.status == "completed" else ""),
        ("created", f"{when(record.created)} UTC"),
        ("updated", f"{when(record.updated)} UTC"),
        (
            "counts",
            ", ".join(
                (many(record.events, "event"), many(record.sessions, "session"), many(record.attempts, "attempt"))
            ),
        ),
    ]
    terminal.fields([pair for pair in pairs if pair[1]])


def _wait_line(terminal: Terminal, wait: WaitingFor) -> str:
    reason = f": {wait.reason}" if wait.reason else ""
    return safe(f"{wait.signal} since {when(wait.since)} UTC{reason} ") + terminal.styled(f"(wait {wait.wait})", "dim")


def _table(terminal: Terminal, records: list[RunRecord]) -> None:
    """A table of runs; columns that would be empty are left out."""
    columns = ("run", "workflow", "status", "events", "updated (UTC)", "tags", "what")
    rows = [(r.id, r.workflow, r.status, str(r.events), when(r.updated), _tags(r), story(r)) for r in records]
    kept = [i for i, name in enumerate(columns) if any(row[i] for row in rows)]
    terminal.table([columns[i] for i in kept], [[row[i] for i in kept] for row in rows])


def _tags(record: RunRecord) -> str:
    return ", ".join(f"{name}={value}" for name, value in record.tags.items())


def _filtered(options: argparse.Namespace) -> bool:
    words = ("status", "workflow", "tag", "waiting", "blocked", "version", "open", "without_patch", "after")
    return any(getattr(options, word) for word in words)
