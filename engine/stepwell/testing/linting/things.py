"""What an expression can mean, beside the modules, classes and functions of the project itself."""

from __future__ import annotations

from typing import Any

import msgspec

from ... import commands

__all__ = ["COMMANDS", "SETS", "External", "Instance", "Maker", "is_command", "is_set", "named", "of_type"]

COMMANDS = {
    name
    for name, value in vars(commands).items()
    if isinstance(value, type) and issubclass(value, commands.Command) and value is not commands.Command
}
"""Names of the commands."""

SETS = {"builtins.set", "builtins.frozenset", "typing.Set", "typing.FrozenSet", "typing.AbstractSet"}
SETS |= {"typing.MutableSet", "collections.abc.Set", "collections.abc.MutableSet", "unordered"}


class External(msgspec.Struct, frozen=True):
    """Something that the project does not define, by its dotted name: `datetime.datetime.now`."""

    name: str


class Instance(msgspec.Struct, frozen=True):
    """A value of a class; `args` are what it is said to hold."""

    cls: Any
    args: tuple[Any, ...] = ()


class Maker(msgspec.Struct, frozen=True):
    """A generator that a call has made, and that nobody has begun. `function` is None when it is not known."""

    function: Any = None


def named(thing: Any) -> str:
    """The dotted name of an external thing, or of an instance's external class; "" for all else."""
    if isinstance(thing, Instance):
        thing = thing.cls
    return thing.name if isinstance(thing, External) else ""


def is_command(thing: Any) -> bool:
    """Whether it is a command that was made."""
    home, _, name = named(thing).rpartition(".")
    return isinstance(thing, Instance) and home == "stepwell" and (name in COMMANDS or name in ("Command", "Branch"))


def is_set(thing: Any) -> bool:
    """Whether its order is not to be relied upon."""
    return isinstance(thing, Instance) and named(thing) in SETS


def of_type(name: str, *args: Any) -> Instance:
    """A value of an external class."""
    return Instance(External(name), args)
