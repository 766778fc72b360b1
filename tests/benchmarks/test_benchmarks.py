"""The benchmarks run, and every question to a big store is answered by an index. No time is looked at."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tests.benchmarks import __main__ as benchmarks
from tests.benchmarks import plan, processes
from tests.benchmarks.bench import QUICK
from tests.benchmarks.measures import Start
from tests.benchmarks.peers import plan as peers
from tests.benchmarks.peers.environments import Environment, EnvironmentFailed
from tests.benchmarks.rows import Figure, Report, row_of
from tests.benchmarks.table import markdown
from tests.benchmarks.work_crowd import QUESTIONS, claim, crowd, fill

LOCAL = ("sqlite", "jsonl", "memory")
SMALL = {"stepwell_runs_leased"}
"""Partial indexes: of the runs that are being driven, and of those that the code does not fit. They are read whole."""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    work, file = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("benchmarks") / "figures.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmarks, "WORK", work)
        assert 0 == benchmarks.main(["--quick", "--no-peers", "--store", *LOCAL, "--repeat", "1", "--json", str(file)])
    assert [] == list(work.iterdir()), "the command leaves nothing behind"
    return Report.read(file)


def test_each_workload_has_a_value_beside_its_floor_and_says_how_durable_it_is(report: Report) -> None:
    expected = {
        (figure.workload, figure.case, workload.system, workload.store)
        for workload in plan.workloads(QUICK, LOCAL)
        for figure in workload.figures
    }
    assert expected == {(row.workload, row.case, row.system, row.store) for row in report.rows}
    for row in report.rows:
        assert row.value is not None, row
        assert row.value > 0, row
        assert row.floor is not None, row
        assert row.floor > 0, row
        assert row.ratio is not None, row
        assert row.ratio > 0, row
        assert row.durability, row
        assert row.unit, row
        assert row.floor_means, row


def test_commits_are_counted(report: Report) -> None:
    """A step is one durable write, a run of three steps five, and a signal with what follows two."""
    found = {(row.workload, row.store): row.commits for row in report.rows if row.commits is not None}
    assert 1 == found[plan.TITLES["steps"].format(QUICK.steps), "sqlite"]
    assert 1 == found[plan.TITLES["steps"].format(QUICK.steps), "jsonl"]
    assert 5 == found[plan.TITLES["runs"].format(QUICK.runs), "sqlite"]
    assert 2 == found[plan.TITLES["signal"].format(100), "sqlite"]


def test_the_machine_is_described_without_a_date_or_a_place(report: Report) -> None:
    known = {
        "cpu",
        "cores",
        "memory_gb",
        "system",
        "kernel",
        "file_system",
        "server_file_system",
        "python",
        "sqlite",
        "packages",
    }
    assert known == set(report.machine)


def test_a_report_becomes_tables_of_markdown(report: Report) -> None:
    text = markdown(report, [plan.TITLES["steps"].format(QUICK.steps)])
    assert f"### One run of {QUICK.steps} steps" in text
    assert "| system | store | durability | value |" in text
    assert "WAL, synchronous=FULL" in text
    assert 1 == text.count("###")


def test_a_ratio_is_taken_between_the_floors_beside_each_value() -> None:
    figure = Figure("workload", "steps/s", "rate", "rate")
    values: list[dict[str, Any]] = [{"rate": n, "durability": "none"} for n in (10, 20, 60)]
    floors = [{"rate": n} for n in (10, 30, 50, 70)]
    row = row_of(figure, values, floors, system="s", store="t", counted={}, counts={})
    assert (20, 10, 60) == (row.value, row.low, row.high)
    assert 0.5 == row.ratio  # of 10/20, 20/40 and 60/60


def test_every_peer_has_a_row_for_each_workload(tmp_path: Path) -> None:
    """What a peer can't do has a row that says why."""
    for name in peers.NAMES:
        found = list(peers.workloads(QUICK, [name], tmp_path))
        assert {*plan.NAMES} - {"wrapped"} == {workload.name for workload in found}  # nobody else has such stores
        assert all(workload.figures for workload in found)
        pins = Environment(name, tmp_path).requirements.read_text("utf-8").split()
        assert all(line.count("==") == 1 for line in pins)


def run_with(patch: pytest.MonkeyPatch, work: Path, *options: str) -> tuple[int, Report]:
    """The command with nothing to measure but what `patch` has put there."""
    patch.setattr(benchmarks, "WORK", work)
    code = benchmarks.main(["--quick", "--json", str(work / "figures.json"), *options])
    return code, Report.read(work / "figures.json")


def test_a_workload_that_fails_is_an_error_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Start("start", "stepwell", "sqlite", (Figure("broken", "ms", "value"),))
    monkeypatch.setattr(Start, "floor", lambda *_: processes.child("floors.page", database="", rows=1, times=1))
    monkeypatch.setattr(plan, "workloads", lambda *_: [broken])
    code, report = run_with(monkeypatch, tmp_path)
    assert 1 == code
    assert ["broken"] == [row.workload for row in report.failed]
    assert "OperationalError" in str(report.rows[0].error)


def test_a_peer_that_can_not_be_installed_is_an_error_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_environment: Environment) -> None:
        raise EnvironmentFailed("no such package")

    monkeypatch.setattr(Environment, "make", fails)
    monkeypatch.setattr(plan, "workloads", lambda *_: [])
    code, report = run_with(monkeypatch, tmp_path, "--peers")
    assert 1 == code
    assert {*peers.NAMES} == {row.system for row in report.failed}


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = str(tmp_path_factory.mktemp("crowd"))
    fill(directory, 4000)
    return directory


@pytest.mark.parametrize("name", [*QUESTIONS, "claim"])
def test_every_question_to_a_big_store_is_answered_by_an_index(name: str, crowded: str) -> None:
    """The statements are those that SQLite was really given, and the plan is SQLite's own."""
    ask = {**QUESTIONS, "claim": claim}[name]
    asked: list[str] = []
    with crowd(crowded) as engine:
        ask(engine)  # opens the connections
        database: Any = engine.store
        for handle in (database._database._reader, database._database._writer):
            if handle.db is not None:
                handle.db.set_trace_callback(asked.append)
        ask(engine)
    questions = [text for text in asked if "stepwell_runs" in text and not text.startswith("EXPLAIN")]
    assert questions
    db = sqlite3.connect(f"{crowded}/runs.db")
    for question in dict.fromkeys(questions):
        steps = [str(row[3]) for row in db.execute(f"EXPLAIN QUERY PLAN {question}")]
        assert any("INDEX" in step or "PRIMARY KEY" in step for step in steps), f"{question}: {steps}"
        scanned = [step for step in steps if step.startswith("SCAN ") and "VIRTUAL TABLE" not in step]
        scanned = [step for step in scanned if step != "SCAN kinds"]  # what a query makes by itself, row by row
        allowed = {*SMALL, "stepwell_runs_created"} if name == "list" else SMALL
        assert {step.partition("USING INDEX ")[2] for step in scanned} <= allowed, f"{question}: {steps}"
        assert not any("TEMP B-TREE" in step for step in steps), f"{question}: {steps}"
    db.close()
