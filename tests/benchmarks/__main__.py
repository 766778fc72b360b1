"""Measure stepwell beside its floors, and its peers beside it.

    python -m tests.benchmarks --json figures.json            # stepwell: some minutes
    python -m tests.benchmarks --peers --json figures.json    # and its peers, in environments of their own
    python -m tests.benchmarks --soak                         # the big counts besides: an hour
    python -m tests.benchmarks --only steps --only runs
    python -m tests.benchmarks --store postgres redis s3      # on servers that it starts, from the packages of [test]
    python -m tests.benchmarks --markdown figures.json        # an older report as tables of Markdown

Each measurement runs in a fresh process, between two runs of its floor: the same bytes with no library around them.
A figure is the median of the repeats, a ratio the median of each value over the mean of the floors beside it. Nothing
else should run on the machine.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from . import plan
from .bench import FULL, QUICK, SOAK, Bench, Sizes, Workload, measured
from .machine import facts
from .peers import plan as peers
from .processes import ROOT
from .rows import Report, Row
from .table import line, markdown

__all__ = ["main"]

WORK = ROOT / ".bench"


def wanted(sizes: Sizes, args: argparse.Namespace, names: list[str]) -> Iterator[Workload]:
    """The workloads that were asked for."""
    for workload in (*plan.workloads(sizes, args.store), *peers.workloads(sizes, names, WORK, args.store)):
        if not args.only or workload.name in args.only:
            yield workload


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="benchmarks", description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    counts = parser.add_mutually_exclusive_group()
    counts.add_argument("--quick", action="store_true", help="counts so small that the figures mean nothing")
    counts.add_argument("--soak", action="store_true", help="the biggest counts besides")
    parser.add_argument("--only", action="append", choices=plan.NAMES, help="this workload")
    parser.add_argument(
        "--store",
        action="extend",
        nargs="+",
        choices=plan.STORES,
        help="histories kept here (all of them); postgres, redis and s3 are servers that are started for it",
    )
    parser.add_argument("--repeat", type=int, default=5, help="how often each measurement is made (5)")
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=False, help="measure other systems")
    parser.add_argument("--peer", action="append", choices=peers.NAMES, help="this one of them")
    parser.add_argument("--json", type=Path, help="where the rows go")
    parser.add_argument("--markdown", type=Path, help="print a report that --json wrote, and measure nothing")
    args = parser.parse_args(argv)
    args.store = args.store or list(plan.STORES)
    return args


def main(argv: list[str] | None = None) -> int:
    """Measure and print; exit code 1 when a figure could not be had."""
    args = parse(argv)
    if args.markdown:
        print(markdown(Report.read(args.markdown)), end="")
        return 0
    sizes = QUICK if args.quick else SOAK if args.soak else FULL
    WORK.mkdir(exist_ok=True)
    top = Path(tempfile.mkdtemp(prefix="work-", dir=WORK))
    rows: list[Row] = []
    names: list[str] = args.peer or (list(peers.NAMES) if args.peers else [])
    bench = Bench(sizes, max(1, args.repeat), top)
    try:
        for name in [name for name in names if peers.kept_on(name, args.store, WORK)]:
            failed = show(peers.prepare(name, WORK))
            rows += failed
            if failed:
                names.remove(name)
        for workload in wanted(sizes, args, names):
            rows += show(measured(workload, bench))
    finally:
        bench.servers.close()
        shutil.rmtree(top, ignore_errors=True)
        report = Report(facts(WORK), rows)
        if args.json:  # also when it was interrupted
            report.write(args.json)
    return 1 if report.failed else 0


def show(rows: list[Row]) -> list[Row]:
    """Print rows as they come."""
    for row in rows:
        print(line(row))
    sys.stdout.flush()
    return rows


if __name__ == "__main__":
    sys.exit(main())
