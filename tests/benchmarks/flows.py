"""The workflows that are measured, and the stores that they are measured on. Runs in children."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from stepwell import Engine, Flow, Signal, Step, Suspend, workflow

from .probes import setting

__all__ = ["RECORDED", "WORKFLOWS", "Finding", "durability_of", "engine_on", "go", "path_of", "steps"]


@frozen
class Finding:
    """A result with a shape."""

    name: str
    score: float
    seen: int


def same(number: int) -> int:
    return number


def as_dict(number: int) -> dict[str, int]:
    return {"number": number, "seen": 1}


def as_attrs(number: int) -> Finding:
    return Finding("finding", 0.5, number)


go = Signal("go", int)


@workflow
def steps(count: int) -> Flow[int]:
    """Steps one after another, and nothing else."""
    for number in range(count):
        yield from Step(same, number)
    return count


@workflow
def recorded_int(count: int) -> Flow[int]:
    for number in range(count):
        yield from Step(same, number)
    return (yield from Suspend(go))


@workflow
def recorded_dict(count: int) -> Flow[int]:
    for number in range(count):
        yield from Step(as_dict, number)
    return (yield from Suspend(go))


@workflow
def recorded_attrs(count: int) -> Flow[int]:
    for number in range(count):
        yield from Step(as_attrs, number)
    return (yield from Suspend(go))


@workflow
def asking(count: int) -> Flow[int]:
    """Steps, and then one question after another."""
    for number in range(count):
        yield from Step(same, number)
    total = 0
    while True:
        total += yield from Suspend(go)


RECORDED = {"int": recorded_int, "dict": recorded_dict, "attrs": recorded_attrs}
WORKFLOWS = (steps, asking, *RECORDED.values())


def path_of(store: str, directory: str) -> str:
    """The file or directory of a store."""
    return {"sqlite": f"{directory}/runs.db", "jsonl": f"{directory}/runs", "memory": ""}[store]


def engine_on(store: str, directory: str, *, sync: bool = True) -> Engine:
    """An engine with all of these workflows; not `sync` is for what is only filled, and measured later."""
    path = path_of(store, directory)
    option = "" if sync else {"sqlite": "?sync=normal", "jsonl": "?sync=off", "memory": ""}[store]
    url = {"sqlite": f"sqlite:///{path}", "jsonl": f"file:{path}", "memory": "memory:"}[store]
    return Engine(url + option, workflows=WORKFLOWS)


def durability_of(engine: Engine) -> str:
    """The settings of the store as it reads them back, in a few words."""
    settings: dict[str, Any] = dict(engine.store.durability.settings)
    if settings["store"] == "sqlite":
        return setting(settings["journal_mode"], settings["synchronous"])
    return "none" if settings["store"] == "memory" else str(settings["sync"])
