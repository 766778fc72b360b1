"""Where a harness keeps its runs: in a folder of its own, or on a server that it starts and all workers share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["ON_SERVERS", "place_of", "serving"]

ON_SERVERS = ("redis",)
"""Stores that need a server."""

_urls: dict[str, Callable[[str], str]] = {}


@contextlib.contextmanager
def serving(store: str) -> Iterator[None]:
    """Have the server of this kind of store running, if it needs one."""
    if store not in ON_SERVERS:
        yield
        return
    from tests.servers.valkey import valkey

    with valkey() as server:
        _urls[store] = lambda name: server.url(prefix=name)
        yield


def place_of(store: str, folder: Path) -> str:
    """The URL of the store that belongs to a folder."""
    if store == "jsonl":
        return f"file:{folder}/runs"
    return f"sqlite:///{folder}/runs.db" if store == "sqlite" else _urls[store](folder.name)
