"""Disks that are full, read-only or stingy while runs are driven."""

from __future__ import annotations

from typing import Any

import pytest
from tests.crash.calling import reached, report_of

STORES = ("jsonl", "sqlite")


def faults(store: str, kind: str, *, count: int) -> dict[str, Any]:
    """What becomes of the runs: all have come to their ends, and the fault did strike."""
    report = report_of("disk_faults", "--store", store, "--kind", kind, "--count", count)
    assert [] == report["violations"]
    assert count == report["counts"]["cases"]
    reached(report, "faults", "cases with faults", "runs ended")
    return report


@pytest.mark.parametrize("store", STORES)
def test_a_full_disk_loses_nothing_and_runs_go_on_when_there_is_space(store: str) -> None:
    report = faults(store, "full", count=40)
    reached(report, "met StoreUnavailableError", "read by another process meanwhile")


@pytest.mark.parametrize("store", STORES)
def test_a_disk_that_takes_no_more_files_loses_nothing(store: str) -> None:
    faults(store, "inodes", count=30)


@pytest.mark.parametrize("store", STORES)
def test_writes_that_a_limit_cuts_short_lose_nothing(store: str) -> None:
    faults(store, "file size", count=40)


def test_writes_of_which_the_kernel_takes_a_part_go_on_with_the_rest() -> None:
    report = faults("jsonl", "short writes", count=15)
    assert [] == [name for name in report["counts"] if name.startswith("met ")]


@pytest.mark.parametrize("store", STORES)
def test_a_process_without_a_free_descriptor_loses_nothing(store: str) -> None:
    faults(store, "open files", count=30)


@pytest.mark.parametrize("store", STORES)
def test_a_disk_that_becomes_read_only_and_writable_again_loses_nothing(store: str) -> None:
    report = faults(store, "read-only", count=30)
    reached(report, "met StoreMisconfiguredError")


def test_a_journal_is_only_ever_appended_to() -> None:
    report = faults("jsonl", "append-only", count=3)
    assert [] == [name for name in report["counts"] if name.startswith("met Store")]


@pytest.mark.parametrize("store", STORES)
def test_an_error_that_is_swallowed_is_found_on_a_full_disk(store: str) -> None:
    report = report_of("disk_faults", "--store", store, "--kind", "full", "--count", 30, "--plant", "error swallowed")
    assert [] != report["violations"]
