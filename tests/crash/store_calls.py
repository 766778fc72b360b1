"""A store whose n-th call fails, for n = 1, 2, 3, ... until nothing fails any more: at the port, and below it.

At the port a call is not applied, or its outcome is unknown, or it raises, before or after it did its work; below, one
call of the system's (JSONL) or of SQLite's layer of files fails with an error code. Whatever fails, once:

- the engine answers, or raises an error of the store's family, never anything else;
- nothing of the store's gets into a history, and the run comes to its right end when the caller goes on;
- each step is recorded once. An append that is merely not applied, or unknown, is repeated, and no caller hears of it:
  every step is performed exactly as often as when nothing fails.

    python -m tests.crash.store_calls --store jsonl --level system
"""

from __future__ import annotations

import argparse
import errno
import json
import logging
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from attrs import define, frozen
from tests.crash import sqlite_vfs
from tests.crash.faults import GO, READS, WRITES, Action, OsFaults
from tests.crash.generations import memory_folder
from tests.crash.planted import PLANTS, plant
from tests.crash.reports import Report
from tests.crash.store_scenarios import SCENARIOS, Scenario, World

from stepwell import Engine, testing
from stepwell.environment import Environment
from stepwell.errors import CorruptHistoryError, StoreError
from stepwell.store import HeadFilter, Store, Unknown
from stepwell.testing import FaultStore
from stepwell.testing.environments import InlineExecutor, SeededEntropy, VirtualClock
from stepwell.testing.fault_plans import FaultKind
from stepwell_stores import open_store

__all__ = ["ERRNOS", "FAULTS", "RESULTS", "Fault", "NewAttempts", "main", "sweep"]

APPENDS = frozenset({"create", "append", "open_incarnation"})
CHANGES = APPENDS | {"claim", "claim_due", "release", "delete"}
LOOKS = frozenset({"head", "heads", "read", "next_due"})


@frozen
class Fault:
    """One way in which one call fails.

    Attributes:
        name: for reports.
        calls: which calls can fail so: methods of the port, or kinds of operations below it.
        settled: whether the engine has to cope with it by itself.
        kind: how, at the port.
        error: what is raised there, None for what the kind raises by itself.
        code: errno or result code, for faults below the port.
    """

    name: str
    calls: frozenset[str]
    settled: bool = False
    kind: FaultKind = "before"
    error: Callable[[str], Exception] | None = None
    code: int | None = None

    def at_the_port(self, nth: int) -> testing.Fault:
        """The n-th call fails so."""
        return testing.Fault(self.kind, on=sorted(self.calls), nth=nth, error=self.error)


FAULTS = (
    Fault("not applied", APPENDS, settled=True, kind="not_applied"),
    Fault("unknown, not written", APPENDS, settled=True, kind="unknown"),
    Fault("unknown, written", APPENDS, settled=True, kind="lost"),
    Fault("unavailable", CHANGES | LOOKS),
    Fault("store error before", CHANGES | LOOKS, error=StoreError),
    Fault("store error after", CHANGES, kind="after"),
    Fault("corrupt", LOOKS, error=CorruptHistoryError),
    Fault("fenced by another owner", frozenset({"append"}), kind="fenced"),
)
"""At the port."""

ERRNOS = tuple(
    Fault(name, WRITES | READS, code=getattr(errno, name))
    for name in ("EIO", "ENOSPC", "EDQUOT", "EINTR", "EMFILE", "EACCES", "EROFS")
)
"""Of the system's calls, which keep JSONL's files and everybody's locks."""


def _result(name: str, *kinds: str) -> Fault:
    return Fault(name, frozenset(kinds), code=getattr(sqlite3, name))


RESULTS = (
    _result("SQLITE_FULL", "write"),
    _result("SQLITE_IOERR_WRITE", "write"),
    _result("SQLITE_IOERR_FSYNC", "sync"),
    _result("SQLITE_IOERR_TRUNCATE", "truncate"),
    _result("SQLITE_IOERR_DELETE", "delete"),
    _result("SQLITE_IOERR_READ", "read"),
    _result("SQLITE_CORRUPT", "read"),
    _result("SQLITE_BUSY", "lock", "shmlock"),
    _result("SQLITE_IOERR_LOCK", "lock"),
    _result("SQLITE_IOERR_SHMLOCK", "shmlock"),
    _result("SQLITE_CANTOPEN", "open"),
    _result("SQLITE_NOMEM", *sqlite_vfs.CHANGES, *sqlite_vfs.LOOKS),
)
"""Of SQLite's layer of files."""


@define(eq=False)
class Trigger:
    """Counts calls, and says at which one it is time to fail."""

    fault: Fault
    nth: int
    seen: int = 0
    fired: str = ""

    def pull(self, kind: str, what: str) -> bool:
        """Whether this call is the one."""
        if kind not in self.fault.calls:
            return False
        self.seen += 1
        if self.seen == self.nth:
            self.fired = what
        return self.seen == self.nth


class NewAttempts:
    """The planted bug "another attempt after Unknown", between an engine and its store.

    It takes an unknown outcome for "not applied", and tries anew in place of repeating.
    """

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self._unknown: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def append(
        self, run_id: str, number: int | None, at: int | None, records: Any, *, attempt_id: str, **how: Any
    ) -> Any:
        name = attempt_id
        if attempt_id in self._unknown:
            name = f"{attempt_id}.again"
            head = None if how.get("fence") is None else self.inner.head(run_id)
            at = at if head is None else head.seq
        done = self.inner.append(run_id, number, at, records, attempt_id=name, **how)
        if isinstance(done, Unknown):
            self._unknown.add(attempt_id)
        return done


# ---- one story


def play(scenario: Scenario, kind: str, fault: Fault, nth: int, wrap: Callable[[Any], Any] | None = None) -> _Played:
    """Play a scenario in which the n-th call fails, and judge it."""
    trigger = Trigger(fault, nth)
    clock = VirtualClock()
    world = World(clock)
    world.workflow = scenario.make(world)
    environment = Environment(clock=clock, entropy=SeededEntropy(), executor=InlineExecutor(), threads=False)
    with memory_folder() as folder:
        url = {"memory": "memory:", "jsonl": f"file:{folder}/runs", "sqlite": f"sqlite:///{folder}/runs.db"}[kind]
        inner = open_store(url, clock=clock.micros)
        store = FaultStore(inner, *([] if fault.code is not None else [fault.at_the_port(nth)]))
        with ExitStack() as below:
            if fault.code is not None:
                _put_below(below, str(folder), trigger)
            world.engine = Engine(wrap(store) if wrap else store, [world.workflow], environment=environment)
            for verb in scenario.verbs:
                if not world.wrong:
                    verb.play(world)
        trigger.nth, store.armed = -1, False  # connections go on asking
        _judge(scenario, world, fault, inner)
        world.engine.close()
        if kind != "memory":
            with Engine(open_store(url, clock=clock.micros), [world.workflow], environment=environment) as again:
                _judge_history(scenario, world, fault, again.store)
    return _Played(store.plan[0].on[0] if store.plan else trigger.fired, world)


@frozen
class _Played:
    fired: str
    world: World


def _put_below(below: ExitStack, folder: str, trigger: Trigger) -> None:
    def observe(what: str, path: str, _size: int) -> Action:
        if not path.startswith(folder) or not trigger.pull(what, f"{what} {path.rpartition('/')[2]}"):
            return GO
        return Action(made=False, code=trigger.fault.code)

    if trigger.fault in ERRNOS:
        below.enter_context(OsFaults(observe, WRITES | READS))
    else:
        below.enter_context(sqlite_vfs.install(observe, sqlite_vfs.CHANGES | sqlite_vfs.LOOKS))


def _judge(scenario: Scenario, world: World, fault: Fault, store: Any) -> None:
    _judge_history(scenario, world, fault, store)
    exactly = fault.settled
    for name, times in scenario.effects.items():
        most = times if exactly else times + 1
        if not times <= world.effects[name] <= most:
            world.wrong.append(f"step {name} was performed {world.effects[name]} times, not {times}")
    if exactly and world.told:
        world.wrong.append(f"the caller heard of it: {world.told[0]!r}")


_COMMANDS = ("cancel", "pause", "unpause")  # somebody who says them again has said them twice


def _judge_history(scenario: Scenario, world: World, fault: Fault, store: Any) -> None:
    """Every run is at its right end, and nothing of the store's failure is in a history."""
    try:
        _judge_runs(scenario, world, fault, store)
    except Exception as error:
        world.wrong.append(f"the store can't be read afterwards: {type(error).__name__}: {error}")


def _judge_runs(scenario: Scenario, world: World, fault: Fault, store: Any) -> None:
    for head in store.heads(HeadFilter(), limit=10):
        if head.head.blocked is not None:
            world.wrong.append(f"run {head.run_id} is blocked: {head.head.blocked}")
        if head.lease_until is not None:
            world.wrong.append(f"run {head.run_id} is left under a lease")
        for number in range(head.incarnation + 1):
            lines = store.read(head.run_id, incarnation=number).records
            if any(b"StoreError" in line or b"errors.Store" in line or b"CorruptHistory" in line for line in lines):
                world.wrong.append(f"an error of the store's is recorded in {head.run_id}.{number}")
            for what, times in Counter(filter(None, map(_once, lines))).items():
                if times > 1 and (fault.settled or what not in _COMMANDS):
                    world.wrong.append(f"{what} is recorded {times} times in {head.run_id}.{number}")
        last = json.loads(store.read(head.run_id).records[-1])
        if (last["type"], last.get("result")) != (scenario.last, scenario.result):
            world.wrong.append(f"run {head.run_id} ends in {last}")


def _once(line: bytes) -> str | None:
    """What a record is one of, if there may be one only: a step, a signal, an event of control."""
    kind = line.partition(b'"type":"')[2].partition(b'"')[0].decode()
    if kind == "step":
        return "step " + line.partition(b'"stepId":"')[2].partition(b'"')[0].decode()
    if kind == "resume":
        return "signal " + line.partition(b'"id":"')[2].partition(b'"')[0].decode()
    return kind if kind in (*_COMMANDS, "retry", "complete", "error", "cancelled") else None


# ---- all of them


def sweep(
    report: Report,
    scenario: Scenario,
    faults: Sequence[Fault],
    *,
    stride: int = 1,
    wrap: Callable[[Any], Any] | None = None,
) -> None:
    """Let call 1, 2, 3, ... fail in each way, until a story goes through without a fault.

    Args:
        stride: looks at every so many calls only, beginning elsewhere for each fault.
        wrap: puts something between the engine and the failing store.
    """
    for i, fault in enumerate(faults):
        nth, fired = 1 + i % stride, True
        while fired:
            played = play(scenario, report.store, fault, nth, wrap)
            fired = bool(played.fired)
            world = played.world
            counts = Counter({"stories": 1, "faults": fired, f"{fault.name}": fired, "told": bool(world.told)})
            counts.update(f"told {type(error).__name__}" for error in world.told)
            name = f"{scenario.name}, {fault.name}, call {nth} ({played.fired})"
            report.add(counts, [f"{name}: {text}" for text in world.wrong])
            nth += stride


def faults_of(store: str, level: str) -> tuple[Fault, ...]:
    """What can fail there."""
    if level == "port":
        return FAULTS
    return ERRNOS if store == "jsonl" else (*RESULTS, *ERRNOS)


def main(argv: list[str] | None = None) -> int:
    """Run the harness; see the module."""
    parser = argparse.ArgumentParser(prog="store_calls", description=__doc__, allow_abbrev=False)
    parser.add_argument("--store", choices=("memory", "jsonl", "sqlite"), default="jsonl")
    parser.add_argument("--level", choices=("port", "system"), default="port")
    parser.add_argument("--scenario", choices=sorted(SCENARIOS), action="append", help="these only")
    parser.add_argument("--stride", type=int, default=1, help="every so many calls only")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="a bug that is to be found")
    args = parser.parse_args(argv)
    plant(args.plant)
    wrap = NewAttempts if args.plant == "another attempt after Unknown" else None
    report = Report("store calls", args.store, args.level, 0, args.plant)
    if args.level == "system":
        report.skipped = "memory has no files" if args.store == "memory" else None
        if args.store == "sqlite":
            report.skipped = sqlite_vfs.missing()
    if report.skipped is None:
        logging.getLogger("stepwell").setLevel(logging.CRITICAL)  # it warns of every fault
        for name in args.scenario or SCENARIOS:
            sweep(report, SCENARIOS[name], faults_of(args.store, args.level), stride=args.stride, wrap=wrap)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
