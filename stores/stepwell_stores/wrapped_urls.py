"""Stores around a store in a URL: `compressed+encrypted+sqlite:///runs.db`, the outermost first.

The URL says what a store is made of, so that workers, the command line and programs mean the same one. It never holds a
key: URLs end in logs, in the history of a shell and in lists of processes. Keys come from the environment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from stepwell.errors import StoreMisconfiguredError
from stepwell.store import Store

__all__ = ["WRAPPERS", "open_wrapped"]

WRAPPERS = ("compressed", "encrypted", "offloaded")
"""What may stand before the scheme of a URL."""

_OPTIONS: dict[str, dict[str, str]] = {
    "compressed": {"above": "bytes, as above=1024"},
    "encrypted": {"plain": "plain=allow", "tags": "tags=hidden"},
    "offloaded": {"blobs": "a directory or a URL, as blobs=/var/lib/blobs", "threshold": "bytes, as threshold=65536"},
}


def open_wrapped(name: str, url: str, open_url: Callable[[str], Store]) -> Store:
    """The store that `name+url` stands for.

    Raises:
        StoreMisconfiguredError: an option is wrong or missing, there are no keys, or the order makes no sense.
    """
    rest, given = _taken(name, url)
    if name == "compressed":
        from .wrapping.compressed import ABOVE, CompressedStore

        above = _bytes(name, given, "above", 0)
        return CompressedStore(open_url(rest), above=ABOVE if above is None else above)
    if name == "encrypted":
        from .wrapping.encrypted import EncryptedStore
        from .wrapping.keys import KeyRing

        plain, tags = _word(name, given, "plain", "allow"), _word(name, given, "tags", "hidden")
        ring = KeyRing.from_environment()
        return EncryptedStore(open_url(rest), ring, allow_plain=plain, hide_tags=tags)
    from .wrapping.offloading import THRESHOLD, OffloadingStore

    if not given.get("blobs"):
        _refuse("offloaded+ needs the place of the blobs", "write ?blobs=/var/lib/blobs, or ?blobs=s3://bucket/prefix")
    threshold = _bytes(name, given, "threshold", 1)
    return OffloadingStore(open_url(rest), given["blobs"], threshold=threshold or THRESHOLD)


def _taken(name: str, url: str) -> tuple[str, dict[str, str]]:
    """The URL without this wrapper's options, and those."""
    path, mark, text = url.partition("?")
    given: dict[str, str] = {}
    others: list[str] = []
    for part in text.split("&") if mark else ():
        option, _, value = part.partition("=")
        if option not in _OPTIONS[name]:
            others.append(part)
        elif option in given:
            _refuse(f"{name}+: {option} is given twice", "give it once")
        else:
            given[option] = value
    return path + ("?" + "&".join(others) if others else ""), given


def _bytes(name: str, given: dict[str, str], option: str, least: int) -> int | None:
    text = given.get(option)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 16 and int(text) >= least):
        _refuse(f"{name}+: {option}={text!r} is no number of bytes", _known(name))
    return int(text)


def _word(name: str, given: dict[str, str], option: str, word: str) -> bool:
    text = given.get(option)
    if text not in (None, word):
        _refuse(f"{name}+: has no option {option}={text!r}", _known(name))
    return text is not None


def _known(name: str) -> str:
    return "known are " + ", ".join(_OPTIONS[name].values())


def _refuse(problem: str, remedy: str) -> NoReturn:
    raise StoreMisconfiguredError(f"{problem}; {remedy}")
