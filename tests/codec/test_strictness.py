"""Nothing is taken for something else: each JSON form gives one type, and keys are known."""

from __future__ import annotations

import dataclasses
import enum
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn, TypedDict
from uuid import UUID

import attrs
import pytest

from stepwell.codec import Codec
from stepwell.errors import CodecError


class Colour(enum.Enum):
    RED = "red"
    ONE = 1


class Right(enum.Flag):
    READ = 1


@attrs.frozen
class Line:
    name: str
    price: float = 0.0


@attrs.frozen
class Order:
    id: int
    lines: list[Line]
    notes: dict[str, str] = attrs.Factory(dict)


@attrs.frozen
class Positive:
    amount: int = attrs.field(validator=attrs.validators.gt(0))


@dataclasses.dataclass
class Data:
    ready: bool


class Typed(TypedDict):
    ready: bool


class Empty(TypedDict, total=False):
    ready: bool


class Row(NamedTuple):
    ready: bool
    number: int = 0


FORMS = {
    "null": b"null",
    "true": b"true",
    "zero": b"0",
    "one": b"1",
    "float": b"1.0",
    "text": b'"no"',
    "digits": b'"1"',
    "list": b"[]",
    "object": b"{}",
}
TAKES: dict[Any, set[str]] = {
    None: {"null"},
    bool: {"true"},
    int: {"zero", "one"},
    float: {"zero", "one", "float"},
    str: {"text", "digits"},
    Decimal: {"digits"},
    datetime: set(),
    date: set(),
    time: set(),
    timedelta: set(),
    UUID: set(),
    bytes: set(),
    Path: {"text", "digits"},
    list: {"list"},
    list[int]: {"list"},
    list[None]: {"list"},
    dict[str, None]: {"object"},
    tuple[int, ...]: {"list"},
    set[int]: {"list"},
    frozenset: {"list"},
    dict: {"object"},
    dict[str, int]: {"object"},
    tuple[int]: set(),
    Literal[1, "no"]: {"one", "text"},
    Literal[True]: {"true"},
    Colour: {"one"},
    Right: {"zero", "one"},
    Empty: {"object"},
    Row: set(),
    NoReturn: set(),
    int | None: {"null", "zero", "one"},
    bool | str: {"true", "text", "digits"},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("annotation", TAKES, ids=repr)
def test_a_json_form_is_taken_only_by_its_own_types(annotation: Any, form: str) -> None:
    """`{"approved": "no"}` must never become True."""
    codec = Codec()
    if form in TAKES[annotation]:
        codec.decode(FORMS[form], annotation)
    else:
        with pytest.raises(CodecError) as caught:
            codec.decode(FORMS[form], annotation)
        assert "$" == caught.value.path


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("annotation", TAKES, ids=repr)
def test_the_same_holds_for_the_field_of_a_class(annotation: Any, form: str) -> None:
    """Fields go through cattrs, whose own rules would turn text into numbers."""
    cls = attrs.make_class("Holder", {"field": attrs.field(type=annotation if annotation is not None else type(None))})
    codec = Codec()
    raw = b'{"field":' + FORMS[form] + b"}"
    if form in TAKES[annotation]:
        codec.decode(raw, cls)
    else:
        with pytest.raises(CodecError) as caught:
            codec.decode(raw, cls)
        assert "$.field" == caught.value.path


@pytest.mark.parametrize(
    ("text", "annotation"),
    [
        ("2026-03-01", datetime),
        ("20260301T100000", datetime),
        ("2026-03-01T25:00:00", datetime),
        ("2026-02-30T10:00:00", datetime),
        ("2026-03-01T10:00:00+99:00", datetime),
        ("٢026-03-01T10:00:00", datetime),
        ("2026-03-01T10:00:00\n", datetime),
        ("2026-03-01T10:00:00", date),
        ("2026-W01-1", date),
        ("20260301", date),
        ("T10:00", time),
        ("24:00:00", time),
        ("1 day", timedelta),
        ("P1Y", timedelta),
        ("PT", timedelta),
        ("3600", timedelta),
        ("{00000000-0000-0000-0000-000000000001}", UUID),
        ("00000000000000000000000000000001", UUID),
        ("urn:uuid:00000000-0000-0000-0000-000000000001", UUID),
        ("NaN", Decimal),
        ("Infinity", Decimal),
        (" 1", Decimal),
        ("1_000", Decimal),
        ("1e99999999999999999999", Decimal),
        ("", Decimal),
        ("a", bytes),
        ("YQ", bytes),
        ("Y Q = =", bytes),
    ],
)
def test_text_that_was_never_written_so_is_refused(text: str, annotation: Any) -> None:
    codec = Codec()
    with pytest.raises(CodecError, match="expected"):
        codec.decode(codec.encode(text), annotation)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2026-03-01T10:00Z", datetime.fromisoformat("2026-03-01T10:00:00+00:00")),
        ("2026-03-01 10:00:00.5-03:30", datetime.fromisoformat("2026-03-01T10:00:00.500000-03:30")),
        ("PT90M", timedelta(minutes=90)),
        ("P1DT1H", timedelta(days=1, hours=1)),
        ("10:30", time(10, 30)),
        ("1.50", Decimal("1.50")),
    ],
)
def test_what_people_write_by_hand_is_read(text: str, value: Any) -> None:
    codec = Codec()
    assert value == codec.decode(codec.encode(text), type(value))


@pytest.mark.parametrize(
    ("raw", "annotation", "path", "reason"),
    [
        (b'{"id":1}', Order, "$.lines", "is missing"),
        (b'{"id":1,"lines":[],"extra":1}', Order, "$.extra", "unknown key"),
        (b'{"id":1,"lines":[{"name":"a"},{"name":"b","price":"2"}]}', Order, "$.lines[1].price", "expected float"),
        (b'{"id":1,"lines":[{"name":"a","nmae":"b"}]}', Order, "$.lines[0].nmae", "unknown key"),
        (b'{"id":1,"lines":{"0":{"name":"a"}}}', Order, "$.lines", "expected a list, got an object"),
        (b'{"id":1,"lines":[],"notes":{"a b":1}}', Order, "$.notes['a b']", "expected str, got int 1"),
        (b'{"id":true,"lines":[]}', Order, "$.id", "expected int, got true"),
        (b"[[1,2],[3,null]]", list[list[int]], "$[1][1]", "expected int, got null"),
        (b'{"x":[[1,"a"]]}', dict[str, list[tuple[int, int]]], "$.x[0][1]", "expected int"),
        (b"[[1,2,3]]", list[tuple[int, int]], "$[0]", "expected 2 items, got 3"),
        (b'{"x":1}', dict[int, int], "$.x", "expected int, got str 'x'"),
        (b'{"01":1}', dict[int, int], "$['01']", "expected int"),
        (b'{"1":1,"1.0":2}', dict[float, int], "$", "same value"),
        (b"[[1]]", set[list[int]], "$", "hashable"),
        (b'{"amount":0}', Positive, "$", "must be > 0"),
        (b'{"ready":1}', Data, "$.ready", "expected bool, got int 1"),
        (b'{"ready":true,"x":1}', Data, "$.x", "unknown key"),
        (b"{}", Data, "$.ready", "is missing"),
        (b'{"ready":"yes"}', Typed, "$.ready", "expected bool"),
        (b'{"ready":true,"x":1}', Typed, "$.x", "unknown key"),
        (b"{}", Typed, "$.ready", "is missing"),
        (b"[true,1,2]", Row, "$", "expected 2 items, got 3"),
        (b"[]", Row, "$", "expected 2 items, got 0"),
        (b'[{"id":1}]', list[Order], "$[0].lines", "is missing"),
    ],
)
def test_a_misfit_is_told_with_its_place(raw: bytes, annotation: Any, path: str, reason: str) -> None:
    with pytest.raises(CodecError) as caught:
        Codec().decode(raw, annotation)
    assert path == caught.value.path
    assert path in caught.value.message
    assert reason in caught.value.message


def test_at_most_three_problems_are_listed() -> None:
    with pytest.raises(CodecError) as caught:
        Codec().decode(b'{"id":"a","lines":1,"notes":2,"x":3,"y":4}', Order)
    assert "$.id" == caught.value.path
    assert (
        "no Order: $.id: expected int, got str 'a'; $.lines: expected a list, got int 1; "
        "$.notes: expected an object, got int 2; and 2 more"
    ) == caught.value.message


@pytest.mark.parametrize(
    ("value", "annotation", "path"),
    [
        ("1", int, "$"),
        (1, str, "$"),
        (True, int, "$"),
        (1, bool, "$"),
        (None, int, "$"),
        (1.0, int, "$"),
        (True, float, "$"),
        ([1, "a"], list[int], "$[1]"),
        ((1, 2), list[int], "$"),
        ([1, 2], tuple[int, int], "$"),
        ((1, 2), tuple[int, int, int], "$"),
        ((1,), list, "$"),
        ({1}, frozenset[int], "$"),
        ([{1}], list[Any], "$[0]"),
        ({"a": (1,)}, dict[str, list[int]], "$.a"),
        ({1: 1}, dict[str, int], "$['1']"),
        ({"1": 1}, dict[int, int], "$['1']"),
        ({True: 1}, dict[int, int], "$.true"),
        ({1.0: 1}, dict[int, int], "$['1.0']"),
        ({True}, set[int], "$[0]"),
        (Line("a"), Order, "$.id"),
        ({"name": "a", "price": 1.0}, Line, "$"),
        (Line("a"), dict[str, Any], "$"),
        (Line(1), Line, "$.name"),  # type: ignore[arg-type]
        (Order(1, [Line("a"), None]), Order, "$.lines[1]"),  # type: ignore[list-item]
        (Order(1, (Line("a"),)), Order, "$.lines"),  # type: ignore[arg-type]
        (Colour.RED, str, "$"),
        ("red", Colour, "$"),
        (1, Literal[True], "$"),
        (Row(True), tuple[bool, int], "$"),
        ((True, 1), Row, "$"),
        (Data(True), Typed, "$"),
        (date(2026, 1, 1), datetime, "$"),
        (datetime(2026, 1, 1), date, "$"),  # noqa: DTZ001
        ("2026-01-01", date, "$"),
        (Decimal(1), float, "$"),
        (1, Decimal, "$"),
        (b"a", str, "$"),
        (bytearray(b"a"), bytes, "$"),
        (Path("a"), str, "$"),
        (1, NoReturn, "$"),
    ],
)
def test_a_value_that_is_not_what_its_annotation_says_is_refused(value: Any, annotation: Any, path: str) -> None:
    with pytest.raises(CodecError) as caught:
        Codec().encode(value, annotation)
    assert path == caught.value.path
    assert path in caught.value.message
