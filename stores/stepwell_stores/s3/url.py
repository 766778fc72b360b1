"""The URL of a store in a bucket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

from stepwell.errors import InvalidInputError, StoreMisconfiguredError

from ..rules import Clock
from .store import S3Store

__all__ = ["from_url"]


def from_url(rest: str, must_exist: bool, clock: Clock | None) -> S3Store:
    """Make the store that the rest of a URL names, after `s3:`."""
    where, _, text = rest.partition("?")
    bucket, _, prefix = where.removeprefix("//").partition("/")
    example = "write 's3://BUCKET/PREFIX'"
    if not where.startswith("//") or not bucket:
        raise StoreMisconfiguredError(f"s3: needs two slashes, a bucket and a prefix; {example}")
    if "@" in bucket or ":" in bucket:
        raise StoreMisconfiguredError(
            f"s3: takes no credentials in the URL, which others may see; {example} and set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY"
        )
    options: dict[str, Any] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        if name in options or name not in _OPTIONS or not value:
            known = ", ".join(f"{known}=..." for known in _OPTIONS)
            raise StoreMisconfiguredError(f"s3: has no option {name!r}, or it is given twice; known are {known}")
        try:
            options[name] = _OPTIONS[name](value)
        except ValueError as e:
            raise StoreMisconfiguredError(f"s3: {name} must be a number of seconds, got {value!r}") from e
    try:
        return S3Store(bucket, prefix, must_exist=must_exist, clock=clock, **options)
    except InvalidInputError as e:
        raise StoreMisconfiguredError(f"s3: {e}") from e


_OPTIONS: dict[str, Callable[[str], Any]] = {"region": str, "endpoint": str, "poll": float, "keep_deleted": float}
