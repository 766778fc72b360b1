"""Rows as people read them: lines on a terminal, and tables of Markdown."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from attrs import evolve

from .machine import SERVER_PACKAGES
from .probes import SCHEMES
from .rows import Report, Row

__all__ = ["cells", "line", "markdown"]

HEAD = ("case", "system", "store", "durability", "value", "least to most", "floor", "ratio", "commits")


def number(value: float | None) -> str:
    """A number of four digits as people write it."""
    if value is None:
        return ""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def cells(row: Row) -> tuple[str, ...]:
    """The cells of a row, in the order of `HEAD`."""
    if row.error is not None or row.missing is not None:
        word = "ERROR: " + row.error if row.error is not None else f"none: {row.missing}"
        return (row.case, row.system, row.store, row.durability, word, "", "", "", "")
    return (
        row.case,
        row.system,
        row.store,
        row.durability,
        f"{number(row.value)} {row.unit}",
        f"{number(row.low)} to {number(row.high)}",
        number(row.floor),
        number(row.ratio),
        number(row.commits),
    )


def line(row: Row) -> str:
    """One line for a terminal."""
    case, system, store, durability, value, spread, floor, ratio, commits = cells(row)
    least = f"floor {floor}, ratio {ratio}" if floor else ""
    counted = f"{commits} commits" if commits else ""
    what = f"{row.workload}: {case}" if case else row.workload
    where = f"{system}, {store}" if store else system
    return f"{what:72} {where:24} {durability:24} {value:>18} {spread:>20}  {least:32} {counted}".rstrip()


def markdown(report: Report, workloads: Sequence[str] = (), *, prefix: str = "###") -> str:
    """The report as Markdown: a table for each workload, with what its floor is, and a sentence about the machine.

    Args:
        workloads: those that are wanted, in this order; all when empty.
        prefix: what begins a heading.
    """
    wanted = workloads or list(dict.fromkeys(row.workload for row in report.rows))
    parts = [machine(report)]
    for workload in wanted:
        rows = [row for row in report.rows if row.workload == workload]
        parts.append(f"{prefix} {workload[:1].upper()}{workload[1:]}")
        parts += [*dict.fromkeys(row.note for row in rows if row.note), *floors(rows)]
        parts.append(grid(HEAD, [cells(row) for row in merged(rows)]))
    return "\n\n".join(parts) + "\n"


def merged(rows: Iterable[Row]) -> Iterator[Row]:
    """Rows of one system that are missing for one reason, one after another, as one."""
    for _, group in itertools.groupby(rows, lambda row: (row.system, row.store, row.missing)):
        same = list(group)
        if same[0].missing is None or len(same) == 1:
            yield from same
        else:
            yield evolve(same[0], case=f"{same[0].case}, and {len(same) - 1} more")


def floors(rows: Sequence[Row]) -> list[str]:
    """What the floors of these rows are; and whose, when there are several."""
    whose: dict[str, dict[str, None]] = {}
    for row in rows:
        if row.floor_means:
            place = "" if row.durability in ("", "none") else f" ({row.durability})"
            whose.setdefault(row.floor_means, {})[f"{row.system} on {row.store}{place}"] = None
    if len(whose) == 1:
        return [f"Floor: {means}." for means in whose]
    return ["\n".join(f"- Floor of {'; '.join(who)}: {means}." for means, who in whose.items())] if whose else []


def grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown, without the columns that are empty throughout."""
    lines = [list(row) for row in rows]
    kept = [number for number in range(len(head)) if any(one[number] for one in lines)]
    text = [
        [head[number] for number in kept],
        ["---"] * len(kept),
        *([one[number] for number in kept] for one in lines),
    ]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in one)} |" for one in text)


def machine(report: Report) -> str:
    """The machine in one sentence."""
    facts = report.machine
    text = (
        f"Measured on {facts['cpu']}, {facts['cores']} cores, {facts['memory_gb']} GB, {facts['system']} "
        f"{facts['kernel']}, {facts['file_system']}, Python {facts['python']}, SQLite {facts['sqlite']}."
    )
    found = [f"{name} {facts['packages'][name]}" for name in SERVER_PACKAGES if name in facts["packages"]]
    if found and any(row.store in SCHEMES for row in report.rows):
        text += f" Servers: {', '.join(found)}, on the same machine, their files on {facts['server_file_system']}."
    return text
