"""Store URLs: what they name, and what a wrong one is told."""

from pathlib import Path

import pytest

from stepwell.errors import StoreMisconfiguredError
from stepwell.store import HeadFilter, Store
from stepwell_stores import open_store
from stepwell_stores.jsonl import JsonlStore
from stepwell_stores.memory import MemoryStore
from stepwell_stores.sqlite import SqliteStore


def test_each_scheme_has_its_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stores: list[tuple[str, type[Store], str | None]] = [
        ("memory:", MemoryStore, None),
        ("MEMORY:", MemoryStore, None),
        ("file:runs", JsonlStore, f"{tmp_path}/runs"),
        (f"file:{tmp_path}/there", JsonlStore, f"{tmp_path}/there"),
        (f"file://{tmp_path}/url", JsonlStore, f"{tmp_path}/url"),
        ("sqlite:///a.db", SqliteStore, f"{tmp_path}/a.db"),
        (f"sqlite:///{tmp_path}/b.db", SqliteStore, f"{tmp_path}/b.db"),
        ("sqlite:///c.db?sync=normal", SqliteStore, f"{tmp_path}/c.db"),
        ("sqlite:///d.db?mode=ro&network=allow", SqliteStore, f"{tmp_path}/d.db"),
        ("sqlite:///e.db?mode=rw", SqliteStore, f"{tmp_path}/e.db"),
        ("file:other?sync=off&network=allow", JsonlStore, f"{tmp_path}/other"),
    ]
    for url, kind, path in stores:
        store = open_store(url)
        assert isinstance(store, kind)
        assert path == getattr(store, "path", None)
        store.close()
    assert [] == list(tmp_path.iterdir()), "nothing is made before it is used"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://me:secret@host/db", ["unknown", "'mysql'", "memory:", "file:", "sqlite:", "postgresql:"]),
        ("postgresql:runs", ["two slashes", "postgresql://user@host"]),
        ("s3:runs", ["two slashes", "s3://BUCKET/PREFIX"]),
        ("triage.db", ["not a store URL", "sqlite:///triage.db"]),
        ("", ["not a store URL"]),
        ("sqlite:", ["three slashes"]),
        ("sqlite://", ["three slashes"]),
        ("sqlite:///", ["three slashes"]),
        ("sqlite:a.db", ["three slashes"]),
        ("sqlite://a.db", ["three slashes"]),
        ("sqlite:///:memory:", ["memory:"]),
        ("sqlite::memory:", ["memory:"]),
        ("sqlite:///a.db?timeout=5", ["no option 'timeout=5'", "sync=normal"]),
        ("sqlite:///a.db?sync=off", ["no option 'sync=off'", "sync=normal"]),
        ("sqlite:///a.db?mode=r", ["no option 'mode=r'", "mode=ro"]),
        ("file:runs?mode=ro", ["no option 'mode=ro'", "known are sync=full"]),
        ("file:runs?sync=normal", ["no option 'sync=normal'", "sync=off"]),
        ("file:runs?sync=off&sync=full", ["sync is given twice"]),
        ("file:runs?network", ["no option 'network'", "network=allow"]),
        ("file:?sync=off", ["directory"]),
        ("file:", ["directory"]),
        ("file://host/share", ["directory"]),
        ("memory:x", ["no path"]),
    ],
)
def test_a_wrong_url_is_told_the_remedy(url: str, words: list[str]) -> None:
    with pytest.raises(StoreMisconfiguredError) as caught:
        open_store(url)
    assert [] == [word for word in words if word not in str(caught.value)]
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["sqlite:///{}/none.db", "file:{}/none"])
def test_must_exist_makes_nothing(tmp_path: Path, url: str) -> None:
    store = open_store(url.format(tmp_path), must_exist=True)
    with pytest.raises(StoreMisconfiguredError, match="no store at"):
        store.heads(HeadFilter(), limit=1)
    assert [] == list(tmp_path.iterdir())


def test_a_memory_store_never_exists() -> None:
    with pytest.raises(StoreMisconfiguredError, match="no store at"):
        open_store("memory:", must_exist=True)


@pytest.mark.parametrize("url", ["sqlite:///{}/a.db", "file:{}/runs"])
def test_must_exist_opens_what_is_there(tmp_path: Path, url: str) -> None:
    url = url.format(tmp_path)
    store = open_store(url)
    assert store.head("r") is None
    store.close()
    store = open_store(url, must_exist=True)
    assert store.head("r") is None
    store.close()


@pytest.mark.parametrize("url", ["sqlite:///{}/missing/a.db", "file:{}/missing/runs"])
def test_a_missing_parent_is_named(tmp_path: Path, url: str) -> None:
    store = open_store(url.format(tmp_path))
    with pytest.raises(StoreMisconfiguredError, match=f"{tmp_path}/missing"):
        store.head("r")
    assert [] == list(tmp_path.iterdir())
