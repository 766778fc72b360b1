"""What a crowd works at: dozens of short runs, a ledger of what their steps did, and a witness that keeps a file.

A run has three steps. Each writes a line into a ledger outside the store, synced before the step returns, with a token
that nobody else draws; the token is its result, and the next step's line names it. So the ledger tells, whatever the
store says, which steps were performed, how often, and which outcome of each the workflow was given. Between the first
step and the second some runs wait for payments, each a signal with an amount of its own.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias

from attrs import frozen
from tests.crash.faults import Point
from tests.crash.witness import Witness

from stepwell import Flow, Step, Suspend, current_step, workflow

__all__ = [
    "STEPS",
    "Bell",
    "Event",
    "FileWitness",
    "Ledger",
    "Life",
    "Line",
    "Mode",
    "Task",
    "amount_of",
    "expected",
    "lines_of",
    "make_errand",
    "questions_of",
    "told_by",
]

STEPS = ("first", "second", "third")
"""What a run does, in this order; names and step ids."""

Mode: TypeAlias = Literal["starts", "worker", "both"]
"""Who drives: threads that call `start` and `resume`, a worker's threads, or both at once."""

Event: TypeAlias = Literal["ledger", "ack"]
"""What the parent hears of."""


@frozen
class Task:
    """Something that one thread is to do: begin a run, or send it one of its payments."""

    run_id: str
    what: Literal["begin", "pay"]
    number: int = 0

    @property
    def signal_id(self) -> str:
        return f"p{self.number}"


@frozen
class Life:
    """One process, which may be killed.

    Attributes:
        number: of the process, from 0.
        mode: who drives.
        tasks: what its clients do; payments of runs that it begins come when they are begun.
        point: the operation on a file at which it dies.
        event: the parent kills it when it hears of the n-th line of the ledger, or of the n-th acknowledged record.
        group: it dies in this shared transaction, by number, from 1, at this operation on the log, or right after.
        fails: which shared transactions fail, by number, from 1: their first write or sync, in turn.
    """

    number: int
    mode: Mode
    tasks: tuple[Task, ...]
    point: Point | None = None
    event: tuple[Event, int] | None = None
    group: tuple[int, int] | None = None
    fails: frozenset[int] = frozenset()

    @property
    def watched(self) -> bool:
        """Whether the layers for faults are put in at all; without them it is as fast as it can be."""
        return self.event is None or bool(self.fails)


def questions_of(run_id: str) -> int:
    """How many payments a run waits for: its id ends in that."""
    return int(run_id.rpartition("-")[2])


def amount_of(run_id: str, number: int) -> int:
    """What is paid; amounts of one run differ, and so do their sums."""
    return (zlib.crc32(f"{run_id}/{number}".encode()) % 997 + 1) * 1_000**number


# ---- the ledger


@frozen
class Line:
    """One performance of a step: in which process, what it drew, and what the step before had come to ("-": none)."""

    life: int
    run_id: str
    step: str
    token: str
    before: str


class Ledger:
    """The world outside: a file to which steps append. The functions of `os` are looked up when they are called.

    Args:
        path: the file.
        life: who writes.
        heard: called when a line is synced.
    """

    def __init__(self, path: Path, life: int, heard: Callable[[], object]) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._life = life
        self._heard = heard

    def enter(self, run_id: str, step: str, before: str) -> str:
        """Write a line, and give its token when it is synced."""
        token = os.urandom(8).hex()
        # On a line of its own, though the one before may have been cut short; and not taken for whole if it is itself.
        os.write(self._fd, f"\n{self._life} {run_id} {step} {token} {before} .\n".encode())
        os.fsync(self._fd)
        self._heard()
        return token


def lines_of(path: Path) -> Iterator[Line]:
    """The whole lines of a ledger, in order."""
    data = path.read_text("utf-8") if path.exists() else ""
    for found in re.finditer(r"^(\d+) (\S+) (\S+) ([0-9a-f]{16}) (-|[0-9a-f]{16}) \.$", data, re.MULTILINE):
        yield Line(int(found[1]), *found.groups()[1:])


# ---- the witness


class FileWitness(Witness):
    """A witness of many threads that appends to a file and syncs it, and rings for each acknowledged record.

    Besides what every witness tells: `begun` (start or submit has returned) and `done` (a run's result was given).

    Args:
        path: the file; "" tells nobody.
        heard: called when an `ack` is synced.
    """

    def __init__(self, path: Path | None, heard: Callable[[], object] = lambda: None) -> None:
        super().__init__(-1 if path is None else os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))
        self._sync = os.fsync
        self._heard = heard

    def begun(self, run_id: str) -> None:
        """A run was started or submitted."""
        self._tell("begun", run_id)

    def done(self, run_id: str, result: Any) -> None:
        """A run's result was given to a caller."""
        self._tell("done", run_id, json.dumps(result, separators=(",", ":")))

    def _tell(self, *words: object) -> None:
        super()._tell(*words)
        if self.fd >= 0:
            self._sync(self.fd)
            if words[0] == "ack":
                self._heard()


def told_by(path: Path) -> bytes:
    """What a witness told, without a line that its death cut short."""
    data = path.read_bytes() if path.exists() else b""
    return data[: data.rfind(b"\n") + 1]


class Bell:
    """Tells the parent of events, one byte each, through a pipe, which outlives who rings it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._write = os.write

    def ring(self, what: bytes) -> None:
        """Tell of one."""
        if self._fd >= 0:
            self._write(self._fd, what)


# ---- the workflow


def make_errand(witness: Witness, ledger: Ledger | None) -> Any:
    """The workflow; without a ledger it can be replayed, and not performed."""

    def perform(name: str, before: str) -> str:
        here = current_step()
        witness.effect(here.run_id, here.step_id, here.attempt, here.idempotency_key)
        assert ledger is not None
        return ledger.enter(here.run_id, name, before)

    def do(name: str, before: str) -> Step[str]:
        return Step(perform, name, before).options(name=name)

    @workflow
    def errand(questions: int) -> Flow[list[Any]]:
        first = yield from do("first", "-")
        paid: list[int] = []
        for _ in range(questions):
            paid.append((yield from Suspend("pay", into=int)))  # noqa: PERF401 - a comprehension can't yield
        second = yield from do("second", first)
        third = yield from do("third", second)
        return [first, second, third, len(paid), sum(paid)]

    return errand


def expected(run_id: str, tokens: list[str]) -> list[Any]:
    """What a run comes to whose steps came to these tokens."""
    paid = [amount_of(run_id, number) for number in range(questions_of(run_id))]
    return [*tokens, len(paid), sum(paid)]
