"""Verbs that keep a store in order: prune, size."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from typing import Any

from ..engine import Engine
from ..errors import StoreUnavailableError
from ..retention import CLOSED, Fate, Wanted, sweep
from ..retention import prune as go_through
from ..store import RunHead
from ..upkeep import Pruned, StoreSize
from .describing import many
from .doctoring import readable_bytes
from .mistakes import OK, TRY_AGAIN, UsageError
from .opening import open_engine, parts_of
from .progress import Progress
from .terminal import Terminal, safe

__all__ = ["duration", "prune", "size"]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?[smhdw])+")
_PART = re.compile(r"([0-9.]+)([smhdw])")
_SHOWN = 10  # run ids that people are shown

_KEPT = {
    "newest": "among the newest, which --keep-last keeps",
    "needed": "children that an open parent may still need",
    "unreadable": "that can't be read: see stepwell verify",
    "changed": "that somebody else retried, reset or removed meanwhile",
}


def duration(text: str) -> float:
    """Seconds that `90`, `45s`, `30m`, `12h`, `7d`, `2w` or `1d12h` stand for; argparse tells what is wrong."""
    if text.isascii():
        if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
            return float(text)
        if _DURATION.fullmatch(text):
            return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    raise argparse.ArgumentTypeError(f"takes a duration such as 45s, 30m, 12h, 7d, 2w or 1d12h, and got {text!r}")


def prune(options: argparse.Namespace, terminal: Terminal) -> int:
    """`stepwell prune`: 3 when space could not be given back now; what was removed is removed all the same."""
    with open_engine(options) as engine:
        wanted = _wanted(options, engine)
        done = Pruned(dry_run=options.dry_run) if wanted is None else _remove(engine, wanted, options)
        freed, busy = _vacuum(engine) if options.vacuum and not options.dry_run else (None, None)
    if options.json:
        terminal.json(_json(done, freed, busy))
    else:
        _show(terminal, done, freed, busy)
    return OK if busy is None else TRY_AGAIN


def _wanted(options: argparse.Namespace, engine: Engine) -> Wanted | None:
    """What is to be removed; None when only space is to be given back."""
    wanted = Wanted.checked(options.older_than, options.keep_last, options.status or None, options.workflow)
    if wanted.by_ttl:
        if options.app is None:
            if options.vacuum and not (options.status or options.workflow or options.limit):
                return None
            raise UsageError(
                "nothing says what to remove: give --older-than or --keep-last, or --app for the ttl of its workflows"
            )
        known = {one.name for one in parts_of(engine).registry.with_ttl()}
        if not known or wanted.workflow not in (None, *known):
            which = "no workflow of the app" if wanted.workflow is None else f"workflow {wanted.workflow!r}"
            has = "has a ttl" if wanted.workflow is None else "has no ttl in the app"
            raise UsageError(f"{which} {has}, so nothing says what to remove: give --older-than or --keep-last")
    return wanted


def _remove(engine: Engine, wanted: Wanted, options: argparse.Namespace) -> Pruned:
    what = "looking for what would go" if options.dry_run else "removing runs"
    with Progress(sys.stderr, what) as progress:
        total = sum(number for status, number in engine.size().runs.items() if status in CLOSED)

        def shown(sweeping: Iterator[tuple[RunHead, Fate]]) -> Iterator[tuple[RunHead, Fate]]:
            removed = 0
            for looked, (head, fate) in enumerate(sweeping, 1):
                removed += fate == "removed"
                progress.show(looked / max(total, looked), many(removed, "run"))
                yield head, fate

        sweeping = shown(sweep(parts_of(engine), wanted, dry_run=options.dry_run))
        return go_through(sweeping, options.limit, dry_run=options.dry_run)


def _vacuum(engine: Engine) -> tuple[int | None, StoreUnavailableError | None]:
    try:
        return engine.vacuum(), None
    except StoreUnavailableError as error:
        return None, error


def _json(done: Pruned, freed: int | None, busy: StoreUnavailableError | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "removed": done.removed,
        "runIds": list(done.run_ids),
        "events": done.events,
        "kept": dict(done.kept),
        "more": done.more,
        "dryRun": done.dry_run,
    }
    if freed is not None:
        found["freedBytes"] = freed
    if busy is not None:
        found["notVacuumed"] = busy.message
    return found


def _show(terminal: Terminal, done: Pruned, freed: int | None, busy: StoreUnavailableError | None) -> None:
    for run_id in done.run_ids[:_SHOWN]:
        terminal.line(f"  {run_id}", "dim")
    if done.removed > _SHOWN:
        terminal.line(f"  and {done.removed - _SHOWN:,} more", "dim")
    would = "would be " if done.dry_run else ""
    terminal.line(f"{many(done.removed, 'run')} {would}removed, with {many(done.events, 'event')}", "bold")
    for reason, number in done.kept.items():
        terminal.line(f"{many(number, 'run')} kept: {_KEPT[reason]}")
    if done.more:
        terminal.line("There may be more: --limit ended it", "dim")
    if freed is not None:
        terminal.line(f"{readable_bytes(freed)} given back to the file system")
    if busy is not None:
        terminal.write(terminal.styled("no space was given back: ", "wait") + safe(" ".join(busy.message.split())))


def size(options: argparse.Namespace, terminal: Terminal) -> int:
    """`stepwell size`: runs by status, events, and bytes."""
    with open_engine(options) as engine:
        found = engine.size()
    if options.json:
        terminal.json({"runs": dict(found.runs), "events": found.events, "bytes": found.bytes, "freeBytes": found.free})
    else:
        _show_size(terminal, found)
    return OK


def _show_size(terminal: Terminal, found: StoreSize) -> None:
    statuses = ", ".join(f"{number:,} {status}" for status, number in sorted(found.runs.items()))
    free = f", {readable_bytes(found.free)} of them free" if found.free else ""
    pairs = [
        ("runs", f"{sum(found.runs.values()):,}" + (f": {statuses}" if statuses else "")),
        ("events", f"{found.events:,}"),
        ("size", readable_bytes(found.bytes) + free),
    ]
    terminal.fields(pairs)
