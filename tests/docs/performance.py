"""The tables of the page about performance, from what the benchmarks measured (tests/benchmarks/measured.json)."""

from __future__ import annotations

from pathlib import Path

from tests.benchmarks.rows import Report
from tests.benchmarks.scale import section
from tests.benchmarks.table import markdown

__all__ = ["tables"]

MEASURED = Path(__file__).parents[1] / "benchmarks" / "measured.json"


def tables() -> list[str]:
    """A table for each workload, stepwell first and its peers after it; the machine, and its scale."""
    report = Report.read(MEASURED)
    return [*markdown(report).splitlines(), "", *section(report).splitlines()]
