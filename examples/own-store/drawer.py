"""Makes the scheme `drawer:` known: `Engine("drawer:runs.bin")`."""

from __future__ import annotations

from pathlib import Path

from one_file import OneFileStore

from stepwell.errors import StoreMisconfiguredError
from stepwell_stores.rules import Clock


def open_drawer(url: str, *, must_exist: bool = False, clock: Clock | None = None) -> OneFileStore:
    """The store of a URL; the entry point `drawer` in pyproject.toml names this function."""
    path = url.partition(":")[2]
    if not path:
        raise StoreMisconfiguredError(f"{url} names no file; write 'drawer:runs.bin'")
    if must_exist and not Path(path).exists():
        raise StoreMisconfiguredError(f"no store at {path}; check the path, or start a run to make one")
    return OneFileStore(path, clock=clock)
