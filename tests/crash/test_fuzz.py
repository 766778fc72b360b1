"""A hundred thousand damaged lines and five thousand damaged directories; and proof that the fuzz can fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from tests.crash import fuzz_lines
from tests.crash.corpus import corpus, digest
from tests.crash.fuzz import CHECKS, fuzz, main
from tests.crash.hostile import HOSTILE, check_hostile, places
from tests.crash.reports import Report

from stepwell import sealing, wire
from stepwell_stores import jsonl_files, jsonl_journal, jsonl_runs, rules

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
    "CorruptHistoryError: no record",
    "CorruptHistoryError: no whole record",
    "CorruptHistoryError: another journal",
    "CorruptHistoryError: records missing",
    "NewerFormatError",
    "NotFoundError",
    "StoreMisconfiguredError",
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
    fuzzed(seed, "line", LINES // len(SEEDS), OF_LINES)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_damaged_directory_loses_and_alters_nothing_in_silence(seed: int) -> None:
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


def ignore_crc(patch: pytest.MonkeyPatch) -> None:
    for module in (sealing, rules, wire):
        patch.setattr(module, "open_body", lambda line, place="": line[:-18])


def keep_torn_as_record(patch: pytest.MonkeyPatch) -> None:
    patch_scan(patch, lambda found: evolve(found, lines=[*found.lines, found.torn], torn=b"") if found.torn else found)


def split_at_every_line_end(patch: pytest.MonkeyPatch) -> None:
    """What reading the journal as text does."""

    class Text(bytes):
        def split(self, *_: Any) -> list[bytes]:
            lines = self.decode("utf-8", "surrogateescape").splitlines()
            return [line.encode("utf-8", "surrogateescape") for line in [*lines, ""]]

    scan = jsonl_journal.scan
    for module in (jsonl_journal, jsonl_runs):
        patch.setattr(module, "scan", lambda data, path: scan(Text(data), path))


def ignore_seq(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(jsonl_journal, "verified", lambda line, seq, place: sealing.open_body(line, place))


def let_the_decoder_raise(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fuzz_lines, "read_event", lambda line, place: wire._decoder.decode(line))


def cut_without_a_copy(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(jsonl_files.Directory, "keep_aside", lambda self, name, torn: None)


def forget_the_head(patch: pytest.MonkeyPatch) -> None:
    """So that nothing knows how long a journal was."""
    patch.setattr(jsonl_runs.Runs, "cached", lambda self, stem: None)


def patch_scan(patch: pytest.MonkeyPatch, change: Callable[[jsonl_journal.Scan], jsonl_journal.Scan]) -> None:
    scan = jsonl_journal.scan
    for module in (jsonl_journal, jsonl_runs):
        patch.setattr(module, "scan", lambda data, path: change(scan(data, path)))


PLANTS: tuple[tuple[str, Callable[[pytest.MonkeyPatch], None], int], ...] = (
    ("line", ignore_crc, 50),
    ("file", ignore_crc, 100),
    ("line", keep_torn_as_record, 200),
    ("file", keep_torn_as_record, 200),
    ("line", split_at_every_line_end, 50),
    ("file", split_at_every_line_end, 100),
    ("line", ignore_seq, 200),
    ("file", ignore_seq, 200),
    ("line", let_the_decoder_raise, 100),
    ("file", cut_without_a_copy, 200),
    ("file", forget_the_head, 200),
)
"""What is fuzzed, the bug, and how many inputs must do to find it."""


@pytest.mark.parametrize(("what", "plant", "count"), PLANTS, ids=lambda value: getattr(value, "__name__", None))
def test_a_planted_bug_is_found(
    what: str, plant: Callable[[pytest.MonkeyPatch], None], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus()
    for index in range(count):
        with monkeypatch.context() as patch:
            plant(patch)
            planted = found(what, index)
        if planted and not found(what, index):
            return
    pytest.fail(f"{count} inputs did not find it")


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
