"""Many threads of one process on one store, killed anywhere, generation after generation; above all in a group commit.

Eight clients begin runs and send signals, a worker with eight threads drives, or the clients do it themselves. The
process dies at an operation on a file, or when its parent hears of the n-th step or the n-th acknowledged record, in
whatever the threads do then; in some, transactions that several threads share fail as well. What was acknowledged is
kept in a file of its own, what steps did in a ledger, and a look at the store after each death has to agree with both.
The last process of a story is killed by nobody and leaves nothing undone.

    python -m tests.crash.crowd --store sqlite --count 100 --seed 1
    python -m tests.crash.crowd --store sqlite --plant "follower dropped"
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import os
import random
import select
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

from attrs import evolve, frozen
from tests.crash import sqlite_vfs
from tests.crash.crowd_judge import Crowds
from tests.crash.crowd_life import THREADS, be
from tests.crash.crowd_story import Bell, Event, FileWitness, Life, Mode, lines_of, make_errand, told_by
from tests.crash.faults import Place, Point
from tests.crash.generations import Scene, scene
from tests.crash.planted import PLANTS
from tests.crash.reports import Report
from tests.crash.stops import die_with
from tests.crash.witness import Evidence, Witness

from stepwell import Engine
from stepwell.environment import Environment
from stepwell.testing.environments import InlineExecutor
from stepwell_stores import open_store

PATIENCE = 60
"""Seconds after which a process is taken for hung."""

SHORT = 5
"""The same where a bug is planted, which may well keep it from its end."""

RUNS = (8, 20)
"""New runs of one process, from and to."""

MODES: tuple[Mode, ...] = ("starts", "worker", "both")


@frozen
class Scale:
    """How much there is to be killed at in one process: operations, writes, lines of the ledger, records."""

    operations: int
    writes: int
    ledger: int
    ack: int


class Story:
    """One store and all processes that work on it, one after the other."""

    def __init__(self, name: str, place: Scene, chance: random.Random) -> None:
        self.name, self.place, self.chance = name, place, chance
        self.crowds, self.evidence = Crowds(), Evidence()
        self.lives = 0
        self.heard: Counter[bytes] = Counter()

    @property
    def wrong(self) -> list[str]:
        return self.evidence.violations

    def next_life(self, scale: Scale | None) -> Life:
        """A process that does what is left, new runs, and some of what is done again; None: nobody kills it."""
        chance, number = self.chance, self.lives
        self.lives += 1
        new = [f"r{number}-{n}-{chance.choice((0, 0, 1, 1, 2, 3))}" for n in range(chance.randint(*RUNS))]
        self.crowds.planned.update(new)
        tasks = self.crowds.left() + [task for task in self.crowds.settled() if chance.random() < 0.05]
        chance.shuffle(tasks)
        life = Life(number, chance.choice(MODES), tuple(tasks))
        if scale is None:
            return life
        how = chance.choice(("event", "point", "group" if self.place.kind == "sqlite" else "point"))
        if how == "event":
            what: Event = chance.choice(("ledger", "ack"))
            life = evolve(life, event=(what, chance.randint(1, getattr(scale, what))))
        elif how == "group":
            life = evolve(life, group=(chance.randint(1, 10), chance.randint(1, 20)))
        else:
            at: Place = chance.choice(("before", "middle", "after"))
            most = scale.writes if at == "middle" else scale.operations
            life = evolve(life, point=Point(chance.randint(1, most), at, chance.random()))
        if self.place.kind == "sqlite" and chance.random() < 0.3:
            life = evolve(life, fails=frozenset(chance.sample(range(1, 13), 3)))
        return life

    def live(self, life: Life, *, verify: bool = False) -> bool:
        """Fork this process, kill it if that is its fate, and take in what it told; whether it was killed."""
        file = self.place.folder.with_name(f"witness-{life.number}")
        read, write = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if not pid:
            os.close(read)
            _child(self.place, life, file, write, parent, verify=verify)
        os.close(write)
        self._listen(life, pid, read)
        status = os.waitpid(pid, 0)[1]
        told = told_by(file)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if killed:
            self.crowds.killed.add(life.number)
        elif status and b"\ntrouble " not in b"\n" + told:
            stacks = file.with_suffix(".stacks").read_text("utf-8").splitlines()
            self.wrong.append(f"process {life.number} died with status {status}: {' | '.join(stacks)}")
        self.evidence.take(told)
        self.wrong.extend(self.crowds.take(told))
        self._count(told, killed=killed)
        return killed

    def _listen(self, life: Life, pid: int, bell: int) -> None:
        """Count events until the process has ended; end it when the time has come."""
        self.heard.clear()
        what, most = life.event or ("", 0)
        seconds = SHORT if self.place.planted else PATIENCE
        deadline: float | None = time.monotonic() + seconds
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if left == 0 or not select.select([bell], [], [], left)[0]:
                self.wrong.append(f"process {life.number} did not come to its end in {seconds} s")
                os.kill(pid, signal.SIGKILL)
                deadline = None
            part = os.read(bell, 65536)
            if not part:
                break
            before = self.heard[what[:1].encode()]
            self.heard.update(bytes([byte]) for byte in part)
            if before < most <= self.heard[what[:1].encode()]:
                os.kill(pid, signal.SIGKILL)
        os.close(bell)

    def _count(self, told: bytes, *, killed: bool) -> None:
        """How many groups there were; one that began and did not end was cut short by the kill."""
        counts = self.crowds.counts
        groups = Counter(line.split(b" ")[1] for line in told.splitlines() if line.startswith(b"note a_group"))
        began = groups.pop(b"a_group_began", 0)
        counts["shared transactions"] += groups.total() - groups[b"a_group_failed"]
        counts["killed in a shared transaction"] += killed and began > groups.total()
        counts["kills"] += killed
        counts["processes"] += 1
        counts["recovered by a next process"] += not killed and bool(self.crowds.killed)

    def look(self, *, ended: bool) -> None:
        """Open the store anew and judge it; a copy, since who looks mends, but for the last time and now and then."""
        copied = not ended and self.chance.random() < 0.75
        folder = _copied(self.place) if copied else self.place.folder
        errand = make_errand(Witness(-1), None)
        quiet = Environment(executor=InlineExecutor(), threads=False)
        try:
            with Engine(open_store(self.place.url(folder)), [errand], environment=quiet) as engine:
                self.evidence.check(engine.store, engine=engine)
                ledger = lines_of(self.place.folder.with_name("ledger"))
                self.wrong.extend(self.crowds.judge(engine.store, ledger, ended=ended))
        except Exception:
            self.wrong.append("the store can't be read: " + " | ".join(traceback.format_exc().splitlines()))
        if copied:
            shutil.rmtree(folder)

    def tell(self, scale: Scale) -> None:
        """Live it: one to four processes that are killed, and one that is not."""
        for _ in range(self.chance.randint(1, 4)):
            self.live(self.next_life(scale), verify=self.chance.random() < 0.3)
            self.look(ended=False)
            if self.wrong:
                return
        self.live(self.next_life(None), verify=True)
        self.look(ended=True)


def _child(place: Scene, life: Life, file: Path, bell: int, parent: int, *, verify: bool) -> None:
    """Be the process, and end it here, since nothing of the parent's is to be run."""
    code = 1
    try:
        die_with(parent)
        rings = Bell(bell)
        faulthandler.enable(file.with_suffix(".stacks").open("w"))
        witness = FileWitness(file, lambda: rings.ring(b"a"))
        try:
            be(place, life, witness, rings, verify=verify)
            code = 0
        except BaseException:
            witness.trouble(traceback.format_exc())
    finally:
        os._exit(code)


def _copied(place: Scene) -> Path:
    """A copy of what a store has on disk, without its lock files, which are the dead's."""
    folder = place.folder.with_name("copy")
    folder.mkdir()
    if place.kind == "jsonl" and (place.folder / "runs").exists():
        shutil.copytree(place.folder / "runs", folder / "runs", ignore=shutil.ignore_patterns(".*"))
    for path in place.folder.glob("runs.db*"):
        if path.is_file() and not path.name.endswith("-shm"):
            shutil.copy(path, folder)
    return folder


def measure(args: argparse.Namespace) -> Scale:
    """Live once without a kill, to see how much there is to be killed at."""
    with scene(args.store) as place:
        story = Story("measure", place, random.Random(args.seed))
        life = evolve(story.next_life(None), mode="both")
        story.live(life)
        told = told_by(place.folder.with_name("witness-0"))
        words = next(line.split() for line in told.splitlines() if line.startswith(b"operations "))
        return Scale(int(words[1]), int(words[2]), story.heard[b"l"], story.heard[b"a"])


def wander(args: argparse.Namespace, report: Report) -> None:
    """Tell stories until there were enough kills; a planted bug ends with its first violation."""
    scale = measure(args)
    number = 0
    while report.counts["kills"] < args.count and not (args.plant and report.violations):
        if args.only is not None:
            number = args.only
        with scene(args.store, planted=args.plant) as place:
            story = Story(f"story {number} of seed {args.seed}", place, random.Random(f"{args.seed}/{number}"))
            story.tell(scale)
        counts = story.evidence.counts + story.crowds.counts
        counts["stories"] = 1
        report.add(counts, [f"{story.name}: {text}" for text in story.wrong])
        number += 1
    if args.store == "sqlite" and not report.violations and not report.counts["shared transactions"]:
        report.add(Counter(), ["no transaction was ever shared, so nothing was tried"])


def main(argv: list[str] | None = None) -> int:
    """Run the harness; see the module."""
    parser = argparse.ArgumentParser(prog="crowd", description=__doc__, allow_abbrev=False)
    parser.add_argument("--store", choices=("jsonl", "sqlite"), default="sqlite")
    parser.add_argument("--count", type=int, default=100, help="kills, at least")
    parser.add_argument("--seed", type=int, default=1, help="of when each dies; what its threads do then, nobody knows")
    parser.add_argument("--only", type=int, help="the story of this number alone, again and again")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="a bug that is to be found; stops when it is")
    args = parser.parse_args(argv)
    report = Report("crowd", args.store, f"{2 * THREADS} threads", args.seed, args.plant)
    if args.store == "sqlite":
        report.skipped = sqlite_vfs.missing()
    if report.skipped is None:
        gc.collect()
        gc.freeze()  # so that children share what the parent has, and collect nothing of it
        wander(args, report)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
