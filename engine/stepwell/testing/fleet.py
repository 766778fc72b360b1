"""Every open run of a store against the code at hand: will this deploy break a running workflow?

The store is only read: no lease is taken, no head is written, and a SQLite file is opened as a backup would be. Runs
are listed page by page, and handed in small lots to processes that load the app themselves; none of them ever holds
more than one page of one history.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from itertools import chain, islice
from typing import Any, TypeAlias, TypeVar

import msgspec
from attrs import define, field

from stepwell_stores import open_store
from stepwell_stores.jsonl import JsonlStore
from stepwell_stores.memory import MemoryStore
from stepwell_stores.sqlite import SqliteStore

from .. import events as e
from ..errors import (
    CorruptHistoryError,
    NotFoundError,
    StepwellError,
    StoreUnavailableError,
    VersionMismatchError,
)
from ..events import EventBase
from ..loading import Parts, read_pages
from ..registry import Registry
from ..store import HeadFilter, Store, Verified
from ..strictness import is_strict
from ..wire import read_event
from .digesting import Digests
from .fitting import judge
from .misfits import Misfit
from .remedies import misfit_of

T = TypeVar("T")
_Page: TypeAlias = Sequence[EventBase]

__all__ = ["Checker", "Fleet", "Lot", "Result", "reader_of"]

_PAGE = 500  # heads that are read at once
_LOT = 50  # runs that a process is given at once
_TRIES = 5  # times that a busy store is asked


class _GoneError(Exception):
    """A run is not there any more."""


class Lot(msgspec.Struct, array_like=True):
    """Runs to be looked at."""

    runs: list[tuple[str, int]]


class Result(msgspec.Struct, array_like=True):
    """What became of them.

    Attributes:
        fits: how many go on.
        gone: how many were closed, deleted or begun anew meanwhile.
        misfits: those that would break.
    """

    fits: int = 0
    gone: int = 0
    misfits: list[Misfit] = []


def reader_of(store: Store) -> Store:
    """The same runs, to be read and never written; the store itself where reading writes nothing anyway."""
    if isinstance(store, SqliteStore):  # whoever made the store has decided about networks
        return SqliteStore(store.path, must_exist=True, network=True, read_only=True)
    if isinstance(store, JsonlStore):
        return JsonlStore(store.path, must_exist=True, network=True)
    return store


class Checker:
    """Looks at runs, one after another.

    Args:
        parts: of the engine that knows the code.
        store: where the runs are.
        inputs: whether changed inputs of steps count.
    """

    def __init__(self, parts: Parts, store: Store, *, inputs: bool = True) -> None:
        self._registry: Registry = parts.registry
        self._digests = Digests(parts.codec)
        self._store = store
        self._inputs = inputs

    def check(self, lot: Lot) -> Result:
        """Look at the runs of a lot."""
        result = Result()
        for run_id, incarnation in lot.runs:
            try:
                pages = partial(self._pages, run_id, incarnation)
                misfit = patiently(partial(self.judged, run_id, incarnation, pages))
            except _GoneError:
                result.gone += 1
                continue
            if misfit is not None and not self._is_open(run_id, incarnation):
                result.gone += 1
            elif misfit is None:
                result.fits += 1
            else:
                result.misfits.append(misfit)
        return result

    def judged(self, run_id: str, incarnation: int, pages: Callable[[], Iterator[_Page]]) -> Misfit | None:
        """Whether a history, page by page, fits the code; `pages` gives it from the beginning each time."""
        known: dict[str, Any] = {"workflow": "", "version": "", "incarnation": incarnation}
        try:
            whole = pages()
            first = next(whole)
            start = first[0] if first else None
            if not isinstance(start, e.Start):
                raise CorruptHistoryError(f"run {run_id!r}: its history does not begin with a start event")
            known |= {"workflow": start.workflow, "version": start.version}
            workflow = self._registry.find(start.workflow, start.version)
        except VersionMismatchError as error:
            return misfit_of(error, "version", run_id, known.__getitem__)
        except NotFoundError as error:
            return misfit_of(error, "workflow", run_id, known.__getitem__)
        except CorruptHistoryError as error:
            return misfit_of(error, "damaged", run_id, known.__getitem__)
        strict = self._inputs and is_strict(workflow, True)
        unread = [chain((first,), whole)]

        def again() -> Iterator[_Page]:
            return unread.pop() if unread else pages()

        return judge(workflow, again, digests=self._digests, run_id=run_id, strict=strict)

    def _pages(self, run_id: str, incarnation: int) -> Iterator[_Page]:
        """The pages of a history; _GoneError when it is gone."""
        try:
            yield from read_pages(self._store, run_id, incarnation=incarnation)
        except NotFoundError as error:
            raise _GoneError from error

    def _is_open(self, run_id: str, incarnation: int) -> bool:
        head = patiently(partial(self._store.head, run_id))
        return head is not None and not head.closed and head.incarnation == incarnation


def patiently(ask: Callable[[], T]) -> T:
    """Ask a store again that is busy."""
    for _ in range(_TRIES - 1):
        try:
            return ask()
        except StoreUnavailableError:
            continue
    return ask()


@define
class Fleet:
    """All open runs of a store, and how they fare with the code at hand.

    Args:
        parts: of the engine that knows the code.
        store: where the runs are; None: the engine's own.
        workflow: only runs of this workflow.
        inputs: whether changed inputs of steps count.
        worker: starts a process that checks lots; None: they are checked in this one.
        processes: how many.

    Attributes:
        fits, gone: as in `Result`.
        misfits: those that would break, in the order in which they were found.
    """

    parts: Parts
    store: Store | None = None
    workflow: str | None = None
    inputs: bool = True
    worker: Callable[[], Any] | None = None
    processes: int = 1
    fits: int = 0
    gone: int = 0
    misfits: list[Misfit] = field(factory=list)
    _shared: dict[Any, Any] = field(factory=dict, init=False)

    @property
    def checked(self) -> int:
        """How many runs were looked at."""
        return self.fits + len(self.misfits)

    def count(self) -> int:
        """How many runs there are to be looked at; a store of files is not asked, since it would be read twice."""
        reader = self._reader()
        if isinstance(reader, JsonlStore):
            return 0
        try:
            return sum(len(lot.runs) for lot in self._lots(reader))
        finally:
            self._close(reader)

    def check(self) -> Iterator[float]:
        """Look at all of them; gives, from time to time, how much of a store of files has been read, else 0."""
        reader = self._reader()
        try:
            if isinstance(reader, JsonlStore):  # its lists ask after leases, which removes what dead owners left
                yield from self._read_through(reader)
            elif self.worker is None or self.processes < 2:
                checker = Checker(self.parts, reader, inputs=self.inputs)
                for lot in self._lots(reader):
                    self._take(checker.check(lot))
                    yield 0.0
            else:
                yield from self._in_processes(reader)
        finally:
            self._close(reader)

    def _reader(self) -> Store:
        return reader_of(self.parts.store if self.store is None else self.store)

    def _close(self, reader: Store) -> None:
        if reader is not self.store and reader is not self.parts.store:
            reader.close()

    def _take(self, result: Result) -> None:
        """Add what a lot came to; texts that are the same for many runs are kept once."""
        self.fits += result.fits
        self.gone += result.gone
        for one in result.misfits:
            remedies = self._shared.setdefault(one.remedies, one.remedies)
            self.misfits.append(msgspec.structs.replace(one, remedies=remedies))

    def _lots(self, reader: Store) -> Iterator[Lot]:
        """The open runs, in small lots, newest first."""
        where = HeadFilter(workflow=self.workflow, closed=False)
        after: str | None = None
        while page := patiently(partial(reader.heads, where, limit=_PAGE, after=after)):
            heads = iter(page)
            while lot := list(islice(heads, _LOT)):
                yield Lot([(head.run_id, head.incarnation) for head in lot])
            after = page[-1].run_id

    def _in_processes(self, reader: Store) -> Iterator[float]:
        """Hand lots out; each process has one at a time."""
        assert self.worker is not None
        lots, lock = self._lots(reader), threading.Lock()
        workers = [self.worker() for _ in range(self.processes)]

        def next_lot() -> Lot | None:
            with lock:
                return next(lots, None)

        def ask(worker: Any) -> tuple[Any, Result | None]:
            lot = next_lot()
            return worker, None if lot is None else worker.check(lot)

        try:
            with ThreadPoolExecutor(len(workers), thread_name_prefix="stepwell-check") as pool:
                asked: set[Future[tuple[Any, Result | None]]] = {pool.submit(ask, worker) for worker in workers}
                while asked:
                    done, asked = wait(asked, return_when=FIRST_COMPLETED)
                    for one in done:
                        worker, result = one.result()
                        if result is not None:
                            self._take(result)
                            asked.add(pool.submit(ask, worker))
                    yield 0.0
        finally:
            for worker in workers:
                worker.close()

    def _read_through(self, reader: JsonlStore) -> Iterator[float]:
        """A store of files is read from its first file to its last, once; the newest history of each run counts."""
        checker = Checker(self.parts, reader, inputs=self.inputs)
        held: Verified | None = None
        for part in reader.verify():
            if part.run_id is None or part.incarnation is None:
                continue
            if held is not None and held.run_id != part.run_id:
                self._look(checker, held)
            held = part
            yield part.share
        if held is not None:
            self._look(checker, held)
            yield 1.0

    def _look(self, checker: Checker, part: Verified) -> None:
        """Judge a history that was read as a whole."""
        assert part.run_id is not None
        assert part.incarnation is not None
        known: dict[str, Any] = {"workflow": "", "version": "", "incarnation": part.incarnation}
        try:
            if part.problem is not None:
                raise part.problem
            if not part.records:
                return
            last = read_event(part.records[-1], part.place)
            if isinstance(last, e.CLOSING) and last.at is None:
                return
            events = [read_event(line, part.place) for line in part.records]
            if self.workflow not in (None, getattr(events[0], "workflow", None)):
                return
            misfit = checker.judged(part.run_id, part.incarnation, lambda: iter([events]))
        except StepwellError as error:
            misfit = misfit_of(error, "damaged", part.run_id, known.__getitem__)
        self._take(Result(1) if misfit is None else Result(misfits=[misfit]))


def can_share(store: Store) -> bool:
    """Whether other processes see the runs of a store, and may share the work."""
    return not isinstance(store, (MemoryStore, JsonlStore))


def store_at(url: str) -> Store:
    """The store of a URL; it has to be there."""
    return open_store(url, must_exist=True)
