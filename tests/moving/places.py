"""Where the stores are that runs move between: in a folder, or on servers that are started for it."""

from __future__ import annotations

import os
import uuid
from base64 import b64encode
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

__all__ = ["BETWEEN_SERVERS", "CAN_BE_KILLED", "SERVERS", "STORES", "Places", "bury", "serving"]

STORES = ("memory", "file", "sqlite", "postgres", "redis", "s3")
"""All stores that bring their own bytes somewhere."""

SERVERS = ("postgres", "redis", "s3")

BETWEEN_SERVERS = [way for kind in SERVERS for way in ((kind, "sqlite"), ("file", kind))]
"""To each server and away from it, for tests that take longer."""

CAN_BE_KILLED = ("file", "sqlite", "postgres", "redis", "s3", "encrypted", "wrapped")
"""What still is there when a process was killed: these may be given to `python -m tests.moving`."""


class Places:
    """Names places for stores of any kind.

    Args:
        folder: of those that need no server.
        servers: by kind; what has to be in the environment is there.
    """

    def __init__(self, folder: Path, servers: dict[str, Any]) -> None:
        self.folder, self._servers = folder, servers

    def url(self, kind: str, name: str) -> str:
        """The URL of a store that nobody else has."""
        folder = self.folder
        match kind:
            case "memory":
                return "memory:"
            case "file":
                return f"file:{folder}/{name}"
            case "sqlite":
                return f"sqlite:///{folder}/{name}.db"
            case "encrypted":
                return f"encrypted+sqlite:///{folder}/{name}.db"
            case "wrapped":
                blobs = f"blobs={folder}/{name}-blobs&above=100&threshold=300"
                return f"compressed+encrypted+offloaded+sqlite:///{folder}/{name}.db?{blobs}"
            case "postgres":
                return str(self._servers[kind].url("postgres", schema=f"s{uuid.uuid4().hex}"))
            case "redis":
                return str(self._servers[kind].url(prefix=uuid.uuid4().hex))
            case "s3":
                return str(self._servers[kind].url())
            case _:
                raise ValueError(f"no such store: {kind}")


@contextmanager
def serving(kinds: Iterable[str], folder: Path) -> Iterator[Places]:
    """Have the servers running that stores of these kinds need."""
    from tests.servers.postgres import postgres
    from tests.servers.s3 import s3
    from tests.servers.valkey import valkey

    starts: dict[str, Any] = {"postgres": postgres, "redis": valkey, "s3": s3}
    with ExitStack() as stack:
        wanted = sorted(set(kinds) & set(starts))
        servers = {kind: stack.enter_context(starts[kind]()) for kind in wanted}
        if "s3" in servers:
            os.environ.update(servers["s3"].environment)
        os.environ.setdefault("STEPWELL_KEYS", f"k1:{b64encode(bytes(range(32))).decode()}")
        yield Places(folder, servers)


def bury(store: Any) -> None:
    """End the leases of movers that were killed, as their time would: a server does not see that they died."""
    from stepwell.store import HeadFilter, Lease

    for held in store.heads(HeadFilter(status="running"), limit=1000):
        store.release(Lease(held.run_id, held.incarnation, held.fence, held.seq, "", 0))
