"""What comes back from JSON is what went in, class by class."""

from __future__ import annotations

import dataclasses
import enum
import typing
from collections.abc import Collection, Iterable, Mapping, MutableMapping, MutableSequence, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, NotRequired, Optional, TypedDict, TypeVar
from uuid import UUID

import attrs
import msgspec
import pytest

from stepwell.codec import Codec
from stepwell.commands import UNSET
from stepwell.errors import CodecError

T = TypeVar("T")
K = TypeVar("K")
N = TypeVar("N", bound=int)
C = TypeVar("C", str, int)

UserId = NewType("UserId", str)
Percent = Annotated[int, "0 to 100"]


class Colour(enum.Enum):
    RED = "red"
    NONE = None
    MIXED = (1, "b")


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mode(enum.StrEnum):
    FAST = "fast"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


@attrs.frozen
class Item:
    name: str
    price: float = 1.0


@attrs.define
class Tree:
    value: int
    children: list[Tree] = attrs.Factory(list)
    best: Tree | None = None


@attrs.define(kw_only=True)
class Account:
    _secret: str
    owner: UserId
    level: Level = Level.LOW
    tags: frozenset[str] = frozenset()
    total: int = attrs.field(init=False, default=0)
    kind: typing.ClassVar[str] = "account"


@dataclasses.dataclass
class Order:
    id: UUID
    items: list[Item]
    when: datetime | None = None
    by_day: dict[date, Decimal] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Point(Generic[T]):
    x: T
    y: T


@attrs.frozen
class Box(Generic[T]):
    content: T


@attrs.frozen
class Pair(Generic[K, T]):
    key: K
    boxes: list[Box[T]]


@attrs.frozen
class IntBox(Box[int]):
    label: str = ""


@attrs.frozen
class Bounded(Generic[N, C]):
    number: N
    name: C


class Entry(TypedDict):
    name: str
    size: NotRequired[int]


class Loose(TypedDict, total=False):
    when: date
    inner: Entry


class Folder(TypedDict):
    name: str
    folders: list[Folder]


class Place(NamedTuple):
    name: str
    when: date
    tags: list[str] = []  # noqa: RUF012 - a NamedTuple's default


class Chain(NamedTuple):
    value: int
    rest: Chain | None = None


class Twin(NamedTuple, Generic[T]):
    left: T
    right: list[T]


class Zone(tzinfo):
    """A zone whose offset depends on `fold`, as at the end of summer time."""

    def utcoffset(self, when: datetime | None) -> timedelta:
        return timedelta(hours=2 if when is None or not when.fold else 1)

    def dst(self, when: datetime | None) -> timedelta:
        return timedelta(0)

    def tzname(self, when: datetime | None) -> str:
        return "somewhere"


NOON = datetime(2026, 3, 1, 12, 30, 15, 250, tzinfo=UTC)
ITEM = Item("pen", 2.5)

CASES: list[tuple[Any, Any, str | None]] = [
    (None, None, "null"),
    (None, type(None), "null"),
    (True, bool, "true"),
    (0, int, "0"),
    (2**63 - 1, int, "9223372036854775807"),
    (-(2**63), int, "-9223372036854775808"),
    (0.1, float, "0.1"),
    (1e300, float, "1e300"),
    (5e-324, float, "5e-324"),
    ("", str, '""'),
    ("é😀\x00\n", str, '"é😀\\u0000\\n"'),
    ("x", UserId, '"x"'),
    (7, Percent, "7"),
    ("a", Literal["a", 1], '"a"'),
    (1, Literal["a", 1], "1"),
    (True, Literal[True, "x"], "true"),
    (Mode.FAST, Literal[Mode.FAST], '"fast"'),
    (b"\x00\xff", bytes, '"AP8="'),
    (bytearray(b"ab"), bytearray, '"YWI="'),
    (NOON, datetime, '"2026-03-01T12:30:15.000250+00:00"'),
    (datetime(2026, 3, 1), datetime, '"2026-03-01T00:00:00"'),  # noqa: DTZ001 - naive stays naive
    (datetime.min, datetime, '"0001-01-01T00:00:00"'),  # noqa: DTZ901
    (NOON.astimezone(timezone(timedelta(hours=-3, minutes=-30))), datetime, '"2026-03-01T09:00:15.000250-03:30"'),
    (date(2026, 3, 1), date, '"2026-03-01"'),
    (time(9, 5), time, '"09:05:00"'),
    (time(9, 5, tzinfo=UTC), time, '"09:05:00+00:00"'),
    (timedelta(days=1, seconds=2, microseconds=3), timedelta, '"P1DT2.000003S"'),
    (timedelta(microseconds=-1), timedelta, '"-PT0.000001S"'),
    (timedelta.max, timedelta, '"P999999999DT86399.999999S"'),
    (timedelta.min, timedelta, '"-P999999999D"'),
    (UUID(int=1), UUID, '"00000000-0000-0000-0000-000000000001"'),
    (Decimal("1.50"), Decimal, '"1.50"'),
    (Decimal("-0E-10"), Decimal, '"-0E-10"'),
    (Decimal("1E+30"), Decimal, '"1E+30"'),
    (Path("a/b"), Path, '"a/b"'),
    (PurePosixPath("/x"), PurePosixPath, '"/x"'),
    (PureWindowsPath("c:/x"), PureWindowsPath, '"c:\\\\x"'),
    (PurePath("x"), PurePath, '"x"'),
    (Colour.RED, Colour, '"red"'),
    (Colour.NONE, Colour, "null"),
    (Colour.MIXED, Colour, '[1,"b"]'),
    (Level.HIGH, Level, "2"),
    (Mode.FAST, Mode, '"fast"'),
    (Right.READ | Right.WRITE, Right, "3"),
    (Right(0), Right, "0"),
    ([1, 2], list[int], "[1,2]"),
    ([1, "a", None], list, '[1,"a",null]'),
    ([[1], []], list[list[int]], "[[1],[]]"),
    ([ITEM], Sequence[Item], '[{"name":"pen","price":2.5}]'),
    ([1], MutableSequence[int], "[1]"),
    ([1], Iterable[int], "[1]"),
    ([1], Collection[int], "[1]"),
    ([1], typing.List[int], "[1]"),  # noqa: UP006 - people still write it
    ((1, "a"), tuple[int, str], '[1,"a"]'),
    ((1, 2, 3), tuple[int, ...], "[1,2,3]"),
    ((), tuple[()], "[]"),
    ((), tuple[int, ...], "[]"),
    ((1, "a"), tuple, '[1,"a"]'),
    ((1, (2,)), typing.Tuple[int, tuple[int]], "[1,[2]]"),  # noqa: UP006
    ({3, 1, 2}, set[int], "[1,2,3]"),
    ({"b", "a"}, set, '["a","b"]'),
    (frozenset({(2, 1), (1, 2)}), frozenset[tuple[int, int]], "[[1,2],[2,1]]"),
    ({UserId("a")}, AbstractSet[UserId], '["a"]'),
    ({"b": 1, "a": 2}, dict[str, int], '{"b":1,"a":2}'),
    ({"b": 1}, Mapping[str, int], '{"b":1}'),
    ({"b": 1}, MutableMapping, '{"b":1}'),
    ({1: "a", -2: "b"}, dict[int, str], '{"1":"a","-2":"b"}'),
    ({True: 1}, dict[bool, int], '{"true":1}'),
    ({1.5: 1, -0.0: 2}, dict[float, int], '{"1.5":1,"-0.0":2}'),
    ({Level.LOW: 1}, dict[Level, int], '{"1":1}'),
    ({Colour.RED: 1}, dict[Colour, int], '{"red":1}'),
    ({UUID(int=2): 1}, dict[UUID, int], '{"00000000-0000-0000-0000-000000000002":1}'),
    ({date(2026, 1, 2): 1}, dict[date, int], '{"2026-01-02":1}'),
    ({b"a": 1}, dict[bytes, int], '{"YQ==":1}'),
    ({Path("a"): 1}, dict[Path, int], '{"a":1}'),
    ({1: 1}, dict[Literal[1, "b"], int], '{"1":1}'),
    ({"true": 1, "1": 2}, dict[str, int], '{"true":1,"1":2}'),
    (ITEM, Item, '{"name":"pen","price":2.5}'),
    (Tree(1, [Tree(2)], Tree(3)), Tree, None),
    (Account(secret="s", owner=UserId("o"), tags=frozenset({"b", "a"})), Account, None),
    (Order(UUID(int=1), [ITEM], NOON, {date(2026, 1, 1): Decimal("1.0")}), Order, None),
    (Point(1, 2), Point[int], '{"x":1,"y":2}'),
    (Point(date(2026, 1, 1), date(2026, 1, 2)), Point[date], '{"x":"2026-01-01","y":"2026-01-02"}'),
    (Box(Box((1,))), Box[Box[tuple[int]]], '{"content":{"content":[1]}}'),
    (Box([1, {"a": None}]), Box, '{"content":[1,{"a":null}]}'),
    (Pair(1, [Box("a")]), Pair[int, str], '{"key":1,"boxes":[{"content":"a"}]}'),
    (Box(1), Box[Annotated[int, "more than a name"] | None], '{"content":1}'),
    (IntBox(1, "a"), IntBox, '{"content":1,"label":"a"}'),
    (Bounded(1, "a"), Bounded, '{"number":1,"name":"a"}'),
    ({"name": "a"}, Entry, '{"name":"a"}'),
    ({"name": "a", "size": 1}, Entry, '{"name":"a","size":1}'),
    ({}, Loose, "{}"),
    ({"inner": {"name": "a"}, "when": date(2026, 1, 1)}, Loose, '{"inner":{"name":"a"},"when":"2026-01-01"}'),
    ({"name": "a", "folders": [{"name": "b", "folders": []}]}, Folder, None),
    (Place("a", date(2026, 1, 1), ["x"]), Place, '["a","2026-01-01",["x"]]'),
    (Chain(1, Chain(2)), Chain, "[1,[2,null]]"),
    (Twin(1, [2]), Twin[int], "[1,[2]]"),
    (None, int | None, "null"),
    (3, Optional[int], "3"),  # noqa: UP045
    ({"a": [1, "x", {"b": None}]}, Any, '{"a":[1,"x",{"b":null}]}'),
    ({"a": [1, "x", {"b": None}]}, UNSET, '{"a":[1,"x",{"b":null}]}'),
    ([1.5], object, "[1.5]"),
    ([None], list[None], "[null]"),
    ({"a": None}, dict[str, None], '{"a":null}'),
    ([None, {"a": ()}], list[dict[str, tuple[()]] | None], '[null,{"a":[]}]'),
]


@pytest.mark.parametrize(("value", "annotation", "text"), CASES)
def test_a_value_comes_back_equal_and_of_its_class(value: Any, annotation: Any, text: str | None) -> None:
    codec = Codec()
    raw = codec.encode(value, annotation)
    found = codec.decode(raw, annotation)
    assert value == found
    assert type(value) is type(found)
    assert (
        "set(" in repr(value) or isinstance(value, set) or repr(value) == repr(found)
    )  # the members of a set print in any order
    assert found == codec.decode(msgspec.Raw(raw), annotation)
    if text is not None:
        assert text == raw.decode()


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_the_sign_of_zero_is_kept(zero: float) -> None:
    """Two zeros are equal and print differently, so a workflow could tell them apart."""
    codec = Codec()
    assert repr([zero, {"a": zero}]) == repr(codec.decode(codec.encode([zero, {"a": zero}])))
    assert repr(zero) == repr(codec.decode(codec.encode(zero, float), float))


@pytest.mark.parametrize("fold", [0, 1])
def test_a_datetime_of_a_zone_keeps_its_instant_and_clock(fold: int) -> None:
    """In the hour that a zone repeats, aware datetimes are never `==` across zones (PEP 495)."""
    codec = Codec()
    when = datetime(2026, 10, 25, 2, 30, tzinfo=Zone(), fold=fold)
    found = codec.decode(codec.encode(when, datetime), datetime)
    assert when.utcoffset() == found.utcoffset()
    assert when.replace(tzinfo=None, fold=0) == found.replace(tzinfo=None)


def test_an_int_where_a_float_is_annotated_comes_back_as_that_float() -> None:
    codec = Codec()
    assert b"1" == codec.encode(1, float)
    assert "1.0" == repr(codec.decode(b"1", float))
    assert "[1.0, 2.5]" == repr(codec.decode(codec.encode([1, 2.5], list[float]), list[float]))
    with pytest.raises(CodecError):
        codec.encode(2**53 + 1, float)  # it would come back as another number


def test_a_default_stands_for_a_key_that_is_missing() -> None:
    codec = Codec()
    assert Item("pen") == codec.decode(b'{"name":"pen"}', Item)
    assert Place("a", date(2026, 1, 1)) == codec.decode(b'["a","2026-01-01"]', Place)


def test_large_nested_lists_are_fine() -> None:
    codec = Codec()
    value = [[i, [str(i)] * 10] for i in range(2000)]
    assert value == codec.decode(codec.encode(value))
    assert value == codec.decode(codec.encode(value, list[list[int | list[str]]]), list[list[int | list[str]]])


def test_a_set_is_written_sorted() -> None:
    """The order of a set of str differs from process to process; the bytes of a history must not."""
    names = {f"name{i}" for i in range(50)}
    assert Codec().encode(sorted(names)) == Codec().encode(names, set[str])


def test_every_decode_makes_its_own_value() -> None:
    codec = Codec()
    raw = codec.encode({"a": [1]})
    codec.decode(raw)["a"].append(2)
    assert {"a": [1]} == codec.decode(raw)


def test_one_codec_serves_many_threads() -> None:
    """The first use of a type makes its hooks, and many threads may be the first."""
    for _ in range(20):
        codec = Codec()
        tree = Tree(1, [Tree(2)], Tree(3))
        order = Order(UUID(int=1), [ITEM], NOON)
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: codec.decode(codec.encode([tree], list[Tree]), list[Tree]), range(16)))  # noqa: B023
            others = list(pool.map(lambda _: codec.decode(codec.encode(order, Order), Order), range(16)))  # noqa: B023
        assert [[tree]] * 16 == found
        assert [order] * 16 == others


def test_importing_the_codec_does_not_import_cattrs() -> None:
    """It takes tens of milliseconds, which a program that only records JSON shapes need not spend."""
    import subprocess
    import sys

    code = (
        "import sys; from stepwell.codec import Codec; c = Codec(); t = list[int | None];"
        "c.decode(c.encode([1, None], t), t); sys.exit('cattrs' in sys.modules)"
    )
    path = {"PYTHONPATH": ":".join(sys.path)}
    assert 0 == subprocess.run([sys.executable, "-c", code], env=path, check=False).returncode
