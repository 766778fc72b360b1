"""What the code of a workflow shows when one looks at it: its signals, and the constants that it compares with."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from inspect import isclass, isfunction, ismodule
from pathlib import Path
from types import CodeType
from typing import Any

import msgspec

from ..commands import Signal
from ..workflows import Workflow

__all__ = ["Seen", "codes_of", "look_at"]

_OURS = ("stepwell", "stepwell_stores", "stepwell_pytest")
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
    """The code of a workflow and of what it names, near and far: helpers, methods, and what is defined inside them.

    Of other modules those that somebody has written for the same program: what is installed is left out.
    """
    codes: set[CodeType] = set()
    todo: list[Any] = [workflow.fn]
    known: set[int] = set()
    while todo:
        thing = todo.pop()
        if id(thing) in known:
            continue
        known.add(id(thing))
        thing = thing.fn if isinstance(thing, Workflow) else getattr(thing, "__func__", thing)
        if isinstance(thing, property):
            todo += [thing.fget]
        elif getattr(thing, "__module__", None) != workflow.fn.__module__ and not _is_own(thing):
            continue
        elif isclass(thing):
            todo += vars(thing).values()
        elif isfunction(thing):
            codes |= set(_codes(thing.__code__))
            todo += [getattr(thing, "__wrapped__", None), *_reached(thing)]
    return codes


def _reached(function: Any) -> Iterator[Any]:
    """What a function names, and what it may mean where it names a module or an object of a class."""
    names = {name for code in _codes(function.__code__) for name in code.co_names}
    for _, value in _named(function):
        if ismodule(value):
            yield from (vars(value)[name] for name in names if name in vars(value) and _is_own(value))
        else:
            yield value if isclass(value) or isfunction(value) or isinstance(value, Workflow) else type(value)


def _is_own(thing: Any) -> bool:
    """Whether a module, or that of a function or class, is no installed one."""
    module = thing if ismodule(thing) else sys.modules.get(str(getattr(thing, "__module__", None)))
    path = getattr(module, "__file__", None)
    name = str(getattr(module, "__name__", "")).partition(".")[0]
    if path is None or name in _OURS:
        return False
    place = Path(path).resolve()
    return not any(place.is_relative_to(folder) for folder in _installed())


@cache
def _installed() -> tuple[Path, ...]:
    """The folders of the standard library and of packages."""
    paths = sysconfig.get_paths()
    return tuple(Path(paths[name]).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib"))


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
