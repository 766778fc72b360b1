"""Attempts: who asks for them, when they come, and what is recorded of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from stepwell import (
    Flow,
    InvalidInputError,
    RetryPolicy,
    RunCompleted,
    RunFailed,
    RunSuspended,
    Step,
    StoreUnavailableError,
    current_step,
    failed,
    step,
    workflow,
)
from stepwell.lifecycle import StepAttemptFailed, StepCompleted, StepErrored
from stepwell.testing.environments import EPOCH, VirtualClock

from .tools import HandClock, Tally, Task, kinds


class CardDeclined(Exception):
    """What the bank says."""

    def __init__(self, code: str) -> None:
        super().__init__(f"declined: {code}")
        self.code = code


class StolenCard(CardDeclined):
    """What the bank says louder."""


class Flaky:
    """A step that fails so many times, then gives the number of the call."""

    def __init__(self, failures: int, error: BaseException | None = None) -> None:
        self.failures = failures
        self.error = error or ConnectionError("no line")
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return self.calls

    def step(self, retry: RetryPolicy | None = None) -> Step[int]:
        return Step(self).options(name="flaky", retry=retry)


def run_of(flaky: Flaky, retry: RetryPolicy | None = None, *, of_workflow: RetryPolicy | None = None) -> Any:
    """A workflow of one step."""

    @workflow(name="w", retry=of_workflow)
    def once() -> Flow[int]:
        return (yield from flaky.step(retry))

    return once


def test_there_is_one_attempt_unless_more_are_asked_for(bench: Any) -> None:
    flaky = Flaky(1)
    outcome = bench.engine().start(run_of(flaky), run_id="r")
    assert isinstance(outcome, RunFailed)
    assert (1, 1) == (flaky.calls, outcome.failure.attempts)
    assert "builtins.ConnectionError" in outcome.failure.types


def test_failed_attempts_are_recorded(bench: Any) -> None:
    flaky, clock = Flaky(2), VirtualClock()
    engine = bench.engine(clock=clock)
    policy = RetryPolicy(3, initial=1, factor=2, jitter=0)
    assert RunCompleted("r", 3) == engine.start(run_of(flaky, policy), run_id="r")
    history = engine.history("r")
    assert ["start", "attempt", "attempt", "step", "complete"] == [event.kind for event in history]
    assert [1, 2] == [event.attempt for event in history[1:3]]
    assert ["ConnectionError: no line"] * 2 == [str(event.error) for event in history[1:3]]
    assert (3, "flaky") == (history[3].attempts, history[3].step_id)
    assert EPOCH + timedelta(seconds=3) == clock.now()


def test_the_policy_of_the_step_is_stronger_than_that_of_the_workflow_and_of_the_engine(memory: Any) -> None:
    for of_step, of_workflow, of_engine, calls in [(2, 3, 4, 2), (None, 3, 4, 3), (None, None, 4, 4), (1, 3, 4, 1)]:
        given = [None if n is None else RetryPolicy(n, initial=0) for n in (of_step, of_workflow, of_engine)]
        flaky = Flaky(99)
        engine = memory.engine(retry=given[2], clock=VirtualClock())
        outcome = engine.start(run_of(flaky, given[0], of_workflow=given[1]), run_id=f"{of_step}-{of_workflow}")
        assert calls == flaky.calls
        assert calls == outcome.failure.attempts


def test_the_decorator_sets_the_policy_of_a_function(memory: Any) -> None:
    calls: list[int] = []

    @step(retry=RetryPolicy(3, initial=0), name="twice")
    def often() -> int:
        calls.append(1)
        raise ConnectionError

    @workflow
    def once() -> Flow[int]:
        return (yield from Step(often))

    engine = memory.engine()
    engine.start(once, run_id="r")
    assert (3, "twice") == (len(calls), engine.history("r")[-2].step_id)


def test_delays_grow_up_to_the_cap(memory: Any) -> None:
    """Shows S15 (P2, P6)."""
    flaky, clock = Flaky(5), VirtualClock()
    policy = RetryPolicy(6, initial=1, factor=3, cap=10, jitter=0)
    engine = memory.engine(clock=clock, park_after=3600)
    engine.start(run_of(flaky, policy), run_id="r")
    assert timedelta(seconds=1 + 3 + 9 + 10 + 10) == clock.now() - EPOCH


def test_jitter_takes_away_the_same_share_in_every_session(memory: Any) -> None:
    dues = []
    for run_id in ("a", "a", "b"):
        engine = memory.engine(clock=HandClock(), park_after=0)
        policy = RetryPolicy(2, initial=100, cap=100, jitter=0.5)
        dues.append(engine.start(run_of(Flaky(1), policy), run_id=run_id, if_open="restart").due - EPOCH)
    assert dues[0] == dues[1]
    assert dues[0] != dues[2]
    assert all(timedelta(seconds=50) <= due <= timedelta(seconds=100) for due in dues)


@pytest.mark.parametrize(
    ("policy", "calls"),
    [
        (RetryPolicy(3, initial=0, on=CardDeclined), 3),
        (RetryPolicy(3, initial=0, on=(KeyError, CardDeclined)), 3),
        (RetryPolicy(3, initial=0, on=ConnectionError), 1),
        (RetryPolicy(3, initial=0, give_up_on=CardDeclined), 1),
        (RetryPolicy(3, initial=0, on=CardDeclined, give_up_on=StolenCard), 1),
        (RetryPolicy(3, initial=0, when=lambda error: error.code == "stolen"), 3),  # type: ignore[attr-defined]
        (RetryPolicy(3, initial=0, when=lambda error: False), 1),
    ],
)
def test_a_policy_says_which_errors_are_worth_another_attempt(memory: Any, policy: RetryPolicy, calls: int) -> None:
    flaky = Flaky(99, StolenCard("stolen"))
    memory.engine().start(run_of(flaky, policy), run_id="r")
    assert calls == flaky.calls


def test_a_predicate_that_raises_means_no_further_attempt(bench: Any) -> None:
    def wrong(error: BaseException) -> bool:
        raise ZeroDivisionError

    flaky = Flaky(99)
    outcome = bench.engine().start(run_of(flaky, RetryPolicy(3, initial=0, when=wrong)), run_id="r")
    assert isinstance(outcome, RunFailed)
    assert (1, "step 'flaky' failed: ConnectionError: no line") == (flaky.calls, outcome.failure.message)


def test_an_error_of_the_library_is_tried_again_only_when_it_is_retryable(memory: Any) -> None:
    for number, (error, calls) in enumerate([(StoreUnavailableError("busy"), 3), (InvalidInputError("wrong"), 1)]):
        flaky = Flaky(99, error)
        memory.engine().start(run_of(flaky, RetryPolicy(3, initial=0)), run_id=str(number))
        assert calls == flaky.calls


@pytest.mark.parametrize("error", [StopIteration(5), GeneratorExit(), StopAsyncIteration()])
def test_errors_that_steer_generators_are_failures_of_the_step(bench: Any, error: BaseException) -> None:
    def steers() -> int:
        raise error

    @workflow
    def catches() -> Flow[str]:
        try:
            yield Step(steers)
        except failed(type(error)) as caught:
            return f"caught {caught.failure.type}"
        return "nothing"

    engine = bench.engine()
    assert f"caught builtins.{type(error).__name__}" == engine.start(catches, run_id="r").unwrap()


def test_a_workflow_catches_a_recorded_failure_by_its_type(bench: Any) -> None:
    def charge() -> str:
        raise StolenCard("stolen")

    def log(text: str) -> str:
        return text

    @workflow
    def pay() -> Flow[str]:
        try:
            yield Step(charge)
        except failed(KeyError):
            return "not this"
        except failed(CardDeclined) as declined:
            return (yield from Step(log, f"{declined.failure.code}: {declined.failure.message} at {declined.at}"))
        return "paid"

    engine = bench.engine()
    live = engine.start(pay, run_id="r")
    assert RunCompleted("r", "stolen: declined: stolen at 0") == live
    assert RunCompleted("r2", live.result) == bench.engine(pay).fork("r", before="log", new_run_id="r2")


def test_a_failure_that_leaves_the_workflow_keeps_its_types(bench: Any) -> None:
    flaky = Flaky(9, StolenCard("stolen"))
    outcome = bench.engine().start(run_of(flaky), run_id="r")
    assert outcome.failure.is_a(CardDeclined)
    assert ("stolen", 1) == (outcome.failure.code, outcome.failure.attempts)


def test_a_long_delay_parks_the_run_until_it_is_due(bench: Any) -> None:
    flaky, clock = Flaky(1), HandClock()
    engine = bench.engine(clock=clock)
    parked = engine.start(run_of(flaky, RetryPolicy(2, initial=60, jitter=0)), run_id="r")
    assert RunSuspended("r", (), None, EPOCH + timedelta(seconds=60)) == parked
    assert ([], 1) == (engine.run_due(), flaky.calls)
    assert parked == engine.advance("r")
    clock.advance(60)
    assert [RunCompleted("r", 2)] == bench.engine(run_of(flaky), clock=clock).run_due()


def test_a_short_delay_keeps_the_thread(bench: Any) -> None:
    flaky, clock = Flaky(1), HandClock()
    engine = bench.engine(clock=clock)
    driver = Task(lambda: engine.start(run_of(flaky, RetryPolicy(2, initial=0.5, jitter=0)), run_id="r"))
    assert 0.5 == clock.until_somebody_waits()
    assert "running" == engine.get("r").status
    clock.advance(0.5)
    assert RunCompleted("r", 2) == driver.result()


def test_the_count_of_attempts_survives_the_session(bench: Any) -> None:
    """Shows S15 (P2, P6)."""
    flaky, clock, numbers = Flaky(99), HandClock(), list[int]()

    def numbered() -> int:
        numbers.append(current_step().attempt)
        return flaky()

    @workflow
    def once() -> Flow[int]:
        return (yield from Step(numbered).options(retry=RetryPolicy(3, initial=60, jitter=0)))

    outcomes = [bench.engine(clock=clock).start(once, run_id="r")]
    for delay in (60, 120):
        clock.advance(delay)
        outcomes += bench.engine(once, clock=clock).run_due()
    assert ["suspended", "suspended", "failed"] == [outcome.status for outcome in outcomes]
    assert [1, 2, 3] == numbers
    assert 3 == outcomes[-1].failure.attempts


def test_an_idempotency_key_is_the_same_for_every_attempt_and_session(bench: Any) -> None:
    """Shows S3 (P2)."""
    clock = HandClock()
    keys: dict[str, list[str]] = {}

    def keyed(name: str, fails: int) -> None:
        current = current_step()
        assert ("r", name) == (current.run_id, current.step_id.partition("#")[0])
        keys.setdefault(current.step_id, []).append(current.idempotency_key)
        if len(keys[current.step_id]) <= fails:
            raise ConnectionError

    @workflow
    def pays() -> Flow[None]:
        policy = RetryPolicy(3, initial=60, jitter=0)
        yield Step(keyed, "charge", 2).options(name="charge", retry=policy)
        yield Step(keyed, "charge", 1).options(name="charge", retry=policy)

    bench.engine(clock=clock).start(pays, run_id="r")
    for _ in range(3):
        clock.advance(3600)
        bench.engine(pays, clock=clock).run_due()
    assert {"charge": 3, "charge#2": 2} == {name: len(found) for name, found in keys.items()}
    assert [1, 1] == [len(set(found)) for found in keys.values()]
    assert keys["charge"][0] != keys["charge#2"][0]
    assert all(len(key) == 32 for found in keys.values() for key in found)


def test_current_step_is_asked_inside_a_step_only(memory: Any) -> None:
    with pytest.raises(InvalidInputError, match="inside a step only"):
        current_step()
    assert RunCompleted("r", 1) == memory.engine().start(run_of(Flaky(0)), run_id="r")
    with pytest.raises(InvalidInputError, match="inside a step only"):
        current_step()


def test_a_listener_hears_of_every_attempt(memory: Any) -> None:
    heard: list[Any] = []
    error = ConnectionError("no line")
    engine = memory.engine(on_event=heard.append, clock=VirtualClock())
    engine.start(run_of(Flaky(1, error), RetryPolicy(2, initial=1, jitter=0)), run_id="r")
    (attempt,) = (event for event in heard if isinstance(event, StepAttemptFailed))
    assert (1, error, EPOCH + timedelta(seconds=1)) == (attempt.attempt, attempt.error, attempt.due)
    assert attempt.error is not None
    assert attempt.error.__traceback__ is not None
    assert [2] == [event.attempt for event in heard if isinstance(event, StepCompleted)]
    assert [] == [event for event in heard if isinstance(event, StepErrored)]


def test_steps_of_one_name_are_counted(bench: Any) -> None:
    tally = Tally()

    @workflow
    def thrice() -> Flow[list[int]]:
        first = yield from tally.step("ring")
        second = yield from tally.step("ring")
        return [first, second, (yield from tally.step("ring"))]

    engine = bench.engine()
    assert [1, 2, 3] == engine.start(thrice, run_id="r").unwrap()
    assert ["ring", "ring#2", "ring#3"] == [event.step_id for event in engine.history("r")[1:-1]]
    assert ["start", "step", "step", "step", "complete"] == kinds(engine)
