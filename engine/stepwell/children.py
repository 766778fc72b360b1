"""Child and ContinueAsNew: the commands that begin runs. Floor 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, ParamSpec, TypeVar, overload

from attrs import field, frozen

from .command import Command, made_in_turn
from .errors import InvalidInputError
from .workflows import Workflow

__all__ = ["Child", "ContinueAsNew", "check_amount"]

MAX_RUN_ID = 200
"""Bytes of a run id, at most."""

T_co = TypeVar("T_co", covariant=True)
R = TypeVar("R")
P = ParamSpec("P")


def check_amount(value: object, what: str) -> float:
    """Give an amount back: a finite number, 0 or more.

    Raises:
        InvalidInputError: it is something else; the message calls it `what`.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 2**63:
        raise InvalidInputError(f"{what} must be a number, 0 or more, got {value!r}")
    return value


def _check_tags(tags: object) -> None:
    """Refuse what a start would refuse, before the child is recorded."""
    pairs = tags.items() if isinstance(tags, Mapping) else [(tags, None)]
    for name, value in pairs:
        if not isinstance(name, str) or not 1 <= len(name) <= 200 or not name.isprintable():
            raise InvalidInputError(f"a child's tags map printable text of 1 to 200 characters to text, got {name!r}")
        if not isinstance(value, str) or len(value) > 10_000 or any("\ud800" <= one <= "\udfff" for one in value):
            raise InvalidInputError(f"the value of a child's tag {name!r} must be text, got {value!r:.80}")


def _bound(workflow: Any, args: tuple[Any, ...], kwargs: dict[str, Any], what: str) -> tuple[Any, ...]:
    """The arguments of a workflow in their order, defaults included."""
    try:
        bound = workflow.signature.bind(*args, **kwargs)
    except TypeError as error:
        raise InvalidInputError(f"{what}: workflow {workflow.name!r} takes {workflow.signature}: {error}") from error
    bound.apply_defaults()
    return tuple(bound.arguments.values())


@frozen(init=False, slots=False)
class Child(Command[T_co]):
    """Run another workflow as a run of its own, and give its result.

    The child has a history, a status and signals of its own, and a run id that follows from this run, so that a crash
    never starts it twice. It may run on another machine. When it fails or is cancelled by somebody, `ChildFailed` is
    thrown; when this run is cancelled, the cancel is passed on and the child's end awaited. Two are equal when
    they ask for the same workflow and arguments. Determinism: recorded as `child`, answered by `childResult`.

    Args:
        workflow: what `@workflow` made.
        args, kwargs: its arguments.

    Raises:
        InvalidInputError: that is no workflow, or the arguments are not its.
    """

    is_child: ClassVar[bool] = True

    workflow: Workflow[..., Any]
    args: tuple[Any, ...]
    run_id: str | None = field(eq=False)
    detached: bool = field(eq=False)
    budget: float | None = field(eq=False)
    tags: dict[str, str] = field(eq=False, factory=dict)
    join: bool = field(eq=False, default=False)

    def __init__(self, workflow: Workflow[P, T_co], /, *args: P.args, **kwargs: P.kwargs) -> None:
        if not isinstance(workflow, Workflow):
            hint = "; decorate it with @workflow" if callable(workflow) else ""
            raise InvalidInputError(f"Child takes a workflow and its arguments, got {workflow!r}{hint}")
        self.__attrs_init__(workflow, _bound(workflow, args, kwargs, "Child"), None, False, None)  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def label(self) -> str:
        return self.workflow.name

    def __hash__(self) -> int:
        return hash((Child, self.workflow.name))

    @overload
    def options(
        self,
        *,
        run_id: str | None = None,
        budget: float | None = None,
        tags: Mapping[str, str] | None = None,
        join: bool = False,
    ) -> Child[T_co]: ...
    @overload
    def options(
        self,
        *,
        detached: Literal[True],
        run_id: str | None = None,
        budget: float | None = None,
        tags: Mapping[str, str] | None = None,
        join: bool = False,
    ) -> Child[str]: ...
    def options(
        self,
        *,
        run_id: str | None = None,
        detached: bool = False,
        budget: float | None = None,
        tags: Mapping[str, str] | None = None,
        join: bool = False,
    ) -> Child[Any]:
        """Give the same child with other options; what is not given keeps its value.

        Args:
            run_id: its run id, when others have to find it by one of your choice; None derives one from this run.
            detached: do not wait for it: the value is its run id as soon as it is there, and it lives on whatever
                becomes of this run.
            budget: what it may spend; None: as much as this run has left. What it spends is charged to this run too,
                unless it is detached.
            tags: labels to find it by, text to text.
            join: a run of this workflow that has the `run_id` already, whoever started it and with whatever input, is
                taken for the child, open or closed; else that is a `ConflictError`.

        Raises:
            InvalidInputError: an option has a wrong value.
        """
        if run_id is not None:
            printable = isinstance(run_id, str) and run_id.isprintable()
            if not printable or not 1 <= len(run_id.encode("utf-8", "replace")) <= MAX_RUN_ID:
                raise InvalidInputError(
                    f"a child's run_id must be printable text of 1 to {MAX_RUN_ID} bytes, got {run_id!r:.80}"
                )
        if budget is not None:
            check_amount(budget, "a child's budget")
        if tags is not None:
            _check_tags(tags)
        if join and run_id is None and self.run_id is None:
            raise InvalidInputError("join is for a child with a run_id of your choice: give run_id too")
        if (made := made_in_turn.get()) is not None:
            made.pop(id(self), None)  # this one is replaced, so nobody has to yield it
        other: Child[Any] = object.__new__(Child)
        other.__attrs_init__(  # pyright: ignore[reportAttributeAccessIssue]
            self.workflow,
            self.args,
            self.run_id if run_id is None else run_id,
            self.detached or bool(detached),
            self.budget if budget is None else budget,
            self.tags if tags is None else dict(tags),
            self.join or bool(join),
        )
        return other


@frozen(init=False, slots=False)
class ContinueAsNew(Command[Any]):
    """End this history and go on with a new one, with these arguments, under the same run id. Never gives a value.

    What a loop that runs for ever yields from time to time, so that its history stays short. Signals that nobody has
    waited for are carried over, and so are the budget and tags; the state of `SetState` and the compensations are not.
    The workflow is left by an exception of its own, so that `finally` runs; only the workflow itself may yield this,
    not a branch of a group. Determinism: recorded as the `start` of the next history.

    Args:
        args: the arguments of the next incarnation, all of them by position.
    """

    numbered: ClassVar[bool] = False

    args: tuple[Any, ...]

    def __init__(self, *args: Any) -> None:
        self.__attrs_init__(args)  # pyright: ignore[reportAttributeAccessIssue]
