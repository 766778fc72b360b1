"""What is wrong with a value and where: the private exceptions of the codec, and the words for them. Floor 2."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

__all__ = ["Inside", "Key", "Problem", "Refused", "a_or_an", "describe", "path_of", "problems", "show"]

Key: TypeAlias = int | str


class Refused(Exception):
    """A value or a JSON shape doesn't fit. `keys` leads to it, innermost first, and grows while the stack unwinds."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy
        self.keys: list[Key] = []


class Inside(Exception):
    """A problem inside the value at `key`; `problem` says which."""

    def __init__(self, key: Key, problem: Exception) -> None:
        super().__init__(key, problem)
        self.key = key
        self.problem = problem


def path_of(keys: Iterable[Key]) -> str:
    """Write the keys that lead to a value, outermost first, as `$.items[3].price`."""
    path = "$"
    for key in keys:
        if isinstance(key, str) and key.isidentifier():
            path += f".{key}"
        else:
            path += f"[{key!r}]"
    return path


def describe(thing: Any) -> str:
    """What a message calls a type or annotation."""
    if isinstance(thing, type) and type(thing).__name__ != "GenericAlias":
        return "None" if thing is type(None) else thing.__qualname__
    return repr(thing).replace("typing.", "")


def show(shape: Any) -> str:
    """What a message calls a JSON shape that is not what was expected."""
    if shape is None or isinstance(shape, bool):
        return {None: "null", True: "true", False: "false"}[shape]
    if isinstance(shape, (dict, list)):
        return "an object" if isinstance(shape, dict) else "a list"
    text = repr(shape)
    return f"{describe(type(shape))} {text if len(text) <= 60 else text[:57] + '...'}"


def a_or_an(cls: type) -> str:
    """The name of a class with its article."""
    name = describe(cls)
    return f"an {name}" if name[:1] in "aeiouAEIO" else f"a {name}"


class Problem(NamedTuple):
    """One thing that is wrong, in words."""

    path: str
    reason: str
    remedy: str = ""


def problems(problem: BaseException, keys: tuple[Key, ...] = ()) -> list[Problem]:
    """Flatten what a hook raised, in the order of the value."""
    if isinstance(problem, Inside):
        return problems(problem.problem, (*keys, problem.key))
    if isinstance(problem, Refused):
        return [Problem(path_of((*keys, *reversed(problem.keys))), problem.reason, problem.remedy)]
    if isinstance(problem, BaseExceptionGroup):
        found: list[Problem] = []
        for one in problem.exceptions:
            note = next((n for n in getattr(one, "__notes__", ()) if hasattr(n, "name") or hasattr(n, "index")), None)
            key = getattr(note, "name", getattr(note, "index", None))
            if isinstance(one, KeyError) and isinstance(key, str) and one.args == (key,):
                found.append(Problem(path_of((*keys, key)), "is missing"))
            else:
                found.extend(problems(one, keys if key is None else (*keys, key)))
        return found
    if hasattr(problem, "error_count"):  # pydantic's ValidationError
        return _of_model(problem, keys)
    extra = getattr(problem, "extra_fields", None)
    if extra is not None:
        return [Problem(path_of((*keys, str(key))), "is an unknown key") for key in sorted(extra, key=str)]
    if isinstance(problem, RecursionError):
        return [Problem(path_of(keys), "nested too deep for the stack that is left")]
    return [Problem(path_of(keys), f"{type(problem).__name__}: {problem}")]


def _of_model(error: Any, keys: tuple[Key, ...]) -> list[Problem]:
    return [Problem(path_of((*keys, *one["loc"])), one["msg"]) for one in error.errors(include_url=False)]
