"""A failure as it is recorded: data, never an instance of the user's class. Floor 0: imports nothing of stepwell."""

from __future__ import annotations

from typing import TypeAlias

from attrs import frozen

__all__ = ["Failure", "dotted", "type_names"]

ExceptionClass: TypeAlias = type[BaseException]  # within Failure, `type` is one of its properties


@frozen(slots=False)  # with a __dict__ the wire keeps this order of keys
class Failure:
    """A recorded failure: data only. No stack and no host path, so that histories can be shared.

    Attributes:
        types: dotted names along the MRO of the exception, most derived first, without `object`.
        message: `str()` of the exception.
        code: its `code` attribute when that is a str or int, as str; else None.
        where: `module:function:line` of the innermost frame of the user's code; "" when unknown.
        attempts: how many times a step was tried; 0 when the failure is no step's.
    """

    types: tuple[str, ...]
    message: str = ""
    code: str | None = None
    where: str = ""
    attempts: int = 0

    @property
    def type(self) -> str:
        """The dotted name of the exception's own class."""
        return self.types[0] if self.types else "builtins.Exception"

    def is_a(self, *classes: ExceptionClass | str) -> bool:
        """Whether the recorded exception was of one of these classes (or dotted names), by its recorded MRO."""
        return any(dotted(c) in self.types for c in classes)

    def __str__(self) -> str:
        name = self.type.removeprefix("builtins.")
        return f"{name}: {self.message}" if self.message else name


def dotted(cls: type | str) -> str:
    """The dotted name of a class, or the name itself."""
    return cls if isinstance(cls, str) else f"{cls.__module__}.{cls.__qualname__}"


def type_names(cls: type[BaseException]) -> tuple[str, ...]:
    """Dotted names along the MRO of `cls`, most derived first, without `object`."""
    return tuple(dotted(c) for c in cls.__mro__ if c is not object)
