"""A computer with stores on it, and a book of what they tell: every call that a harness makes goes through here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from attrs import define, field, frozen
from tests.crash.crash_ledger import EPOCH, TTL, Attempt, Ledger, UntypedError, Violation
from tests.crash.simdisk import ROOT
from tests.crash.simfs import Computer, Killed

from stepwell.errors import CorruptHistoryError, NotFoundError, StepwellError, StoreError
from stepwell.store import HeadFilter, Lease, RunHead, Tail, Unknown
from stepwell_stores.jsonl import JsonlStore

__all__ = ["Look", "Process", "World"]

STORE = f"{ROOT}/store"


@define
class Process:
    """A simulated process with a store."""

    pid: int
    token: str
    store: JsonlStore
    alive: bool = True


@frozen
class Look:
    """A run as it was read."""

    head: RunHead | None
    tail: Tail | None
    older: list[list[bytes]]

    def __str__(self) -> str:
        if self.tail is None:
            return "no run"
        sizes = [[len(line) + 1 for line in lines] for lines in (*self.older, self.tail.records)]
        more = f", fence {self.head.fence}, leased until {self.head.lease_until}" if self.head is not None else ""
        return f"lines of {sizes}, {'closed' if self.tail.closed else 'open'}{more}"


@define
class World:
    """A computer, what was told by the stores on it, and the time.

    Attributes:
        strict: nothing is made to fail, so every call has to go well.
        number: of the newest attempt.
        serial: of the newest process.
        log: what was done, for people.
        met: how often what happened.
    """

    computer: Computer
    ledger: Ledger = field(factory=Ledger)
    met: Counter[str] = field(factory=Counter)
    strict: bool = True
    now: int = EPOCH
    number: int = 0
    serial: int = 0
    log: list[tuple[str, object]] = field(factory=list)
    shared: bool = False
    processes: list[Process] = field(factory=list)

    def clock(self) -> int:
        self.now += 1000
        return self.now

    def process(self) -> Process:
        """Start a process. It ends in a crash, never in good order, so its store is kept until the next boot."""
        self.serial += 1
        token, pid = f"process-{self.serial:04}", self.computer.begin_process()
        process = Process(pid, token, JsonlStore(STORE, clock=self.clock, network=True))
        self.processes.append(process)
        return process

    def book(self) -> Ledger:
        """The ledger, to be written in: a photo may have the one that was."""
        if self.shared:
            self.ledger, self.shared = self.ledger.copy(), False
        return self.ledger

    def call(self, process: Process, what: str, call: Callable[[JsonlStore], Any]) -> Any:
        """Let a process do something; Unknown when it died, or the store raised as it may."""
        self.computer.pid = process.pid
        try:
            outcome = call(process.store)
        except Killed:
            process.alive = False
            self.met["process killed"] += 1
            outcome = Unknown()
        except StepwellError as error:
            if self.strict or not isinstance(error, (StoreError, NotFoundError)):
                damaged = "that the history is damaged" if isinstance(error, CorruptHistoryError) else "an error"
                raise Violation(f"{what} found {damaged}: {error!r}") from error
            self.met["raised"] += 1
            outcome = Unknown(error)
        except Violation:
            raise
        except Exception as error:
            raise UntypedError(f"{what} raised {error!r}, which is no error of the port's") from error
        self.log.append((what, outcome))
        return outcome

    def attempt(self, process: Process, attempt: Attempt) -> Any:
        """Try a write, or repeat it, and keep what is told."""
        token = f"{process.token}-{attempt.number:04}"  # only this process asks with it, and only here
        fresh = self.book().begin(attempt)
        name = f"{attempt.kind} {attempt.number}"
        outcome = self.call(process, name, lambda store: attempt.send(store, token))
        self.met["deleted" if outcome is True else type(outcome).__name__] += 1
        self.book().settle(attempt, outcome, token, fresh=fresh)
        return outcome

    def look(self, process: Process, run_id: str, *, head: bool = True) -> Tail | Unknown | None:
        """Read a whole run, and its head if asked to; Unknown when that can't be done."""

        def read(store: JsonlStore) -> Look:
            first = store.head(run_id) if head else None
            tail = store.read(run_id)
            if tail is None and first is not None:
                raise Violation(f"there is a head and no history: {first}")
            older = [store.read(run_id, incarnation=i) for i in range(0 if tail is None else tail.incarnation)]
            return Look(first, tail, [[] if old is None else old.records for old in older])

        found = self.call(process, "look", read)
        if isinstance(found, Unknown):
            return found
        assert isinstance(found, Look)
        self.book().see(run_id, found.head, found.tail, found.older)
        return found.tail

    def list(self, process: Process) -> None:
        """Read the heads of all runs."""
        heads = self.call(process, "heads", lambda store: store.heads(HeadFilter(), limit=9))
        if not isinstance(heads, Unknown):
            self.book().see_all(heads)

    def claim(self, process: Process, run_id: str) -> Any:
        """Take a lease."""
        lease = self.call(process, "claim", lambda store: store.claim(run_id, "me", TTL))
        if isinstance(lease, Lease):
            self.book().granted(lease)
        return lease

    def next(self) -> int:
        """The number of a new attempt."""
        self.number += 1
        return self.number
