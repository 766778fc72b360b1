"""Power cuts on real file systems, with processes in the middle of their writes."""

from __future__ import annotations

import pytest
from tests.crash.calling import reached, report_of

STORES = ("jsonl", "sqlite")
SYSTEMS = ("ext4", "xfs")
FEW = 15
"""Cuts within which a store that does not sync is caught."""


@pytest.mark.parametrize("fs", SYSTEMS)
@pytest.mark.parametrize("store", STORES)
def test_what_was_acknowledged_or_read_survives_every_power_cut(store: str, fs: str) -> None:
    """Shows S1 (P1)."""
    report = report_of("power_cuts", "--store", store, "--fs", fs, "--count", 25)
    assert [] == report["violations"]
    assert 25 == report["counts"]["cuts"]
    assert report["facts"]["power loss declared"] is True
    reached(report, "processes that were writing", "killed between write and sync", "read after a death", "runs ended")


@pytest.mark.parametrize("fs", SYSTEMS)
@pytest.mark.parametrize(("store", "setting"), [("jsonl", "sync=off"), ("sqlite", "sync=normal")])
def test_a_setting_that_declares_no_safety_from_power_cuts_has_none(store: str, setting: str, fs: str) -> None:
    report = report_of("power_cuts", "--store", store, "--fs", fs, "--count", FEW, "--setting", setting, "--first")
    assert report["facts"]["power loss declared"] is False
    assert [] != report["violations"]


@pytest.mark.parametrize("fs", SYSTEMS)
def test_a_journal_without_fsync_loses_records(fs: str) -> None:
    report = report_of("power_cuts", "--fs", fs, "--count", FEW, "--first", "--plant", "no fsync")
    assert [] != report["violations"]


@pytest.mark.parametrize("fs", SYSTEMS)
def test_a_database_with_synchronous_normal_loses_records(fs: str) -> None:
    options = ("--store", "sqlite", "--fs", fs, "--plant", "synchronous=NORMAL")
    report = report_of("power_cuts", *options, "--count", FEW, "--first")
    assert [] != report["violations"]


@pytest.mark.parametrize("fs", SYSTEMS)
@pytest.mark.parametrize("store", STORES)
def test_a_reader_who_trusts_what_was_not_synced_is_left_alone_with_it(store: str, fs: str) -> None:
    on = ("power_cuts", "--store", store, "--fs", fs)
    report = report_of(*on, "--count", FEW, "--first", "--plant", "no sync on open")
    assert [] != report["violations"]
    reached(report, "killed between write and sync", "read after a death")


def test_names_that_were_not_synced_are_lost_on_xfs() -> None:
    """Not on ext4, whose journal takes a new name along with the sync of its file."""
    report = report_of("power_cuts", "--fs", "xfs", "--count", 60, "--first", "--plant", "no directory fsync")
    assert [] != report["violations"]
