"""Pydantic models are held by their own validation, in strict mode, alone and inside anything."""

from __future__ import annotations

import dataclasses
import enum
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Generic, TypeVar
from uuid import UUID

import attrs
import pydantic
import pydantic.dataclasses
import pytest

from stepwell.codec import Codec
from stepwell.errors import CodecError

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"


class Line(pydantic.BaseModel):
    name: str
    price: Decimal = Decimal(0)


class Special(Line):
    pass


class Order(pydantic.BaseModel):
    id: UUID
    lines: list[Line]
    when: datetime
    wait: timedelta = timedelta(seconds=1)
    tags: set[str] = set()
    pair: tuple[int, str] = (1, "a")
    raw: bytes = b""
    colour: Colour = Colour.RED
    by_number: dict[int, Line] = {}
    path: Path = Path("x")
    ready: bool = False


class Open(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    inner: Line


class Aliased(pydantic.BaseModel):
    first_name: str = pydantic.Field(alias="firstName")


class Hidden(pydantic.BaseModel):
    name: str
    secret: str = pydantic.Field(default="", exclude=True)


class Wrapper(pydantic.BaseModel, Generic[T]):
    content: T


class Numbers(pydantic.RootModel[list[int]]):
    pass


class Free(pydantic.BaseModel):
    value: Any


@pydantic.dataclasses.dataclass
class Data:
    count: int


@attrs.frozen
class Holder:
    order: Order
    lines: list[Line] = attrs.Factory(list)
    either: Line | Data | None = None


@dataclasses.dataclass
class Bag:
    by_name: dict[str, Line]


ORDER = Order(
    id=UUID(int=1),
    lines=[Line(name="a", price=Decimal("1.50"))],
    when=datetime(2026, 1, 1, tzinfo=UTC),
    tags={"x", "y"},
    raw=b"ab",
    by_number={1: Line(name="b")},
)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (Line(name="a"), Line),
        (ORDER, Order),
        (Open.model_validate({"inner": {"name": "a"}, "more": [1]}), Open),
        (Aliased(firstName="a"), Aliased),
        (Wrapper[int](content=1), Wrapper[int]),
        (Wrapper[Line](content=Line(name="a")), Wrapper[Line]),
        (Numbers([1, 2]), Numbers),
        (Free(value={"a": [1, None]}), Free),
        (Data(1), Data),
        (Holder(ORDER, [Line(name="a")], Line(name="b")), Holder),
        (Holder(ORDER, [], Data(1)), Holder),
        (Bag({"a": Line(name="a")}), Bag),
        ([Line(name="a"), None], list[Line | None]),
        ({"a": (Line(name="a"),)}, dict[str, tuple[Line]]),
        (Line(name="a"), Line | Data | int),
    ],
)
def test_a_model_comes_back_equal_and_of_its_class(value: Any, annotation: Any) -> None:
    codec = Codec()
    codec.check(annotation)
    found = codec.decode(codec.encode(value, annotation), annotation)
    assert value == found
    assert repr(value) == repr(found) or "tags" in repr(value)  # a set prints in any order
    assert type(value) is type(found)


@pytest.mark.parametrize(
    ("raw", "annotation", "path", "reason"),
    [
        (b'{"count":"1"}', Data, "$.count", "expected int"),
        (b'{"name":1}', Line, "$.name", "valid string"),
        (b"{}", Line, "$.name", "required"),
        (b'{"name":"a","nmae":"b"}', Line, "$.nmae", "unknown key of Line"),
        (b'{"inner":{"name":"a","x":1},"more":2}', Open, "$.inner.x", "unknown key of Open"),
        (b"[]", Line, "$", "object"),
        (b'[{"name":"a"},{"name":null}]', list[Line], "$[1].name", "valid string"),
        (b'{"by_name":{"k":{"name":false}}}', Bag, "$.by_name.k.name", "valid string"),
        (b'["1"]', Numbers, "$[0]", "valid integer"),
    ],
)
def test_a_misfit_is_told_with_its_place(raw: bytes, annotation: Any, path: str, reason: str) -> None:
    with pytest.raises(CodecError) as caught:
        Codec().decode(raw, annotation)
    assert path == caught.value.path
    assert reason in caught.value.message


def test_scalars_are_strict_in_models_too() -> None:
    """Pydantic's own default takes "no" for False and "1" for 1."""
    codec = Codec()
    raw = codec.encode(ORDER, Order)
    assert ORDER == codec.decode(raw, Order)
    with pytest.raises(CodecError) as caught:
        codec.decode(raw.replace(b'"ready":false', b'"ready":"no"'), Order)
    assert "$.ready" == caught.value.path


def test_a_model_of_a_subclass_is_refused() -> None:
    with pytest.raises(CodecError):
        Codec().encode(Special(name="a"), Line)
    with pytest.raises(CodecError):
        Codec().encode(Wrapper[Line](content=Special(name="a")), Wrapper[Line])


def test_a_model_that_writes_less_than_it_holds_is_refused() -> None:
    codec = Codec()
    assert Hidden(name="a") == codec.decode(codec.encode(Hidden(name="a"), Hidden), Hidden)
    with pytest.raises(CodecError, match="a Hidden comes back different"):
        codec.encode(Hidden(name="a", secret="b"), Hidden)


def test_a_model_that_holds_what_its_fields_do_not_say_is_refused() -> None:
    line = Line.model_construct(name=5)
    with pytest.raises(CodecError):
        Codec().encode(line, Line)
    for value in (float("nan"), (1, 2), {3}, b"a"):
        with pytest.raises(CodecError, match="a Free comes back different"):
            Codec().encode(Free(value=value), Free)


def test_a_model_without_annotation_is_refused_with_the_remedy() -> None:
    with pytest.raises(CodecError, match=r"\.options\(into=Line\)"):
        Codec().encode(Line(name="a"))
