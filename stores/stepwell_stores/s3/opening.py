"""How a bucket is opened: by a URL and the environment, or as the user has it; its marker, its clock, its abilities."""

from __future__ import annotations

import importlib.util
import os
import re
import threading
from collections.abc import Callable
from typing import Any

import msgspec

from stepwell.errors import ClosedError, NewerFormatError, StoreError, StoreMisconfiguredError, StoreUnavailableError

from ..outcomes import NotWrittenError
from ..rules import Clock, system_clock
from .bucket import Bucket
from .entries import FORMAT, new_nonce
from .log import local_seconds

__all__ = ["Opening", "borrow", "check_name", "check_prefix", "connect", "driver_there"]

_MARKER = "stepwell.json"
_AGAIN = 600.0  # seconds after which the bucket's clock is looked at anew
_CLOSE = 1_500_000  # microseconds by which a clock may differ that is taken for right: objects have whole seconds
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
_SEGMENT = re.compile(r"[A-Za-z0-9_=+@,:;!$&'() .-]+")
_REFUSED = {
    "LocalStore": "for a directory take the store of files, 'file:DIR'",
    "HTTPStore": "take the store of the service behind it",
}

_proven: set[str] = set()
_clocks: dict[str, tuple[int, float]] = {}  # by place: the bucket's microseconds, and the local seconds of then
_lock = threading.Lock()


def driver_there() -> None:
    """Raise StoreMisconfiguredError when the driver is not installed."""
    if importlib.util.find_spec("obstore") is None:
        raise StoreMisconfiguredError("the S3 store needs obstore, which is not installed: pip install 'stepwell[s3]'")


def check_prefix(prefix: str) -> str:
    """A prefix as keys begin with it: "" or ending in a slash."""
    parts = [part for part in prefix.strip("/").split("/") if part] if isinstance(prefix, str) else [""]
    for part in parts:
        if not _SEGMENT.fullmatch(part) or part in (".", "..") or part != part.strip():
            raise StoreMisconfiguredError(
                f"the prefix of a bucket is letters, digits and _-=. between slashes, got {prefix!r}; choose another"
            )
    return "".join(f"{part}/" for part in parts)


def check_name(name: str) -> str:
    """Refuse what can't be the name of a bucket."""
    if not _BUCKET.fullmatch(name):
        raise StoreMisconfiguredError(f"not the name of a bucket: {name!r}; write 's3://BUCKET/PREFIX'")
    return name


def connect(name: str, prefix: str, region: str | None, endpoint: str | None) -> Bucket:
    """The bucket with this name, found and entered as the environment says."""
    from obstore.exceptions import BaseError
    from obstore.store import S3Store

    endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None
    region = region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    options: dict[str, Any] = {"region": region}
    plain = endpoint is not None and endpoint.startswith("http://")
    if endpoint is not None:
        if not re.fullmatch(r"https?://[^/@\s]+/?[^@\s]*", endpoint):
            raise StoreMisconfiguredError("the endpoint of a bucket is 'https://HOST', with no password in it")
        options |= {"endpoint": endpoint.rstrip("/"), "virtual_hosted_style_request": False}
    try:
        objects = S3Store(
            name,
            **options,
            # Tries are made by the store, which knows what became of the one before.
            retry_config={"max_retries": 0},
            client_options={"allow_http": plain, "connect_timeout": "5s", "timeout": "20s"},
        )
    except BaseError as e:
        raise StoreMisconfiguredError(f"s3://{name}: {str(e).splitlines()[0]}; check URL and AWS_* variables") from e
    return Bucket(objects, _place(f"s3://{name}", prefix), prefix)


def borrow(objects: Any, prefix: str) -> Bucket:
    """A bucket that the user has opened."""
    kind = type(objects)
    if not kind.__module__.startswith(("obstore", "builtins")) or not all(
        hasattr(objects, name) for name in ("put", "get", "list", "delete", "head")
    ):
        raise StoreMisconfiguredError(
            f"bucket is a name or a store of obstore, such as obstore.store.S3Store, got {objects!r:.80}"
        )
    if kind.__name__ in _REFUSED:
        raise StoreMisconfiguredError(f"obstore's {kind.__name__} can't hold runs; {_REFUSED[kind.__name__]}")
    config = getattr(objects, "config", None) or {}
    name = config.get("bucket") or config.get("container_name") or kind.__name__
    own = f"/{objects.prefix}" if getattr(objects, "prefix", None) else ""
    scheme = {"S3Store": "s3", "GCSStore": "gs", "AzureStore": "az"}.get(kind.__name__, "store")
    return Bucket(objects, _place(f"{scheme}://{name}{own}", prefix), prefix, borrowed=True)


def _place(start: str, prefix: str) -> str:
    return f"{start}/{prefix}".rstrip("/")


class Opening:
    """A bucket that is opened at its first use, for reading or for writing.

    Args:
        make: opens it.
        must_exist: refuse one that holds no store yet.
        clock: stands for the bucket's; None: that is found out.
    """

    def __init__(self, make: Callable[[], Bucket], *, must_exist: bool, clock: Clock | None) -> None:
        self._make, self._must_exist, self._clock = make, must_exist, clock
        self._lock = threading.RLock()
        self.bucket: Bucket | None = None
        self._read = self._write = self._closed = self._there = False
        self._key = ""

    def reading(self) -> Bucket:
        """The bucket, once its marker was looked at."""
        bucket = self.bucket
        if self._closed:
            raise ClosedError("the store is closed")
        if self._read and bucket is not None:
            return bucket
        with self._lock:
            if self.bucket is None:
                self.bucket = self._make()
                self._key = _identity(self.bucket)
            if not self._read:
                self._there = self._marked(self.bucket)
                if not self._there and self._must_exist:
                    raise StoreMisconfiguredError(
                        f"no store at {self.bucket.place}; check the URL, or start a run to create it"
                    )
                self._read = True
        return self.bucket

    def writing(self) -> Bucket:
        """The bucket, once it has shown that it can do what the store needs."""
        bucket = self.reading()
        if not self._write:
            with self._lock:
                if not self._write:
                    self._prove(bucket)
                    if not self._there:
                        bucket.create(_MARKER, msgspec.json.encode({"stepwell": FORMAT}) + b"\n")
                    self._write = True
        self._look_at_clock(bucket)
        return bucket

    def now(self) -> int:
        """Microseconds since 1970 by the bucket's clock; by this machine's, before anything was written."""
        if self._clock is not None:
            return self._clock()
        known = _clocks.get(self._key)
        return system_clock() if known is None else known[0] + int((local_seconds() - known[1]) * 1_000_000)

    def timer(self) -> float:
        """Local seconds; those of the clock that was given, in tests."""
        return local_seconds() if self._clock is None else self._clock() / 1_000_000

    def close(self) -> None:
        """Let go of the bucket."""
        self._closed = True
        if self.bucket is not None:
            self.bucket.close()

    @property
    def proven(self) -> bool:
        """Whether the bucket has shown that it keeps the conditions of writes."""
        return self._key in _proven

    def after_fork_in_child(self) -> None:
        """Make a new lock: the inherited one may be held by a thread that isn't here."""
        self._lock = threading.RLock()

    def _marked(self, bucket: Bucket) -> bool:
        """Whether the bucket holds a store, of a format that is known."""
        found = bucket.get(_MARKER)
        if found is None:
            return False
        place = f"{bucket.place}/{_MARKER}"
        try:
            number = msgspec.json.decode(found.data)["stepwell"]
        except (msgspec.MsgspecError, UnicodeDecodeError, KeyError) as e:
            raise StoreMisconfiguredError(f"{place}: not the marker of a store; choose another prefix") from e
        if not isinstance(number, int) or number > FORMAT:
            raise NewerFormatError(
                f"{place}: the store has format {number}, and this stepwell knows up to {FORMAT}; upgrade stepwell",
                place=place,
            )
        return True

    def _prove(self, bucket: Bucket) -> None:
        """Have the bucket show that of two who create an object one does, and that an outdated tag replaces nothing."""
        with _lock:
            if self._key in _proven:
                return
        key = f"probe/{new_nonce()}"
        try:
            made = bucket.each(lambda data: bucket.create(key, data)[0], [b"one", b"two"])
            if sorted(made) != ["made", "taken"] and sorted(made) != ["found", "taken"]:
                self._unfit(bucket, "If-None-Match")
            there = bucket.get(key)
            tag = None if there is None else there.e_tag
            if tag is None or bucket.replace(key, b"three", f'"{"0" * 32}"') or not bucket.replace(key, b"four", tag):
                self._unfit(bucket, "If-Match")
        except StoreUnavailableError as e:
            raise NotWrittenError(f"can't find out what the bucket can do: {e.message}") from e
        bucket.later(lambda: bucket.remove([key]))
        with _lock:
            _proven.add(self._key)

    def _unfit(self, bucket: Bucket, what: str) -> None:
        raise StoreMisconfiguredError(
            f"{bucket.place}: the bucket does not keep the condition {what} of a write, so two owners of a run could "
            "overwrite each other; take one that does (AWS S3, GCS, Azure, Cloudflare R2, MinIO, SeaweedFS, ...)"
        )

    def _look_at_clock(self, bucket: Bucket) -> None:
        """Learn how the bucket's clock stands, by writing an object; the machine's own is kept when it is right."""
        if self._clock is not None:
            return
        began = local_seconds()
        known = _clocks.get(self._key)
        if known is not None and began - known[1] < _AGAIN:
            return
        try:
            bucket.put("clock", b"")
            written = bucket.written("clock")
        except StoreError:
            if known is None:
                raise
            return
        middle, here = (began + local_seconds()) / 2, system_clock()
        here -= int((local_seconds() - middle) * 1_000_000)
        if written is None:
            return
        theirs = written if written % 1_000_000 else written + 500_000
        _clocks[self._key] = (here if abs(here - theirs) < _CLOSE else theirs, middle)


def _identity(bucket: Bucket) -> str:
    """What tells one bucket from another in this process."""
    config = getattr(bucket.objects, "config", None) or {}
    parts = [config.get(part) for part in ("bucket", "container_name", "endpoint", "region", "account_name")]
    shared = any(parts)
    return f"{type(bucket.objects).__name__} {parts} {'' if shared else id(bucket.objects)}"
