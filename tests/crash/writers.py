"""What the processes do whose disk fails: several runs of the story, and one that never ends and gets signals.

An *owner* drives runs of the story one after another, those that others have left first. A *partner* in a second
process sends signals to the run that never ends, drives what is due, and looks at what is there: what it reads, it
trusts, so it tells of that as of what a store acknowledged. A *victim* dies right before one of its syncs.
"""

from __future__ import annotations

import itertools
import os
import select
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from tests.crash import sqlite_vfs
from tests.crash.faults import GO, Action, OsFaults, die
from tests.crash.mounts import die_with_parent
from tests.crash.planted import plant
from tests.crash.story import RESULT, drive, make_order
from tests.crash.witness import AckStore, Evidence, Witness

from stepwell import Emit, Engine, Flow, Suspend, workflow
from stepwell.environment import Environment, SystemClock
from stepwell.errors import ConflictError, CorruptHistoryError, RunBusyError, RunClosedError, StoreError
from stepwell.outcomes import Outcome
from stepwell.store import HeadFilter, Store
from stepwell_stores import open_store

__all__ = [
    "HAS_READ",
    "PARKED",
    "Child",
    "HastyClock",
    "Shop",
    "be_owner",
    "be_partner",
    "be_reader",
    "be_victim",
    "check",
    "finish",
    "look",
    "push",
    "run_as",
    "ticker",
]

PARKED = "parked"
HAS_READ = "read after a death"
PATIENCE = 60
"""Seconds after which a process that does not end is taken for hung."""

_LOST_RACES = (ConflictError, RunBusyError, RunClosedError)


class HastyClock(SystemClock):
    """The machine's clock, on which nobody waits long: what is tried again is tried at once."""

    def wait(self, wakeup: threading.Event, seconds: float) -> bool:
        return wakeup.wait(min(seconds, 0.002))


@workflow
def ticker() -> Flow[None]:
    """Never ends: takes a signal, shows it, waits for the next one."""
    while True:
        yield Emit((yield from Suspend("tick", into=str)))


@frozen
class Shop:
    """What all processes on one store share.

    Attributes:
        kind: of the store, `jsonl` or `sqlite`.
        folder: where it is.
        setting: options of its URL, such as `sync=off`.
        planted: the bug that was put in, or None.
        address: the URL of a store that is on a server.
        late: hours that its clock is late, so that the leases of whoever died before have lapsed.
    """

    kind: str
    folder: Path
    setting: str = ""
    planted: str | None = None
    address: str = ""
    late: int = 0

    @property
    def url(self) -> str:
        """Where the store is."""
        if self.address:
            return self.address
        where = f"file:{self.folder}/runs" if self.kind == "jsonl" else f"sqlite:///{self.folder}/runs.db"
        return f"{where}?{self.setting}" if self.setting else where

    @contextmanager
    def open(self, witness: Witness, store: Store | None = None) -> Iterator[tuple[Engine, Any]]:
        """An engine on the store, whose answers the witness hears of, and the story's workflow."""
        order = make_order(witness)
        seen: Any = AckStore(store or self._opened(), witness, early=self.planted == "ack before write")
        with Engine(seen, [order, ticker], environment=Environment(clock=HastyClock())) as engine:
            yield engine, order

    def _opened(self) -> Store:
        if not self.late:
            return open_store(self.url)
        return open_store(self.url, clock=lambda: time.time_ns() // 1_000 + self.late * 3_600_000_000)


# ---- in a child


def be_owner(shop: Shop, witness: Witness, generation: int, most: int | None = None) -> None:
    """Drive what is there, then new runs, until the disk fails, or so many."""
    with shop.open(witness) as (engine, order):
        left = [head.run_id for head in engine.store.heads(HeadFilter(), limit=1000) if not head.closed]
        new = (f"g{generation}-{n}" for n in itertools.islice(itertools.count(), most))
        for run_id in itertools.chain((run_id for run_id in left if run_id != PARKED), new):
            push(engine, order, witness, run_id)


def be_partner(shop: Shop, witness: Witness, generation: int) -> None:
    """Send signals, drive what is due, and look, until the disk fails."""
    with shop.open(witness) as (engine, _order):
        engine.start(ticker, run_id=PARKED)
        for n in itertools.count():
            name = f"{generation}-{n}"
            engine.signal(PARKED, "tick", name, id=name)
            witness.signal(PARKED, name)
            engine.run_due(limit=2)
            if n % 4 == 0:
                look(engine.store, witness, limit=2)


def be_reader(shop: Shop, witness: Witness, _generation: int) -> None:
    """Look at everything, change nothing, and stay: closing the store might sync what is there."""
    with shop.open(witness) as (engine, _order):
        look(engine.store, witness, limit=1000)
        for record in engine.runs(limit=1000):
            engine.get(record.id)
        witness.note(HAS_READ)
        signal.pause()


def be_victim(shop: Shop, witness: Witness, generation: int, at: int) -> None:
    """As the owner, but die with a record written and not synced, the `at`-th time that there is one."""
    left = [at]

    def deadly(_kind: str, path: str, _size: int) -> Action:
        if path.endswith((".jsonl", "-wal")):
            left[0] -= 1
            if not left[0]:
                witness.note("killed between write and sync")
                die()
        return GO

    with ExitStack() as faults:
        if shop.kind == "sqlite":
            faults.enter_context(sqlite_vfs.install(deadly, {"sync"}))
        else:
            faults.enter_context(OsFaults(deadly, {"fdatasync"}))
        be_owner(shop, witness, generation, 4)


def push(engine: Engine, order: Any, witness: Witness, run_id: str) -> Outcome[Any] | None:
    """Drive a run as far as it goes now; None when another process came between."""
    try:
        outcome = drive(engine, order, witness, run_id)
    except _LOST_RACES as error:
        witness.note(f"met {type(error).__name__}")
        return None
    witness.end(run_id, outcome.status)
    if outcome.status == "failed" or (outcome.status == "completed" and outcome.unwrap() != RESULT):
        witness.trouble(f"run {run_id} ended as {outcome!r}")
    return outcome


def look(store: Store, witness: Witness, *, limit: int) -> None:
    """Read the newest runs, and tell of what was there."""
    for head in store.heads(HeadFilter(), limit=limit):
        for number in range(head.incarnation + 1):
            tail = store.read(head.run_id, incarnation=number)
            if tail is not None:
                witness.saw(head.run_id, number, tail.from_seq, tail.records)


def finish(shop: Shop, witness: Witness, _generation: int) -> None:
    """Drive every run of the story to its end, and what never ends as far as it goes."""
    with shop.open(witness) as (engine, order):
        engine.run_due()
        for head in engine.store.heads(HeadFilter(), limit=1000):
            if head.run_id == PARKED:
                continue
            outcome = push(engine, order, witness, head.run_id)
            if outcome is None or outcome.status != "completed":
                witness.trouble(f"run {head.run_id} does not come to its end: {outcome!r}")
            else:
                witness.note("runs ended")


# ---- in the parent


@define
class Child:
    """A process that tells of what it does, and what it has told so far.

    Args:
        program: what it does, with its witness; then it ends.
    """

    program: Callable[[Witness], None]
    told: bytearray = field(factory=bytearray, init=False)
    pid: int = field(init=False)
    status: int | None = field(default=None, init=False)
    _fd: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._fd, write = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            _live(self.program, write)
        os.close(write)
        os.set_blocking(self._fd, False)

    @property
    def ended(self) -> bool:
        """Whether its end of the pipe is closed."""
        return self._fd < 0

    def hear(self, seconds: float = 0) -> bool:
        """Take in what it has told; wait so long for the first word. False when there was nothing."""
        if self.ended or not select.select([self._fd], [], [], seconds)[0]:
            return False
        got = False
        with_more = True
        while with_more:
            try:
                part = os.read(self._fd, 1 << 16)
            except BlockingIOError:
                break
            with_more = bool(part)
            got = got or with_more
            self.told += part
        if not with_more:
            os.close(self._fd)
            self._fd = -1
        return got

    def kill(self) -> None:
        """End it, if it has not ended, and take its leave."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()

    def wait(self) -> int:
        """Hear it out to its end; the wait status."""
        while not self.ended:
            self.hear(1)
        if self.status is None:
            self.status = os.waitpid(self.pid, 0)[1]
        return self.status


def _live(program: Callable[[Witness], None], fd: int) -> None:
    """Be the child."""
    try:
        die_with_parent()
        signal.alarm(PATIENCE)
        witness = Witness(fd)
        try:
            program(witness)
        except StoreError as error:
            witness.note(f"met {type(error).__name__}")
        except CorruptHistoryError as error:
            witness.trouble(f"CorruptHistoryError: {error}")
        except BaseException:
            witness.trouble(traceback.format_exc())
    finally:
        os._exit(0)  # nothing of the parent's is to be run here


def run_as(shop: Shop, role: Callable[..., None], *how: Any) -> Callable[[Witness], None]:
    """A program for a child: a role in the shop, with the planted bug."""

    def program(witness: Witness) -> None:
        plant(shop.planted)
        role(shop, witness, *how)

    return program


def check(shop: Shop, evidence: Evidence) -> None:
    """Open the store anew and compare it with what was told."""
    silent = Witness(-1)
    try:
        with shop.open(silent) as (engine, _order):
            evidence.check(engine.store, engine=engine)
    except Exception:
        evidence.violations.append("the store can't be read: " + " | ".join(traceback.format_exc().splitlines()))
