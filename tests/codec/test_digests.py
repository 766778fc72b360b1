"""A digest is the same for the same value, in every process and release, and differs for any other."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import date

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.codec import Codec
from stepwell.errors import CodecError

SHAPES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@attrs.frozen
class Item:
    name: str
    tags: frozenset[str] = frozenset()


def turned(shape: object) -> object:
    """The same shape with the keys of every object in reverse order."""
    if isinstance(shape, dict):
        return {key: turned(value) for key, value in reversed(shape.items())}
    return [turned(item) for item in shape] if isinstance(shape, list) else shape


VALUES = {
    "nothing": None,
    "arguments": [["a", 1, True, None, 1.5], {"b": {"z": 1, "a": 2}, "é": "ü"}],
    "item": [(Item("a", frozenset({"y", "x"})), date(2026, 1, 2))],
}
GOLDEN = {
    "nothing": "941dffce4e4308ceb33e87326003257d",
    "arguments": "4da25df446bd603ef1866594e22d12f4",
    "item": "27530bb19853b933f5c1644baf7aede9",
}


def test_digests_stay_what_they_are() -> None:
    """They are recorded: another value would make every recorded input look changed."""
    codec = Codec()
    assert GOLDEN == {name: codec.digest(value) for name, value in VALUES.items()}


@given(SHAPES)
def test_the_order_of_keys_does_not_matter(shape: object) -> None:
    codec = Codec()
    assert codec.digest(shape) == codec.digest(turned(shape))
    assert codec.digest(shape) == codec.digest(codec.encode(turned(shape)))
    assert codec.digest(shape) == codec.digest(msgspec.Raw(codec.encode(shape)))


@given(SHAPES, SHAPES)
def test_different_json_has_different_digests(one: object, other: object) -> None:
    codec = Codec()
    alike = msgspec.json.encode(one, order="sorted") == msgspec.json.encode(other, order="sorted")
    assert alike == (codec.digest(one) == codec.digest(other))


def test_blanks_do_not_matter() -> None:
    assert Codec().digest(b'{"a": 1,\n "b": []}') == Codec().digest(b'{"b":[],"a":1}')


def test_a_value_and_its_recorded_json_have_one_digest() -> None:
    codec = Codec()
    item = Item("a", frozenset({"x", "y", "z"}))
    assert codec.digest(codec.encode(item, Item)) == codec.digest(item)
    assert codec.digest([1, "a"]) == codec.digest((1, "a"))


def test_a_digest_is_32_hexadecimal_digits() -> None:
    assert 32 == len(Codec().digest("a"))
    assert int(Codec().digest("a"), 16)


def test_a_digest_is_the_same_in_another_process() -> None:
    """The order of a set differs there."""
    code = "from stepwell.codec import Codec; print(Codec().digest({f'n{i}' for i in range(20)}))"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in (1, 2)
    }
    assert {Codec().digest({f"n{i}" for i in range(20)})} == found


def test_what_has_no_json_form_has_no_digest() -> None:
    with pytest.raises(CodecError) as caught:
        Codec().digest([{"a": object()}])
    assert "$[0].a" == caught.value.path
    with pytest.raises(CodecError, match="lone surrogate") as caught:
        Codec().digest(["\ud800"])
    assert "$[0]" == caught.value.path
