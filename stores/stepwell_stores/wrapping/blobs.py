"""Where large payloads are kept beside a store: a small port, a directory of files, and any object store."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, runtime_checkable

import msgspec

from stepwell.errors import InvalidInputError, StepwellError, StoreError, StoreMisconfiguredError, StoreUnavailableError

from ..disk import sync_directory, sync_file, translated, write_all
from ..filelock import FLAGS, make_private
from ..masking import masked

__all__ = ["Blob", "BlobStore", "DirectoryBlobs", "MemoryBlobs", "ObjectBlobs", "open_blobs"]

TEMPORARY = ".tmp-"
"""How the last part of a name begins that was never finished."""

_NAME = re.compile(r"[a-z0-9_=.-]+(?:/[a-z0-9_=.-]+)*")
_TRIES = 100


class Blob(msgspec.Struct, frozen=True):
    """A blob in a list: its name, its size in bytes, and when it was put (microseconds since 1970, by their clock)."""

    name: str
    size: int
    put: int


@runtime_checkable
class BlobStore(Protocol):
    """A place that keeps bytes by name. Names are parts of `a-z0-9_=.-` with slashes between.

    Raises StoreError and its kinds, like a store; StoreUnavailableError says that trying again may help.
    """

    def put(self, name: str, data: bytes) -> None:
        """Keep bytes that are durable when it returns; a blob that is there under this name stays as it is."""
        ...

    def get(self, name: str) -> bytes | None:
        """The bytes, or None when there are none."""
        ...

    def delete(self, names: Sequence[str]) -> None:
        """Remove blobs; one that isn't there does no harm."""
        ...

    def list(self, folder: str = "") -> Iterator[Blob]:
        """All blobs below a folder, which ends at a slash of their names; in any order."""
        ...


class MemoryBlobs:
    """Blobs in this process, for tests."""

    def __init__(self) -> None:
        self._blobs: dict[str, tuple[bytes, int]] = {}

    def put(self, name: str, data: bytes) -> None:
        """Keep bytes; see the port."""
        now = datetime.now(UTC)
        self._blobs.setdefault(name, (data, int(now.timestamp() * 1_000_000)))

    def get(self, name: str) -> bytes | None:
        """The bytes; see the port."""
        found = self._blobs.get(name)
        return None if found is None else found[0]

    def delete(self, names: Sequence[str]) -> None:
        """Remove blobs; see the port."""
        for name in names:
            self._blobs.pop(name, None)

    def list(self, folder: str = "") -> Iterator[Blob]:
        """All blobs below a folder; see the port."""
        start = f"{folder}/" if folder else ""
        return (Blob(n, len(data), put) for n, (data, put) in list(self._blobs.items()) if n.startswith(start))

    def __repr__(self) -> str:
        return "MemoryBlobs()"


class DirectoryBlobs:
    """Blobs as files of a directory, each synced before it is found under its name.

    Args:
        path: made with mode 0700 at first use; its parent must exist.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.realpath(os.fspath(path))

    def __repr__(self) -> str:
        return f"DirectoryBlobs({self.path!r})"

    def put(self, name: str, data: bytes) -> None:
        """Keep bytes; see the port."""
        target = self._file(name)
        try:
            temporary, folder = self._begin(target)
            try:
                self._write(temporary, data)
                with contextlib.suppress(FileExistsError):
                    os.link(temporary, target)
            finally:
                os.unlink(temporary)
            sync_directory(folder)
        except OSError as e:
            raise self._translated(e) from e

    def _begin(self, target: str) -> tuple[str, str]:
        """An empty file beside the target, whose folder may go while it is empty."""
        folder = os.path.dirname(target)
        temporary = os.path.join(folder, TEMPORARY + secrets.token_hex(8))
        for _ in range(_TRIES):
            self._make_folders(folder)
            try:
                os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | FLAGS, 0o600))
            except FileNotFoundError:
                continue
            return temporary, folder
        raise StoreUnavailableError(f"{folder}: is removed again and again; try again")

    def _make_folders(self, folder: str) -> None:
        missing: list[str] = []
        while not os.path.isdir(folder) and len(folder) >= len(self.path):
            missing.append(folder)
            folder = os.path.dirname(folder)
        for one in reversed(missing):
            with contextlib.suppress(FileNotFoundError):  # removed again: the caller begins anew
                make_private(one)
                sync_directory(os.path.dirname(one))

    @staticmethod
    def _write(path: str, data: bytes) -> None:
        fd = os.open(path, os.O_WRONLY | FLAGS)
        try:
            write_all(fd, data)
            sync_file(fd)
        finally:
            os.close(fd)

    def get(self, name: str) -> bytes | None:
        """The bytes; see the port."""
        try:
            fd = os.open(self._file(name), os.O_RDONLY | FLAGS)
        except FileNotFoundError:
            return None
        except OSError as e:
            raise self._translated(e) from e
        try:
            with open(fd, "rb") as file:
                return file.read()
        except OSError as e:
            raise self._translated(e) from e

    def delete(self, names: Sequence[str]) -> None:
        """Remove blobs; see the port."""
        folders: set[str] = set()
        try:
            for name in names:
                target = self._file(name)
                folders.add(os.path.dirname(target))
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(target)
            for folder in folders:
                self._remove_empty(folder)
        except OSError as e:
            raise self._translated(e) from e

    def _remove_empty(self, folder: str) -> None:
        while len(folder) > len(self.path):
            try:
                os.rmdir(folder)
            except OSError:  # not empty
                return
            folder = os.path.dirname(folder)

    def list(self, folder: str = "") -> Iterator[Blob]:
        """All blobs below a folder; see the port. What was never finished is listed too."""
        top = self._file(folder) if folder else self.path
        try:
            for where, folders, names in os.walk(top, onerror=_raise):
                folders.sort()
                for name in sorted(names):
                    file = os.path.join(where, name)
                    with contextlib.suppress(FileNotFoundError):
                        found = os.stat(file, follow_symlinks=False)
                        yield Blob(os.path.relpath(file, self.path), found.st_size, found.st_mtime_ns // 1000)
        except FileNotFoundError:
            return
        except OSError as e:
            raise self._translated(e) from e

    def _file(self, name: str) -> str:
        _check_name(name)
        return os.path.join(self.path, name)

    def _translated(self, error: OSError) -> StepwellError:
        return translated(self.path, error)


def _raise(error: OSError) -> None:
    raise error


class ObjectBlobs:
    """Blobs in an object store: S3, Google's, Azure's, a local directory, or what else `obstore` opens.

    Args:
        store: a store of obstore's, such as `obstore.store.S3Store("bucket")`.
        prefix: what comes before the names.
    """

    def __init__(self, store: Any, prefix: str = "") -> None:
        try:
            import obstore
        except ImportError as e:
            raise StoreMisconfiguredError(
                "blobs in an object store need the package obstore: pip install 'stepwell[s3]'"
            ) from e
        self._obstore = obstore
        self._store = store
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""

    def __repr__(self) -> str:
        return f"ObjectBlobs({type(self._store).__name__}, prefix={self._prefix!r})"

    def put(self, name: str, data: bytes) -> None:
        """Keep bytes; see the port."""
        _check_name(name)
        with self._translated():  # unconditionally: a name is never used for other bytes, and not all stores can
            self._obstore.put(self._store, self._prefix + name, data)

    def get(self, name: str) -> bytes | None:
        """The bytes; see the port."""
        _check_name(name)
        with self._translated():
            try:
                return bytes(self._obstore.get(self._store, self._prefix + name).bytes())
            except FileNotFoundError as e:
                self._check_bucket(e)
                return None

    def delete(self, names: Sequence[str]) -> None:
        """Remove blobs; see the port."""
        for name in names:
            _check_name(name)
            with self._translated(), contextlib.suppress(FileNotFoundError):
                self._obstore.delete(self._store, self._prefix + name)

    def list(self, folder: str = "") -> Iterator[Blob]:
        """All blobs below a folder; see the port."""
        with self._translated():
            for page in self._obstore.list(self._store, self._prefix + folder):
                for one in page:
                    name = one["path"].removeprefix(self._prefix)
                    if not folder or name.startswith(f"{folder}/"):
                        yield Blob(name, one["size"], int(one["last_modified"].timestamp() * 1_000_000))

    @staticmethod
    def _check_bucket(error: BaseException) -> None:
        """See that it is an object that is missing, and not all of them."""
        if "NoSuchBucket" in str(error):
            raise StoreMisconfiguredError(
                "the blobs can't be reached: there is no such bucket; create it, or mend blobs="
            ) from error

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        errors = self._obstore.exceptions
        try:
            yield
        except (errors.PermissionDeniedError, errors.UnauthenticatedError, errors.UnknownConfigurationKeyError) as e:
            raise StoreMisconfiguredError(f"the blobs can't be reached: {_first_line(e)}") from e
        except errors.BaseError as e:
            raise StoreUnavailableError(f"the blobs can't be reached: {_first_line(e)}; try again") from e
        except OSError as e:
            self._check_bucket(e)
            raise StoreError(f"the blobs can't be reached: {_first_line(e)}") from e


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or ".." in name:
        raise InvalidInputError(f"not the name of a blob: {name!r}")


_CLOUDS = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl")


def open_blobs(address: str) -> BlobStore:
    """The blobs of an address: a path, or a URL such as `s3://bucket/prefix` (settings come from the environment).

    Raises:
        StoreMisconfiguredError: it is none, or `obstore` is not installed.
    """
    scheme, colon, rest = address.partition("://")
    if not colon or scheme == "file":
        path = rest if colon else address
        if not path:
            raise StoreMisconfiguredError(f"no path of blobs in {address!r}; write blobs=/var/lib/blobs")
        return DirectoryBlobs(path)
    try:
        from obstore.store import from_url
    except ImportError as e:
        raise StoreMisconfiguredError(
            "blobs in an object store need the package obstore: pip install 'stepwell[s3]'"
        ) from e
    try:
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
        options: Any = {}
        if scheme in _CLOUDS:  # a call that is not answered is waited for as long as a write of a record is
            options = {"retry_config": {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}}
            options["client_options"] = {"allow_http": endpoint.startswith("http://"), "timeout": "20s"}
        return ObjectBlobs(from_url(address, **options))
    except Exception as e:  # noqa: BLE001 - whatever it says, it may repeat the URL, so it is no cause either
        problem = type(e).__name__
    raise StoreMisconfiguredError(
        f"blobs={masked(address)!r} can't be opened ({problem}); write a path, or a URL such as s3://bucket/prefix, "
        "with credentials in the environment"
    )
