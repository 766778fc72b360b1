"""Children: a program's first run, with all that has to be imported for it."""

from __future__ import annotations

import sys
import time

from stepwell import Engine, Flow, Step, workflow

from .probes import setting

__all__ = ["first_run"]


def same(number: int) -> int:
    return number


@workflow
def three() -> Flow[int]:
    total = 0
    for number in range(3):
        total += yield from Step(same, number)
    return total


def first_run() -> None:
    """The first run of three steps on a new SQLite file, when it was finished, and how durable it is."""
    with Engine(f"sqlite:///{sys.argv[1]}/runs.db", workflows=[three]) as engine:
        assert engine.start(three).unwrap() == 3
        print(time.monotonic())
        found = engine.store.durability.settings
        print(setting(found["journal_mode"], found["synchronous"]))
