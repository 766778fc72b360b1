"""Bytes may come from anywhere; whatever they are, only CodecError comes out."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.codec import Codec
from stepwell.commands import UNSET
from stepwell.errors import CodecError


@attrs.frozen
class Tree:
    value: int
    children: list[Tree] = attrs.Factory(list)


ANNOTATIONS: list[Any] = [
    Any,
    UNSET,
    str,
    int,
    float,
    bool,
    None,
    list[int],
    dict[str, float],
    dict[int, Any],
    set[str],
    Tree,
    Tree | None,
    Tree | int | list[str],
    datetime,
    timedelta,
    Decimal,
    UUID,
    bytes,
    Literal["a", 1],
]

CORPUS: dict[str, bytes] = {
    "open lists": b"[" * 2000,
    "open objects": b'{"a":' * 2000,
    "deep lists": b"[" * 2000 + b"]" * 2000,
    "101 levels": b"[" * 101 + b"]" * 101,
    "101 levels of both": b'[{"a":' * 50 + b"[]" + b"}]" * 50,
    "deep tree": b'{"value":1,"children":[' * 60 + b"]}" * 60,
    "brackets in text that hide depth": b"[" * 150 + b"1" + b',"["]' * 150,
    "NaN": b"NaN",
    "NaN inside": b'{"a":[NaN]}',
    "Infinity": b"-Infinity",
    "1e999": b"1e999",
    "-1e999 inside": b"[-1e999]",
    "int beyond 64 bits": b"9223372036854775808",
    "int below 64 bits": b"[-9223372036854775809]",
    "int of 5,000 digits": b"1" * 5000,
    "int of 5,000 digits inside": b'{"a":' + b"9" * 5000 + b"}",
    "lone high surrogate": b'"\\ud800"',
    "lone low surrogate": b'"\\udc00"',
    "surrogate in a key": b'{"\\ud800":1}',
    "surrogates swapped": b'"\\udc00\\ud800"',
    "surrogate as bytes": b'"\xed\xa0\x80"',
    "invalid utf-8": b'"\xff"',
    "invalid utf-8 in a key": b'{"\xff":1}',
    "overlong utf-8": b'"\xc0\x80"',
    "cut utf-8": b'"\xe2\x82',
    "byte order mark": b"\xef\xbb\xbf1",
    "utf-16": '"a"'.encode("utf-16"),
    "NUL": b"\x00",
    "NUL at the end": b"1\x00",
    "NUL in text": b'"\x00"',
    "nothing": b"",
    "blanks": b"  ",
    "two values": b"1 2",
    "trailing comma": b"[1,]",
    "comment": b"[1/*x*/]",
    "single quotes": b"'a'",
    "leading zero": b"01",
    "bare word": b"nul",
    "control character": b'"\n"',
    "bad escape": b'"\\x41"',
    "key that is no text": b"{1:2}",
    "unclosed": b'{"a":[1',
    "HTML": b"<html>",
    "pickle": b"\x80\x04\x95",
}


@pytest.mark.parametrize("name", CORPUS)
def test_only_a_codec_error_comes_out(name: str) -> None:
    codec = Codec()
    for annotation in ANNOTATIONS:
        with pytest.raises(CodecError):
            codec.decode(CORPUS[name], annotation)
        with pytest.raises(CodecError):
            codec.decode(msgspec.Raw(CORPUS[name]), annotation)


@pytest.mark.parametrize("name", CORPUS)
def test_nor_does_a_digest_take_them(name: str) -> None:
    with pytest.raises(CodecError):
        Codec().digest(CORPUS[name])


@given(st.binary(max_size=60) | st.text('[]{}":,0123456789.eE+-\\untrfalsd \n', max_size=60).map(str.encode))
def test_random_bytes_give_a_value_or_a_codec_error(raw: bytes) -> None:
    codec = Codec()
    for annotation in ANNOTATIONS:
        try:
            value = codec.decode(raw, annotation)
        except CodecError:
            continue
        assert codec.encode(value, annotation) is not None  # what was taken in can be recorded


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b'{"a":[0,9223372036854775808]}', "$.a[1]"),
        (b"9223372036854775808", "$"),
        (b'["1234567890123456789012",-9223372036854775809]', "$[1]"),
    ],
)
def test_an_int_beyond_64_bits_is_told_with_its_place(raw: bytes, path: str) -> None:
    with pytest.raises(CodecError, match="beyond 64 bits") as caught:
        Codec().decode(raw)
    assert path == caught.value.path


def test_long_runs_of_digits_in_text_and_floats_are_fine() -> None:
    codec = Codec()
    assert ["1" * 30, 1.1111111111111111e29] == codec.decode(b'["' + b"1" * 30 + b'",111111111111111111111111111111.0]')
    assert [9223372036854775807, -9223372036854775808] == codec.decode(b"[9223372036854775807,-9223372036854775808]")


def test_of_two_equal_keys_the_last_one_counts() -> None:
    """As every JSON parser does it."""
    assert {"a": 2} == Codec().decode(b'{"a":1,"a":2}')


def test_many_shallow_lists_are_not_deep() -> None:
    codec = Codec()
    value = [[i] for i in range(5000)]
    assert value == codec.decode(codec.encode(value))
