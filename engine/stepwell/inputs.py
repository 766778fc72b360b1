"""A workflow's arguments: bound, checked and encoded before anything is written. Floor 2."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
from msgspec import Raw

from .codec import Codec, parameter_annotations
from .commands import Step
from .digests import digest
from .errors import CodecError, InvalidInputError
from .wire import split_list
from .workflows import Workflow

__all__ = [
    "ATOMS",
    "decode_input",
    "encode_given",
    "encode_input",
    "inputs_digest",
    "own_copy",
    "prepared",
    "same_input",
]

_encode = msgspec.json.Encoder().encode


def encode_input(codec: Codec, workflow: Workflow[..., Any], args: tuple[Any, ...]) -> Raw:
    """Encode the positional arguments of a workflow as one JSON list.

    Raises:
        InvalidInputError: too many or too few arguments, or one that can't be recorded or does not have the type that
            the workflow declares; the text names the parameter and the place in the value.
    """
    if not isinstance(workflow, Workflow):
        raise InvalidInputError(f"expected a workflow, as @workflow makes it, got {workflow!r}")
    try:
        values = workflow.filled(args)  # defaults are recorded too: a later change of one leaves running runs alone
    except TypeError as error:
        raise InvalidInputError(
            f"workflow {workflow.name!r} takes {workflow.signature}, and was given {len(args)} arguments: {error}"
        ) from error
    parts = []
    for i, (value, annotation) in enumerate(zip(values, parameter_annotations(workflow.annotated), strict=True)):
        try:
            parts.append(codec.encode(value, annotation))
        except CodecError as error:
            name = list(workflow.signature.parameters)[i]
            raise InvalidInputError(f"workflow {workflow.name!r}, argument {name!r}: {error.message}") from error
    return Raw(b"[" + b",".join(parts) + b"]")


def decode_input(codec: Codec, workflow: Workflow[..., Any], raw: Raw) -> list[Any]:
    """Decode recorded arguments by the types that the workflow declares now.

    Raises:
        CodecError: they don't fit, in number or type.
    """
    annotations = parameter_annotations(workflow.annotated)
    values = split_list(raw)
    try:
        workflow.filled(values)
    except TypeError as error:
        raise CodecError(f"{len(values)} recorded arguments do not fit {workflow!r}: {error}", path="$") from error
    return [codec.decode(value, into) for value, into in zip(values, annotations, strict=False)]


def encode_given(codec: Codec, value: Any, into: Any, unfit: str) -> bytes:
    """Encode what somebody gives for a type: a value of it, or the plain JSON shapes that it decodes from.

    Raises:
        InvalidInputError: it is neither; the text is `unfit`, a colon, and where and why.
    """
    try:
        return codec.encode(value, into)
    except CodecError as refused:
        try:
            raw = codec.encode(value)
            codec.decode(raw, into)
        except CodecError as error:
            plain = isinstance(value, (dict, list, str, int, float, bool, type(None)))
            raise InvalidInputError(f"{unfit}: {error.message if plain else refused.message}") from error
        return raw


_IMMUTABLE = (str, int, float, bool, bytes, type(None))
ATOMS = frozenset(_IMMUTABLE)
"""Types whose values nobody can change, and that nobody has to look into."""

_PLAIN = ATOMS - {float, bytes}  # written by every encoder in the same way


def prepared(codec: Codec, step: Step[Any]) -> tuple[Step[Any], str | None]:
    """`own_copy` and `inputs_digest` of a step, in one look where its arguments are plain."""
    args = step.args
    if not step.kwargs and _PLAIN.issuperset(map(type, args)):
        return step, _plain_digest(args)
    return own_copy(step), inputs_digest(codec, step)


def own_copy(step: Step[Any]) -> Step[Any]:
    """The step with copies of its arguments, so that the function can't change the workflow's own objects."""
    if not step.kwargs and ATOMS.issuperset(map(type, step.args)):
        return step
    args, kwargs = tuple(map(_copied, step.args)), {name: _copied(value) for name, value in step.kwargs.items()}
    return step.replaced(args, kwargs, step.given)


def _copied(value: Any) -> Any:
    if isinstance(value, _IMMUTABLE):
        return value
    try:
        return copy.deepcopy(value)
    except Exception:  # noqa: BLE001 - whatever its class raises
        return value  # a client or a lock: what can't be copied is shared


def _plain_digest(args: tuple[Any, ...]) -> str | None:
    try:
        return digest(_encode(args))  # what the codec would give, which looks for much more
    except (OverflowError, UnicodeEncodeError, msgspec.EncodeError):
        return None


def inputs_digest(codec: Codec, step: Step[Any]) -> str | None:
    """A short digest of a step's arguments, so that a changed input can be noticed; None when they don't encode."""
    if not step.kwargs and _PLAIN.issuperset(map(type, step.args)):
        return _plain_digest(step.args)
    try:
        return codec.digest([list(step.args), step.kwargs] if step.kwargs else list(step.args))
    except CodecError:
        return None


def same_input(codec: Codec, workflow: Workflow[..., Any], one: Raw, other: Raw) -> bool:
    """Whether two recorded inputs come to the same arguments: 1 and 1.0 do, where a float is asked for."""
    if codec.digest(bytes(one)) == codec.digest(bytes(other)):
        return True
    try:
        inputs = [encode_input(codec, workflow, tuple(decode_input(codec, workflow, raw))) for raw in (one, other)]
    except (CodecError, InvalidInputError):
        return False
    return codec.digest(bytes(inputs[0])) == codec.digest(bytes(inputs[1]))
