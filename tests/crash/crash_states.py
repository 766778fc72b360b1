"""Every state that a crash may leave the JSONL store's files in, by the tens of thousands, without a disk.

A script of calls runs once on the file system of `simfs`, which is photographed before each call that changes
something. Each photo is then crashed in several ways, and a new store has to recover from what is left, tell nothing
that contradicts what was told before, and go on. The ways:

- cut: the power fails. What was not synced survives in part, at random; or nothing of it, or all.
- kill: the process dies and the page cache lives, also in the midst of a write.
- witness: kill; a reader looks at the runs and tells what it saw; then the power fails. Whoever tells bytes that are in
  the page cache only is found out here.
- again: cut; the power fails once more while a store recovers.

Some scripts run with errors of the disk, and with processes that die while another one goes on.

    python tests/crash/crash_states.py --states 50000 --seed 1

prints one line of JSON. A violation names the command that shows it again. What follows from a seed depends on which
calls the store makes, so it holds for one state of the code.

Source: ALICE (OSDI 2014), CrashMonkey (OSDI 2018).
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

if __name__ == "__main__":  # run as a script from a bare checkout
    HERE = Path(__file__).resolve().parents[2]
    sys.path[:0] = [str(HERE / "engine"), str(HERE / "stores"), str(HERE)]

from tests.crash.crash_explorer import Explorer
from tests.crash.crash_ledger import Violation
from tests.crash.crash_plants import PLANTS, planted
from tests.crash.reports import Report

from stepwell_stores.jsonl import files as jsonl_files

__all__ = ["SOMETIMES", "explore", "main", "once_more"]

SOMETIMES = (
    "Conflict",
    "Exists",
    "Fenced",
    "NULs at a journal's end",
    "NotApplied",
    "Unknown",
    "again",
    "claimed when due",
    "deleted",
    "kill",
    "killed in a write",
    "lost a name",
    "lost everything",
    "process killed",
    "raised",
    "repeated: AlreadyCommitted",
    "repeated: Committed",
    "repeated: Created",
    "repeated: NotApplied",
    "repeated: Unknown",
    "short write",
    "sync failed",
    "torn head",
    "torn journal",
    "waited for a lease",
    "went on",
    "witness",
    "write failed",
)
"""What every run of some size has to meet, else it proves little."""


ENOUGH = 100
"""Violations after which a run of the command ends."""


@contextmanager
def at_work(explorer: Explorer) -> Iterator[Explorer]:
    """Put the explorer's computer in place of this one."""
    few = mock.patch.object(jsonl_files, "_STRIPES", 2)  # the making of 64 locks would take a tenth of the time
    with explorer.computer.installed(), few:
        yield explorer


def explore(seed: int, states: int, *, planted: str | None = None) -> Counter[str]:
    """Crash the scripts of a seed until so many different states were recovered from; gives what was met.

    Raises:
        Violation: a promise was broken; its notes say how.
    """
    met: Counter[str] = Counter()
    script = 0
    while met["states"] < states:
        explore_script(Explorer(seed, script, planted, met), states)
        script += 1
    return met


def explore_script(explorer: Explorer, states: int) -> None:
    """Crash one script, until so many states in all were recovered from."""
    met = explorer.met
    with at_work(explorer):
        explorer.run()
        met["scripts"] += 1
        for new in explorer.states():
            met["states" if new else "states met before"] += new or 1
            if met["states"] >= states:
                return


def once_more(seed: int, script: int, step: int, variant: int, *, planted: str | None = None) -> None:
    """Go to one state again.

    Raises:
        Violation: as it was found.
    """
    with at_work(Explorer(seed, script, planted)) as explorer:
        explorer.run()
        explorer.state(step, variant)


def main(argv: list[str] | None = None) -> int:
    """Run the harness; see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plant", choices=sorted(PLANTS), help="a bug that is to be found; stops when it is")
    parser.add_argument("--script", type=int, help="this script of the seed alone")
    parser.add_argument("--step", type=int, help="this step of it alone")
    parser.add_argument("--variant", type=int, default=0)
    args = parser.parse_args(argv)
    report = Report("crash states", "jsonl", "fdatasync", args.seed, args.plant)
    script = args.script or 0
    with planted(args.plant):
        while report.counts["states"] < args.states:
            explorer = Explorer(args.seed, script, args.plant, report.counts)
            try:
                if args.step is not None:
                    once_more(args.seed, script, args.step, args.variant, planted=args.plant)
                else:
                    explore_script(explorer, args.states)
            except Violation as violation:
                text = "\n".join((str(violation), *violation.__notes__))
                print(text, file=sys.stderr)
                report.add(Counter(), [text])
            script += 1
            if args.script is not None or len(report.violations) >= (1 if args.plant else ENOUGH):
                break
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
