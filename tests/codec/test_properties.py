"""The promise, for any value of any type: it comes back as it was, or it was refused."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, NotRequired, TypedDict, TypeVar, Union
from uuid import UUID

import attrs
import pydantic
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stepwell.codec import Codec
from stepwell.commands import UNSET
from stepwell.errors import CodecError

T = TypeVar("T")
CODEC = Codec()
Name = NewType("Name", str)


class Colour(enum.Enum):
    RED = "red"
    BLUE = 3
    PAIR = (1, "x")


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mode(enum.StrEnum):
    FAST = "fast"
    SLOW = "slow"


class Right(enum.Flag):
    READ = 1
    WRITE = 2
    RUN = 4


@attrs.frozen
class Item:
    name: str
    price: float
    count: int | None = None


@attrs.define
class Tree:
    value: int
    children: list[Tree] = attrs.Factory(list)


@attrs.frozen
class Box(Generic[T]):
    content: T


@dataclasses.dataclass
class Order:
    id: UUID
    items: list[Item]
    when: datetime
    notes: dict[int, Decimal]


class Entry(TypedDict):
    name: str
    size: NotRequired[int]


class Place(NamedTuple):
    name: str
    when: date | None


class Model(pydantic.BaseModel):
    name: str
    when: datetime
    numbers: list[int]


# ---- values by annotation

INTS = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
OFFSETS = st.integers(-1439, 1439).map(lambda m: timezone(timedelta(minutes=m)))
NAIVE = st.datetimes().map(lambda when: when.replace(fold=0))  # another fold is refused
MOMENTS = NAIVE | st.datetimes(timezones=st.just(UTC) | OFFSETS)
ITEMS = st.builds(Item, TEXT, FLOATS, st.none() | INTS)
TREES: st.SearchStrategy[Tree] = st.deferred(lambda: st.builds(Tree, INTS, st.lists(TREES, max_size=2)))

KEYS: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXT,
    int: INTS,
    bool: st.booleans(),
    float: FLOATS,
    UUID: st.uuids(),
    date: st.dates(),
    datetime: NAIVE,
    timedelta: st.timedeltas(),
    Decimal: st.decimals(allow_nan=False, allow_infinity=False),
    bytes: st.binary(max_size=6),
    PurePosixPath: TEXT.filter(lambda t: "\0" not in t).map(PurePosixPath),
    Mode: st.sampled_from(Mode),
    Level: st.sampled_from(Level),
    Name: TEXT.map(Name),
    Annotated[int, "number"]: INTS,
    Literal["a", 1]: st.sampled_from(["a", 1]),
}
LEAVES: dict[Any, st.SearchStrategy[Any]] = {
    **KEYS,
    type(None): st.none(),
    datetime: MOMENTS,
    time: st.times().map(lambda when: when.replace(fold=0)) | st.times(timezones=OFFSETS),
    bytearray: st.binary(max_size=6).map(bytearray),
    Path: TEXT.filter(lambda t: "\0" not in t).map(Path),
    Colour: st.sampled_from(Colour),
    Right: st.integers(0, 7).map(Right),
    Item: ITEMS,
    Tree: TREES,
    Order: st.builds(
        Order, st.uuids(), st.lists(ITEMS, max_size=2), MOMENTS, st.dictionaries(INTS, KEYS[Decimal], max_size=2)
    ),
    Entry: st.fixed_dictionaries({"name": TEXT}, optional={"size": INTS}),
    Place: st.builds(Place, TEXT, st.none() | st.dates()),
    Model: st.builds(
        Model,
        name=TEXT,
        when=st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
        numbers=st.lists(INTS, max_size=2),
    ),
}
Typed = tuple[Any, st.SearchStrategy[Any]]


def containers(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    """Types made of other types, with the values that belong to them."""
    keys = st.sampled_from(list(KEYS.items()))
    tuples: Any = tuple  # types are made at run time here, which type checkers can't follow
    lists: Any = list
    dicts: Any = dict
    sets: Any = set
    frozensets: Any = frozenset
    sequences: Any = Sequence
    mappings: Any = Mapping
    boxes: Any = Box
    return st.one_of(
        inner.map(lambda t: (lists[t[0]], st.lists(t[1], max_size=3))),
        inner.map(lambda t: (sequences[t[0]], st.lists(t[1], max_size=3))),
        inner.map(lambda t: (tuples[t[0], ...], st.lists(t[1], max_size=3).map(tuple))),
        st.tuples(inner, inner).map(lambda p: (tuples[p[0][0], p[1][0]], st.tuples(p[0][1], p[1][1]))),
        st.tuples(keys, inner).map(lambda p: (dicts[p[0][0], p[1][0]], st.dictionaries(p[0][1], p[1][1], max_size=3))),
        inner.map(lambda t: (mappings[str, t[0]], st.dictionaries(TEXT, t[1], max_size=3))),
        keys.map(lambda k: (sets[k[0]], st.sets(k[1], max_size=3))),
        keys.map(lambda k: (frozensets[k[0]], st.frozensets(k[1], max_size=3))),
        inner.map(lambda t: (t[0] | None if t[0] is not type(None) else t[0], st.none() | t[1])),
        inner.map(lambda t: (boxes[t[0]], t[1].map(Box))),
    )


TYPES: st.SearchStrategy[Typed] = st.recursive(st.sampled_from(list(LEAVES.items())), containers, max_leaves=4)


def identical(a: Any, b: Any) -> bool:
    """Whether two values are equal and of the same classes at every depth; an int may have become its float."""
    if type(a) is int and type(b) is float:
        return a == b
    if type(a) is not type(b):
        return False
    if attrs.has(type(a)) or dataclasses.is_dataclass(a):
        return all(identical(getattr(a, n), getattr(b, n)) for n in type(a).__annotations__)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(identical, a, b))
    if isinstance(a, dict):
        return len(a) == len(b) and all(map(identical, a.items(), b.items()))
    if isinstance(a, (set, frozenset)):
        return len(a) == len(b) and all(any(identical(x, y) for y in b) for x in a)
    if isinstance(a, float):
        return math.copysign(1, a) == math.copysign(1, b) and a == b
    if isinstance(a, Decimal):
        return a.as_tuple() == b.as_tuple()
    if isinstance(a, (datetime, time)):
        return a.isoformat() == b.isoformat()
    return bool(a == b)


@given(TYPES.flatmap(lambda t: st.tuples(st.just(t[0]), t[1])))
@settings(max_examples=400, deadline=None)
def test_a_value_of_a_type_comes_back_as_it_was(case: tuple[Any, Any]) -> None:
    annotation, value = case
    raw = CODEC.encode(value, annotation)
    found = CODEC.decode(raw, annotation)
    assert identical(value, found)
    assert raw == CODEC.encode(found, annotation)
    json.loads(raw.decode("utf-8", "strict"), parse_constant=float.fromhex)  # any parser reads it


@given(TYPES.flatmap(lambda t: st.tuples(st.just(t[0]), TYPES.flatmap(lambda o: o[1]))))
@settings(max_examples=400, deadline=None)
@example((list[int], [True]))
@example((float, 2**53 + 1))
@example((dict[str, Any], {1: 2}))
def test_a_value_of_any_other_type_comes_back_as_it_was_or_is_refused(case: tuple[Any, Any]) -> None:
    """What a step returns is not always what it says."""
    annotation, value = case
    try:
        raw = CODEC.encode(value, annotation)
    except CodecError:
        return
    assert identical(value, CODEC.decode(raw, annotation))


@given(
    st.lists(TYPES, min_size=2, max_size=4).flatmap(
        lambda types: st.tuples(
            st.permutations([t[0] for t in types]), st.permutations([t[0] for t in types]), types[0][1]
        )
    )
)
@settings(max_examples=300, deadline=None)
def test_a_member_of_a_union_comes_back_as_it_was_or_is_refused_whatever_the_order(
    case: tuple[list[Any], list[Any], Any],
) -> None:
    """`int | float == float | int`, so an order that mattered would be the order of whoever asked first."""
    found: list[bytes | None] = []
    for order in case[:2]:
        codec, annotation = Codec(), Union[tuple(order)]  # noqa: UP007 - made at run time
        try:
            raw = codec.encode(case[2], annotation)
        except CodecError:
            found.append(None)
        else:
            assert identical(case[2], codec.decode(raw, annotation))
            found.append(raw)
    assert found[0] == found[1]


SHAPES = st.recursive(
    st.none() | st.booleans() | INTS | FLOATS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=15,
)


@given(SHAPES)
def test_json_shapes_need_no_type(shape: Any) -> None:
    for annotation in (UNSET, Any, object):
        raw = CODEC.encode(shape, annotation)
        assert identical(shape, CODEC.decode(raw, annotation))
        assert identical(shape, json.loads(raw))
    assert ["b", "a"] == list(json.loads(CODEC.encode({"b": shape, "a": shape})))


ODD = st.recursive(
    SHAPES
    | st.floats()
    | st.integers()
    | st.text(st.characters(), max_size=4)
    | st.binary(max_size=3)
    | MOMENTS
    | st.sampled_from([Colour.RED, Mode.FAST, object(), Item, len, 1j, ...])
    | ITEMS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(TEXT | INTS | st.none(), inner, max_size=3)
        | st.sets(st.integers() | TEXT, max_size=2)
    ),
    max_leaves=8,
)


@given(ODD, st.sampled_from([UNSET, *LEAVES, list[Any], dict[str, Any], Box[Any], tuple[Any, ...], set[Any]]))
@settings(max_examples=400)
def test_anything_at_all_comes_back_as_it_was_or_is_refused_with_a_place(value: Any, annotation: Any) -> None:
    try:
        raw = CODEC.encode(value, annotation)
    except CodecError as error:
        assert error.path.startswith("$") and error.path in error.message  # noqa: PT017, PT018 - nothing else may come
    else:
        assert identical(value, CODEC.decode(raw, annotation))


@given(SHAPES, TYPES)
@settings(max_examples=400, deadline=None)
def test_what_a_stranger_sends_fits_the_type_or_is_refused(shape: Any, typed: Typed) -> None:
    raw = CODEC.encode(shape)
    try:
        value = CODEC.decode(raw, typed[0])
    except CodecError as error:
        assert error.path.startswith("$")  # noqa: PT017 - either outcome is fine, but no other
    else:
        again = CODEC.encode(value, typed[0])
        assert identical(value, CODEC.decode(again, typed[0]))
