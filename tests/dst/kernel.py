"""Many processes in one: exactly one thread runs at a time, and which one a seed decides. Time is virtual.

A simulated *process* has threads of its own (real ones of the interpreter, so that the engine's blocking code runs as
it is shipped), and each thread has a baton without which it doesn't run. At every call of the store, every wait for a
clock, an event, a queue or another thread, the thread that runs hands the baton to one that is ready, chosen by seeded
chance. When none is ready, virtual time goes on to the next instant at which one is. So a seed is one interleaving, and
gives the same one again.

A process that is *killed* gets `Killed` in each of its threads, wherever they wait; from then on whatever it asks of
this world raises that again, so its clean-up reaches nobody.
"""

from __future__ import annotations

import hashlib
import math
import random
import threading
import traceback
from collections.abc import Callable
from typing import Any

from stepwell.events import micros
from stepwell.testing.environments import EPOCH

__all__ = ["Kernel", "Killed", "Process", "Task", "here"]

START = micros(EPOCH)
FOREVER = math.inf

HAND_OVER = 0.4
"""How likely a call of the store lets others run, if there are any; to look for them takes a while."""


class Killed(BaseException):
    """The simulated process dies here."""


class _Here(threading.local):
    task: Task | None = None


_here = _Here()


def here() -> Task | None:
    """The simulated thread that calls this; None in a thread of the real world."""
    return _here.task


class Process:
    """One simulated process: some threads, a wall clock that may be wrong, chance of its own.

    Attributes:
        offset: microseconds by which its wall clock is ahead.
        paused: until this instant of virtual time none of its threads runs.
        dead: it was killed, or the simulation has ended.
        immortal: no fault hits it.
        gone: it has come to its own end.
        world: what is outside of it.
        engine: the one that works in it.
        stop: asks its worker to stop.
        busy: whether its engine holds leases.
        fences: the newest lease that it knows to be its own, by run.
    """

    def __init__(self, kernel: Kernel, name: str, *, immortal: bool = False) -> None:
        self.kernel, self.name, self.immortal = kernel, name, immortal
        self.offset = 0
        self.paused: float = 0
        self.dead = False
        self.entropy = random.Random(f"{kernel.seed}/{name}")
        self.fences: dict[str, int] = {}
        self.gone = False
        self.world: Any = None
        self.engine: Any = None
        self.stop: Callable[[], None] | None = None
        self.busy: Callable[[], bool] = lambda: True

    def clock(self) -> int:
        """Its wall clock, microseconds since 1970."""
        return self.kernel.time + self.offset


class Task:
    """A simulated thread. It is ready at `deadline`, when somebody has `woken` it, or when `ready` says so."""

    __slots__ = ("baton", "deadline", "done", "name", "process", "ready", "unwinder", "woken")

    def __init__(self, process: Process, name: str) -> None:
        self.process, self.name = process, name
        self.baton = threading.Lock()
        self.baton.acquire()
        self.ready: Callable[[], bool] | None = None
        self.woken = True
        self.deadline: float = 0
        self.unwinder: threading.Lock | None = None
        self.done = False


class Kernel:
    """The scheduler of one simulation.

    Args:
        seed: everything follows from it.
        tracing: keep each line of the trace, to be printed.

    Attributes:
        time: virtual time, microseconds since 1970.
        turns: how often somebody was chosen to run.
        failures: errors that left a simulated thread: a bug of the simulation, or of the code under it.
        stopped: nobody is to run any more.
    """

    def __init__(self, seed: int, *, tracing: bool = False) -> None:
        self.seed = seed
        self.chance = random.Random(f"kernel-{seed}")
        self.time = START
        self.turns = 0
        self.failures: list[str] = []
        self.stopped = False
        self.trace: list[str] | None = [] if tracing else None
        self._hash = hashlib.sha256()
        self._tasks: list[Task] = []
        self._main = threading.Lock()
        self._main.acquire()

    # ---- the trace

    def tell(self, *words: object) -> None:
        """Add a line to the trace, with the time, and who it was."""
        task = _here.task
        who = "-" if task is None else f"{task.process.name}/{task.name}"
        line = f"{(self.time - START) / 1e6:.6f} {who} {' '.join(map(str, words))}"
        self._hash.update(line.encode())
        if self.trace is not None:
            self.trace.append(line)

    def digest(self) -> str:
        """What stands for the whole trace."""
        return self._hash.hexdigest()

    # ---- what threads do

    def spawn(self, process: Process, work: Callable[[], object], name: str) -> Task:
        """Begin a thread of a process; it runs when it is chosen."""
        if process.dead:
            raise Killed
        task = Task(process, name)
        self._tasks.append(task)
        threading.Thread(target=self._carry, args=(task, work), name=f"{process.name}/{name}", daemon=True).start()
        return task

    def turn(self) -> None:
        """Let somebody else run, if chance has it so."""
        task = self._running()
        if task.process.paused > self.time or self.chance.random() < HAND_OVER:
            task.woken = True
            self._switch(task)

    def wait(
        self, ready: Callable[[], bool], seconds: float | None = None, *, waiters: list[Task] | None = None
    ) -> bool:
        """Wait until `ready()`, at most so many virtual seconds; whether it is.

        Args:
            waiters: whoever makes it ready sets `woken` of those in this list; None: it is asked again and again.
        """
        task = self._running()
        task.deadline = FOREVER if seconds is None else self.time + math.ceil(max(0.0, seconds) * 1e6)
        if waiters is None:
            task.ready, task.woken = ready, False
        else:
            task.woken = ready()
            waiters.append(task)
        try:
            self._switch(task)
        finally:
            task.ready = None
            if waiters is not None:
                waiters.remove(task)
        return ready()

    def sleep(self, seconds: float) -> None:
        """Do nothing for so many virtual seconds."""
        task = self._running()
        task.deadline, task.woken = self.time + math.ceil(seconds * 1e6), False
        self._switch(task)

    def kill(self, process: Process) -> None:
        """End a process at once, all of its threads; the caller's too, when it is of them."""
        process.dead = True
        me = self._running()
        for task in [one for one in self._tasks if one.process is process and one is not me]:
            self._unwind(task, me.baton)
            _here.task = me
        if me.process is process:
            raise Killed

    # ---- the world

    def run(self) -> None:
        """Run until nobody can run any more, or somebody has stopped it; then end all threads."""
        chosen = self._choose()
        if chosen is not None:
            chosen.baton.release()
            self._main.acquire()
        for task in list(self._tasks):
            task.process.dead = True
            self._unwind(task, self._main)

    def _running(self) -> Task:
        task = _here.task
        assert task is not None, "no thread of a simulation"
        if task.process.dead:
            raise Killed
        return task

    def _switch(self, task: Task) -> None:
        """Hand the baton to whoever is chosen, and wait for it to come back."""
        chosen = self._choose()
        if chosen is not task:
            (self._main if chosen is None else chosen.baton).release()
            task.baton.acquire()
        if task.process.dead:
            raise Killed

    def _choose(self) -> Task | None:
        """Who runs next; moves time on when nobody is ready. None: nobody ever will be."""
        while not self.stopped:
            now = self.time
            ready: list[Task] = []
            soonest: float = FOREVER
            for task in self._tasks:
                due, paused = task.deadline, task.process.paused
                if task.woken or (due > now and task.ready is not None and task.ready()):
                    due = now
                if paused > due:
                    due = paused
                if due <= now:
                    ready.append(task)
                elif due < soonest:
                    soonest = due
            if ready:
                self.turns += 1
                return ready[0] if len(ready) == 1 else ready[int(self.chance.random() * len(ready))]
            if soonest == FOREVER:
                return None
            self.time = int(soonest)
        return None

    def _carry(self, task: Task, work: Callable[[], object]) -> None:
        """What a real thread does: wait for the baton, work, hand it on."""
        _here.task = task
        task.baton.acquire()
        try:
            if not task.process.dead:
                work()
        except Killed:
            pass
        except BaseException:
            if not task.process.dead:
                self.failures.append(f"{task.process.name}/{task.name}: {traceback.format_exc()}")
                self.stopped = True
        task.done = True
        self._tasks.remove(task)
        if task.unwinder is not None:
            task.unwinder.release()
            return
        chosen = self._choose()
        (self._main if chosen is None else chosen.baton).release()

    def _unwind(self, task: Task, back: threading.Lock) -> None:
        """Have a thread of a dead process end, and come back when it has."""
        task.unwinder = back
        task.baton.release()
        back.acquire()
