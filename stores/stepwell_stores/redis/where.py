"""Where a Redis server is: the URLs of the Redis store."""

from __future__ import annotations

import contextlib
import re
from typing import Any, Literal, NoReturn
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from attrs import field, frozen

from stepwell.errors import StoreMisconfiguredError

from ..masking import check_authority

__all__ = ["Where", "check_prefix"]

_PREFIX = re.compile(r"[A-Za-z0-9._:@/-]{1,100}")
_KNOWN = "prefix=NAME, evicts=allow, volatile=allow, timeout=SECONDS, ca=FILE (rediss:), db=NUMBER (unix:)"


@frozen
class Where:
    """A server, and what of it is used.

    Attributes:
        name: as it may be shown: without a password.
        options: for the driver's client.
        prefix: of all keys.
        evicts: take a server that may throw keys away.
        volatile: take a server that keeps no file of what it was told.
    """

    name: str
    options: dict[str, Any] = field(repr=False)
    prefix: str = "stepwell"
    evicts: Literal["refuse", "allow"] = "refuse"
    volatile: Literal["refuse", "allow"] = "refuse"

    @classmethod
    def of(cls, url: str) -> Where:
        """Read a URL.

        Raises:
            StoreMisconfiguredError: it names no server; the text says what to write, and holds no password.
        """
        check_authority(url)
        found = _parts_of(url)
        if found is None:  # not as a cause or context: those repeat a part of the URL
            _refuse(
                "a part of the URL can't be read", "write '#', '@', '/' and ':' in a password as %23, %40, %2F, %3A"
            )
        parts, port, given = found
        scheme, options = parts.scheme.lower(), dict(given)
        if parts.fragment:
            _refuse("a URL of Redis has no part behind a '#'", "write '#' in a password as %23")
        unknown = set(options) - {
            "prefix",
            "evicts",
            "volatile",
            "timeout",
            "ca" if scheme == "rediss" else "",
            "db" * (scheme == "unix"),
        }
        if unknown or len(given) > len(options):
            _refuse(
                f"{scheme}: has no option {min(unknown)!r}" if unknown else "an option is given twice",
                f"known are {_KNOWN}",
            )
        for name in ("evicts", "volatile"):
            if options.get(name, "allow") != "allow":
                _refuse(f"{name}={options[name]!r} is unknown", f"write {name}=allow, or leave it out")
        prefix = check_prefix(options.get("prefix", "stepwell"))
        driver: dict[str, Any] = {"socket_timeout": _seconds(options.get("timeout", "10"))}
        driver["socket_connect_timeout"] = min(5.0, driver["socket_timeout"])
        for name, value in (("username", parts.username), ("password", parts.password)):
            if value:
                driver[name] = unquote(value)
        if scheme == "unix":
            if not parts.path.strip("/") or parts.hostname:
                _refuse("unix: needs the path of a socket", "write 'unix:///run/redis/redis.sock?db=0'")
            driver |= {"unix_socket_path": unquote(parts.path), "db": _database(options.get("db", "0"))}
            name = f"unix://{parts.path}, database {driver['db']}"
        else:
            if not parts.hostname:
                _refuse(f"{scheme}: needs a host", f"write '{scheme}://localhost:6379/0'")
            driver |= {"host": parts.hostname, "port": port or 6379, "db": _database(parts.path.strip("/") or "0")}
            if scheme == "rediss":
                driver |= {"ssl": True, **({"ssl_ca_certs": options["ca"]} if "ca" in options else {})}
            name = f"{scheme}://{parts.hostname}:{driver['port']}/{driver['db']}"
        willing = _allowed("evicts" in options), _allowed("volatile" in options)
        return cls(f"{name}, prefix {prefix!r}", driver, prefix, *willing)


def _parts_of(url: str) -> tuple[SplitResult, int | None, list[tuple[str, str]]] | None:
    """The parts of a URL, its port, and its options; None when it is none."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        return parts, parts.port, parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    return None


def _allowed(said: bool) -> Literal["refuse", "allow"]:
    return "allow" if said else "refuse"


def check_prefix(prefix: str) -> str:
    """A prefix that can be a part of keys, as it is."""
    if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
        _refuse(f"prefix {prefix!r} can't be a part of keys", "write 1 to 100 characters of A-Za-z0-9._:@/-")
    return prefix


def _database(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text):
        _refuse(f"{text!r} is no number of a database", "write 'redis://localhost:6379/0'")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= 3600:
        _refuse(f"timeout={text!r} is no number of seconds", "write timeout=10")
    return seconds


def _refuse(problem: str, remedy: str) -> NoReturn:
    raise StoreMisconfiguredError(f"{problem}; {remedy}") from None
