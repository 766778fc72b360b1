"""What was measured is kept: as it comes, and whatever else is measured anew."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from tests.crash import soak
from tests.crash.soak import JOBS, Job, main, name_of

PLAIN = Job("fuzz", count="--lines", ci=10, soak=1_000)
PLANTED = Job("fuzz", ("--plant", "CRC ignored"), "--lines", 10, 1_000, loses=True)
CALLS = Job("store_calls", ("--store", "memory"))


@pytest.fixture(autouse=True)
def _jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "JOBS", (PLAIN, PLANTED, CALLS))


def kept(file: Path) -> dict[str, Any]:
    """The violations that the file tells of, by the name of the job."""
    rows = json.loads(file.read_text("utf-8"))
    return {name_of(row["command"]): row["violations"] for row in rows}


def put(file: Path, *jobs: Job) -> None:
    """A file of earlier reports, which all tell of 7 violations."""
    rows = [{"job": job.harness, "command": f"{job.name} 99", "violations": 7} for job in jobs]
    file.write_text(json.dumps(rows), "utf-8")


def test_a_job_has_one_name_whatever_its_count() -> None:
    assert len({job.name for job in JOBS}) == len(JOBS)
    for job in JOBS:
        assert {job.name} == {name_of(shlex.join(["python", *job.command(ci=ci)])) for ci in (True, False)}


def test_only_what_was_measured_anew_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "measured.json"
    put(file, PLAIN, PLANTED, CALLS, Job("gone"))
    assert 0 == main(["--ci", "--match", "CRC ignored", "--output", str(file)])
    found = kept(file)
    assert {PLAIN.name: 7, CALLS.name: 7} == {name: found.get(name) for name in (PLAIN.name, CALLS.name)}
    assert {PLAIN.name, PLANTED.name, CALLS.name} == found.keys()
    assert found[PLANTED.name] != 7


def test_what_was_measured_before_an_interrupt_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "measured.json"
    put(file, CALLS)
    run = soak.run

    def interrupted(job: Job, **how: Any) -> dict[str, Any]:
        if job is PLANTED:
            raise KeyboardInterrupt
        return run(job, **how)

    monkeypatch.setattr(soak, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        main(["--ci", "--output", str(file)])
    assert {PLAIN.name: 0, CALLS.name: 7} == kept(file)


def test_a_planted_bug_that_is_not_found_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "JOBS", (Job("fuzz", count="--lines", ci=10, loses=True),))
    assert 1 == main(["--ci", "--output", str(tmp_path / "measured.json")])
