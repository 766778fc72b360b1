"""Where a harness keeps its runs: in a folder of its own, or on a server that it starts and all workers share.

The harnesses fork, and not every driver lives on in a fork of a process that has used it. So the process that forks
uses none itself: the server is started by a program of its own, and what has to be looked up is looked up `apart`.

    python -m tests.crash.places postgres       # start a server, tell where it is, end it after a line of input
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pickle
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["ON_SERVERS", "apart", "place_of", "serving"]

T = TypeVar("T")

ROOT = Path(__file__).parents[2]

_DRIVERS = {"postgres": ("psycopg",), "redis": ("redis",), "s3": ("obstore", "obstore.exceptions", "obstore.store")}
ON_SERVERS = tuple(_DRIVERS)
"""Stores that need a server."""

_urls: dict[str, str] = {}


@contextlib.contextmanager
def serving(store: str) -> Iterator[None]:
    """Have the server of this kind of store running, if it needs one."""
    if store not in ON_SERVERS:
        yield
        return
    path = os.pathsep.join([str(ROOT), *(entry for entry in sys.path if entry)])
    command = [sys.executable, "-m", "tests.crash.places", store]
    environment = {**os.environ, "PYTHONPATH": path}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as keeper:
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        said = keeper.stdout.readline()
        if not said:
            raise RuntimeError(f"no server for a {store} store")
        told = json.loads(said)
        _urls[store] = told["url"]
        os.environ.update(told["environment"])
        for module in (f"stepwell_stores.{store}", f"stepwell_stores.{store}.url", *_DRIVERS[store]):
            with contextlib.suppress(ModuleNotFoundError):
                importlib.import_module(module)  # once, here, and not in every child
        try:
            yield
        finally:
            with contextlib.suppress(BrokenPipeError):  # a line: forked workers may hold the pipe open
                keeper.stdin.write("end\n")
                keeper.stdin.flush()


def place_of(store: str, folder: Path) -> str:
    """The URL of the store that belongs to a folder."""
    if store == "jsonl":
        return f"file:{folder}/runs"
    if store == "sqlite":
        return f"sqlite:///{folder}/runs.db"
    return _urls[store].replace("NAME", re.sub(r"\W", "_", f"in_{folder.parent.name}_{folder.name}"))


def apart(work: Callable[[], T]) -> T:
    """What `work` gives in a forked child, whose end takes along whatever a driver has begun there."""
    out, into = os.pipe()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.close(out)
            try:
                said = pickle.dumps((work(), None))
            except BaseException:
                said = pickle.dumps((None, traceback.format_exc()))
            with os.fdopen(into, "wb") as pipe:
                pipe.write(said)
            code = 0
        finally:
            os._exit(code)
    os.close(into)
    with os.fdopen(out, "rb") as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    answer: tuple[Any, str | None] = pickle.loads(said) if said else (None, "it died")
    if answer[1] is not None:
        raise RuntimeError(f"in a child: {answer[1]}")
    found: T = answer[0]
    return found


@contextlib.contextmanager
def _server(store: str) -> Iterator[dict[str, Any]]:
    """A server, and the URL of a store there with NAME for its name."""
    if store == "postgres":
        from tests.servers.postgres import postgres

        with postgres() as database:
            yield {"url": database.url(schema="NAME", listen="off"), "environment": {}}
    elif store == "redis":
        from tests.servers.valkey import valkey

        with valkey() as keys:
            yield {"url": keys.url(prefix="NAME"), "environment": {}}
    else:
        from tests.servers.s3 import s3

        with s3() as bucket:
            yield {"url": bucket.url("NAME", poll=0.05), "environment": bucket.environment}


def _main() -> None:
    with _server(sys.argv[1]) as where:
        print(json.dumps(where), flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    _main()
