"""What the code of a workflow shows when one looks at it: its signals, and the constants that it compares with."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import isfunction
from types import CodeType
from typing import Any

import msgspec

from ..commands import Signal
from ..workflows import Workflow

__all__ = ["Seen", "codes_of", "look_at"]

_LONGEST = 40
_MOST = 40


class Seen(msgspec.Struct):
    """What was seen.

    Attributes:
        signals: every Signal that the code names, by the signal's name, with the name of the variable.
        texts, numbers: constants, in the order of the code.
    """

    signals: dict[str, tuple[str, Signal[Any]]] = {}
    texts: list[str] = []
    numbers: list[int] = []


def look_at(workflow: Workflow[..., Any]) -> Seen:
    """Look at a workflow, and at the functions of its module that it names: helpers and steps."""
    seen = Seen()
    for function in _functions(workflow.fn, workflow.fn.__module__, set()):
        for name, value in _named(function):
            if isinstance(value, Signal):
                seen.signals.setdefault(value.name, (name, value))
            else:
                _note(seen, value)
        for code in _codes(function.__code__):
            for const in code.co_consts:
                if const != function.__doc__:
                    _note(seen, const)
    del seen.texts[_MOST:], seen.numbers[_MOST:]
    return seen


def codes_of(workflow: Workflow[..., Any]) -> set[CodeType]:
    """The code of a workflow and of the functions of its module that it names, with what is defined inside them."""
    functions = _functions(workflow.fn, workflow.fn.__module__, set())
    return {code for function in functions for code in _codes(function.__code__)}


def _functions(function: Any, module: str, known: set[Any]) -> Iterator[Any]:
    if not isfunction(function) or function in known or function.__module__ != module:
        return
    known.add(function)
    yield function
    for _, value in _named(function):
        yield from _functions(value.fn if isinstance(value, Workflow) else value, module, known)


def _named(function: Any) -> Iterator[tuple[str, Any]]:
    """Everything that a function names and that is there: globals, and what it closes over."""
    names = dict.fromkeys(name for code in _codes(function.__code__) for name in code.co_names)
    for name in names:
        if name in function.__globals__:
            yield name, function.__globals__[name]
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not assigned yet
            continue


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _codes(const)


def _note(seen: Seen, value: Any) -> None:
    """Keep a constant, or the members of a collection of them; sets sorted, so that two processes see the same."""
    if isinstance(value, (list, tuple, set, frozenset, dict)) and len(value) <= _MOST:
        for one in sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value:
            if not isinstance(one, (list, dict, set)):
                _note(seen, one)
    elif type(value) is str and len(value) <= _LONGEST and value.isprintable() and value not in seen.texts:
        seen.texts.append(value)
    elif type(value) is int and value not in seen.numbers:
        seen.numbers.append(value)
