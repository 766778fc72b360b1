"""What msgspec decodes must come out as the hooks have it: the same values, and the same refusals."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell import codec as codec_module
from stepwell.codec import Codec
from stepwell.errors import CodecError


@attrs.frozen
class Point:
    x: int
    y: float = 0.5


def positive(size: int) -> int:
    return abs(size)


@attrs.frozen
class Named:
    name: str = attrs.field(validator=attrs.validators.max_len(3))
    size: int = attrs.field(converter=positive, kw_only=True, default=1)
    note: str | None = None


@dataclasses.dataclass
class Box:
    points: list[Point]
    by_name: dict[str, Named]
    best: Point | None = None


@attrs.frozen
class Only:
    flag: bool


@attrs.frozen
class Private:
    _secret: int


@attrs.frozen
class Tree:
    value: int
    children: list[Tree] = attrs.field(factory=list)


CLASSES = [Point, Named, Box, Only, Private, Tree, list[Point], dict[str, Only], Point | None]
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["x", "y", "name", "size", "note", "points", "by_name", "best", "flag", "secret", "value"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
GOOD = {
    "Point": {"x": 1, "y": 2.5},
    "Named": {"name": "abc", "size": -3, "note": None},
    "Box": {"points": [{"x": 1, "y": 1.0}], "by_name": {"n": {"name": "a", "size": 1, "note": "b"}}, "best": None},
    "Only": {"flag": True},
}


@pytest.fixture(scope="module")
def slow() -> Codec:
    """A codec that knows no other way than the hooks."""
    patch = pytest.MonkeyPatch()
    patch.setattr(codec_module, "native", lambda *_: None)
    codec = Codec()
    for cls in CLASSES:
        codec.check(cls)
    patch.undo()
    return codec


QUICK = Codec()


def outcome(codec: Codec, raw: bytes, annotation: Any) -> Any:
    try:
        value = codec.decode(raw, annotation)
    except CodecError as error:
        return error.path, error.message
    return value, type(value), repr(value)


@pytest.mark.parametrize("annotation", CLASSES, ids=str)
@given(shape=JSONS)
def test_any_json(slow: Codec, annotation: Any, shape: Any) -> None:
    raw = json.dumps(shape).encode()
    assert outcome(slow, raw, annotation) == outcome(QUICK, raw, annotation)


@pytest.mark.parametrize("cls", [Point, Named, Box, Only], ids=lambda cls: cls.__name__)
@given(data=st.data())
def test_objects_with_one_part_exchanged(slow: Codec, cls: type, data: st.DataObject) -> None:
    shape: dict[str, Any] = json.loads(json.dumps(GOOD[cls.__name__]))
    name = data.draw(st.sampled_from([*shape, "unknown"]))
    if data.draw(st.booleans()):
        shape[name] = data.draw(JSONS)
    else:
        shape.pop(name, None)
    raw = json.dumps(shape).encode()
    assert outcome(slow, raw, cls) == outcome(QUICK, raw, cls)


@pytest.mark.parametrize("cls", [Point, Named, Box, Only], ids=lambda cls: cls.__name__)
def test_whole_objects_take_the_quick_way(monkeypatch: pytest.MonkeyPatch, cls: type) -> None:
    codec = Codec()
    codec.check(cls)
    monkeypatch.setattr(codec, "_load", lambda *_: pytest.fail("it was decoded by the hooks"))
    value = codec.decode(json.dumps(GOOD[cls.__name__]).encode(), cls)
    assert isinstance(value, cls)


def test_validators_and_converters_run() -> None:
    assert QUICK.decode(b'{"name":"ab","size":-7,"note":null}', Named) == Named("ab", size=7)
    with pytest.raises(CodecError, match="name"):
        QUICK.decode(b'{"name":"abcd","size":1,"note":null}', Named)
