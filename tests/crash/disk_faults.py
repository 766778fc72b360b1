"""Disks that are full, read-only or stingy, while runs are driven, and what becomes of the runs.

A process drives runs; at some moment, often in the middle of a step, the disk begins to fail. It tries everything a few
times, and may get nothing but errors of the store's kind. Then its parent compares what is on the disk with what was
acknowledged, the disk is well again, and the same calls in the same process have to bring every run to its end, without
doing again what was recorded.

    python -m tests.crash.disk_faults --store jsonl --kind full --count 40 --seed 1
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from attrs import define, field
from tests.crash.disk_troubles import KINDS, AppendOnly, Short, Trouble, make_trouble
from tests.crash.mounts import Image, Lack, LackError, lack, mount_tmpfs, place, remount, umount
from tests.crash.planted import PLANTS
from tests.crash.reports import Report
from tests.crash.witness import Evidence, Witness
from tests.crash.writers import PARKED, Child, Shop, be_owner, check, look, push, run_as, ticker

from stepwell import Engine
from stepwell.errors import NotFoundError, StoreError
from stepwell_stores import open_store

__all__ = ["main"]

SOAK = 1_000
RUNS = ("r0", "r1", "r2")
EFFECTS = 12 * len(RUNS)
"""How often step functions are called when all goes well, more or less."""

_MOUNTED = {"full": "size=8m,nr_inodes=2000", "inodes": "size=32m,nr_inodes=400", "read-only": "size=32m"}
_WAITS = b"note waits_for_the_disk"
_FOR_JSONL_ONLY = {
    "append-only": "a SQLite database is overwritten by design",
    "short writes": "SQLite writes by itself; its short writes are those of the kind 'file size'",
}


# ---- in a child


class Shift:
    """A store's clock, in microseconds, that can be set forward, so that leases lapse."""

    def __init__(self) -> None:
        self.seconds = 0

    def __call__(self) -> int:
        return time.time_ns() // 1000 + self.seconds * 1_000_000


class Trigger(Witness):
    """A witness who sees to it that the trouble begins with a certain step."""

    def __init__(self, fd: int, trouble: Trouble, at: int) -> None:
        super().__init__(fd)
        self._disk, self._at, self._effects = trouble, at, 0

    def effect(self, *what: Any) -> None:
        super().effect(*what)
        self._effects += 1
        if self._effects == self._at:
            self._disk.begin()


def be_customer(shop: Shop, witness: Witness, trouble: Trouble, at: int, commands: int) -> None:
    """Try everything while the disk is in trouble, wait for a word of the parent's, then do it all again.

    Args:
        at: the step with which it begins; 0: before the store is opened.
        commands: the pipe by which the parent says that the trouble may end.
    """
    if isinstance(trouble, Short):
        trouble.tell = lambda: witness.note("faults")
    clock, told = Shift(), Trigger(witness.fd, trouble, at)
    with shop.open(told, open_store(shop.url, clock=clock)) as (engine, order):
        if not at:
            trouble.begin()
        for name in ("one", "two"):
            try_all(engine, order, told, name)
        witness.note("waits for the disk")
        os.read(commands, 1)
        trouble.end()
        try:
            bring_to_end(engine, order, told, clock)
        except StoreError:
            witness.trouble(f"the disk is well: {traceback.format_exc()}")


def try_all(engine: Engine, order: Any, witness: Witness, name: str) -> None:
    """All kinds of calls, each of which may fail as stores do."""

    def tick() -> None:
        engine.signal(PARKED, "tick", name, id=name)
        witness.signal(PARKED, name)

    calls: list[Callable[[], object]] = [functools.partial(push, engine, order, witness, run_id) for run_id in RUNS]
    calls += [
        lambda: engine.start(ticker, run_id=PARKED),
        tick,
        engine.run_due,
        lambda: look(engine.store, witness, limit=10),
        lambda: engine.get(RUNS[0]),
    ]
    for call in calls:
        try:
            call()
        except StoreError as error:
            witness.note("faults")
            witness.note(f"met {type(error).__name__}")
        except NotFoundError:
            witness.note("met NotFoundError")


def bring_to_end(engine: Engine, order: Any, witness: Witness, clock: Shift) -> None:
    """The disk is well: every run comes to its end, at the latest when a lease that could not be given back lapses."""
    left = list(RUNS)
    for patience in (0, 60):
        if patience:
            clock.seconds += patience
            witness.note("a lease had to lapse")
        engine.start(ticker, run_id=PARKED)
        outcomes = {run_id: push(engine, order, witness, run_id) for run_id in left}
        left = [run_id for run_id, outcome in outcomes.items() if outcome is None or outcome.status != "completed"]
        if not left:
            break
    for run_id in RUNS:
        if run_id in left:
            witness.trouble(f"run {run_id} does not come to its end: {engine.get(run_id)!r}")
        else:
            witness.note("runs ended")
    look(engine.store, witness, limit=10)


def be_careful(shop: Shop, witness: Witness, generation: int, share: int) -> None:
    """Drive runs whose journals can only be appended to; nothing may fail. `share`: how many runs."""
    store = AppendOnly(open_store(shop.url), shop.folder / "runs", lambda: witness.note("faults"))
    with shop.open(witness, store) as (engine, order):
        for number in range(share):
            name = f"{generation}-{number}"
            push(engine, order, witness, f"g{generation}-{number}")
            engine.start(ticker, run_id=PARKED)
            engine.signal(PARKED, "tick", name, id=name)
            witness.signal(PARKED, name)
            engine.run_due()
            witness.note("runs ended")


# ---- in the parent


@define
class Case:
    """One store, one trouble.

    Attributes:
        shop: the store, in a folder of its own.
        chance: decides how bad it is, and when it begins.
    """

    shop: Shop
    chance: random.Random
    evidence: Evidence = field(factory=Evidence)

    def live_through(self, kind: str) -> None:
        """Play it to its end."""
        trouble = make_trouble(kind, self.shop.kind, self.shop.folder, self.chance)
        whenever = self.chance.randint(1, EFFECTS)
        at = self.chance.choice((0, whenever) if kind == "inodes" else (0, whenever, whenever))
        commands, words = os.pipe()
        child = Child(run_as(self.shop, be_customer, trouble, at, commands))
        os.close(commands)
        try:
            self._half_way(child, kind)
            half = len(child.told)
            with contextlib.suppress(BrokenPipeError):  # it has died already
                os.write(words, b"g")
        except BaseException:
            child.kill()
            raise
        finally:
            os.close(words)
        child.wait()
        self.take(bytes(child.told[half:]), child)
        check(self.shop, self.evidence)

    def _half_way(self, child: Child, kind: str) -> None:
        """The child is in trouble and waits: look at what is there."""
        while _WAITS not in child.told and not child.ended:
            child.hear(1)
        self.evidence.take(bytes(child.told))
        copy = self.shop.folder.parent / "copy"
        shutil.copytree(self.shop.folder, copy, ignore=shutil.ignore_patterns("ballast", "*-shm"))
        check(Shop(self.shop.kind, copy), self.evidence)
        shutil.rmtree(copy)
        if kind in _MOUNTED:
            reader = Child(run_as(self.shop, _glance))
            reader.wait()
            self.take(bytes(reader.told), reader)

    def between_processes(self) -> None:
        """The whole file system is read-only after a process was killed, and well again while the next one lives."""
        first = Child(run_as(self.shop, be_owner, 0))
        lines = self.chance.randint(5, 120)
        while first.told.count(b"\n") < lines and not first.ended:
            first.hear(1)
        first.kill()
        self.take(bytes(first.told), first, may_die=True)
        check(Shop(self.shop.kind, self._copied()), self.evidence)
        remount(self.shop.folder, "ro")
        commands, words = os.pipe()
        child = Child(run_as(self.shop, be_customer, _Elsewhere(), 0, commands))
        os.close(commands)
        try:
            while _WAITS not in child.told and not child.ended:
                child.hear(1)
            remount(self.shop.folder, "rw")
            with contextlib.suppress(BrokenPipeError):
                os.write(words, b"g")
        finally:
            os.close(words)
            child.wait()
        self.take(bytes(child.told), child)
        check(self.shop, self.evidence)

    def append_only(self) -> None:
        """Two processes at a time, then two more, on journals that refuse all but appends."""
        for generation in (0, 2):
            crew = [Child(run_as(self.shop, be_careful, generation + n, 3)) for n in range(2)]
            for child in crew:
                child.wait()
                self.take(bytes(child.told), child)
            check(self.shop, self.evidence)

    def _copied(self) -> Path:
        copy = self.shop.folder.parent / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.shop.folder, copy, ignore=shutil.ignore_patterns("*-shm"))
        return copy

    def take(self, told: bytes, child: Child, *, may_die: bool = False) -> None:
        """Take in what a process told that has ended, which it must have done by itself."""
        self.evidence.take(told)
        if child.status and not may_die:
            self.evidence.violations.append(f"a process died (status {child.status})")


class _Elsewhere:
    """The parent makes and ends the trouble."""

    def begin(self) -> None:
        pass

    def end(self) -> None:
        pass


def _glance(shop: Shop, witness: Witness) -> None:
    """Another process looks at the store while the disk is in trouble."""
    with shop.open(witness) as (engine, _order):
        try:
            look(engine.store, witness, limit=10)
            witness.note("read by another process meanwhile")
        except StoreError as error:
            witness.note(f"met {type(error).__name__} in another process")


@contextlib.contextmanager
def scratch(kind: str) -> Iterator[Path]:
    """A folder for the cases of a kind; in memory if it can be had.

    Raises:
        LackError: the kind needs mounts, and there are none.
    """
    if lack() is None or kind in _MOUNTED or kind == "append-only":
        with place() as base:
            yield base
    else:
        with tempfile.TemporaryDirectory(prefix="stepwell-disk-") as base:
            yield Path(base)


def play(base: Path, args: argparse.Namespace, number: int) -> Evidence:
    """One case, and what came out of it."""
    chance = random.Random(f"{args.seed}/{args.store}/{args.kind}/{number}")
    folder = base / "case"
    folder.mkdir()
    case = Case(Shop(args.store, folder, planted=args.plant), chance)
    mounted = args.kind in _MOUNTED
    try:
        if mounted:
            mount_tmpfs(folder, _MOUNTED[args.kind])
        if args.kind == "append-only":
            with Image(base, "ext4") as image:
                case.shop = Shop(args.store, image.mount, planted=args.plant)
                case.append_only()
        elif args.kind == "read-only" and number % 2:
            case.between_processes()
        else:
            case.live_through(args.kind)
    finally:
        if mounted:
            umount(folder, lazily=True)
        shutil.rmtree(folder)
        shutil.rmtree(base / "copy", ignore_errors=True)
    return case.evidence


def main(argv: list[str] | None = None) -> int:
    """Run the harness; see the module."""
    parser = argparse.ArgumentParser(prog="disk_faults", description=__doc__, allow_abbrev=False)
    parser.add_argument("--store", choices=("jsonl", "sqlite"), default="jsonl")
    parser.add_argument("--kind", choices=(*KINDS, "append-only"), default="full")
    parser.add_argument("--count", type=int, default=30, help="cases")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="the case of this number alone")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="a bug that is to be found; stops when it is")
    parser.add_argument("--soak", action="store_true", help=f"{SOAK:,} cases")
    args = parser.parse_args(argv)
    numbers = range(SOAK if args.soak else args.count) if args.only is None else [args.only]
    report = Report("disk faults", args.store, args.kind, args.seed, args.plant)
    missing = Lack(_FOR_JSONL_ONLY[args.kind]) if args.store == "sqlite" and args.kind in _FOR_JSONL_ONLY else None
    try:
        if missing is not None:
            raise LackError(missing)
        with scratch(args.kind) as base:
            for number in numbers:
                evidence = play(base, args, number)
                evidence.counts["cases"] += 1
                evidence.counts["cases with faults"] += evidence.counts["faults"] > 0
                report.add(evidence.counts, [f"case {number}: {text}" for text in evidence.violations])
                if args.plant and report.violations:
                    report.facts["caught in case"] = number + 1
                    break
    except LackError as e:
        if report.counts["cases"]:
            raise
        report.skipped = e.lack.reason
        report.facts["package"] = e.lack.package
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
