"""A hundred thousand damaged lines and five thousand damaged directories; and proof that the fuzz can fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.crash import fuzz_lines
from tests.crash.corpus import corpus, digest
from tests.crash.fuzz import CHECKS, fuzz, main
from tests.crash.fuzz_plants import PLANTS, planted
from tests.crash.hostile import HOSTILE, check_hostile, places
from tests.crash.reports import Report

LINES, FILES, SEEDS = 100_000, 5_000, range(1, 6)
OF_LINES = (
    "scan: CorruptHistoryError: another record",
    "scan: CorruptHistoryError: checksum",
    "scan: CorruptHistoryError: envelope",
    "scan: CorruptHistoryError: no record",
    "scan: NewerFormatError",
    "scan: as the bytes say",
    "scan: torn",
    "scan: unchanged",
    "decode: CorruptHistoryError: checksum",
    "decode: CorruptHistoryError: no event",
    "decode: CorruptHistoryError: no record",
    "decode: NewerFormatError",
    "decode: as the bytes say",
    "decode: unchanged",
    "fold: CodecError",
    "fold: CorruptHistoryError: step without outcome",
    "fold: DivergenceError",
    "fold: NotFoundError",
    "fold: VersionMismatchError",
    "fold: folded",
)
"""What 20,000 damaged lines come to, each at least once."""

OF_FILES = (
    "CorruptHistoryError: another record",
    "CorruptHistoryError: checksum",
    "CorruptHistoryError: damaged fence",
    "CorruptHistoryError: file gone",
    "CorruptHistoryError: journal too short",
    "CorruptHistoryError: no JSON",
    "CorruptHistoryError: no file",
    "CorruptHistoryError: no record",
    "CorruptHistoryError: no whole record",
    "CorruptHistoryError: another journal",
    "CorruptHistoryError: records missing",
    "NewerFormatError",
    "NotFoundError",
    "another run's journal",
    "appended",
    "as the bytes say",
    "deleted",
    "driven",
    "gone",
    "head rebuilt",
    "nothing refused",
    "shorter prefix",
    "torn kept",
    "unchanged",
)
"""What 1,000 damaged directories come to, each at least once."""


def fuzzed(seed: int, what: str, count: int, expected: tuple[str, ...]) -> None:
    """Nothing is found, and everything that can happen does."""
    report = fuzz(Report("fuzz", "jsonl", "sync=off", seed), what, range(count))
    assert [] == report.violations
    assert [] == [name for name in expected if not report.counts[f"{what}: {name}"]]
    repaired = report.counts[f"{what}: repaired"]
    assert (count, count // 2) == (repaired + report.counts[f"{what}: not repaired"], repaired)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_damaged_line_is_refused_by_name_or_read_as_it_is(seed: int) -> None:
    """Shows S9 (P1)."""
    fuzzed(seed, "line", LINES // len(SEEDS), OF_LINES)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_damaged_directory_loses_and_alters_nothing_in_silence(seed: int) -> None:
    """Shows S9 (P1)."""
    fuzzed(seed, "file", FILES // len(SEEDS), OF_FILES)


def test_no_value_costs_more_than_its_size() -> None:
    """The bound is far above what any takes: it tells a power of the size from the size."""
    for name, journal, marked in places():
        for what, value in HOSTILE.items():
            began = time.process_time()
            check_hostile(journal, marked, value)
            assert time.process_time() - began < 3, f"{what} in {name}"


def test_every_process_has_the_same_corpus() -> None:
    """Or a seed would not bring the same damage again."""
    code = "from tests.crash.corpus import digest; print(digest())"
    root = Path(__file__).resolve().parents[2]
    paths = os.pathsep.join(str(root / part) for part in ("engine", "stores", "."))
    env = {**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": "77"}
    other = subprocess.run([sys.executable, "-c", code], env=env, cwd=root, capture_output=True, text=True, check=True)
    assert digest() == other.stdout.strip()


# ---- planted bugs


FOUND = (
    ("line", "CRC ignored", 50),
    ("file", "CRC ignored", 100),
    ("line", "damage taken for a torn tail", 50),
    ("file", "damage taken for a torn tail", 200),
    ("line", "torn tail taken for good", 200),
    ("file", "torn tail taken for good", 200),
    ("line", "journal split as text", 50),
    ("file", "journal split as text", 100),
    ("line", "position ignored", 200),
    ("file", "position ignored", 200),
    ("line", "decoder's own errors", 100),
    ("file", "torn tail cut without a copy", 200),
    ("file", "head not looked at", 200),
    ("file", "head trusted without CRC", 2_000),
    ("file", "fence trusted without CRC", 2_000),
)
"""What is fuzzed, the bug, and how many inputs must do to find it."""


def test_each_planted_bug_is_looked_for() -> None:
    assert PLANTS.keys() == {name for _, name, _ in FOUND}


@pytest.mark.parametrize(("what", "name", "count"), FOUND)
def test_a_planted_bug_is_found(what: str, name: str, count: int) -> None:
    corpus()
    for index in range(count):
        with planted(name):
            wrong = found(what, index)
        if wrong and not found(what, index):
            return
    pytest.fail(f"{count} inputs did not find it")


def test_the_command_stops_at_the_first_finding_and_tells_the_bug(capsys: pytest.CaptureFixture[str]) -> None:
    assert 1 == main(["--files", "500", "--plant", "CRC ignored", "--first"])
    told = json.loads(capsys.readouterr().out)
    assert ("CRC ignored", 1) == (told["planted"], told["counts"]["violations"])
    assert 1 <= told["counts"]["files"] <= 500
    assert f"--file {told['counts']['files'] - 1} --plant 'CRC ignored'" in told["violations"][0]
    assert 0 == main(["--file", str(told["counts"]["files"] - 1)])


def found(what: str, index: int) -> list[str]:
    """What is wrong with one input."""
    return fuzz(Report("fuzz", "jsonl", "sync=off", 0), what, (index,)).violations


def test_a_finding_tells_how_to_run_it_again(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """The command prints one line of JSON, and its exit code says whether something was found."""
    assert 0 == main(["--seed", "0", "--line", "0"])
    assert 1 == json.loads(capsys.readouterr().out)["counts"]["lines"]

    def broken(seed: int, index: int) -> Counter[str]:
        raise fuzz_lines.Finding("something was altered")

    monkeypatch.setitem(CHECKS, "file", broken)
    assert 1 == main(["--seed", "5", "--lines", "3", "--file", "7"])
    printed = capsys.readouterr().out
    assert 1 == printed.count("\n")
    told = json.loads(printed)
    assert (3, 1) == (told["counts"]["lines"], told["counts"]["files"])
    assert ["something was altered; again: python tests/crash/fuzz.py --seed 5 --file 7"] == told["violations"]
