"""Properties of the fold, found by Hypothesis: small trees, any answers, and histories that shrink."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.property.schedules import fold, signature
from tests.property.trees import SIGNALS, wander

from stepwell import commands as c
from stepwell import events as e
from stepwell.codec import Codec
from stepwell.errors import DivergenceError
from stepwell.testing import WrongAnswerError, cancel, cancelled, fired, patched, raised, received, replay, returned
from stepwell.testing.replaying import Replay

seeds = st.integers(0, 2**32 - 1)
choices = st.lists(st.integers(0, 10**6), max_size=60)


def answers_of(run: Replay[Any], choice: int) -> list[Any]:
    """Everything that may happen next, by the frontier."""
    if run.machine.asking is not None:
        return [patched()]
    found: list[Any] = []
    for pending in run.machine.pending.values():
        command, at = pending.command, pending.at
        if isinstance(command, c.Step):
            found.append(cancelled(at=at) if pending.cancelling else returned(f"{command.name}!", at=at))
            found += [] if pending.cancelling else [raised(ConnectionError("no"), at=at)]
        elif isinstance(command, c.Sleep) or (isinstance(command, c.Suspend) and command.timeout is not None):
            found.append(fired(at=at))
        elif isinstance(command, c.Random):
            found.append(returned(0.5, at=at))
        elif isinstance(command, (c.Now, c.Uuid)):
            found.append(None)
    return found


def drive(seed: int, picks: list[int]) -> Replay[Any]:
    """Run a tree, taking at each point one of the things that may happen."""
    run: Replay[Any] = replay(wander, seed, True, True)
    for pick in picks:
        if run.status != "open":
            break
        if pick % 7 == 0:
            run.feed(received(SIGNALS[pick % 3], pick))
            continue
        if pick % 41 == 0:
            run.feed(cancel())
            continue
        found = [a for a in answers_of(run, pick) if a is not None] or [received(SIGNALS[pick % 3], pick)]
        run.feed(found[pick % len(found)])
    return run


@given(seeds, choices)
@settings(max_examples=200, deadline=None)
def test_any_prefix_of_any_history_folds_to_one_state(seed: int, picks: list[int]) -> None:
    """The fold is a function of the events: fed at once or one by one, now or later, it comes to the same.

    Shows S6 (P3).
    """
    run = drive(seed, picks)
    codec = Codec()
    grown = fold(codec, run.events[:1])
    for n, event in enumerate(run.events[1:], 2):
        grown.feed(event)
        if n % 5 == 0 or n == len(run.events):
            fresh = fold(codec, run.events[:n])
            assert signature(fresh) == signature(grown)
            fresh.close()
    assert signature(grown) == signature(run.machine)
    grown.close()
    run.close()


@given(seeds, choices, st.integers(0, 59))
@settings(max_examples=200, deadline=None)
def test_an_event_that_answers_nothing_leaves_the_machine_as_it_was(seed: int, picks: list[int], where: int) -> None:
    """A divergence is found before anything changes, so the right event can still be fed."""
    run = drive(seed, picks[:where])
    if run.machine.asking is None:
        before = signature(run.machine)
        for wrong in (
            e.Step(at="99.9", step_id="x", name="x", attempts=1, started="", error=None),
            e.Now(at="77", value="2026-01-01T00:00:00.000000Z"),
            e.Cancelled(at="88"),
        ):
            with pytest.raises(DivergenceError) as caught:
                run.machine.feed(wrong)
            assert run.machine.seq == caught.value.seq
            assert before == signature(run.machine)
    run.close()


@given(seeds, choices)
@settings(max_examples=100, deadline=None)
def test_paths_are_unique_and_issued_in_order_within_their_fiber(seed: int, picks: list[int]) -> None:
    """No path is issued twice, and the numbers of a fiber have no gap."""
    run = drive(seed, picks)
    ats = [at for at, _ in run.commands]
    assert len(ats) == len(set(ats))
    counts: dict[str, int] = {}
    for at in ats:
        fiber, _, number = at.rpartition(".")
        assert int(number) == counts.get(fiber, 0)
        counts[fiber] = int(number) + 1
    run.close()


@given(seeds)
@settings(max_examples=60, deadline=None)
def test_a_wrong_answer_says_what_is_waited_for(seed: int) -> None:
    """An answer for a path that is not there fails with the commands so far."""
    run = replay(wander, seed, True, True)
    with pytest.raises(WrongAnswerError, match="commands so far"):
        run.feed(returned("x", at="no such path"))
    run.close()


def test_trees_differ_and_meet_every_command() -> None:
    """The generator of trees is worth its name."""
    kinds: set[str] = set()
    for seed in range(300):
        run = drive(seed, [random.Random(seed).randrange(10**6) for _ in range(60)])
        kinds |= {type(command).__name__ for _, command in run.commands}
        run.close()
    assert {"Step", "Suspend", "Sleep", "Now", "Random", "Uuid", "All", "Race", "Emit"} <= kinds
