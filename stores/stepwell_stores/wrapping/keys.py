"""Keys by which histories are encrypted: several by id, one of them current. None is ever shown, logged or pickled."""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import re
import stat
from collections.abc import Callable, Mapping
from typing import NoReturn

from stepwell.errors import InvalidInputError, StoreMisconfiguredError

__all__ = ["KEYS_VARIABLE", "KEY_FILE_VARIABLE", "Key", "KeyRing"]

KEYS_VARIABLE = "STEPWELL_KEYS"
KEY_FILE_VARIABLE = "STEPWELL_KEY_FILE"

SIZE = 32
"""Bytes of a key: AES-256."""

_ID = re.compile(r"[A-Za-z0-9._-]{1,32}")
_MAKE_ONE = "make one with: openssl rand -base64 32"


class Key:
    """One key of a ring.

    Attributes:
        id: its name.
        label: `id:check`, as records have it. The check tells another key of the same name from this one, and nothing
            of the key: it is the beginning of an HMAC.
    """

    __slots__ = ("_secret", "id", "label")

    def __init__(self, id: str, secret: bytes) -> None:
        if not isinstance(id, str) or not _ID.fullmatch(id):
            raise InvalidInputError(f"a key's id must be 1 to 32 characters of A-Za-z0-9._- , got {id!r}")
        if not isinstance(secret, bytes) or len(secret) != SIZE:
            found = f"{len(secret)} bytes" if isinstance(secret, bytes) else type(secret).__name__
            raise InvalidInputError(f"key {id!r} must be {SIZE} random bytes, got {found}; {_MAKE_ONE}")
        self.id = id
        self._secret = secret
        self.label = f"{id}:{self.derived('check').hex()[:6]}"

    def derived(self, purpose: str, text: str = "") -> bytes:
        """A key of 32 bytes for one purpose alone, by HMAC-SHA-256."""
        return hmac.digest(self._secret, f"stepwell {purpose}\0{text}".encode(), "sha256")

    def __repr__(self) -> str:
        return f"Key({self.id!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key is not pickled: what holds it would have to be kept as secret as the key")


class KeyRing:
    """The keys of an `EncryptedStore`: records are written with the current one and read with any.

    Args:
        keys: by id, each 32 random bytes; or a function that gives them, as from a vault. It is called at first use,
            and again when a record names a key that is not known: another process has rotated then.
        current: the id of the key that is written with; None: the first.

    Raises:
        InvalidInputError: an id or a key is none, there are no keys, or the current one is not among them.

    Example:
        >>> from stepwell_stores.wrapping import KeyRing
        >>> ring = KeyRing({"2025": bytes(32), "2024": bytes(range(32))})
        >>> ring
        KeyRing(current='2025', ids=['2025', '2024'])
    """

    def __init__(
        self, keys: Mapping[str, bytes] | Callable[[], Mapping[str, bytes]], *, current: str | None = None
    ) -> None:
        self._source = keys if callable(keys) else None
        self._wanted = current
        self._keys: dict[str, Key] = {}
        self._current: Key | None = None
        if not callable(keys):
            self._take(keys)

    def _take(self, keys: Mapping[str, bytes]) -> None:
        if not isinstance(keys, Mapping) or not keys:
            raise InvalidInputError(f"a key ring is made of keys by id, one at least, got {type(keys).__name__}")
        found = {name: Key(name, secret) for name, secret in keys.items()}
        wanted = self._wanted if self._wanted is not None else next(iter(found))
        if wanted not in found:
            raise InvalidInputError(f"the current key {wanted!r} is not in the ring, which has {', '.join(found)}")
        self._keys, self._current = found, found[wanted]

    @property
    def current(self) -> Key:
        """The key that is written with."""
        if self._current is None:
            self.refresh()
        assert self._current is not None
        return self._current

    @property
    def keys(self) -> Mapping[str, Key]:
        """All keys by id."""
        if self._current is None:
            self.refresh()
        return self._keys

    def refresh(self) -> None:
        """Ask the function or the file again, when the ring was made from one."""
        if self._source is not None:
            self._take(self._source())

    def find(self, id: str) -> Key | None:
        """The key of an id; None when there is none."""
        found = self.keys.get(id)
        if found is None and self._source is not None:
            self.refresh()
            found = self._keys.get(id)
        return found

    def only_current(self) -> KeyRing:
        """A ring with the current key alone."""
        return KeyRing({self.current.id: self.current._secret})

    def __repr__(self) -> str:
        if self._current is None:
            return "KeyRing(not asked for yet)"
        return f"KeyRing(current={self._current.id!r}, ids={list(self._keys)})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key ring is not pickled: give the other process its keys as you gave them to this one")

    # ---- where keys are kept

    @classmethod
    def parse(cls, text: str, place: str = "the text") -> KeyRing:
        """Read keys as text: `ID:BASE64`, one a line or with commas between; the first one is current.

        What follows a `#` is left out. Errors name the entry by its number and never show it.

        Raises:
            StoreMisconfiguredError: an entry is no key, or there is none.
        """
        return cls(_parsed(text, place))

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> KeyRing:
        """Read keys from a file that only its owner may read (mode 0600); read again when a key is not known.

        Raises:
            StoreMisconfiguredError: it can't be read, others may read it, or it holds no keys.
        """
        ring = cls(lambda: _from_file(os.fspath(path)))
        ring.refresh()
        return ring

    @classmethod
    def from_environment(cls) -> KeyRing:
        """Read keys from `STEPWELL_KEYS`, as text, or from the file that `STEPWELL_KEY_FILE` names.

        Raises:
            StoreMisconfiguredError: neither is set, or it is wrong.
        """
        text, path = os.environ.get(KEYS_VARIABLE), os.environ.get(KEY_FILE_VARIABLE)
        if text:
            return cls.parse(text, KEYS_VARIABLE)
        if path:
            return cls.from_file(path)
        raise StoreMisconfiguredError(
            f"the store is encrypted, and no keys are given: set {KEYS_VARIABLE} to ID:BASE64, or {KEY_FILE_VARIABLE} "
            "to a file of such lines (stepwell: --key-file FILE)"
        )


def _from_file(path: str) -> dict[str, bytes]:
    try:
        with open(path, encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            if os.name == "posix" and stat.S_ISREG(mode) and mode & 0o077:
                raise StoreMisconfiguredError(f"{path}: others may read the keys in it; chmod 600 {path}")
            text = file.read(1 << 16)
    except OSError as e:
        raise StoreMisconfiguredError(f"{path}: the keys can't be read: {e.strerror}") from None
    except UnicodeDecodeError:
        raise StoreMisconfiguredError(f"{path}: is no file of keys, which has lines such as k1:BASE64") from None
    return _parsed(text, path)


def _parsed(text: str, where: str) -> dict[str, bytes]:
    keys: dict[str, bytes] = {}
    lines = (line.partition("#")[0] for line in text.splitlines())
    entries = [entry.strip() for line in lines for entry in line.split(",") if entry.strip()]
    for number, entry in enumerate(entries, 1):
        name, colon, secret = entry.partition(":")
        name = name.strip()
        what = f"{where}: entry {number}"
        if not colon or not _ID.fullmatch(name):
            raise StoreMisconfiguredError(f"{what} is not ID:BASE64, with an ID of A-Za-z0-9._- ; {_MAKE_ONE}")
        try:
            raw = base64.b64decode(secret.strip().replace("-", "+").replace("_", "/"), validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        if len(raw) != SIZE:
            raise StoreMisconfiguredError(f"{what}, {name!r}, is not {SIZE} bytes in base64; {_MAKE_ONE}")
        if name in keys:
            raise StoreMisconfiguredError(f"{what}: key {name!r} is there twice")
        keys[name] = raw
    if not keys:
        raise StoreMisconfiguredError(f"{where}: has no keys; it takes ID:BASE64, and {_MAKE_ONE}")
    return keys
