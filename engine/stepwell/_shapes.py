"""Values to JSON shapes by the *class* of each value, the limits of what a history holds, and what "came back" means.

A shape is None, bool, int of 64 bits, finite float, str, list, or dict with str keys. Annotations play no part here:
the encoder asks what a value is, the loaders ask what an annotation says, and `same` ties the two. Private part of the
codec, floor 2.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterable
from enum import Enum
from functools import cached_property, partial
from typing import Any, TypeAlias

import attrs
import msgspec

from ._problems import Key, Refused, a_or_an, describe

__all__ = [
    "INT_MAX",
    "INT_MIN",
    "LONE_SURROGATE",
    "Shaper",
    "canonical",
    "dump_model",
    "is_model",
]

INT_MIN, INT_MAX = -(2**63), 2**63 - 1
LONE_SURROGATE = ("text with a lone surrogate is no UTF-8", "decode it with `errors='replace'` where it is read")

_Dump: TypeAlias = Callable[[Any, set[int]], Any]


def canonical(shape: Any) -> bytes:
    """The JSON of a shape with the keys of every object sorted, for digests and comparisons."""
    return msgspec.json.encode(shape, order="sorted")


def _is_namedtuple(cls: type) -> bool:
    return issubclass(cls, tuple) and isinstance(getattr(cls, "_fields", None), tuple)


def is_model(cls: Any) -> bool:
    """Whether a class is a pydantic model (version 2), told by its methods."""
    return isinstance(cls, type) and hasattr(cls, "model_validate_json") and hasattr(cls, "model_dump")


def dump_model(model: Any) -> Any:
    """The JSON shape of a pydantic model, with its nested models."""
    return model.model_dump(mode="json", by_alias=True, round_trip=True, warnings="error")


def fields_of(cls: type) -> tuple[Any, ...]:
    """The fields of an attrs class or dataclass."""
    if attrs.has(cls):
        return tuple(attrs.fields(cls))
    import dataclasses  # whoever has one has imported it

    return dataclasses.fields(cls)


def is_dataclass(cls: type) -> bool:
    """As that of `dataclasses`, which takes long to import, says of a class."""
    return hasattr(cls, "__dataclass_fields__")


class Shaper:
    """Turns values into JSON shapes and refuses what JSON can't hold.

    Args:
        max_depth: how deep lists and objects may be nested.
        foreign: gives the unstructure hook of a user's converter for a class, or None.
    """

    def __init__(self, max_depth: int, foreign: Callable[[type], Callable[[Any], Any] | None]) -> None:
        self._max_depth = max_depth
        self._foreign = foreign
        self._dumps: dict[type, _Dump] = {}
        self._comparers: dict[type, Callable[[Any, Any], None]] = {}

    def plain(self, value: Any) -> Any:
        """Copy a value that is a JSON shape already.

        Raises:
            Refused: it is none, or is beyond the limits.
        """
        return self._walk(value, set(), False)

    def shape(self, value: Any) -> Any:
        """Give the JSON shape of a value of any supported class.

        Raises:
            Refused: there is none, or it is beyond the limits.
        """
        return self._walk(value, set(), True)

    def too_deep(self, shape: Any) -> bool:
        """Whether decoded JSON is nested deeper than the limit."""
        level: list[Any] = [shape] if type(shape) is list or type(shape) is dict else []
        for _ in range(self._max_depth):
            if not level:
                return False
            level = [
                child
                for node in level
                for child in (node if type(node) is list else node.values())
                if type(child) is list or type(child) is dict
            ]
        return bool(level)

    def same(self, before: Any, after: Any) -> None:
        """Check that a value came back from JSON as it was: equal and of the same classes, all the way down.

        An int where a float was asked for comes back as that float (PEP 484), if it is exactly that number.

        Raises:
            Refused: it did not.
        """
        cls = type(before)
        if cls is not type(after):
            if cls is int and type(after) is float and before == after:
                return
            raise Refused(f"{a_or_an(cls)} comes back as {a_or_an(type(after))}")
        compare = self._comparers.get(cls)
        if compare is None:
            compare = self._comparers[cls] = self._comparer(cls)
        compare(before, after)

    # `within` holds the ids of the containers around the value: it finds cycles, and its size is the depth.
    def _walk(self, value: Any, within: set[int], typed: bool) -> Any:
        cls = type(value)
        if cls is str or cls is bool or value is None:
            return value
        if cls is int:
            if INT_MIN <= value <= INT_MAX:
                return value
            raise Refused("an int beyond 64 bits", "write it as text or as a Decimal")
        if cls is float:
            if value - value == 0.0:
                return value
            raise Refused(f"{value!r} is no JSON number", "use None or text for what isn't finite")
        if cls is list:
            return self._items(value, within, typed)
        if cls is dict:
            return self._members(value, within, typed)
        if not typed:
            raise Refused(f"{a_or_an(cls)} is no JSON shape")
        return self._dump_of(cls)(value, within)

    def _enter(self, value: Any, within: set[int]) -> int:
        mark = id(value)
        if mark in within:
            raise Refused("the value contains itself", "break the cycle, for example by holding ids")
        if len(within) >= self._max_depth:
            raise Refused(f"nested deeper than {self._max_depth} levels", "flatten the value")
        within.add(mark)
        return mark

    def _items(self, value: Iterable[Any], within: set[int], typed: bool) -> list[Any]:
        mark = self._enter(value, within)
        out: list[Any] = []
        try:
            for item in value:
                cls = type(item)
                if cls is str or cls is bool or item is None:
                    out.append(item)
                else:
                    out.append(self._walk(item, within, typed))
        except Refused as e:
            e.keys.append(len(out))
            raise
        within.discard(mark)
        return out

    def _members(self, value: dict[Any, Any], within: set[int], typed: bool) -> dict[str, Any]:
        mark = self._enter(value, within)
        out: dict[str, Any] = {}
        key: Any = None
        try:
            for key, member in value.items():
                text = key if type(key) is str else self._key(key, within, typed)
                if text in out:
                    raise Refused(f"two keys are both written {text!r}", "use keys of one type")
                out[text] = self._walk(member, within, typed)
        except Refused as e:
            e.keys.append(_name(key))
            raise
        within.discard(mark)
        return out

    def _key(self, key: Any, within: set[int], typed: bool) -> str:
        if typed:
            shape = self._walk(key, within, True)
            if type(shape) is str:
                return shape
            if type(shape) is bool:
                return "true" if shape else "false"
            if type(shape) is int or type(shape) is float:
                return repr(shape)
        remedy = "use str keys" if typed else "use str keys, or say what the keys are, as in dict[int, str]"
        raise Refused(f"the key {_name(key)} is {a_or_an(type(key))} and not text", remedy)

    def _dump_of(self, cls: type) -> _Dump:
        dump = self._dumps.get(cls)
        if dump is None:
            dump = self._dumps[cls] = self._make(cls)
        return dump

    def _make(self, cls: type) -> _Dump:
        hook = self._foreign(cls)
        if hook is not None:
            return lambda value, within: self._walk(_called(hook, value), within, True)
        from ._scalars import SCALARS  # when another class than JSON's own is met: with it come many modules

        if cls in SCALARS:
            write = SCALARS[cls].write
            return lambda value, _: _called(write, value)
        if issubclass(cls, Enum):
            return lambda value, within: self._walk(value.value, within, True)
        if attrs.has(cls) or is_dataclass(cls):
            return self._object(tuple(f.name for f in fields_of(cls) if f.init))
        if cls is tuple or _is_namedtuple(cls):
            return lambda value, within: self._items(value, within, True)
        if cls is set or cls is frozenset:
            # Iteration order of a set differs from process to process; what is recorded must not.
            return lambda value, within: _sorted(self._items(value, within, True))
        if is_model(cls):
            return lambda value, within: self._walk(_called(dump_model, value), within, False)
        for base in (str, int, float, list, dict, tuple, set, *SCALARS):
            if issubclass(cls, base):
                raise Refused(
                    f"{a_or_an(cls)}, a subclass of {base.__name__}, would not come back as what it is",
                    f"make a plain {base.__name__} of it",
                )
        raise Refused(
            f"{a_or_an(cls)} has no JSON form",
            "use an attrs class, a dataclass or JSON shapes, or give the codec a cattrs converter with hooks for it",
        )

    def _object(self, names: tuple[str, ...]) -> _Dump:
        def dump(value: Any, within: set[int]) -> dict[str, Any]:
            mark = self._enter(value, within)
            out: dict[str, Any] = {}
            name = ""
            try:
                for name in names:
                    out[name] = self._walk(_field(value, name), within, True)
            except Refused as e:
                e.keys.append(name)
                raise
            within.discard(mark)
            return out

        return dump

    def _comparer(self, cls: type) -> Callable[[Any, Any], None]:
        if self._foreign(cls) is not None:
            return _equal_or_incomparable
        if cls is list or cls is tuple or _is_namedtuple(cls):
            return self._same_items
        if cls is dict:
            return self._same_members
        if cls is set or cls is frozenset:
            return self._same_set
        from ._scalars import SCALARS

        if cls in SCALARS:
            return partial(_equal, SCALARS[cls].same)
        if cls is float:
            return partial(_equal, lambda a, b: repr(a) == repr(b))  # tells -0.0 from 0.0
        if not issubclass(cls, Enum) and (attrs.has(cls) or is_dataclass(cls)):
            return partial(self._same_fields, tuple(f.name for f in fields_of(cls)))
        return partial(_equal, operator.eq)

    def _same_items(self, before: Any, after: Any) -> None:
        if len(before) != len(after):
            raise Refused(f"{len(before)} items come back as {len(after)}")
        for i, (a, b) in enumerate(zip(before, after, strict=True)):
            if a is not b:
                self._same_inside(i, a, b)

    def _same_members(self, before: dict[Any, Any], after: dict[Any, Any]) -> None:
        if len(before) != len(after):
            raise Refused(f"{len(before)} keys come back as {len(after)}")
        for (key, a), (other, b) in zip(before.items(), after.items(), strict=True):
            if key is not other:
                self._same_inside(_name(key), key, other)
            if a is not b:
                self._same_inside(_name(key), a, b)

    def _same_set(self, before: Any, after: Any) -> None:
        found = {item: item for item in after}
        if len(before) != len(after) or not all(item in found for item in before):
            raise Refused("a set comes back with other members")
        for item in before:
            self.same(item, found[item])

    def _same_fields(self, names: tuple[str, ...], before: Any, after: Any) -> None:
        for name in names:
            a, b = _field(before, name, msgspec.UNSET), _field(after, name, msgspec.UNSET)
            if a is not b:
                self._same_inside(name, a, b)
        if len(getattr(before, "__dict__", ())) > 0:
            _same_rest(names, before, after)

    def _same_inside(self, key: Key, before: Any, after: Any) -> None:
        try:
            self.same(before, after)
        except Refused as e:
            e.keys.append(key)
            raise


def _called(fn: Callable[[Any], Any], value: Any) -> Any:
    try:
        return fn(value)
    except Exception as e:
        raise Refused(f"{a_or_an(type(value))} could not be written: {type(e).__name__}: {e}") from e


def _field(value: Any, name: str, *otherwise: Any) -> Any:
    try:
        return getattr(value, name, *otherwise)
    except AttributeError as e:
        raise Refused("was never set") from e
    except Exception as e:
        raise Refused(f"can't be read: {type(e).__name__}: {e}") from e


# What typing and attrs keep in an instance beside its fields.
_KEPT_ASIDE = ("__orig_class__", "_attrs_cached_hash")


def _same_rest(names: tuple[str, ...], before: Any, after: Any) -> None:
    """Check the attributes that are no fields: none is lost but what a cached property keeps.

    Those that the class sets by itself, as in `__post_init__`, are there again; whatever has no equality passes.
    """
    cls, again = type(before), vars(after)
    for name, value in vars(before).items():
        if name in names or name in _KEPT_ASIDE or isinstance(inspect.getattr_static(cls, name, None), cached_property):
            continue
        try:
            if name not in again:
                raise Refused(f"is no field of {describe(cls)} and would be lost", "declare it as a field, or unset it")
            _equal_or_incomparable(value, again[name])
        except Refused as e:
            e.keys.append(name)
            raise


def _name(key: Any) -> str:
    """What a path calls a key. An int of thousands of digits has no text, and a class may have none either."""
    try:
        return key if type(key) is str else str(key)
    except Exception:  # noqa: BLE001 - whatever a class of the user's raises
        return f"<{describe(type(key))}>"


def _sorted(shapes: list[Any]) -> list[Any]:
    try:
        return sorted(shapes, key=canonical)
    except UnicodeEncodeError as e:
        raise Refused(*LONE_SURROGATE) from e


def _equal(equal: Callable[[Any, Any], Any], before: Any, after: Any) -> None:
    try:
        if equal(before, after):
            return
    except Exception as e:
        raise Refused(f"{a_or_an(type(before))} can't be compared: {type(e).__name__}: {e}") from e
    raise Refused(f"{a_or_an(type(before))} comes back different")


def _equal_or_incomparable(before: Any, after: Any) -> None:
    # The owner of the hooks vouches for classes such as arrays, whose `==` gives no bool.
    try:
        different = not before == after and _has_equality(type(before))  # noqa: SIM201 - `==` is what a class defines
    except Exception:  # noqa: BLE001 - whatever such a class raises
        return
    if different:
        raise Refused(f"{a_or_an(type(before))} comes back different")


def _has_equality(cls: type) -> bool:
    return cls.__eq__ is not object.__eq__  # type: ignore[comparison-overlap]
