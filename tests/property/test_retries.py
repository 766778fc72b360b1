"""Retry and fork against failures anywhere in random trees: the run ends as the one that never failed."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from tests.property.schedules import Pool
from tests.property.trees import wander

from stepwell import Engine, RunCompleted, RunFailed
from stepwell import events as e
from stepwell.environment import Environment
from stepwell.testing import SeededEntropy, VirtualClock
from stepwell_stores.memory import MemoryStore


class Boom(Exception):
    """What a broken step raises."""


class Broken:
    """An engine whose steps fail by name until they are healed; steps end in random order."""

    def __init__(self, seed: int, broken: set[str]) -> None:
        self.rng = random.Random(seed)
        self.broken = broken
        self.done: Counter[tuple[str, str]] = Counter()
        self.clock = VirtualClock()
        self.pool = Pool()
        self.clock.wait = self.wait  # type: ignore[method-assign]
        env = Environment(clock=self.clock, entropy=SeededEntropy(seed), executor=self.pool, threads=False)
        store = MemoryStore(clock=self.clock.micros)
        self.engine = Engine(store, [wander], environment=env, perform=self.perform)

    def wait(self, wakeup: Any, seconds: float) -> bool:
        while not wakeup.is_set():
            if not self.pool.step(self.rng):
                self.clock.advance(seconds)
                break
        return bool(wakeup.is_set())

    def perform(self, step: Any, context: Any) -> str:
        if context.step_id in self.broken:
            raise Boom(context.step_id)
        self.done[step.name, context.idempotency_key] += 1
        return f"{step.name}!"


def seen(outcome: Any) -> Counter[str]:
    """What a run saw, in no order; of what is drawn or read from the clock, only how often."""
    assert isinstance(outcome, RunCompleted), outcome
    return Counter(repr([entry[0], _constant(entry[1:])]) for entry in outcome.result)


def _constant(value: Any) -> Any:
    if isinstance(value, list):
        return [_constant(v) for v in value]
    return value if isinstance(value, (bool, int)) or (isinstance(value, str) and value.endswith("!")) else "?"


def step_ids(seed: int) -> list[str]:
    """The steps of a tree that never fails."""
    whole = Broken(seed, set())
    whole.engine.start(wander, seed, False, False, run_id="r")
    return [event.step_id for event in whole.engine.history("r") if isinstance(event, e.Step)]


@pytest.mark.parametrize("first", range(0, 600, 50))
def test_a_retried_run_ends_as_the_one_that_never_failed(first: int) -> None:
    """Steps break at random, are healed one retry after the other, and no finished step runs twice."""
    failures = 0
    for seed in range(first, first + 50):
        names = step_ids(seed)
        whole = Broken(seed, set())
        expected = seen(whole.engine.start(wander, seed, False, False, run_id="r"))
        rng = random.Random(seed)
        broken = Broken(seed + 1, set(rng.sample(names, min(len(names), rng.randint(1, 4)))))
        outcome = broken.engine.start(wander, seed, False, False, run_id="r")
        for _ in range(20):
            if not isinstance(outcome, RunFailed):
                break
            failures += 1
            if rng.random() < 0.8:  # now and then a retry that fails again
                broken.broken.discard(rng.choice(sorted(broken.broken)))
            outcome = broken.engine.retry("r")
        assert expected == seen(outcome), f"seed {seed}"
        _check_done_once(broken, seed)
    assert failures > 25


def _check_done_once(broken: Broken, seed: int) -> None:
    """No finished step ran again; clean-up of a failure that is undone by a retry may have."""
    again = [name for (name, _), times in broken.done.items() if times > 1 and not name.startswith("clean")]
    assert [] == again, f"seed {seed}"


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_a_fork_before_a_failed_step_ends_as_the_one_that_never_failed(first: int) -> None:
    """The fork takes over what came before the step, and goes on from there."""
    forks = 0
    for seed in range(first, first + 50):
        names = step_ids(seed)
        whole = Broken(seed, set())
        expected = seen(whole.engine.start(wander, seed, False, False, run_id="r"))
        rng = random.Random(seed)
        broken = Broken(seed + 1, {rng.choice(names)} if names else set())
        outcome = broken.engine.start(wander, seed, False, False, run_id="r")
        if not isinstance(outcome, RunFailed):
            continue
        forks += 1
        failed = next(ev.step_id for ev in broken.engine.history("r") if isinstance(ev, e.Step) and ev.error)
        broken.broken.clear()
        assert expected == seen(broken.engine.fork("r", before=failed, new_run_id="f")), f"seed {seed}"
        assert "failed" == broken.engine.get("r").status
    assert forks > 10
