"""Store URLs: the schemes that come with stepwell, and those that other packages make known."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from stepwell.errors import StoreMisconfiguredError
from stepwell.store import Store

from .rules import Clock
from .wrapped_urls import WRAPPERS, open_wrapped

__all__ = ["GROUP", "open_store"]

GROUP = "stepwell.stores"
"""The entry points by which another package makes the scheme of its store known.

Each is named like its scheme, and is called as `maker(url, must_exist=, clock=)`: the whole URL, and the two arguments
of `open_store`. It gives a store, and raises StoreMisconfiguredError for a URL that names none.
"""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)


def open_store(url: str, *, must_exist: bool = False, clock: Clock | None = None) -> Store:
    """Make the store that a URL names. Nothing is opened, read or written before its first use.

    Args:
        url: `memory:`; `file:DIR`, a directory of JSONL files; `sqlite:///relative.db` or `sqlite:////absolute.db`.
            `postgresql://user:password@host/database`, with options of its own, which `PostgresStore` tells;
            `redis://host:6379/0?prefix=NAME` (also `rediss://`, `unix:///path?db=0`), a Redis or Valkey server;
            `s3://BUCKET/PREFIX`, a bucket that the `AWS_...` variables of the environment lead to, with `region=`,
            `endpoint=`, `poll=` and `keep_deleted=` (seconds).
            Options follow a `?`, with `&` between them: `sync=off` (`file:`) and `sync=normal` (`sqlite:`) are faster,
            and a power cut loses what was acknowledged last; `network=allow` takes a network file system; `mode=ro`
            (`sqlite:`) writes nothing, not even to open the file, and refuses every write, as for a backup.
            `compressed+`, `encrypted+` and `offloaded+` before it put stores around the store, the outermost first; the
            keys come from `STEPWELL_KEYS` or `STEPWELL_KEY_FILE`, and `?blobs=` says where large payloads are.
        must_exist: refuse, at first use, to create a store where there is none.
        clock: gives microseconds since 1970, for the leases of tests; None is this machine's clock.

    Returns:
        A store; close it after use.

    Raises:
        StoreMisconfiguredError: no such scheme, no path, or no such option; the text says what to write instead.

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
    if maker is not None:
        return maker(rest, must_exist, clock)
    wrapper, plus, others = scheme.partition("+")
    if plus and wrapper in WRAPPERS:
        inner = f"{others}:{rest}"
        return open_wrapped(wrapper, inner, lambda one: open_store(one, must_exist=must_exist, clock=clock))
    return _third_party(scheme, url, must_exist, clock)


def _third_party(scheme: str, url: str, must_exist: bool, clock: Clock | None) -> Store:
    """A store of another package, which names it by its scheme in the entry point group `stepwell.stores`."""
    from importlib.metadata import entry_points

    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if scheme not in found:
        # The rest of the URL may hold a password, so the text doesn't.
        known = ", ".join(f"{name}:" for name in (*_MAKERS, *sorted(found)))
        _refuse(f"unknown store scheme {scheme!r}", f"known are {known}")
    try:
        maker = found[scheme].load()
    except Exception as e:  # noqa: BLE001 - it is the code of another package
        what = f"{found[scheme].value}, which the scheme {scheme!r} stands for, can't be imported"
        _refuse(f"{what}: {type(e).__name__}: {e}", "repair or remove its package", e)
    store: Store = maker(url, must_exist=must_exist, clock=clock)
    return store


def _memory(rest: str, must_exist: bool, clock: Clock | None) -> Store:
    from .memory import MemoryStore

    if rest.strip("/"):
        _refuse(f"memory: takes no path, got {rest!r}", "write 'memory:'")
    if must_exist:
        _refuse("no store at memory:", "a memory store is empty in every process; name a file: or sqlite: store")
    return MemoryStore(clock=clock)


def _file(rest: str, must_exist: bool, clock: Clock | None) -> Store:
    from .jsonl import JsonlStore

    path, options = _options("file", rest, {"sync": ("full", "off")})
    path = path[2:] if path.startswith("///") else path
    if not path or path.startswith("//"):
        _refuse(f"file: needs the path of a directory, got 'file:{rest}'", "write 'file:runs' or 'file:/var/lib/runs'")
    return JsonlStore(path, must_exist=must_exist, clock=clock, **options)


def _sqlite(rest: str, must_exist: bool, clock: Clock | None) -> Store:
    from .sqlite import SqliteStore

    whole, options = _options("sqlite", rest, {"sync": ("full", "normal"), "mode": ("rw", "ro")})
    options["read_only"] = options.pop("mode", "rw") == "ro"
    path = whole[3:]
    if path == ":memory:" or whole == ":memory:":
        _refuse("a SQLite database in memory has no history to come back to", "write 'memory:'")
    if not whole.startswith("///") or not path:
        _refuse(
            f"sqlite: needs three slashes and a path, got 'sqlite:{rest}'",
            "write 'sqlite:///relative.db' or 'sqlite:////absolute/path.db'",
        )
    return SqliteStore(path, must_exist=must_exist, clock=clock, **options)


def _postgres(rest: str, must_exist: bool, clock: Clock | None) -> Store:
    from .postgres import PostgresStore

    if not rest.startswith("//"):
        _refuse("postgresql: needs two slashes and a server", "write 'postgresql://user@host:5432/database'")
    return PostgresStore(f"postgresql:{rest}", must_exist=must_exist, clock=clock)


def _redis(scheme: str, rest: str, must_exist: bool, clock: Clock | None) -> Store:
    from .redis import RedisStore

    return RedisStore(f"{scheme}:{rest}", must_exist=must_exist, clock=clock)


def _s3(rest: str, must_exist: bool, clock: Clock | None) -> Store:
    from .s3.url import from_url

    return from_url(rest, must_exist, clock)


def _options(scheme: str, rest: str, special: dict[str, tuple[str, ...]]) -> tuple[str, dict[str, Any]]:
    """The path of a URL, and its options as arguments of the store; `special` are those of this kind of store."""
    known = {**special, "network": ("refuse", "allow")}
    path, _, text = rest.partition("?")
    given: dict[str, str] = {}
    for part in text.split("&") if text else ():
        name, _, value = part.partition("=")
        if value not in known.get(name, ()) or name in given:
            _refuse(
                f"{scheme}: has no option {part!r}" if name not in given else f"{scheme}: {name} is given twice",
                "known are " + ", ".join(f"{n}={v}" for n, values in known.items() for v in values),
            )
        given[name] = value
    return path, {**given, "sync": given.get("sync", "full"), "network": given.get("network") == "allow"}


def _refuse(problem: str, remedy: str, cause: BaseException | None = None) -> NoReturn:
    raise StoreMisconfiguredError(f"{problem}; {remedy}") from cause


_MAKERS: dict[str, Callable[[str, bool, Clock | None], Store]] = {
    "memory": _memory,
    "file": _file,
    "sqlite": _sqlite,
    "postgresql": _postgres,
    "postgres": _postgres,
    "redis": partial(_redis, "redis"),
    "rediss": partial(_redis, "rediss"),
    "unix": partial(_redis, "unix"),
    "s3": _s3,
}
