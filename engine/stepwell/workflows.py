"""A workflow: a generator function with a name, a version and defaults. Floor 1."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cached_property
from typing import Any, Generic, ParamSpec, TypeVar, overload

from attrs import field, frozen

from .command import Flow
from .errors import InvalidInputError
from .retry import RetryPolicy, as_seconds

__all__ = ["Workflow", "check_workflow", "checked_workflow_options", "workflow"]

R = TypeVar("R")
P = ParamSpec("P")


@frozen(eq=False, slots=False)
class Workflow(Generic[P, R]):
    """What `@workflow` makes. Calling it gives its generator, so `yield from other(x)` puts one inline in another.

    Attributes:
        fn: the generator function.
        name: name in histories and in the engine's registry.
        version: version in histories; several versions of one name may live in one engine.
        retry: default retry policy of its steps; None leaves it to the engine.
        restart: when a run that fails is retried from its failed step, by itself; None: never.
        strict_inputs: whether a replay compares the inputs of steps with the recorded ones; None: as the engine says.
        ttl: seconds after which a closed run of it may be removed by whoever prunes; None keeps it for ever.
        recursive: whether it may be its own descendant.
    """

    fn: Callable[P, Flow[R]]
    name: str = field(kw_only=True)
    version: str = field(kw_only=True, default="1")
    retry: RetryPolicy | None = field(kw_only=True, default=None)
    restart: RetryPolicy | None = field(kw_only=True, default=None)
    strict_inputs: bool | None = field(kw_only=True, default=None)
    ttl: float | None = field(kw_only=True, default=None)
    recursive: bool = field(kw_only=True, default=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "__doc__", self.fn.__doc__)
        object.__setattr__(self, "__wrapped__", self.fn)
        object.__setattr__(self, "__module__", self.fn.__module__)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Flow[R]:
        return self.fn(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<workflow {self.name} version {self.version}>"

    @property
    def annotated(self) -> Callable[..., Any]:
        """Whose annotations say the types of its parameters."""
        return self.fn

    @property
    def sources(self) -> tuple[Callable[..., Any], ...]:
        """The functions whose code it is: when they change, a run that they did not fit is tried again."""
        return (self.annotated,)

    @cached_property
    def signature(self) -> inspect.Signature:
        """The parameters of the generator function."""
        return inspect.signature(self.fn)

    @cached_property
    def _defaults(self) -> tuple[Any, ...]:
        """What parameters have by themselves, in their order; `Parameter.empty` where one must be given."""
        return tuple(parameter.default for parameter in self.signature.parameters.values())

    def filled(self, args: Sequence[Any]) -> tuple[Any, ...]:
        """The arguments of a call, with defaults.

        Raises:
            TypeError: too few or too many.
        """
        defaults = self._defaults
        rest = defaults[len(args) :]
        if len(args) > len(defaults) or any(default is inspect.Parameter.empty for default in rest):
            self.signature.bind(*args)  # which says what is wrong
        return (*args, *rest)


@overload
def workflow(fn: Callable[P, Flow[R]], /) -> Workflow[P, R]: ...
@overload
def workflow(
    *,
    name: str | None = None,
    version: str = "1",
    retry: RetryPolicy | None = None,
    restart: RetryPolicy | None = None,
    strict_inputs: bool | None = None,
    ttl: timedelta | float | None = None,
    recursive: bool = False,
) -> Callable[[Callable[P, Flow[R]]], Workflow[P, R]]: ...
def workflow(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    version: str = "1",
    retry: RetryPolicy | None = None,
    restart: RetryPolicy | None = None,
    strict_inputs: bool | None = None,
    ttl: timedelta | float | None = None,
    recursive: bool = False,
) -> Any:
    """Make a workflow of a generator function; nothing is registered anywhere until an `Engine` is given it.

    Args:
        name: name in histories; the function's own when None.
        version: printable text; change it when running runs must stay on the old code.
        retry: default retry policy of its steps.
        restart: a run that fails is retried from its failed step, as `engine.retry` does it, after the policy's delay,
            until its `attempts` runs have failed; None: never. Its `on`, `give_up_on` and `when` judge what left the
            workflow: the exception, or the recorded failure of the step.
        strict_inputs: True: a step whose inputs are not the recorded ones any more is a divergence, and blocks the run;
            None leaves it to the engine, which compares only when it is told to.
        ttl: how long a closed run of it is kept, timedelta or seconds; then `engine.prune()`, a worker or `stepwell
            prune` removes it. None keeps it for ever.
        recursive: whether a Child of it may begin among its own descendants.

    Raises:
        InvalidInputError: the function is no generator function (it has no `yield`, or is async), takes keyword-only or
            variable arguments, or an option is wrong.

    Example:
        >>> from stepwell import Flow, Step
        >>> @workflow
        ... def double(x: int) -> Flow[int]:
        ...     return (yield from Step(int.__mul__, x, 2).options(into=int))
        >>> double
        <workflow double version 1>
    """
    options: dict[str, Any] = {"retry": retry, "restart": restart, "strict_inputs": strict_inputs}
    options |= {"ttl": ttl, "recursive": recursive}
    if fn is None:
        return lambda f: _make(f, name, version, **options)
    return _make(fn, name, version, **options)


def check_workflow(value: object) -> Workflow[..., Any]:
    """Give a workflow back; anything else raises InvalidInputError."""
    if not isinstance(value, Workflow):
        hint = "; decorate it with @workflow" if callable(value) else ""
        raise InvalidInputError(f"workflows are made with @workflow, got {value!r}{hint}")
    return value


def _make(
    fn: Any,
    name: str | None,
    version: str,
    *,
    retry: RetryPolicy | None,
    restart: RetryPolicy | None,
    strict_inputs: bool | None,
    ttl: timedelta | float | None,
    recursive: bool,
) -> Workflow[..., Any]:
    if isinstance(fn, Workflow):
        raise InvalidInputError(f"{fn!r} is a workflow already")
    if not inspect.isgeneratorfunction(fn):
        hint = "an async generator" if inspect.isasyncgenfunction(fn) else "no generator function"
        raise InvalidInputError(
            f"@workflow needs a generator function, and {getattr(fn, '__qualname__', fn)!r} is {hint}: "
            "write `def` and `yield` its commands"
        )
    for parameter in inspect.signature(fn).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            raise InvalidInputError(
                f"workflow {fn.__qualname__!r}: parameter {parameter} is {parameter.kind.description}; "
                "a workflow takes positional arguments, which are recorded in their order"
            )
    chosen = fn.__name__ if name is None else name
    checked_workflow_options(chosen, version, retry, restart, strict_inputs)
    return Workflow(
        fn,
        name=chosen,
        version=version,
        retry=retry,
        restart=restart,
        strict_inputs=strict_inputs,
        ttl=None if ttl is None else as_seconds(ttl, "a workflow's ttl"),
        recursive=bool(recursive),
    )


def checked_workflow_options(
    name: object, version: object, retry: object, restart: object, strict_inputs: object
) -> None:
    """Refuse wrong options of a workflow with InvalidInputError."""
    for what, text in (("name", name), ("version", version)):
        if not isinstance(text, str) or not text or len(text) > 200 or not text.isprintable():
            raise InvalidInputError(f"a workflow's {what} must be printable text of 1 to 200 characters, got {text!r}")
    for what, policy in (("retry", retry), ("restart", restart)):
        if policy is not None and not isinstance(policy, RetryPolicy):
            raise InvalidInputError(f"a workflow's {what} must be a RetryPolicy, got {policy!r}")
    if strict_inputs is not None and not isinstance(strict_inputs, bool):
        raise InvalidInputError(f"a workflow's strict_inputs must be True, False or None, got {strict_inputs!r}")
