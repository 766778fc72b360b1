"""The types that results are decoded into: of a step, and of a workflow. Floor 2."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, get_args, get_origin

from . import commands as c
from .codec import return_annotation
from .errors import InvalidInputError
from .workflows import Workflow

__all__ = ["flow_result", "result_type"]


def result_type(command: c.Command[Any]) -> Any:
    """The type that a step's result is decoded into; UNSET when nobody said.

    Raises:
        CodecError: the function's annotation can't be resolved.
    """
    if not isinstance(command, c.Step):
        raise InvalidInputError(f"only a Step has a result type, got {command!r}")
    if command.given.into is not c.UNSET:
        return command.given.into
    return return_annotation(command.fn)


def flow_result(workflow: Workflow[..., Any]) -> Any:
    """The R of a workflow annotated `-> Flow[R]`; UNSET when it is not annotated.

    Raises:
        CodecError: the annotation can't be resolved.
    """
    annotation = return_annotation(workflow.fn)
    args = get_args(annotation)
    return args[2] if get_origin(annotation) is Generator and len(args) == 3 else c.UNSET
