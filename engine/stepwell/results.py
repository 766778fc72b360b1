"""What workflow code hands over, as JSON, and the types that it is read back into. Floor 2."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from types import GenericAlias
from typing import Any, get_args, get_origin

import msgspec

from . import commands as c
from . import events as e
from .codec import Codec, return_annotation
from .errors import CodecError, InvalidInputError
from .steps import callee_of
from .workflows import Workflow

__all__ = ["Form", "Results", "default_and_show", "delivered", "flow_result", "result_type", "timed_out"]

MAX_FORMS = 100
"""Step functions of which one run remembers how results are recorded; a workflow may make ever new ones."""


def result_type(command: c.Command[Any]) -> Any:
    """The type that a step's result is decoded into; UNSET when nobody said.

    Raises:
        CodecError: the function's annotation can't be resolved.
    """
    if not isinstance(command, c.Step):
        raise InvalidInputError(f"only a Step has a result type, got {command!r}")
    if command.given.into is not c.UNSET:
        return command.given.into
    if isinstance(command, c.Stream):
        return _stream_result(command)
    return return_annotation(command.fn)


def _stream_result(stream: c.Stream[Any, Any]) -> Any:
    """The type of what `collect` makes, or of what the generator returns."""
    chunk, result = _yields(stream.fn)
    if stream.collect is None:
        return result
    made: Any = return_annotation(stream.collect)
    if made in _COLLECTIONS and chunk is not c.UNSET:
        return GenericAlias(made, (chunk, ...) if made is tuple else (chunk,))
    return made


_COLLECTIONS = (list, set, tuple)
_ITERABLES = (Iterator, Iterable, AsyncIterator, AsyncIterable, AsyncGenerator)


def _yields(fn: Callable[..., Any]) -> tuple[Any, Any]:
    """The types of what a generator function yields and returns; UNSET where its annotation does not say."""
    annotation = return_annotation(fn)
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Generator and args:
        return args[0], args[2] if len(args) == 3 else None
    if origin in _ITERABLES and args:
        return args[0], c.UNSET
    return c.UNSET, c.UNSET


class Form(msgspec.Struct, frozen=True, eq=False):
    """How what a step gives is recorded.

    Attributes:
        write: makes JSON of a value; raises CodecError.
        read: makes the value of JSON; raises CodecError.
        is_async: whether what the step calls in the end is `async def`.
        chunk: for a Stream, makes JSON of what it yields; raises CodecError.
    """

    write: Callable[[Any], bytes]
    read: Callable[[Any], Any]
    is_async: bool
    chunk: Callable[[Any], bytes] | None = None


class Results:
    """Knows how results of steps are recorded; what is known of a function is looked up once."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._forms: dict[Any, Form] = {}

    def of(self, step: c.Step[Any]) -> Form:
        """How the result of a step is recorded.

        Raises:
            CodecError: its type can't be decoded, or its annotation not be resolved.
        """
        if step.given.into is not c.UNSET:
            return self._made(step)
        try:
            return self._forms[step.fn]
        except KeyError:
            form = self._made(step)
            if form.chunk is None and len(self._forms) < MAX_FORMS:  # one stream's `collect` is not another's
                self._forms[step.fn] = form
            return form
        except TypeError:  # an object that can be called and not be hashed
            return self._made(step)

    def _made(self, step: c.Step[Any]) -> Form:
        into = result_type(step)
        chunk = self._codec.writer(_yields(step.fn)[0]) if isinstance(step, c.Stream) else None
        return Form(self._codec.writer(into), self._codec.reader(into), callee_of(step.fn).is_async, chunk)


def flow_result(workflow: Workflow[..., Any]) -> Any:
    """The R of a workflow annotated `-> Flow[R]`; UNSET when it is not annotated.

    Raises:
        CodecError: the annotation can't be resolved.
    """
    if workflow.annotated is not workflow.fn:  # it gives what its one step gives
        into = callee_of(workflow.annotated).defaults.into
        return return_annotation(workflow.annotated) if into is c.UNSET else into
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


def delivered(codec: Codec, command: c.Suspend[Any], event: e.Resume) -> Any:
    """What a Suspend gives for a signal: the payload, or the Decision about it.

    Raises:
        CodecError: the payload does not fit the type that the Suspend asks for.
    """
    value = codec.decode(event.value, Any if command.into is c.UNSET else command.into)
    if not command.asks_who:
        return value
    metadata = {} if event.metadata is e.UNSET else codec.decode(event.metadata)
    return c.Decision(value, e.parse_instant(event.timestamp), event.actor, metadata)


def timed_out(command: Any, event: e.Wake, default: Any) -> Any:
    """What a Suspend gives for its time-out: the default, or the Decision that nobody made."""
    return c.Decision(default, e.parse_instant(event.timestamp)) if command.asks_who else default
