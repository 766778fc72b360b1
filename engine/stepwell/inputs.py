"""A workflow's arguments: bound, checked and encoded before anything is written. Floor 2."""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from .codec import Codec, parameter_annotations
from .commands import Step
from .errors import CodecError, InvalidInputError
from .workflows import Workflow

__all__ = ["encode_input", "inputs_digest"]


def encode_input(codec: Codec, workflow: Workflow[Any, Any], args: tuple[Any, ...]) -> Raw:
    """Encode the positional arguments of a workflow as one JSON list.

    Raises:
        InvalidInputError: too many or too few arguments, or one that can't be recorded or does not have the type that
            the workflow declares; the text names the parameter and the place in the value.
    """
    if not isinstance(workflow, Workflow):
        raise InvalidInputError(f"expected a workflow, as @workflow makes it, got {workflow!r}")
    try:
        bound = workflow.signature.bind(*args)
    except TypeError as error:
        raise InvalidInputError(
            f"workflow {workflow.name!r} takes {workflow.signature}, and was given {len(args)} arguments: {error}"
        ) from error
    bound.apply_defaults()  # recorded too, so that a later change of a default leaves running runs alone
    parts = []
    annotations = parameter_annotations(workflow.fn)
    for (name, value), annotation in zip(bound.arguments.items(), annotations, strict=True):
        try:
            parts.append(codec.encode(value, annotation))
        except CodecError as error:
            raise InvalidInputError(f"workflow {workflow.name!r}, argument {name!r}: {error.message}") from error
    return Raw(b"[" + b",".join(parts) + b"]")


def inputs_digest(codec: Codec, step: Step[Any]) -> str | None:
    """A short digest of a step's arguments, so that a changed input can be noticed; None when they don't encode."""
    try:
        annotations = parameter_annotations(step.fn)
        parts = []
        for i, value in enumerate(step.args):
            parts.append(codec.encode(value, annotations[i] if i < len(annotations) else Any))
        raw = b"[" + b",".join(parts) + b"]"
        if step.kwargs:
            raw = b"[" + raw + b"," + codec.encode(step.kwargs) + b"]"
        return codec.digest(raw)
    except CodecError:
        return None
