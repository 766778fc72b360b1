"""One seed: a day of some workers and clients on one store, with everything that can go wrong, and a quiet evening.

The engine, the worker and the store are the shipped ones. The conductor, who is of this world and not of the
simulated one, kills, stops and restarts processes, sets their clocks wrong, and in the end lets everything come to
rest: from then on nothing fails, and every run has to end within a bound.
"""

from __future__ import annotations

import logging
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

from attrs import evolve, field, frozen
from tests.dst import shims
from tests.dst.clients import Client, draw_orders
from tests.dst.flows import journey
from tests.dst.judging import judge, judge_rows
from tests.dst.kernel import START, Kernel, Killed, Process
from tests.dst.stores import Rates, SimStore
from tests.dst.world import World

from stepwell import Engine
from stepwell.codec import Codec
from stepwell.environment import Environment
from stepwell.errors import StepwellError
from stepwell.store import HeadFilter
from stepwell.testing import SeededEntropy
from stepwell.worker import Worker

__all__ = ["HOURS", "Result", "simulate_seed"]

HOURS = 24
EVENING = 24
"""Hours within which everything has to end once nothing fails any more: timers last three, and follow one another."""

MOST_TURNS = 60_000
"""Turns after which somebody is taken to run in circles: ten times as many as a day takes."""

TTL = 30.0
FAULTS = Rates(
    kill_before=0.004,
    kill_after=0.004,
    pause=0.004,
    slow=0.01,
    unavailable=0.006,
    lost_reply=0.02,
    not_applied=0.01,
    unknown=0.01,
    dropped_bell=0.5,
)


@frozen
class Result:
    """What one seed came to."""

    seed: int
    wrong: list[str]
    sometimes: dict[str, int]
    digest: str
    turns: int
    hours: float
    trace: list[str] | None = field(default=None, repr=False)

    @property
    def findings(self) -> list[str]:
        """What must not be, each with the command that shows it again."""
        return [f"{text} -- PYTHONPATH=.:engine:stores python -m tests.dst {self.seed} --trace" for text in self.wrong]


class Simulation:
    """One seed.

    Args:
        open_inner: gives the shipped store for one process, or the one that all share; is given the store's clock.
        transactions: whether some steps are transactions, which takes a SQLite store.
    """

    def __init__(
        self,
        seed: int,
        open_inner: Callable[[Callable[[], int]], Any],
        *,
        tracing: bool,
        runs: int,
        storm: bool,
        transactions: bool,
    ) -> None:
        self.kernel = Kernel(seed, tracing=tracing)
        self.chance = random.Random(f"life-{seed}")
        self.world = World(self.kernel, self._strike)
        self.codec = Codec()  # what it knows of types is the same for all
        self._open_inner = open_inner
        self.opened: list[Any] = []
        self.faulty, self.quiet = True, Rates()
        self.rates = FAULTS if seed % 4 else evolve(FAULTS, dropped_bell=1.0)  # polling alone has to do
        self.every = 400 if storm else 1500  # seconds between two misfortunes
        self.lives: dict[str, int] = {}
        self.alive: dict[str, Process] = {}
        self.transactions = transactions
        orders = draw_orders(self.chance, runs, HOURS * 3600, transactions=transactions)
        self.clients = {f"client{n}": Client(self.world, orders[n]) for n in range(2)}
        self.workers = {f"worker{n}": self._worker for n in range(3)}

    # ---- processes

    def begin(self, name: str) -> Process:
        """Start a process anew, under the next number."""
        self.lives[name] = number = self.lives.get(name, 0) + 1
        process = self.alive[name] = Process(self.kernel, f"{name}.{number}")
        process.world = self.world
        if self.faulty and self.chance.random() < 0.2:
            process.offset = int(self.chance.choice([-5, 5, -600, 3600]) * 1e6)
        work = self.workers.get(name)
        self.kernel.spawn(process, lambda: work(process) if work else self._client(process, self.clients[name]), "main")
        return process

    def engine(self, process: Process) -> Engine:
        """The shipped engine, in a simulated process."""
        seed = process.entropy.getrandbits(32)
        env = Environment(clock=shims.SimClock(process), entropy=SeededEntropy(seed))
        theirs = self.rates  # clients are further away from the store than workers are
        if process.name.startswith("client"):
            theirs = evolve(theirs, not_applied=0.06, unknown=0.06, lost_reply=0.08)

        def faults() -> Rates:
            return theirs if self.faulty and not process.immortal else self.quiet

        store: Any = SimStore(self._inner(), process, self.world, faults, TTL)
        engine = Engine(store, [journey], environment=env, lease=TTL, codec=self.codec)
        process.busy = lambda: bool(engine._sessions._held)
        process.engine = engine
        return engine

    def _inner(self) -> Any:
        """The shipped store, for one process; closed at the end only: who is killed closes nothing."""
        inner = self._open_inner(lambda: self.kernel.time)
        if self.transactions and not self.opened:
            with closing(sqlite3.connect(inner.path)) as database:
                database.execute("CREATE TABLE posted (number INTEGER)")
        self.opened.append(inner)
        return inner

    def _worker(self, process: Process) -> None:
        """A worker, until it is told to stop."""
        worker = Worker(self.engine(process), threads=2, poll=shims.IDLE, prune_every=3600)
        process.stop = worker.stop
        ended = worker.run(handle_signals=False)
        self.world.met("worker stopped in order")
        self.kernel.tell("ended", sorted(ended.items()))
        self._gone(process)

    def _client(self, process: Process, client: Client) -> None:
        client.work(process, self.engine(process))
        self._gone(process)

    def _gone(self, process: Process) -> None:
        """A process has come to its own end."""
        process.engine.close()
        process.gone = True

    # ---- the conductor

    def conduct(self) -> None:
        """A day with faults, then an evening without."""
        kernel, chance = self.kernel, self.chance
        for name in (*self.workers, *self.clients):
            self.begin(name)
        while kernel.time < START + HOURS * 3_600_000_000 and kernel.turns < MOST_TURNS:
            kernel.sleep(chance.expovariate(1 / self.every))
            self._misfortune()
        self.faulty = False
        self.quiet = Rates(dropped_bell=self.rates.dropped_bell)
        kernel.tell("the evening begins")
        for process in self.alive.values():
            process.offset = 0
        self._come_to_rest()
        kernel.stopped = True

    def _misfortune(self) -> None:
        """Something happens to a process; those that are dead come back."""
        chance, kernel = self.chance, self.kernel
        for name, process in list(self.alive.items()):
            if (process.dead or process.gone) and chance.random() < 0.7 and not self._is_done(name):
                self.begin(name)
        name = chance.choice(list(self.alive))
        process = self.alive[name]
        if process.dead or process.gone:
            return
        what = chance.choice(["kill", "stop", "clock", "order", "nothing"])
        if what == "kill":
            self.world.met("killed from outside")
            kernel.kill(process)
        elif what == "stop":
            self.world.met("stopped from outside")
            process.paused = kernel.time + int(chance.choice([5, 40, 400]) * 1e6)
        elif what == "clock":
            self.world.met("clock jumped")
            process.offset = int(chance.choice([0, 0, -5, 5, -600, 600, -3600, 3600, -40 * 86400]) * 1e6)
        elif what == "order" and process.stop is not None:
            process.stop()
        kernel.tell("misfortune", name, what)

    def _strike(self, process: Process) -> None:
        """A process is killed or stopped in the midst of a step, if chance has it so."""
        lot = self.kernel.chance.random() if self.faulty and not process.immortal else 1.0
        if lot < 0.02:
            self.world.met("killed in a step")
            self.kernel.kill(process)
        elif lot < 0.04:
            self.world.met("stopped in a step")
            process.paused = self.kernel.time + int(TTL * (1 + 2 * self.kernel.chance.random()) * 1e6)

    def _is_done(self, name: str) -> bool:
        return name in self.clients and self.clients[name].done

    def _come_to_rest(self) -> None:
        """Restart what is down, answer every question, and wait until all runs have ended."""
        kernel, end = self.kernel, self.kernel.time + EVENING * 3_600_000_000
        me = Process(kernel, "evening", immortal=True)
        me.world = self.world
        finisher = self.engine(me)
        kernel.spawn(me, lambda: self._finish(finisher, end), "main")
        kernel.wait(lambda: self._rested, (end - kernel.time) / 1e6 + 1)

    _rested = False

    def _finish(self, engine: Engine, end: int) -> None:
        kernel, number = self.kernel, 0
        inner = self._inner()
        while kernel.time < end and kernel.turns < MOST_TURNS:
            for name, process in list(self.alive.items()):
                if (process.dead or process.gone) and not self._is_done(name):
                    self.begin(name)
            still = inner.heads(HeadFilter(closed=False), limit=10_000)
            if not still and all(client.done for client in self.clients.values()):
                self._rested = True
                return
            for head in still:
                if head.head.status == "paused" and head.lease_until is None:
                    engine.unpause(head.run_id)
                for wait in head.head.waiting if head.lease_until is None else ():
                    number += 1
                    with suppress(StepwellError):
                        engine.signal(head.run_id, wait.signal, 1_000_000 + number, id=f"evening-{number}")
            kernel.sleep(1200)
        for head in inner.heads(HeadFilter(closed=False), limit=10_000):
            self.world.violate("S17", f"run {head.run_id} has not ended {EVENING} h after the last fault: {head}")
        self._rested = True


class _Errors(logging.Handler):
    """What the engine logs as an error is a bug, unless its process was being killed."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        dying = isinstance(error, Killed) or any(isinstance(arg, Killed) for arg in record.args or ())
        if not dying:
            self._world.violate("S18", f"the engine logged: {record.getMessage()} {error!r}")


def simulate_seed(
    seed: int,
    open_inner: Callable[[Callable[[], int]], Any] | None = None,
    *,
    tracing: bool = False,
    runs: int = 10,
    storm: bool | None = None,
    transactions: bool = False,
) -> Result:
    """Run one seed to its end, and judge it.

    Args:
        open_inner: opens the store for a process, given its lease clock; None: a MemoryStore that all share.
        tracing: keep the trace.
        runs: how many runs clients begin.
        storm: whether misfortunes come thick; None: with every fifth seed.
        transactions: whether some steps are transactions; each process has a SQLite store then.
    """
    if open_inner is None:
        from stepwell_stores.memory import MemoryStore

        shared: list[Any] = []

        def open_shared(clock: Callable[[], int]) -> Any:
            if not shared:
                shared.append(MemoryStore(clock=clock))
            return shared[0]

        open_inner = open_shared

    storm = seed % 5 == 1 if storm is None else storm
    with shims.installed():
        simulation = Simulation(seed, open_inner, tracing=tracing, runs=runs, storm=storm, transactions=transactions)
        kernel, world = simulation.kernel, simulation.world
        handler, logger = _Errors(world), logging.getLogger("stepwell")
        before = (logger.propagate, logger.level)
        logger.addHandler(handler)
        logger.propagate = False
        try:
            conductor = Process(kernel, "conductor", immortal=True)
            kernel.spawn(conductor, simulation.conduct, "main")
            kernel.run()
        finally:
            logger.removeHandler(handler)
            logger.propagate, _ = before
        world.wrong.extend(f"S18: a thread died: {text}" for text in kernel.failures)
        if not world.wrong:
            judge(world, simulation._inner())
        if not world.wrong and transactions:
            with closing(sqlite3.connect(simulation._inner().path)) as database:
                judge_rows(world, [number for (number,) in database.execute("SELECT number FROM posted")])
        for inner in simulation.opened:
            inner.close()
    hours = (kernel.time - START) / 3_600_000_000
    return Result(seed, world.wrong, dict(world.sometimes), kernel.digest(), kernel.turns, hours, kernel.trace)
