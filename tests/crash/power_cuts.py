"""Power cuts: processes write to a store on a file system of their own, at a random moment its power is cut, it is
mounted again, and what was acknowledged before has to be there.

Every generation goes on with what the one before has left, several cuts to an image. Only what was *heard* before the
cut counts: a sync that is under way while the file system goes down may say yes and have done nothing.

Every fourth generation is about trust: a process dies between a write and its sync, another one reads what is there
and tells of it, and then the power is cut. What was read must still be there.

    python -m tests.crash.power_cuts --store sqlite --fs xfs --count 25 --seed 1
"""

from __future__ import annotations

import argparse
import random
import select
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import get_args

from attrs import define, field
from tests.crash import sqlite_vfs
from tests.crash.mounts import FileSystem, Image, LackError, place
from tests.crash.planted import PLANTS
from tests.crash.reports import Report
from tests.crash.witness import Evidence
from tests.crash.writers import HAS_READ, Child, Shop, be_owner, be_partner, be_reader, be_victim, check, finish, run_as

from stepwell_stores import open_store

__all__ = ["main"]

SOAK = 2_000
CUTS_PER_IMAGE = 6
TRUST_EVERY = 4
_MOST_LINES = 150  # of an owner and its partner: the cut comes after a random number of them
_MOST_SYNCS = 40  # before a victim dies
_PATIENCE = 30.0


@define
class Story:
    """One image, from its making to its end.

    Attributes:
        image: the file system, mounted.
        shop: the store on it.
        chance: decides when the power is cut.
        report: counts.
    """

    image: Image
    shop: Shop
    chance: random.Random
    report: Report
    evidence: Evidence = field(factory=Evidence)
    _generations: int = 0

    def live(self, cuts: int) -> int:
        """Cut the power so often, unless something is wrong before, and come to an end; how many cuts there were."""
        while self._generations < cuts and not self.evidence.violations:
            self._generation()
        if not self.evidence.violations:
            self._finish()
        self.report.add(self.evidence.counts, self.evidence.violations)
        return self._generations

    def _generation(self) -> None:
        """Let processes write, cut the power in the middle of it, and look at what is left."""
        self._generations += 1
        about_trust = self.report.counts["cuts"] % TRUST_EVERY == TRUST_EVERY - 1
        crew = self._doubt() if about_trust else self._work()
        try:
            for child in crew:
                child.hear()
            heard = [len(child.told) for child in crew]
            self.image.cut()
            self.report.counts["cuts"] += 1
            if not about_trust and self.chance.random() < 0.2:
                self._see_them_off(crew)
        finally:
            for child in crew:
                child.kill()
        self._mount_again()
        for child, length in zip(crew, heard, strict=True):
            self.evidence.take(bytes(child.told[:length]))
            self._take_late(bytes(child.told[length:]))
        known = len(self.evidence.acks)
        self._check()
        found = self.evidence.counts.pop("records checked", 0)
        self.evidence.counts["cuts with records that nobody heard of"] += found > known
        if self.evidence.violations:
            self.report.counts["cuts that lost"] += 1

    def _work(self) -> list[Child]:
        """An owner and its partner, heard until a random moment."""
        crew = [self._child(be_owner), self._child(be_partner)]
        most = self.chance.choice((3, 20, _MOST_LINES))
        lines, deadline = self.chance.randint(0, most), time.monotonic() + _PATIENCE
        while sum(child.told.count(b"\n") for child in crew) < lines and time.monotonic() < deadline:
            for child in crew:
                child.hear(0.005)
            if all(child.ended for child in crew):
                break
        select.select([], [], [], self.chance.random() * 0.003)
        return crew

    def _doubt(self) -> list[Child]:
        """A victim that dies between a write and its sync, then a reader who sees what it wrote, heard to its end."""
        victim = self._child(be_victim, self.chance.randint(1, _MOST_SYNCS))
        victim.wait()
        reader, end = self._child(be_reader), HAS_READ.replace(" ", "_").encode()
        while end not in reader.told and not reader.ended:
            reader.hear(1)
        return [victim, reader]

    def _child(self, role: object, *how: int) -> Child:
        return Child(run_as(self.shop, role, self._generations, *how))  # type: ignore[arg-type]

    def _see_them_off(self, crew: list[Child]) -> None:
        """Let the processes find out by themselves that their disk is gone."""
        deadline = time.monotonic() + _PATIENCE
        while not all(child.ended for child in crew) and time.monotonic() < deadline:
            for child in crew:
                child.hear(0.05)
        if time.monotonic() >= deadline:
            self.evidence.violations.append("a process goes on although its disk is gone")

    def _take_late(self, told: bytes) -> None:
        """What was told after the cut proves nothing, but that errors are of the right kind."""
        for line in told.decode().splitlines():
            kind, _, text = line.partition(" ")
            if text.startswith("CorruptHistoryError"):  # a file system that is down may show files as empty
                self.evidence.counts["after the cut, met CorruptHistoryError"] += 1
            elif kind == "trouble":
                self.evidence.violations.append(f"after the cut: {text}")
            elif kind == "note":
                self.evidence.counts[f"after the cut, {text.replace('_', ' ')}"] += 1
        self.report.counts["processes that were writing"] += bool(told)

    def _mount_again(self) -> None:
        self.image.detach()
        self.image.attach()

    def _check(self) -> None:
        check(self.shop, self.evidence)
        path = self.shop.folder / "runs.db"
        if self.shop.kind == "sqlite" and path.exists():
            with closing(sqlite3.connect(path)) as db:
                answer = db.execute("PRAGMA integrity_check").fetchall()
            if answer != [("ok",)]:
                self.evidence.violations.append(f"integrity_check says {answer[:3]}")

    def _finish(self) -> None:
        """Without any cut, all runs come to their ends."""
        child = self._child(finish)
        child.wait()
        self.evidence.take(bytes(child.told))
        self._check()
        self.evidence.counts.pop("records checked", 0)


def declare(shop: Shop, report: Report) -> None:
    """Report what the store declares of power cuts, and how it says that it syncs."""
    shop.folder.mkdir()
    with closing(open_store(shop.url)) as store:
        durability = store.durability
        report.facts["power loss declared"] = durability.power_loss
        how = "synchronous" if shop.kind == "sqlite" else "sync"
        report.setting = f"{how}={durability.settings[how]}"


def cut_power(base: Path, args: argparse.Namespace, report: Report) -> None:
    """One image after the other, until there were enough cuts."""
    chance = random.Random(f"{args.seed}/{args.store}/{args.fs}")
    declare(Shop(args.store, base / "declared", args.setting), report)
    done = 0
    while done < args.count:
        with Image(base, args.fs) as image:
            shop = Shop(args.store, image.mount, args.setting, args.plant)
            report.counts["images"] += 1
            lost = report.counts["cuts that lost"]
            done += Story(image, shop, chance, report).live(min(CUTS_PER_IMAGE, args.count - done))
            image.detach()
        if report.counts["cuts that lost"] > lost:
            report.facts.setdefault("first loss at cut", done)
            if args.first:
                return


def main(argv: list[str] | None = None) -> int:
    """Run the harness; see the module."""
    parser = argparse.ArgumentParser(prog="power_cuts", description=__doc__, allow_abbrev=False)
    parser.add_argument("--store", choices=("jsonl", "sqlite"), default="jsonl")
    parser.add_argument("--fs", choices=get_args(FileSystem), default="ext4")
    parser.add_argument("--count", type=int, default=25, help="cuts")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--setting", default="", help="options of the store's URL, such as sync=off")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="a bug that is to be found")
    parser.add_argument("--first", action="store_true", help="stop at the first cut that loses something")
    parser.add_argument("--soak", action="store_true", help=f"{SOAK:,} cuts")
    args = parser.parse_args(argv)
    args.count = SOAK if args.soak else args.count
    report = Report("power cuts", args.store, args.setting, args.seed, args.plant)
    report.facts["file system"] = args.fs
    report.skipped = sqlite_vfs.missing() if args.store == "sqlite" else None
    if report.skipped is None:
        try:
            with place() as base:
                cut_power(base, args, report)
        except LackError as e:
            if report.counts["cuts"]:
                raise
            report.skipped = e.lack.reason
            report.facts["package"] = e.lack.package
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
