"""A worker that stops itself, with SIGSTOP, at named points on its way through the engine and the store.

Before it stops it tells its parent where, and whether it holds a lock of the store's: then nobody else gets on, which
is safe, and only patience helps. Everywhere else another worker takes the run over as soon as the lease has lapsed,
and the one that stopped comes back as an owner of yesterday.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import mmap
import os
import random
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from attrs import frozen
from tests.crash.requests import asking
from tests.crash.story import make_order
from tests.crash.witness import AckStore, Witness

from stepwell import Engine, current_step, driving, loading
from stepwell.errors import ClosedError, LeaseLostError, RunClosedError, StoreUnavailableError
from stepwell.lifecycle import StepStarted
from stepwell.store import Committed, Conflict, Draft, Fenced, HeadFilter, Lease, Store
from stepwell_stores.jsonl.files import Directory
from stepwell_stores.jsonl.runs import Runs
from stepwell_stores.sqlite.database import Database

__all__ = ["CHANCES", "IN_THE_STORE", "Board", "Stops", "die_with", "work"]

CHANCES = {
    "claim: under the lock": 0.05,
    "claim: returned": 0.1,
    "loaded": 0.1,
    "in a step": 0.05,
    "append: called": 0.05,
    "append: before the lock": 0.05,
    "append: under the lock": 0.05,
    "append: before the write": 0.05,
    "append: after the write": 0.05,
    "append: returned": 0.05,
    "renew: called": 0.5,
    "renew: under the lock": 0.5,
}
"""How likely a worker stops at a point that it comes by; less likely where it stopped more often than elsewhere."""

IN_THE_STORE = tuple(point for point in CHANCES if point.endswith(("under the lock", "before the write")))
"""Those inside of what a store does in one piece; on a server nobody can stop there."""

_POINTS = list(CHANCES)
_WEAKEST = "append: before the lock"  # what was compared before may be untrue behind it, so it is tried most
_SLOW = 0.06  # seconds that a slow step takes: longer than a third of the lease, so that it is renewed


def die_with(parent: int) -> None:
    """Be killed when the process that forked this one ends: a worker that is stopped then would stay for ever."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


class Board:
    """Numbers that the parent and all workers share: how often it was stopped where, and how many stops are left."""

    def __init__(self) -> None:
        self._cells = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("I")

    def draw(self, field: int, point: str, chance: random.Random) -> bool:
        """Whether to stop there. A count may be one off when two draw at once, which does no harm."""
        if not self._cells[len(_POINTS) + field]:
            return False
        mine = self._cells[_POINTS.index(point)]
        often = mine * len(_POINTS) > sum(self._cells[: len(_POINTS)].tolist()) * (3 if point == _WEAKEST else 1)
        if chance.random() > CHANCES[point] * (0.1 if often else 1):
            return False
        self._cells[_POINTS.index(point)] = mine + 1
        self._cells[len(_POINTS) + field] = max(1, self._cells[len(_POINTS) + field]) - 1
        return True

    def allow(self, field: int, stops: int) -> None:
        """From now on the workers of a field may stop so many times."""
        self._cells[len(_POINTS) + field] = stops


@frozen
class Errand:
    """What a thread is about: which operation of the store's, for which run, under which fence.

    Attributes:
        loses: whether somebody else may take the run over when it takes too long.
    """

    name: str
    run_id: str = "-"
    fence: int = 0
    loses: bool = False


class Stops(Witness):
    """Stops this process now and then, and tells of it and of everything else."""

    def __init__(self, fd: int, board: Board, field: int, chance: random.Random) -> None:
        super().__init__(fd)
        self._board = board
        self._field = field
        self._chance = chance
        self._one = threading.Lock()
        self._here = threading.local()
        self.fences: dict[str, int] = {}

    def effect(self, run_id: str, step_id: str, attempt: int, key: str) -> None:
        super().effect(run_id, step_id, attempt, key)
        if self._chance.random() < 0.2:
            current_step().wait_cancelled(_SLOW)
        self.stop("in a step", Errand("step", run_id, self.fences[run_id], True))

    def tell(self, *words: object) -> None:
        """Report something of this harness's own."""
        self._tell(*words)

    def stop(self, point: str, errand: Errand, *, blocks: bool = False) -> None:
        """Perhaps stop the process, from this thread, until the parent lets it go on."""
        with self._one:
            if self._board.draw(self._field, point, self._chance):
                place = point.replace(" ", "_")
                self._tell("stop", place, errand.run_id, errand.fence, int(errand.loses and not blocks))
                signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)

    @contextlib.contextmanager
    def errand(self, errand: Errand) -> Iterator[None]:
        """While this lasts, `at` stops for it."""
        self._here.errand = errand
        try:
            yield
        finally:
            self._here.errand = None

    def at(self, where: str, *, blocks: bool = False) -> None:
        """Perhaps stop, when this thread is on an errand to which that point belongs."""
        errand: Errand | None = getattr(self._here, "errand", None)
        if errand is not None and f"{errand.name}: {where}" in CHANCES:
            self.stop(f"{errand.name}: {where}", errand, blocks=blocks)


class StoppingStore(AckStore):
    """Tells what it granted, wrote, read and refused, and stops around it."""

    def __init__(self, inner: Store, stops: Stops) -> None:
        super().__init__(inner, stops)
        self.stops = stops

    def append(
        self, run_id: str, incarnation: int | None, expected_seq: int | None, records: Sequence[Draft], **how: Any
    ) -> Any:
        fence = how.get("fence")
        if fence is None:  # a signal, which several workers send: what is there already need not be this one's bytes
            done = self.inner.append(run_id, incarnation, expected_seq, records, **how)
            if isinstance(done, Committed):
                self.stops.ack(run_id, done.incarnation, done.seq, records)
            return done
        ends = bool(how.get("release")) or how.get("then", "open") != "open"
        with self.stops.errand(Errand("append", run_id, fence, not ends)):
            self.stops.at("called")
            done = super().append(run_id, incarnation, expected_seq, records, **how)
            if isinstance(done, Committed):
                self.stops.tell("wrote", run_id, incarnation, expected_seq, len(records), fence)
            elif isinstance(done, (Fenced, Conflict)):
                self.stops.note(f"appends refused as {type(done).__name__}")
            self.stops.at("returned")
        return done

    def claim_due(self, *args: Any, **how: Any) -> Any:
        with self.stops.errand(Errand("claim")):
            leases = super().claim_due(*args, **how)
        for lease in leases:
            self.stops.fences[lease.run_id] = lease.fence
            self.stops.tell("grant", lease.run_id, lease.incarnation, lease.seq, lease.fence)
            with self.stops.errand(Errand("claim", lease.run_id, lease.fence, True)):
                self.stops.at("returned")
        return leases

    def renew(self, lease: Lease, ttl: float) -> Any:
        with self.stops.errand(Errand("renew", lease.run_id, lease.fence, True)):
            self.stops.at("called")
            renewed = self.inner.renew(lease, ttl)
        self.stops.note("renewed" if renewed is not None else "renewals refused")
        return renewed

    def read(self, run_id: str, from_seq: int = 0, **how: Any) -> Any:
        tail = self.inner.read(run_id, from_seq, **how)
        if tail is not None:
            self.stops.tell("read", run_id, tail.seq)
        return tail


def _into_stores(stops: Stops) -> None:
    """Put the points inside the stores: around the lock, the comparison of fences and the write."""
    write, locked, load, append = Database.write, Directory.locked, Runs.load, Directory.append
    for owner, name in asking():
        _around(owner, name, stops)

    def sqlite(self: Database, do: Callable[[Any], Any], **how: Any) -> Any:
        def inside(db: Any) -> Any:
            stops.at("under the lock", blocks=True)
            result = do(db)
            stops.at("before the write", blocks=True)
            return result

        stops.at("before the lock")
        result = write(self, inside, **how)
        stops.at("after the write")
        return result

    @contextlib.contextmanager
    def queued(self: Directory, stem: str) -> Iterator[None]:
        stops.at("before the lock")
        with locked(self, stem):
            yield

    def loaded(self: Runs, *args: Any, **how: Any) -> Any:
        run = load(self, *args, **how)
        stops.at("under the lock", blocks=True)
        return run

    def appended(self: Directory, *args: Any) -> None:
        stops.at("before the write", blocks=True)
        append(self, *args)
        stops.at("after the write", blocks=True)

    for owner, name, new in (
        (Database, "write", sqlite),
        (Directory, "locked", queued),
        (Directory, "append", appended),
        (Runs, "load", loaded),
    ):
        setattr(owner, name, new)


def _around(owner: Any, name: str, stops: Stops) -> None:
    """Put the points before and after what one of a server's stores asks: whatever is compared, is compared there."""
    ask = getattr(owner, name)

    def asked(*args: Any, **how: Any) -> Any:
        stops.at("before the lock")
        answer = ask(*args, **how)
        stops.at("after the write")
        return answer

    setattr(owner, name, asked)


def _into_engine(stops: Stops) -> None:
    """Put a point between the moment when an owner has read a run and the moment when it drives it."""
    load = loading.load

    def loaded(parts: Any, run_id: str, **how: Any) -> Any:
        run = load(parts, run_id, **how)
        stops.stop("loaded", Errand("load", run_id, stops.fences.get(run_id, 0), run_id in stops.fences))
        return run

    vars(driving)["load"] = loaded


class _Troubles(logging.Handler):
    """What the engine logs: lost leases are counted, and nothing else may happen here."""

    def __init__(self, stops: Stops) -> None:
        super().__init__(logging.WARNING)
        self._stops = stops

    def emit(self, record: logging.LogRecord) -> None:
        error = record.args[-1] if isinstance(record.args, tuple) and record.args else None
        if isinstance(error, LeaseLostError):
            self._stops.note("leases lost")
        elif isinstance(error, ClosedError):  # a renewal that was stopped until the worker had ended
            self._stops.note("renewals after the end")
        elif isinstance(error, StoreUnavailableError):
            self._stops.note("the store was busy")
        else:
            self._stops.trouble(f"logged: {logging.Formatter().format(record)}")


def work(inner: Store, stops: Stops, lease: float) -> None:
    """Drive the runs of a store until all have ended, and give them the signals that they wait for."""
    log = logging.getLogger("stepwell")
    log.handlers, log.propagate = [_Troubles(stops)], False
    _into_stores(stops)
    _into_engine(stops)
    store = StoppingStore(inner, stops)

    def begins(event: object) -> None:
        if isinstance(event, StepStarted):  # told by the thread that reads
            stops.tell("begin", event.run_id, event.step_id)

    with Engine(store, [make_order(stops)], lease=lease, on_event=begins) as engine:
        ended = False
        while not ended:
            try:
                if not engine.run_due():
                    _answer(engine, stops)
                    select.select([], [], [], 0.005)  # nothing is due: look again soon
                    ended = all(head.closed for head in store.heads(HeadFilter(), limit=100))
            except StoreUnavailableError:
                stops.note("the store was busy")
    stops.note("done")


def _answer(engine: Engine, stops: Stops) -> None:
    """Give all runs the signals that they wait for; several workers do, and each counts once."""
    for wait in engine.waiting():
        with contextlib.suppress(RunClosedError):
            engine.signal(wait.run_id, wait.signal, "yes" if wait.signal == "approve" else "soon", id=wait.signal)
            stops.signal(wait.run_id, wait.signal)
