"""What workflow code hands over, as JSON, and the types that it is read back into. Floor 2."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, get_args, get_origin

from . import commands as c
from .codec import Codec, return_annotation
from .errors import CodecError, InvalidInputError
from .workflows import Workflow

__all__ = ["Results", "default_and_show", "flow_result", "result_type"]

MAX_READERS = 100
"""Step functions of which one run remembers how results are decoded; a workflow may make ever new ones."""


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


class Results:
    """Decodes what steps gave; what is known of a function is looked up once."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._readers: dict[Any, Callable[[Any], Any]] = {}

    def reader(self, step: c.Step[Any]) -> Callable[[Any], Any]:
        """What decodes the result of a step.

        Raises:
            CodecError: its type can't be decoded, or its annotation not be resolved.
        """
        if step.given.into is not c.UNSET:
            return self._codec.reader(step.given.into)
        try:
            return self._readers[step.fn]
        except KeyError:
            reader = self._codec.reader(result_type(step))
            if len(self._readers) < MAX_READERS:
                self._readers[step.fn] = reader
            return reader
        except TypeError:  # an object that can be called and not be hashed
            return self._codec.reader(result_type(step))


def flow_result(workflow: Workflow[..., Any]) -> Any:
    """The R of a workflow annotated `-> Flow[R]`; UNSET when it is not annotated.

    Raises:
        CodecError: the annotation can't be resolved.
    """
    annotation = return_annotation(workflow.fn)
    args = get_args(annotation)
    return args[2] if get_origin(annotation) is Generator and len(args) == 3 else c.UNSET


def default_and_show(codec: Codec, command: c.Suspend[Any]) -> tuple[tuple[bytes, Any] | None, bytes | None]:
    """What a Suspend gives on time-out and shows to people, as JSON; the default with the type to read it back.

    The default may be of the signal's type, any JSON shape (None, mostly), or of a type of its own.

    Raises:
        CodecError: one of them can't be recorded.
    """
    show = None if command.show is c.UNSET else codec.encode(command.show)
    if command.default is c.UNSET:
        return None, show
    for into in (command.into, c.UNSET):
        try:
            return (codec.encode(command.default, into), into), show
        except CodecError:
            pass  # the last try says what is wrong
    own = type(command.default)
    return (codec.encode(command.default, own), own), show
