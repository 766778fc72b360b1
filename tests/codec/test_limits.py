"""What a history can't hold is refused with the place, the reason and the remedy, before anything is written."""

from __future__ import annotations

import collections
import dataclasses
import enum
import sys
from datetime import UTC, datetime, time
from decimal import Decimal
from functools import cached_property, partial
from typing import Any, Generic, TypeVar

import attrs
import pytest

from stepwell.codec import Codec
from stepwell.commands import UNSET
from stepwell.errors import CodecError

T = TypeVar("T")


class Plain:
    pass


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Stamp(datetime):
    pass


class Kind(enum.StrEnum):
    A = "a"


@attrs.define
class Node:
    next: Any = None
    price: float = 0.0


@attrs.define
class Base:
    x: int = 0


@attrs.define
class Derived(Base):
    pass


@attrs.frozen
class Upper:
    name: str = attrs.field(converter=lambda text: text + "!")


@attrs.define(slots=False)
class Computed:
    x: int
    double: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.double = self.x * 2


@dataclasses.dataclass
class Partial:
    x: int
    y: dataclasses.InitVar[int] = 1
    z: int = dataclasses.field(init=False, default=0)


@attrs.define(eq=False)
class Unequal:
    x: int


@dataclasses.dataclass
class Open:
    x: int

    @cached_property
    def double(self) -> int:
        return 2 * self.x


@attrs.frozen(slots=False, cache_hash=True)
class Closed:
    x: int

    @cached_property
    def double(self) -> int:
        return 2 * self.x


@dataclasses.dataclass
class Derives:
    x: int

    def __post_init__(self) -> None:
        self.double = 2 * self.x
        self.lock = object()


@dataclasses.dataclass
class Box(Generic[T]):
    x: T


def refusal(value: Any, annotation: Any = UNSET, codec: Codec | None = None) -> CodecError:
    with pytest.raises(CodecError) as caught:
        (codec or Codec()).encode(value, annotation)
    assert caught.value.message.startswith(caught.value.path) or f" {caught.value.path}:" in caught.value.message
    return caught.value


def loop() -> dict[str, Any]:
    value: dict[str, Any] = {"items": [1]}
    value["items"].append({"back": value})
    return value


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "path", "reason"),
    [
        (loop(), "$.items[1].back", "contains itself"),
        ([float("nan")], "$[0]", "nan is no JSON number"),
        ({"a": float("inf")}, "$.a", "inf is no JSON number"),
        (float("-inf"), "$", "-inf is no JSON number"),
        ([2**63], "$[0]", "beyond 64 bits"),
        ({"a": [-(2**63) - 1]}, "$.a[0]", "beyond 64 bits"),
        (["ok", {"k": "\ud800"}], "$[1].k", "lone surrogate"),
        ({"a": {"\udcff": 1}}, "$.a['\\udcff']", "lone surrogate"),
        ({"a": {1: 2}}, "$.a['1']", "not text"),
        ({None: 1}, "$.None", "not text"),
        ({"a": (1,)}, "$.a", "a tuple is no JSON shape"),
        ([{1}], "$[0]", "a set is no JSON shape"),
        ([b"a"], "$[0]", "a bytes is no JSON shape"),
        ({"items": [1, 2, 3, {"price": Decimal(1)}]}, "$.items[3].price", "a Decimal is no JSON shape"),
        (datetime(2026, 1, 1, tzinfo=UTC), "$", "a datetime is no JSON shape"),
        (Kind.A, "$", "a Kind is no JSON shape"),
        (Text("a"), "$", "a Text is no JSON shape"),
        (Number(1), "$", "a Number is no JSON shape"),
        (collections.OrderedDict(a=1), "$", "an OrderedDict is no JSON shape"),
        (Plain(), "$", "a Plain is no JSON shape"),
        (Plain, "$", "a type is no JSON shape"),
        (print, "$", "no JSON shape"),
        (object(), "$", "an object is no JSON shape"),
        (1j, "$", "a complex is no JSON shape"),
        ((i for i in (1,)), "$", "a generator is no JSON shape"),
        (nested(101), "$" + "[0]" * 100, "deeper than 100 levels"),
    ],
)
def test_a_value_that_is_no_json_is_refused(value: Any, path: str, reason: str) -> None:
    for annotation in (UNSET, Any):
        error = refusal(value, annotation)
        assert path == error.path
        assert reason in error.message


def test_an_int_of_thousands_of_digits_is_refused() -> None:
    """Python itself refuses to write it as text."""
    assert "beyond 64 bits" in refusal(10**5000).message
    assert "beyond 64 bits" in refusal({10**5000: 1}, dict[int, int]).message


@pytest.mark.parametrize("value", [(1, 2), {"a": {1, 2}}, Node(), Kind.A, [Node()]])
def test_without_a_type_the_text_names_the_remedy(value: Any) -> None:
    assert ".options(into=" in refusal(value).message
    assert "annotate the function" in refusal(value).message


def test_the_class_itself_is_named_as_the_remedy() -> None:
    assert ".options(into=Node)" in refusal(Node()).message


@pytest.mark.parametrize(
    ("value", "annotation", "path", "reason"),
    [
        (Node(price=float("nan")), Node, "$.price", "no JSON number"),
        (Node(next=[2**64]), Node, "$.next[0]", "beyond 64 bits"),
        (Node(next={"a": "\ud800"}), Node, "$.next.a", "lone surrogate"),
        (Node(next={(1, 2): 1}), Node, "$.next['(1, 2)']", "not text"),
        ({1: "a", "1": "b"}, dict[Any, str], "$['1']", "both written '1'"),
        ({True: "b", "true": "c"}, dict[Any, str], "$.true", "both written 'true'"),
        ({None: 1}, dict[None, int], "$.None", "not text"),
        ({float("nan"): 1}, dict[float, int], "$.nan", "no JSON number"),
        ({"\ud800"}, set[str], "$", "lone surrogate"),
        (Node(next=Plain()), Node, "$.next", "no JSON form"),
        (Node(next=Node()), Node, "$.next", "comes back as a dict"),
        (Node(next=Text("a")), Node, "$.next", "subclass of str"),
        (Text("a"), str, "$", "subclass of str"),
        (Number(1), int, "$", "subclass of int"),
        (Stamp(2026, 1, 1), datetime, "$", "subclass of datetime"),
        (collections.OrderedDict(a=1), dict[str, int], "$", "subclass of dict"),
        (collections.defaultdict(int, a=1), dict[str, int], "$", "subclass of dict"),
        (collections.Counter("ab"), dict[str, int], "$", "subclass of dict"),
        (True, list[int], "$", "expected a list"),
        (Decimal("NaN"), Decimal, "$", "NaN and infinity"),
        (datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None, fold=1), datetime, "$", "fold=1 without a time zone"),
        ({time(1, fold=1): 1}, dict[time, int], "$['01:00:00']", "fold=1 without a time zone"),
        (Node(next=[time(1, fold=1)]), Node, "$.next[0]", "fold=1 without a time zone"),
        ([Decimal("Infinity")], list[Decimal], "$[0]", "NaN and infinity"),
        (Derived(), Base, "$", "a Derived comes back as a Base"),
        ([Derived()], list[Base], "$[0]", "a Derived comes back as a Base"),
        (Upper("a"), Upper, "$.name", "a str comes back different"),
        (attrs.evolve(Node(), next=(1,)), Node, "$.next", "a tuple comes back as a list"),
        (nested(101), list[Any], "$" + "[0]" * 100, "deeper than 100 levels"),
    ],
)
def test_a_value_that_would_not_come_back_is_refused(value: Any, annotation: Any, path: str, reason: str) -> None:
    error = refusal(value, annotation)
    assert path == error.path
    assert reason in error.message


def test_a_cycle_through_classes_is_found() -> None:
    node = Node()
    node.next = [node]
    error = refusal(node, Node)
    assert "$.next[0]" == error.path
    assert "contains itself" in error.message


def test_the_same_object_twice_is_no_cycle() -> None:
    shared = [1]
    assert b'{"a":[1],"b":[1]}' == Codec().encode({"a": shared, "b": shared})


def test_fields_that_are_no_arguments_must_follow_from_those_that_are() -> None:
    codec = Codec()
    assert Computed(2) == codec.decode(codec.encode(Computed(2), Computed), Computed)
    changed = Computed(2)
    changed.double = 5
    assert "$.double" == refusal(changed, Computed).path
    assert Partial(1) == codec.decode(codec.encode(Partial(1), Partial), Partial)
    part = Partial(1)
    part.z = 7
    assert "$.z" == refusal(part, Partial).path


@pytest.mark.parametrize("value", [Open(1), Closed(1), Derives(1), Box(1)])
def test_an_attribute_that_is_no_field_is_refused(value: Any) -> None:
    """It would vanish, since only fields are written."""
    object.__setattr__(value, "extra", 3)
    for annotation, there, path in ((type(value), value, "$.extra"), (list[type(value)], [value], "$[0].extra")):  # type: ignore[misc]
        error = refusal(there, annotation)
        assert path == error.path
        assert f"is no field of {type(value).__name__} and would be lost" in error.message


@pytest.mark.parametrize("value", [Open(1), Closed(1)])
def test_what_a_cached_property_keeps_may_be_dropped(value: Any) -> None:
    assert 2 == value.double
    if isinstance(value, Closed):
        hash(value)
    assert b'{"x":1}' == Codec().encode(value, type(value))


def test_an_attribute_that_the_class_makes_again_must_be_the_same() -> None:
    """What has no equality, such as a lock, passes."""
    value = Derives(1)
    assert b'{"x":1}' == Codec().encode(value, Derives)
    value.double = 3
    error = refusal(value, Derives)
    assert "$.double" == error.path
    assert "comes back different" in error.message


def test_what_typing_keeps_in_a_generic_object_is_no_loss() -> None:
    assert b'{"x":1}' == Codec().encode(Box[int](1), Box[int])


def test_a_class_without_equality_is_compared_by_its_fields() -> None:
    codec = Codec()
    assert 3 == codec.decode(codec.encode(Unequal(3), Unequal), Unequal).x


def test_a_field_that_was_never_set_is_told() -> None:
    empty = Computed.__new__(Computed)
    error = refusal(empty, Computed)
    assert "$.x: was never set" in error.message


def test_the_limits_can_be_set() -> None:
    codec = Codec(max_bytes=10, max_depth=2)
    assert b'"12345678"' == codec.encode("12345678")
    assert "11 bytes of JSON, and one value may take 10" in refusal("123456789", codec=codec).message
    assert "11 bytes" in refusal("123456789", str, codec=codec).message
    assert "13 bytes" in refusal(["123456789"], list[str], codec=codec).message
    assert [[1]] == codec.decode(codec.encode([[1]]))
    assert "deeper than 2 levels" in refusal([[[1]]], codec=codec).message
    with pytest.raises(CodecError, match="11 bytes"):
        codec.decode(b'"123456789"', str)
    with pytest.raises(CodecError, match="deeper than 2 levels"):
        codec.decode(b"[[[1]]]")


def test_a_mebibyte_and_a_hundred_levels_are_the_limits() -> None:
    """Shows S20 (P7)."""
    codec = Codec()
    assert (1 << 20) == len(codec.encode("a" * ((1 << 20) - 2)))
    assert "$" == refusal("a" * ((1 << 20) - 1)).path
    assert nested(100) == codec.decode(codec.encode(nested(100)))
    assert nested(100) == codec.decode(codec.encode(nested(100), list[Any]), list[Any])


def test_a_stack_that_is_nearly_full_gives_no_recursion_error() -> None:
    codec = Codec()
    raw = codec.encode(nested(100))

    def low(depth: int, call: Any) -> Any:
        return call() if depth == 0 else low(depth - 1, call)

    room = sys.getrecursionlimit() - 150
    for call in (
        partial(codec.encode, nested(100)),
        partial(codec.encode, nested(100), list[Any]),
        partial(codec.decode, raw, list[Any]),
        partial(codec.decode, raw),
        partial(codec.digest, nested(100)),
    ):
        try:
            low(room, call)
        except CodecError as error:
            assert "$" == error.path  # noqa: PT017 - either outcome is fine, but no other


def test_an_error_while_a_field_is_read_is_a_codec_error() -> None:
    class Broken(Decimal):
        pass

    @attrs.define
    class Lazy:
        x: int = 0

        def __getattribute__(self, name: str) -> Any:
            if name == "x":
                raise OSError("gone")
            return super().__getattribute__(name)

    assert "OSError: gone" in refusal(Lazy(), Lazy).message
    assert "subclass of Decimal" in refusal(Broken(1), Decimal).message
