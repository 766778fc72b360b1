"""Values to JSON bytes and back, exactly or not at all.

A value enters a workflow as `decode(encode(value, T), T)`, live and on replay alike. The codec keeps one promise: that
is equal to the value and of the same classes, all the way down, or `encode` raised `CodecError`.

*How.* `encode` asks each value what it is (`_shapes`), `decode` asks the annotation what is wanted (`_loaders`, with
cattrs), and `encode` refuses a value that doesn't come back as it was. So a wrong type, a lossy class, an ambiguous
union or a subclass is found before anything is recorded, whatever the reason.

*What.* None, bool, int (64 bits), float (finite), str; list, tuple, dict, set, frozenset and their abstract forms;
attrs classes, dataclasses, TypedDict, NamedTuple, Enum, Literal, unions, generics, recursive classes; datetime, date,
time, timedelta, UUID, Decimal, bytes, paths; pydantic models; whatever a cattrs converter of the user's has hooks for.
Without an annotation only JSON shapes. An int is accepted where float is annotated and comes back as that float
(PEP 484). A datetime keeps its offset from UTC, not the name of its zone. A set is written sorted.

Floor 2, pure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ._annotations import argument_types, parameter_annotations, return_annotation
from ._leaves import Hook
from ._loaders import Loaders
from ._native import ATOMS, Native, native
from ._problems import Key, Refused, describe, path_of, problems
from ._shapes import INT_MAX, INT_MIN, LONE_SURROGATE, Shaper, canonical
from .commands import UNSET
from .digests import digest
from .errors import CodecError

if TYPE_CHECKING:
    from cattrs import Converter

__all__ = ["Codec", "argument_types", "parameter_annotations", "return_annotation"]

_Raw = TypeVar("_Raw", bytes, msgspec.Raw)
_DIGITS_AS_ZERO = bytes(ord("0") if c in b"0123456789" else c for c in range(256))
_LONG = b"0" * 19


class _Plan(msgspec.Struct, frozen=True, eq=False):
    """How values of one annotation are held.

    Attributes:
        annotation: what `encode` and `decode` were given.
        free: nothing is said, so JSON shapes only.
        hook: makes the value of a JSON shape.
        read: makes the value of JSON.
        write: makes JSON of the value.
    """

    annotation: Any
    free: bool
    hook: Hook
    read: Callable[[bytes | msgspec.Raw], Any]
    write: Callable[[Any], bytes]


class Codec:
    """Encodes values to JSON and decodes them by annotation. Thread-safe; share one, because it caches by annotation.

    Args:
        converter: a `cattrs.Converter` whose own hooks are used for the types that they are registered for, before
            anything that the codec knows itself; JSON rules apply to what they give. Hooks registered after this call
            are not seen, nor is a hook of a union or NewType used for encoding when that is a part of another type.
        max_bytes: largest encoded value.
        max_depth: how deep lists and objects may be nested.

    Determinism: pure.

    Example:
        >>> codec = Codec()
        >>> codec.decode(codec.encode({3: (1, 2)}, dict[int, tuple[int, int]]), dict[int, tuple[int, int]])
        {3: (1, 2)}
    """

    def __init__(self, converter: Converter | None = None, *, max_bytes: int = 1 << 20, max_depth: int = 100) -> None:
        self._max_bytes = max_bytes
        self._max_depth = max_depth
        self._is_plain = converter is None
        self._unstructure, self._structure = _hooks_of(converter)
        self._shaper = Shaper(max_depth, self._unstructure)
        self._loaders = Loaders(self._shaper, self._structure)
        self._telling = Loaders(self._shaper, self._structure, telling=True)
        self._parser: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
        self._plans: dict[Any, _Plan] = {}

    def encode(self, value: Any, annotation: Any = UNSET) -> bytes:
        """Give the JSON of a value.

        Args:
            value: what is to be recorded.
            annotation: the type that `decode` will be given. UNSET (nobody said) and Any allow JSON shapes only.

        Returns:
            bytes, one JSON value in compact UTF-8, the keys of objects in their own order.

        Raises:
            CodecError: the value is beyond what a history holds, or `decode` with the same annotation would not give
                it back as it is. `path` says where, the text why and what to do.

        Determinism: pure; the same value gives the same bytes in every process.

        Example:
            >>> from datetime import timedelta
            >>> Codec().encode({"wait": timedelta(minutes=1)}, dict[str, timedelta])
            b'{"wait":"PT60S"}'
        """
        return self._plan(annotation).write(value)

    def decode(self, raw: bytes | msgspec.Raw, annotation: Any = Any) -> Any:
        """Give the value of recorded or received JSON.

        Args:
            raw: bytes, one JSON value in UTF-8; they may come from anywhere.
            annotation: the type of the value; Any and UNSET give plain JSON.

        Returns:
            A new value of the type.

        Raises:
            CodecError: the bytes are no JSON within the limits, or don't fit the type; `path` says where.

        Determinism: pure.

        Example:
            >>> Codec().decode(b'{"a":[1,2]}', dict[str, tuple[int, int]])
            {'a': (1, 2)}
        """
        return self._plan(annotation).read(raw)

    def reader(self, annotation: Any) -> Callable[[msgspec.Raw], Any]:
        """Give the function that decodes JSON of one type: `decode`, for whoever has many values of it.

        Raises:
            CodecError: as `check`.

        Determinism: pure.

        Example:
            >>> Codec().reader(list[int])(b"[1,2]")
            [1, 2]
        """
        return self._plan(annotation).read

    def check(self, annotation: Any) -> None:
        """Find out before anything is done whether values of an annotation can be decoded.

        Raises:
            CodecError: they can't: a class that the codec doesn't know, a Callable, a name that doesn't resolve.

        Determinism: pure.

        Example:
            >>> Codec().check(list[int] | None)
        """
        self._plan(annotation)

    def writer(self, annotation: Any) -> Callable[[Any], bytes]:
        """Give the function that encodes values of one type: `encode`, for whoever has many values of it.

        Raises:
            CodecError: as `check`.

        Determinism: pure.

        Example:
            >>> Codec().writer(list[int])([1, 2])
            b'[1,2]'
        """
        return self._plan(annotation).write

    def digest(self, value: Any) -> str:
        """Give a short fingerprint that doesn't depend on the order of keys.

        Args:
            value: recorded JSON as bytes or `msgspec.Raw`, or any other supported value. Both give the same digest.

        Returns:
            32 hexadecimal digits: BLAKE2b-128 of the JSON with sorted keys.

        Raises:
            CodecError: the value has no JSON form, or the bytes are no JSON.

        Determinism: pure; stable across processes and releases.

        Example:
            >>> Codec().digest({"b": 1, "a": (2,)}) == Codec().digest(b'{"a":[2],"b":1}')
            True
        """
        if isinstance(value, (bytes, msgspec.Raw)):
            shape = self._parse(value)
        else:
            try:
                shape = self._shaper.shape(value)
            except Refused as e:
                raise _error(path_of(reversed(e.keys)), e.reason, e.remedy) from e
            except RecursionError as e:
                raise _error("$", "nested too deep for the stack that is left", "flatten the value") from e
        return digest(self._write(shape, canonical))

    def _loose(self, value: Any) -> bytes:
        """The JSON of a value by what it is itself, for a reader that knows a type for it."""
        try:
            return self._sized(self._write(self._shaper.shape(value)))
        except Refused as e:
            raise _error(path_of(reversed(e.keys)), e.reason, e.remedy) from e

    def _plan(self, annotation: Any) -> _Plan:
        try:
            found = self._plans.get(annotation)
        except TypeError:  # it can't be hashed, such as Annotated[int, []]
            return self._make(annotation)
        if found is None:
            found = self._plans[annotation] = self._make(annotation)
        return found

    def _make(self, annotation: Any) -> _Plan:
        try:
            hook = self._loaders.prepare(annotation)
            found = native(annotation, self._structure)
        except Refused as e:
            remedy = e.remedy or "say another type with .options(into=T)"
            raise _error("$", f"{describe(annotation)} can't be decoded: {e.reason}", remedy) from e
        except RecursionError as e:
            raise _error("$", f"{describe(annotation)} can't be decoded: it has no end", "") from e
        free = annotation is UNSET or annotation is Any or annotation is object
        atom = isinstance(annotation, type) and annotation in ATOMS

        def read(raw: bytes | msgspec.Raw) -> Any:
            shape = self._parse(self._sized(raw))
            return shape if free else self._load(shape, annotation, hook, "no ")

        def write(value: Any) -> bytes:
            try:
                if free or (atom and type(value) is annotation):
                    return self._sized(self._write(self._shaper.plain(value)))
                return self._faithful(value, annotation, hook)
            except Refused as e:
                raise _cannot(e, value, annotation, free) from e
            except RecursionError as e:
                raise _error("$", "nested too deep for the stack that is left", "flatten the value") from e

        if found is None:
            return _Plan(annotation, free, hook, read, write)
        brief = self._brief(annotation, write) if atom and annotation is not float else write
        return _Plan(annotation, free, hook, self._fast(found, read), brief)

    def _faithful(self, value: Any, annotation: Any, hook: Hook) -> bytes:
        """The JSON of a value that has been seen to come back as it is."""
        shape = self._shape(value, annotation)
        raw = self._sized(self._write(shape))  # before the hooks, which are free to take the shape to pieces
        self._shaper.same(value, self._load(shape, annotation, hook, "the value is no "))
        return raw

    def _brief(self, cls: Any, otherwise: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
        """A writer of a plain JSON class; `otherwise` finds the same, and can tell what is wrong."""
        encode, most, is_int = msgspec.json.encode, self._max_bytes, cls is int

        def write(value: Any) -> bytes:
            if type(value) is cls and (not is_int or INT_MIN <= value <= INT_MAX):
                try:
                    raw = encode(value)
                except UnicodeEncodeError:
                    return otherwise(value)
                if len(raw) <= most:
                    return raw
            return otherwise(value)

        return write

    def _fast(self, how: Native, otherwise: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """A reader of a type that msgspec knows; `otherwise` finds the same, and can tell what is wrong."""
        decode, build, most = msgspec.json.Decoder(how.form).decode, how.build, self._max_bytes
        floats = how.floats

        def read(raw: bytes | msgspec.Raw) -> Any:
            if len(raw) <= most and not (floats and len(raw) > 18 and _has_long_number(raw)):
                try:
                    return decode(raw) if build is None else build(decode(raw))
                except Exception:  # noqa: BLE001, S110 - validators raise what they like
                    pass
            return otherwise(raw)

        return read

    def _shape(self, value: Any, annotation: Any) -> Any:
        # A converter's hook for a class is found by the class of the value, one for a union or NewType only here.
        hook = None if isinstance(annotation, type) else self._unstructure(annotation)
        if hook is None:
            return self._shaper.shape(value)
        try:
            given = hook(value)
        except Exception as e:
            raise Refused(f"the converter's hook for {describe(annotation)} failed: {type(e).__name__}: {e}") from e
        return self._shaper.shape(given)

    def _load(self, shape: Any, annotation: Any, hook: Hook, what: str) -> Any:
        try:
            return hook(shape, annotation)
        except Exception:  # noqa: BLE001, S110 - users' hooks raise what they like, and the next line tells what
            pass
        try:
            return self._telling.hook(annotation)(shape, annotation)
        except Exception as e:
            found = problems(e)
            texts = [f"{one.path}: {one.reason}" for one in found[:3]]
            if len(found) > 3:
                texts.append(f"and {len(found) - 3} more")
            if found[0].remedy:
                texts.append(found[0].remedy)
            raise CodecError(f"{what}{describe(annotation)}: {'; '.join(texts)}", path=found[0].path) from e

    def _sized(self, raw: _Raw) -> _Raw:
        if len(raw) > self._max_bytes:
            reason = f"{len(raw)} bytes of JSON, and one value may take {self._max_bytes}"
            raise _error("$", reason, "keep the data elsewhere and record where")
        return raw

    def _write(self, shape: Any, encode: Callable[[Any], bytes] = msgspec.json.encode) -> bytes:
        try:
            return encode(shape)
        except UnicodeEncodeError as e:
            raise _error(path_of(_find_surrogate(shape) or ()), *LONE_SURROGATE) from e

    def _parse(self, raw: bytes | msgspec.Raw) -> Any:
        try:
            shape = self._parser.decode(raw)
        except RecursionError as e:
            raise _error("$", f"nested deeper than {self._max_depth} levels", "") from e
        except ValueError as e:  # msgspec's errors and UnicodeDecodeError
            raise _error("$", f"no JSON within the limits: {e}", "") from e
        # Cheap tests pass nearly every payload; only the walk knows for certain, and where.
        size, octets = len(raw), bytes(raw)
        if (
            size > 2 * self._max_depth
            and octets.count(b"[") + octets.count(b"{") > self._max_depth
            and self._shaper.too_deep(shape)
        ):
            raise _error("$", f"nested deeper than {self._max_depth} levels", "")
        if size > 18 and _has_long_number(octets):
            try:
                self._shaper.plain(shape)
            except Refused as e:
                raise _error(path_of(reversed(e.keys)), e.reason, "") from e
        return shape


def _has_long_number(raw: bytes | msgspec.Raw) -> bool:
    """Whether there are 19 digits in a row, as in an int beyond 64 bits, which msgspec takes for a float."""
    return _LONG in bytes(raw).translate(_DIGITS_AS_ZERO)


def _error(path: str, reason: str, remedy: str) -> CodecError:
    return CodecError(f"{path}: {reason}" + (f"; {remedy}" if remedy else ""), path=path)


def _cannot(refused: Refused, value: Any, annotation: Any, free: bool) -> CodecError:
    """Say why a value can't be held, and what to do about it."""
    path = path_of(reversed(refused.keys))
    if refused.remedy:
        return _error(path, refused.reason, refused.remedy)
    if not free:
        return _error(path, refused.reason, f"the value must be what {describe(annotation)} says, part by part")
    into = "T" if isinstance(value, (list, dict, tuple, set)) else describe(type(value))
    return _error(
        path,
        f"{refused.reason}, and no type is given that would bring it back",
        f"annotate the function, or use .options(into={into})",
    )


def _find_surrogate(shape: Any) -> list[Key] | None:
    """The keys that lead to the text that is no UTF-8."""
    if isinstance(shape, str):
        return None if _is_utf8(shape) else []
    pairs: Any = enumerate(shape) if isinstance(shape, list) else shape.items() if isinstance(shape, dict) else ()
    for key, item in pairs:
        if isinstance(key, str) and not _is_utf8(key):
            return [key]
        found = _find_surrogate(item)
        if found is not None:
            return [key, *found]
    return None


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _hooks_of(converter: Converter | None) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Give look-ups of the hooks that somebody registered on a converter, without those that every converter has."""
    if converter is None:
        return (lambda _: None), (lambda _: None)
    from cattrs import Converter
    from cattrs.dispatch import MultiStrategyDispatch

    # What `Converter.copy` does, but into dispatchers that have nothing of their own.
    dispatch: Any = MultiStrategyDispatch
    unstructure, structure = dispatch(lambda _: None, converter), dispatch(lambda _: None, converter)
    converter._unstructure_func.copy_to(unstructure, skip=converter._unstruct_copy_skip)
    converter._structure_func.copy_to(structure, skip=converter._struct_copy_skip)
    unions = dict(converter._union_struct_registry)
    bare = Converter()
    usual = (bare.get_structure_hook(str), bare.get_unstructure_hook(str), str)  # of str, bytes, int, float and Path

    def look_up(where: Any, annotation: Any) -> Any:
        try:
            hook = where.dispatch(annotation)
        except TypeError:  # not hashable
            hook = where.dispatch_without_caching(annotation)
        return None if hook in usual else hook

    def look_up_structure(annotation: Any) -> Any:
        for union, hook in unions.items():
            if union == annotation:
                return hook
        return look_up(structure, annotation)

    return (lambda annotation: look_up(unstructure, annotation)), look_up_structure
