"""How two commands differ, field by field: for the text of a test that has failed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from .._shapes import fields_of, is_dataclass
from ..commands import Command

__all__ = ["explain_difference"]

_MOST = 20
"""Differences that are shown."""

_LONGEST = 300
"""Characters of a value that are shown."""

_UNCOUNTED = "(options, reasons, time-outs and the types of results don't count)"


def explain_difference(left: Any, right: Any) -> list[str] | None:
    """Say how two commands, or two lists of commands, differ.

    Args:
        left, right: what was compared with `==`.

    Returns:
        lines, the first of them a summary; None when they are equal, or neither holds a command.

    Example:
        >>> from stepwell import Step
        >>> explain_difference(Step(max, 1, 2), Step(max, 1, 3))[:2]
        ['Step(max, 1, 2) == Step(max, 1, 3)', '  args[1]: 2 != 3']
    """
    if not (_holds_command(left) or _holds_command(right)) or _equal(left, right):
        return None
    found = list(_differences("", left, right))
    lines = [f"  {line}" for line in found[:_MOST]]
    if len(found) > _MOST:
        lines.append(f"  ... and {len(found) - _MOST} more")
    return [f"{_shown(left)} == {_shown(right)}", *lines, f"  {_UNCOUNTED}"]


def _holds_command(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(isinstance(one, Command) for one in value)
    return isinstance(value, Command)


def _differences(path: str, left: Any, right: Any) -> Iterator[str]:
    """A line for each place in which two values differ."""
    if _equal(left, right):
        return
    if isinstance(left, Command) and isinstance(right, Command):
        if type(left) is not type(right):
            yield f"{_at(path)}a {type(left).__name__} != a {type(right).__name__}: {_shown(left)} != {_shown(right)}"
        else:
            yield from _of_fields(path, left, right, _counted(left))
    elif type(left) is type(right) and isinstance(left, (list, tuple)):
        yield from _of_items(path, left, right)
    elif type(left) is type(right) and isinstance(left, Mapping):
        yield from _of_members(path, left, right)
    elif type(left) is type(right) and (attrs.has(type(left)) or is_dataclass(type(left))):
        names = [one.name for one in fields_of(type(left))]
        yield from _of_fields(f"{path}." if path else "", left, right, names)
    else:
        kinds = "" if type(left) is type(right) else f"   ({type(left).__name__} and {type(right).__name__})"
        yield f"{_at(path)}{_shown(left)} != {_shown(right)}{kinds}"


def _of_fields(path: str, left: Any, right: Any, names: list[str]) -> Iterator[str]:
    lead = f"{path.rstrip('.')}." if path else ""
    found = False
    for name in names:
        one, other = getattr(left, name), getattr(right, name)
        if not _equal(one, other):
            found = True
            yield from _differences(f"{lead}{name}", one, other)
    if not found:  # an `__eq__` of its own
        yield f"{_at(path.rstrip('.'))}{_shown(left)} != {_shown(right)}"


def _of_items(path: str, left: Any, right: Any) -> Iterator[str]:
    for number, (one, other) in enumerate(zip(left, right, strict=False)):
        yield from _differences(f"{path}[{number}]", one, other)
    for number in range(len(left), len(right)):
        yield f"{path}[{number}]: missing on the left: {_shown(right[number])}"
    for number in range(len(right), len(left)):
        yield f"{path}[{number}]: missing on the right: {_shown(left[number])}"


def _of_members(path: str, left: Mapping[Any, Any], right: Mapping[Any, Any]) -> Iterator[str]:
    for key in dict.fromkeys([*left, *right]):
        if key not in right:
            yield f"{path}[{key!r}]: missing on the right: {_shown(left[key])}"
        elif key not in left:
            yield f"{path}[{key!r}]: missing on the left: {_shown(right[key])}"
        else:
            yield from _differences(f"{path}[{key!r}]", left[key], right[key])


def _counted(command: Command[Any]) -> list[str]:
    """The fields by which a command is compared."""
    cls: Any = type(command)
    return [one.name for one in attrs.fields(cls) if one.eq] if attrs.has(cls) else []


def _equal(left: Any, right: Any) -> bool:
    try:
        return bool(left == right)
    except Exception:  # noqa: BLE001 - classes may have an `__eq__` that gives an array, or raises
        return left is right


def _at(path: str) -> str:
    return f"{path}: " if path else ""


def _shown(value: Any) -> str:
    if isinstance(value, Command):
        text = _command(value)
    elif isinstance(value, (list, tuple)) and _holds_command(value):
        text = f"[{', '.join(map(_shown, value))}]"
    elif callable(value) and hasattr(value, "__qualname__"):
        text = f"{getattr(value, '__module__', '?')}.{value.__qualname__}"
    else:
        text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _command(command: Any) -> str:
    """A command as its call, by what counts."""
    parts: list[str] = []
    for name in _counted(command):
        value = getattr(command, name)
        if name == "args":
            parts += [_shown(one) for one in value]
        elif name == "kwargs" or (name == "values" and isinstance(value, dict)):
            parts += [f"{key}={_shown(one)}" for key, one in value.items()]
        elif name == "branches":
            parts += [_shown(one) for one in value]
        elif name in ("fn", "workflow"):
            parts.append(getattr(value, "__name__", None) or getattr(value, "name", None) or repr(value))
        elif name in ("limit", "names", "settle", "topic"):
            parts += [f"{name}={value!r}"] if value else []
        elif value is not None:
            parts.append(_shown(value))
    return f"{type(command).__name__}({', '.join(parts)})"
