"""Transaction: the command that calls user code inside a transaction of the store. Floor 1."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from msgspec.structs import replace

from .command import UNSET
from .errors import InvalidInputError
from .retry import RetryPolicy
from .steps import Step, callee_of

if TYPE_CHECKING:
    from typing_extensions import TypeForm  # type checkers know it, installed or not

__all__ = ["Transaction"]


class _Connection(Protocol):
    """A connection of a driver of Python's database API: `sqlite3.Connection`, and others of its kind."""

    def cursor(self) -> Any: ...
    def commit(self) -> None: ...
    def rollback(self) -> None: ...


T_co = TypeVar("T_co", covariant=True)
R = TypeVar("R")
P = ParamSpec("P")
C = TypeVar("C", bound=_Connection)


class Transaction(Step[T_co]):
    """Call `fn(connection, *args, **kwargs)` in a transaction of the store, and give its result: exactly once.

    `connection` is the store's own: a `sqlite3.Connection` on SQLite, and what is used as a `psycopg.Connection` on
    Postgres. The rows that `fn` writes and the record of the step are committed together: after a crash both are there,
    or none, and then it runs again. An `fn` that raises is rolled back whole. It can't commit or roll back itself,
    change the store's own tables, or take longer than a third of the engine's lease, at most 5 s; savepoints it may
    use. It runs in the session's thread, one after the other, and other writers wait meanwhile: on SQLite all of the
    file's, on Postgres those of the run. Other things than rows (mail, HTTP) belong into a Step.

    Two Transactions are equal when they ask for the same call. Determinism: performs, recorded as `step`.

    Raises:
        InvalidInputError: `fn` is not callable, or is `async def`, a generator function or a workflow; or, at the
            `yield`, the store is none that can take in a program's own rows, or `timeout` is longer than allowed.

    Example:
        >>> import sqlite3
        >>> from stepwell import Flow, Transaction, workflow
        >>> def book(connection: sqlite3.Connection, account: str, cents: int) -> int:
        ...     row = (cents, account)
        ...     return connection.execute("UPDATE accounts SET cents = cents + ? WHERE name = ?", row).rowcount
        >>> @workflow
        ... def pay_in(account: str, cents: int) -> Flow[bool]:
        ...     return (yield from Transaction(book, account, cents)) == 1
    """

    def __init__(
        self: Transaction[R], fn: Callable[Concatenate[C, P], R], /, *args: P.args, **kwargs: P.kwargs
    ) -> None:
        callee = callee_of(fn)
        trouble = callee.trouble
        if callee.is_async:
            trouble = (
                f"Step can't await the async function {callee.name!r}: a transaction is not kept open while others "
                "run. Await in a Step before, and write its result in a plain function"
            )
        if trouble:
            raise InvalidInputError(f"Transaction{trouble.removeprefix('Step')}".replace("Step(f", "Transaction(f"))
        given = callee.defaults
        if (given.at_most_once, given.heartbeat_timeout, given.process) != (None, None, None):
            # for Steps: a transaction is done exactly once, in the session's own thread
            given = replace(given, at_most_once=None, heartbeat_timeout=None, process=None)
        self.__attrs_init__(fn, args, kwargs, given, callee.name)  # pyright: ignore[reportAttributeAccessIssue]

    @overload  # type: ignore[override]  # `at_most_once` has no meaning here
    def options(
        self, *, name: str | None = None, retry: RetryPolicy | None = None, timeout: timedelta | float | None = None
    ) -> Transaction[T_co]: ...
    @overload
    def options(
        self,
        *,
        into: TypeForm[R],
        name: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: timedelta | float | None = None,
    ) -> Transaction[R]: ...
    def options(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        *,
        name: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: timedelta | float | None = None,
        into: Any = UNSET,
    ) -> Transaction[Any]:
        """Give the same transaction with other options; what is None keeps its value.

        Args:
            name: name in the history; the function's own when None.
            retry: when to try again; each attempt is a transaction of its own.
            timeout: longest time of one attempt, timedelta or seconds; None means as long as is allowed.
            into: type of the result, in place of the function's return annotation.

        Raises:
            InvalidInputError: an option has a wrong value.
        """
        made = super().options(name=name, retry=retry, timeout=timeout, into=into)
        assert isinstance(made, Transaction)
        return made
