"""Verbs that bring runs from one place to another: migrate, import."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from ..abandoning import abandon
from ..checks import checked_filter
from ..engine import Engine
from ..environment import new_token
from ..importing import import_runs
from ..migrating import as_movable, moving, same_place, tally
from ..moving import Fate
from ..opening import shown_url
from ..store import HeadFilter, RunHead, Store
from ..upkeep import Moved
from .describing import many
from .mistakes import OK, TRY_AGAIN, UsageError
from .opening import open_engine, open_store, parts_of
from .progress import Progress
from .terminal import Terminal, safe

__all__ = ["import_files", "migrate"]

_SHOWN = 10

_KEPT = {
    "busy": "driven by somebody, or waiting for one that is: try again, or give --wait",
    "taken": "in the target already, under their ids",
    "unreadable": "that can't be read: see stepwell verify",
    "changed": "that somebody else moved, retried, reset or removed meanwhile",
}

_LEFT = {
    "departed": "that have left the source: move again without --abandon, and they go on in the target",
    "busy": "that somebody drives or moves: try again",
    "elsewhere": "that come from another store: name that one as SOURCE",
}


def migrate(options: argparse.Namespace, terminal: Terminal) -> int:
    """`stepwell migrate`: 3 when runs stay that may be moved later."""
    if options.abandon:
        return _abandon(options, terminal)
    if options.yes:
        raise UsageError("migrate asks for no --yes: it is for --abandon")
    with Engine(open_store(options.source, must_exist=True)) as engine:
        name, _, value = (options.tag or "").partition("=")
        tag = (name, value) if value else name or None
        where = checked_filter(options.status, options.workflow, tag, None, None)
        target = open_store(options.target, must_exist=False)
        try:
            done = _move(engine, target, where, options)
        finally:
            target.close()
    if options.json:
        terminal.json(
            {
                "moved": done.moved,
                "runIds": list(done.run_ids),
                "events": done.events,
                "kept": dict(done.kept),
                "keptIds": dict(done.kept_ids),
                "dryRun": done.dry_run,
            }
        )
    else:
        _show(terminal, done)
    return TRY_AGAIN if {"busy", "changed"} & set(done.kept) and not done.dry_run else OK


def _move(engine: Engine, target: Store, where: HeadFilter, options: argparse.Namespace) -> Moved:
    names = (options.source, options.target)
    going = moving(parts_of(engine), target, where, options.wait, dry_run=options.dry_run, names=names)
    with Progress(sys.stderr, "looking for what would move" if options.dry_run else "moving runs") as progress:
        total = sum(engine.size().runs.values())

        def shown() -> Iterator[tuple[RunHead, Fate]]:
            moved = 0
            for looked, (run, fate) in enumerate(going, 1):
                moved += fate in ("moved", "landed")
                progress.show(looked / max(total, looked), many(moved, "run"))
                yield run, fate

        return tally(shown(), dry_run=options.dry_run)


def _abandon(options: argparse.Namespace, terminal: Terminal) -> int:
    """`stepwell migrate SOURCE TARGET --abandon`: 3 when some are driven or moved at this moment."""
    if options.status or options.workflow or options.tag or options.wait or options.dry_run:
        raise UsageError("--abandon is about all that is on its way: it goes with --yes, and with nothing else")
    found: dict[str, list[str]] = {}
    with closing(open_store(options.source, must_exist=True)) as source:
        target = open_store(options.target, must_exist=True)
        with closing(target):
            origin, to = shown_url(options.source), shown_url(options.target)
            if same_place(source, target) or options.source == options.target:
                raise UsageError(f"both stores are {to}: name the one that the runs come from, and the one they go to")
            stores = as_movable(source, origin), as_movable(target, to)
            owner = f"abandon-{new_token()}"
            for arrival, fate in abandon(*stores, origin=origin, owner=owner, dry_run=not options.yes):
                found.setdefault(fate, []).append(arrival.run.run_id)
    gone = found.pop("abandoned", [])
    if options.json:
        kept = {run_id: why for why, ids in found.items() for run_id in ids}
        terminal.json({"abandoned": len(gone), "runIds": gone, "keptIds": kept, "dryRun": not options.yes})
    else:
        would = "" if options.yes else "would be "
        terminal.line(f"{many(len(gone), 'arrival')} {would}turned away", "bold")
        _list(terminal, gone)
        for why, ids in found.items():
            terminal.line(f"{many(len(ids), 'arrival')} left: {_LEFT[why]}")
            _list(terminal, ids)
        if gone and not options.yes:
            terminal.line("say --yes if nobody moves these runs, and nobody will any more")
    return TRY_AGAIN if "busy" in found and options.yes else OK


def _list(terminal: Terminal, run_ids: list[str]) -> None:
    for run_id in run_ids[:_SHOWN]:
        terminal.line(f"  {safe(run_id)}", "dim")
    if len(run_ids) > _SHOWN:
        terminal.line(f"  and {len(run_ids) - _SHOWN:,} more", "dim")


def _show(terminal: Terminal, done: Moved) -> None:
    would = "would be " if done.dry_run else ""
    terminal.line(f"{many(done.moved, 'run')} {would}moved, with {many(done.events, 'event')}", "bold")
    for reason, number in done.kept.items():
        terminal.line(f"{many(number, 'run')} left: {_KEPT[reason]}")
        named = [run_id for run_id, why in done.kept_ids.items() if why == reason]
        for run_id in named[:_SHOWN]:
            terminal.line(f"  {safe(run_id)}", "dim")
        if number > _SHOWN:
            terminal.line(f"  and {number - _SHOWN:,} more", "dim")


def import_files(options: argparse.Namespace, terminal: Terminal) -> int:
    """`stepwell import`: nothing is written unless all of it can be."""
    with open_engine(options, may_create=True) as engine, Progress(sys.stderr, "importing runs") as progress:
        done = import_runs(
            parts_of(engine),
            [Path(path) for path in options.paths],
            options.run_id,
            replay=options.app is not None,
            progress=progress.show,
        )
    if options.json:
        terminal.json(
            {"runIds": list(done.run_ids), "events": done.events, "there": done.there, "replayed": done.replayed}
        )
        return OK
    terminal.line(f"{many(len(done.run_ids), 'run')} imported, with {many(done.events, 'event')}", "bold")
    _list(terminal, list(done.run_ids))
    if done.there:
        terminal.line(f"{many(done.there, 'run')} there already, with the same records")
    if done.replayed:
        terminal.line(f"{many(done.replayed, 'run')} replayed against the app's code")
    return OK
