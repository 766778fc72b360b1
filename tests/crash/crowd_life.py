"""A process in which many threads work on one store: what it does, where it dies, and how its groups are counted."""

from __future__ import annotations

import itertools
import logging
import threading
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from queue import SimpleQueue
from typing import Any

from attrs import define, field
from tests.crash import sqlite_vfs
from tests.crash.crowd_story import Bell, FileWitness, Ledger, Life, Task, amount_of, make_errand, questions_of
from tests.crash.faults import Action, Killer, OsFaults, die
from tests.crash.generations import Scene
from tests.crash.planted import plant
from tests.crash.witness import AckStore

from stepwell import Engine
from stepwell.errors import EventMismatchError, RunClosedError, StoreError
from stepwell.outcomes import Outcome, RunCompleted
from stepwell.worker import Worker
from stepwell_stores import open_store
from stepwell_stores.group_commit import GroupCommit

__all__ = ["THREADS", "be"]

THREADS = 8
"""Of the worker, and as many clients."""


@define
class Gremlin(Killer):
    """Kills its process at a point, whichever thread comes by, and fails the commit of a group that is doomed.

    Attributes:
        doom: the operation on the log that fails, "write" or "sync"; "" when the group that is written is not doomed.
        last: it dies at this operation on the log from now on, counted down; 0 when it doesn't.
    """

    doom: str = ""
    last: int = 0
    _lock: threading.Lock = field(factory=threading.Lock)

    def __call__(self, kind: str, path: str, size: int) -> Action:
        if self.doom == kind and path.endswith("-wal"):
            self.doom = ""
            self.tell(f"{kind} of a group failed")
            return Action(made=False, code=10)  # SQLITE_IOERR
        if self.last and path.endswith("-wal"):  # there is one thread that writes it
            self.last -= 1
            if not self.last:
                self.tell(f"killed at {kind} of a group's log")
                die()
        with self._lock:  # so that no number is passed over; whoever dies, dies holding it
            return super().__call__(kind, path, size)


def count_groups(witness: FileWitness, gremlin: Gremlin, life: Life) -> None:
    """Tell of each group of more than one write, before and after its transaction; doom those that are to fail."""
    together: Callable[[Any, list[Any]], bool] = GroupCommit._together
    begun = itertools.count(1)

    def counted(self: Any, group: list[Any]) -> bool:
        number, size, own = next(begun), len(group), group[0]
        witness.note("a group began")
        if number in life.fails:
            gremlin.doom = "write" if number % 2 else "sync"
        if life.group is not None and number == life.group[0]:
            gremlin.last = life.group[1]
        done = together(self, group)
        gremlin.doom, gremlin.last = "", min(gremlin.last, 1)  # at the next one, when this one had less
        failed = own.error is not None or not done
        witness.note("a group failed" if failed else "a group of 2" if size == 2 else "a group of 3 and more")
        return done

    GroupCommit._together = counted  # type: ignore[method-assign]


class Quiet(logging.Handler):
    """Warnings are what a store that fails brings; what is worse is told."""

    def __init__(self, witness: FileWitness) -> None:
        super().__init__(logging.WARNING)
        self._witness = witness

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno > logging.WARNING:
            self._witness.trouble(f"logged: {record.getMessage()}")


class Crowd:
    """The clients of one process: threads that take one task after the other until all are done."""

    def __init__(self, engine: Engine, errand: Any, life: Life, witness: FileWitness) -> None:
        self.engine, self.errand, self.life, self.witness = engine, errand, life, witness
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._left = 0
        self._add(*life.tasks)

    def work(self) -> None:
        """Do all tasks, in many threads."""
        if not self._left:
            return
        clients = [threading.Thread(target=self._be_client, args=(n,), daemon=True) for n in range(THREADS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()

    def _add(self, *tasks: Task) -> None:
        with self._lock:
            self._left += len(tasks)
        for task in tasks:
            self._tasks.put(task)

    def _be_client(self, number: int) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                self._do(task, starts=self.life.mode == "starts" or (self.life.mode == "both" and number % 2 == 0))
            except StoreError as error:
                self.witness.note(f"client met {type(error).__name__}")
                if not self.life.fails:
                    self.witness.trouble(traceback.format_exc())
            except Exception:
                self.witness.trouble(traceback.format_exc())
            with self._lock:
                self._left -= 1
                last = not self._left
            if last:
                for _ in range(THREADS):
                    self._tasks.put(None)

    def _do(self, task: Task, *, starts: bool) -> None:
        engine, run_id = self.engine, task.run_id
        if task.what == "begin":
            begin = engine.start if starts else engine.submit
            outcome = begin(self.errand, questions_of(run_id), run_id=run_id)
            self.witness.begun(run_id)
            self.take(outcome)
            self._add(*(Task(run_id, "pay", number) for number in range(questions_of(run_id))))
            return
        amount = amount_of(run_id, task.number)
        try:
            if starts:
                self.take(self._resume(task, amount))
            else:
                engine.signal(run_id, "pay", amount, id=task.signal_id)
        except RunClosedError as error:  # one that was sent, and maybe not acknowledged, by the dead
            self.witness.note(f"client met {type(error).__name__}")
        else:
            self.witness.signal(run_id, task.signal_id)

    def _resume(self, task: Task, amount: int) -> Outcome[Any] | None:
        try:
            return self.engine.resume(task.run_id, "pay", amount, id=task.signal_id)
        except EventMismatchError:  # it does not wait yet
            self.engine.signal(task.run_id, "pay", amount, id=task.signal_id)
            return None

    def take(self, outcome: Outcome[Any] | None) -> None:
        """Tell of a result."""
        if isinstance(outcome, RunCompleted):
            self.witness.done(outcome.run_id, outcome.unwrap())
        elif outcome is not None and outcome.status in ("failed", "cancelled", "paused"):
            self.witness.trouble(f"a run ended as {outcome!r}")


def be(scene: Scene, life: Life, witness: FileWitness, bell: Bell, *, verify: bool) -> None:
    """Be a process of the story: look at the store, work, drain what is left, and close."""
    plant(scene.planted)
    logger = logging.getLogger("stepwell")
    logger.addHandler(Quiet(witness))
    logger.propagate = False
    gremlin = Gremlin(None, witness.note)
    count_groups(witness, gremlin, life)
    with ExitStack() as faults:
        if life.watched:
            faults.enter_context(OsFaults(gremlin))
        if life.watched and scene.kind == "sqlite":
            faults.enter_context(sqlite_vfs.install(gremlin))
        gremlin.point, gremlin.operations, gremlin.writes = life.point, 0, 0
        ledger = Ledger(scene.folder.with_name("ledger"), life.number, lambda: bell.ring(b"l"))
        store = AckStore(open_store(scene.url()), witness, early=scene.planted == "ack before write")
        errand = make_errand(witness, ledger)
        with Engine(store, [errand]) as engine:
            if verify:
                for part in store.verify():
                    if part.problem is not None:
                        witness.trouble(f"verify: {part.place}: {part.problem}")
            crowd = Crowd(engine, errand, life, witness)
            _drive(engine, crowd, life)
    witness.operations(gremlin.operations, gremlin.writes)


def _drive(engine: Engine, crowd: Crowd, life: Life) -> None:
    """Have the clients work, and a worker beside them; then drain."""
    if life.mode == "starts":
        crowd.work()
    else:
        worker = Worker(engine, threads=THREADS, on_outcome=crowd.take)
        driving = threading.Thread(target=worker.run, daemon=True)
        driving.start()
        crowd.work()
        worker.stop()
        driving.join()
    Worker(engine, threads=THREADS, on_outcome=crowd.take).run(drain=True)
