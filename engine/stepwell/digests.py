"""BLAKE2b, without the OpenSSL that `hashlib` loads when it is imported. Floor 0."""

from __future__ import annotations

try:
    from _blake2 import blake2b  # type: ignore[import-not-found,unused-ignore]
except ImportError:  # another Python than CPython or PyPy
    from hashlib import blake2b

__all__ = ["blake2b", "digest"]


def digest(data: bytes) -> str:
    """32 hex digits that stand for some bytes: BLAKE2b-128, the same everywhere."""
    found: str = blake2b(data, digest_size=16).hexdigest()
    return found
