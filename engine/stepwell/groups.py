"""All and Race: commands that run branches at once. Floor 1."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar, Literal, TypeVar, overload

from attrs import field, frozen

from .command import Branch, Command, made_in_turn
from .errors import InvalidInputError

__all__ = ["All", "Race"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")
T6 = TypeVar("T6")


@frozen(init=False, slots=False)
class All(Command[T_co]):
    """Run branches at once and give the tuple of their values, in their order, when every one has ended.

    The first failure cancels the others and is raised when they have ended; later failures become its notes. `All()`
    gives `()` at once. Branches are commands or generators; groups nest. A type checker knows up to six branches one by
    one, and of more than six what their types have in common.

    Args:
        limit: how many branches may be under way at once; None means all.
        settle: give values and exceptions side by side, and cancel nobody.
    """

    is_group: ClassVar[bool] = True

    branches: tuple[Any, ...]
    limit: int | None = field(eq=False)
    settle: bool

    @overload
    def __init__(self: All[tuple[()]], *, limit: int | None = None, settle: bool = False) -> None: ...
    @overload
    def __init__(
        self: All[tuple[T1]], b1: Branch[T1], /, *, limit: int | None = None, settle: Literal[False] = False
    ) -> None: ...
    @overload
    def __init__(
        self: All[tuple[T1, T2]],
        b1: Branch[T1],
        b2: Branch[T2],
        /,
        *,
        limit: int | None = None,
        settle: Literal[False] = False,
    ) -> None: ...
    @overload
    def __init__(
        self: All[tuple[T1, T2, T3]],
        b1: Branch[T1],
        b2: Branch[T2],
        b3: Branch[T3],
        /,
        *,
        limit: int | None = None,
        settle: Literal[False] = False,
    ) -> None: ...
    @overload
    def __init__(
        self: All[tuple[T1, T2, T3, T4]],
        b1: Branch[T1],
        b2: Branch[T2],
        b3: Branch[T3],
        b4: Branch[T4],
        /,
        *,
        limit: int | None = None,
        settle: Literal[False] = False,
    ) -> None: ...
    @overload
    def __init__(
        self: All[tuple[T1, T2, T3, T4, T5]],
        b1: Branch[T1],
        b2: Branch[T2],
        b3: Branch[T3],
        b4: Branch[T4],
        b5: Branch[T5],
        /,
        *,
        limit: int | None = None,
        settle: Literal[False] = False,
    ) -> None: ...
    @overload
    def __init__(
        self: All[tuple[T1, T2, T3, T4, T5, T6]],
        b1: Branch[T1],
        b2: Branch[T2],
        b3: Branch[T3],
        b4: Branch[T4],
        b5: Branch[T5],
        b6: Branch[T6],
        /,
        *,
        limit: int | None = None,
        settle: Literal[False] = False,
    ) -> None: ...
    @overload
    def __init__(
        self: All[tuple[T, ...]], *branches: Branch[T], limit: int | None = None, settle: Literal[False] = False
    ) -> None: ...
    @overload
    def __init__(
        self: All[tuple[T1 | BaseException]], b1: Branch[T1], /, *, limit: int | None = None, settle: Literal[True]
    ) -> None: ...
    @overload
    def __init__(
        self: All[tuple[T1 | BaseException, T2 | BaseException]],
        b1: Branch[T1],
        b2: Branch[T2],
        /,
        *,
        limit: int | None = None,
        settle: Literal[True],
    ) -> None: ...
    @overload
    def __init__(
        self: All[tuple[T1 | BaseException, T2 | BaseException, T3 | BaseException]],
        b1: Branch[T1],
        b2: Branch[T2],
        b3: Branch[T3],
        /,
        *,
        limit: int | None = None,
        settle: Literal[True],
    ) -> None: ...
    @overload
    def __init__(
        self: All[tuple[T1 | BaseException, T2 | BaseException, T3 | BaseException, T4 | BaseException]],
        b1: Branch[T1],
        b2: Branch[T2],
        b3: Branch[T3],
        b4: Branch[T4],
        /,
        *,
        limit: int | None = None,
        settle: Literal[True],
    ) -> None: ...
    @overload
    def __init__(
        self: All[
            tuple[T1 | BaseException, T2 | BaseException, T3 | BaseException, T4 | BaseException, T5 | BaseException]
        ],
        b1: Branch[T1],
        b2: Branch[T2],
        b3: Branch[T3],
        b4: Branch[T4],
        b5: Branch[T5],
        /,
        *,
        limit: int | None = None,
        settle: Literal[True],
    ) -> None: ...
    @overload
    def __init__(
        self: All[
            tuple[
                T1 | BaseException,
                T2 | BaseException,
                T3 | BaseException,
                T4 | BaseException,
                T5 | BaseException,
                T6 | BaseException,
            ]
        ],
        b1: Branch[T1],
        b2: Branch[T2],
        b3: Branch[T3],
        b4: Branch[T4],
        b5: Branch[T5],
        b6: Branch[T6],
        /,
        *,
        limit: int | None = None,
        settle: Literal[True],
    ) -> None: ...
    @overload
    def __init__(
        self: All[tuple[T | BaseException, ...]], *branches: Branch[T], limit: int | None = None, settle: bool
    ) -> None: ...
    def __init__(self, *branches: Any, limit: int | None = None, settle: bool = False) -> None:
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise InvalidInputError(f"All's limit must be a whole number of 1 or more, got {limit!r}")
        _check_branches("All", branches)
        self.__attrs_init__(branches, limit, bool(settle))  # pyright: ignore[reportAttributeAccessIssue]


@frozen(init=False, slots=False)
class Race(Command[T_co]):
    """Run branches at once; the first to end decides, by its value or its failure, and the others are cancelled.

    Gives `(index, value)` of the winner, or `(name, value)` when branches are named. The results of losers that come
    late are dropped. To a type checker, the value of up to six branches by position is of one of their types; of named
    ones it is what their types have in common (annotate the command to say more: `r: Race[tuple[str, int | None]]`).
    """

    is_group: ClassVar[bool] = True

    branches: tuple[Any, ...]
    names: tuple[str, ...] | None

    @overload
    def __init__(self: Race[tuple[int, T1]], b1: Branch[T1], /) -> None: ...
    @overload
    def __init__(self: Race[tuple[int, T1 | T2]], b1: Branch[T1], b2: Branch[T2], /) -> None: ...
    @overload
    def __init__(self: Race[tuple[int, T1 | T2 | T3]], b1: Branch[T1], b2: Branch[T2], b3: Branch[T3], /) -> None: ...
    @overload
    def __init__(
        self: Race[tuple[int, T1 | T2 | T3 | T4]], b1: Branch[T1], b2: Branch[T2], b3: Branch[T3], b4: Branch[T4], /
    ) -> None: ...
    @overload
    def __init__(
        self: Race[tuple[int, T1 | T2 | T3 | T4 | T5]],
        b1: Branch[T1],
        b2: Branch[T2],
        b3: Branch[T3],
        b4: Branch[T4],
        b5: Branch[T5],
        /,
    ) -> None: ...
    @overload
    def __init__(
        self: Race[tuple[int, T1 | T2 | T3 | T4 | T5 | T6]],
        b1: Branch[T1],
        b2: Branch[T2],
        b3: Branch[T3],
        b4: Branch[T4],
        b5: Branch[T5],
        b6: Branch[T6],
        /,
    ) -> None: ...
    @overload
    def __init__(self: Race[tuple[int, T]], /, *branches: Branch[T]) -> None: ...
    @overload
    def __init__(self: Race[tuple[str, T]], /, **named: Branch[T]) -> None: ...
    def __init__(self, /, *branches: Any, **named: Any) -> None:
        if bool(branches) == bool(named):
            raise InvalidInputError("Race takes branches, either all by position or all by name, and at least one")
        _check_branches("Race", (*branches, *named.values()))
        self.__attrs_init__(branches or tuple(named.values()), tuple(named) or None)  # pyright: ignore[reportAttributeAccessIssue]


def _check_branches(name: str, branches: tuple[Any, ...]) -> None:
    made = made_in_turn.get()
    seen: set[int] = set()
    for i, branch in enumerate(branches):
        if isinstance(branch, Command):
            if not branch.numbered:
                raise InvalidInputError(f"{type(branch).__name__} can't be a branch of {name}: yield it on its own")
            if made is not None:
                made.pop(id(branch), None)
        elif not inspect.isgenerator(branch):
            raise InvalidInputError(
                f"branch {i} of {name} must be a command or a generator, got {branch!r}"
                + ("; call the generator function" if inspect.isgeneratorfunction(branch) else "")
            )
        elif id(branch) in seen:
            raise InvalidInputError(f"branch {i} of {name} is a generator that another branch has already")
        elif inspect.getgeneratorstate(branch) != inspect.GEN_CREATED:
            raise InvalidInputError(f"branch {i} of {name} is a generator that has been started already")
        else:
            seen.add(id(branch))
