"""Kills while runs are removed and their ids are used again, at every operation on a file.

A process prunes three closed runs, one of several incarnations and one whose files are named by a hash, perhaps gives
space back, and begins new runs under the same ids. It dies at operation 1, 2, 3, ... until one comes through, and the
next one too, now and then. After each death every run is either whole, or gone, or the new one; then another process
does the same to the end, and what has the ids has nothing of what was removed: no event, no session number, no file.

    python -m tests.crash.removals --store sqlite --vacuum
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import shutil
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from tests.crash import sqlite_vfs
from tests.crash.faults import Killer, OsFaults, Place, Point
from tests.crash.generations import End, _end, _fork, memory_folder
from tests.crash.reports import Report
from tests.crash.witness import Evidence, Witness

from stepwell import Engine, Flow, Step, Suspend, workflow
from stepwell.environment import Environment
from stepwell.store import Store
from stepwell.testing.environments import InlineExecutor
from stepwell_stores import open_store
from stepwell_stores.jsonl import runs as jsonl_runs
from stepwell_stores.sqlite import rows as sqlite_rows
from stepwell_stores.sqlite import store as sqlite

__all__ = ["PLANTS", "main"]

LONG = "é" * 31  # more than 180 characters in a file name
IDS = ("a", "b", LONG)
CUTS = (0.0, 0.5, 1.0)


def say(word: str) -> str:
    return word


@workflow
def story(word: str) -> Flow[str]:
    yield from Step(say, word)
    yield Suspend("go")
    return (yield from Step(say, word))


def engine_on(url: str) -> Engine:
    return Engine(open_store(url), [story], environment=Environment(executor=InlineExecutor(), threads=False))


@frozen
class Old:
    """A run as it was: its fence, and the records of each incarnation."""

    fence: int
    histories: list[list[bytes]]


@define
class Scene:
    """Where the store is, and what was in it."""

    kind: str
    base: Path
    vacuum: bool = False
    planted: str | None = None
    before: dict[str, Old] = field(factory=dict)

    @property
    def folder(self) -> Path:
        return self.base / "data"

    @property
    def url(self) -> str:
        return f"file:{self.folder}/runs" if self.kind == "jsonl" else f"sqlite:///{self.folder}/runs.db"

    def fill(self) -> None:
        """Make the runs that are to be removed, once for all stories."""
        self.folder.mkdir()
        with engine_on(self.url) as engine:
            for run_id in IDS:
                engine.start(story, "old", run_id=run_id, tags={"age": "old"})
                engine.resume(run_id, "go", id="once")
                if run_id != "b":
                    engine.reset(run_id)
                    engine.resume(run_id, "go", id="twice")
                head = engine.store.head(run_id)
                assert head is not None
                self.before[run_id] = Old(head.fence, histories_of(engine.store, run_id))
        self.folder.rename(self.base / "template")

    def begin(self) -> None:
        """Put the filled store in place."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.base / "template", self.folder)


def histories_of(store: Store, run_id: str) -> list[list[bytes]]:
    """The records of all incarnations; none when there is no run."""
    tail = store.read(run_id)
    numbers = range(0 if tail is None else tail.incarnation + 1)
    return [[] if (found := store.read(run_id, incarnation=n)) is None else found.records for n in numbers]


def act(scene: Scene, engine: Engine, told: Callable[[str], object]) -> None:
    """Remove what is closed, and use the ids again."""
    engine.prune(older_than=0)
    told("pruned")
    if scene.vacuum:
        engine.vacuum()
        told("vacuumed")
    for number, run_id in enumerate(IDS):
        engine.start(story, "new", run_id=run_id)
        told(f"began {number} {engine.history(run_id)[0].session}")


def be(scene: Scene, point: Point | None, witness: Witness) -> None:
    """Be the process that removes, from opening the store to closing it."""
    plant(scene.planted)
    killer = Killer(point, witness.note)
    with ExitStack() as faults:
        faults.enter_context(OsFaults(killer))
        if scene.kind == "sqlite":
            faults.enter_context(sqlite_vfs.install(killer))
        with engine_on(scene.url) as engine:
            act(scene, engine, witness.note)
    witness.operations(killer.operations, killer.writes)


@define
class Judge:
    """What was told, and what is wrong."""

    scene: Scene
    words: list[str] = field(factory=list)
    wrong: list[str] = field(factory=list)
    counts: Counter[str] = field(factory=Counter)

    def hear(self, end: End) -> None:
        """Take in what a process told."""
        for line in end.told.decode().splitlines():
            kind, _, words = line.replace("_", " ").partition(" ")
            if kind == "trouble":
                self.wrong.append(line)
            elif kind == "note":
                self.words.append(words)
                if words.startswith("killed"):
                    self.counts[words] += 1

    def look(self) -> None:
        """Every run is whole, or gone, or new; nothing is damaged."""
        try:
            with engine_on(self.scene.url) as engine:
                states = {run_id: self._state(engine, run_id) for run_id in IDS}
                self.counts.update(states.values())
                self.counts["some gone, some whole"] += {"gone", "whole"} <= set(states.values())
                listed = {head.run_id for head in engine.store.closed(limit=99)}
                if listed != {run_id for run_id, state in states.items() if state == "whole"}:
                    self.wrong.append(f"closed runs are listed as {listed}, and are {states}")
                self._verify(engine.store)
        except Exception:
            self.wrong.append("the store can't be used: " + " | ".join(traceback.format_exc().splitlines()[-4:]))

    def _state(self, engine: Engine, run_id: str) -> str:
        store, old = engine.store, self.scene.before[run_id]
        head, found = store.head(run_id), histories_of(store, run_id)
        name = IDS.index(run_id)
        if head is None:
            if found:
                self.wrong.append(f"run {name} has no head, and records: {found}")
            if any(word.startswith(f"began {name} ") for word in self.words):
                self.wrong.append(f"run {name} was begun anew, and is gone")
            return "gone"
        if found == old.histories and head.closed:
            if "pruned" in self.words:
                self.wrong.append(f"run {name} was removed, and is back")
            return "whole"
        if len(found) != 1 or b'"new"' not in found[0][0]:
            self.wrong.append(f"run {name} is neither whole nor new: {found}")
        return "new"

    def _verify(self, store: Store) -> None:
        for part in store.verify():
            if part.problem is not None:
                self.wrong.append(f"damage: {part.problem}")

    def go_on(self) -> None:
        """Another process does it to the end, and nothing of what was is seen by what has the ids now."""
        try:
            with engine_on(self.scene.url) as engine:
                act(self.scene, engine, self.words.append)
                for run_id in IDS:
                    self._check_new(engine, run_id)
                self._verify(engine.store)
                size = engine.size()
                if (size.runs, size.events) != ({"suspended": 3}, 9):
                    self.wrong.append(f"three new runs of three events each are counted as {size}")
                for run_id in IDS:
                    if engine.resume(run_id, "go", id="once").unwrap() != "new":
                        self.wrong.append(f"a new run came to {engine.get(run_id)}")
        except Exception:
            self.wrong.append("the store can't be used: " + " | ".join(traceback.format_exc().splitlines()[-4:]))
        if self.scene.kind == "jsonl":
            mine = re.compile(r"[^.]+\.(0\.jsonl|0\.jsonl\.torn|head\.json|fence)")
            files = [path for path in (self.scene.folder / "runs").iterdir() if path.is_file()]
            left = [path.name for path in files if not mine.fullmatch(path.name) or b'"old"' in path.read_bytes()]
            if left:
                self.wrong.append(f"files of what was removed are left: {left}")

    def _check_new(self, engine: Engine, run_id: str) -> None:
        name, old = IDS.index(run_id), self.scene.before[run_id]
        history = engine.history(run_id)
        sessions = {event.session for event in history}
        lines = histories_of(engine.store, run_id)
        record = engine.get(run_id)
        if [event.kind for event in history] != ["start", "step", "suspend"] or record.attempts != 1 or record.tags:
            self.wrong.append(f"new run {name} is not new: {record}, {history}")
        if any(b'"old"' in line for line in lines[0]):
            self.wrong.append(f"new run {name} has events of the old one: {lines}")
        if min(sessions) <= old.fence:
            self.wrong.append(f"new run {name} has session {min(sessions)}; the old one had {old.fence}")
        begun = [int(word.split()[2]) for word in self.words if word.startswith(f"began {name} ")]
        if len(set(begun)) > 1:
            self.wrong.append(f"new run {name} was begun several times, in sessions {begun}")


def tell(scene: Scene, points: list[Point], report: Report) -> bool:
    """Play one story and report of it; whether its first process was killed."""
    scene.begin()
    judge, ends, evidence = Judge(scene), list[End](), Evidence()
    for point in points:
        pid, fd = _fork(partial(be, scene, point))
        with os.fdopen(fd, "rb") as pipe:
            told = pipe.read()
        ends.append(_end(pid, told, evidence))
        judge.hear(ends[-1])
        if not evidence.violations:
            judge.look()
    judge.go_on()
    judge.counts["kills"] = sum(end.killed for end in ends)
    judge.counts["stories"] = 1
    name = ", then ".join(map(str, points))
    report.add(judge.counts, [f"{name}: {text}" for text in (*evidence.violations, *judge.wrong)])
    return ends[0].killed


def go_through(scene: Scene, report: Report, part: int, parts: int) -> None:
    """Die at every operation, and now and then once more after it."""
    places: tuple[Place, ...] = ("before", "middle", "after")
    for place in places:
        n, fired = 1 + part % parts, True
        while fired:
            first = Point(n, place, CUTS[n % 3])
            fired = tell(scene, [first], report)
            if fired and place != "after" and n % 2:
                tell(scene, [first, Point(1 + n % 19, "before")], report)
            n += parts
            if report.violations and scene.planted:
                return


# ---- bugs that have to be found


def _forgets_the_fence() -> None:
    """Nothing is kept of a run that is removed, so its numbers are given again."""
    jsonl_runs.Runs.raise_fence = lambda *_: None  # type: ignore[method-assign]
    sqlite_rows.BURY = "SELECT ?, ?, ?"


def _in_pieces() -> None:
    """A run is removed piece by piece, with nothing that says so."""
    real = jsonl_runs.Runs.raise_fence

    def raise_fence(self: Any, stem: str, fence: Any) -> None:
        if not fence.deleted:
            real(self, stem, fence)

    def delete(self: Any, run_id: str, incarnation: int, *, fence: int | None = None) -> bool:
        head = self.head(run_id)
        self._database.write(lambda db: db.execute(sqlite_rows.BURY, (run_id, head.fence, head.head.created)))
        for statement in sqlite_rows.DELETE:
            self._database.write(lambda db, statement=statement: db.execute(statement, (run_id,)))
        return True

    jsonl_runs.Runs.raise_fence = raise_fence  # type: ignore[method-assign]
    sqlite.SqliteStore.delete = delete  # type: ignore[method-assign]


PLANTS: dict[str, Callable[[], None]] = {
    "fence forgotten with its run": _forgets_the_fence,
    "removed in pieces": _in_pieces,
}
"""By name. They hold for the whole process, so only the one that is killed has them."""


def plant(name: str | None) -> None:
    """Put a bug into this process, if one is named."""
    if name is not None:
        PLANTS[name]()


def main(argv: list[str] | None = None) -> int:
    """Run the harness; see the module."""
    parser = argparse.ArgumentParser(prog="removals", description=__doc__, allow_abbrev=False)
    parser.add_argument("--store", choices=("jsonl", "sqlite"), default="jsonl")
    parser.add_argument("--vacuum", action="store_true", help="give space back too")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="a bug that is to be found; stops when it is")
    parser.add_argument("--part", type=int, default=0, help="every PARTS-th operation, from it")
    parser.add_argument("--parts", type=int, default=1)
    args = parser.parse_args(argv)
    report = Report("removals", args.store, "fdatasync" if args.store == "jsonl" else "FULL", 0, args.plant)
    if args.store == "sqlite":
        report.skipped = sqlite_vfs.missing()
    if report.skipped is None:
        with memory_folder() as base:
            scene = Scene(args.store, base, args.vacuum, args.plant)
            scene.fill()
            gc.collect()
            gc.freeze()  # so that children share what the parent has, and collect nothing of it
            go_through(scene, report, args.part, args.parts)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
