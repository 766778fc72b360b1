"""What can be done, and what is said, when a key or the place of the blobs is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.servers.tiny_s3 import tiny_s3

from stepwell import Engine, Flow, Step, StoreMisconfiguredError, workflow
from stepwell_stores import open_store
from stepwell_stores.wrapping import EncryptedStore, KeyRing
from stepwell_stores.wrapping.blobs import ObjectBlobs


@workflow
def adds() -> Flow[int]:
    return (yield from Step(int, "4"))


def test_prune_passes_by_what_is_encrypted_with_a_key_that_is_not_at_hand(tmp_path: Path) -> None:
    """One such run must not keep all others."""
    url, first, second = f"sqlite:///{tmp_path}/runs.db", b"1" * 32, b"2" * 32
    with Engine(EncryptedStore(open_store(url), KeyRing({"a": first})), workflows=[adds]) as engine:
        engine.start(adds, run_id="lost")
    with Engine(EncryptedStore(open_store(url), KeyRing({"b": second})), workflows=[adds]) as engine:
        engine.start(adds, run_id="mine")
        done = engine.prune(older_than=0)
        assert (1, ("mine",), {"unreadable": 1}) == (done.removed, done.run_ids, done.kept)
        with pytest.raises(StoreMisconfiguredError, match="key 'a', which is not in the ring"):
            engine.get("lost")


def test_blobs_whose_bucket_is_gone_are_not_called_damaged() -> None:
    with tiny_s3() as server:
        blobs = ObjectBlobs(server.open())
        assert blobs.get("a/b") is None
        server.behave = lambda method, key: (404, "NoSuchBucket")
        with pytest.raises(StoreMisconfiguredError, match="no such bucket; create it"):
            blobs.get("a/b")
        with pytest.raises(StoreMisconfiguredError, match="no such bucket; create it"):
            blobs.put("a/b", b"x")
