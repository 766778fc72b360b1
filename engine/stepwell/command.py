"""What all commands have in common. Floor 1."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextvars import ContextVar
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

__all__ = ["UNSET", "Branch", "Command", "Flow", "Unset", "made_in_turn", "unyielded"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
R = TypeVar("R")


class Unset:
    """The type of `UNSET`: nothing was given, where None is a value."""

    _only: Unset | None = None

    def __new__(cls) -> Unset:  # noqa: PYI034 - there is one, and no subclass
        if cls._only is None:
            cls._only = super().__new__(cls)
        return cls._only

    def __repr__(self) -> str:
        return "UNSET"

    def __bool__(self) -> bool:
        return False


UNSET = Unset()

# While a workflow's turn runs, the machine listens here for the commands that the turn makes, to warn of those that are
# never yielded. A context variable, because several machines may take turns in several threads.
made_in_turn: ContextVar[dict[int, Command[Any]] | None] = ContextVar("stepwell_made_in_turn", default=None)


class Command(Generic[T_co]):
    """Base of all commands; `T_co` is the type of the value that the `yield` gives."""

    __slots__ = ()

    numbered: ClassVar[bool] = True
    """Whether it takes a number in the path of its fiber."""

    is_effect: ClassVar[bool] = False
    """Whether it calls user code."""

    is_wait: ClassVar[bool] = False
    """Whether it waits for time or people and has no effect."""

    is_group: ClassVar[bool] = False
    """Whether it has branches."""

    is_child: ClassVar[bool] = False
    """Whether it is a run of its own."""

    def __iter__(self) -> Generator[Command[Any], Any, T_co]:
        value: T_co = yield self
        return value

    def __attrs_post_init__(self) -> None:
        made = made_in_turn.get()
        if made is not None:
            made[id(self)] = self

    @property
    def kind(self) -> str:
        """The `type` of the event that answers this command."""
        return type(self).__name__.lower()

    @property
    def label(self) -> str:
        """What a person calls this command, beside its kind; "" when there is nothing to tell."""
        return ""


Flow: TypeAlias = Generator[Command[Any], Any, R]
"""The annotation of a workflow, and of a helper generator in it: `def triage(t: Ticket) -> Flow[str]`."""

Branch: TypeAlias = Command[T] | Generator[Command[Any], Any, T]
"""What `All` and `Race` take: a command or a generator."""


def unyielded(made: Iterable[Command[Any]]) -> str:
    """Words for a warning about commands that were made and never yielded."""
    return ", ".join(f"{type(c).__name__}({c.label})" for c in made)
