"""The connections of a Postgres store, its own or those of a pool that the program has, and what their errors mean.

No session state is relied on: a write is one statement, or one transaction that sets what it needs for itself. So a
pooler may stand between that gives each transaction another session.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from inspect import iscoroutinefunction
from os import getpid
from typing import Any, Protocol, TypeVar

from stepwell.errors import ClosedError, InvalidInputError, StoreError, StoreMisconfiguredError

from ..liveness import ForkAware, watch_forks
from ..outcomes import NotWrittenError
from .address import Address, psycopg
from .errors import LostError, Phase, judged, unreachable
from .schema import check_server, check_version, prepare_tables
from .session import Session

__all__ = ["Connections", "Pool", "check_pool"]

T = TypeVar("T")

BUSY_SECONDS = 10.0
"""How long a caller waits for a free connection."""

_inherited: list[Any] = []  # connections of a parent process, which a child must neither use nor close


class Pool(Protocol):
    """What a store needs of a pool that the program has: `psycopg_pool.ConnectionPool`, or one like it."""

    def getconn(self, timeout: float | None = None) -> Any:
        """Give a connection."""
        ...

    def putconn(self, conn: Any) -> None:
        """Take it back."""
        ...


def check_pool(pool: object) -> None:
    """Refuse what is no pool of connections that one can wait for.

    Raises:
        InvalidInputError: it names what is wanted.
    """
    get, put = getattr(pool, "getconn", None), getattr(pool, "putconn", None)
    if not callable(get) or not callable(put) or iscoroutinefunction(get):
        raise InvalidInputError(
            f"pool must be a psycopg_pool.ConnectionPool, got {type(pool).__qualname__}; write "
            "PostgresStore(pool=ConnectionPool(...)), or give a URL"
        )


class _Own(psycopg.Connection[Any]):
    """A connection of the store's own. Whoever drops it unclosed has a reason, such as a fork."""

    def __del__(self, *_: object) -> None:
        pass


class Connections(ForkAware):
    """Runs functions on connections, each alone on one.

    Args:
        address: of the connections that are made here; None with a pool.
        pool: of the program's; what is taken from it goes back, and it is never closed.
        must_exist: tables that are missing are an error, rather than made.
    """

    def __init__(
        self,
        address: Address | None,
        pool: Pool | None,
        *,
        place: str,
        schema: str,
        prepare: bool,
        must_exist: bool,
    ) -> None:
        self.place, self.schema = place, schema
        self._address, self._pool = address, pool
        self._prepare, self._must_exist = prepare, must_exist
        # whose the pool's sockets are: who borrows first, or made it, when they are there already
        self._pid = getpid() if pool is not None and not getattr(pool, "closed", True) else 0
        self._closed = False
        self._lent: set[int] = set()
        self._begin()
        watch_forks(self)

    def _begin(self) -> None:
        self._ready = False
        self._opening = threading.Lock()
        self._idle: list[Session] = []
        self._room = threading.Semaphore(1_000_000 if self._address is None else self._address.connections)

    # ---- for the store

    def read(self, work: Callable[[Session], T]) -> T:
        """Run statements that write nothing; once more on a new connection when the first one turns out to be lost.

        Raises:
            StoreUnavailableError: the server is away; try again.
            StoreError, CorruptHistoryError: the store can't be used.
        """
        try:
            return self._run(work, "reading")
        except LostError:
            return self._run(work, "reading")

    def write(self, work: Callable[[Session], T]) -> T:
        """Run `work`, each of whose statements is a transaction of its own.

        Raises:
            NotWrittenError: for certain nothing is there.
            AmbiguousError: the connection was lost.
            StoreError, CorruptHistoryError: the store can't be used.
        """
        return self._run(work, "writing")

    def _run(self, work: Callable[[Session], T], phase: Phase) -> T:
        if phase != "reading":
            self.refuse_nested()
        session = self._take()
        try:
            return work(session)
        except psycopg.Error as e:
            error = judged(self.place, e, phase, session.lost)
            _part(session, e)
            raise error from e
        finally:
            self._give(session)

    def transaction(self, work: Callable[[Session], T], *, foreign: bool = False, snapshot: bool = False) -> T:
        """Run `work` in one transaction, and commit it durably.

        Args:
            snapshot: it only reads, and sees one state of all tables.
            foreign: rows of the program's own are in it: what the server says of them at the commit is raised as it is.

        Raises:
            NotWrittenError, AmbiguousError, StoreError, CorruptHistoryError: as `write`.
        """
        if not snapshot:
            self.refuse_nested()
        session = self._take()
        try:
            try:
                check_version(session.begin(self.schema, snapshot=snapshot), self.place)
                result = work(session)
            except psycopg.Error as e:
                lost = session.lost
                session.rollback()
                _part(session, e)
                raise judged(self.place, e, "reading" if lost or snapshot else "writing", lost) from e
            except BaseException:
                session.rollback()
                raise
            try:
                done = session.commit()
            except psycopg.IntegrityError as e:
                if foreign and not session.lost:
                    raise
                raise judged(self.place, e, "committing", session.lost) from e
            except psycopg.Error as e:
                raise judged(self.place, e, "committing", session.lost) from e
            if not done:
                raise NotWrittenError(f"{self.place}: the server rolled the transaction back")
            return result
        finally:
            self._give(session)

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """While this lasts, this thread runs a program's own code in a transaction, and writes nothing else."""
        self._lent.add(threading.get_ident())
        try:
            yield
        finally:
            self._lent.discard(threading.get_ident())

    def refuse_nested(self) -> None:
        """Raise StoreError when this thread runs a program's own code in a transaction."""
        if self._lent and threading.get_ident() in self._lent:
            raise StoreError(
                "a Transaction's function can't write to the store by other ways than its connection; start runs and "
                "send signals after it, in a Step"
            )

    def alone(self) -> Session:
        """A connection that stays with the caller, who closes it; of the store's own address only."""
        assert self._address is not None
        self.check_open()
        return self._connect()

    def check_open(self) -> None:
        """Raise ClosedError after `close`."""
        if self._closed:
            raise ClosedError(f"the store {self.place} is closed")

    def close(self) -> None:
        """Close the connections that were made here, those in use when they come back."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def after_fork_in_child(self) -> None:
        """Begin with new connections; the sockets of the others are the parent's."""
        _inherited.extend(self._idle)
        self._begin()
        self._lent = set()

    # ---- taking and giving back

    def _take(self) -> Session:
        self.check_open()
        session = self._own() if self._pool is None else self._borrowed(self._pool)
        if not self._ready:
            try:
                with self._opening:
                    self._open(session)
            except psycopg.Error as e:
                error = judged(self.place, e, "reading", session.lost)
                self._give(session)
                raise error from e
            except BaseException:
                self._give(session)
                raise
        return session

    def _open(self, session: Session) -> None:
        """See once that the tables are there and are those of this version."""
        if not self._ready:
            check_server(session, self.place)
            prepare_tables(session, self.schema, self.place, self._must_exist)
            self._ready = True

    def _own(self) -> Session:
        if not self._room.acquire(timeout=BUSY_SECONDS):
            raise NotWrittenError(f"{self.place}: all connections are in use; try again, or allow more: connections=20")
        try:
            while True:
                try:
                    session = self._idle.pop()
                except IndexError:
                    break
                if session.alive():
                    return session
                session.close()
            session = self._connect()
            if self._ready:  # it may lead to another server than those before
                self._check(session)
            return session
        except BaseException:
            self._room.release()
            raise

    def _check(self, session: Session) -> None:
        try:
            check_server(session, self.place)
        except psycopg.Error as e:
            error = judged(self.place, e, "reading", session.lost)
            session.close()
            raise error from e
        except BaseException:
            session.close()
            raise

    def _connect(self) -> Session:
        assert self._address is not None
        threshold = 5 if self._prepare else None
        try:
            raw = _Own.connect(**self._address.options(), autocommit=True, prepare_threshold=threshold)
        except psycopg.Error as e:
            raise unreachable(self.place, e) from e
        return Session(raw, prepare=None if self._prepare else False)

    def _borrowed(self, pool: Pool) -> Session:
        self._pid = self._pid or getpid()
        if getpid() != self._pid:
            raise StoreMisconfiguredError(
                f"the pool of {self.place} was opened by process {self._pid}, and this is its child {getpid()}: "
                "connections can't be shared; make pool and store anew after the fork"
            )
        try:
            raw = pool.getconn(timeout=BUSY_SECONDS)
        except psycopg.Error as e:  # the pool's own errors are of the driver's kind
            if type(e).__name__ == "PoolClosed":
                raise StoreMisconfiguredError(f"{self.place}: {e}; open the pool before its first use") from e
            raise NotWrittenError(f"{self.place}: the pool gives no connection: {e}; try again, or allow more") from e
        return Session(raw, prepare=None if self._prepare else False, borrowed=True)

    def _give(self, session: Session) -> None:
        if self._pool is not None:
            session.hand_back()
            with contextlib.suppress(psycopg.Error):
                self._pool.putconn(session.raw)
            return
        try:
            if session.lost:
                session.close()
                self._drop_idle()  # the others will hardly have fared better
            elif self._closed or session.spoiled or not session.at_rest:
                session.close()
            else:
                self._idle.append(session)
        finally:
            self._room.release()

    def _drop_idle(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()


def _part(session: Session, error: psycopg.Error) -> None:
    """Give a connection up whose server can't be written any more, for one to the server that has taken over."""
    if error.sqlstate == "25006":
        session.spoiled = True
