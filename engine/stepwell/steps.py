"""Step: the command that calls user code. Floor 1."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from datetime import timedelta
from functools import partial
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, TypeVar, overload

import msgspec
from attrs import field, frozen

from .command import UNSET, Command, made_in_turn
from .errors import InvalidInputError
from .retry import RetryPolicy, as_seconds

if TYPE_CHECKING:
    from typing_extensions import TypeForm  # type checkers know it, installed or not

__all__ = ["Callee", "Step", "StepOptions", "callee_of", "step", "wrong_for_process"]

T_co = TypeVar("T_co", covariant=True)
R = TypeVar("R")
P = ParamSpec("P")


class StepOptions(msgspec.Struct, frozen=True):
    """How a step is performed. None and UNSET mean: what `@step` says, else the workflow's or engine's default.

    Attributes:
        name: name in the history; the function's own when None.
        retry: when to try again.
        timeout: seconds one attempt may take.
        at_most_once: record that the step begins, and never begin it twice.
        into: type of the result, in place of the function's return annotation.
        heartbeat_timeout: seconds that may pass between two heartbeats of one attempt.
        process: run each attempt in a process of its own, which can be killed.
        apart: whether an attempt runs beside its session, so that it can be left alone; follows from the others.
        plain: whether an attempt needs nothing but to be called; follows from the others.
    """

    name: str | None = None
    retry: RetryPolicy | None = None
    timeout: float | None = None
    at_most_once: bool | None = None
    into: Any = UNSET
    heartbeat_timeout: float | None = None
    process: bool | None = None
    apart: bool = False
    plain: bool = True

    def __post_init__(self) -> None:
        apart = self.timeout is not None or self.heartbeat_timeout is not None or bool(self.process)
        msgspec.structs.force_setattr(self, "apart", apart)
        msgspec.structs.force_setattr(self, "plain", not (apart or self.at_most_once))


def _options(
    name: str | None,
    retry: RetryPolicy | None,
    timeout: timedelta | float | None,
    at_most_once: bool | None,
    into: Any,
    heartbeat_timeout: timedelta | float | None,
    process: bool | None,
) -> StepOptions:
    if name is not None and (wrong := _wrong_step_name(name)):
        raise InvalidInputError(wrong)
    if retry is not None and not isinstance(retry, RetryPolicy):
        raise InvalidInputError(f"a step's retry must be a RetryPolicy, got {retry!r}")
    for known, flag in (("at_most_once", at_most_once), ("process", process)):
        if flag is not None and not isinstance(flag, bool):
            raise InvalidInputError(f"{known} must be True or False, got {flag!r}")
    seconds, patience = _positive(timeout, "timeout"), _positive(heartbeat_timeout, "heartbeat_timeout")
    return StepOptions(name, retry, seconds, at_most_once, into, patience, process)


def _positive(duration: timedelta | float | None, name: str) -> float | None:
    """A duration in seconds, more than 0."""
    if duration is None:
        return None
    seconds = as_seconds(duration, f"a step's {name}")
    if seconds == 0:
        raise InvalidInputError(f"a step's {name} must be more than 0 seconds")
    return seconds


def wrong_for_process(fn: Any) -> str:
    """Why a process of its own can't be told what to call, as far as the function itself shows, or ""."""
    name, module = getattr(fn, "__qualname__", None), getattr(fn, "__module__", None)
    what = None
    if not isinstance(name, str) or not isinstance(module, str) or isinstance(fn, MethodType):
        what = f"{fn!r} has no name of its own in a module"
    elif "<" in name:
        what = f"{_name(fn)!r} is defined inside another function, or a lambda"
    elif module == "__main__":
        what = f"{name!r} is defined in the program that was started, which would run again"
    if what is None:
        return ""
    return f"a step with process=True needs a function at the top of a module that can be imported, and {what}"


def _wrong_step_name(name: object, remedy: str = "") -> str:
    """Why a history can't hold this name, or ""."""
    if not isinstance(name, str) or not name or len(name) > 200 or not name.isprintable():
        return f"a step's name must be printable text of 1 to 200 characters, got {name!r}{remedy}"
    if "#" in name:
        return f"a step's name can't hold '#', which numbers repeats; got {name!r}{remedy}"
    return ""


_STEP_DEFAULTS = "__stepwell_step__"


def step(
    *,
    name: str | None = None,
    retry: RetryPolicy | None = None,
    timeout: timedelta | float | None = None,
    at_most_once: bool | None = None,
    into: Any = UNSET,
    heartbeat_timeout: timedelta | float | None = None,
    process: bool | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Set the defaults of a function that is used as a step; the function itself is returned, unwrapped.

    Args:
        name: name in the history; the function's own when None.
        retry: when to try again; None leaves it to the workflow and the engine.
        timeout: longest time of one attempt, timedelta or seconds; None means no limit.
        at_most_once: never begin the step a second time, even when its outcome is not known.
        into: type of the result, in place of the return annotation.
        heartbeat_timeout: longest time between two calls of `current_step().heartbeat()` in one attempt, timedelta or
            seconds; an attempt that is silent for longer is timed out. None means no limit.
        process: run each attempt in a process of its own, which a time-out, a cancel or the loss of the lease ends for
            good. The function has to be importable, arguments and result be JSON by their annotations.

    Raises:
        InvalidInputError: an option has a wrong value, or a process can't find the function.

    Example:
        >>> @step(retry=RetryPolicy(5), timeout=30)
        ... def fetch(url: str) -> str: ...
    """
    options = _options(name, retry, timeout, at_most_once, into, heartbeat_timeout, process)

    def mark(fn: Callable[P, R]) -> Callable[P, R]:
        if not callable(fn):
            raise InvalidInputError(f"@step decorates a function, got {fn!r}; write @step() with its brackets")
        if process and (wrong := wrong_for_process(fn)):
            raise InvalidInputError(wrong)
        try:
            setattr(fn, _STEP_DEFAULTS, options)
        except AttributeError as e:
            raise InvalidInputError(f"@step can't mark {fn!r}; wrap it in a function") from e
        getattr(fn, "__dict__", {}).pop(_CALLEE, None)
        return fn

    return mark


class Callee(msgspec.Struct, eq=False):
    """What is known of a function that steps call.

    Attributes:
        name: what a step of it is called.
        defaults: what `@step` says.
        trouble: why a Step can't be made of it, or "".
        is_async: whether what is called in the end is `async def`.
        result: the type of its result, once somebody has resolved it.
        no_stream: why a Stream can't be made of it, or "".
        owner: the id of the function that this is kept at: a decorator may have copied its attributes to another one.
    """

    name: str
    defaults: StepOptions
    trouble: str
    is_async: bool
    result: Any = None
    no_stream: str = ""
    owner: int = 0


_CALLEE = "__stepwell_callee__"  # of a function: what is known of it


def callee_of(fn: Callable[..., Any]) -> Callee:
    """What is known of a function; for plain ones and their methods it is found out once."""
    own: Any = getattr(fn, "__func__", fn) if type(fn) is MethodType else fn
    if type(own) is not FunctionType:
        return _look_at(fn)
    known: Callee | None = own.__dict__.get(_CALLEE)
    if known is None or known.owner != id(own):
        known = _look_at(fn)
        known.owner = id(own)
        setattr(own, _CALLEE, known)
    return known


def _look_at(fn: Any) -> Callee:
    if not callable(fn):
        trouble = "{0} needs a function and its arguments, got {1!r}; write {0}(f, x), not {0}(f(x))"
        return Callee("", StepOptions(), trouble.format("Step", fn), False, no_stream=trouble.format("Stream", fn))
    name, defaults, trouble = _name(fn), getattr(fn, _STEP_DEFAULTS, None) or StepOptions(), ""
    if defaults.name is None:
        trouble = _wrong_step_name(name, "; say another with @step(name=...)")
    inner = _behind(fn)
    no_stream = _no_stream(fn, inner) or trouble
    if _is_generator(inner):
        trouble = (
            f"Step can't call the generator function {_name(inner)!r}: its body would not run. Use Stream to call it "
            "and hand on what it yields, `yield from` to run a workflow in this one, or a plain function as the step"
        )
    return Callee(defaults.name or name, defaults, trouble, _is_async(fn), no_stream=no_stream)


def _is_generator(fn: Any) -> bool:
    """Whether a call gives a generator, sync or async."""
    return any(inspect.isgeneratorfunction(f) or inspect.isasyncgenfunction(f) for f in (fn, type(fn).__call__))


def _no_stream(fn: Any, inner: Any) -> str:
    """Why a Stream can't be made of a callable, or ""; `inner` is what it calls in the end."""
    while isinstance(fn, partial):
        fn = fn.func
    if not _is_generator(inner):
        return (
            f"Stream needs a generator function, and {_name(inner)!r} is none: write `def` or `async def` with "
            "`yield`, or a Step for a plain function"
        )
    if not _is_generator(fn):
        return (
            f"Stream can't call {_name(inner)!r}, a {type(fn).__name__} around a generator function: use `yield from` "
            "to run a workflow in this one, or a generator function of its own"
        )
    return ""


@frozen(init=False, slots=False)
class Step(Command[T_co]):
    """Call `fn(*args, **kwargs)` once, record what came of it, and give its result.

    `fn` may be sync or `async def`; its result enters the workflow as `decode(encode(result), annotation)`, live too.
    Arguments are copied, so a step can't change the workflow's own objects. Two Steps are equal when they ask for the
    same call. Determinism: performs, recorded as `step`.

    Raises:
        InvalidInputError: `fn` is not callable, is a generator function or a workflow (use a plain function, or run the
            generator in the workflow with `yield from`), or its own name can't be one in a history.
    """

    is_effect: ClassVar[bool] = True

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    given: StepOptions = field(eq=False, repr=False)
    name: str = field(eq=False, repr=False)
    """Name in the history: `.options(name=)`, `@step(name=)`, else the function's own."""

    @overload
    def __init__(
        self: Step[R], fn: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> None: ...
    @overload
    def __init__(self: Step[R], fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> None: ...
    def __init__(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        try:
            # as `callee_of`, without a call
            callee: Callee = fn.__stepwell_callee__  # type: ignore[attr-defined]  # pyright: ignore[reportFunctionMemberAccess]
            if callee.owner != id(fn):
                callee = callee_of(fn)
        except Exception:  # noqa: BLE001 - an object around a function may raise anything
            callee = callee_of(fn)
        if callee.trouble:
            raise InvalidInputError(callee.trouble)
        fields = self.__dict__  # what attrs would do for a frozen class, in half the time: every step has one of these
        fields["fn"] = fn
        fields["args"] = args
        fields["kwargs"] = kwargs
        fields["given"] = callee.defaults
        fields["name"] = callee.name
        made = made_in_turn.get()
        if made is not None:
            made[id(self)] = self

    def __hash__(self) -> int:
        return hash((Step, self.name))

    @property
    def label(self) -> str:
        return self.name

    @overload
    def options(
        self,
        *,
        name: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: timedelta | float | None = None,
        at_most_once: bool | None = None,
        heartbeat_timeout: timedelta | float | None = None,
        process: bool | None = None,
    ) -> Step[T_co]: ...
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
        process: bool | None = None,
    ) -> Step[R]: ...
    def options(
        self,
        *,
        name: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: timedelta | float | None = None,
        at_most_once: bool | None = None,
        into: Any = UNSET,
        heartbeat_timeout: timedelta | float | None = None,
        process: bool | None = None,
    ) -> Step[Any]:
        """Give the same step with other options, which are those of `@step`; what is None keeps its value.

        Raises:
            InvalidInputError: an option has a wrong value, or a process can't find the function.
        """
        new = _options(name, retry, timeout, at_most_once, into, heartbeat_timeout, process)
        if process and (wrong := wrong_for_process(self.fn)):
            raise InvalidInputError(wrong)
        old = self.given
        merged = StepOptions(
            name=old.name if new.name is None else new.name,
            retry=old.retry if new.retry is None else new.retry,
            timeout=old.timeout if new.timeout is None else new.timeout,
            at_most_once=old.at_most_once if new.at_most_once is None else new.at_most_once,
            into=old.into if new.into is UNSET else new.into,
            heartbeat_timeout=old.heartbeat_timeout if new.heartbeat_timeout is None else new.heartbeat_timeout,
            process=old.process if new.process is None else new.process,
        )
        made = made_in_turn.get()
        if made is not None:
            made.pop(id(self), None)  # this one is replaced, so nobody has to yield it
        return self.replaced(self.args, self.kwargs, merged)

    def replaced(self, args: tuple[Any, ...], kwargs: dict[str, Any], given: StepOptions) -> Step[Any]:
        """Give a step that calls the same function otherwise; for interpreters."""
        copy: Step[Any] = object.__new__(type(self))
        copy.__attrs_init__(self.fn, args, kwargs, given, given.name or callee_of(self.fn).name)  # pyright: ignore[reportAttributeAccessIssue]
        return copy


def _behind(fn: Callable[..., Any]) -> Any:
    """What a partial, or an object around a function such as a workflow, calls in the end.

    A plain function is taken as it is: a decorator may well collect what a generator function gives.
    """
    while isinstance(fn, partial):
        fn = fn.func
    if inspect.isfunction(fn) or inspect.ismethod(fn):
        return fn
    try:
        inner = inspect.unwrap(fn)
    except ValueError:  # an object that has every attribute, this one too
        return fn
    return inner if callable(inner) else fn


def _name(fn: Callable[..., Any]) -> str:
    while isinstance(fn, partial) and not hasattr(fn, "__name__"):
        fn = fn.func
    name = getattr(fn, "__name__", None) or type(fn).__name__
    return str(name)


def _is_async(fn: Any) -> bool:
    inner = _behind(fn)
    while isinstance(inner, partial):
        inner = inner.func
    inner = inner if not inspect.isfunction(inner) else inspect.unwrap(inner)
    if inspect.isasyncgenfunction(inner) or inspect.isasyncgenfunction(type(inner).__call__):
        return True
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(getattr(inner, "__call__", None))  # noqa: B004 - the method itself is wanted
