"""All crash harnesses, one after the other, and what they measured.

    python -m tests.crash.soak                      # the long way: hours
    python -m tests.crash.soak --ci                 # counts as in the test suite: minutes
    python -m tests.crash.soak --only power_cuts
    python -m tests.crash.soak --match "CRC ignored"

The reports go into measured.json beside this file, from which the page about durability is made: one object for each
harness, store, setting and planted bug, sorted. Each is written as soon as it is there, so that what was measured stays
when the rest is interrupted. With `--only` and `--match` the others stay as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import frozen
from tests.crash.places import ON_SERVERS

__all__ = ["JOBS", "Job", "main", "name_of"]

ROOT = Path(__file__).parents[2]
MEASURED = Path(__file__).with_name("measured.json")

STORES = ("jsonl", "sqlite")
_OF_GROUPS = (
    "failed commit told as done",
    "follower dropped",
    "follower told before the commit",
    "follower written twice",
)
_CONTROLS: dict[str, dict[str, tuple[str, ...]]] = {
    "crowd": {"jsonl": ("ack before write", "recorded step runs again"), "sqlite": _OF_GROUPS},
    "kill_points": {"jsonl": ("ack before write", "no torn-tail cut"), "sqlite": ("ack before write",)},
    "pauses": dict.fromkeys(STORES, ("no fence", "fence checked before the transaction")),
    "removals": dict.fromkeys(STORES, ("fence forgotten with its run", "removed in pieces")),
    "start_races": dict.fromkeys(STORES, ("existing run looked for before the transaction",)),
}
_OF_CALLS = ("another attempt after Unknown", "re-run on Unknown")
_OF_BYTES = (
    "CRC ignored",
    "damage taken for a torn tail",
    "journal split as text",
    "position ignored",
    "torn tail taken for good",
)
_OF_FILES = (*_OF_BYTES, "fence trusted without CRC", "head trusted without CRC", "torn tail cut without a copy")
_DISK_FAULTS = ("full", "inodes", "file size", "open files", "read-only", "short writes", "append-only")


@frozen
class Job:
    """One run of a harness.

    Attributes:
        harness: its module.
        options: that go to it in any case.
        count: its option that says how much is done.
        ci, soak: how much that is in the test suite, and here.
        loses: whether something must be found wrong: a bug is planted, or the setting declares no safety.
    """

    harness: str
    options: tuple[str, ...] = ()
    count: str = "--count"
    ci: int = 0
    soak: int = 0
    loses: bool = False

    def command(self, *, ci: bool) -> list[str]:
        """What is called, without the interpreter."""
        number = self.ci if ci else self.soak
        return ["-m", f"tests.crash.{self.harness}", *self.options, *([self.count, str(number)] if number else [])]

    @property
    def name(self) -> str:
        """What it is called, whatever its count."""
        return name_of(shlex.join(["python", *self.command(ci=True)]))


def name_of(command: str) -> str:
    """What the job of a report's command is called: the command without the count, which comes last."""
    return re.sub(r" [0-9]+$", "", command)


def jobs() -> Iterator[Job]:
    """Everything that is to be run."""
    for store in STORES:
        on = ("--store", store)
        yield Job("kill_points", on, ci=500, soak=10_000)
        yield Job("kill_points", (*on, "--exhaustive"))
        yield Job("crowd", on, ci=100, soak=2_000)
        yield Job("pauses", on, ci=300, soak=2_000)
        yield Job("start_races", on, ci=200, soak=1_000)
        yield Job("removals", on)
        for harness, planted in _CONTROLS.items():
            for bug in planted[store]:
                count = 0 if harness == "removals" else 300
                yield Job(harness, (*on, "--plant", bug), ci=count, soak=count, loses=True)
        for kind in _DISK_FAULTS:
            if store == "jsonl" or kind not in _DISK_FAULTS[-2:]:
                yield Job("disk_faults", (*on, "--kind", kind), ci=30 if kind != "append-only" else 3, soak=400)
        yield Job("disk_faults", (*on, "--kind", "full", "--plant", "error swallowed"), ci=30, soak=30, loses=True)
    yield Job("removals", ("--store", "sqlite", "--vacuum"))
    yield from power_cuts()
    yield from servers()
    yield Job("crash_states", count="--states", ci=50_000, soak=2_000_000)
    yield Job("crash_states", ("--plant", "no directory fsync"), "--states", 5_000, 5_000, loses=True)
    yield from fuzz()
    for store in ("memory", *STORES):
        yield Job("store_calls", ("--store", store, "--level", "port"))
        for bug in _OF_CALLS:
            yield Job("store_calls", ("--store", store, "--level", "port", "--plant", bug), loses=True)
        if store != "memory":
            yield Job("store_calls", ("--store", store, "--level", "system"), "--stride", ci=7, soak=1)


def fuzz() -> Iterator[Job]:
    """Bytes that change: single lines, then all files of a run; and planted bugs."""
    yield Job("fuzz", count="--lines", ci=100_000, soak=1_000_000)
    for bug in _OF_BYTES:
        yield Job("fuzz", ("--first", "--plant", bug), "--lines", 5_000, 5_000, loses=True)
    yield Job("fuzz", count="--files", ci=5_000, soak=50_000)
    for bug in _OF_FILES:
        yield Job("fuzz", ("--first", "--plant", bug), "--files", 5_000, 5_000, loses=True)


def power_cuts() -> Iterator[Job]:
    """The power cuts: what is safe, what declares that it isn't, and planted bugs."""
    settings = {"jsonl": "sync=off", "sqlite": "sync=normal"}
    planted = {"jsonl": ("no fsync", "no sync on open"), "sqlite": ("synchronous=NORMAL", "no sync on open")}
    for fs in ("ext4", "xfs"):
        for store in STORES:
            on = ("--store", store, "--fs", fs)
            yield Job("power_cuts", on, ci=25, soak=500)
            yield Job("power_cuts", (*on, "--setting", settings[store]), ci=15, soak=100, loses=True)
            for bug in planted[store]:
                yield Job("power_cuts", (*on, "--plant", bug), ci=15, soak=100, loses=True)
    on_xfs = ("--store", "jsonl", "--fs", "xfs", "--plant", "no directory fsync")  # ext4 hides it
    yield Job("power_cuts", on_xfs, ci=60, soak=100, loses=True)


def servers() -> Iterator[Job]:
    """Stores on servers: workers that die or are stopped, connections that break, servers that die."""
    for store in ON_SERVERS:
        on, slow = ("--store", store), store == "s3"
        yield Job("kill_points", on, ci=100 if slow else 500, soak=1_000 if slow else 4_500)
        yield Job("kill_points", (*on, "--plant", "recorded step runs again"), ci=300, soak=300, loses=True)
        yield Job("pauses", on, ci=300, soak=2_000)
        for bug in ("no fence", "fence checked before the transaction"):
            yield Job("pauses", (*on, "--plant", bug), ci=300, soak=300, loses=True)
        yield Job("start_races", on, ci=200, soak=1_000)
        for bug in ("existing run looked for before the transaction", "live lease not respected"):
            yield Job("start_races", (*on, "--plant", bug), ci=300, soak=300, loses=True)
        often = {"cut": 300 if slow else 1_000, "blackhole": 20, "delay": 30, "zombie": 50, "deaf": 50}
        for fault, count in often.items():
            yield Job("connections", (*on, "--fault", fault), ci=count, soak=10 * count)
        for fault in ("cut", "zombie", "deaf"):
            planted = (*on, "--fault", fault, "--plant", "another attempt")
            yield Job("connections", planted, ci=300, soak=300, loses=True)
    for store, how, ci, soak in (
        ("postgres", "kill", 10, 200),
        ("postgres", "backend", 10, 200),
        ("postgres", "restart", 5, 50),
        ("postgres", "power", 10, 200),
        ("redis", "kill", 20, 500),
        ("redis", "restart", 5, 50),
        ("redis", "power", 20, 500),
    ):
        yield Job("server_deaths", ("--store", store, "--how", how), ci=ci, soak=soak)
    for store, how, setting in (
        ("postgres", "power", "fsync=off"),
        ("redis", "power", "appendfsync=everysec"),
        ("redis", "kill", "appendonly=no"),
    ):
        options = ("--store", store, "--how", how, "--setting", setting)
        yield Job("server_deaths", options, ci=10, soak=10, loses=True)
    for how in ("kill", "power"):
        options = ("--store", "postgres", "--how", how, "--plant", "synchronous_commit=off")
        yield Job("server_deaths", options, ci=10, soak=10, loses=True)


JOBS = tuple(jobs())


def run(job: Job, *, ci: bool, seconds: float) -> dict[str, Any]:
    """Run a harness, and give its report as it is to be kept: with no paths, and violations as a number."""
    command = job.command(ci=ci)
    path = [str(ROOT), *(entry for entry in sys.path if entry)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    said: list[str] = []
    try:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        said = done.stderr.splitlines()
        row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError) as error:
        row = {"violations": [f"no report: {type(error).__name__}"], "counts": {}, "skipped": None}
    found: list[str] = row["violations"]
    good = row["skipped"] is not None or ("harness" in row and bool(found) == job.loses)
    if not good:
        print(*(f"    {text[:500]}" for text in (*found[:3], *said[-30:])), sep="\n")
    row["violations"] = max(len(found), row["counts"].get("violations", 0))
    return {"job": job.harness, "command": shlex.join(["python", *command]), "as it must be": good, **row}


def show(row: dict[str, Any]) -> None:
    """One line of the table."""
    facts = row.get("facts", {})
    what = " ".join(str(v) for v in (row.get("store"), row.get("setting"), facts.get("file system")) if v)
    counts = row["counts"]
    units = ("cuts", "kills", "deaths", "states", "lines", "files", "cases", "pauses", "starts", "faults")
    most = next((name for name in units if name in counts), "")
    verdict = "skipped" if row["skipped"] else "ok" if row["as it must be"] else "WRONG"
    planted = row.get("planted") or ""
    done = f"{counts[most]:,} {most}" if most else f"{sum(counts.values()):,} in all"
    print(
        f"{verdict:8}{row['job']:14}{what:32}{planted:34}{done:>20}{row['violations']:>8,} wrong"
        f"{row.get('seconds', 0):>9,.1f} s" + (f"  {row['skipped']}" if row["skipped"] else "")
    )
    sys.stdout.flush()


def keep(row: dict[str, Any], file: Path) -> None:
    """Write a row in place of the one of the same job. Rows of jobs that are no more go."""
    old = json.loads(file.read_text("utf-8")) if file.exists() else []
    others = {job.name for job in JOBS} - {name_of(row["command"])}
    rows = [row, *(one for one in old if name_of(one["command"]) in others)]
    rows.sort(key=lambda row: (row["job"], row["command"]))
    new = file.with_name(f"{file.name}.new")
    new.write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n", "utf-8")
    new.replace(file)


def main(argv: list[str] | None = None) -> int:
    """Run the harnesses; see the module. Exit code 1 when one of them is not as it must be."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__, allow_abbrev=False)
    parser.add_argument("--ci", action="store_true", help="counts as in the test suite")
    parser.add_argument("--only", action="append", choices=sorted({job.harness for job in JOBS}), help="this harness")
    parser.add_argument("--match", action="append", default=[], help="only what is called with this text")
    parser.add_argument("--output", type=Path, default=MEASURED, help="the file of reports")
    parser.add_argument("--hours", type=float, default=3.0, help="after so many one job is taken for hung")
    args = parser.parse_args(argv)
    wanted = [job for job in JOBS if not args.only or job.harness in args.only]
    wanted = [job for job in wanted if all(text in shlex.join(job.command(ci=args.ci)) for text in args.match)]
    good = True
    for job in wanted:
        row = run(job, ci=args.ci, seconds=args.hours * 3600)
        show(row)
        keep(row, args.output)
        good = good and row["as it must be"]
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
