"""How fast this machine is beside the one that the aims were set on: the same peers were measured on both.

An aim of so many steps a second says nothing on another machine. What DBOS, LangGraph and durabletask took there and
take here tells how much slower or faster this one is, and so what an aim comes to here. Ratios to a floor need no such
scale: both sides are measured on one machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from attrs import frozen

from .rows import Report, Row
from .table import grid, number

__all__ = ["section"]

STEPS = "one run of 1,000 steps"
RUNS = "1,000 runs of 3 steps, one after another"
DRAIN = "1,000 submitted runs of 3 steps, drained by a worker"
RESUME = "resume after 10,000 recorded steps"
IMPORT = "import, over a bare interpreter"
BEGIN = "start of the process to the first finished run, new file"
INSIDE = "integers, inside the function alone"


@frozen
class Known:
    """What a peer took on the other machine: medians of three runs, with two or three other jobs beside them."""

    workload: str
    system: str
    value: float
    durability: str = ""
    case: str = ""


THERE = [
    Known(STEPS, "DBOS", 869, "WAL"),
    Known(STEPS, "LangGraph", 1127, "WAL"),
    Known(STEPS, "AWS SDK", 557),
    Known(STEPS, "DBOS", 452, "fsync=on"),
    Known(STEPS, "Absurd", 1186),
    Known(RUNS, "DBOS", 191, "WAL"),
    Known(RUNS, "LangGraph", 190, "WAL"),
    Known(RUNS, "durabletask", 99),
    Known(RUNS, "DBOS", 94, "fsync=on"),
    Known(RUNS, "Absurd", 175),
    Known(DRAIN, "DBOS", 128, "WAL"),
    Known(DRAIN, "durabletask", 99),
    Known(DRAIN, "DBOS", 133, "fsync=on"),
    Known(DRAIN, "Absurd", 231),
    Known(RESUME, "DBOS", 3073, "WAL", INSIDE),
    Known(RESUME, "LangGraph", 823, "WAL", "integers"),
    Known(RESUME, "DBOS", 940, "fsync=on", INSIDE),
    Known(RESUME, "Absurd", 126_600, case="integers"),
    Known(IMPORT, "DBOS", 337),
    Known(IMPORT, "LangGraph", 553),
    Known(IMPORT, "durabletask", 95),
    Known(IMPORT, "Absurd", 93),
    Known(BEGIN, "DBOS", 473, "DELETE"),
    Known(BEGIN, "LangGraph", 599, "WAL"),
    Known(BEGIN, "durabletask", 150),
    Known(BEGIN, "DBOS", 678, "fsync=on"),
]


@frozen
class Aim:
    """What stepwell was to reach on the other machine."""

    workload: str
    store: str
    value: float
    case: str = ""


AIMS = [
    Aim(STEPS, "memory", 40_000),
    Aim(DRAIN, "sqlite", 2_000),
    Aim(DRAIN, "postgres", 1_000),
    Aim(RESUME, "sqlite", 330_000, "integers"),
    Aim(RESUME, "sqlite", 250_000, "attrs objects of 3 fields"),
    Aim(RESUME, "postgres", 250_000, "integers"),
    Aim(IMPORT, "sqlite", 65),
    Aim(BEGIN, "sqlite", 150),
]


def slower(here: Row, there: float) -> float:
    """How many times slower a figure is here; its unit says whether more is better."""
    assert here.value is not None
    return there / here.value if here.unit.endswith("/s") else here.value / there


def section(report: Report, prefix: str = "###") -> str:
    """The scale, and the aims by it, as Markdown; "" for a report without peers."""
    pairs = list(_pairs(report))
    if not pairs:
        return ""
    scale = math.exp(sum(math.log(slower(row, known.value)) for known, row in pairs) / len(pairs))
    head = ("workload", "peer", "there", "here", "times slower")
    rows = [
        (
            one.workload,
            f"{row.system}, {row.store}",
            f"{number(one.value)} {row.unit}",
            f"{number(row.value)} {row.unit}",
            f"{times:.2g}",
        )
        for one, row in pairs
        if (times := slower(row, one.value))
    ]
    about = (
        "Absolute aims were set on another machine, where the same peers were measured. Figures that their own code "
        f"decides are {scale:.2g} times slower here (geometric mean), so an aim comes to as much less."
    )
    aims = grid(("workload", "store", "aim there", "the same here", "measured"), _aims(report, scale))
    return "\n\n".join([f"{prefix} The scale of this machine", about, grid(head, rows), aims]) + "\n"


def _pairs(report: Report) -> Iterator[tuple[Known, Row]]:
    for known in THERE:
        for row in report.rows:
            same = (row.workload, row.case) == (known.workload, known.case) and row.value is not None
            if same and row.system.startswith(known.system) and _fits(known, row):
                yield known, row
                break


def _fits(known: Known, row: Row) -> bool:
    return not known.durability or row.durability.startswith(known.durability)


def _aims(report: Report, scale: float) -> Iterator[tuple[str, ...]]:
    for aim in AIMS:
        for row in report.rows:
            wanted = (aim.workload, "stepwell", aim.store, aim.case)
            if (row.workload, row.system, row.store, row.case) == wanted and row.value is not None:
                scaled = aim.value / scale if row.unit.endswith("/s") else aim.value * scale
                what = f"{aim.workload}, {aim.case}" if aim.case else aim.workload
                values = (f"{number(value)} {row.unit}" for value in (aim.value, float(f"{scaled:.3g}"), row.value))
                yield (what, aim.store, *values)
