"""What a damaged directory still vouches for, and whether what a store answers agrees with that."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from tests.crash.corpus import Recorded, corpus, genuine_lines
from tests.crash.damage import Damaged, head_row
from tests.crash.fuzz_lines import Finding, is_hole, whole_lines

from stepwell.store import RunHead, Tail

__all__ = ["Disk"]


class Disk:
    """The bytes of one damaged run, and what follows from them.

    Attributes:
        row: what the head says, None when there is none that can be believed.
        journals: bytes by incarnation.
        fence: a session number that was given, as far as anything tells.
    """

    def __init__(self, damaged: Damaged) -> None:
        self.damaged = damaged
        self.run: Recorded = damaged.run
        self.forged = damaged.repaired and any(damaged.touched(name) for name in self.run.files)
        self.row = self._believed()
        self.journals = {
            number: damaged.files[self.run.journal(number)]
            for number in range(len(self.run.histories))
            if self.run.journal(number) in damaged.files
        }
        self.fence = self._fence()

    def _believed(self) -> dict[str, Any] | None:
        name = f"{self.run.stem}.head.json"
        row = head_row(self.damaged.files.get(name))
        if row is None or row.get("runId") != self.run.run_id or (self.forged and self.damaged.touched(name)):
            return None
        return row

    def _fence(self) -> int:
        found = [0 if self.row is None else int(self.row["fence"])]
        name = f"{self.run.stem}.fence"
        if name in self.run.files and not self.damaged.touched(name):
            found.append(json.loads(self.run.files[name])["fence"])
        for number in self.journals:
            if not self.damaged.touched(self.run.journal(number)):
                found += map(int, re.findall(rb'^.{0,60}"session":(\d+),', self.run.histories[number][-1]))
        return max(found)

    def vouched(self, number: int) -> int:
        """How many records of an incarnation must be there, or an error."""
        later = any(other > number for other in self.journals)
        if later or (self.row is not None and self.row["incarnation"] > number):
            return len(self.run.histories[number])
        return int(self.row["seq"]) if self.row is not None and self.row["incarnation"] == number else 0

    # ---- answers

    def judge_missing(self, number: int | None, counts: Counter[str]) -> None:
        """The store says that there is no such run, or no such incarnation."""
        least = 0 if number is None else number
        there = max((n for n in self.journals if self.journals[n]), default=-1)
        known = -1 if self.row is None else int(self.row["incarnation"])
        if max(there, known) >= least and not (self.forged and self.damaged.touched(f"{self.run.stem}.fence")):
            what = "the run" if number is None else f"incarnation {number}"
            left = ", ".join(name for name in self.damaged.files if name.startswith(f"{self.run.stem}."))
            raise Finding(f"{what} is said not to exist, and there is {left}")
        counts["gone"] += 1

    def judge_head(self, head: RunHead, counts: Counter[str]) -> None:
        """The store shows where the run stands."""
        if head.run_id != self.run.run_id:
            raise Finding(f"the head of {head.run_id!r} is shown for {self.run.run_id!r}")
        if self.forged:
            return
        if self.fence_is_damaged():
            raise Finding("the fence is damaged, and nobody told")
        if head.seq < self.vouched(head.incarnation) or head.incarnation < max(self.journals, default=-1):
            raise Finding(f"the head has {head.seq} records of incarnation {head.incarnation}, and more were written")
        if self.row is None:
            counts["head rebuilt"] += 1
        if self.row is None and self.foreign(head.incarnation):
            return
        if self.row is None:
            self.judge_rebuilt(head)
        told, known = head.head, self.run.head.head
        if (told.workflow, told.version, told.tags) != (known.workflow, known.version, known.tags):
            raise Finding(f"the head shows {told} for {known}")

    def judge_rebuilt(self, head: RunHead) -> None:
        """No head can be believed, so what is shown is what the records tell, and no more."""
        lines = whole_lines(self.journals.get(head.incarnation, b"").rstrip(b"\0") + b"\n")[0][: head.seq]
        if len(lines) != head.seq or not lines:
            raise Finding(f"{head.seq} records of incarnation {head.incarnation} are shown, and there are {len(lines)}")
        created, updated = (_micros(json.loads(line)["timestamp"]) for line in (lines[0], lines[-1]))
        told, due = head.head, None if head.closed else updated
        shown = (told.created, told.updated, told.due, told.waiting, told.blocked, head.lease_until)
        if shown != (created, updated, due, (), None, None):
            raise Finding(f"no head can be believed, and {head} is shown, which the records don't tell")

    def fence_is_damaged(self) -> bool:
        """Whether there is a fence file that is wrong by its own checksum."""
        name = f"{self.run.stem}.fence"
        return name in self.damaged.files and head_row(self.damaged.files[name]) is None

    def judge_tail(self, tail: Tail, counts: Counter[str]) -> None:
        """The store gives records: those that are on the disk, and all that must be."""
        number, lines = tail.incarnation, tuple(tail.records)
        original = self.run.histories[number]
        data = self.journals.get(number, b"")
        _, bad = whole_lines(data)
        if bad is not None and not is_hole(data, bad):
            raise Finding(f"line {bad + 1} is damaged, and nobody told")
        on_disk = data.rstrip(b"\0").split(b"\n")  # zeros stand where a newline was to be
        if list(lines) != on_disk[: len(lines)]:
            raise Finding("what was read is not on the disk")
        if not self.forged and lines != original[: len(lines)]:
            if lines[: len(original)] == original and genuine_lines().issuperset(lines):
                counts["another run's record"] += 1  # at its very place: no record has its run's name in it
                return
            if lines not in genuine():
                raise Finding("content was altered, and nobody told")
            if self.known_otherwise(number, lines):
                raise Finding("the journal of another run is read, though the head is of this one")
            counts["another run's journal"] += 1
        elif len(lines) < (least := self.vouched(number)):
            raise Finding(f"{len(lines)} records of incarnation {number} are read, of {least} vouched for")
        elif len(lines) < len(original):
            counts["shorter prefix"] += 1
        elif lines == original:
            counts["unchanged"] += 1
        else:
            counts["as the bytes say"] += 1

    def known_otherwise(self, number: int, lines: tuple[bytes, ...]) -> bool:
        """Whether the head can tell that these are not the records it was written for: by size, or by the last."""
        if self.row is None or self.row["incarnation"] != number:
            return False
        seq = int(self.row["seq"])
        last, original = lines[seq - 1 : seq], self.run.histories[number][seq - 1 : seq]
        return last != original or sum(len(line) + 1 for line in lines[:seq]) != self.row["size"]

    def lacks(self, attempt: str) -> bool:
        """Whether no whole record of an attempt is left."""
        lines = [line for data in self.journals.values() for line in whole_lines(data + b"\n")[0]]
        return not any(attempt.encode() in line for line in lines)

    def foreign(self, number: int) -> bool:
        """Whether the journal is whole, and another's."""
        data = self.journals.get(number, b"")
        return data.split(b"\n")[0] != self.run.histories[number][0]


def _micros(text: str) -> int:
    """Microseconds since 1970 of a recorded instant."""
    return (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


@cache
def genuine() -> frozenset[tuple[bytes, ...]]:
    """All beginnings of all histories."""
    histories = [lines for run in corpus() for lines in run.histories]
    return frozenset(lines[:length] for lines in histories for length in range(len(lines) + 1))
