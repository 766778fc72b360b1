"""JSON and tags from the command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..codec import Codec, parameter_annotations
from ..errors import CodecError, InvalidInputError
from ..workflows import Workflow
from .mistakes import UsageError

__all__ = ["arguments", "metadata", "plain_value", "tag_filter", "tags"]


def source(text: str) -> bytes:
    """The JSON text that an argument stands for: itself, `@FILE`, or `-` for standard input.

    Raises:
        UsageError: the file can't be read.
    """
    if text == "-":
        return sys.stdin.buffer.read()
    if text.startswith("@"):
        try:
            return Path(text[1:]).read_bytes()
        except OSError as e:
            raise UsageError(f"can't read {text[1:]!r}: {e.strerror or e}") from e
    return text.encode("utf-8", "surrogateescape")


def plain_value(codec: Codec, text: str) -> Any:
    """The JSON value that an argument stands for.

    Raises:
        InvalidInputError: it is no JSON.
    """
    return _parsed(codec, text)[1]


def arguments(codec: Codec, workflow: Workflow[..., Any], texts: Sequence[str]) -> tuple[Any, ...]:
    """A workflow's arguments, each of the type that the workflow declares.

    Raises:
        InvalidInputError: one is no JSON, or does not have that type; the text names the parameter.
    """
    if list(texts).count("-") > 1:
        raise UsageError("standard input can be read once: only one argument may be '-'")
    names = list(workflow.signature.parameters)
    if len(texts) > len(names):
        raise InvalidInputError(
            f"workflow {workflow.name!r} takes {workflow.signature}, and was given {len(texts)} arguments"
        )
    values = []
    for text, name, annotation in zip(texts, names, parameter_annotations(workflow.annotated), strict=False):
        raw, _ = _parsed(codec, text)
        try:
            values.append(codec.decode(raw, annotation))
        except CodecError as e:
            raise InvalidInputError(f"workflow {workflow.name!r}, argument {name!r}: {e.message}") from e
    return tuple(values)


def tags(texts: Sequence[str]) -> dict[str, str]:
    """Tags from `NAME=VALUE` each."""
    return _pairs("--tag", texts)


def metadata(texts: Sequence[str]) -> dict[str, str] | None:
    """What is said of a signal from `NAME=TEXT` each; None when nothing is."""
    return _pairs("--meta", texts) or None


def _pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise UsageError(f"{option} takes NAME=VALUE, got {text!r}")
        found[name] = value
    return found


def tag_filter(text: str | None) -> tuple[str, str | None] | None:
    """What to list by, from `NAME` or `NAME=VALUE`."""
    if text is None:
        return None
    name, equals, value = text.partition("=")
    if not name:
        raise UsageError(f"--tag takes NAME or NAME=VALUE, got {text!r}")
    return name, value if equals else None


def _parsed(codec: Codec, text: str) -> tuple[bytes, Any]:
    """The JSON text that an argument stands for, and its plain value."""
    raw = source(text)
    try:
        return raw, codec.decode(raw)
    except CodecError as e:
        raise InvalidInputError(_no_json(text, e)) from e


def _no_json(text: str, error: CodecError) -> str:
    if text == "-" or text.startswith("@"):
        where = "standard input" if text == "-" else repr(text[1:])
        return f"{where} holds no JSON value: {error.message}"
    shown = text if len(text) <= 60 else text[:57] + "..."
    hint = f"; text is written with its quotes, as in '\"{shown}\"'" if text[:1].isalpha() else ""
    return f"not a JSON value: {shown!r}{hint}"
