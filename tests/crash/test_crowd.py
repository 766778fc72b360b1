"""Many threads of one process on one store, killed anywhere: `tests.crash.crowd`, as often as a commit can afford."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.crash.calling import reached, report_of
from tests.crash.crowd_judge import Crowds
from tests.crash.crowd_story import FileWitness, Ledger, Line, amount_of, lines_of, make_errand, told_by

from stepwell import Engine

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

SIGNS = (" lost", "was performed after", "recorded", "at the end", "came to", "did not come to its end", "no run")
"""What violations say that follow from a bug, rather than from a harness that is broken."""

GROUPS = ("a group of 2", "a group of 3 and more", "sync of a group failed", "write of a group failed")


SEEDS = (1, 2, 3, 4, 5)


@pytest.mark.parametrize("store", ["jsonl", "sqlite"])
def test_a_crowd_that_is_killed_loses_and_repeats_nothing(store: str) -> None:
    """With as many seeds as it takes to see all states: which thread runs when, on a busy machine, nobody knows.

    Shows S1 (P1).
    """
    wanted = ["runs ended", "steps repeated after a kill", "recovered by a next process"]
    if store == "sqlite":
        wanted += [*GROUPS, "killed in a shared transaction"]
    counts: Counter[str] = Counter()
    for seed in SEEDS:
        report = report_of("crowd", "--store", store, "--count", 24, "--seed", seed)
        assert [] == report["violations"]
        assert report["counts"]["kills"] >= 24
        counts.update(report["counts"])
        if all(counts[name] for name in wanted):
            break
    reached({"counts": counts}, *wanted)
    if store == "sqlite":
        assert counts["shared transactions"] > 5 * counts["kills"]


@pytest.mark.parametrize(
    "planted",
    ["failed commit told as done", "follower dropped", "follower told before the commit", "follower written twice"],
)
def test_a_bug_in_a_group_commit_is_found(planted: str) -> None:
    report = report_of("crowd", "--store", "sqlite", "--count", 60, "--plant", planted)
    assert [] != [text for text in report["violations"] if any(sign in text for sign in SIGNS)]


@pytest.mark.parametrize("planted", ["ack before write", "recorded step runs again"])
def test_a_bug_of_any_store_is_found(planted: str) -> None:
    assert [] != report_of("crowd", "--store", "jsonl", "--count", 60, "--plant", planted)["violations"]


def test_a_crowd_without_a_shared_transaction_has_shown_nothing() -> None:
    report = report_of("crowd", "--store", "sqlite", "--count", 4, "--plant", "no shared transactions")
    assert ["no transaction was ever shared, so nothing was tried"] == report["violations"]


# ---- the judge

RUN = "r0-0-2"


@pytest.fixture
def told(tmp_path: Path) -> Iterator[tuple[Engine, Crowds, list[Line]]]:
    """A store with one run that has come to its end, and what is known of it."""
    witness = FileWitness(tmp_path / "witness")
    errand = make_errand(witness, Ledger(tmp_path / "ledger", 0, lambda: None))
    with Engine("memory:", [errand]) as engine:
        engine.start(errand, 2, run_id=RUN)
        witness.begun(RUN)
        for number in (1, 0):
            engine.resume(RUN, "pay", amount_of(RUN, number), id=f"p{number}")
            witness.signal(RUN, f"p{number}")
        witness.done(RUN, engine.get(RUN).result)
        crowds = Crowds(planned={RUN})
        assert [] == list(crowds.take(told_by(tmp_path / "witness")))
        yield engine, crowds, list(lines_of(tmp_path / "ledger"))


def test_the_judge_agrees_with_a_run_that_is_right(told: tuple[Engine, Crowds, list[Line]]) -> None:
    engine, crowds, lines = told
    assert [] == list(crowds.judge(engine.store, lines, ended=True))
    assert [] == crowds.left()
    assert 3 == len(lines)


WRONG: dict[str, Callable[[Crowds, list[Line]], object]] = {
    "begun and is lost": lambda crowds, _: crowds.begun.add("r9-9-0"),
    "begun by nobody": lambda crowds, _: crowds.planned.clear(),
    "is not there at the end": lambda crowds, _: crowds.planned.add("r9-9-0"),
    "was said to come to": lambda crowds, _: crowds.done.update({RUN: [0]}),
    "and the ledger has": lambda _, lines: lines.append(Line(1, RUN, "third", "0" * 16, lines[1].token)),
    "was performed after": lambda _, lines: lines.append(Line(0, RUN, "third", *_of(lines[2]))),
    "was performed after second": lambda _, lines: lines.insert(2, Line(1, RUN, "first", *_of(lines[0]))),
    "began with step second": lambda _, lines: lines.pop(0),
    "was given": lambda _, lines: lines.insert(3, Line(1, RUN, "third", lines[2].token, "0" * 16)),
}


def _of(line: Line) -> tuple[str, str]:
    return line.token, line.before


@pytest.mark.parametrize("text", WRONG)
def test_the_judge_finds_what_does_not_agree(text: str, told: tuple[Engine, Crowds, list[Line]]) -> None:
    engine, crowds, lines = told
    WRONG[text](crowds, lines)
    assert any(text in found for found in crowds.judge(engine.store, lines, ended=True))


def test_a_sum_that_is_wrong_is_found(tmp_path: Path) -> None:
    errand = make_errand(FileWitness(None), Ledger(tmp_path / "ledger", 0, lambda: None))
    with Engine("memory:", [errand]) as engine:
        engine.start(errand, 2, run_id=RUN)
        for times in range(2):
            engine.resume(RUN, "pay", amount_of(RUN, 1), id=f"p{times}")  # the same twice, and the other one never
        found: list[Any] = list(Crowds(planned={RUN}).judge(engine.store, lines_of(tmp_path / "ledger"), ended=True))
    assert any("is right" in text for text in found)


def test_a_line_that_was_cut_short_is_no_performance(tmp_path: Path) -> None:
    (tmp_path / "ledger").write_text("\n0 r0-0-0 first 00112233445566")
    Ledger(tmp_path / "ledger", 1, lambda: None).enter("r0-0-0", "first", "-")
    assert [1] == [line.life for line in lines_of(tmp_path / "ledger")]
