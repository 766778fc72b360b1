"""Clients: what programs outside ask of the runs, again and again until they have an answer, also after their death."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from attrs import frozen
from tests.dst.flows import Plan, draw_plan, journey, questions_of, with_transactions
from tests.dst.kernel import START, Process
from tests.dst.world import World

from stepwell import Engine
from stepwell.errors import (
    ConflictError,
    EventMismatchError,
    LeaseLostError,
    NotFoundError,
    RunBusyError,
    RunClosedError,
    StepwellError,
    StoreError,
)
from stepwell.outcomes import RunCompleted

__all__ = ["Client", "Order", "draw_orders"]

AGAIN = (StoreError, LeaseLostError, RunBusyError)
"""What a client answers by asking once more."""

REFUSED = (ConflictError, EventMismatchError, NotFoundError, RunClosedError)
"""What is an answer too."""

BUDGET = 35


@frozen
class Order:
    """Something that a client is to ask for: when (seconds from the beginning), what, of which run."""

    at: float
    kind: str
    run_id: str
    args: tuple[Any, ...] = ()


class Client:
    """The orders of one client, and how far they are; it outlives the processes that carry them out."""

    def __init__(self, world: World, orders: list[Order]) -> None:
        self.world = world
        self.orders = sorted(orders, key=lambda order: (order.at, order.run_id, order.kind))
        self.next = 0

    @property
    def done(self) -> bool:
        """Whether all orders have been answered."""
        return self.next == len(self.orders)

    def work(self, process: Process, engine: Engine) -> None:
        """Carry out what is left, in this process."""
        kernel = process.kernel
        while not self.done:
            order = self.orders[self.next]
            kernel.sleep(max(0.0, order.at - (kernel.time - START) / 1e6))
            if self._ask(process, engine, order):
                self.next += 1
            else:
                kernel.sleep(20)

    def _ask(self, process: Process, engine: Engine, order: Order) -> bool:
        """Ask once; whether there was an answer."""
        kernel, world = process.kernel, self.world
        kernel.tell("ask", order.kind, order.run_id)
        try:
            found = ASK[order.kind](engine, order.run_id, *order.args)
        except AGAIN as error:
            world.met(f"client met {type(error).__name__}")
            return False
        except REFUSED as error:
            kernel.tell("refused", type(error).__name__)
            world.met(f"{order.kind} refused")
            return True
        except StepwellError as error:
            world.violate("S18", f"{order} was answered by {error!r}")
            return True
        kernel.tell("answered", order.kind, order.run_id, type(found).__name__)
        world.answered(order.kind, order.run_id, order.args)
        if isinstance(found, RunCompleted):
            world.told(order.run_id, found.unwrap())
        return True


def _submit(engine: Engine, run_id: str, plan: Plan) -> Any:
    return engine.submit(journey, plan, [], run_id=run_id, budget=BUDGET)


def _start(engine: Engine, run_id: str, plan: Plan) -> Any:
    return engine.start(journey, plan, [], run_id=run_id, budget=BUDGET)


def _restart(engine: Engine, run_id: str, plan: Plan) -> Any:
    return engine.submit(journey, plan, [], run_id=run_id, if_open="restart", if_closed="restart")


def _resume(engine: Engine, run_id: str, name: str, value: int, signal_id: str) -> Any:
    try:
        return engine.resume(run_id, name, value, id=signal_id)
    except EventMismatchError:  # it does not wait for that yet
        return engine.signal(run_id, name, value, id=signal_id)


ASK: dict[str, Callable[..., Any]] = {
    "advance": lambda engine, run_id: engine.advance(run_id),
    "cancel": lambda engine, run_id: engine.cancel(run_id, "as planned"),
    "delete": lambda engine, run_id: engine.delete(run_id),
    "force": lambda engine, run_id: engine.cancel(run_id, "as planned", force=True),
    "pause": lambda engine, run_id: engine.pause(run_id),
    "prune": lambda engine, _: engine.prune(older_than=3600),
    "restart": _restart,
    "resume": _resume,
    "retry": lambda engine, run_id: engine.retry(run_id),
    "run_due": lambda engine, _: engine.run_due(3),
    "signal": lambda engine, run_id, name, value, signal_id: engine.signal(run_id, name, value, id=signal_id),
    "start": _start,
    "submit": _submit,
    "unpause": lambda engine, run_id: engine.unpause(run_id),
    "wait": lambda engine, run_id: engine.wait(run_id, 10),
}


def draw_orders(chance: random.Random, runs: int, seconds: float, *, transactions: bool = False) -> list[list[Order]]:
    """The orders of two clients, by seeded chance: runs that begin all day, and what is asked of them."""
    given: list[list[Order]] = [[], []]

    def order(at: float, kind: str, run_id: str, *args: Any, both: bool = False) -> None:
        for client in (0, 1) if both else (chance.randrange(2),):
            given[client].append(Order(at, kind, run_id, args))

    for number in range(runs):
        run_id, plan, at = f"r{number}", draw_plan(chance), chance.random() * 0.85 * seconds
        plan = with_transactions(plan) if transactions else plan
        order(at, chance.choice(["submit", "start"]), run_id, plan, both=chance.random() < 0.2)
        for asked, name in enumerate(questions_of(plan)):
            if chance.random() < 0.15:
                continue
            kind = chance.choice(["signal", "signal", "resume"])
            late = chance.choice([0, chance.random() * 5, 60, chance.random() * 7200])
            order(at + late, kind, run_id, name, asked, f"s-{asked}", both=chance.random() < 0.3)
        for kind, likely in LATER:
            if chance.random() < likely:
                order(at + chance.random() * 5000, kind, run_id, *((plan,) if kind == "restart" else ()))
                if kind == "pause":
                    order(at + 6000 + chance.random() * 2000, "unpause", run_id)
    for hour in range(2, int(seconds / 3600), 2):
        order(hour * 3600, "prune", "")
        order(hour * 3600 + 1, "run_due", "")
    return given


LATER = (
    ("advance", 0.2),
    ("cancel", 0.1),
    ("delete", 0.1),
    ("force", 0.03),
    ("pause", 0.08),
    ("restart", 0.05),
    ("retry", 0.3),
    ("wait", 0.2),
)
