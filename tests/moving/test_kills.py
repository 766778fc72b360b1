"""Whoever moves runs may be killed anywhere: no run is in both stores, none is lost, and the same again goes on."""

from __future__ import annotations

import random
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stepwell.testing.contract import ManualClock
from stepwell_stores import open_store
from stepwell_stores.memory import MemoryStore

from .killing import PROGRAM, Fuse, Fused, Killed, die, whereabouts
from .places import BETWEEN_SERVERS, SERVERS, Places, bury
from .zoo import KINDS, engine_on, fill, finish, heads, judge, picture, refuses, same


def killed_at(source: Any, target: Any, at: int) -> Fuse:
    """Move runs, and be killed."""
    fuse = Fuse(at, die)
    try:
        engine_on(Fused(source, fuse)).migrate(Fused(target, fuse))
    except Killed:
        assert fuse.burnt
    return fuse


def test_killed_at_any_call_and_moved_again(tmp_path: Path) -> None:
    """Every call of a move of runs of all kinds, each before it and after it; and what is there meanwhile works."""
    found: Counter[str] = Counter()
    at = 0
    while True:
        clock, log = ManualClock(), tmp_path / f"log{at}"
        source, target = MemoryStore(clock=clock), MemoryStore(clock=clock)
        fill(source, log, KINDS)
        before = picture(source)
        fuse = killed_at(source, target, at)
        if not fuse.burnt:
            break
        clock.advance(1000)  # the leases of the dead are over
        places = {run_id: whereabouts(source, target, run_id) for run_id in before}
        found.update(places.values())
        assert list(places.values()).count("between") <= 1
        moved = engine_on(source).migrate(target)
        assert {} == moved.kept
        same(before, picture(target))
        at += 11
    assert min(found[place] for place in ("source", "target", "between")) >= 2
    assert at > 400


def test_whoever_is_left_on_the_source_goes_on_there(tmp_path: Path) -> None:
    """A move that nobody ends: both stores are worked with, each with what it has, and no step is called twice."""
    for at in random.Random(4).sample(range(460), 12):
        clock, log = ManualClock(), tmp_path / f"log{at}"
        source, target = MemoryStore(clock=clock), MemoryStore(clock=clock)
        fill(source, log, KINDS)
        before = picture(source)
        killed_at(source, target, at)
        clock.advance(1000)
        for store in (source, target):
            engine_on(store, late=True).run_due()
            for run in list(heads(store)):
                for wait in run.head.waiting:
                    engine_on(store).signal(run.run_id, wait.signal, "late", wait=wait.wait)
            engine_on(store, late=True).run_due()
        clock.advance(1000)
        assert {} == engine_on(source).migrate(target).kept
        assert len(before) == len(list(heads(target)))
        finish(target)
        judge(log, target)


WAYS = [("sqlite", "file"), ("file", "sqlite"), *BETWEEN_SERVERS]


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_killed_twenty_times_by_the_kernel(
    way: tuple[str, str], places: Places, tmp_path: Path, python: Callable[..., subprocess.Popen[str]]
) -> None:
    """One move of many runs, whose process is killed at twenty calls, one after the other."""
    urls = [places.url(kind, name) for kind, name in zip(way, ("from", "to"), strict=True)]
    source, target = map(open_store, urls)
    log, chance = tmp_path / "log", random.Random(7)
    fill(source, log, KINDS)
    before = picture(source)
    process = python(PROGRAM, *urls)
    assert process.stdin is not None
    assert process.stdout is not None
    ends, found = list[int](), Counter[str]()
    for number in range(21):
        if way[0] in SERVERS:
            bury(source)
        process.stdin.write(f"{chance.randrange(10, 45) if number < 20 else 10**9}\n")
        process.stdin.flush()
        ends.append(int(process.stdout.readline()))
        found = Counter(whereabouts(source, target, run_id) for run_id in before)
        assert found["between"] <= 1
    assert [*[-9] * 20, 0] == ends
    assert {"target": len(before)} == found
    same(before, picture(target))
    for store in (source, target):
        assert [] == [part.problem for part in store.verify() if part.problem is not None]
    refuses(source, "r0003")
    finish(target)
    judge(log, target)
    source.close()
    target.close()
