"""Fifty thousand crashes of the JSONL store on a simulated disk, and proof that they find what is wrong."""

from __future__ import annotations

import json
import re

import pytest
from tests.crash.crash_ledger import UntypedError, Violation
from tests.crash.crash_plants import PLANTS, planted
from tests.crash.crash_states import SOMETIMES, explore, main, once_more

STATES = 5_000
SEEDS = range(1, 11)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_crash_undoes_what_was_told(seed: int) -> None:
    """Each of the ten parts meets every kind of fault. Shows S1, S10 (P1)."""
    met = explore(seed, STATES)
    assert [] == [name for name in SOMETIMES if not met[name]]


def explore_all(planted: str) -> None:
    """As many states as the test above."""
    for seed in SEEDS:
        explore(seed, STATES, planted=planted)


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_bug_is_found_by_crashes(name: str) -> None:
    with planted(name), pytest.raises(Violation) as found:
        explore_all(name)
    assert not isinstance(found.value, UntypedError), "the plant itself is broken"


def test_a_violation_is_found_again_by_the_command_that_it_names() -> None:
    with planted("no torn-tail cut"):
        with pytest.raises(Violation) as first:
            explore(2, STATES, planted="no torn-tail cut")
        command = first.value.__notes__[-1]
        found = re.search(
            r"--seed (\d+) --script (\d+) --step (\d+) --variant (\d+) --plant 'no torn-tail cut'", command
        )
        assert found is not None
        seed, script, step, variant = map(int, found.groups())
        with pytest.raises(Violation) as second:
            once_more(seed, script, step, variant, planted="no torn-tail cut")
    assert (str(first.value), first.value.__notes__) == (str(second.value), second.value.__notes__)


def test_a_seed_gives_the_same_states_again() -> None:
    assert explore(11, 300) == explore(11, 300)


def test_the_command_prints_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--states", "200", "--seed", "12"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert ([], 12) == (report["violations"], report["seed"])
    assert report["counts"]["states"] >= 200


def test_the_command_fails_when_a_promise_is_broken(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--states", "500", "--plant", "no directory fsync"]) == 1
    output = capsys.readouterr()
    assert "no directory fsync" == json.loads(output.out)["planted"]
    assert "again: python tests/crash/crash_states.py --seed 1 --script" in output.err
