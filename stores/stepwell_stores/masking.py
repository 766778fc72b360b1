"""Passwords in URLs: kept out of what is shown, and told from the rest where a URL can be read in two ways."""

from __future__ import annotations

import re

from stepwell.errors import StoreMisconfiguredError

__all__ = ["check_authority", "masked"]

_WORD = re.compile(r"(?i)([?&][^=&]*(?:passw|secret|token|key)[^=&]*)=[^&]*")
_BEFORE_AT = re.compile(r"(://[^:/?#@]*):.*@", re.DOTALL)
# `://user:password/...`: what stands where a port would is none, and no address of IPv6
_NO_PORT = re.compile(r"(://(?!\[)[^:/?#@]*):(?![0-9]*(?:[,/?#]|\Z))[^/?#]*")


def masked(url: str) -> str:
    """A URL as it may be shown: without a password.

    Example:
        >>> masked("postgresql://ada:secret@db/runs")
        'postgresql://ada:***@db/runs'
    """
    shown, found = _BEFORE_AT.subn(r"\1:***@", url, count=1)
    if not found:
        shown = _NO_PORT.sub(r"\1:***", url, count=1)
    return _WORD.sub(r"\1=***", shown)


def check_authority(url: str) -> None:
    """Refuse a URL whose password ends it early, before a part of that password is taken for a port or a name.

    Raises:
        StoreMisconfiguredError: the text repeats nothing of the URL.
    """
    _, _, rest = url.partition("://")
    authority = re.match(r"[^/?#]*", rest)
    assert authority is not None  # it may be empty
    path = rest[authority.end() :].partition("?")[0] if rest[authority.end() :][:1] == "/" else rest[authority.end() :]
    if _NO_PORT.match(f"://{authority[0].rpartition('@')[2]}") or ("@" not in authority[0] and "@" in path):
        scheme = url.partition("://")[0]
        raise StoreMisconfiguredError(
            f"{scheme}: what comes behind the host and ':' is no port; write '/', '?', '#', '@', ':' and '%' in a "
            "password, and '@' in a name, as %2F, %3F, %23, %40, %3A and %25"
        )
