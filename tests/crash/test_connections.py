"""Connections that break under a store's writes: `tests.crash.connections`, as often as each commit can afford."""

from __future__ import annotations

import pytest
from tests.crash.calling import report_of

COUNTS = {"postgres": 300, "redis": 500, "s3": 60}
"""Cuts; `tests.crash.soak --ci` makes 1,000, and 300 on s3."""

OTHERS = {"blackhole": 5, "delay": 10, "zombie": 50, "deaf": 50}


@pytest.mark.parametrize("store", list(COUNTS))
def test_whatever_is_cut_each_record_is_there_once(server: str) -> None:
    """Shows S1 (P1)."""
    report = report_of("connections", "--store", server, "--fault", "cut", "--count", COUNTS[server])
    counts = report["counts"]
    assert [] == report["violations"]
    assert counts["faults"] >= COUNTS[server]
    assert counts["written, though the answer was lost"] > COUNTS[server] // 20


@pytest.mark.parametrize("fault", list(OTHERS))
@pytest.mark.parametrize("store", list(COUNTS))
def test_what_comes_late_or_is_never_heard_of_is_there_once(server: str, fault: str) -> None:
    count = 20 if server == "s3" and OTHERS[fault] > 20 else OTHERS[fault]
    report = report_of("connections", "--store", server, "--fault", fault, "--count", count)
    assert [] == report["violations"]
    assert report["counts"]["faults"] >= count
    if fault in ("zombie", "deaf"):
        assert report["counts"]["written, though the answer was lost"] > 0


@pytest.mark.parametrize("fault", ["zombie", "deaf"])
@pytest.mark.parametrize("store", list(COUNTS))
def test_an_attempt_that_is_not_repeated_as_it_was_is_found(server: str, fault: str) -> None:
    options = ("--store", server, "--fault", fault, "--plant", "another attempt")
    report = report_of("connections", *options, "--count", 100)
    assert any("different" in text or "was written as" in text for text in report["violations"])
