"""`stepwell check`: replay every open run of a store against the code at hand. Nothing is written."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..errors import StoreMisconfiguredError
from .describing import many
from .mistakes import ENDED_BADLY, OK, UsageError
from .opening import STORE_VARIABLE, load_app, parts_of
from .progress import Progress
from .terminal import Terminal, safe

__all__ = ["add_check", "check"]

_RUNS = 3  # run ids that people are shown of those that break in the same way


def add_check(verb: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the verb."""
    made = verb(
        "check",
        check,
        "Replay every open run against the code at hand: would this deploy break one?",
        "Writes nothing. --store may name a copy of the store. Exit code 1 when a run would break. Needs --app.",
    )
    made.add_argument("--workflow", metavar="NAME", help="only runs of this workflow")
    made.add_argument(
        "--ignore-inputs",
        action="store_true",
        help="a step that is called with other inputs than recorded is no break",
    )
    made.add_argument(
        "--processes", type=_processes, metavar="N", help="processes that replay, 1 to 256 (default: one for each CPU)"
    )


def check(options: argparse.Namespace, terminal: Terminal) -> int:
    """`stepwell check`: 1 when a run would break."""
    if options.app is None:
        raise UsageError("check replays runs against workflow code: say where it is, as in --app shop.workflows:engine")
    from ..testing.fleet import Fleet, can_share, store_at  # what few verbs need
    from ..testing.fleet_processes import Worker

    url = options.store or os.environ.get(STORE_VARIABLE)
    if url:
        os.environ[STORE_VARIABLE] = url  # so that an app that reads it follows --store
    parts = parts_of(load_app(options.app))
    store = store_at(url) if url else None
    read = parts.store if store is None else store
    path = getattr(read, "path", None)
    if isinstance(path, str) and not Path(path).exists():
        raise StoreMisconfiguredError(f"no store at {path}; check the path")
    count = options.processes or _cpus()
    worker = (lambda: Worker(options.app, url, inputs=not options.ignore_inputs)) if can_share(read) else None
    fleet = Fleet(parts, store, options.workflow, not options.ignore_inputs, worker, count)
    if options.json or not sys.stderr.isatty():
        for _ in fleet.check():
            pass
    else:
        _with_progress(fleet)
    if options.workflow and not (fleet.checked or fleet.gone or parts.registry.versions(options.workflow)):
        raise UsageError(
            f"--workflow {options.workflow}: the app has no workflow of that name, and the store has no open run of one"
        )
    if options.json:
        terminal.json(_json(fleet))
    else:
        _show(fleet, terminal)
    return ENDED_BADLY if fleet.misfits else OK


def _with_progress(fleet: Any) -> None:
    """Look at all runs, and show how far that has come."""
    total = fleet.count()
    with Progress(sys.stderr, "replaying open runs") as progress:
        for share in fleet.check():
            note = f"{len(fleet.misfits):,} would break" if fleet.misfits else ""
            progress.show(share or (fleet.checked + fleet.gone) / max(total, 1), note)


def _json(fleet: Any) -> dict[str, Any]:
    """All of it as a JSON object."""
    return {
        "checked": fleet.checked,
        "fits": fleet.fits,
        "gone": fleet.gone,
        "breaks": len(fleet.misfits),
        "runs": [one.json() for one in fleet.misfits],
    }


def _show(fleet: Any, terminal: Terminal) -> None:
    """Write a text for each way in which runs break, with the runs that do, and how many fit."""
    for alike in _alike(fleet.misfits):
        first, *rest = alike
        head, *body = str(first).splitlines()
        terminal.write(terminal.styled("breaks", "bad") + safe(f"  {head}"))
        for line in body:
            terminal.write(safe(line))
        if rest:
            names = ", ".join(repr(one.run_id) for one in rest[:_RUNS])
            more = f" and {len(rest) - _RUNS:,} more" if len(rest) > _RUNS else ""
            terminal.write(safe(f"  also       {names}{more}"))
    counted = Counter(one.workflow for one in fleet.misfits)
    wrong = ", ".join(f"{name or 'unknown'} {number:,}" for name, number in counted.most_common())
    said = f"{many(len(fleet.misfits), 'run')} would break ({wrong})" if fleet.misfits else "no run would break"
    meanwhile = f", {many(fleet.gone, 'run')} ended meanwhile" if fleet.gone else ""
    verdict = terminal.styled(said, "bad" if fleet.misfits else "good")
    terminal.write(f"{many(fleet.checked, 'open run')} checked{meanwhile}: {verdict}")


def _alike(misfits: Iterable[Any]) -> list[list[Any]]:
    """Misfits by what is the same of them but for the run, the most frequent first."""
    found: dict[Any, list[Any]] = {}
    for one in misfits:
        key = (one.workflow, one.version, one.kind, one.at, one.recorded, one.yielded)
        found.setdefault(key if one.kind != "damaged" else one.run_id, []).append(one)
    return sorted(found.values(), key=len, reverse=True)


def _cpus() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _processes(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and 1 <= int(text) <= 256):
        raise argparse.ArgumentTypeError(f"takes a whole number from 1 to 256, as in --processes 2, and got {text!r}")
    return int(text)
