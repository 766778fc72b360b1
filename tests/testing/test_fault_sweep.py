"""Whichever call of a store fails, in whichever way, a workflow ends as it does when none fails."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from itertools import count
from typing import get_args

import pytest

from stepwell import recorder
from stepwell.testing import Fault
from stepwell.testing.fault_plans import FaultKind

from .fault_stories import STORIES, tell

SETTLED = {"not_applied", "unknown", "lost", "latency"}
"""What an engine copes with by itself: nobody hears of it."""

CASES = [(name, store) for name, story in STORIES.items() for store in story.stores]


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "stepwell")  # it warns of every fault


def sweep(name: str, store: str, kind: FaultKind) -> Iterator[str]:
    """What is wrong after each call of a story has failed once; an empty text for each time that all is well."""
    story = STORIES[name]
    _, undisturbed, ends = tell(story, store)
    assert ([], []) == (undisturbed.told, undisturbed.repeated)
    assert story.steps == sum(len(steps) for end in ends.values() for steps in end["steps"])
    once_more = undisturbed.effects + Counter(undisturbed.effects.keys())
    for nth in count(1):
        failing, world, found = tell(story, store, Fault(kind, nth=nth, seconds=2))
        if not failing.injected:
            return
        wrong = []
        if ends != found:
            wrong.append(f"it ends as {found}, not as {ends}")
        if world.repeated:
            wrong.append(f"performed though they were recorded: {world.repeated}")
        if kind in SETTLED and (world.told or undisturbed.effects != world.effects):
            wrong.append(f"somebody heard of it: {world.told}, {world.effects}")
        if not world.effects <= once_more:
            wrong.append(f"performed too often: {world.effects}")
        yield f"{failing}: {'; '.join(wrong)}" if wrong else ""


@pytest.mark.parametrize("kind", get_args(FaultKind))
@pytest.mark.parametrize(("name", "store"), CASES)
def test_each_fault_at_each_call_leads_to_the_same_end(name: str, store: str, kind: FaultKind) -> None:
    found = list(sweep(name, store, kind))
    assert [] == [wrong for wrong in found if wrong]
    assert len(found) > 1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("name", "store"), CASES)
def test_many_faults_by_chance_lead_to_the_same_end(name: str, store: str, seed: int) -> None:
    story = STORIES[name]
    ends = tell(story, store)[2]
    plan = [Fault(kind, rate=0.05, seconds=2, times=1) for kind in get_args(FaultKind)]
    failing, world, found = tell(story, store, *plan, seed=seed)
    assert ends == found, repr(failing)
    assert [] == world.repeated, repr(failing)


# ---- bugs that have to be found


def test_a_session_that_gives_up_at_once_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "TRIES", 1)  # so the next session performs again what was not recorded
    assert any("somebody heard of it" in wrong for wrong in sweep("triage", "memory", "unknown"))
