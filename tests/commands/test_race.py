"""Race: branches at once, and the first to end decides."""

from __future__ import annotations

from typing import Any

import pytest

from stepwell import (
    All,
    Cancelled,
    Flow,
    InvalidInputError,
    InvalidYieldError,
    Now,
    Race,
    Sleep,
    StepFailed,
    Suspend,
    workflow,
)
from stepwell import events as e
from stepwell.testing import cancel, cancelled, fired, raised, received, replay, returned

from ..unit.tools import STAMP, asked, broke, check_replay, did, fold, frontier, sent, task, waits


@workflow
def steps() -> Flow[list[Any]]:
    return list((yield Race(task("a"), task("b"), task("c"))))


@workflow
def hurried() -> Flow[list[Any]]:
    """A signal against the clock, by name."""
    return list((yield Race(done=Suspend("go"), late=Sleep(60))))


@pytest.mark.parametrize(("index", "name"), [(0, "a"), (1, "b"), (2, "c")])
def test_the_first_to_end_decides(index: int, name: str) -> None:
    run = replay(steps, history=[returned("won", step=name), cancelled(), cancelled()])
    assert [index, "won"] == run.result
    check_replay(run)


def test_named_branches_give_the_name_and_have_paths_by_position() -> None:
    run = replay(hurried)
    assert ["0 race", "0.0.0 go", "0.1.0 sleep"] == asked(run)
    run.feed(fired())
    assert ["late", None] == run.result
    check_replay(run)
    assert ["done", 1] == replay(hurried, history=[received("go", 1)]).result


def test_no_branch_outlives_the_race() -> None:
    """It delivers when every loser has ended; until then they are marked, and their steps begin no more."""
    run = replay(steps, history=[returned("won", step="b")])
    assert [("0.0.0", True, True), ("0.2.0", True, True)] == [
        (p.at, p.cancelling, p.lost) for p in run.machine.pending.values()
    ]
    run.feed(cancelled())
    assert "open" == run.status
    run.feed(cancelled())
    assert [1, "won"] == run.result


@pytest.mark.parametrize(
    "late", [did("0.0.0", "a", "late"), broke("0.0.0", "a", OSError("late"))], ids=["value", "failure"]
)
def test_a_late_result_of_a_loser_is_dropped(late: e.Step) -> None:
    """The loser sees Cancelled at its own yield, as if the step had never ended."""
    seen: list[Any] = []

    @workflow
    def watched() -> Flow[list[Any]]:
        def loser() -> Flow[None]:
            try:
                seen.append((yield task("a")))
            except BaseException as error:
                seen.append(type(error))
                raise

        return list((yield Race(loser(), task("b"))))

    run = fold(watched, did("0.1.0", "b", "won"), late)
    assert [1, "won"] == run.machine.result
    assert [Cancelled] == seen


def test_the_first_to_end_decides_by_its_failure_too() -> None:
    run = replay(steps, history=[raised(OSError("b"), step="b"), cancelled(), cancelled()])
    assert run.failure.is_a(OSError)
    check_replay(run)


def test_a_failure_after_the_decision_is_dropped_with_its_branch() -> None:
    """Clean-up of a loser that fails says nothing about the winner."""

    @workflow
    def messy() -> Flow[list[Any]]:
        def loser() -> Flow[None]:
            try:
                yield Suspend("never")
            finally:
                yield task("clean")

        return list((yield Race(loser(), task("b"))))

    run = replay(messy, history=[returned("won", step="b"), raised(OSError("clean"), step="clean")])
    assert [1, "won"] == run.result
    check_replay(run)


def test_losers_clean_up_before_the_race_is_over() -> None:
    @workflow
    def tidy() -> Flow[Any]:
        def loser() -> Flow[None]:
            try:
                yield Suspend("never")
            finally:
                yield task("one")
                yield task("two")

        _, value = yield Race(loser(), task("b"))
        yield task("after")
        return value

    run = replay(tidy, history=[returned("won", step="b")])
    assert ["0.0.1 one"] == frontier(run)
    run.feed(returned())
    assert ["0.0.2 two"] == frontier(run)
    run.feed(returned())
    assert ["1 after"] == frontier(run)
    check_replay(run)


def test_a_loser_that_is_asleep_or_waits_is_interrupted_at_once() -> None:
    @workflow
    def many() -> Flow[list[Any]]:
        return list((yield Race(Sleep(60), Suspend("go"), task("b"), All(Suspend("x"), Sleep(9)))))

    run = replay(many, history=[returned("won")])
    assert [2, "won"] == run.result
    check_replay(run)


def test_a_branch_that_has_not_started_never_does() -> None:
    ran: list[str] = []

    @workflow
    def quick() -> Flow[list[Any]]:
        def at_once() -> Flow[str]:
            if ran:
                yield task("never")
            return "won"

        def never() -> Flow[None]:
            ran.append("never")
            yield task("never")

        return list((yield Race(at_once(), never())))

    assert [0, "won"] == replay(quick).result
    assert [] == ran


def test_a_nested_group_whose_branches_have_not_started_loses_too() -> None:
    ran: list[str] = []

    @workflow
    def quick() -> Flow[list[Any]]:
        def never() -> Flow[None]:
            ran.append("never")
            yield task("never")

        def at_once() -> Flow[str]:
            if ran:
                yield task("never")
            return "won"

        return list((yield Race(All(never(), never()), at_once())))

    assert [1, "won"] == replay(quick).result
    assert [] == ran


def test_the_losers_of_an_outside_event_get_their_outcome_from_the_owner() -> None:
    """A signal decides; the owner's next events are `cancelled` for the steps that lost."""

    @workflow
    def decided() -> Flow[list[Any]]:
        return list((yield Race(Suspend("go"), task("a"))))

    run = fold(decided, waits("0.0.0", "go"), sent("go", 1))
    assert [("0.1.0", True)] == [(p.at, p.lost) for p in run.machine.pending.values()]
    run.machine.feed(e.Cancelled(at="0.1.0", timestamp=STAMP))
    assert [0, 1] == run.machine.result


def test_the_loser_of_a_race_in_a_race_is_lost_all_the_way_down() -> None:
    @workflow
    def nested() -> Flow[list[Any]]:
        return list((yield Race(Race(All(task("deep")), Suspend("x")), task("b"))))

    run = replay(nested, history=[returned("won", step="b")])
    assert [("0.0.0.0.0.0.0", True)] == [(p.at, p.lost) for p in run.machine.pending.values()]
    run.feed(returned("late", step="deep"))
    assert [1, "won"] == run.result
    check_replay(run)


def test_the_value_of_a_winner_may_be_a_group() -> None:
    @workflow
    def nested() -> Flow[str]:
        return repr((yield Race(All(task("a"), task("b")), Sleep(60))))

    assert "(0, (1, 2))" == replay(nested, history=[returned(1), returned(2)]).result


# ---- under a cancel


def test_a_cancelled_race_keeps_any_value() -> None:
    """A step in flight keeps its real outcome; Cancelled comes at the next effect."""
    seen: list[Any] = []

    @workflow
    def kept() -> Flow[None]:
        seen.append((yield Race(task("a"), Suspend("go"))))
        yield task("next")

    run = replay(kept, history=[cancel(), returned("paid")])
    assert [(0, "paid")] == seen
    assert "cancelled" == run.status
    check_replay(run)


def test_a_cancelled_race_without_a_value_raises_cancelled() -> None:
    for last in (cancelled(), raised(OSError("x"))):
        run = replay(steps, history=[cancel(), cancelled(step="a"), raised(OSError("b"), step="b"), last])
        assert "cancelled" == run.status
        check_replay(run)


def test_a_failure_in_a_cancelled_race_does_not_decide() -> None:
    """A value that comes later still does."""

    @workflow
    def kept() -> Flow[list[Any]]:
        return list((yield Race(task("a"), task("b"))))

    run = replay(kept, history=[cancel(), raised(OSError("a"), step="a"), returned("late", step="b")])
    assert [1, "late"] == run.result
    check_replay(run)


def test_the_first_value_in_a_cancelled_race_decides() -> None:
    run = replay(steps, history=[cancel(), returned(2, step="b"), returned(1, step="a"), cancelled()])
    assert [1, 2] == run.result


def test_a_race_decided_by_a_value_before_the_cancel_keeps_it() -> None:
    run = replay(steps, history=[returned("won", step="b"), cancel(), cancelled(), cancelled()])
    assert [1, "won"] == run.result
    check_replay(run)


def test_a_race_decided_by_a_failure_before_the_cancel_is_cancelled() -> None:
    run = replay(steps, history=[raised(OSError("b"), step="b"), cancel(), cancelled(), cancelled()])
    assert "cancelled" == run.status
    check_replay(run)


def test_a_loser_that_swallows_cancelled_still_loses() -> None:
    @workflow
    def stubborn() -> Flow[list[Any]]:
        def loser() -> Flow[str]:
            try:
                yield Suspend("never")
            except Cancelled:
                return "I go on"
            return "never"

        return list((yield Race(loser(), task("b"))))

    assert [1, "won"] == replay(stubborn, history=[returned("won")]).result


def test_a_failure_is_raised_inside_the_workflow() -> None:
    @workflow
    def caught() -> Flow[str]:
        try:
            yield Race(task("a"), Sleep(60))
        except StepFailed as error:
            return error.at
        return "fine"

    assert "0.0.0" == replay(caught, history=[raised(OSError("x"))]).result


# ---- arguments


@pytest.mark.parametrize(("branches", "named"), [((), {}), ((Now(),), {"late": Now()})])
def test_branches_are_given_all_by_position_or_all_by_name(branches: Any, named: Any) -> None:
    with pytest.raises(InvalidInputError, match="either all by position or all by name, and at least one"):
        Race(*branches, **named)


def test_anything_else_is_refused_where_it_is_made() -> None:
    with pytest.raises(InvalidInputError, match="branch 1 of Race must be a command or a generator, got 3"):
        Race(done=Now(), late=3)  # type: ignore[call-overload]


def test_one_generator_in_two_branches_is_refused() -> None:
    gen = steps()
    with pytest.raises(InvalidInputError, match="branch 1 of Race is a generator that another branch has already"):
        Race(a=gen, b=gen)


def test_a_group_that_is_yielded_twice_is_refused() -> None:
    """Its generators are used up; one of commands may be yielded again."""

    @workflow
    def twice() -> Flow[None]:
        def one() -> Flow[None]:
            yield task("a")

        race: Race[Any] = Race(one())
        yield race
        yield race

    @workflow
    def commands() -> Flow[list[Any]]:
        race: Race[Any] = Race(task("a"))
        return [*(yield race), *(yield race)]

    with pytest.raises(InvalidYieldError, match="branch 0 of Race is a generator that is in use already"):
        replay(twice, history=[returned()])
    assert [0, 1, 0, 2] == replay(commands, history=[returned(1), returned(2)]).result


def test_races_are_equal_when_branches_and_names_are() -> None:
    assert Race(Now(), Sleep(1)) == Race(Now(), Sleep(1))
    assert Race(Now(), Sleep(1)) != Race(Sleep(1), Now())
    assert Race(a=Now()) != Race(b=Now())
    others: list[Any] = [Race(a=Now()), All(Now()), Now()]
    assert Race(Now()) not in others


@pytest.mark.parametrize("name", ["self", "branches", "named"])
def test_a_branch_may_have_any_name(name: str) -> None:
    @workflow
    def named() -> Flow[Any]:
        return list((yield Race(**{name: task("a")})))

    assert (name,) == Race(**{name: Now()}).names
    assert [name, 1] == replay(named, history=[returned(1)]).result
