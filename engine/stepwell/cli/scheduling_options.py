"""The arguments of `stepwell schedule` and its actions."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import datetime

from .terminal import Terminal

__all__ = ["add_schedule"]


def add_schedule(verb: Callable[..., argparse.ArgumentParser], common: argparse.ArgumentParser) -> None:
    """Add schedule."""
    made = verb(
        "schedule",
        _call,
        "Look at the schedules of an app, and start, pause or trigger them",
        "Schedules are code, so it needs --app; pause and unpause can do with --store.",
    )
    actions = made.add_subparsers(dest="action", metavar="ACTION", required=True, title="actions")

    def action(name: str, text: str, more: str = "") -> argparse.ArgumentParser:
        return actions.add_parser(
            name, help=text, description=f"{text}. {more}".strip(), parents=[common], allow_abbrev=False
        )

    action("list", "List schedules: when they are due next, how they stand, and their newest run")
    one = action("next", "Show the next slots of a schedule")
    _name(one)
    one.add_argument("-n", type=_some, default=5, metavar="N", help="so many at most (default: 5)")
    one.add_argument("--after", type=_instant, metavar="INSTANT", help="those after this instant (default: now)")
    one = action(
        "ensure",
        "Start what is not started, and tell what runs of changed plans",
        "A worker does so when it begins. One that was cancelled is begun anew only when it is named.",
    )
    one.add_argument("names", metavar="NAME", nargs="*", help="schedules (default: all)")
    one = action("trigger", "Record a run of a schedule that is due at once")
    _name(one)
    one.add_argument("--slot", type=_instant, metavar="INSTANT", help="the slot that it stands for (default: now)")
    one = action("pause", "Start no more slots until it is unpaused", "Those that come meanwhile are missed.")
    _name(one)
    one.add_argument("--reason", metavar="TEXT", help="kept in the history")
    _name(action("unpause", "Go on with a schedule", "What was missed goes by its policy."))


def _call(options: argparse.Namespace, terminal: Terminal) -> int:
    from .scheduling import schedule

    return schedule(options, terminal)


def _name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the schedule's name")


def _some(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 6 and 1 <= int(text) <= 10_000):
        raise argparse.ArgumentTypeError(f"takes a whole number from 1 to 10000, and got {text!r}")
    return int(text)


def _instant(text: str) -> datetime:
    try:
        found: datetime | None = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise argparse.ArgumentTypeError(
            f"takes an instant with its offset, as in 2026-03-01T09:00:00Z or 2026-03-01T10:00+01:00, and got {text!r}"
        )
    return found
