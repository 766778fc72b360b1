"""`simulate`: the real engine on virtual time, with fakes in place of steps."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from attrs import frozen

from stepwell import (
    All,
    BudgetExceededError,
    Cancelled,
    Child,
    ChildFailed,
    CodecError,
    Emit,
    Flow,
    InvalidInputError,
    Now,
    Race,
    Random,
    RetryPolicy,
    RunCancelled,
    RunSuspended,
    SetState,
    Signal,
    Sleep,
    Spend,
    Step,
    Suspend,
    failed,
    workflow,
)
from stepwell.testing import REAL, SimulationError, raised, received, replay, returned, simulate, takes, traced


@frozen
class Classification:
    kind: str
    severity: int


class RateLimited(Exception):
    pass


reply = Signal("reply", str)


def classify(text: str) -> Classification:
    raise AssertionError("a simulation performs nothing")


def draft(text: str) -> str:
    raise AssertionError("a simulation performs nothing")


async def send(text: str) -> str:
    raise AssertionError("a simulation performs nothing")


@workflow
def reminder(text: str) -> Flow[str]:
    found = yield from Step(classify, text).options(retry=RetryPolicy(3, initial=60, jitter=0))
    answer = yield from Suspend(reply, timeout=timedelta(days=30), default="nobody")
    yield Sleep(timedelta(days=2))
    yield SetState(kind=found.kind)
    yield Emit(answer, topic="answer")
    parts = yield from All(Step(draft, "a"), Step(send, "b"))
    return f"{answer}: {'+'.join(parts)}"


FAKES: dict[Any, Any] = {
    classify: [raised(RateLimited("slow down")), Classification("bug", 1)],
    "draft": str.upper,
    "send": "sent",
}


def test_a_month_passes_in_no_time() -> None:
    """Sleeps, time-outs and retries jump the virtual clock."""
    run = simulate(reminder, "t", fakes=FAKES)
    assert "nobody: A+sent" == run.result
    assert timedelta(days=32, seconds=60) == run.elapsed


def test_a_signal_comes_when_it_is_told_to() -> None:
    """A signal is sent at its virtual instant."""
    run = simulate(reminder, "t", fakes=FAKES, signals={reply: (timedelta(days=20), "yes")})
    assert "yes: A+sent" == run.result
    assert timedelta(days=22) == run.elapsed


def test_several_signals_of_one_name_come_in_the_order_of_their_instants() -> None:
    """A list of signals is sent in order of time, not of writing."""

    @workflow
    def two() -> Flow[list[str]]:
        first = yield from Suspend(reply)
        second = yield from Suspend(reply)
        return [first, second]

    assert ["a", "b"] == simulate(two, signals={"reply": [(5, "b"), (1, "a")]}).result


def test_what_happened_can_be_asked() -> None:
    """Calls, state, emitted values and history are there to look at."""
    run = simulate(reminder, "t", fakes=FAKES)
    assert [("classify", 1), ("classify", 2), ("draft", 1), ("send", 1)] == [(c.step_id, c.attempt) for c in run.calls]
    assert {"kind": "bug"} == run.state
    assert ["nobody"] == run.emitted
    assert "start" == run.history[0].kind
    assert "RateLimited: slow down" in run.trace()


@pytest.mark.parametrize("crash_after", [*range(1, 10), "every"])
def test_a_crash_after_any_event_changes_nothing(crash_after: Any) -> None:
    """The process dies after an event, and the run ends as it does without."""
    run = simulate(reminder, "t", fakes=FAKES, signals={reply: (60, "yes")}, crash_after=crash_after)
    assert "yes: A+sent" == run.result
    assert 4 == len(run.calls)
    assert run.crashes >= 1


def charge(amount: int) -> str:
    raise AssertionError("a simulation performs nothing")


@workflow
def sale(amount: int) -> Flow[list[str]]:
    once = Step(charge, amount).options(at_most_once=True)
    first = yield from once
    rest = yield from All(Step(draft, "a"), once, once)
    return [first, *rest]


@pytest.mark.parametrize("crash_after", [*range(1, 7), "every"])
def test_a_step_that_is_begun_at_most_once_is_not_interrupted(crash_after: Any) -> None:
    """A crash between `begin` and outcome would change the end, and rightly so: it comes after the outcome."""
    run = simulate(sale, 5, fakes={"charge": "paid", "draft": str.upper}, crash_after=crash_after)
    assert ["paid", "A", "paid", "paid"] == run.result
    assert (4, True) == (len(run.calls), run.crashes >= 1)
    kinds, sessions = [event.kind for event in run.history], [event.session for event in run.history]
    assert ["start", "begin", "step", "begin", "begin", "step", "step", "step", "complete"] == kinds
    assert sessions[1] == sessions[2], "no crash after the first begin"
    assert sessions[4] == sessions[5], "nor after the others"


def test_a_workflow_that_reads_the_world_is_found_by_crashing_it() -> None:
    """What no command gave differs when the run goes on elsewhere."""
    turns = iter(range(1000))

    @workflow
    def impure() -> Flow[int]:
        seen = next(turns)
        yield from Step(draft, "a")
        return seen

    with pytest.raises(SimulationError, match="with crashes the run ends otherwise"):
        simulate(impure, fakes={draft: "x"}, crash_after="every")


def test_a_step_without_a_fake_is_named() -> None:
    """The text says which step wants a fake, and how to give it."""
    with pytest.raises(SimulationError, match="no fake for step 'classify'"):
        simulate(reminder, "t", fakes={})


def test_a_fake_that_is_used_up_is_named() -> None:
    """A list of answers that is too short says so."""

    @workflow
    def twice() -> Flow[str]:
        yield Step(draft, "a")
        return (yield from Step(draft, "b"))

    with pytest.raises(SimulationError, match="has 1 answers"):
        simulate(twice, fakes={draft: ["x"]})


def test_a_fake_may_stand_for_one_step_id() -> None:
    """The second call of a function can have an answer of its own."""

    @workflow
    def twice() -> Flow[list[str]]:
        return list((yield from All(Step(draft, "a"), Step(draft, "b"))))

    assert ["x", "y"] == simulate(twice, fakes={"draft": "x", "draft#2": "y"}).result


def test_a_step_can_be_performed_for_real() -> None:
    """`REAL` calls the step's own function."""

    def double(x: int) -> int:
        return 2 * x

    @workflow
    def doubled(x: int) -> Flow[int]:
        return (yield from Step(double, x))

    assert 42 == simulate(doubled, 21, fakes={double: REAL}).result


def test_a_fake_that_could_not_be_recorded_fails_the_step_as_it_would_live() -> None:
    """Values go through the codec."""

    @workflow
    def once() -> Flow[str]:
        return (yield from Step(draft, "a"))

    failure = simulate(once, fakes={draft: 7}).failure
    assert failure.is_a(CodecError)


def test_a_run_that_waits_for_ever_is_left_suspended() -> None:
    """Nothing is due and no signal is left: the simulation ends, and the result says why."""

    @workflow
    def patient() -> Flow[str]:
        return (yield from Suspend(reply))

    run = simulate(patient)
    assert isinstance(run.outcome, RunSuspended)
    with pytest.raises(SimulationError, match="the run is not completed"):
        _ = run.result


def test_a_run_is_cancelled_at_a_virtual_instant() -> None:
    """Cancel interrupts the wait, and clean-up runs."""

    @workflow
    def waiting() -> Flow[str]:
        try:
            return (yield from Suspend(reply))
        except Cancelled:
            yield Step(draft, "undo")
            raise

    run = simulate(waiting, fakes={draft: "undone"}, cancel=timedelta(hours=1))
    assert isinstance(run.outcome, RunCancelled)
    assert ["draft"] == [call.step_id for call in run.calls]
    assert timedelta(hours=1) == run.elapsed


def test_failures_are_caught_by_type() -> None:
    """`failed(...)` sees the fake's class."""

    @workflow
    def careful() -> Flow[str]:
        try:
            return (yield from Step(draft, "a"))
        except failed(RateLimited) as error:
            return error.failure.message

    assert "no" == simulate(careful, fakes={draft: RateLimited("no")}).result


def test_chance_and_time_are_the_same_for_the_same_seed() -> None:
    """Random follows the seed, Now the virtual clock."""

    @workflow
    def draw() -> Flow[list[str]]:
        chance = yield from Random()
        now = yield from Now()
        return [str(chance), now.isoformat()]

    start = datetime(2030, 5, 1, tzinfo=UTC)
    first, second = (simulate(draw, seed=7, start=start).result for _ in range(2))
    assert first == second
    assert "2030-05-01T00:00:00+00:00" == first[1]
    assert first[0] != simulate(draw, seed=8).result[0]


def test_a_race_against_time_is_decided_by_virtual_time() -> None:
    """The shorter sleep wins."""

    @workflow
    def race() -> Flow[str]:
        name, _ = yield from Race(short=Sleep(5), long=Sleep(timedelta(days=365)))
        return name

    run = simulate(race)
    assert ("short", timedelta(seconds=5)) == (run.result, run.elapsed)


def test_a_simulated_history_replays() -> None:
    """The recorded events are a history like any other."""
    run = simulate(reminder, "t", fakes=FAKES)
    again = replay(reminder, "t", history=run.history)
    assert run.result == again.result
    assert run.emitted == again.emitted


@pytest.mark.parametrize("wrong", [0, -1, True, "never"])
def test_a_wrong_crash_after_is_refused(wrong: Any) -> None:
    """Only a count or "every" will do."""
    with pytest.raises(InvalidInputError, match="crash_after"):
        simulate(reminder, "t", crash_after=wrong)


def test_a_wrong_signal_is_refused() -> None:
    """A signal is a pair of an instant and a payload."""
    with pytest.raises(InvalidInputError, match="takes \\(timedelta, payload\\)"):
        simulate(reminder, "t", signals={"reply": "yes"})


def test_replay_of_the_same_workflow_agrees() -> None:
    """A fake history and a simulation are two interpreters of one workflow."""

    @workflow
    def short(text: str) -> Flow[str]:
        return (yield from Step(draft, text))

    assert replay(short, "t", history=[returned("d")]).result == simulate(short, "t", fakes={draft: "d"}).result


# ---- failures, time, children, what is told


@workflow
def part(name: str) -> Flow[str]:
    """A child that takes a month and a step."""
    yield Sleep(timedelta(days=30))
    return (yield from Step(draft, name))


@workflow
def whole(names: list[str]) -> Flow[list[str]]:
    parts = yield from All(*(Child(part, name) for name in names))
    yield Step(send, "+".join(parts))
    return list(parts)


@pytest.mark.parametrize("crash_after", [None, "every"])
def test_children_are_run_for_real_with_fakes_for_their_steps(crash_after: Any) -> None:
    """Their month passes in no time either, and none of the looks of their parent counts."""
    run = simulate(whole, ["a", "b"], fakes={draft: str.upper, send: "sent"}, crash_after=crash_after)
    assert ["A", "B"] == run.result
    late = run.elapsed - timedelta(days=30)  # a parent whose child died before it told finds out by looking
    assert timedelta(0) <= late <= timedelta(minutes=10 if crash_after else 0)
    assert ["completed", "completed"] == [child.status for child in run.children.values()]
    assert 3 == len(run.calls)
    assert {"simulation", *run.children} == {call.run_id for call in run.calls}


@pytest.mark.parametrize("crash_after", [None, 3, "every"])
@pytest.mark.parametrize("key", [part, "part"])
def test_children_are_faked_by_workflow_or_name(key: Any, crash_after: Any) -> None:
    """They take no time, unless the fake says so."""
    fakes = {key: [takes(timedelta(hours=2), "x"), str.upper], "send": "sent"}
    run = simulate(whole, ["a", "b"], fakes=fakes, crash_after=crash_after)
    assert ["x", "B"] == run.result
    assert timedelta(hours=2) == run.elapsed
    assert [("part", ("a",)), ("part", ("b",))] == [(call.step_id, call.args) for call in run.calls[:2]]


def test_a_child_that_is_faked_to_fail_fails_its_parent() -> None:
    run = simulate(whole, ["a"], fakes={part: RateLimited("no part")})
    assert run.failure.is_a(ChildFailed, RateLimited)
    assert ["failed"] == [child.status for child in run.children.values()]


def test_a_childs_fake_has_to_fit_its_result() -> None:
    assert simulate(whole, ["a"], fakes={part: 7}).failure.is_a(CodecError)


def test_a_fake_for_a_child_that_says_real_is_none() -> None:
    run = simulate(whole, ["a"], fakes={part: REAL, "draft": "x", "send": "sent"})
    assert (["x"], timedelta(days=30)) == (run.result, run.elapsed)


def test_a_race_between_a_child_and_time_is_decided_by_virtual_time() -> None:
    @workflow
    def impatient() -> Flow[str]:
        name, _ = yield Race(child=Child(part, "a"), time=Sleep(timedelta(days=7)))
        return str(name)

    run = simulate(impatient, fakes={draft: "x"})
    assert ("time", timedelta(days=7)) == (run.result, run.elapsed)
    assert ["cancelled"] == [child.status for child in run.children.values()]


def test_each_attempt_has_an_answer_of_its_own() -> None:
    """Failures by attempt, with the delays of the policy between them."""

    @workflow
    def tries() -> Flow[str]:
        return (yield from Step(draft, "a").options(retry=RetryPolicy(4, initial=10, factor=3, jitter=0)))

    run = simulate(tries, fakes={draft: [RateLimited("1"), ValueError("2"), "third"]})
    assert "third" == run.result
    assert [(1, 0), (2, 10), (3, 40)] == [(call.attempt, call.time.total_seconds()) for call in run.calls]


def test_a_step_that_takes_longer_than_it_may_is_timed_out_and_tried_again() -> None:
    @workflow
    def slow() -> Flow[str]:
        once = Step(draft, "a").options(timeout=30, retry=RetryPolicy(2, initial=1, jitter=0))
        return (yield from once)

    run = simulate(slow, fakes={draft: [takes(60, "late"), takes(20, "in time")]})
    assert ("in time", timedelta(seconds=51)) == (run.result, run.elapsed)
    assert "took longer than 30 s" in run.trace()


def test_a_workflow_that_never_ends_is_followed_for_as_long_as_is_said() -> None:
    @workflow
    def ticks() -> Flow[None]:
        while True:
            yield Step(send, "tick")
            yield Sleep(timedelta(hours=1))

    run = simulate(ticks, fakes={send: "sent"}, until=timedelta(days=1))
    assert (25, "suspended", timedelta(days=1)) == (len(run.calls), run.status, run.elapsed)


def test_a_workflow_of_thirty_days_takes_milliseconds() -> None:
    """720 polls; the bound is wide, for a machine that has other things to do."""

    @workflow
    def polls() -> Flow[int]:
        for turn in range(30 * 24):
            yield Step(send, str(turn))
            yield Sleep(timedelta(hours=1))
        return 1

    begun = time.process_time()
    run = simulate(polls, fakes={send: "sent"})
    assert timedelta(days=30) == run.elapsed
    assert time.process_time() - begun < 5


def test_a_budget_is_kept() -> None:
    @workflow
    def spends() -> Flow[None]:
        yield Spend(3)
        yield Spend(4)

    run = simulate(spends, budget=5)
    assert run.failure.is_a(BudgetExceededError)
    assert 7 == run.spent


def test_a_signal_may_say_who_sends_it() -> None:
    @workflow
    def decides() -> Flow[str]:
        decision = yield from Suspend(reply).decided()
        return f"{decision.value} by {decision.actor}"

    run = simulate(decides, signals={reply: (5, received(reply, "yes", actor="grace"))})
    assert "yes by grace" == run.result


def test_the_trace_tells_everything_that_happened() -> None:
    run = simulate(
        whole, ["a"], fakes={draft: [RateLimited("slow down"), "A"], send: "sent"}, crash_after=2, retry=RetryPolicy(2)
    )
    text = run.trace()
    for said in (
        "start       whole",
        "crash       number 1",
        "time        2026-01-31",
        "draft('a')",
        "draft('a'), attempt 2",
        "error=RateLimited: slow down",
        "childResult",
        'result="A"',
    ):
        assert said in text


def test_what_stops_a_simulation_is_told_with_what_had_happened() -> None:
    with pytest.raises(SimulationError, match="what had happened:") as caught:
        simulate(whole, ["a"], fakes={draft: "A"})
    assert "no fake for step 'send'" in str(caught.value)
    assert "draft('a')" in str(caught.value)


def test_the_stories_of_a_test_can_be_collected() -> None:
    """For whoever prints them when it fails."""
    with traced() as stories:
        simulate(part, "a", fakes={draft: "x"})
        simulate(whole, [], fakes={send: "sent"})
    assert 2 == len(stories)
    assert "sleep" in str(stories[0])


def test_a_long_story_is_shortened_in_the_middle() -> None:
    @workflow
    def long() -> Flow[None]:
        for _ in range(1500):
            yield Sleep(1)

    lines = simulate(long).trace().splitlines()
    assert len(lines) == 2001
    assert "lines are left out" in lines[1000]
    assert ("start", "complete") == (lines[0].split()[1], lines[-1].split()[1])


@pytest.mark.parametrize("wrong", [{"until": -1}, {"budget": -1}, {"fakes": {"draft": 1}, "until": "soon"}])
def test_wrong_bounds_are_refused(wrong: Any) -> None:
    with pytest.raises(InvalidInputError):
        simulate(part, "a", **wrong)
