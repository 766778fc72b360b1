"""Eight processes that wait at one gate and do the same thing at the same instant, round after round.

They are forked once and live as long as the harness: an order comes to each through a pipe of its own, each says that
it is ready, and then one write into a pipe that all of them read from lets them go.
"""

from __future__ import annotations

import contextlib
import json
import logging
import mmap
import os
import select
import signal
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from tests.crash.planted import plant
from tests.crash.stops import die_with
from tests.crash.witness import AckStore, Witness

from stepwell import Engine, Flow, Step, Suspend, current_step, workflow
from stepwell.errors import StepwellError
from stepwell.store import HeadFilter, Lease, RunHead
from stepwell_stores import open_store

__all__ = ["SIZE", "Pool", "make_workflows"]

SIZE = 8
"""Processes."""

_LONG = 3_600.0  # seconds: a lease that nobody lives to see the end of
_STUCK = 60.0  # seconds for one round


def make_workflows(witness: Witness, broken: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """What the racers start: `plain`, `asks`, which waits for a signal, and `fails`, until what it needs is mended."""

    def effect(name: str) -> str:
        here = current_step()
        witness.effect(here.run_id, here.step_id, here.attempt, here.idempotency_key)
        return name

    def fragile(name: str) -> str:
        effect(name)
        if broken():
            raise ConnectionError("the line is down")
        return name

    def do(name: str, what: Callable[[str], str] = effect) -> Step[str]:
        return Step(what, name).options(name=name)

    @workflow
    def plain(value: str) -> Flow[list[str]]:
        first = yield from do("first")
        return [value, first, (yield from do("second"))]

    @workflow
    def asks(value: str) -> Flow[list[str]]:
        first = yield from do("first")
        answer = yield from Suspend("approve", into=str)
        return [value, first, answer, (yield from do("second"))]

    @workflow
    def fails(value: str) -> Flow[list[str]]:
        first = yield from do("first")
        return [value, first, (yield from do("second", fragile))]

    return {"plain": plain, "asks": asks, "fails": fails}


class _Quiet(logging.Handler):
    """Warnings are a loser's lot; what is worse is told."""

    def __init__(self, witness: Witness) -> None:
        super().__init__(logging.WARNING)
        self._witness = witness

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno > logging.WARNING:
            self._witness.trouble(f"logged: {record.getMessage()}")


class _Racer:
    """One of the processes."""

    def __init__(self, witness: Witness, broken: Callable[[], bool]) -> None:
        self.witness = witness
        self.workflows = make_workflows(witness, broken)
        self.url = ""
        self.engine = Engine("memory:")

    def get_ready(self, order: dict[str, Any]) -> None:
        """Have the store of an order at hand, opened unless it is to be opened in the race."""
        if order["url"] != self.url:
            self.engine.close()
            self.url = order["url"]
            self.engine = Engine(AckStore(open_store(self.url), self.witness), self.workflows.values())
        if not order["cold"]:
            self.engine.store.heads(HeadFilter(), limit=1)

    def act(self, order: dict[str, Any]) -> dict[str, Any]:
        """Do what was ordered; what came of it as JSON."""
        if order["lag"]:
            select.select([], [], [], order["lag"])
        try:
            done = self._act(order["do"], order)
        except StepwellError as error:
            return {"name": type(error).__name__, "text": str(error)}
        except Exception:
            self.witness.trouble(f"{order['do']} raised: {traceback.format_exc()}")
            return {"name": "?"}
        if isinstance(done, list):
            return {"name": "list", "result": [[type(one).__name__, one.run_id] for one in done]}
        return {"name": type(done).__name__, "result": getattr(done, "result", None)}

    def _act(self, what: str, order: dict[str, Any]) -> Any:
        engine, run_id = self.engine, order["run"]
        if what == "start":
            chosen = self.workflows[order["workflow"]]
            return engine.start(
                chosen, order["value"], run_id=run_id, if_open=order["if_open"], if_closed=order["if_closed"]
            )
        if what == "claim":
            claimed = engine.store.claim(run_id, f"p{os.getpid()}", _LONG)
            assert isinstance(claimed, Lease) or (isinstance(claimed, RunHead) and claimed.lease_until is not None)
            return claimed
        if what == "resume":
            return engine.resume(run_id, "approve", order["value"], id=order["id"])
        if what == "run_due":
            return engine.run_due()
        return getattr(engine, what)(run_id)  # advance, retry, delete


class Pool:
    """The processes, as their parent sees them.

    Args:
        planted: a bug to put into each, or None.
    """

    def __init__(self, planted: str | None) -> None:
        self._board = mmap.mmap(-1, mmap.PAGESIZE)
        self._gate_out, self._gate_in = os.pipe()
        self._pids: list[int] = []
        self._orders: list[int] = []
        self._told: list[int] = []
        self._heard = [b""] * SIZE
        for _ in range(SIZE):
            self._fork(planted)

    def set_broken(self, broken: bool) -> None:
        """Whether what `fails` needs is broken."""
        self._board[0] = int(broken)

    def is_broken(self) -> bool:
        """As the processes see it."""
        return bool(self._board[0])

    def race(self, orders: list[dict[str, Any]]) -> list[list[list[str]]]:
        """Have each do what it is ordered to, all at once: the words of every line that each told.

        Raises:
            TimeoutError: one does not come back.
        """
        for fd, order in zip(self._orders, orders, strict=True):
            os.write(fd, json.dumps(order).encode() + b"\n")
        self._until("ready")
        os.write(self._gate_in, b"." * SIZE)
        return [[line.split(" ") for line in part.decode().splitlines()] for part in self._until("answer")]

    def _until(self, word: str) -> list[bytes]:
        """What each told up to the line that begins with a word."""
        deadline, found = time.monotonic() + _STUCK, [b""] * SIZE
        while not all(found):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{found.count(b'')} of {SIZE} racers never said {word!r}: {self._heard}")
            ready = select.select([self._told[n] for n in range(SIZE) if not found[n]], [], [], 1)[0]
            for n in range(SIZE):
                if self._told[n] in ready:
                    part = os.read(self._told[n], 1 << 16)
                    if not part:
                        raise TimeoutError(f"racer {n} died: {self._heard[n].decode()}")
                    self._heard[n] += part
                at = self._heard[n].rfind(b"\n") + 1
                if at and self._heard[n][:at].splitlines()[-1].startswith(word.encode()):
                    found[n], self._heard[n] = self._heard[n][:at], self._heard[n][at:]
        return found

    def kill(self) -> None:
        """End them."""
        for pid in self._pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        self._pids.clear()

    def _fork(self, planted: str | None) -> None:
        order_out, order_in = os.pipe()
        told_out, told_in = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid:
            os.close(order_out)
            os.close(told_in)
            self._pids.append(pid)
            self._orders.append(order_in)
            self._told.append(told_out)
            return
        for fd in (order_in, told_out, *self._orders, *self._told):
            os.close(fd)
        self._live(parent, order_out, Witness(told_in), planted)

    def _live(self, parent: int, orders: int, witness: Witness, planted: str | None) -> NoReturn:
        """What a child does, until it is killed."""
        try:
            die_with(parent)
            plant(planted)
            log = logging.getLogger("stepwell")
            log.handlers, log.propagate = [_Quiet(witness)], False
            racer = _Racer(witness, self.is_broken)
            with open(orders, "rb") as lines:
                for line in lines:
                    order = json.loads(line)
                    racer.get_ready(order)
                    os.write(witness.fd, b"ready\n")
                    os.read(self._gate_out, 1)
                    answer = racer.act(order)
                    os.write(witness.fd, f"answer {json.dumps(answer)}\n".encode())
        except BaseException:
            witness.trouble(f"a racer ended: {traceback.format_exc()}")
        finally:
            os._exit(1)
