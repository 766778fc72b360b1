"""What the stores declare is what the harness measured; the page is made from the same reports."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.crash.soak import JOBS, name_of

from stepwell_stores import open_store

from .durability import measured, setting_of

SETTINGS = {
    ("jsonl", "full"): "file:{}/runs",
    ("jsonl", "off"): "file:{}/runs?sync=off",
    ("sqlite", "full"): "sqlite:///{}/runs.db",
    ("sqlite", "normal"): "sqlite:///{}/runs.db?sync=normal",
}


@pytest.mark.parametrize(("store", "setting"), SETTINGS)
def test_a_store_declares_what_power_cuts_have_shown(tmp_path: Path, store: str, setting: str) -> None:
    cuts = [
        row
        for row in measured()
        if (row["job"], row["store"], setting_of(row)) == ("power_cuts", store, setting)
        if not row["planted"] and not row["skipped"]
    ]
    assert {"ext4", "xfs"} == {row["facts"]["file system"] for row in cuts}
    opened = open_store(SETTINGS[store, setting].format(tmp_path))
    opened.head("r")
    survived = all(row["violations"] == 0 for row in cuts)
    assert survived == opened.durability.power_loss
    opened.close()


@pytest.mark.parametrize("store", ["jsonl", "sqlite"])
def test_what_is_declared_to_survive_kills_did(store: str) -> None:
    kills = [row for row in measured() if (row["job"], row["store"], row["planted"]) == ("kill_points", store, None)]
    assert kills
    assert [0] * len(kills) == [row["violations"] for row in kills]
    assert 500 <= sum(row["counts"]["kills"] for row in kills)


def test_every_harness_was_run_and_every_planted_bug_was_found() -> None:
    rows = measured()
    assert {job.name for job in JOBS} == {name_of(row["command"]) for row in rows}
    assert [] == [row["command"] for row in rows if not row["as it must be"]]
    assert [] == [row["command"] for row in rows if row["planted"] and not row["skipped"] and not row["violations"]]
