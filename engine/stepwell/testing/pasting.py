"""Values and answers as the source that makes them, so that what was drawn can be pasted into a test."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any

import attrs

from .._shapes import fields_of, is_dataclass
from ..commands import UNSET
from .answers import Answer

__all__ = ["source_of", "source_of_answer"]


def source_of(value: Any) -> str:
    """Give the Python source of a value, as a module would write it that has imported the classes' names."""
    cls = type(value)
    for kinds, write in _WRITERS:
        if isinstance(value, kinds):
            return write(value)
    if attrs.has(cls) or is_dataclass(cls):
        return _of_object(value, cls)
    return repr(value)


def source_of_answer(answer: Answer, signals: Mapping[str, str]) -> str:
    """Give the source of an answer.

    Args:
        answer: the answer.
        signals: the variable that holds a Signal, by the signal's name.
    """
    given: list[str] = []
    if answer.kind == "received":
        given += [_signal(answer, signals), source_of(answer.value)]
    elif answer.kind == "raised" or (answer.kind in ("returned", "cancel") and answer.value is not None):
        given.append(source_of(answer.value))
    for name in ("at", "step", "wait", "actor", "metadata"):
        if getattr(answer, name) is not None:
            given.append(f"{name}={source_of(getattr(answer, name))}")
    return f"{answer.kind}({', '.join(given)})"


def _signal(answer: Answer, signals: Mapping[str, str]) -> str:
    if answer.signal in signals:
        return signals[answer.signal]
    if answer.into is UNSET or answer.into is Any:
        return repr(answer.signal)
    return f"Signal({answer.signal!r}, {getattr(answer.into, '__qualname__', None) or answer.into!r})"


def _of_object(value: Any, cls: type) -> str:
    parts = []
    for field in fields_of(cls):
        if field.init:
            name = getattr(field, "alias", None) or field.name
            parts.append(f"{name}={source_of(getattr(value, field.name))}")
    return f"{cls.__qualname__}({', '.join(parts)})"


def _of_enum(value: enum.Enum) -> str:
    name = type(value).__qualname__
    if not isinstance(value, enum.Flag):
        return f"{name}.{value.name}"
    members = [one for one in type(value) if one in value and one.value]
    return " | ".join(f"{name}.{one.name}" for one in members) or f"{name}(0)"


def _of_datetime(value: datetime) -> str:
    text = repr(value).removeprefix("datetime.").replace("datetime.timezone.utc", "UTC")
    if value.tzinfo is UTC and not (value.second or value.microsecond):
        return f"datetime({value.year}, {value.month}, {value.day}, {value.hour}, {value.minute}, tzinfo=UTC)"
    return text


def _of_tuple(value: tuple[Any, ...]) -> str:
    names = getattr(type(value), "_fields", None)
    if names is not None:
        pairs = zip(names, value, strict=True)
        return f"{type(value).__qualname__}({', '.join(f'{name}={source_of(one)}' for name, one in pairs)})"
    return f"({_joined(value)}{',' if len(value) == 1 else ''})"


def _of_error(error: BaseException) -> str:
    return f"{type(error).__qualname__}({_joined(error.args)})"


def _of_set(value: Iterable[Any]) -> str:
    members = ", ".join(sorted(map(source_of, value)))
    if isinstance(value, frozenset):
        return f"frozenset({{{members}}})" if members else "frozenset()"
    return f"{{{members}}}" if members else "set()"


def _joined(values: Iterable[Any]) -> str:
    return ", ".join(map(source_of, values))


_WRITERS: tuple[tuple[Any, Callable[[Any], str]], ...] = (
    (enum.Enum, _of_enum),
    (BaseException, _of_error),
    (datetime, _of_datetime),
    (tuple, _of_tuple),
    (list, lambda value: f"[{_joined(value)}]"),
    (dict, lambda value: f"{{{', '.join(f'{source_of(k)}: {source_of(v)}' for k, v in value.items())}}}"),
    ((set, frozenset), _of_set),
    (PurePath, lambda value: f"Path({str(value)!r})"),
)
"""Before all others, in this order."""
