"""A store whose n-th call fails, for every n, in every way."""

from __future__ import annotations

import logging

import pytest
from tests.crash import sqlite_vfs
from tests.crash.calling import report_of
from tests.crash.reports import Report
from tests.crash.store_calls import ERRNOS, FAULTS, RESULTS, Fault, NewAttempts, sweep
from tests.crash.store_scenarios import SCENARIOS

from stepwell import recorder

STORES = ("memory", "jsonl", "sqlite")
needs_vfs = pytest.mark.skipif(sqlite_vfs.missing() is not None, reason=str(sqlite_vfs.missing()))
BELOW = [
    pytest.param("jsonl", ERRNOS, 7, id="jsonl-system"),
    pytest.param("sqlite", ERRNOS, 2, id="sqlite-system"),
    pytest.param("sqlite", RESULTS, 3, id="sqlite-files", marks=needs_vfs),
]
"""Store, faults, stride. A story has hundreds of calls for JSONL's files: each fails with one of the errnos here, and
with all of them in the soak."""


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "stepwell")  # it warns of every fault


def fault(name: str) -> tuple[Fault, ...]:
    """The fault of a name at the port."""
    return tuple(one for one in FAULTS if one.name == name)


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("store", STORES)
def test_whichever_call_of_the_port_fails_the_run_comes_to_its_right_end(store: str, scenario: str) -> None:
    """Shows S18 (P7)."""
    report = Report("store calls", store, "port", 0)
    sweep(report, SCENARIOS[scenario], FAULTS)
    assert [] == report.violations
    reached = (
        "not applied",
        "unknown, written",
        "unknown, not written",
        "store error after",
        "fenced by another owner",
    )
    assert [] == [name for name in reached if not report.counts[name]]
    assert report.counts["told"] > 0


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize(("store", "faults", "stride"), BELOW)
def test_whichever_call_below_the_port_fails_the_run_comes_to_its_right_end(
    store: str, faults: tuple[Fault, ...], stride: int, scenario: str
) -> None:
    """Shows S18 (P7)."""
    report = Report("store calls", store, "system", 0)
    sweep(report, SCENARIOS[scenario], faults, stride=stride)
    assert [] == report.violations
    assert report.counts["faults"] > len(faults)


# ---- bugs that have to be found


@pytest.mark.parametrize("store", STORES)
def test_a_step_that_runs_again_when_an_append_is_unknown_is_found(store: str) -> None:
    story = ("--scenario", "a straight run")
    report = report_of("store_calls", "--store", store, *story, "--plant", "re-run on Unknown")
    assert "re-run on Unknown" == report["planted"]
    for outcome in ("unknown, written", "unknown, not written"):
        text = f"a straight run, {outcome}, call 2 (append): step one was performed 2 times, not 1"
        assert text in report["violations"]


@pytest.mark.parametrize("store", STORES)
def test_a_session_that_gives_up_when_an_append_is_unknown_is_found(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "TRIES", 1)  # the next session performs the step again
    report = Report("store calls", store, "port", 0)
    sweep(report, SCENARIOS["a straight run"], fault("unknown, not written"))
    assert any("was performed 2 times, not 1" in text for text in report.violations)


@pytest.mark.parametrize(
    ("scenario", "text"),
    [("a straight run", "step one is recorded 2 times"), ("pause and unpause", "pause is recorded 2 times")],
)
@pytest.mark.parametrize("store", STORES)
def test_a_new_attempt_in_place_of_the_same_one_is_found(store: str, scenario: str, text: str) -> None:
    report = Report("store calls", store, "port", 0)
    sweep(report, SCENARIOS[scenario], fault("unknown, written"), wrap=NewAttempts)
    assert any(text in violation for violation in report.violations)
