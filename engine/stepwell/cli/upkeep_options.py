"""The arguments of the verbs that keep a store in order, and of the worker's part in it."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from .terminal import Terminal

__all__ = ["add_upkeep", "add_worker_upkeep"]

_CLOSED = ("completed", "failed", "cancelled")


def add_upkeep(verb: Callable[..., argparse.ArgumentParser]) -> None:
    """Add prune and size."""
    made = verb(
        "prune",
        _call_prune,
        "Remove closed runs for good",
        "Open ones always stay. Without --older-than and --keep-last, the ttl of the app's workflows says what goes.",
    )
    made.add_argument("--older-than", type=_duration, metavar="TIME", help="closed for so long: 45s, 30m, 12h, 7d, 2w")
    made.add_argument("--keep-last", type=_count, metavar="N", help="so many of each workflow stay, those closed last")
    made.add_argument("--status", action="append", choices=_CLOSED, help="only runs of this status; may be repeated")
    made.add_argument("--workflow", metavar="NAME", help="only runs of this workflow")
    made.add_argument("--limit", type=_some, metavar="N", help="so many at most, those closed first")
    made.add_argument("--dry-run", action="store_true", help="remove nothing, and tell what would be removed")
    made.add_argument(
        "--vacuum",
        action="store_true",
        help="give free space back to the file system; a SQLite file's first time needs that nobody drives a run",
    )
    verb("size", _call_size, "Show how many runs and events a store has, and what it takes")
    verb(
        "rekey",
        _call_rekey,
        "Encrypt an encrypted store anew with its current key",
        "In its place, while others use it. Killed and called again it goes on. Then all is read with that key alone.",
    )
    made = verb("collect", _call_collect, "Remove large payloads that no run needs, which crashes have left")
    made.add_argument(
        "--grace",
        type=_duration,
        default=86_400.0,
        metavar="TIME",
        help="younger ones stay: 45s, 30m, 12h, 7d (default: 1d)",
    )


def add_worker_upkeep(worker: argparse.ArgumentParser) -> None:
    """Add what a worker removes."""
    worker.add_argument(
        "--prune-every",
        type=_every,
        default=600.0,
        metavar="SECONDS",
        help="time between two sweeps that remove closed runs whose workflow's ttl is over; 0: never (default: 600)",
    )


def _call_prune(options: argparse.Namespace, terminal: Terminal) -> int:
    from .pruning import prune

    return prune(options, terminal)


def _call_size(options: argparse.Namespace, terminal: Terminal) -> int:
    from .pruning import size

    return size(options, terminal)


def _call_rekey(options: argparse.Namespace, terminal: Terminal) -> int:
    from .rekeying import rekey

    return rekey(options, terminal)


def _call_collect(options: argparse.Namespace, terminal: Terminal) -> int:
    from .rekeying import collect

    return collect(options, terminal)


def _duration(text: str) -> float:
    from .pruning import duration

    return duration(text)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"takes a whole number, 0 or more, and got {text!r}")
    return int(text)


def _some(text: str) -> int:
    if not _count(text):
        raise argparse.ArgumentTypeError(f"takes a whole number, 1 or more, and got {text!r}")
    return _count(text)


def _every(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if seconds == 0:
        return None
    if not 0.001 <= seconds <= 1e9:  # also false for NaN
        raise argparse.ArgumentTypeError(
            f"takes seconds from 0.001, or 0 for never, as in --prune-every 3600, and got {text!r}"
        )
    return seconds
