"""Values made up by their type: what a step may give, a sender send and a child return. Needs Hypothesis.

The types are those that the codec knows, and every value that is made up comes back from it as it is: what could not be
recorded is never drawn.
"""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal, TypeVar, Union

import attrs
from hypothesis import reject
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException
from hypothesis.strategies import SearchStrategy

from .._annotations import bound, filled, is_required, parameters, unwrapped
from .._loaders import _DICTS, _LISTS, _SETS
from .._problems import describe
from .._scalars import SCALARS
from .._shapes import INT_MAX, INT_MIN, fields_of, is_dataclass, is_model
from ..codec import Codec
from ..commands import UNSET
from ..errors import CodecError, InvalidInputError

__all__ = ["Values", "is_strategy"]

_MOST = 3
"""Members of a list, set or dict that is made up: few, so that a person can read them."""

_REFUSALS = 100
"""Values of one type in a row that its class or the codec refuses before that is said aloud."""

_CLOCK = (datetime(2000, 1, 1), datetime(2100, 1, 1))  # noqa: DTZ001 - bounds are naive, zones are drawn besides


def is_strategy(value: object) -> bool:
    """Whether a value is a strategy of Hypothesis."""
    return isinstance(value, SearchStrategy)


class NoValueError(Exception):
    """Nothing can be made up for a type: why not."""


class Values:
    """Makes up values of any type that the codec knows.

    Args:
        codec: the engine's.
        texts, numbers: constants that matter to the code that gets the values: they are drawn more often.
    """

    def __init__(self, codec: Codec, texts: Iterable[str] = (), numbers: Iterable[int] = ()) -> None:
        self._codec = codec
        self._texts, self._numbers = list(texts), list(numbers)
        self._known: dict[Any, SearchStrategy[Any]] = {}
        self._made: dict[Any, SearchStrategy[Any]] = {}

    def of(self, annotation: Any, what: str, remedy: str) -> SearchStrategy[Any]:
        """Give a strategy for the values of an annotation that can be recorded.

        Args:
            annotation: the type; UNSET and Any stand for plain JSON.
            what: what the values are of, for the text of the error.
            remedy: what to write in place of the type, for the same.

        Raises:
            InvalidInputError: nothing can be made up for that type.
        """
        try:
            return self._known[annotation]
        except KeyError:
            pass
        except TypeError:  # an annotation that can't be hashed
            return self._recordable(annotation, what, remedy)
        made = self._known[annotation] = self._recordable(annotation, what, remedy)
        return made

    def checked(self, strategy: SearchStrategy[Any], annotation: Any, what: str) -> SearchStrategy[Any]:
        """Give a strategy of the user's: what it draws is to fit the type.

        The strategy raises InvalidInputError where it draws what could not be recorded.
        """

        def check(value: Any) -> Any:
            try:
                self._codec.encode(value, annotation)
            except CodecError as error:
                raise InvalidInputError(f"{what} could not be {value!r}: {error.message}") from error
            return value

        return strategy.map(check)

    def _recordable(self, annotation: Any, what: str, remedy: str) -> SearchStrategy[Any]:
        try:
            self._codec.check(annotation)
            strategy = self._strategy(annotation)
        except (NoValueError, CodecError) as error:
            why = error.message if isinstance(error, CodecError) else str(error)
            raise InvalidInputError(
                f"nothing can be made up for {what}, a {describe(annotation)}: {why}. Say what it may be: {remedy}"
            ) from error
        refused = _Refused(f"{what}, a {describe(annotation)}", remedy)

        def encodes(value: Any) -> bool:
            try:
                self._codec.encode(value, annotation)
            except CodecError as error:
                refused.once_more(error.message)
                return False
            refused.in_a_row = 0
            return True

        return strategy.filter(encodes)

    # ---- by type

    def _strategy(self, annotation: Any) -> SearchStrategy[Any]:
        try:
            known = self._made.get(annotation)
        except TypeError:
            return self._make(annotation)
        if known is None:
            self._made[annotation] = st.deferred(lambda: made)  # what a recursive type finds of itself
            try:
                made = self._make(annotation)
            except BaseException:
                del self._made[annotation]
                raise
            known = self._made[annotation] = made
        return known

    def _make(self, annotation: Any) -> SearchStrategy[Any]:
        if annotation is UNSET or annotation is Any or annotation is object:
            return self._json()
        if annotation is None or annotation is type(None):
            return st.none()
        if isinstance(annotation, TypeVar):
            return self._strategy(bound(annotation))
        inner = unwrapped(annotation)
        if inner is not UNSET:
            drawn = [one for one in getattr(annotation, "__metadata__", ()) if is_strategy(one)]
            return drawn[-1] if drawn else self._strategy(inner)
        origin, args = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is Union or origin is types.UnionType:
            return st.one_of(*map(self._strategy, sorted(args, key=lambda one: one is not type(None))))
        if origin is Literal:
            return st.sampled_from(args)
        found = self._leaf(annotation)
        if found is None:
            found = self._container(annotation, origin or annotation, args)
        return self._class(annotation, origin or annotation, args) if found is None else found

    def _leaf(self, annotation: Any) -> SearchStrategy[Any] | None:
        if annotation is bool:
            return st.booleans()
        if annotation is int:
            return self._int()
        if annotation is float:
            return st.floats(allow_nan=False, allow_infinity=False)
        if annotation is str or annotation is typing.LiteralString:
            return self._text()
        if isinstance(annotation, type) and annotation in SCALARS:
            return _SCALARS[annotation]() if annotation in _SCALARS else st.from_type(annotation)
        return None

    def _int(self) -> SearchStrategy[int]:
        plain = st.integers(-10, 10) | st.integers(INT_MIN, INT_MAX)
        near = sorted({n + d for n in self._numbers for d in (-1, 0, 1) if INT_MIN < n < INT_MAX}, key=abs)
        return st.one_of(plain, st.sampled_from(near)) if near else plain

    def _text(self) -> SearchStrategy[str]:
        plain = st.text(max_size=10)
        return st.one_of(plain, st.sampled_from(self._texts)) if self._texts else plain

    def _json(self) -> SearchStrategy[Any]:
        leaves = st.none() | st.booleans() | self._int() | self._text()
        return st.recursive(
            leaves, lambda one: st.lists(one, max_size=_MOST) | st.dictionaries(self._text(), one, max_size=_MOST)
        )

    def _container(self, annotation: Any, origin: Any, args: tuple[Any, ...]) -> SearchStrategy[Any] | None:
        item = args[0] if args else Any
        if origin in _LISTS:
            return st.lists(self._strategy(item), max_size=_MOST)
        if origin is tuple:
            if args[-1:] == (Ellipsis,) or annotation in (tuple, typing.Tuple):  # noqa: UP006
                return st.lists(self._strategy(item), max_size=_MOST).map(tuple)
            return st.tuples(*map(self._strategy, args))
        if origin in _SETS or origin is frozenset:
            members = self._strategy(item if args else str)
            make: Callable[..., SearchStrategy[Any]] = st.frozensets if origin is frozenset else st.sets
            return make(members, max_size=_MOST)
        if origin in _DICTS:
            key, value = args or (str, Any)
            return st.dictionaries(self._strategy(key), self._strategy(value), max_size=_MOST)
        return None

    def _class(self, annotation: Any, cls: Any, args: tuple[Any, ...]) -> SearchStrategy[Any]:
        if not _is_class(cls):
            raise NoValueError("that is no type whose values are known")
        if issubclass(cls, enum.Flag):
            return st.lists(st.sampled_from(list(cls)), max_size=_MOST).map(lambda some: _joined(cls, some))
        if issubclass(cls, enum.Enum):
            return st.sampled_from(list(cls))
        known = parameters(cls, args)
        if issubclass(cls, dict) and hasattr(cls, "__required_keys__"):
            return self._typed_dict(cls, known)
        fields = self._fields(cls)
        if fields is None:
            return self._from_type(annotation)
        return self._built(cls, {name: filled(hint, known) for name, hint in fields.items()})

    def _fields(self, cls: Any) -> dict[str, Any] | None:
        """What a class is made of: each argument with its annotation; None when nothing is known of it."""
        if hasattr(cls, "_fields"):
            hints = self._hints(cls)
            return {name: hints.get(name, Any) for name in cls._fields}
        if is_model(cls):
            return {name: one.annotation for name, one in cls.model_fields.items()}
        if attrs.has(cls):
            attrs.resolve_types(cls, include_extras=True)
            return {one.alias or one.name: one.type or Any for one in attrs.fields(cls) if one.init}
        if is_dataclass(cls):
            hints = self._hints(cls)
            return {one.name: hints[one.name] for one in fields_of(cls) if one.init}
        return None

    def _from_type(self, annotation: Any) -> SearchStrategy[Any]:
        """A class of which a converter of the user's knows; perhaps Hypothesis has been told of it too."""
        try:
            strategy: SearchStrategy[Any] = st.from_type(annotation)
            strategy.validate()
        except (HypothesisException, TypeError, NameError) as error:
            raise NoValueError(f"{error}") from error
        return strategy

    def _hints(self, cls: Any) -> dict[str, Any]:
        try:
            return typing.get_type_hints(cls, include_extras=True)
        except Exception as error:
            raise NoValueError(f"its fields can't be read ({type(error).__name__}: {error})") from error

    def _typed_dict(self, cls: Any, known: dict[Any, Any]) -> SearchStrategy[Any]:
        hints = self._hints(cls)
        fields = {name: self._strategy(filled(hint, known)) for name, hint in hints.items()}
        needed = [name for name, hint in hints.items() if is_required(hint, name in cls.__required_keys__)]
        optional = {name: one for name, one in fields.items() if name not in needed}
        return st.fixed_dictionaries({name: fields[name] for name in needed}, optional=optional)

    def _built(self, cls: type, hints: dict[str, Any]) -> SearchStrategy[Any]:
        """Objects of a class, by its fields; what its validators refuse is not drawn."""
        fields = {name: self._strategy(hint) for name, hint in hints.items()}
        refused = _Refused(f"a {describe(cls)}", "give a strategy in place of its type, in results= or signals=")

        def make(given: dict[str, Any]) -> Any:
            try:
                made = cls(**given)
            except Exception as error:  # noqa: BLE001 - whatever a validator raises
                refused.once_more(f"{type(error).__name__}: {error}")
                reject()
            refused.in_a_row = 0
            return made

        return st.fixed_dictionaries(fields).map(make)


class _Refused:
    """Counts what is refused in a row, so that a type of which hardly a value is any good is told of by its name."""

    def __init__(self, what: str, remedy: str) -> None:
        self.what, self.remedy = what, remedy
        self.in_a_row = 0

    def once_more(self, why: str) -> None:
        self.in_a_row += 1
        if self.in_a_row >= _REFUSALS:
            raise InvalidInputError(
                f"hardly anything can be made up for {self.what}: {_REFUSALS} values in a row were refused, the last "
                f"one with: {why}. Say what it may be: {self.remedy}"
            )


def _is_class(thing: Any) -> bool:  # not known to type checkers as what narrows
    return isinstance(thing, type)


def _joined(cls: Any, some: Iterable[Any]) -> Any:
    value = cls(0)
    for one in some:
        value |= one
    return value


def _aware() -> SearchStrategy[datetime]:
    return st.datetimes(*_CLOCK, timezones=st.just(UTC)).map(lambda one: one.replace(fold=0))


_SCALARS: dict[type, Callable[[], SearchStrategy[Any]]] = {
    datetime: _aware,
    date: lambda: st.dates(_CLOCK[0].date(), _CLOCK[1].date()),
    time: lambda: st.times().map(lambda one: one.replace(fold=0)),
    timedelta: lambda: st.timedeltas(timedelta(0), timedelta(days=400)),
    Decimal: lambda: st.decimals(-(10**9), 10**9, allow_nan=False, allow_infinity=False, places=2),
    bytes: lambda: st.binary(max_size=10),
    bytearray: lambda: st.binary(max_size=10).map(bytearray),
    **{
        cls: (lambda cls=cls: st.lists(st.sampled_from("abc"), max_size=_MOST).map(lambda parts: cls(*parts)))  # type: ignore[misc]
        for cls in SCALARS
        if cls.__name__.endswith("Path")
    },
}
"""How values of the classes that are written as text are drawn; of the others, Hypothesis knows."""
