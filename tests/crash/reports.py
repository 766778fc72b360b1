"""What a harness has to say at its end: counts for people and programs, and what it found wrong."""

from __future__ import annotations

import json
import platform
import sqlite3
import sys
import time
from collections import Counter
from typing import Any

from attrs import asdict, define, field

__all__ = ["Report"]


@define
class Report:
    """One run of one harness.

    Attributes:
        harness: its name.
        store: `jsonl`, `sqlite`, or what else it was run on.
        setting: the durability setting under test, such as `fdatasync` or `synchronous=FULL`.
        seed: gives the same faults again.
        planted: the bug that was put in, or None.
        counts: what happened how often: faults, acknowledged records, ...
        violations: what must not be; the first hundred.
        skipped: why nothing was run, or None.
        facts: what else is to be known, such as the file system.
    """

    harness: str
    store: str
    setting: str
    seed: int
    planted: str | None = None
    counts: Counter[str] = field(factory=Counter)
    violations: list[str] = field(factory=list)
    skipped: str | None = None
    facts: dict[str, Any] = field(factory=dict)
    seconds: float = 0.0
    _began: float = field(factory=time.monotonic)

    def add(self, counts: Counter[str], violations: list[str]) -> None:
        """Take in what one story came to."""
        self.counts.update(counts)
        self.counts["violations"] += len(violations)
        self.violations.extend(violations[: 100 - len(self.violations)])

    def finish(self) -> int:
        """Print as JSON on one line, and give the exit code: 0 when nothing was wrong, 1 else."""
        self.seconds = round(time.monotonic() - self._began, 1)
        row: dict[str, Any] = asdict(self, filter=lambda a, _: not a.name.startswith("_"))
        row["counts"] = dict(sorted(self.counts.items()))
        kernel = ".".join(platform.release().split(".")[:2])
        row |= {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version, "kernel": kernel}
        print(json.dumps(row))
        sys.stdout.flush()
        return 1 if self.violations else 0
