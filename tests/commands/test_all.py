"""All: branches at once, and the tuple of their values."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from stepwell import (
    All,
    Cancelled,
    Emit,
    Flow,
    InvalidInputError,
    InvalidYieldError,
    Now,
    Patched,
    SetState,
    Sleep,
    Step,
    StepFailed,
    Suspend,
    workflow,
)
from stepwell.testing import cancel, cancelled, fired, raised, received, replay, returned

from ..unit.tools import ask, asked, check_replay, frontier, task


@workflow
def three() -> Flow[list[Any]]:
    return list((yield All(task("a"), task("b"), task("c"))))


@workflow
def chains() -> Flow[list[Any]]:
    """Three branches of two steps each."""

    def chain(name: str) -> Flow[Any]:
        first = yield task(f"{name}1")
        return [first, (yield task(f"{name}2"))]

    return list((yield All(chain("a"), chain("b"), chain("c"))))


def test_nothing_at_all_is_answered_at_once() -> None:
    """It takes a number all the same."""

    @workflow
    def nothing() -> Flow[list[Any]]:
        got = yield All()
        yield task("next")
        return [repr(got)]

    run = replay(nothing)
    assert ["0 all", "1 next"] == asked(run)
    run.feed(returned())
    assert ["()"] == run.result


def test_branches_start_from_left_to_right() -> None:
    run = replay(chains)
    assert ["0 all", "0.0.0 a1", "0.1.0 b1", "0.2.0 c1"] == asked(run)


@pytest.mark.parametrize("order", list(permutations("abc")))
def test_values_come_in_the_order_of_the_branches(order: tuple[str, ...]) -> None:
    """Whatever the order in which the branches end."""
    run = replay(three, history=[returned(name, step=name) for name in order])
    assert ["a", "b", "c"] == run.result
    check_replay(run)


def test_a_branch_goes_on_as_soon_as_it_can() -> None:
    run = replay(chains, history=[returned(1, step="b1"), returned(2, step="b2")])
    assert ["0.0.0 a1", "0.2.0 c1"] == frontier(run)
    run.feed(returned(3, step="a1"))
    assert ["0.2.0 c1", "0.0.1 a2"] == frontier(run)
    check_replay(run)


def test_no_sibling_shifts_a_path() -> None:
    """The same command has the same path in every interleaving."""
    paths = set()
    for order in permutations("abc"):
        run = replay(chains, history=[returned(step=f"{name}1") for name in order])
        paths.add(frozenset(run.commands[4:] and asked(run)[4:]))
        run.close()
    assert {frozenset({"0.0.1 a2", "0.1.1 b2", "0.2.1 c2"})} == paths


def test_a_group_takes_a_number_and_its_branches_count_from_nought() -> None:
    @workflow
    def later() -> Flow[None]:
        yield task("first")
        yield All(task("a"), All(task("b"), task("c")))
        yield task("last")

    run = replay(later, history=[returned()])
    assert ["0 first", "1 all", "1.0.0 a", "1.1.0 all", "1.1.0.0.0 b", "1.1.0.1.0 c"] == asked(run)
    for _ in range(3):
        run.feed(returned())
    assert ["2 last"] == frontier(run)
    check_replay(run)


def test_the_answer_is_a_tuple_even_of_one() -> None:
    @workflow
    def one() -> Flow[str]:
        return repr((yield All(task("a"))))

    assert "('x',)" == replay(one, history=[returned("x")]).result


def test_a_branch_that_yields_nothing_ends_at_once() -> None:
    @workflow
    def quick() -> Flow[list[Any]]:
        def at_once(value: int) -> Flow[int]:
            if value < 0:
                yield task("never")
            return value

        return list((yield All(at_once(1), at_once(2))))

    assert [1, 2] == replay(quick).result


@pytest.mark.parametrize("command", [Now(), Sleep(1), Suspend("x"), Emit(1), Step(ask).options(name="s"), All()])
def test_every_numbered_command_can_be_a_branch(command: Any) -> None:
    @workflow
    def one() -> Flow[None]:
        yield All(command)

    assert "0.0.0" == replay(one).commands[1][0]


# ---- failures


def test_the_first_failure_cancels_the_others_and_is_raised_when_they_have_ended() -> None:
    run = replay(three, history=[raised(KeyError("b"), step="b")])
    assert [True, True] == [p.cancelling for p in run.machine.pending.values()]
    assert "open" == run.status
    run.feed(cancelled(step="a"))
    assert "open" == run.status
    run.feed(cancelled(step="c"))
    assert run.failure.is_a(KeyError)
    assert "b" == run.error.step_id  # type: ignore[union-attr]
    check_replay(run)


def test_a_sibling_in_flight_keeps_its_real_outcome() -> None:
    """It is recorded and delivered, and Cancelled comes at the sibling's next effect."""
    seen: list[Any] = []

    @workflow
    def failing() -> Flow[None]:
        def careful() -> Flow[None]:
            try:
                charge = yield task("charge")
                seen.append(charge)
                yield task("ship")
            except Cancelled:
                seen.append("cancelled")
                yield task("refund")
                raise

        yield All(task("boom"), careful())

    run = replay(failing, history=[raised(OSError("boom"), step="boom"), returned("receipt", step="charge")])
    assert ["receipt", "cancelled"] == seen
    assert ["0.1.1 refund"] == frontier(run)  # the command that met Cancelled took no number
    run.feed(returned(step="refund"))
    assert run.failure.is_a(OSError)
    check_replay(run)


def test_waiting_siblings_are_interrupted_at_once() -> None:
    @workflow
    def failing() -> Flow[None]:
        yield All(Suspend("go"), Sleep(60), task("boom"))

    run = replay(failing, history=[raised(OSError("boom"))])
    assert run.failure.is_a(OSError)
    check_replay(run)


def test_later_failures_become_notes_of_the_first() -> None:
    run = replay(three, history=[raised(KeyError("b"), step="b")])
    run.feed(raised(OSError("a"), step="a"))
    run.feed(raised(ValueError("c"), step="c"))
    assert run.failure.is_a(KeyError)
    assert run.error is not None
    assert [
        "branch 0 failed too: StepFailed: step 'a' failed: OSError: a",
        "branch 2 failed too: StepFailed: step 'c' failed: ValueError: c",
    ] == run.error.__notes__
    check_replay(run)


def test_a_cancelled_sibling_is_no_failure() -> None:
    run = replay(three, history=[raised(KeyError("b"), step="b"), cancelled(), cancelled()])
    assert not hasattr(run.error, "__notes__")


def test_the_failure_is_raised_inside_the_workflow() -> None:
    @workflow
    def caught() -> Flow[str]:
        try:
            yield All(task("a"), task("b"))
        except StepFailed as error:
            return f"{error.step_id} at {error.at}"
        return "fine"

    assert "a at 0.0.0" == replay(caught, history=[raised(OSError("x")), cancelled()]).result


def test_an_error_of_own_code_in_a_branch_is_raised_as_it_is() -> None:
    @workflow
    def wrong() -> Flow[str]:
        def broken() -> Flow[None]:
            yield task("a")
            raise ValueError("own")

        try:
            yield All(broken(), task("b"))
        except ValueError as error:
            return str(error)
        return "fine"

    assert "own" == replay(wrong, history=[returned(step="a"), cancelled()]).result


def test_a_branch_that_fails_at_once_stops_those_that_have_not_started() -> None:
    """Their generators never run a line."""
    ran: list[str] = []

    @workflow
    def quick() -> Flow[str]:
        def fails() -> Flow[None]:
            yield SetState(a=1)
            raise ValueError("own")

        def never() -> Flow[None]:
            ran.append("never")
            yield task("never")

        try:
            yield All(fails(), never())
        except ValueError as error:
            return str(error)
        return "fine"

    assert "own" == replay(quick).result
    assert [] == ran


# ---- settle


@workflow
def settled() -> Flow[list[str]]:
    values = yield All(task("a"), task("b"), task("c"), settle=True)
    return [value if isinstance(value, str) else type(value).__name__ + " " + str(value) for value in values]


@pytest.mark.parametrize("order", list(permutations("abc")))
def test_settled_branches_give_values_and_failures_side_by_side(order: tuple[str, ...]) -> None:
    """Nobody is cancelled."""
    run = replay(settled)
    for name in order:
        assert [False] * len(run.pending) == [p.cancelling for p in run.machine.pending.values()]
        run.feed(raised(OSError("no"), step="b") if name == "b" else returned(name, step=name))
    assert ["a", "StepFailed step 'b' failed: OSError: no", "c"] == run.result
    check_replay(run)


def test_settled_failures_have_no_notes() -> None:
    run = replay(settled, history=[raised(OSError(name), step=name) for name in "abc"])
    assert 3 == len([text for text in run.result if text.startswith("StepFailed")])


# ---- limit


@workflow
def limited() -> Flow[list[Any]]:
    return list((yield All(*(task(name) for name in "abcde"), limit=2)))


def test_a_limit_bounds_how_many_are_under_way() -> None:
    """The next one starts as soon as one has ended."""
    run = replay(limited)
    assert ["0.0.0 a", "0.1.0 b"] == frontier(run)
    run.feed(returned(2, step="b"))
    assert ["0.0.0 a", "0.2.0 c"] == frontier(run)
    for name, value in (("c", 3), ("d", 4), ("e", 5), ("a", 1)):
        run.feed(returned(value, step=name))
    assert [1, 2, 3, 4, 5] == run.result
    check_replay(run)


def test_after_a_failure_no_further_branch_starts() -> None:
    run = replay(limited, history=[raised(OSError("a"), step="a")])
    assert ["0.1.0 b"] == frontier(run)
    run.feed(cancelled())
    assert run.failure.is_a(OSError)
    check_replay(run)


def test_settled_branches_go_on_after_a_failure_within_the_limit() -> None:
    @workflow
    def both() -> Flow[int]:
        return len((yield All(task("a"), task("b"), task("c"), limit=1, settle=True)))

    run = replay(both, history=[raised(OSError("a")), returned(), raised(OSError("c"))])
    assert 3 == run.result
    check_replay(run)


def test_a_limit_holds_for_branches_that_end_at_once() -> None:
    @workflow
    def quick() -> Flow[list[int]]:
        under_way = [0]
        most = [0]

        def one(n: int) -> Flow[int]:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
            if n % 2:
                yield task(f"t{n}")
            under_way[0] -= 1
            return n

        values = yield All(*(one(n) for n in range(6)), limit=2)
        return [*values, most[0]]

    assert [0, 1, 2, 3, 4, 5, 2] == replay(quick, history=[returned()] * 3).result


# ---- under a cancel


def test_a_cancelled_group_keeps_the_values_when_every_branch_has_one() -> None:
    """Nothing of what was done is lost; Cancelled comes at the next effect."""
    seen: list[Any] = []

    @workflow
    def kept() -> Flow[None]:
        seen.append((yield All(task("a"), task("b"))))
        yield task("next")

    run = replay(kept, history=[returned(1), cancel(), returned(2)])
    assert [(1, 2)] == seen
    assert "cancelled" == run.status
    check_replay(run)


@pytest.mark.parametrize("last", [cancelled(step="b"), raised(OSError("b"), step="b")], ids=["cancelled", "failed"])
@pytest.mark.parametrize("settle", [False, True])
def test_a_cancelled_group_raises_cancelled_when_a_branch_has_no_value(last: Any, settle: bool) -> None:
    @workflow
    def lost() -> Flow[None]:
        yield All(task("a"), task("b"), settle=settle)

    run = replay(lost, history=[returned(1, step="a"), cancel(), last])
    assert "cancelled" == run.status
    check_replay(run)


def test_a_failure_before_the_cancel_is_cancelled_too() -> None:
    run = replay(three, history=[raised(KeyError("b"), step="b"), cancel(), cancelled(), cancelled()])
    assert "cancelled" == run.status
    check_replay(run)


def test_a_cancel_stops_the_branches_that_have_not_started() -> None:
    run = replay(limited, history=[cancel(), returned(step="a"), returned(step="b")])
    assert "cancelled" == run.status
    assert ["0 all", "0.0.0 a", "0.1.0 b"] == asked(run)


def test_steps_in_branches_opened_by_clean_up_are_performed() -> None:
    @workflow
    def cleaning() -> Flow[None]:
        try:
            yield Suspend("go")
        finally:
            yield All(task("tidy"), task("sweep"))
            yield task("leave")

    run = replay(cleaning, history=[cancel()])
    assert [("1.0.0 tidy", False), ("1.1.0 sweep", False)] == [
        (word, p.cancelling) for word, p in zip(frontier(run), run.machine.pending.values(), strict=True)
    ]
    for _ in range(3):
        run.feed(returned())
    assert "cancelled" == run.status
    check_replay(run)


def test_waits_in_branches_opened_by_clean_up_raise_cancelled_again() -> None:
    @workflow
    def cleaning() -> Flow[None]:
        try:
            yield Suspend("go")
        finally:
            try:
                yield All(task("tidy"), Suspend("never"))
            except Cancelled:
                yield task("leave")

    run = replay(cleaning, history=[cancel(), returned(step="tidy")])
    assert ["2 leave"] == frontier(run)
    run.feed(returned())
    assert "cancelled" == run.status
    check_replay(run)


# ---- what can't be a branch


@pytest.mark.parametrize("branch", [Patched("x"), SetState(a=1)])
def test_what_takes_no_number_can_not_be_a_branch(branch: Any) -> None:
    with pytest.raises(InvalidInputError, match="can't be a branch of All: yield it on its own"):
        All(branch)


@pytest.mark.parametrize(
    ("told", "branch"),
    [
        ("branch 1 of All must be a command or a generator, got 3", 3),
        ("; call the generator function", chains.fn),
        ("got None", None),
        ("got [", [task("a")]),
    ],
)
def test_anything_else_is_refused_where_it_is_made(told: str, branch: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        All(task("a"), branch)
    assert told in str(caught.value)


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "2"])
def test_a_limit_is_a_whole_number_of_one_or_more(limit: Any) -> None:
    with pytest.raises(InvalidInputError, match=f"1 or more, got {limit!r}"):
        All(task("a"), limit=limit)


def test_one_generator_in_two_branches_is_refused() -> None:
    gen = chains()
    with pytest.raises(InvalidInputError, match="branch 1 of All is a generator that another branch has already"):
        All(gen, gen)


def test_a_generator_that_was_started_is_refused() -> None:
    gen = chains()
    next(gen)
    with pytest.raises(InvalidInputError, match="branch 0 of All is a generator that has been started already"):
        All(gen)


def test_one_generator_in_two_groups_is_refused_at_the_yield() -> None:
    @workflow
    def twice() -> Flow[None]:
        def one() -> Flow[None]:
            yield task("a")

        gen = one()
        group, nested = All(gen), All(gen)
        yield All(group, nested)

    with pytest.raises(InvalidYieldError, match="branch 0 of All is a generator that is in use already"):
        replay(twice)


def test_the_own_generator_can_not_be_a_branch() -> None:
    handed: list[Any] = []

    @workflow
    def itself() -> Flow[None]:
        def inner() -> Flow[None]:
            yield task("a")
            yield All(handed[0])

        handed.append(inner())
        yield All(handed[0])

    with pytest.raises(InvalidInputError, match="has been started already"):
        raise replay(itself, history=[returned()]).error  # type: ignore[misc]


def test_one_command_may_be_in_many_branches() -> None:
    @workflow
    def same() -> Flow[list[Any]]:
        step = task("a")
        return list((yield All(step, step)))

    assert [1, 2] == replay(same, history=[returned(1), returned(2)]).result


def test_groups_are_equal_when_their_branches_are() -> None:
    """The limit is an option; whether failures are given or raised is not."""
    assert All(task("a"), Now()) == All(task("a"), Now(), limit=1)
    assert All(task("a")) != All(task("a", 1))
    assert All(task("a")) != All(task("a"), settle=True)


# ---- nothing left to chance


def test_branches_share_variables_deterministically() -> None:
    """Answers are delivered one at a time, in the order of the history."""

    @workflow
    def shared() -> Flow[list[str]]:
        log: list[str] = []

        def one(name: str) -> Flow[None]:
            log.append(f"{name} starts")
            yield task(name)
            log.append(f"{name} goes on")
            yield Emit(name)
            log.append(f"{name} ends")

        yield All(one("a"), one("b"))
        return log

    run = replay(shared, history=[returned(step="b"), returned(step="a")])
    assert ["a starts", "b starts", "b goes on", "b ends", "a goes on", "a ends"] == run.result
    check_replay(run)


def test_signals_and_timers_drive_branches_too() -> None:
    @workflow
    def mixed() -> Flow[list[Any]]:
        return list((yield All(Suspend("go"), Sleep(60), task("work"))))

    run = replay(mixed, history=[fired(), received("go", 1), returned(2)])
    assert [1, None, 2] == run.result
    check_replay(run)
