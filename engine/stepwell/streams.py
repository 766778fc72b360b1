"""Stream: the command that calls a generator and hands on what it yields while it runs. Floor 1."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Generator, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from attrs import field, frozen

from .command import UNSET, made_in_turn
from .errors import InvalidInputError
from .retry import RetryPolicy
from .steps import Step, StepOptions, callee_of

if TYPE_CHECKING:
    from typing_extensions import TypeForm  # type checkers know it, installed or not

__all__ = ["Stream"]

T_co = TypeVar("T_co", covariant=True)
C = TypeVar("C")
R = TypeVar("R")
Y = TypeVar("Y")
P = ParamSpec("P")


@frozen(init=False, slots=False)
class Stream(Step[T_co], Generic[T_co, C]):
    """Call a generator function, hand on each value that it yields, its *chunks*, and give what comes of it.

    While it runs, its chunks go to the readers of `engine.stream(run_id)`. What enters the workflow is one value:
    the generator's return value (of an async generator, which has none, None), or what `.options(collect=...)` makes
    of the list of chunks: `collect="".join` for the text of a language model. It is recorded as a step is, with the
    same rules for types, copies, retries and names; on replay nothing is called and nothing is handed on.

    A sync generator is closed at its next `yield` when nobody wants it any more (the run or branch is cancelled, it
    timed out), an async one at once. Two Streams are equal when they ask for the same call. Determinism: performs,
    recorded as `step`, and its chunks as `chunk` with `record_chunks=True`.

    Raises:
        InvalidInputError: `fn` is no generator function, sync or async, or is a workflow, or its own name can't be one
            in a history.

    Example:
        >>> from collections.abc import Iterator
        >>> from stepwell import Engine, Flow, Stream, workflow
        >>> def say(text: str) -> Iterator[str]:
        ...     yield from text.split()
        >>> @workflow
        ... def speak(text: str) -> Flow[str]:
        ...     return (yield from Stream(say, text).options(collect="-".join))
        >>> Engine("memory:", workflows=[speak]).start(speak, "a b c").unwrap()
        'a-b-c'
    """

    collect: Callable[[list[Any]], Any] | None = field(default=None, eq=False, repr=False)
    record_chunks: bool = field(default=False, eq=False, repr=False)

    @overload
    def __init__(
        self: Stream[R, Y], fn: Callable[P, Generator[Y, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> None: ...
    @overload
    def __init__(
        self: Stream[None, Y], fn: Callable[P, AsyncIterable[Y]], /, *args: P.args, **kwargs: P.kwargs
    ) -> None: ...
    @overload
    def __init__(self: Stream[Any, Y], fn: Callable[P, Iterable[Y]], /, *args: P.args, **kwargs: P.kwargs) -> None: ...
    def __init__(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        callee = callee_of(fn)
        if callee.no_stream:
            raise InvalidInputError(callee.no_stream)
        if callee.defaults.process:
            raise InvalidInputError(
                f"{callee.name!r} is marked with process=True, and what a stream yields is read in the engine's own "
                "process; use a Step, or leave process=True out"
            )
        self.__attrs_init__(fn, args, kwargs, callee.defaults, callee.name)  # pyright: ignore[reportAttributeAccessIssue]

    def __hash__(self) -> int:
        return hash((Stream, self.name))

    @property
    def kind(self) -> str:
        return "step"

    @overload  # type: ignore[override]  # `process` has no meaning here
    def options(
        self,
        *,
        name: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: timedelta | float | None = None,
        at_most_once: bool | None = None,
        heartbeat_timeout: timedelta | float | None = None,
        record_chunks: bool | None = None,
    ) -> Stream[T_co, C]: ...
    @overload
    def options(
        self,
        *,
        into: TypeForm[R],
        name: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: timedelta | float | None = None,
        at_most_once: bool | None = None,
        heartbeat_timeout: timedelta | float | None = None,
        collect: Callable[[list[C]], object] | None = None,
        record_chunks: bool | None = None,
    ) -> Stream[R, C]: ...
    @overload
    def options(
        self,
        *,
        collect: Callable[[list[C]], R],
        name: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: timedelta | float | None = None,
        at_most_once: bool | None = None,
        heartbeat_timeout: timedelta | float | None = None,
        record_chunks: bool | None = None,
    ) -> Stream[R, C]: ...
    def options(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        *,
        name: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: timedelta | float | None = None,
        at_most_once: bool | None = None,
        heartbeat_timeout: timedelta | float | None = None,
        into: Any = UNSET,
        collect: Callable[[list[C]], Any] | None = None,
        record_chunks: bool | None = None,
    ) -> Stream[Any, C]:
        """Give the same stream with other options; what is None keeps its value. See `StepOptions` for the others.

        Args:
            collect: makes the result of the list of chunks, as they were yielded, in place of the generator's return
                value: `"".join`, `list`, `sum`, a function of yours. All chunks are kept in memory for it. Its return
                annotation is the result's type where `into` is not given; a list of the chunks' type for `list`.
            record_chunks: write the chunks to the history too, so that readers in other processes and those who come
                late get them.

        Raises:
            InvalidInputError: an option has a wrong value.
        """
        if collect is not None and not callable(collect):
            raise InvalidInputError(f"a stream's collect must take the list of its chunks, got {collect!r}")
        if record_chunks is not None and not isinstance(record_chunks, bool):
            raise InvalidInputError(f"record_chunks must be True or False, got {record_chunks!r}")
        between = super().options(
            name=name,
            retry=retry,
            timeout=timeout,
            at_most_once=at_most_once,
            into=into,
            heartbeat_timeout=heartbeat_timeout,
        )
        made = made_in_turn.get()
        if made is not None:
            made.pop(id(between), None)  # this one is replaced too
        return self._with(
            self.args,
            self.kwargs,
            between.given,
            self.collect if collect is None else collect,
            self.record_chunks if record_chunks is None else record_chunks,
        )

    def replaced(self, args: tuple[Any, ...], kwargs: dict[str, Any], given: StepOptions) -> Stream[Any, C]:
        return self._with(args, kwargs, given, self.collect, self.record_chunks)

    def _with(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], given: StepOptions, collect: Any, record_chunks: bool
    ) -> Stream[Any, C]:
        name = given.name or callee_of(self.fn).name
        copy: Stream[Any, C] = object.__new__(Stream)
        copy.__attrs_init__(self.fn, args, kwargs, given, name, collect, record_chunks)  # pyright: ignore[reportAttributeAccessIssue]
        return copy
