"""The workflows that are measured, and the stores that they are measured on. Runs in children."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from stepwell import Engine, Flow, Signal, Step, Suspend, workflow
from stepwell.loading import DEFAULT_LIMIT

from .probes import SCHEMES, setting, settled

__all__ = [
    "RECORDED",
    "WORKFLOWS",
    "Finding",
    "durability_of",
    "engine_on",
    "go",
    "path_of",
    "size_of",
    "steps",
    "url_of",
]


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
    """The file or directory of a store; on a server, where the place itself is a URL, that."""
    return {"sqlite": f"{directory}/runs.db", "jsonl": f"{directory}/runs", "memory": ""}.get(store, directory)


def url_of(store: str, directory: str, *, sync: bool = True) -> str:
    """The URL of a store; not `sync` is for what is only filled, and measured later. A server decides by itself."""
    path = path_of(store, directory)
    option = "" if sync else {"sqlite": "?sync=normal", "jsonl": "?sync=off"}.get(store, "")
    return {"sqlite": f"sqlite:///{path}", "jsonl": f"file:{path}", "memory": "memory:"}.get(store, path) + option


def engine_on(store: str, directory: str, *, sync: bool = True, events: int = 0) -> Engine:
    """An engine with all of these workflows.

    Args:
        events: how long a history will be: one that is longer than the limit has none.
    """
    limit = DEFAULT_LIMIT if events < DEFAULT_LIMIT.max_events else None
    return Engine(url_of(store, directory, sync=sync), workflows=WORKFLOWS, history_limit=limit)


def durability_of(engine: Engine, store: str, directory: str) -> str:
    """The settings of the store as they are read back, in a few words."""
    settings: dict[str, Any] = dict(engine.store.durability.settings)
    if store == "sqlite":
        return setting(settings["journal_mode"], settings["synchronous"])
    if store in ("memory", "jsonl"):
        return "none" if store == "memory" else str(settings["sync"])
    from .server_probes import setting_of

    return setting_of(directory)


def size_of(store: str, directory: str) -> int:
    """Bytes that the store keeps."""
    if store not in SCHEMES:
        return settled(directory)
    from .server_probes import stored

    return stored(directory)
