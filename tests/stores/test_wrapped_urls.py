"""URLs of stores around a store."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from stepwell import StoreMisconfiguredError
from stepwell.store import Store
from stepwell_stores import open_store
from stepwell_stores.sqlite import SqliteStore
from stepwell_stores.wrapping import CompressedStore, EncryptedStore, OffloadingStore


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPWELL_KEYS", f"k1:{base64.b64encode(bytes(32)).decode()}")


def test_the_outermost_comes_first(tmp_path: Path) -> None:
    url = f"compressed+encrypted+offloaded+sqlite:///{tmp_path}/a.db"
    store = open_store(f"{url}?sync=normal&blobs={tmp_path}/blobs&threshold=9&above=7&plain=allow&tags=hidden")
    found: list[type[Store]] = []
    inner: Store | None = store
    while inner is not None:
        found.append(type(inner))
        inner = getattr(inner, "inner", None)
    assert found == [CompressedStore, EncryptedStore, OffloadingStore, SqliteStore]
    assert isinstance(store, CompressedStore)
    assert store.above == 7
    encrypted = store.inner
    assert isinstance(encrypted, EncryptedStore)
    assert (encrypted.allow_plain, encrypted.hide_tags, encrypted.keys.current.id) == (True, True, "k1")
    beside = encrypted.inner
    assert isinstance(beside, OffloadingStore)
    assert (beside.threshold, repr(beside.blobs)) == (9, f"DirectoryBlobs('{tmp_path}/blobs')")
    assert store.path == f"{tmp_path}/a.db"
    assert store.durability.settings["synchronous"] == 1
    assert "blobs" in store.durability.settings
    store.close()


def test_without_options_there_are_good_ones(tmp_path: Path) -> None:
    store = open_store(f"COMPRESSED+Encrypted+file:{tmp_path}/runs")
    assert isinstance(store, CompressedStore)
    assert store.above == 1024
    assert isinstance(store.inner, EncryptedStore)
    assert not store.inner.allow_plain


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("encrypted+", "unknown store scheme|not a store URL"),
        ("encrypted+nosuch:x", "unknown store scheme 'nosuch'"),
        ("offloaded+memory:", r"needs the place of the blobs; write \?blobs="),
        ("offloaded+memory:?blobs=", "needs the place of the blobs"),
        ("offloaded+memory:?blobs=a&blobs=b", "blobs is given twice"),
        ("offloaded+memory:?blobs=a&threshold=0", "threshold='0' is no number of bytes"),
        ("offloaded+memory:?blobs=a&threshold=1k", "threshold='1k' is no number of bytes"),
        ("compressed+memory:?above=-1", "above='-1' is no number of bytes; known are bytes"),
        ("encrypted+memory:?plain=yes", "has no option plain='yes'; known are plain=allow, tags=hidden"),
        ("encrypted+sqlite:///a.db?nosuch=1", "has no option 'nosuch=1'"),
        ("encrypted+compressed+memory:", "what is encrypted can't be compressed"),
        ("offloaded+encrypted+memory:?blobs=a", "the blobs would not be encrypted"),
        ("encrypted+encrypted+memory:", "encrypted already"),
        ("memory+encrypted:", "unknown store scheme"),
    ],
)
def test_what_makes_no_sense_is_refused(url: str, words: str) -> None:
    with pytest.raises(StoreMisconfiguredError, match=words):
        open_store(url)


def test_no_key_comes_from_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STEPWELL_KEYS")
    monkeypatch.delenv("STEPWELL_KEY_FILE", raising=False)
    with pytest.raises(StoreMisconfiguredError, match="no keys are given: set STEPWELL_KEYS"):
        open_store("encrypted+memory:")
