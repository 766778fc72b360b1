"""Places of blobs: in memory, in a directory, in an object store. One set of rules for all."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stepwell import InvalidInputError, StepwellError, StoreMisconfiguredError, StoreUnavailableError
from stepwell_stores.wrapping import BlobStore, DirectoryBlobs, MemoryBlobs, ObjectBlobs, open_blobs

if TYPE_CHECKING:
    from tests.servers.s3 import S3


@pytest.fixture(params=["memory", "directory", "objects", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BlobStore]:
    match request.param:
        case "memory":
            yield MemoryBlobs()
        case "directory":
            yield DirectoryBlobs(tmp_path / "blobs")
        case "objects":
            from obstore.store import MemoryStore

            yield ObjectBlobs(MemoryStore(), "some/prefix")
        case _:
            server: S3 = request.getfixturevalue("s3_server")
            for name, value in server.environment.items():
                monkeypatch.setenv(name, value)
            yield open_blobs(f"{server.url()}/{uuid.uuid4().hex}")


def names(blobs: BlobStore, folder: str = "") -> list[str]:
    return sorted(blob.name for blob in blobs.list(folder))


def test_what_is_put_is_there_until_it_is_removed(blobs: BlobStore) -> None:
    assert isinstance(blobs, BlobStore)
    assert blobs.get("run/r/0.1.ab") is None
    blobs.put("run/r/0.1.ab", b"one")
    blobs.put("run/r/0.1.ab", b"one")
    blobs.put("run/a=2fb/1.0.cd", bytes(range(256)) * 1_000)
    blobs.put("run/r2/0.0.ef", b"")
    assert blobs.get("run/r/0.1.ab") == b"one"
    assert blobs.get("run/a=2fb/1.0.cd") == bytes(range(256)) * 1_000
    assert blobs.get("run/r2/0.0.ef") == b""
    assert names(blobs) == ["run/a=2fb/1.0.cd", "run/r/0.1.ab", "run/r2/0.0.ef"]
    assert names(blobs, "run/r") == ["run/r/0.1.ab"]
    assert names(blobs, "run/none") == []
    (found,) = blobs.list("run/a=2fb")
    assert found.size == 256_000
    assert abs(found.put / 1_000_000 - time.time()) < 600
    blobs.delete(["run/r/0.1.ab", "run/none/0.1.ab"])
    blobs.delete(["run/r/0.1.ab"])
    assert names(blobs) == ["run/a=2fb/1.0.cd", "run/r2/0.0.ef"]


@pytest.mark.parametrize("name", ["", "/etc/passwd", "a/../b", "a//b", "A", "a b", "a/", "é"])
def test_a_name_that_could_lead_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    blobs = DirectoryBlobs(tmp_path / "blobs")
    for call in (lambda: blobs.put(name, b""), lambda: blobs.get(name), lambda: blobs.delete([name])):
        with pytest.raises(InvalidInputError, match="not the name of a blob"):
            call()


def test_files_are_their_owners_alone_and_never_half_there(tmp_path: Path) -> None:
    os.umask(0o002)
    blobs = DirectoryBlobs(tmp_path / "blobs")
    blobs.put("run/r/0.1.ab", b"one")
    found = sorted((tmp_path / "blobs").rglob("*"))
    assert [path.name for path in found] == ["run", "r", "0.1.ab"]
    assert [oct(path.stat().st_mode & 0o777) for path in found] == ["0o700", "0o700", "0o600"]
    blobs.put("run/r/0.1.ab", b"other")
    assert blobs.get("run/r/0.1.ab") == b"one"
    blobs.delete(["run/r/0.1.ab"])
    assert list((tmp_path / "blobs").rglob("*")) == []


def test_put_and_delete_of_one_run_do_not_meet(tmp_path: Path) -> None:
    """Its folder goes with its last blob, also while another is put."""
    blobs = DirectoryBlobs(tmp_path / "blobs")
    failures = list[BaseException]()

    def work(number: int) -> None:
        try:
            for turn in range(60):
                name = f"run/r/{number}.{turn}.ab"
                blobs.put(name, b"x")
                assert blobs.get(name) == b"x"
                blobs.delete([name])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert names(blobs) == []


def test_what_the_disk_says_is_a_typed_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = DirectoryBlobs(tmp_path / "none" / "blobs")
    with pytest.raises(StepwellError):
        blobs.put("run/r/0.1.ab", b"x")
    blobs = DirectoryBlobs(tmp_path / "blobs")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StoreUnavailableError, match="No space left on device; make room"):
        blobs.put("run/r/0.1.ab", b"x")
    monkeypatch.undo()
    assert names(blobs) == []


def test_an_object_store_that_is_away_is_a_typed_error() -> None:
    from obstore.store import S3Store

    config: Any = {"endpoint": "http://127.0.0.1:9", "access_key_id": "a", "secret_access_key": "b", "region": "x"}
    how: Any = {"client_options": {"allow_http": True}, "retry_config": {"max_retries": 0}}
    store = S3Store("bucket", **config, **how)
    with pytest.raises(StoreUnavailableError, match="the blobs can't be reached"):
        ObjectBlobs(store).get("run/r/0.1.ab")


def test_addresses() -> None:
    assert repr(open_blobs("/tmp/blobs")) == "DirectoryBlobs('/tmp/blobs')"
    assert repr(open_blobs("file:///tmp/blobs")) == "DirectoryBlobs('/tmp/blobs')"
    for wrong in ("", "file://", "nothing://x"):
        with pytest.raises(StoreMisconfiguredError, match="blobs"):
            open_blobs(wrong)
