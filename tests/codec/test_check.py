"""A type whose values can't be decoded is refused before the step is called."""

from __future__ import annotations

import abc
import collections
import dataclasses
import re
import typing
from collections.abc import Awaitable, Callable, Generator, Iterator
from typing import Annotated, Any, Generic, Literal, NamedTuple, NoReturn, Protocol, TypedDict, TypeVar

import attrs
import pytest

from stepwell.codec import Codec
from stepwell.commands import UNSET
from stepwell.errors import CodecError

T = TypeVar("T")


class Plain:
    pass


class Base(abc.ABC):
    @abc.abstractmethod
    def run(self) -> None: ...


class Proto(Protocol):
    x: int


@attrs.frozen
class Holder:
    name: str
    call: Callable[[], int]


@dataclasses.dataclass
class Deep:
    holders: dict[str, list[Holder]]


class Row(NamedTuple):
    plain: Plain


class Typed(TypedDict):
    plain: Plain


class Text(str):
    __slots__ = ()


@attrs.frozen
class Box(Generic[T]):
    content: T


@attrs.frozen
class Nest(Generic[T]):
    """Holds itself with ever other parameters."""

    content: T
    more: Nest[list[T]] | None = None


@attrs.frozen
class Unresolved:
    x: Missing  # type: ignore[name-defined]  # noqa: F821


class UnresolvedRow(NamedTuple):
    x: Missing  # type: ignore[name-defined]  # noqa: F821


@dataclasses.dataclass
class UnresolvedData:
    x: Missing  # type: ignore[name-defined]  # noqa: F821


@attrs.define
class Recursive:
    children: dict[str, Recursive] = attrs.Factory(dict)
    parent: Recursive | None = None


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (Plain, "a Plain can't be made from JSON"),
        (Base, "Base"),
        (Proto, "Proto"),
        (Callable, "Callable"),
        (Callable[[int], str], "Callable"),
        (type, "type"),
        (type[int], "type"),
        (Exception, "Exception"),
        (complex, "complex"),
        (memoryview, "memoryview"),
        (re.Pattern, "Pattern"),
        (Iterator[int], "Iterator"),
        (Generator[int, None, None], "Generator"),
        (Awaitable[int], "Awaitable"),
        (collections.OrderedDict[str, int], "OrderedDict"),
        (collections.defaultdict, "defaultdict"),
        (collections.Counter[str], "Counter"),
        (collections.deque[int], "deque"),
        (Text, "Text"),
        (typing.Hashable, "Hashable"),
        (typing.Self, "Self"),
        (list[Plain], "Plain"),
        (dict[str, Plain], "Plain"),
        (dict[Plain, str], "Plain"),
        (tuple[int, Plain], "Plain"),
        (tuple[int, *tuple[str, ...]], "unpacked"),
        (Plain | None, "Plain"),
        (int | Plain, "Plain"),
        (Annotated[Plain, 1], "Plain"),
        (Box[Plain], "Plain"),
        (Box[Box[Plain]], "Plain"),
        (Box[list[Box[Plain]]], "Plain"),
        (Holder, "Callable"),
        (Deep, "Callable"),
        (Row, "Plain"),
        (Typed, "Plain"),
        ("int", "'int'"),
        (list["Plain"], "'Plain'"),
        (5, "5"),
        (print, "print"),
        (Unresolved, "Missing"),
        (UnresolvedRow, "Missing"),
        (UnresolvedData, "Missing"),
        (list[Unresolved], "Missing"),
    ],
)
def test_what_can_not_be_decoded_is_refused_with_the_part_at_fault(annotation: Any, reason: str) -> None:
    codec = Codec()
    for call in (codec.check, codec.check, lambda a: codec.encode(None, a), lambda a: codec.decode(b"null", a)):
        with pytest.raises(CodecError) as caught:
            call(annotation)
        assert reason in caught.value.message
        assert "can't be decoded" in caught.value.message
        assert "$" == caught.value.path


@pytest.mark.parametrize(
    "annotation",
    [
        Any,
        UNSET,
        object,
        None,
        NoReturn,
        typing.Never,
        typing.LiteralString,
        typing.Final[int],
        T,
        Recursive,
        list[Recursive],
        Box,
        Nest[int],
        Annotated[int, []],
        list[Annotated[int, []]],
        Literal["a", None, True],  # noqa: PYI061 - people write it
        typing.Union[int, str, None],  # noqa: UP007
        typing.Dict,  # noqa: UP006
        typing.Sequence,
    ],
    ids=repr,
)
def test_what_can_be_decoded_passes(annotation: Any) -> None:
    Codec().check(annotation)


def test_an_annotation_that_can_not_be_hashed_works_as_well() -> None:
    codec = Codec()
    annotation = list[Annotated[int, ["unhashable"]]]
    assert [1, 2] == codec.decode(codec.encode([1, 2], annotation), annotation)
    with pytest.raises(CodecError):
        codec.encode(["a"], annotation)


def test_a_class_that_holds_itself_with_other_parameters_works() -> None:
    codec = Codec()
    value = Nest(1, Nest([2], Nest([[3]])))
    assert value == codec.decode(codec.encode(value, Nest[int]), Nest[int])
    with pytest.raises(CodecError):
        codec.encode(Nest(1, Nest(2)), Nest[int])  # type: ignore[arg-type]


def test_a_refusal_is_no_verdict_for_other_types() -> None:
    """Parts that were being made when it was found are made anew."""
    codec = Codec()
    with pytest.raises(CodecError):
        codec.check(Deep)
    with pytest.raises(CodecError):
        codec.check(list[Holder])
    codec.check(list[str])
