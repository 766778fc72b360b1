"""The arguments of the verbs that bring runs from one place to another."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import get_args

from ..store import Status
from .terminal import Terminal

__all__ = ["add_moving"]


def add_moving(verb: Callable[..., argparse.ArgumentParser]) -> None:
    """Add migrate and import."""
    made = verb(
        "migrate",
        _call_migrate,
        "Move runs from one store into another, where open ones go on",
        "Both are URLs. Killed at any time and called again it goes on. Runs that somebody drives are left.",
    )
    made.add_argument("source", metavar="SOURCE", help="the store that has them")
    made.add_argument("target", metavar="TARGET", help="the store that they go to; made if it isn't there")
    made.add_argument("--status", choices=get_args(Status), help="only runs of this status, and their families")
    made.add_argument("--workflow", metavar="NAME", help="only runs of this workflow, and their families")
    made.add_argument("--tag", metavar="NAME[=VALUE]", help="only runs with this tag, and their families")
    made.add_argument(
        "--wait",
        type=_duration,
        default=0.0,
        metavar="TIME",
        help="wait so long for runs that somebody drives: 45s, 5m",
    )
    made.add_argument("--dry-run", action="store_true", help="move nothing, and tell what would be moved")
    made.add_argument(
        "--abandon",
        action="store_true",
        help="move nothing: list the runs that are on their way into TARGET since a move was broken off; with --yes "
        "turn them away: they stay in SOURCE, and their ids in TARGET are free",
    )
    made.add_argument(
        "--yes", action="store_true", help="with --abandon: nobody is moving these runs, and nobody will any more"
    )
    made = verb(
        "import",
        _call_import,
        "Read runs back from JSONL files",
        "All files are checked to their last byte before anything is written; with --app they are replayed, too.",
    )
    made.add_argument(
        "paths", metavar="PATH", nargs="+", help="a directory of journals, or a file with what `show --raw` has printed"
    )
    made.add_argument("--run-id", metavar="ID", help="the run's id, when neither the file nor its name says it")


def _call_migrate(options: argparse.Namespace, terminal: Terminal) -> int:
    from .moving import migrate

    return migrate(options, terminal)


def _call_import(options: argparse.Namespace, terminal: Terminal) -> int:
    from .moving import import_files

    return import_files(options, terminal)


def _duration(text: str) -> float:
    from .pruning import duration

    return duration(text)
