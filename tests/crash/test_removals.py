"""Processes that are killed while they remove runs, and ids that are used again after it."""

from __future__ import annotations

import pytest
from tests.crash.calling import reached, report_of


@pytest.mark.parametrize(("store", "parts", "part"), [("jsonl", 1, 0), ("sqlite", 3, 1)])
def test_a_death_between_any_two_deletes_leaves_nothing_that_a_reused_id_could_see(
    store: str, parts: int, part: int
) -> None:
    """For SQLite at each third operation; `python -m tests.crash.removals --store sqlite` does all of them."""
    report = report_of("removals", "--store", store, "--parts", parts, "--part", part)
    assert [] == report["violations"]
    reached(report, "whole", "gone", "new", "some gone, some whole")
    if store == "jsonl":
        reached(report, "killed before unlink jsonl", "killed after unlink json", "killed before replace tmp")
    else:
        reached(report, "killed before write db-wal", "killed in the middle of write db-wal")
    assert report["counts"]["kills"] > report["counts"]["stories"] * 0.9


def test_a_death_while_space_is_given_back_loses_nothing() -> None:
    report = report_of("removals", "--store", "sqlite", "--vacuum", "--parts", 3)
    assert [] == report["violations"]
    reached(report, "killed before write db", "killed before write db-wal")


@pytest.mark.parametrize("planted", ["fence forgotten with its run", "removed in pieces"])
@pytest.mark.parametrize("store", ["jsonl", "sqlite"])
def test_a_planted_bug_is_found_by_kills_between_deletes(store: str, planted: str) -> None:
    report = report_of("removals", "--store", store, "--plant", planted)
    assert [] != report["violations"]
