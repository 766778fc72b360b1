"""Servers that die under writers: `tests.crash.server_deaths`, as often as each commit can afford."""

from __future__ import annotations

import pytest
from tests.crash.calling import reached, report_of

HOWS = [
    ("postgres", "kill", 4),
    ("postgres", "backend", 4),
    ("postgres", "restart", 2),
    ("postgres", "power", 4),
    ("redis", "kill", 10),
    ("redis", "restart", 4),
    ("redis", "power", 20),
]
"""`tests.crash.soak --ci` has Postgres die 10 times of each."""


@pytest.mark.parametrize(("store", "how", "count"), HOWS)
def test_what_a_server_acknowledged_before_it_died_is_there(server: str, how: str, count: int) -> None:
    """Shows S1 (P1)."""
    report = report_of("server_deaths", "--store", server, "--how", how, "--count", count)
    assert [] == report["violations"]
    assert count == report["counts"]["deaths"]
    assert report["facts"]["power loss declared"] is True
    reached(report, "runs ended")


@pytest.mark.parametrize(
    ("store", "how", "setting", "declared"),
    [
        ("postgres", "power", "fsync=off", False),
        ("redis", "power", "appendfsync=everysec", False),
        ("redis", "kill", "appendonly=no", False),
    ],
)
def test_a_setting_that_keeps_nothing_says_so_and_loses_it(server: str, how: str, setting: str, declared: bool) -> None:
    report = report_of("server_deaths", "--store", server, "--how", how, "--setting", setting, "--count", 6)
    assert report["facts"]["power loss declared"] is declared
    assert any("is lost" in text or "does not start" in text for text in report["violations"])


@pytest.mark.parametrize(("store", "how"), [("postgres", "kill"), ("postgres", "power")])
def test_a_commit_that_does_not_wait_for_the_disk_is_found(server: str, how: str) -> None:
    options = ("--store", server, "--how", how, "--plant", "synchronous_commit=off")
    report = report_of("server_deaths", *options, "--count", 6)
    assert any("is lost" in text for text in report["violations"])
