"""Pending commands in the words of a test's failure: what they are, where they stand, and what they take."""

from __future__ import annotations

from .. import commands as c
from ..fibers import Pending, describe
from ..scheduler import _line

__all__ = ["child_name", "place_of", "takes", "words_for"]


def place_of(pending: Pending) -> str:
    """The workflow's own line that a command was yielded at."""
    return _line(pending.fiber)


def child_name(pending: Pending) -> str:
    """What `step=` calls a child: its workflow's name."""
    return pending.command.label if isinstance(pending.command, c.Child) else ""


def takes(pending: Pending) -> str:
    """The answers that a command takes, in words."""
    command = pending.command
    if pending.cancelling:
        return "cancelled(), or what it came to all the same"
    if isinstance(command, c.Suspend):
        return f"received({command.label!r}, ...)" + (" or fired()" if command.timeout is not None else "")
    if isinstance(command, c.Sleep):
        return "fired()"
    if isinstance(command, (c.Step, c.Child)):
        return "returned(...) or raised(...)"
    return "returned(...)" if isinstance(command, (c.Now, c.Random, c.Uuid)) else "nothing: it is answered by itself"


def words_for(pending: Pending) -> str:
    """A pending command: a step by its id, others by kind and name, and its path."""
    name = f"step {pending.step_id!r}" if pending.step_id else describe(pending.command)
    return f"{name} at {pending.at}"
