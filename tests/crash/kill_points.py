"""Kill points: processes that die before, in the middle of and after every operation on a file, and at random ones.

A store on a server has no files of its own: there they die before, during and after every question.

Exhaustive: the first process dies at operation 1, 2, 3, ... until one comes through; what it left is driven to its end
by the next one, and once more with a second death on the way. Random: one to four generations, with owners and
outsiders that die anywhere, on runs that are signalled, paused, cancelled, or that fail and are retried.

What a kill can't show is a missing fsync, since the kernel keeps what a dead process wrote: that is for power cuts.

    python -m tests.crash.kill_points --store sqlite --exhaustive --count 1000 --seed 1
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import time
from collections.abc import Iterator

from attrs import frozen
from tests.crash import sqlite_vfs
from tests.crash.faults import Place, Point
from tests.crash.generations import ERRANDS, RUN, End, Life, Plot, check, end_here, live, scene, warm_up
from tests.crash.places import ON_SERVERS, serving
from tests.crash.planted import PLANTS
from tests.crash.reports import Report
from tests.crash.story import STEPS
from tests.crash.witness import Evidence

__all__ = ["main"]

SOAK = 10_000
CUTS = (0.0, 0.5, 1.0)
"""Where writes are cut: after the first byte, in the half, before the last one."""


@frozen
class Tale:
    """What happens in one story.

    Attributes:
        name: finds it again.
        generations: the processes that live at the same time, generation by generation; a last one, which nobody
            kills, is added.
        look: whether the parent looks at the store itself between them, rather than at a copy.
    """

    name: str
    generations: list[list[Life]]
    plot: Plot = "order"
    threads: bool = False
    look: bool = False


def exhaustive(part: int, parts: int, *, all_cuts: bool) -> Iterator[tuple[Place, float, int]]:
    """Places and cuts to be gone through, each with the number to begin with."""
    for place in ("before", "after"):
        yield place, 0.5, 1 + part % parts
    for cut in CUTS if all_cuts else (-1.0,):
        yield "middle", cut, 1 + part % parts


def tell(tale: Tale, kind: str, planted: str | None, report: Report) -> bool:
    """Play a story to its end and report of it; whether anybody was killed in its first generation."""
    evidence, kills, fired = Evidence(), 0, False
    ends: list[End] = []
    with scene(kind, plot=tale.plot, threads=tale.threads, planted=planted) as place:
        for number, lives in enumerate([*tale.generations, [Life()]]):
            mended = RUN in evidence.reopened
            lives = [Life(life.point, life.errand, mended) for life in lives]
            before = evidence.recorded(RUN)
            last = number == len(tale.generations)
            here = last and not planted and not tale.threads and not place.remote
            ends = [end_here(place, evidence)] if here else live(place, lives, evidence)
            died = sum(end.killed for end in ends)
            fired = fired or (number == 0 and died > 0)
            kills += died
            evidence.counts["generations"] += 1
            evidence.counts["recovered by a next process"] += bool(before) and not ends[0].killed
            known = len(evidence.acks) + evidence.counts["records checked"]
            check(place, evidence, in_place=tale.look or last)
            evidence.counts["written and not acknowledged"] += evidence.counts["records checked"] > known
            if evidence.violations:
                break
        else:
            _check_end(tale, ends[0].told, kills, evidence)
    evidence.counts["kills"] = kills
    evidence.counts["stories"] = 1
    report.add(evidence.counts, [f"{tale.name}: {text}" for text in evidence.violations])
    return fired


def _check_end(tale: Tale, told: bytes, kills: int, evidence: Evidence) -> None:
    """After a last process that nobody killed: the run has ended, and deaths explain how often each step was done."""
    evidence.counts["runs ended"] += 1
    if f"end {RUN} {'cancelled' if tale.plot == 'cancel' else 'completed'}\n".encode() not in told:
        evidence.violations.append("the last process did not bring the run to its end")
    missing = set(STEPS) - evidence.recorded(RUN) if tale.plot == "order" else set[str]()
    if missing:
        evidence.violations.append(f"steps that are not recorded: {sorted(missing)}")
    most = 1 + kills
    for (_, step_id, attempt), times in evidence.effects.items():
        if times > most + (step_id == "pay"):  # which fails before it is mended
            evidence.violations.append(f"step {step_id}, attempt {attempt}, ran {times} times with {kills} kills")


def go_through(args: argparse.Namespace, report: Report) -> None:
    """The exhaustive pass, or a part of it."""
    for place, cut, n in exhaustive(args.part, args.parts, all_cuts=args.soak):
        fired = True
        while fired:
            here = cut if cut >= 0 else CUTS[n % 3]
            first = Point(n, place, here)
            name = f"{place} {n}" + (f" cut {here}" if place == "middle" else "")
            fired = tell(Tale(name, [[Life(first)]]), args.store, args.plant, report)
            for second in _second(n, place, args.soak) if fired else ():
                tale = Tale(f"{name}, then {second}", [[Life(first)], [Life(second)]])
                tell(tale, args.store, args.plant, report)
            n += args.parts
            show(args, report)
            if report.violations and args.plant:
                return


def _second(n: int, place: Place, soak: bool) -> list[Point]:
    """Deaths of the process that comes after: in the soak at each of its first operations, else now and then at one."""
    if soak:
        return [Point(m, "before") for m in range(1, 9)] + [Point(1, "middle"), Point(2, "middle")]
    if place == "after" or n % 2:  # after one operation is much the same as before the next
        return []
    return [Point(1 + n // 2 % 4, "middle") if n % 3 == 0 else Point(1 + n // 2 % 17, "before")]


def make_tale(seed: int, number: int, operations: int, writes: int) -> Tale:
    """The story of a number, always the same for the same seed."""
    chance = random.Random(f"{seed}/{number}")
    plot: Plot = chance.choices(("order", "retry", "cancel"), (6, 2, 2))[0]

    def point(share: float) -> Point:
        place: Place = chance.choice(("before", "middle", "after"))
        most = int((writes if place == "middle" else operations) * share)
        return Point(chance.randint(1, most), place, chance.choice((*CUTS, chance.random())))

    generations = []
    for number in range(chance.randint(1, 4)):
        left = (1.0 if plot == "order" else 0.5) / (1, 2, 3, 6)[number]  # what is still to be done grows less
        lives = [Life(point(left))]
        if chance.random() < 0.25:
            errand = chance.choice(ERRANDS[plot])
            lives.append(Life(point(0.25) if chance.random() < 0.5 else None, errand))
        generations.append(lives)
    return Tale(
        f"story {number} of seed {seed}",
        generations,
        plot,
        threads=chance.random() < 0.25,
        look=chance.random() < 0.25,
    )


def wander(args: argparse.Namespace, report: Report) -> None:
    """Random stories, until there were enough kills."""
    with scene(args.store) as place:
        (end,) = live(place, [Life()], Evidence())
    number, enough = 0, report.counts["kills"] + args.count
    while report.counts["kills"] < enough and not (args.plant and report.violations):
        if args.only is None or number == args.only:
            tell(make_tale(args.seed, number, end.operations, end.writes), args.store, args.plant, report)
            show(args, report)
        number += 1
        if args.only is not None and number > args.only:
            return


def show(args: argparse.Namespace, report: Report) -> None:
    """Progress, for people."""
    if sys.stderr.isatty() and report.counts["stories"] % 20 == 0:
        kills, wrong = report.counts["kills"], report.counts["violations"]
        speed = kills / max(0.1, time.monotonic() - args.began)
        print(f"\r{args.store}: {kills} kills, {speed:.0f}/s, {wrong} violations", end="", file=sys.stderr)


def kill(args: argparse.Namespace, report: Report) -> None:
    """What was asked for."""
    warm_up(args.store)
    gc.collect()
    gc.freeze()  # so that children share what the parent has, and collect nothing of it
    if args.exhaustive and args.only is None:
        go_through(args, report)
    if args.count and not (args.plant and report.violations):
        wander(args, report)


def main(argv: list[str] | None = None) -> int:
    """Run the harness; see the module."""
    parser = argparse.ArgumentParser(prog="kill_points", description=__doc__, allow_abbrev=False)
    parser.add_argument("--store", choices=("jsonl", "sqlite", *ON_SERVERS), default="jsonl")
    parser.add_argument("--count", type=int, help="random kills, at least (default: 1,000, or none when exhaustive)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plant", choices=sorted(PLANTS), help="a bug that is to be found; stops when it is")
    parser.add_argument("--exhaustive", action="store_true", help="every operation of the first process")
    parser.add_argument("--part", type=int, default=0, help="of the exhaustive pass: every PARTS-th operation, from it")
    parser.add_argument("--parts", type=int, default=1)
    parser.add_argument("--only", type=int, help="the random story of this number alone")
    parser.add_argument("--soak", action="store_true", help=f"everything, every cut, and {SOAK:,} random kills")
    args = parser.parse_args(argv)
    args.began = time.monotonic()
    args.exhaustive = args.exhaustive or args.soak
    if args.count is None:
        args.count = SOAK if args.soak else 0 if args.exhaustive else 1_000
    setting = {"jsonl": "fdatasync", "sqlite": "FULL"}.get(args.store, "a server")
    report = Report("kill points", args.store, setting, args.seed, args.plant)
    if args.store == "sqlite":
        report.skipped = sqlite_vfs.missing()
    if report.skipped is None:
        with serving(args.store):
            kill(args, report)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
