"""A cattrs converter of the user's own decides for the types that it has hooks for, and for no others."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, NewType

import attrs
import cattrs
import pytest
from cattrs import Converter
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override
from cattrs.preconf.json import make_converter
from cattrs.strategies import configure_tagged_union

from stepwell.codec import Codec
from stepwell.errors import CodecError

Cents = NewType("Cents", int)


class Money:
    """A class that the codec can't know."""

    def __init__(self, amount: int, currency: str) -> None:
        self.amount, self.currency = amount, currency

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Money({self.amount}, {self.currency!r})"


class Grid:
    """Like an array: `==` gives no bool."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = list(numbers)

    def __eq__(self, other: object) -> Any:
        return Comparison()

    __hash__ = None  # type: ignore[assignment]


class Comparison:
    def __bool__(self) -> bool:
        raise ValueError("the truth of several comparisons is ambiguous")


@attrs.frozen
class Order:
    id: int
    total: Money
    lines: list[Money] = attrs.Factory(list)
    when: datetime | None = None


@attrs.frozen
class User:
    first_name: str
    active: bool = True


@attrs.frozen
class Approved:
    by: str


@attrs.frozen
class Rejected:
    by: str


def parse_money(text: Any, _: Any) -> Money:
    amount, currency = text.split(" ")
    return Money(int(amount), currency)


def money_converter() -> Converter:
    converter = Converter()
    converter.register_unstructure_hook(Money, lambda money: f"{money.amount} {money.currency}")
    converter.register_structure_hook(Money, parse_money)
    return converter


def camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.title() for word in rest)


def round_trip(codec: Codec, value: Any, annotation: Any) -> tuple[str, Any]:
    raw = codec.encode(value, annotation)
    return raw.decode(), codec.decode(raw, annotation)


def test_a_class_of_the_users_is_held_by_its_hooks() -> None:
    codec = Codec(money_converter())
    assert ('"5 EUR"', Money(5, "EUR")) == round_trip(codec, Money(5, "EUR"), Money)
    assert ('["5 EUR"]', [Money(5, "EUR")]) == round_trip(codec, [Money(5, "EUR")], list[Money])
    assert ('{"a":"5 EUR"}', {"a": Money(5, "EUR")}) == round_trip(codec, {"a": Money(5, "EUR")}, dict[str, Money])
    assert ("null", None) == round_trip(codec, None, Money | None)
    assert ('"5 EUR"', Money(5, "EUR")) == round_trip(codec, Money(5, "EUR"), Money | int)
    codec.check(list[Money])


def test_it_is_held_inside_a_class_that_the_codec_knows() -> None:
    codec = Codec(money_converter())
    order = Order(1, Money(5, "EUR"), [Money(6, "USD")], datetime(2026, 1, 1, tzinfo=UTC))
    text, found = round_trip(codec, order, Order)
    assert order == found
    assert '{"id":1,"total":"5 EUR","lines":["6 USD"],"when":"2026-01-01T00:00:00+00:00"}' == text


def test_everything_else_stays_strict() -> None:
    """A plain converter takes "no" for True and 1 for "1"."""
    codec = Codec(money_converter())
    with pytest.raises(CodecError) as caught:
        codec.decode(b'{"id":"1","total":"5 EUR"}', Order)
    assert "$.id" == caught.value.path
    with pytest.raises(CodecError):
        codec.decode(b'"no"', bool)
    with pytest.raises(CodecError, match="unknown key"):
        codec.decode(b'{"id":1,"total":"5 EUR","x":1}', Order)


def test_without_the_converter_the_class_is_refused() -> None:
    with pytest.raises(CodecError, match="cattrs converter"):
        Codec().check(Order)
    with pytest.raises(CodecError, match="cattrs converter"):
        Codec().encode([Money(1, "EUR")], list[Any])


@pytest.mark.parametrize(("raw", "path"), [(b'{"id":1,"total":"5"}', "$.total"), (b'{"id":1,"total":5}', "$.total")])
def test_what_a_hook_raises_is_told_with_the_place(raw: bytes, path: str) -> None:
    with pytest.raises(CodecError) as caught:
        Codec(money_converter()).decode(raw, Order)
    assert path == caught.value.path
    assert "Error: " in caught.value.message


def test_a_hook_that_fails_while_writing_is_told_with_the_place() -> None:
    converter = money_converter()
    converter.register_unstructure_hook(Money, lambda money: 1 / 0)
    with pytest.raises(CodecError, match="ZeroDivisionError") as caught:
        Codec(converter).encode(Order(1, Money(1, "EUR")), Order)
    assert "$.total" == caught.value.path


def test_json_rules_apply_to_what_hooks_give() -> None:
    converter = money_converter()
    converter.register_unstructure_hook(Money, lambda money: [float("nan")])
    with pytest.raises(CodecError, match="no JSON number") as caught:
        Codec(converter).encode(Order(1, Money(1, "EUR")), Order)
    assert "$.total[0]" == caught.value.path


def test_hooks_that_lose_something_are_found_out() -> None:
    converter = money_converter()
    converter.register_unstructure_hook(Money, lambda money: f"{money.amount} EUR")
    codec = Codec(converter)
    assert '"1 EUR"' == round_trip(codec, Money(1, "EUR"), Money)[0]
    with pytest.raises(CodecError, match="a Money comes back different"):
        codec.encode(Money(1, "USD"), Money)


def test_a_class_whose_equality_gives_no_bool_is_trusted() -> None:
    converter = Converter()
    converter.register_unstructure_hook(Grid, lambda grid: grid.numbers)
    converter.register_structure_hook(Grid, lambda numbers, _: Grid(*numbers))
    _, found = round_trip(Codec(converter), Grid(1, 2), Grid)
    assert [1, 2] == found.numbers


def test_a_hook_may_take_its_shape_to_pieces() -> None:
    converter = Converter()
    converter.register_unstructure_hook(Money, lambda money: {"amount": money.amount, "currency": money.currency})
    converter.register_structure_hook(Money, lambda shape, _: Money(shape.pop("amount"), shape.pop("currency")))
    text, found = round_trip(Codec(converter), [Money(1, "EUR")], list[Money])
    assert '[{"amount":1,"currency":"EUR"}]' == text
    assert [Money(1, "EUR")] == found


def test_a_hook_is_used_before_what_the_codec_does_itself() -> None:
    converter = Converter()
    converter.register_unstructure_hook(datetime, lambda when: when.timestamp())
    converter.register_structure_hook(datetime, lambda number, _: datetime.fromtimestamp(number, UTC))
    when = datetime(2026, 1, 1, tzinfo=UTC)
    codec = Codec(converter)
    assert ("1767225600.0", when) == round_trip(codec, when, datetime)
    assert ('"2026-01-01"', date(2026, 1, 1)) == round_trip(codec, date(2026, 1, 1), date)


def test_names_can_be_changed_by_hook_factories() -> None:
    converter = Converter(forbid_extra_keys=True)

    def changes(cls: Any) -> dict[str, Any]:
        return {a.name: override(rename=camel(a.name)) for a in attrs.fields(cls)}

    converter.register_unstructure_hook_factory(
        attrs.has, lambda cls: make_dict_unstructure_fn(cls, converter, **changes(cls))
    )
    converter.register_structure_hook_factory(
        attrs.has, lambda cls: make_dict_structure_fn(cls, converter, **changes(cls))
    )
    codec = Codec(converter)
    assert ('[{"firstName":"a","active":true}]', [User("a")]) == round_trip(codec, [User("a")], list[User])


def test_names_can_be_changed_for_one_class() -> None:
    converter = Converter()
    change: dict[str, Any] = {"first_name": override(rename="name")}
    converter.register_unstructure_hook(User, make_dict_unstructure_fn(User, converter, **change))
    converter.register_structure_hook(User, make_dict_structure_fn(User, converter, **change))
    assert ('{"name":"a","active":true}', User("a")) == round_trip(Codec(converter), User("a"), User)


def test_a_union_can_be_tagged_by_a_strategy() -> None:
    converter = Converter()
    configure_tagged_union(Approved | Rejected, converter)
    codec = Codec(converter)
    either = Approved | Rejected
    assert ('{"by":"a","_type":"Rejected"}', Rejected("a")) == round_trip(codec, Rejected("a"), either)
    assert ('{"by":"a","_type":"Approved"}', Approved("a")) == round_trip(codec, Approved("a"), either)
    with pytest.raises(CodecError):
        codec.encode([Rejected("a")], list[Approved | Rejected])  # only the annotation itself is looked up


def test_a_newtype_can_have_hooks() -> None:
    converter = Converter()
    converter.register_unstructure_hook(Cents, lambda cents: f"{cents}c")
    converter.register_structure_hook(Cents, lambda text, _: Cents(int(text[:-1])))
    codec = Codec(converter)
    assert ('"5c"', 5) == round_trip(codec, Cents(5), Cents)
    assert ("5", 5) == round_trip(codec, 5, int)


def test_hooks_are_those_of_the_time_when_the_codec_was_made() -> None:
    converter = Converter()
    codec = Codec(converter)
    converter.register_unstructure_hook(Money, str)
    converter.register_structure_hook(Money, parse_money)
    with pytest.raises(CodecError):
        codec.check(Money)


def test_a_converter_without_hooks_changes_nothing() -> None:
    for converter in (Converter(), cattrs.global_converter.copy(), Converter(forbid_extra_keys=True)):
        codec = Codec(converter)
        for value, annotation in [
            ("a", str),
            (1, int),
            (b"a", bytes),
            (Decimal("1.0"), Decimal),
            (User("a"), User),
            ({1: [User("a")]}, dict[int, list[User]]),
        ]:
            assert Codec().encode(value, annotation) == codec.encode(value, annotation)
            assert value == codec.decode(codec.encode(value, annotation), annotation)
        with pytest.raises(CodecError):
            codec.decode(b'{"first_name":"a","active":"no"}', User)


def test_a_preconfigured_converter_brings_its_own_forms() -> None:
    codec = Codec(make_converter())
    assert ('"VPX"', b"ab") == round_trip(codec, b"ab", bytes)  # base85, as cattrs has it
    assert ('{"first_name":"a","active":true}', User("a")) == round_trip(codec, User("a"), User)
    with pytest.raises(CodecError):
        codec.decode(b'{"first_name":"a","active":"no"}', User)
