"""Children: a program's first run, with all that has to be imported for it."""

from __future__ import annotations

import sys
import time

from stepwell import Engine, Flow, Step, workflow

from .probes import SCHEMES, setting

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
    """The first run of three steps in a new place, when it was finished, and how durable it is."""
    place, store = sys.argv[1:]
    with Engine(place if store in SCHEMES else f"sqlite:///{place}/runs.db", workflows=[three]) as engine:
        assert engine.start(three).unwrap() == 3
        print(time.monotonic())
        if store in SCHEMES:
            from .server_probes import setting_of

            print(setting_of(place))
        else:
            found = engine.store.durability.settings
            print(setting(found["journal_mode"], found["synchronous"]))
