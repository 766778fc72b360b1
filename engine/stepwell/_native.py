"""Types that msgspec decodes by the very rules of the hooks, and several times as fast. Private part of the codec.

Plain JSON types msgspec knows itself. For an attrs class or dataclass it gets a *mirror*, a Struct with the same
fields, all required and no others allowed; its instances are turned into those of the class by calling it, so that
validators and converters run as ever. What doesn't decode so is decoded by the hooks, which also know defaults and say
what is wrong. Floor 2.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from operator import attrgetter
from typing import Annotated, Any, TypeAlias

import attrs
import msgspec

from ._shapes import INT_MAX, INT_MIN, fields_of, is_dataclass

__all__ = ["ATOMS", "Native", "native"]

ATOMS: dict[Any, Any] = {
    str: str,
    bool: bool,
    int: Annotated[int, msgspec.Meta(ge=INT_MIN, le=INT_MAX)],
    float: float,
    type(None): None,
}
"""The plain JSON classes, as msgspec is told of them."""

Build: TypeAlias = Callable[[Any], Any]


class Native(typing.NamedTuple):
    """How msgspec decodes a type.

    Attributes:
        form: the type that it is given.
        build: makes the value of what it gives; None: that is the value.
        floats: there is a float in it: msgspec takes an int beyond 64 bits, which has 19 digits at least, for one.
    """

    form: Any
    build: Build | None
    floats: bool


def native(annotation: Any, foreign: Callable[[Any], Any], within: tuple[Any, ...] = ()) -> Native | None:
    """How msgspec decodes values of an annotation as the hooks do; None when it can't.

    Args:
        foreign: gives the structure hook of a user's converter for a type, or None.
        within: the classes around it.
    """
    if foreign(annotation) is not None:
        return None
    if annotation is None:
        return Native(None, None, False)
    if isinstance(annotation, type) and annotation in ATOMS:
        return Native(ATOMS[annotation], None, annotation is float)
    origin: Any = typing.get_origin(annotation)
    args = typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return _optional(args, foreign, within)
    if origin is list and len(args) == 1:
        return _list(native(args[0], foreign, within))
    if origin is dict and args[:1] == (str,):
        return _dict(native(args[1], foreign, within))
    if isinstance(annotation, type) and origin is None and annotation not in within:
        return _object(annotation, foreign, (*within, annotation))
    return None


def _optional(args: tuple[Any, ...], foreign: Callable[[Any], Any], within: tuple[Any, ...]) -> Native | None:
    others = [arg for arg in args if arg is not type(None)]
    found = native(others[0], foreign, within) if len(others) == 1 and len(args) == 2 else None
    if found is None:
        return None
    form, build = typing.Union[found.form, None], found.build  # noqa: UP007 - made at run time
    return Native(form, None if build is None else lambda value: None if value is None else build(value), found.floats)


def _list(item: Native | None) -> Native | None:
    if item is None:
        return None
    build = item.build
    return Native(
        list[item.form],  # type: ignore[name-defined]
        None if build is None else lambda values: [build(value) for value in values],
        item.floats,
    )


def _dict(member: Native | None) -> Native | None:
    if member is None:
        return None
    build = member.build
    return Native(
        dict[str, member.form],  # type: ignore[name-defined]
        None if build is None else lambda values: {name: build(value) for name, value in values.items()},
        member.floats,
    )


def _object(cls: type, foreign: Callable[[Any], Any], within: tuple[Any, ...]) -> Native | None:
    """A class of which every field is plain: set by its own name, when it is made, from a native type."""
    if not (attrs.has(cls) or is_dataclass(cls)) or hasattr(cls, "__parameters__"):
        return None
    fields = [field for field in fields_of(cls) if field.init]
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except Exception:  # noqa: BLE001 - names that can't be resolved; whoever makes the hooks tells
        return None
    if not fields or any(getattr(f, "alias", f.name) != f.name or f.name not in hints for f in fields):
        return None
    parts: list[Native] = []
    for field in fields:
        part = native(hints[field.name], foreign, within)
        if part is None:
            return None
        parts.append(part)
    forms = [(field.name, part.form) for field, part in zip(fields, parts, strict=True)]
    mirror = msgspec.defstruct(f"{cls.__name__}_", forms, forbid_unknown_fields=True, kw_only=True, gc=False)
    return Native(mirror, _maker(cls, fields, parts), any(part.floats for part in parts))


def _maker(cls: type, fields: list[Any], parts: list[Native]) -> Build:
    """A function that makes an instance of the fields of a mirror."""
    names = [field.name for field in fields]
    if all(
        part.build is None and getattr(field, "kw_only", False) is not True
        for field, part in zip(fields, parts, strict=True)
    ):
        if len(names) == 1:
            only = names[0]
            return lambda mirror: cls(getattr(mirror, only))
        values = attrgetter(*names)
        return lambda mirror: cls(*values(mirror))
    builds = [(name, part.build) for name, part in zip(names, parts, strict=True)]

    def make(mirror: Any) -> Any:
        given = {}
        for name, build in builds:
            value = getattr(mirror, name)
            given[name] = value if build is None else build(value)
        return cls(**given)

    return make
