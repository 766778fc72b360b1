"""The digest of a step's inputs: the same for the same call, everywhere and for ever, and another for another call."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from stepwell import Codec, Step
from stepwell.inputs import inputs_digest

CODEC = Codec()
PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    PLAIN | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
KEYWORDS = st.dictionaries(st.sampled_from("abcdef"), VALUES, max_size=3)


def call(*args: Any, **kwargs: Any) -> str | None:
    return inputs_digest(CODEC, Step(max, *args, **kwargs))


def turned(value: Any) -> Any:
    """The same value with the keys of every mapping in reverse order."""
    if isinstance(value, dict):
        return {key: turned(inner) for key, inner in reversed(value.items())}
    return [turned(inner) for inner in value] if isinstance(value, list) else value


def in_order(value: Any) -> Any:
    """The same value with sorted keys."""
    if isinstance(value, dict):
        return {key: in_order(value[key]) for key in sorted(value)}
    return [in_order(inner) for inner in value] if isinstance(value, list) else value


@given(st.lists(VALUES, max_size=3), KEYWORDS)
def test_the_order_of_keys_and_keywords_does_not_count(args: list[Any], kwargs: dict[str, Any]) -> None:
    digest = call(*args, **kwargs)
    assert digest is not None
    assert 32 == len(digest)
    assert digest == call(*map(turned, args), **turned(kwargs))


@given(st.lists(PLAIN, max_size=3))
def test_the_quick_way_for_plain_arguments_gives_what_the_codec_gives(args: list[Any]) -> None:
    assert CODEC.digest(args) == call(*args)


@given(st.lists(VALUES, max_size=3), st.lists(VALUES, max_size=3))
def test_other_arguments_have_another_digest(one: list[Any], other: list[Any]) -> None:
    alike = CODEC.encode(in_order(one)) == CODEC.encode(in_order(other))
    assert alike == (call(*one) == call(*other))


@frozen
class Item:
    name: str
    tags: frozenset[str] = frozenset()


@dataclass
class Record:
    name: str
    tags: tuple[str, ...] = ()


GOLDEN = {
    "plain": ((1, "é", True, None), "1b2b08c89284b20ba7dbcfe29ec7c2b3"),
    "nested": (({"b": [1.5, {"y": 1, "x": 2}], "a": None},), "e109c8540208230d66ac2c0aa7e4713d"),
    "values": ((Item("a", frozenset({"x", "y", "z"})), Record("b", ("t",))), "f6e9c340fedc6e916fb255044e01e0d3"),
}


def test_they_stay_what_they_are() -> None:
    """They are recorded: a release that made others would find every recorded input changed."""
    assert {name: digest for name, (_, digest) in GOLDEN.items()} == {
        name: call(*args) for name, (args, _) in GOLDEN.items()
    }


def test_they_do_not_depend_on_the_process() -> None:
    code = (
        "from tests.property.test_input_digests import GOLDEN, call\n"
        "for args, _ in GOLDEN.values(): print(call(*args))\n"
        "print(call(1, b=2, a={'y', 'x', 'z'}))"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": os.pathsep.join((".", *filter(None, sys.path))), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "77")
    }
    assert 1 == len(told)


@pytest.mark.parametrize(
    ("one", "other"),
    [(0.0, -0.0), (1, 1.0), (1, True), (1, "1"), ([], None), ([1], [[1]]), (Item("a"), Item("b")), ("a", ["a"])],
)
def test_what_a_function_can_tell_apart_differs(one: Any, other: Any) -> None:
    assert call(one) != call(other)
    assert call(x=one) != call(x=other)


@pytest.mark.parametrize(("one", "other"), [((1, 2), [1, 2]), ({2, 1}, {1, 2}), (Item("a"), {"name": "a", "tags": []})])
def test_what_is_written_alike_is_the_same(one: Any, other: Any) -> None:
    """The digest is of the JSON that a value is recorded as."""
    assert call(one) == call(other)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), "\ud800", lambda: 1, [object()]])
def test_what_does_not_encode_has_none(value: Any) -> None:
    assert call(value) is None
    assert call(1, x=value) is None
