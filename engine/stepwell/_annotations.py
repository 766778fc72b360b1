"""What functions say of their results and parameters, resolved to types, and what annotations stand for.

Private part of the codec, floor 2.
"""

from __future__ import annotations

import functools
import inspect
import sys
import typing
from collections.abc import Awaitable, Callable, Coroutine
from types import SimpleNamespace
from typing import Any
from weakref import WeakKeyDictionary

from .commands import UNSET
from .errors import CodecError

__all__ = [
    "argument_types",
    "bound",
    "filled",
    "is_required",
    "parameter_annotations",
    "parameters",
    "return_annotation",
    "unwrapped",
]

_returns: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
_parameters: WeakKeyDictionary[Any, tuple[Any, ...]] = WeakKeyDictionary()


def return_annotation(fn: Callable[..., Any]) -> Any:
    """Give the type of what a call of `fn` gives in the end, from its return annotation.

    `async def` and annotations of awaitables give the awaited type, classes give themselves; partials, bound methods
    and callable objects are looked through. Determinism: pure.

    Args:
        fn: any callable.

    Returns:
        The resolved annotation with `Annotated` kept, or `UNSET` when there is none.

    Raises:
        CodecError: the annotation is text that can't be resolved; the message names function and annotation.

    Example:
        >>> async def fetch(url: str) -> "list[int]": ...
        >>> return_annotation(fetch)
        list[int]
    """
    try:
        return _returns[fn]
    except KeyError:
        found = _returns[fn] = _return_of(fn)
        return found
    except TypeError:  # not hashable, or takes no weak reference
        return _return_of(fn)


def parameter_annotations(fn: Callable[..., Any]) -> tuple[Any, ...]:
    """Give the types of the positional parameters of `fn`, in order. Determinism: pure.

    Args:
        fn: any callable; what a partial or a bound method has filled in already is left out.

    Returns:
        One resolved annotation for each positional parameter, `Any` where there is none. `*args` is left out.

    Raises:
        CodecError: an annotation is text that can't be resolved; the message names function and parameter.

    Example:
        >>> def area(width: float, height) -> float: ...
        >>> parameter_annotations(area)
        (<class 'float'>, typing.Any)
    """
    try:
        return _parameters[fn]
    except KeyError:
        found = _parameters[fn] = _parameters_of(fn)
        return found
    except TypeError:
        return _parameters_of(fn)


def argument_types(fn: Callable[..., Any]) -> Callable[[int | str], Any]:
    """Give what tells the type of an argument of `fn`, by its position or its name. Determinism: pure.

    Returns:
        A function that gives the resolved annotation, `Any` where there is none, and raises CodecError for one that is
        text and can't be resolved.

    Example:
        >>> def total(*prices: float, tax: int = 0) -> float: ...
        >>> types = argument_types(total)
        >>> types(3), types("tax")
        (<class 'float'>, <class 'int'>)
    """
    function = _function(fn)
    raw = _raw(function)
    try:
        known = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):  # some builtins have none
        known = []
    placed = [p for p in known if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    named = {p.name: p for p in known if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    rest = {p.kind: p for p in known if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}

    def type_of(argument: int | str) -> Any:
        if isinstance(argument, str):
            found = named.get(argument, rest.get(inspect.Parameter.VAR_KEYWORD))
        else:
            found = placed[argument] if argument < len(placed) else rest.get(inspect.Parameter.VAR_POSITIONAL)
        if found is None or found.name not in raw:
            return Any
        return _resolve(function, found.name, raw[found.name], "import what it names at run time")

    return type_of


def _return_of(fn: Any) -> Any:
    if isinstance(fn, type):
        return fn
    function = _function(fn)
    given = _raw(function).get("return", UNSET)
    if given is UNSET:
        return UNSET
    found = _resolve(function, "return", given, "say the type with .options(into=T)")
    origin, args = typing.get_origin(found), typing.get_args(found)
    if origin in (Awaitable, Coroutine) and not inspect.iscoroutinefunction(function):
        return args[-1]
    return found


def _parameters_of(fn: Any) -> tuple[Any, ...]:
    function = _function(fn)
    raw = _raw(function)
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):  # some builtins have none
        return ()
    return tuple(
        _resolve(function, p.name, raw[p.name], "import what it names at run time") if p.name in raw else Any
        for p in parameters
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    )


def _function(fn: Any) -> Any:
    """Look through partials, bound methods, classes and callable objects to the function that has the annotations."""
    while True:
        if isinstance(fn, functools.partial):
            fn = fn.func
        elif inspect.ismethod(fn):
            fn = fn.__func__
        elif isinstance(fn, type):
            return inspect.getattr_static(fn, "__init__")
        elif inspect.isroutine(fn):
            return fn
        elif hasattr(fn, "__wrapped__"):  # a Workflow, and what functools.wraps made of an object
            fn = fn.__wrapped__
        else:
            return type(fn).__call__


def _raw(function: Any) -> dict[str, Any]:
    if sys.version_info >= (3, 14):  # evaluated late there, and one unknown name must not hide the others
        from annotationlib import Format, get_annotations

        try:
            return get_annotations(function, format=Format.FORWARDREF)
        except TypeError:
            return {}
    return getattr(function, "__annotations__", None) or {}


def _resolve(function: Any, name: str, given: Any, remedy: str) -> Any:
    home = inspect.unwrap(function)
    code, cells = getattr(home, "__code__", None), getattr(home, "__closure__", None) or ()
    names: dict[str, Any] = {str(p): p for p in getattr(home, "__type_params__", ())}
    for free, cell in zip(code.co_freevars if code else (), cells, strict=True):
        try:
            names[free] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    holder = SimpleNamespace(__annotations__={name: given})
    try:
        found = typing.get_type_hints(
            holder, globalns=getattr(home, "__globals__", {}), localns=names, include_extras=True
        )
    except Exception as e:
        what = "return annotation" if name == "return" else f"annotation of parameter {name!r}"
        where = f"{getattr(home, '__module__', '?')}:{getattr(home, '__qualname__', home)}"
        raise CodecError(
            f"the {what} {given!r} of {where} can't be resolved ({type(e).__name__}: {e}). It may be imported only for "
            f"type checkers, or be local to a function: {remedy}, or make the name known in the module"
        ) from e
    return found[name]


def unwrapped(annotation: Any) -> Any:
    """Give what a NewType, a type alias, Annotated, Final, Required or ReadOnly stands for; UNSET when it is none."""
    if hasattr(annotation, "__supertype__"):
        return annotation.__supertype__
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return annotation.__origin__
    if getattr(origin, "_name", "") in ("Final", "ClassVar", "Required", "NotRequired", "ReadOnly"):
        return typing.get_args(annotation)[0]  # by name, because typing_extensions has forms of its own
    alias = annotation if origin is None else origin
    if hasattr(alias, "__value__") and not isinstance(alias, type):  # `type Name = ...`
        return alias.__value__ if alias is annotation else alias.__value__[typing.get_args(annotation)]
    return UNSET


def bound(parameter: Any) -> Any:
    """Give what an unfilled type parameter may be: its default, one of its constraints, its bound, or Any."""
    if hasattr(parameter, "has_default") and parameter.has_default():
        return parameter.__default__
    if getattr(parameter, "__constraints__", ()):
        return typing.Union[parameter.__constraints__]  # noqa: UP007 - made at run time
    return getattr(parameter, "__bound__", None) or Any


def filled(hint: Any, known: dict[Any, Any]) -> Any:
    """Put types in the place of type parameters, at any depth."""
    if isinstance(hint, typing.TypeVar):
        return known.get(hint, bound(hint))
    parameters = getattr(hint, "__parameters__", ())
    if not parameters or isinstance(hint, type):
        return hint
    return hint[tuple(known.get(p, bound(p)) for p in parameters)]


def parameters(cls: Any, args: tuple[Any, ...]) -> dict[Any, Any]:
    """Give what the type parameters of a generic class and of its generic bases stand for, given its arguments."""
    known = dict(zip(getattr(cls, "__parameters__", ()), args, strict=False))
    for base in getattr(cls, "__orig_bases__", ()):
        origin = typing.get_origin(base)
        if origin is not None and origin is not typing.Generic:
            known |= parameters(origin, tuple(filled(arg, known) for arg in typing.get_args(base)))
    return known


def is_required(hint: Any, otherwise: bool) -> bool:
    """Whether a key of a TypedDict must be there, by Required and NotRequired in its annotation."""
    while True:
        name = getattr(typing.get_origin(hint), "_name", "")
        if name in ("Required", "NotRequired"):
            return bool(name == "Required")
        if typing.get_origin(hint) is not typing.Annotated and name != "ReadOnly":
            return otherwise
        hint = unwrapped(hint)
