"""What the page about stores says of the syncs of a `file:` store is counted."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.moving.zoo import engine_on

from stepwell.store import Created, LeaseRequest
from stepwell.testing.contract import a_head, a_record, a_start
from stepwell_stores import open_store

from .stores import COSTS


class Syncs:
    """Counts syncs of files and directories."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.count = 0
        for name in ("fsync", "fdatasync"):
            patch.setattr(os, name, self._counted(getattr(os, name)))

    def _counted(self, sync: Callable[[int], None]) -> Callable[[int], None]:
        def counted(fd: int) -> None:
            self.count += 1
            sync(fd)

        return counted

    def of(self, call: Callable[[], Any]) -> int:
        before = self.count
        call()
        return self.count - before


def test_the_syncs_of_a_file_store_are_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, other = open_store(f"file:{tmp_path}/runs"), open_store("memory:")
    assert isinstance(store.create("first", [a_start()], head=a_head(), attempt_id="a"), Created)  # makes the directory
    syncs, lease = Syncs(monkeypatch), LeaseRequest("me", 30)

    def own(seq: int, **options: Any) -> Any:
        records = [] if "head" in options else [a_record()]
        return store.append("r", 0, seq, records, attempt_id="x", fence=1, **options)

    found = {
        "start": syncs.of(lambda: store.create("r", [a_start()], head=a_head(), attempt_id="a", lease=lease)),
        "a step": syncs.of(lambda: own(1)),
        "a signal": syncs.of(lambda: store.append("r", None, None, [a_record()], attempt_id="s")),
        "park": syncs.of(lambda: own(3, head=a_head(status="suspended"), release=True)),
        "claim": syncs.of(lambda: store.claim("first", "me", 30)),
    }
    store.release(store.claim("r", "me", 30))  # type: ignore[arg-type]
    found["move a run out"] = syncs.of(lambda: engine_on(store).migrate(other))
    found["move a run in"] = syncs.of(lambda: engine_on(other).migrate(store))
    said = {what: COSTS[what]["file:"] for what in found}
    words = {0: "none, if nothing is recorded", 1: "1 sync"}
    assert said == {what: words.get(count, f"{count} syncs") for what, count in found.items()}
    store.close()
