"""Hooks that need no other hook: JSON shapes to plain values, scalars, flags and pydantic models.

These refuse whatever is not exactly what they expect. Private part of the codec, floor 2.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import msgspec

from ._problems import Inside, Refused, describe, show
from ._shapes import canonical, dump_model

__all__ = ["Hook", "anything", "flag", "leaf", "model", "never", "nothing", "readings", "token"]

Hook: TypeAlias = Callable[[Any, Any], Any]
"""What cattrs calls to structure: `hook(shape, annotation)`."""


def anything(shape: Any, _: Any) -> Any:
    """Give plain JSON as it is."""
    return shape


def nothing(shape: Any, _: Any) -> None:
    """Take null only."""
    if shape is not None:
        raise Refused(f"expected null, got {show(shape)}")


def never(shape: Any, _: Any) -> Any:
    """Take nothing: the hook of NoReturn."""
    raise Refused(f"expected no value at all, got {show(shape)}")


def leaf(annotation: Any) -> Hook | None:
    """Give the hook of str, int, bool, float or a class of `SCALARS`, else None."""
    if annotation is float:
        return _float
    if annotation is str or annotation is int or annotation is bool:
        return _exactly(annotation)
    if annotation is typing.LiteralString:
        return _exactly(str)
    from ._scalars import SCALARS  # when another class than JSON's own is met: with it come many modules

    if not isinstance(annotation, type) or annotation not in SCALARS:
        return None
    scalar = SCALARS[annotation]

    def load(shape: Any, _: Any) -> Any:
        if type(shape) is not str:
            raise Refused(f"expected {scalar.what}, got {show(shape)}")
        try:
            return scalar.read(shape)
        except Exception as e:
            raise Refused(f"expected {scalar.what}, got {show(shape)}") from e

    return load


def _float(shape: Any, _: Any) -> float:
    if type(shape) is float:
        return shape
    if type(shape) is int:
        return float(shape)
    raise Refused(f"expected float, got {show(shape)}")


def _exactly(cls: type) -> Hook:
    name = cls.__name__

    def load(shape: Any, _: Any) -> Any:
        if type(shape) is cls:
            return shape
        raise Refused(f"expected {name}, got {show(shape)}")

    return load


def flag(cls: Any) -> Hook:
    """Give the hook of an `enum.Flag`: any combination of its members, as an int."""

    def load(shape: Any, _: Any) -> Any:
        if type(shape) is int:
            try:
                return cls(shape)
            except ValueError as e:
                raise Refused(f"expected {describe(cls)}, got {shape}") from e
        raise Refused(f"expected {describe(cls)}, got {show(shape)}")

    return load


def model(cls: Any) -> Hook:
    """Give the hook of a pydantic model: its own validation, in strict mode, and no unknown keys."""

    def load(shape: Any, _: Any) -> Any:
        found = cls.model_validate_json(msgspec.json.encode(shape), strict=True)
        _refuse_lost(shape, dump_model(found), cls)
        return found

    return load


def _refuse_lost(given: Any, kept: Any, cls: type) -> None:
    # By default pydantic drops unknown keys in silence; its `extra="forbid"` would refuse the ones that a model allows.
    if type(given) is dict and type(kept) is dict:
        for key, value in given.items():
            if key not in kept:
                raise Inside(key, Refused(f"is an unknown key of {describe(cls)}"))
            _refuse_lost_inside(key, value, kept[key], cls)
    elif type(given) is list and type(kept) is list and len(given) == len(kept):
        for i, value in enumerate(given):
            _refuse_lost_inside(i, value, kept[i], cls)


def _refuse_lost_inside(key: int | str, given: Any, kept: Any, cls: type) -> None:
    try:
        _refuse_lost(given, kept, cls)
    except Inside as e:
        raise Inside(key, e) from None


def token(shape: Any) -> Any:
    """Give what tells shapes apart in a dict: True == 1 == 1.0 in Python, not in JSON."""
    if type(shape) in (str, int, bool, float, type(None)):
        return type(shape), shape
    return canonical(shape)


def readings(text: str) -> Iterator[Any]:
    """Give what else than text the key of a JSON object can stand for: a bool, or a number that is written just so."""
    if text in ("true", "false"):
        yield text == "true"
    for cls in (int, float):
        try:
            number = cls(text)
        except ValueError:
            continue
        if repr(number) == text and number - number == 0:
            yield number
