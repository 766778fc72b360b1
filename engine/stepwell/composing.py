"""`durable`: any callable as a workflow of one step. Floor 1."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Generator
from datetime import timedelta
from functools import partial
from typing import Any, ParamSpec, TypeVar, overload

from attrs import field, frozen

from .errors import InvalidInputError
from .retry import RetryPolicy
from .steps import Step, callee_of
from .workflows import Workflow, checked_workflow_options

__all__ = ["OneStep", "durable"]

R = TypeVar("R")
P = ParamSpec("P")


@frozen(eq=False, slots=False, repr=False)
class OneStep(Workflow[P, R]):
    """What `durable` makes: equal when it calls the same thing in the same way, so it may be made anew at each use.

    Attributes:
        called: what its step calls.
        options: how.
    """

    called: Callable[..., Any] = field(kw_only=True)
    options: dict[str, Any] = field(kw_only=True)

    @property
    def annotated(self) -> Callable[..., Any]:
        """Whose annotations say the types of its parameters and of its result."""
        return self.called

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, OneStep):
            return NotImplemented
        return self._asked() == other._asked() and _same(self.called, other.called)

    def __hash__(self) -> int:
        return hash((OneStep, self.name, self.version))

    def _asked(self) -> tuple[Any, ...]:
        return self.name, self.version, self.restart, self.options


@overload
def durable(
    fn: Callable[P, Coroutine[Any, Any, R]],
    /,
    *,
    name: str | None = None,
    version: str = "1",
    retry: RetryPolicy | None = None,
    timeout: timedelta | float | None = None,
    at_most_once: bool | None = None,
    restart: RetryPolicy | None = None,
) -> Workflow[P, R]: ...
@overload
def durable(
    fn: Callable[P, R],
    /,
    *,
    name: str | None = None,
    version: str = "1",
    retry: RetryPolicy | None = None,
    timeout: timedelta | float | None = None,
    at_most_once: bool | None = None,
    restart: RetryPolicy | None = None,
) -> Workflow[P, R]: ...
def durable(
    fn: Callable[..., Any],
    /,
    *,
    name: str | None = None,
    version: str = "1",
    retry: RetryPolicy | None = None,
    timeout: timedelta | float | None = None,
    at_most_once: bool | None = None,
    restart: RetryPolicy | None = None,
) -> Workflow[..., Any]:
    """Make a workflow of one step out of any callable: `engine.start(durable(f), x)` gives what `f(x)` gives.

    The call is recorded, tried again as the policy says, and not made again once it is done. `durable(f)` may be
    written wherever it is needed: of the same callable and options it is the same workflow. A worker that is to drive
    its runs has it in its `workflows=[...]`.

    Args:
        fn: sync or `async def`; a function, a method of an object, a partial. Its positional parameters are the
            workflow's; keyword-only ones keep their defaults.
        name: name in histories, of workflow and step; the function's own when None.
        version: as of `@workflow`.
        retry, timeout, at_most_once: as of `Step.options`; None leaves them to what `@step` says of the function.
        restart: as of `@workflow`: when a run of it that failed is retried by itself.

    Raises:
        InvalidInputError: it is not callable, a generator function or a workflow; it has no name of its own (a lambda,
            a partial, an object that can be called), and none is given; it needs keywords, or takes `*args`; or an
            option is wrong.

    Example:
        >>> from stepwell import Engine
        >>> def greet(name: str) -> str:
        ...     return f"hello, {name}"
        >>> Engine("memory:").start(durable(greet), "ada", run_id="greet-ada").unwrap()
        'hello, ada'
    """
    if isinstance(fn, Workflow):
        raise InvalidInputError(f"{fn!r} is a workflow already; start it as it is")
    if not callable(fn):
        raise InvalidInputError(
            f"durable() needs a function, got {fn!r}; write durable(f), and start it with f's arguments"
        )
    callee = callee_of(fn)
    if callee.trouble:
        raise InvalidInputError(callee.trouble.replace("Step can't", "durable() can't"))
    chosen = _own_name(fn, callee.name) if name is None else name
    checked_workflow_options(chosen, version, None, restart, None)
    step_name = {} if name is None else {"name": name}
    options: dict[str, Any] = {**step_name, "retry": retry, "timeout": timeout, "at_most_once": at_most_once}
    Step(fn).options(**options)  # says what is wrong with them

    def one_step(*args: Any) -> Generator[Any, Any, Any]:
        return (yield from Step(fn, *args).options(**options))

    one_step.__signature__ = _positional(fn, chosen)  # type: ignore[attr-defined]
    one_step.__name__ = one_step.__qualname__ = chosen
    one_step.__module__ = str(getattr(fn, "__module__", None) or __name__)
    one_step.__doc__ = inspect.getdoc(fn)
    return OneStep(one_step, name=chosen, version=version, restart=restart, called=fn, options=options)


def _own_name(fn: Callable[..., Any], found: str) -> str:
    """The name that a callable has of its own."""
    bare = isinstance(fn, partial) or getattr(fn, "__name__", "<lambda>") == "<lambda>"
    if bare and found in (getattr(_innermost(fn), "__name__", ""), type(fn).__name__, "<lambda>"):
        what = "a partial" if isinstance(fn, partial) else "a lambda" if found == "<lambda>" else "an object"
        raise InvalidInputError(
            f"durable({fn!r}): {what} has no name of its own to be recorded by; say durable(..., name=...)"
        )
    return found


def _innermost(fn: Any) -> Any:
    while isinstance(fn, partial):
        fn = fn.func
    return fn


def _positional(fn: Callable[..., Any], name: str) -> inspect.Signature:
    """The parameters that a run of it may be given."""
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"durable({name!r}): Python can't tell its parameters ({error}); wrap it in a function of your own"
        ) from error
    kept = []
    for parameter in signature.parameters.values():
        needed = parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty
        if parameter.kind is parameter.VAR_POSITIONAL or needed:
            raise InvalidInputError(
                f"durable({name!r}): parameter {parameter} is {parameter.kind.description}, and the arguments of a run "
                "are positional and of a fixed number; fill it in with functools.partial and a name=, or wrap it"
            )
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            kept.append(parameter.replace(kind=parameter.POSITIONAL_ONLY))
    return signature.replace(parameters=kept)


def _same(one: Any, other: Any) -> bool:
    """Whether two callables are the same: a method of one object, or a partial of the same, is made anew each time."""
    if isinstance(one, partial) and isinstance(other, partial):
        filled = one.args == other.args and one.keywords == other.keywords
        return bool(filled) and _same(one.func, other.func)
    return bool(one == other)
