"""What can be counted from outside: durable writes, bytes on disk, memory. Only the standard library."""

from __future__ import annotations

import os
import sqlite3
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

SCHEMES = {"postgres": "postgresql", "redis": "redis", "s3": "s3"}
"""How URLs of the stores begin that need a server."""

__all__ = ["SCHEMES", "Syncs", "asked", "commits", "pause", "peak_memory", "setting", "settled"]


def setting(journal_mode: str, synchronous: int) -> str:
    """What a SQLite connection reads back of its durability, in a few words."""
    return f"{journal_mode.upper()}, synchronous={('OFF', 'NORMAL', 'FULL', 'EXTRA')[synchronous]}"


def asked(db: sqlite3.Connection) -> str:
    """`setting` of a connection."""
    mode, synchronous = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous"))
    return setting(mode, synchronous)


def peak_memory() -> float:
    """Megabytes that this process has had in memory at most.

    Not `ru_maxrss` where there is a better number: that of a child begins with what its parent had.
    """
    try:
        for line in Path("/proc/self/status").read_text("ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def settled(directory: str) -> int:
    """Bytes of all files below a directory, each SQLite log written into its database first."""
    for path in Path(directory).rglob("*-wal"):
        with sqlite3.connect(str(path).removesuffix("-wal"), isolation_level=None) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        db.close()
    return sum(path.stat().st_size for path in Path(directory).rglob("*") if path.is_file())


def commits(database: str) -> tuple[int, int]:
    """How many transactions were committed to a SQLite file: (generation, number).

    In WAL mode the frames of the log that end a transaction are counted, and the generation changes when the log
    begins anew; else it is the change counter in the file's header. Two numbers of one generation may be subtracted.
    """
    header = Path(database).read_bytes()[:100]
    if header[18] != 2:
        return -1, int(struct.unpack(">I", header[24:28])[0])
    log = Path(f"{database}-wal").read_bytes()
    if not log:
        return 0, 0
    page, _, *salts = struct.unpack(">IIII", log[8:24])
    found = 0
    for at in range(32, len(log) - 24 - page + 1, 24 + page):
        _, ends, *own = struct.unpack(">IIII", log[at : at + 16])
        if own != salts:
            break
        found += ends != 0
    return int(salts[0]), found


class Syncs:
    """Counts the durable writes that Python code of this process makes: `fdatasync` and `fsync`."""

    def __init__(self) -> None:
        self.count = 0
        self._real = {name: getattr(os, name) for name in ("fdatasync", "fsync") if hasattr(os, name)}

    def __enter__(self) -> Self:
        for name, real in self._real.items():

            def counted(fd: int, real: Callable[[int], Any] = real) -> None:
                self.count += 1
                real(fd)

            setattr(os, name, counted)
        return self

    def __exit__(self, *_: object) -> None:
        for name, real in self._real.items():
            setattr(os, name, real)


def pause(seconds: float) -> None:
    """Let another thread work before something is looked at again."""
    threading.Event().wait(seconds)
