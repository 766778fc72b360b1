"""JSON shapes to values, by what an *annotation* says. The only user of cattrs, which is imported on first need.

One cattrs converter, whose every hook is made here: cattrs generates the code for attrs classes and dataclasses
(generics, defaults, unknown keys, error trees), and asks back for the hooks of their fields. The rules are strict: bool
only from true and false, int never from text, a list never from text, no unknown keys.

What a union gives never depends on the order of its members: `int | float == float | int`, and both typing and this
module cache by equality. Private part of the codec, floor 2.
"""

from __future__ import annotations

import enum
import re
import types
import typing
from collections import abc
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, NewType, TypeVar, Union

import attrs

from ._annotations import bound, filled, is_required, parameters, unwrapped
from ._leaves import Hook, anything, flag, leaf, model, never, nothing, readings, token
from ._problems import Inside, Refused, describe, problems, show
from ._shapes import Shaper, canonical, is_dataclass, is_model
from .commands import UNSET

if TYPE_CHECKING:
    from cattrs import Converter

__all__ = ["Loaders"]

_LISTS = (list, abc.Sequence, abc.MutableSequence, abc.Collection, abc.Iterable, abc.Reversible)
_SETS = (set, abc.Set, abc.MutableSet)
_DICTS = (dict, abc.Mapping, abc.MutableMapping)
_ABSENT = object()
_UNREADABLE = "make the names in its annotations known in its module at run time"
_MOST_OWED = 200
_owed: ContextVar[list[Any]] = ContextVar("stepwell_owed_hooks")
_REMEDY = (
    "use an attrs class, a dataclass, a TypedDict or JSON shapes, or give the codec a cattrs converter that has hooks "
    "for it"
)


class Loaders:
    """Makes and keeps the hook of each annotation.

    Args:
        shaper: gives the JSON shapes of enum members and literals.
        foreign: gives the structure hook of a user's converter for an annotation, or None.
        telling: make hooks that collect every problem with its place. They take twice the time, so they are asked only
            after the others have refused.
    """

    def __init__(self, shaper: Shaper, foreign: Callable[[Any], Hook | None], *, telling: bool = False) -> None:
        self._shaper = shaper
        self._telling = telling
        self._foreign = foreign
        self._hooks: dict[Any, Hook] = {}
        self._made: Converter | None = None

    def prepare(self, annotation: Any) -> Hook:
        """Give the hook of an annotation, all of whose parts can be decoded.

        Raises:
            Refused: as `hook` does, and for the parts that it leaves for later.
        """
        owed: list[Any] = []
        token = _owed.set(owed)
        try:
            hook = self.hook(annotation)
            for part in owed:  # grows; a class that holds itself with ever other parameters would have no end
                if len(owed) > _MOST_OWED:
                    break
                self.hook(part)
        except Refused:
            self._hooks.clear()  # some may rest on what was left for later
            raise
        finally:
            _owed.reset(token)
        return hook

    def hook(self, annotation: Any) -> Hook:
        """Give the hook of an annotation.

        Raises:
            Refused: values of the annotation, or of a part of it, can't be decoded.
        """
        try:
            found = self._hooks.get(annotation)
        except TypeError:  # an annotation that can't be hashed, such as Annotated[int, []]
            return self._make(annotation)
        if found is not None:
            return found

        def later(shape: Any, _: Any) -> Any:
            hook = self._hooks.get(annotation)
            return (self._make(annotation) if hook is None or hook is later else hook)(shape, annotation)

        self._hooks[annotation] = later  # what a recursive type finds of itself while it is being made
        try:
            made = self._make(annotation)
        except BaseException:
            self._hooks.pop(annotation, None)
            raise
        self._hooks[annotation] = made
        return made

    def _make(self, annotation: Any) -> Hook:
        foreign = self._foreign(annotation)
        if foreign is not None:
            return foreign
        if annotation is Any or annotation is object or annotation is UNSET:
            return anything
        if annotation is None or annotation is type(None):
            return nothing
        if annotation is typing.Never or annotation is typing.NoReturn:
            return never
        if isinstance(annotation, TypeVar):
            return self.hook(bound(annotation))
        inner = unwrapped(annotation)
        if inner is not UNSET:
            return self._under(inner)
        origin = typing.get_origin(annotation)
        args = typing.get_args(annotation)
        if origin is Union or origin is types.UnionType:
            return self._union(annotation, args)
        if origin is Literal:
            return self._choice(annotation, args)
        found = leaf(annotation) or self._container(annotation, origin or annotation, args)
        return found or self._class(annotation, origin or annotation, args)

    def _under(self, inner: Any) -> Hook:
        hook = self.hook(inner)
        return lambda shape, _: hook(shape, inner)

    def _container(self, annotation: Any, origin: Any, args: tuple[Any, ...]) -> Hook | None:
        if origin in _LISTS:
            return self._each(args[0] if args else Any)
        if origin is tuple:
            if any(getattr(arg, "__unpacked__", False) or typing.get_origin(arg) is typing.Unpack for arg in args):
                raise Refused(f"{describe(annotation)} has an unpacked part", "name the items, or use tuple[T, ...]")
            if args[-1:] == (Ellipsis,) or annotation in (tuple, typing.Tuple):  # noqa: UP006
                return _after(self._each(args[0] if args else Any), tuple)
            return self._row(tuple, args, len(args))
        if origin in _SETS:
            return _after(self._each(args[0] if args else Any), set)
        if origin is frozenset:
            return _after(self._each(args[0] if args else Any), frozenset)
        if origin in _DICTS:
            return self._dict(*(args or (Any, Any)))
        return None

    def _class(self, annotation: Any, cls: Any, args: tuple[Any, ...]) -> Hook:
        if not isinstance(cls, type):
            raise Refused(f"{describe(annotation)} is no annotation that the codec knows", _REMEDY)
        if issubclass(cls, enum.Flag):
            return flag(cls)
        if issubclass(cls, enum.Enum):
            return self._choice(cls, tuple(cls))
        open_ = getattr(cls, "__parameters__", ())
        if open_ and not args:
            args = tuple(bound(p) for p in open_)  # a bare `Box` is a `Box[Any]`
            annotation = typing.cast("Any", cls)[args]
        if issubclass(cls, tuple) and hasattr(cls, "_fields"):
            return self._named_tuple(cls, args)
        if is_model(cls):
            return model(cls)
        if issubclass(cls, dict) and hasattr(cls, "__required_keys__"):
            return self._typed_dict(cls, args)
        if attrs.has(cls) or is_dataclass(cls):
            return self._object(annotation, cls, args)
        raise Refused(f"a {describe(annotation)} can't be made from JSON", _REMEDY)

    def _object(self, annotation: Any, cls: type, args: tuple[Any, ...]) -> Hook:
        from cattrs.gen import make_dict_structure_fn

        try:
            if attrs.has(cls):
                attrs.resolve_types(cls, include_extras=True)
            inner = make_dict_structure_fn(
                _nameable(annotation, cls, args),
                self._converter(),
                _cattrs_forbid_extra_keys=True,
                _cattrs_detailed_validation=self._telling,
            )
        except Refused:
            raise
        except RecursionError:  # cattrs is at this class already, with other parameters; it binds this one late
            _owed.get([]).append(annotation)
            raise
        except Exception as e:
            reason = f"the fields of {describe(annotation)} can't be read ({type(e).__name__}: {e})"
            raise Refused(reason, _UNREADABLE) from e
        name = describe(annotation)

        def load(shape: Any, _: Any) -> Any:
            if type(shape) is not dict:
                raise Refused(f"expected an object with the fields of {name}, got {show(shape)}")
            return inner(shape, annotation)

        return load

    def _converter(self) -> Converter:
        if self._made is None:
            from cattrs import Converter

            loaders = self

            # Registered hooks would not do: cattrs looks up str, int and their subclasses before any predicate.
            class Strict(Converter):
                def get_structure_hook(self, type: Any, cache_result: bool = True) -> Hook:  # noqa: ARG002
                    return loaders.hook(type)

                def structure(self, obj: Any, cl: Any) -> Any:
                    return obj if cl is None else loaders.hook(cl)(obj, cl)  # None: a field without annotation

            self._made = Strict()
        return self._made

    def _each(self, item: Any) -> Hook:
        hook = self.hook(item)

        def load(shape: Any, _: Any) -> list[Any]:
            if type(shape) is not list:
                raise Refused(f"expected a list, got {show(shape)}")
            out: list[Any] = []
            try:
                for one in shape:
                    out.append(hook(one, item))  # noqa: PERF401 - the length tells where it went wrong
            except Exception as e:  # noqa: BLE001 - users' hooks and classes raise what they like
                raise Inside(len(out), e) from None
            return out

        return load

    def _row(self, make: Callable[[Iterable[Any]], Any], items: tuple[Any, ...], least: int) -> Hook:
        hooks = tuple((self.hook(item), item) for item in items)

        def load(shape: Any, _: Any) -> Any:
            if type(shape) is not list:
                raise Refused(f"expected a list, got {show(shape)}")
            if not least <= len(shape) <= len(hooks):
                raise Refused(f"expected {len(hooks)} items, got {len(shape)}")
            out: list[Any] = []
            try:
                for one, (hook, item) in zip(shape, hooks, strict=False):
                    out.append(hook(one, item))
            except Exception as e:  # noqa: BLE001 - users' hooks and classes raise what they like
                raise Inside(len(out), e) from None
            return make(out)

        return load

    def _named_tuple(self, cls: Any, args: tuple[Any, ...]) -> Hook:
        hints, known = _hints(cls), parameters(cls, args)
        items = tuple(filled(hints.get(name, Any), known) for name in cls._fields)
        return self._row(lambda out: cls(*out), items, len(items) - len(cls._field_defaults))

    def _typed_dict(self, cls: Any, args: tuple[Any, ...]) -> Hook:
        hints, known = _hints(cls), parameters(cls, args)
        members = {name: (self.hook(hint), hint) for name, hint in ((n, filled(h, known)) for n, h in hints.items())}
        # In annotations that are text, `__required_keys__` takes no note of Required and NotRequired.
        needed = [n for n, h in hints.items() if is_required(h, n in cls.__required_keys__)]
        named = describe(cls)

        def load(shape: Any, _: Any) -> Any:
            if type(shape) is not dict:
                raise Refused(f"expected an object with the keys of {named}, got {show(shape)}")
            out: dict[str, Any] = {}
            key = ""
            try:
                for key in needed:
                    if key not in shape:
                        raise Refused("is missing")
                for key, one in shape.items():
                    if key not in members:
                        raise Refused("is an unknown key")
                    hook, hint = members[key]
                    out[key] = hook(one, hint)
            except Exception as e:  # noqa: BLE001 - users' hooks and classes raise what they like
                raise Inside(key, e) from None
            return out

        return load

    def _dict(self, key: Any, member: Any) -> Hook:
        load_key, load_member = self._key(key), self.hook(member)

        def load(shape: Any, _: Any) -> dict[Any, Any]:
            if type(shape) is not dict:
                raise Refused(f"expected an object, got {show(shape)}")
            out: dict[Any, Any] = {}
            text = ""
            try:
                for text, one in shape.items():
                    out[load_key(text)] = load_member(one, member)
            except Exception as e:  # noqa: BLE001 - users' hooks and classes raise what they like
                raise Inside(text, e) from None
            if len(out) != len(shape):
                raise Refused("several keys give the same value")
            return out

        return load

    def _key(self, key: Any) -> Callable[[str], Any]:
        hook = self.hook(key)

        def load(text: str) -> Any:
            try:
                return hook(text, key)
            except Exception:
                for number in readings(text):
                    try:
                        return hook(number, key)
                    except Exception:  # noqa: BLE001, S112 - the first refusal is the one to tell
                        continue
                raise

        return load

    def _choice(self, annotation: Any, members: tuple[Any, ...]) -> Hook:
        choices: dict[Any, Any] = {}
        for member in members:
            try:
                key = token(self._shaper.shape(member))
            except Refused as e:
                raise Refused(f"{member!r} of {describe(annotation)} has no JSON form: {e.reason}", _REMEDY) from e
            if choices.setdefault(key, member) is not member and choices[key] != member:
                raise Refused(f"{member!r} and {choices[key]!r} are the same in JSON", "give them other values")
        named = describe(annotation)

        def load(shape: Any, _: Any) -> Any:
            found = choices.get(token(shape), _ABSENT)
            if found is _ABSENT:
                raise Refused(f"expected {named}, got {show(shape)}")
            return found

        return load

    def _union(self, annotation: Any, members: tuple[Any, ...]) -> Hook:
        if len(members) == 2 and type(None) in members:
            return self._optional(members[0] if members[1] is type(None) else members[1])
        exact = {type(None) if m is None else m for m in members if m in (str, int, bool, float, None, type(None))}
        rest = tuple((self.hook(m), m) for m in members if m not in exact or m is float)
        named = describe(annotation)

        def load(shape: Any, _: Any) -> Any:
            # A plain JSON value is taken as it is: text is never a date where str is a member too.
            if type(shape) in exact:
                return shape
            fits, reasons = [], []
            for hook, member in rest:
                try:
                    fits.append((member, hook(shape, member)))
                except Exception as e:  # noqa: BLE001 - users' hooks and classes raise what they like
                    first = problems(e)[0]
                    where = first.path.removeprefix("$")
                    reasons.append(f"{describe(member)}: {where + ' ' if where else ''}{first.reason}")
            if not fits:
                why = f" ({'; '.join(reasons)})" if reasons else ""
                raise Refused(f"expected {named}, got {show(shape)}{why}")
            return fits[0][1] if len(fits) == 1 else self._only(fits, shape)

        return load

    def _optional(self, member: Any) -> Hook:
        hook = self.hook(member)
        return lambda shape, _: None if shape is None else hook(shape, member)

    def _only(self, fits: list[tuple[Any, Any]], shape: Any) -> Any:
        """Of several members that fit, take the one that is written like this; refuse when that leaves a choice."""
        wanted = canonical(shape)
        closest = [fit for fit in fits if self._written(fit[1]) == wanted] or fits
        for _, other in closest[1:]:
            try:
                self._shaper.same(closest[0][1], other)
            except Refused:
                names = " and ".join(describe(member) for member, _ in closest)
                raise Refused(
                    f"fits {names} alike",
                    "give each class a field of its own, such as `kind: Literal['approved'] = 'approved'`",
                ) from None
        return closest[0][1]

    def _written(self, value: Any) -> bytes | None:
        try:
            return canonical(self._shaper.shape(value))
        except Refused:
            return None


def _after(hook: Hook, make: Callable[[Any], Any]) -> Hook:
    def load(shape: Any, annotation: Any) -> Any:
        items = hook(shape, annotation)
        try:
            return make(items)
        except TypeError as e:
            raise Refused(f"members of a set must be hashable: {e}") from e

    return load


def _nameable(annotation: Any, cls: Any, args: tuple[Any, ...]) -> Any:
    # cattrs puts the names of type arguments into the name of the function that it generates, and is not prepared for
    # all of them, such as Annotated[int, "percent"] | None. A NewType has a name and means the same.
    names = [re.sub(r"[\[\]., <>|]", "_", getattr(arg, "__name__", None) or str(arg)) for arg in args]
    if all(("_" + name).isidentifier() for name in names):
        return annotation
    made: Any = NewType  # type checkers want a literal
    return cls[tuple(made(f"T{i}", arg) for i, arg in enumerate(args))]


def _hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except Exception as e:
        raise Refused(f"the fields of {describe(cls)} can't be read ({type(e).__name__}: {e})", _UNREADABLE) from e
