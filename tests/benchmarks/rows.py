"""What a benchmark comes to: one row for each figure, and the facts of the machine that it was measured on."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import asdict, field, frozen

__all__ = ["Figure", "Report", "Row", "row_of"]


@frozen
class Figure:
    """A number that a workload gives.

    Attributes:
        workload: what is measured, as the table names it.
        unit: of the value and of its floor. The bigger the better for what is per second, the smaller for the rest.
        value: its name among the results of a measurement.
        floor: its name among the results of the floor, "" when there is none.
        means: what the floor is.
        note: what else a reader has to know.
        commits: its name among what was counted before: durable writes for one unit of work; "" for none.
        case: which of several figures of one workload, "" when there is one.
    """

    workload: str
    unit: str
    value: str
    floor: str = ""
    means: str = ""
    note: str = ""
    commits: str = ""
    case: str = ""


@frozen
class Row:
    """A figure, as it was measured.

    Attributes:
        workload, unit, note, case: as in `Figure`.
        system: whose figure it is.
        store: where it keeps histories.
        durability: the setting, as it was read back; "none" for memory.
        value, low, high: median, least and most of the repeats.
        floor, floor_low, floor_high: the same of the floor.
        floor_means: what the floor is.
        ratio: median of each value over the mean of the floors before and after it.
        commits: durable writes for one unit of work, counted.
        counts: how much was done.
        error: why there is no value: the benchmark failed.
        missing: why there can't be one: the system has no such thing.
    """

    workload: str
    system: str
    store: str
    durability: str = ""
    value: float | None = None
    unit: str = ""
    low: float | None = None
    high: float | None = None
    floor: float | None = None
    floor_low: float | None = None
    floor_high: float | None = None
    floor_means: str = ""
    ratio: float | None = None
    commits: float | None = None
    counts: dict[str, int] = field(factory=dict)
    note: str = ""
    case: str = ""
    error: str | None = None
    missing: str | None = None


@frozen
class Report:
    """All rows of one run of the command, and where it ran."""

    machine: dict[str, Any]
    rows: list[Row]

    def write(self, file: Path) -> None:
        """Keep it as JSON."""
        file.write_text(json.dumps(asdict(self), indent=1) + "\n", "utf-8")

    @classmethod
    def read(cls, file: Path) -> Report:
        """What `write` kept."""
        found = json.loads(file.read_text("utf-8"))
        return cls(found["machine"], [Row(**row) for row in found["rows"]])

    @property
    def failed(self) -> list[Row]:
        """The rows without a value that should have one."""
        return [row for row in self.rows if row.error is not None]


def row_of(
    figure: Figure,
    values: Sequence[Mapping[str, Any]],
    floors: Sequence[Mapping[str, Any]],
    *,
    system: str,
    store: str,
    counted: Mapping[str, Any],
    counts: Mapping[str, int],
) -> Row:
    """Bring the repeats of one figure together.

    Args:
        values: the results of the measurements.
        floors: those of the floor, one before each measurement and one after the last.
        counted: what was counted before anything was measured.
    """
    measured = [float(one[figure.value]) for one in values]
    low = [float(one[figure.floor]) for one in floors] if figure.floor else []
    ratios = [value / statistics.fmean(low[i : i + 2]) for i, value in enumerate(measured)] if low else []
    return Row(
        workload=figure.workload,
        system=system,
        store=store,
        durability=str(values[0].get(f"durability {figure.value}") or values[0]["durability"]),
        value=rounded(statistics.median(measured)),
        unit=figure.unit,
        low=rounded(min(measured)),
        high=rounded(max(measured)),
        floor=rounded(statistics.median(low)) if low else None,
        floor_low=rounded(min(low)) if low else None,
        floor_high=rounded(max(low)) if low else None,
        floor_means=figure.means,
        ratio=rounded(statistics.median(ratios)) if ratios else None,
        commits=rounded(counted[figure.commits]) if figure.commits and figure.commits in counted else None,
        counts={**counts, "repeats": len(measured)},
        note=figure.note,
        case=figure.case,
    )


def rounded(number: float) -> float:
    """Four digits: more would claim what the next run takes back."""
    return float(f"{number:.4g}")
