"""A union gives back the member that was put in, or refuses at the door; the order of its members never matters."""

from __future__ import annotations

import enum
from datetime import UTC, date, datetime, time
from decimal import Decimal
from itertools import permutations
from typing import Any, Literal, TypedDict, Union
from uuid import UUID

import attrs
import pytest

from stepwell.codec import Codec
from stepwell.errors import CodecError


@attrs.frozen
class Approved:
    by: str


@attrs.frozen
class Rejected:
    by: str


@attrs.frozen
class RejectedWith:
    by: str
    reason: str = ""


@attrs.frozen
class Card:
    number: str
    kind: Literal["card"] = "card"


@attrs.frozen
class Bank:
    number: str
    kind: Literal["bank"] = "bank"


class Small(TypedDict):
    size: int


class Large(TypedDict):
    size: int
    weight: float


class Colour(enum.Enum):
    RED = "red"


class Mood(enum.Enum):
    GOOD = "good"


DAY = date(2026, 1, 1)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def round_trip(value: Any, annotation: Any) -> Any:
    codec = Codec()
    return codec.decode(codec.encode(value, annotation), annotation)


@pytest.mark.parametrize(
    ("value", "members"),
    [
        (1, (int, str, None)),
        ("1", (int, str, None)),
        (None, (int, str, None)),
        (True, (int, bool)),
        (1, (int, bool)),
        (1, (int, float)),
        (1.0, (int, float)),
        (1.5, (float, str)),
        ([1], (list[int], str)),
        ([], (list[int], list[str])),
        (["a"], (list[int], list[str])),
        ({"a": 1}, (dict[str, int], list[int])),
        (NOON, (datetime, date)),
        (DAY, (datetime, date)),
        (time(1), (datetime, time)),
        (UUID(int=1), (UUID, datetime)),
        (Decimal(1), (Decimal, int)),
        (b"abcd", (bytes, Decimal, UUID)),
        (Colour.RED, (Colour, Mood)),
        (Colour.RED, (Colour, Literal["x"])),
        ("x", (Colour, Literal["x"])),
        ("2026-01-01", (str, date)),
        ("red", (str, Colour)),
        (Card("1"), (Card, Bank)),
        (Bank("1"), (Card, Bank)),
        (Bank("1"), (Card, Bank, None)),
        (None, (Card, Bank, None)),
        (Approved("a"), (Approved, RejectedWith)),
        (RejectedWith("a"), (Approved, RejectedWith)),
        (RejectedWith("a", "b"), (Approved, RejectedWith)),
        (Approved("a"), (Approved, str, int)),
        ({"size": 1}, (Small, Large)),
        ({"size": 1, "weight": 0.5}, (Small, Large)),
        ([Card("1"), Bank("2")], (list[Card | Bank], Card)),
        ({"a": Card("1")}, (dict[str, Card], Card)),
    ],
    ids=repr,
)
def test_a_member_comes_back_as_itself_in_any_order(value: Any, members: tuple[Any, ...]) -> None:
    for order in permutations(members):
        found = round_trip(value, Union[order])  # noqa: UP007 - made at run time
        assert value == found
        assert type(value) is type(found)


@pytest.mark.parametrize(
    ("value", "members", "reason"),
    [
        (NOON, (str, datetime), "a datetime comes back as a str"),
        (Decimal(1), (str, Decimal), "a Decimal comes back as a str"),
        (Colour.RED, (str, Colour), "a Colour comes back as a str"),
        (Approved("a"), (Approved, Rejected), "alike"),
        (Rejected("a"), (Approved, Rejected), "alike"),
        ([1], (list[int], tuple[int, ...]), "alike"),
        ((1,), (list[int], tuple[int, ...]), "alike"),
        ({"by": "a"}, (dict[str, str], Approved), "alike"),
        ("x", (int, None), "expected int, got str 'x'"),
        (1.5, (int, str), "got float 1.5"),
        (Rejected("a"), (Approved, int), "comes back as an Approved"),
        (True, (int, float), "got true"),
    ],
    ids=repr,
)
def test_what_can_not_be_told_apart_is_refused_in_any_order(value: Any, members: tuple[Any, ...], reason: str) -> None:
    for order in permutations(members):
        with pytest.raises(CodecError) as caught:
            Codec().encode(value, Union[order])  # noqa: UP007 - made at run time
        assert reason in caught.value.message


def test_the_remedy_for_two_alike_classes_is_a_field_of_their_own() -> None:
    with pytest.raises(CodecError, match=r"kind: Literal\['approved'\] = 'approved'"):
        Codec().encode(Approved("a"), Approved | Rejected)


def test_no_fitting_member_is_told_with_the_reason_of_each() -> None:
    with pytest.raises(CodecError) as caught:
        Codec().decode(b'[{"number":1,"kind":"card"}]', list[Card | Bank])
    assert "$[0]" == caught.value.path
    assert "Card: .number expected str, got int 1" in caught.value.message
    assert "Bank: .number expected str" in caught.value.message


def test_a_wrong_optional_is_told_where_it_is_wrong() -> None:
    with pytest.raises(CodecError) as caught:
        Codec().decode(b'{"number":1}', Card | None)
    assert "$.number" == caught.value.path


def test_a_choice_of_classes_in_a_field_keeps_each() -> None:
    @attrs.frozen
    class Payment:
        by: Card | Bank | None
        also: list[Card | Bank] = attrs.Factory(list)

    value = Payment(Bank("1"), [Card("2"), Bank("3")])
    assert value == round_trip(value, Payment)
