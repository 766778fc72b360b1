"""Store URLs: `memory:`, `file:DIR`, `sqlite:///PATH`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NoReturn

from stepwell.errors import StoreMisconfiguredError
from stepwell.store import Store

from .rules import Clock

__all__ = ["open_store"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)


def open_store(url: str, *, must_exist: bool = False, clock: Clock | None = None) -> Store:
    """Make the store that a URL names. Nothing is opened, read or written before its first use.

    Args:
        url: `memory:`; `file:DIR`, a directory of JSONL files; `sqlite:///relative.db` or `sqlite:////absolute.db`.
        must_exist: refuse, at first use, to create a store where there is none.
        clock: gives microseconds since 1970, for the leases of tests; None is this machine's clock.

    Returns:
        A store; close it after use.

    Raises:
        StoreMisconfiguredError: no such scheme, or no path; the text says what to write instead.

    Example:
        >>> store = open_store("memory:")
        >>> store.durability.process_crash
        False
        >>> store.close()
    """
    match = _SCHEME.fullmatch(url) if isinstance(url, str) else None
    if match is None:
        _refuse(f"not a store URL: {url!r}", f"for a SQLite file write 'sqlite:///{url}'")
    scheme, rest = match[1].lower(), match[2]
    maker = _MAKERS.get(scheme)
    if maker is None:
        # The rest of the URL may hold a password, so the text doesn't.
        _refuse(f"unknown store scheme {scheme!r}", "known are " + ", ".join(f"{name}:" for name in _MAKERS))
    return maker(rest, must_exist, clock)


def _memory(rest: str, must_exist: bool, clock: Clock | None) -> Store:
    from .memory import MemoryStore

    if rest.strip("/"):
        _refuse(f"memory: takes no path, got {rest!r}", "write 'memory:'")
    if must_exist:
        _refuse("no store at memory:", "a memory store is empty in every process; name a file: or sqlite: store")
    return MemoryStore(clock=clock)


def _file(rest: str, must_exist: bool, clock: Clock | None) -> Store:
    from .jsonl import JsonlStore

    path = rest[2:] if rest.startswith("///") else rest
    if not path or path.startswith("//"):
        _refuse(f"file: needs the path of a directory, got 'file:{rest}'", "write 'file:runs' or 'file:/var/lib/runs'")
    return JsonlStore(path, must_exist=must_exist, clock=clock)


def _sqlite(rest: str, must_exist: bool, clock: Clock | None) -> Store:
    from .sqlite import SqliteStore

    path = rest[3:]
    if path == ":memory:" or rest == ":memory:":
        _refuse("a SQLite database in memory has no history to come back to", "write 'memory:'")
    if not rest.startswith("///") or not path:
        _refuse(
            f"sqlite: needs three slashes and a path, got 'sqlite:{rest}'",
            "write 'sqlite:///relative.db' or 'sqlite:////absolute/path.db'",
        )
    if "?" in path:
        _refuse(
            f"a sqlite: URL takes no options, got '{path[path.index('?') :]}'", "leave out the '?' and what follows"
        )
    return SqliteStore(path, must_exist=must_exist, clock=clock)


def _refuse(problem: str, remedy: str) -> NoReturn:
    raise StoreMisconfiguredError(f"{problem}; {remedy}")


_MAKERS: dict[str, Callable[[str, bool, Clock | None], Store]] = {"memory": _memory, "file": _file, "sqlite": _sqlite}
