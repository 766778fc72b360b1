"""What a simulation does where the process dies between the outcomes of branches, and where it goes on for ever."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from stepwell import All, ContinueAsNew, Flow, InvalidInputError, Patched, Step, loading, workflow
from stepwell.testing import SimulationError, simulate, staging


def draft(text: str) -> str:
    raise AssertionError("a simulation performs nothing")


def charge(amount: int) -> str:
    raise AssertionError("a simulation performs nothing")


def weigh(text: str) -> int:
    raise AssertionError("a simulation performs nothing")


@workflow
def asked(amount: int) -> Flow[list[Any]]:
    """What its branches come to is written one by one, since each may bring up the Patched."""
    once = Step(charge, amount).options(at_most_once=True)
    pair = yield from All(Step(draft, "a"), Step(weigh, "b"))
    paid = yield from All(once, once)
    return [*pair, *paid, (yield from Patched("later"))]


def test_a_step_that_was_not_recorded_may_run_again() -> None:
    """A death between the records of two branches repeats what was not recorded, and it is answered the same."""
    run = simulate(asked, 5, fakes={draft: ["A"], weigh: [7], charge: ["paid", "too"]}, crash_after="every")
    assert ["A", 7, "paid", "too", True] == run.result
    assert ["draft", "weigh", "charge", "charge#2"] == list(dict.fromkeys(call.step_id for call in run.calls))
    assert 2 == sum(call.step_id == "weigh" for call in run.calls)
    assert 1 == sum(call.step_id == "charge#2" for call in run.calls), "at most once"


def test_a_recorded_step_that_runs_again_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A history that is read without its last step is one that performs it again."""
    read = vars(loading)["read_tail"]

    def shorter(tail: Any, run_id: str) -> list[Any]:
        found: list[Any] = read(tail, run_id)
        return found[:-1] if found[-1].kind == "step" else found

    @workflow
    def short(text: str) -> Flow[str]:
        return (yield from Step(draft, text))

    monkeypatch.setattr(loading, "read_tail", shorter)
    with pytest.raises(SimulationError, match=r"step 'draft' ran again \(attempt 1\) after a crash, though recorded"):
        simulate(short, "t", fakes={draft: "d"}, crash_after="every")


def test_a_workflow_in_which_no_time_passes_is_not_followed_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "_MOST_EVENTS", 50)

    @workflow
    def for_ever(number: int) -> Flow[None]:
        yield Step(draft, "again")
        yield ContinueAsNew(number + 1)

    with pytest.raises(SimulationError, match=r"5. events are recorded.*until=timedelta"):
        simulate(for_ever, 1, fakes={draft: "x"}, until=timedelta(days=1))


@pytest.mark.parametrize("name", ["fakes", "signals"])
def test_what_is_no_mapping_is_refused(name: str) -> None:
    wrong: Any = {name: [5]}
    with pytest.raises(InvalidInputError, match=rf"{name} takes a mapping, such as .*got \[5\]"):
        simulate(asked, 5, **wrong)
