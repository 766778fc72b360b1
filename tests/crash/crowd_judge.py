"""What a crowd's store may hold: everything that was acknowledged, once, and nothing that the ledger does not know."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from itertools import pairwise
from typing import Any

from attrs import define, field, frozen
from tests.crash.crowd_story import STEPS, Line, Task, expected, questions_of

from stepwell.store import HeadFilter, RunHead, Store, envelope

__all__ = ["Crowds"]


@frozen
class Found:
    """A run as a store has it: what its steps came to, and its result, None while it is open."""

    head: RunHead
    tokens: dict[str, str]
    result: list[Any] | None


@define
class Crowds:
    """What is known of the runs of one store, from all processes that worked on it.

    Attributes:
        planned: runs that somebody was to begin.
        begun: those whose start or submit has returned.
        paid: payments whose signal has returned, by (run, signal id).
        done: results that were given to a caller, by run.
        killed: the processes that did not come to their end.
        counts: how often what was seen.
    """

    planned: set[str] = field(factory=set)
    begun: set[str] = field(factory=set)
    paid: set[tuple[str, str]] = field(factory=set)
    done: dict[str, list[Any]] = field(factory=dict)
    killed: set[int] = field(factory=set)
    counts: Counter[str] = field(factory=Counter)
    _repeated: set[tuple[str, str]] = field(factory=set)

    def take(self, told: bytes) -> Iterator[str]:
        """Take in what one process told. Violations: two results of one run."""
        for line in told.decode().splitlines():
            kind, *words = line.split(" ")
            if kind == "begun":
                self.begun.add(words[0])
            elif kind == "signal":
                self.paid.add((words[0], words[1]))
            elif kind == "done":
                result = json.loads(words[1])
                if self.done.setdefault(words[0], result) != result:
                    yield f"run {words[0]} was said to come to {self.done[words[0]]} and to {result}"

    def left(self) -> list[Task]:
        """What is to be done again, or for the first time, since nobody has acknowledged it."""
        begins = [Task(run_id, "begin") for run_id in sorted(self.planned - self.begun)]
        pays = [Task(run_id, "pay", number) for run_id in sorted(self.begun) for number in range(questions_of(run_id))]
        return begins + [task for task in pays if (task.run_id, task.signal_id) not in self.paid]

    def settled(self) -> list[Task]:
        """What was acknowledged, and must change nothing when it is asked for once more."""
        pays = [Task(run_id, "pay", int(signal_id[1:])) for run_id, signal_id in sorted(self.paid)]
        return [Task(run_id, "begin") for run_id in sorted(self.begun)] + pays

    # ---- verdicts

    def judge(self, store: Store, ledger: Iterable[Line], *, ended: bool) -> Iterator[str]:
        """Violations, as far as a store that was opened anew can show them; `ended`: everything is to be complete."""
        for part in store.verify():
            if part.problem is not None:
                yield f"verify: {part.place}: {part.problem}"
        performed: dict[str, list[Line]] = {}
        for line in ledger:
            performed.setdefault(line.run_id, []).append(line)
        runs: dict[str, Found] = {}
        for head in store.heads(HeadFilter(), limit=10_000):
            if head.run_id in runs:
                yield f"run {head.run_id} is listed twice"
            runs[head.run_id] = yield from self._read(store, head)
        yield from (f"run {run_id} was begun and is lost" for run_id in sorted(self.begun - runs.keys()))
        yield from (f"run {run_id} was begun by nobody" for run_id in sorted(runs.keys() - self.planned))
        for run_id, lines in performed.items():
            if run_id not in runs:
                yield f"steps of run {run_id} were performed, and it is lost"
            else:
                yield from self._once(run_id, lines)
        for run_id, run in runs.items():
            yield from self._recorded(run_id, run, performed.get(run_id, []))
            yield from self._result(run_id, run)
        if ended:
            yield from self._complete(runs)

    def _read(self, store: Store, head: RunHead) -> Generator[str, None, Found]:
        """A run's history without a gap, with one start, each step once."""
        tokens: dict[str, str] = {}
        result = None
        tail = store.read(head.run_id)
        lines = [] if tail is None else tail.records
        if head.incarnation or head.seq != len(lines):
            yield f"run {head.run_id} is at {head.incarnation}.{head.seq}, and {len(lines)} records are there"
        for seq, line in enumerate(lines):
            found = envelope(line)
            if found.offset != seq or (found.type == "start") != (seq == 0):
                yield f"record {seq} of {head.run_id} is a {found.type!r} of offset {found.offset}"
            if found.type == "step":
                body = json.loads(line)
                if body["stepId"] in tokens:
                    yield f"step {body['stepId']} of {head.run_id} is recorded twice"
                tokens[body["stepId"]] = body["result"]
            elif found.type == "complete":
                result = json.loads(line)["result"]
            elif found.then == "closed":
                yield f"run {head.run_id} is closed by a {found.type!r}"
        return Found(head, tokens, result)

    def _once(self, run_id: str, lines: list[Line]) -> Iterator[str]:
        """Steps in their order, each performed again only when a kill hit the process that was at it."""
        if lines[0].step != STEPS[0]:
            yield f"run {run_id} began with step {lines[0].step}"
        for one, other in pairwise(lines):
            moved = STEPS.index(other.step) - STEPS.index(one.step)
            if moved == 0 and one.life < other.life and one.life in self.killed:
                self._repeated.add((run_id, one.token))
            elif moved != 1:
                yield f"run {run_id}: step {other.step} was performed after {one.step}: {one}, {other}"

    def _recorded(self, run_id: str, run: Found, lines: list[Line]) -> Iterator[str]:
        """What is recorded was produced, by the last performance, and is what the next step was given."""
        last = {line.step: line.token for line in lines}
        for step, token in run.tokens.items():
            if last.get(step) != token:
                yield f"step {step} of {run_id} has {token} recorded, and the ledger has {last.get(step)}"
        for line in lines:
            before = "-" if line.step == STEPS[0] else run.tokens.get(STEPS[STEPS.index(line.step) - 1])
            if line.before != before:
                yield f"step {line.step} of {run_id} was given {line.before}, and {before} is recorded"

    def _result(self, run_id: str, run: Found) -> Iterator[str]:
        """A result follows from what is recorded and what was paid; what was given to a caller stands."""
        right = expected(run_id, [run.tokens.get(step, "-") for step in STEPS])
        if run.result is not None and run.result != right:
            yield f"run {run_id} came to {run.result}, and {right} is right"
        if run_id in self.done and run.result != self.done[run_id]:
            yield f"run {run_id} was said to come to {self.done[run_id]}, and has {run.result} recorded"

    def _complete(self, runs: dict[str, Found]) -> Iterator[str]:
        """Nothing is left to be done."""
        self.counts["steps repeated after a kill"] = len(self._repeated)
        yield from (f"run {run_id} is not there at the end" for run_id in sorted(self.planned - runs.keys()))
        for task in self.left():
            if task.what == "begin":
                yield f"run {task.run_id} could not be begun"
        for run_id, run in runs.items():
            self.counts["runs ended"] += 1
            if not run.head.closed or run.head.head.status != "completed" or run.result is None:
                yield f"run {run_id} is {run.head.head.status} at the end: {run.head}"
