"""Children: one run on a store with a wrapper around it, or with none."""

from __future__ import annotations

import time
from typing import Any

from stepwell import Engine, Flow, Step, workflow
from stepwell.store import Store
from stepwell_stores.sqlite import SqliteStore
from stepwell_stores.wrapping import CompressedStore, EncryptedStore, OffloadingStore

from .flows import durability_of
from .probes import settled

__all__ = ["run"]

SENTENCE = "The quick brown fox jumps over the lazy dog, and number {} is none of its business. "


def text(number: int, size: int) -> str:
    """Text as people write it, more or less."""
    parts = (SENTENCE.format(number + place) for place in range(size // len(SENTENCE) + 1))
    return "".join(parts)[:size]


@workflow
def texts(count: int, size: int) -> Flow[int]:
    """Steps with results of some size."""
    for number in range(count):
        yield from Step(text, number, size)
    return count


def wrapped(wrapper: str, directory: str) -> Store:
    """A SQLite file, with a wrapper."""
    store = SqliteStore(f"{directory}/runs.db")
    match wrapper:
        case "encrypted":
            return EncryptedStore(store, {"k1": bytes(range(32))})
        case "compressed":
            return CompressedStore(store)
        case "offloaded":
            return OffloadingStore(store, f"{directory}/blobs", threshold=10_000)
        case _:
            return store


def run(directory: str, wrapper: str, count: int, size: int) -> dict[str, Any]:
    """One run of `count` steps with results of `size` characters.

    Returns:
        us: microseconds a step. read: microseconds to read an event back. bytes: on the disk, a step.
    """
    with Engine(wrapped(wrapper, directory), [texts]) as engine:
        engine.start(texts, 3, size, run_id="warm").unwrap()
    before = settled(directory)
    with Engine(wrapped(wrapper, directory), [texts]) as engine:
        engine.start(texts, 3, size, run_id="warmer").unwrap()
        began = time.perf_counter()
        engine.start(texts, count, size, run_id="run").unwrap()
        seconds = time.perf_counter() - began
        durability = durability_of(engine, "sqlite", directory)
    bytes_of_a_step = (settled(directory) - before) / (count + 3)
    with Engine(wrapped(wrapper, directory), [texts]) as engine:
        engine.history("warm")
        began = time.perf_counter()
        events = len(engine.history("run"))
        read = time.perf_counter() - began
    spent = {"us": seconds * 1e6 / count, "read": read * 1e6 / events, "bytes": bytes_of_a_step}
    return spent | {"durability": durability}
