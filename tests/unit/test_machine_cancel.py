"""Cancel: waits are interrupted, what is under way keeps its outcome, and clean-up is performed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from stepwell import (
    All,
    Cancelled,
    DivergenceError,
    Emit,
    Flow,
    Now,
    Race,
    Random,
    SetState,
    Sleep,
    Step,
    StepFailed,
    Suspend,
    Uuid,
    workflow,
)
from stepwell import events as e
from stepwell.errors import CancelIgnoredError
from stepwell.scheduler import MAX_IGNORED_CANCELS
from stepwell.testing import cancel, cancelled, pause, raised, received, replay, returned, unpause

from .tools import STAMP, ask, asked, check_replay, did, fold, frontier, slept, task, tried, waits


@workflow
def two_steps() -> Flow[list[Any]]:
    return [(yield task("one")), (yield task("two"))]


# ---- what is waited for


@pytest.mark.parametrize(
    "wait",
    [
        lambda: Suspend("go"),
        lambda: Suspend("go", timeout=60, default=1),
        lambda: Sleep(60),
        lambda: All(Sleep(60), Suspend("go")),
        lambda: Race(Sleep(60), Suspend("go")),
        lambda: All(All(All(Sleep(60)))),
    ],
)
def test_a_wait_is_interrupted_at_once(wait: Any) -> None:
    """Cancelled is thrown at its yield; nothing is recorded but the cancel."""
    seen: list[type] = []

    @workflow
    def waiting() -> Flow[None]:
        try:
            yield wait()
        except BaseException as error:
            seen.append(type(error))
            raise

    run = replay(waiting, history=[cancel("why")])
    assert [Cancelled] == seen
    assert ("cancelled", "why") == (run.status, run.machine.cancel_reason)
    assert ["start", "cancel"] == [event.kind for event in run.events]
    check_replay(run)


def test_it_can_not_be_swallowed_by_accident() -> None:
    """It is a BaseException, which `except Exception` lets pass."""

    @workflow
    def careless() -> Flow[str]:
        try:
            yield Sleep(60)
        except Exception:
            return "swallowed"
        return "slept"

    assert "cancelled" == replay(careless, history=[cancel()]).status


# ---- steps


def test_a_step_that_has_not_run_is_cancelled() -> None:
    run = replay(two_steps, history=[cancel()])
    assert [("0", True, False)] == [(p.at, p.cancelling, p.lost) for p in run.machine.pending.values()]
    run.feed(cancelled())
    assert "cancelled" == run.status
    check_replay(run)


def test_a_step_under_way_keeps_its_result_and_cancelled_comes_at_the_next_effect() -> None:
    seen: list[Any] = []

    @workflow
    def paying() -> Flow[None]:
        try:
            seen.append((yield task("charge")))
            yield task("ship")
        finally:
            if seen:
                yield task("refund", seen[0])

    run = replay(paying, history=[cancel(), returned("receipt")])
    assert ["receipt"] == seen
    assert ["0 charge", "1 refund"] == asked(run)
    run.feed(returned())
    assert "cancelled" == run.status
    check_replay(run)


def test_a_step_under_way_keeps_its_failure() -> None:
    """It is thrown as it is; a workflow that handles it meets Cancelled at its next effect."""
    seen: list[str] = []

    @workflow
    def handling() -> Flow[None]:
        try:
            yield task("charge")
        except StepFailed as error:
            seen.append(error.step_id)
        yield task("again")

    run = replay(handling, history=[cancel(), raised(OSError("x"))])
    assert ["charge"] == seen
    assert "cancelled" == run.status
    assert ["0 charge"] == asked(run)
    check_replay(run)


def test_a_failure_that_leaves_the_run_before_cancelled_was_thrown_fails_it() -> None:
    run = replay(two_steps, history=[cancel(), raised(OSError("x"))])
    assert run.failure.is_a(OSError)
    check_replay(run)


def test_a_result_that_is_the_last_thing_completes_the_run() -> None:
    """The cancel was too late: Cancelled was never thrown."""

    @workflow
    def single() -> Flow[Any]:
        return (yield task("one"))

    run = replay(single, history=[cancel(), returned("done")])
    assert "done" == run.result
    check_replay(run)


@pytest.mark.parametrize(
    "effect",
    [lambda: task("x"), lambda: Sleep(1), lambda: Suspend("x"), lambda: All(), lambda: All(Now()), lambda: Race(Now())],
)
def test_it_comes_at_the_next_effect_wait_or_group(effect: Any) -> None:
    """That command takes no number, and is not issued."""

    @workflow
    def going_on() -> Flow[None]:
        yield task("one")
        yield effect()

    run = replay(going_on, history=[cancel(), returned()])
    assert "cancelled" == run.status
    assert ["0 one"] == asked(run)
    check_replay(run)


def test_a_command_that_meets_cancelled_takes_no_number() -> None:
    @workflow
    def cleaning() -> Flow[None]:
        yield task("one")
        try:
            yield task("two")
        finally:
            yield task("clean")

    run = replay(cleaning, history=[cancel(), returned()])
    assert ["1 clean"] == frontier(run)


def test_what_has_no_effect_behind_it_goes_on_until_then() -> None:
    @workflow
    def going_on() -> Flow[None]:
        yield task("one")
        yield Emit("x")
        yield SetState(a=1)
        yield Random()
        yield Uuid()
        yield task("two")

    run = replay(going_on, history=[cancel(), returned(), returned(0.5)])
    assert ["3 uuid"] == frontier(run)
    assert {"a": 1} == run.state


def test_a_signal_that_waited_in_the_buffer_is_not_taken() -> None:
    """The wait raises Cancelled, buffer or not."""

    @workflow
    def waiting() -> Flow[Any]:
        yield task("one")
        return (yield Suspend("go"))

    run = replay(waiting, history=[received("go", 1), cancel(), returned()])
    assert "cancelled" == run.status
    assert 1 == len(run.machine.mailbox.buffered["go"])


def test_the_back_off_of_a_failed_attempt_does_not_matter() -> None:
    """A step between two attempts isn't running: it gets the outcome `cancelled`."""
    run = fold(two_steps, tried("0", "one"), e.Cancel(), e.Cancelled(at="0"))
    assert "cancelled" == run.machine.status


# ---- clean-up


def test_clean_up_steps_are_performed() -> None:
    """However many, in whatever surrounding; their failures too."""

    @workflow
    def cleaning() -> Flow[None]:
        try:
            try:
                yield Sleep(60)
            finally:
                try:
                    yield task("one")
                except StepFailed:
                    yield task("instead")
        finally:
            yield task("two")

    run = replay(cleaning, history=[cancel(), raised(OSError("x"))])
    assert ["2 instead"] == frontier(run)
    run.feed(returned())
    run.feed(returned())
    assert "cancelled" == run.status
    check_replay(run)


def test_a_context_manager_of_the_workflow_cleans_up_too() -> None:
    released: list[str] = []

    @contextmanager
    def held() -> Iterator[None]:
        try:
            yield
        finally:
            released.append("lock")

    @workflow
    def locking() -> Flow[None]:
        with held():
            yield Sleep(60)

    assert "cancelled" == replay(locking, history=[cancel()]).status
    assert ["lock"] == released


def test_a_wait_in_clean_up_raises_cancelled_again() -> None:
    @workflow
    def waiting_again() -> Flow[None]:
        try:
            yield Sleep(60)
        finally:
            try:
                yield Suspend("go")
            finally:
                try:
                    yield Sleep(1)
                finally:
                    yield task("clean")

    run = replay(waiting_again, history=[cancel()])
    assert ["1 clean"] == frontier(run)
    run.feed(returned())
    assert "cancelled" == run.status
    check_replay(run)


def test_a_second_cancel_changes_nothing() -> None:
    @workflow
    def cleaning() -> Flow[None]:
        try:
            yield Sleep(60)
        finally:
            yield task("clean")

    run = replay(cleaning, history=[cancel("first"), cancel("second")])
    assert ["1 clean"] == frontier(run)
    assert [False] == [p.cancelling for p in run.machine.pending.values()]
    assert "first" == run.machine.cancel_reason
    run.feed(returned())
    assert "cancelled" == run.status


def test_a_clean_up_step_can_not_be_recorded_as_cancelled() -> None:
    @workflow
    def cleaning() -> Flow[None]:
        try:
            yield Sleep(60)
        finally:
            yield task("clean")

    run = fold(cleaning, e.Cancel())
    with pytest.raises(DivergenceError, match="nobody cancels that step"):
        run.machine.feed(e.Cancelled(at="1"))


# ---- how the run ends


@pytest.mark.parametrize("value", [None, 1, "done"])
def test_whatever_is_returned_after_cancelled_the_run_closes_as_cancelled(value: Any) -> None:
    @workflow
    def swallowing() -> Flow[Any]:
        try:
            yield Sleep(60)
        except Cancelled:
            return value

    run = replay(swallowing, history=[cancel()])
    assert ("cancelled", None) == (run.status, run.error)
    run.feed(e.Cancelled(timestamp=STAMP))
    assert run.machine.closed
    check_replay(run)


def test_another_error_wins() -> None:
    @workflow
    def failing() -> Flow[None]:
        try:
            yield Sleep(60)
        finally:
            raise ValueError("clean-up")

    run = replay(failing, history=[cancel()])
    assert run.failure.is_a(ValueError)
    check_replay(run)


def test_the_failure_of_a_clean_up_step_wins() -> None:
    @workflow
    def failing() -> Flow[None]:
        try:
            yield Sleep(60)
        finally:
            yield task("clean")

    run = replay(failing, history=[cancel(), raised(OSError("x"))])
    assert run.failure.is_a(OSError)
    check_replay(run)


def test_going_on_with_steps_after_cancelled_is_allowed() -> None:
    """Steps are what clean-up is made of; how many is the workflow's own business."""

    @workflow
    def stubborn() -> Flow[str]:
        for n in range(5):
            try:
                yield Sleep(60)
            except Cancelled:
                yield task(f"t{n}")
        return "done"

    run = replay(stubborn, history=[cancel(), *[returned()] * 5])
    assert "cancelled" == run.status
    check_replay(run)


@pytest.mark.parametrize("where", ["root", "branch", "group"])
def test_a_workflow_that_waits_a_hundred_times_after_cancelled_fails(where: str) -> None:
    """Else it would turn for ever."""
    waits_begun = [0]

    def stubborn() -> Flow[None]:
        while True:
            waits_begun[0] += 1
            try:
                if where == "group":
                    yield All(Sleep(60))
                else:
                    yield Sleep(60)
            except Cancelled:
                continue

    @workflow
    def stuck() -> Flow[None]:
        if where == "branch":
            yield All(stubborn(), Suspend("x"))
        else:
            yield from stubborn()

    run = replay(stuck, history=[cancel()])
    assert "error" == run.status
    assert isinstance(run.error, CancelIgnoredError)
    assert str(run.error).startswith("workflow 'stuck', test_machine_cancel.py:")  # recorded, so without a folder
    assert "went on waiting 100 times in a row; let Cancelled pass" in run.failure.message
    assert MAX_IGNORED_CANCELS < waits_begun[0] <= MAX_IGNORED_CANCELS + 2
    assert [] == run.pending
    check_replay(run)


def test_a_step_between_two_waits_begins_the_count_anew() -> None:
    @workflow
    def patient() -> Flow[str]:
        for _ in range(3):
            for _ in range(60):
                try:
                    yield Sleep(60)
                except Cancelled:
                    continue
            yield task("tidy")
        return "done"

    assert "cancelled" == replay(patient, history=[cancel(), *[returned()] * 3]).status


def test_a_forced_close_does_not_ask_the_workflow() -> None:
    """Its generators are closed; what it yields then is not performed."""
    seen: list[str] = []

    @workflow
    def working() -> Flow[None]:
        try:
            yield All(task("one"), Suspend("go"))
        finally:
            seen.append("closed")
            yield task("clean")

    run = fold(working, e.Cancelled(forced=True))
    assert ["closed"] == seen
    assert ("cancelled", True, {}) == (run.machine.status, run.machine.closed, run.machine.pending)
    assert ["0 all", "0.0.0 one", "0.1.0 go"] == run.asked


# ---- pause


def test_a_pause_is_told_and_lifted() -> None:
    run = replay(two_steps, history=[pause()])
    assert run.machine.paused
    run.feed(unpause())
    assert not run.machine.paused


def test_an_outcome_is_taken_in_while_paused() -> None:
    """What was under way is recorded and fed; it is the owner who writes nothing else."""
    run = replay(two_steps, history=[pause(), returned()])
    assert ["1 two"] == frontier(run)
    assert run.machine.paused
    check_replay(run)


def test_cancel_lifts_a_pause_and_nothing_pauses_a_cancelled_run() -> None:
    run = replay(two_steps, history=[pause(), cancel()])
    assert not run.machine.paused
    run.feed(pause())
    assert not run.machine.paused
    check_replay(run)


# ---- branches


def test_every_fiber_is_cancelled_whatever_it_waits_for() -> None:
    seen: list[str] = []

    @workflow
    def many() -> Flow[None]:
        def one(name: str, command: Any) -> Flow[None]:
            try:
                yield command
                yield Sleep(1)
            except Cancelled:
                seen.append(name)
                raise

        yield All(one("sleep", Sleep(60)), one("step", task("s")), one("group", All(Suspend("x"))), one("now", Now()))

    run = replay(many, history=[cancel()])
    assert ["sleep", "group"] == seen
    run.feed(returned(step="s"))
    run.feed(e.Now(at="0.3.0", value=STAMP, timestamp=STAMP))
    assert ["sleep", "group", "step", "now"] == seen
    assert "cancelled" == run.status
    check_replay(run)


def test_the_clean_up_of_branches_is_performed_side_by_side() -> None:
    @workflow
    def many() -> Flow[None]:
        def one(name: str) -> Flow[None]:
            try:
                yield Sleep(60)
            finally:
                yield task(f"clean-{name}")

        try:
            yield All(one("a"), one("b"))
        finally:
            yield task("clean-all")

    run = replay(many, history=[cancel()])
    assert ["0.0.1 clean-a", "0.1.1 clean-b"] == frontier(run)
    run.feed(returned(step="clean-b"))
    run.feed(returned(step="clean-a"))
    assert ["1 clean-all"] == frontier(run)
    run.feed(returned())
    assert "cancelled" == run.status
    check_replay(run)


def test_a_branch_that_is_cancelled_by_its_group_knows_nothing_of_the_next_group() -> None:
    """Only the fibers of the failed group are cancelled; the root goes on."""

    @workflow
    def going_on() -> Flow[Any]:
        with suppress(StepFailed):
            yield All(task("boom"), Suspend("x"))
        return list((yield All(task("a"), Suspend("go"))))

    run = replay(going_on, history=[raised(OSError("x")), returned(1), received("go", 2)])
    assert [1, 2] == run.result
    check_replay(run)


def test_a_cancel_after_a_group_was_decided_reaches_its_losers_only_once() -> None:
    """They are cancelled already, and clean up once."""
    cleaned: list[str] = []

    @workflow
    def raced() -> Flow[Any]:
        def loser() -> Flow[None]:
            try:
                yield Suspend("x")
            finally:
                cleaned.append("once")
                yield task("clean")

        return list((yield Race(task("a"), loser())))

    run = replay(raced, history=[returned("won"), cancel(), returned(step="clean")])
    assert [0, "won"] == run.result
    assert ["once"] == cleaned
    check_replay(run)


def test_timers_of_interrupted_waits_are_ignored() -> None:
    @workflow
    def cleaning() -> Flow[None]:
        try:
            yield All(Sleep(60), Suspend("go", timeout=60))
        finally:
            yield task("clean")

    sleep = slept("0.0.0")
    run = fold(
        cleaning, sleep[0], waits("0.1.0", "go", due=STAMP), e.Cancel(), sleep[1], e.Wake(at="0.1.0"), did("1", "clean")
    )
    assert "cancelled" == run.machine.status


def test_an_inner_workflow_sees_it_at_its_own_yield() -> None:
    """A helper that is put inline with `yield from` cleans up first."""
    order: list[str] = []

    def helper() -> Flow[None]:
        try:
            yield Step(ask).options(name="inner")
            yield Sleep(60)
        finally:
            order.append("inner")

    @workflow
    def outer() -> Flow[None]:
        try:
            yield from helper()
        finally:
            order.append("outer")

    assert "cancelled" == replay(outer, history=[returned(), cancel()]).status
    assert ["inner", "outer"] == order
